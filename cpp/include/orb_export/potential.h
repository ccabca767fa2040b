// A compiled Orb-v3 potential, evaluated on a graph. No torch in this header: hosts include it freely.
//
// Conventions (see contract.h and docs/conventions.md): lengths in angstrom, energies in eV. Edge e runs from
// centers[e] to neighbors[e]; vectors[e] = x_neighbor - x_center.
#pragma once

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "orb_export/exchange.h"
#include "orb_export/graph.h"

// The libraries are built with hidden symbols; these are the ones that hosts link or look up.
#define ORB_EXPORT_API __attribute__((visibility("default")))

namespace orb_export {

// Views of arrays that the host owns; they must live until evaluate() returns.
struct Graph {
  int64_t n_atoms = 0;
  int64_t n_edges = 0;
  const int64_t *numbers = nullptr;      // (n_atoms) atomic numbers
  const int64_t *centers = nullptr;      // (n_edges), ascending
  const int64_t *neighbors = nullptr;    // (n_edges)
  const double *vectors = nullptr;       // (n_edges, 3)
  const double *positions = nullptr;     // (n_atoms, 3); read only by direct models without a cell
  std::array<double, 9> cell{};          // rows are lattice vectors; all zero when there is none
  double charge = 0.0;                   // elementary charges; read only by models conditioned on it
  double spin = 1.0;                     // multiplicity 2S+1; likewise

  // With an exchange: the last `n_ghosts` of the atoms are ghosts, rows that the exchange fills. Edges of own
  // centers come first. Either scheme, the same on all processes:
  // - plain: there are no other edges; sums over neighbors are completed by reverse_add.
  // - redundant: the last `n_ghost_edges` edges have a ghost as center, ascending, and an own atom as
  // neighbor;
  //   together these are all edges that touch an own atom, each also evaluated where its other end is owned.
  int64_t n_ghosts = 0;
  int64_t n_ghost_edges = 0;
  bool redundant = false;
  // Why the host could not make this graph; then numbers, edges and positions are not read, and evaluate()
  // throws this text here as std::runtime_error, after what the other processes wait for.
  const char *failure = nullptr;

  int64_t n_own() const { return n_atoms - n_ghosts; }
};

// What the host will read of the result; the rest may be left empty, which saves its computation.
struct Request {
  bool forces = true;    // forces, strain gradient and stress
  bool confidence = true;
  bool per_atom = false;    // energies and, with forces, virials of atoms
};

struct Result {
  double energy = 0.0;                        // eV
  std::vector<double> forces;                 // (n_own, 3) eV/angstrom
  std::array<double, 9> strain_gradient{};    // dE/d(strain), symmetric, eV; minus the virial. Direct with a
                                              // cell: stress * |det cell|; without: of the repulsion only
  std::array<double, 6> stress{};             // Voigt xx yy zz yz xz xy, eV/angstrom^3, tension positive;
                                              // without a cell: 0 (conservative) or the bare head (direct)
  double largest_force = 0.0;                 // eV/angstrom, a component; of evaluations on a device only
  std::vector<double> confidence;             // (n_own, kConfidenceBins) probabilities
  std::vector<double> atom_energies;          // (n_own) eV; their sum is the energy
  std::vector<double> atom_virials;    // (n_own, 9) eV, rows xx xy xz yx ...; the symmetric part of their
                                       // sum is minus the strain gradient
  int64_t memory = 0;                  // bytes of torch's tensors at the worst moment, without weights
};

// What an artefact says of itself, read and checked before any tensor is touched.
struct Metadata {
  int schema_version = 0;
  std::string format;           // "aoti" or "torchscript"
  std::string kind;             // "conservative" or "direct"
  std::string model;            // family name or file stem
  std::string dtype;            // "float32" or "float64"
  std::string precision;        // of the largest matrix products, see docs/artefact.md
  std::string device;           // "cpu" or "cuda"
  std::string torch_version;    // that exported the artefact
  std::string weights_sha256;
  std::string file_sha256;         // of the whole artefact file
  double cutoff = 0.0;             // angstrom
  int64_t max_neighbors = 0;       // per center
  bool has_charge_spin = false;    // conditioned on charge and spin
  bool has_stress = false;
  std::vector<int> elements;    // atomic numbers the model accepts
  // Names of the compiled programs: the whole potential and perhaps its steps (contract.h); and the sizes of
  // the network.
  std::vector<std::string> programs;
  int64_t channels = 0, hidden = 0, layers = 0;
  bool has_steps() const { return programs.size() > 1; }
  std::string json;    // the whole record
};

struct Options {
  std::string device = "auto";    // auto (as made for), cpu, cuda, cuda:N; auto/K, cuda/K: of process K
  int threads = 0;                // of this process, for torch; 0 keeps torch's own choice
  int64_t memory_limit = 0;       // bytes that an evaluation may use beyond the weights; 0: no limit
  // What gives forces in one process where the limit permits: whole | steps | auto, the faster of the two.
  std::string program = "auto";
  // On a GPU: captures the kernels of an evaluation and replays them, which is faster for small systems.
  bool cuda_graphs = true;
};

// Bytes of torch's tensors at the worst moment of an evaluation, beyond weights and inputs, a little
// overestimated.
struct Memory {
  int64_t used = 0;     // under the memory limit of the options
  int64_t least = 0;    // the smallest limit that can be kept
};

// An evaluation whose atoms stay on the potential's device, for hosts that have them there.
class DeviceEvaluation {
 public:
  virtual ~DeviceEvaluation() = default;
  // On the device, (n_atoms, 3) each: where the host writes positions, angstrom, and finds forces,
  // eV/angstrom.
  virtual double *positions() = 0;
  virtual const double *forces() const = 0;
  struct Conditions {
    Box box;
    double charge = 0.0, spin = 1.0;
  };
  // Finds the edges and evaluates. Positions must be complete when it is called, and forces are when it
  // returns. The result is valid until the next call; instead of forces it has their largest component.
  // Throws as Potential::evaluate().
  virtual const Result &evaluate(const Conditions &conditions, const Request &request) = 0;
  // That result again if neither positions nor conditions have changed and it has what is requested; or null.
  virtual const Result *known(const Conditions &conditions, const Request &request) = 0;
};

class ORB_EXPORT_API Potential {
 public:
  virtual ~Potential() = default;
  virtual const Metadata &metadata() const = 0;
  // Throws std::invalid_argument for bad input and std::runtime_error for a failed or non-finite evaluation.
  // With an exchange, every process calls this for its part of one system, with the same request; 0 own atoms
  // are fine. Positions of own atoms are then in one frame. Energy, strain gradient and stress are those of
  // the whole system, the rest of own atoms. When one process fails, all throw: that one its own error, the
  // others std::runtime_error("evaluate: another process failed"). Needs an artefact with steps.
  virtual Result evaluate(const Graph &graph, const Request &request = {}, Exchange *exchange = nullptr) = 0;
  // The same by the steps, `chunk` edges at a time; `kept` by layer: 0 nothing, 1 edge features, 2 all that
  // the gradient needs (Keep of plan.h). evaluate() chooses both itself: this is for tests and measurements.
  virtual Result evaluate_in_chunks(const Graph &graph, const Request &request, int64_t chunk,
                                    const std::vector<int> &kept, Exchange *exchange = nullptr) = 0;
  // For atoms of these atomic numbers. Per-atom results are not for it, nor is the edge search limited.
  virtual std::unique_ptr<DeviceEvaluation> on_device(const std::vector<int64_t> &numbers) = 0;
  // What such an evaluation will use. Throws std::invalid_argument when it cannot keep the memory limit.
  virtual Memory predict_memory(int64_t n_atoms, int64_t n_edges, const Request &request = {}) const = 0;
};

// Throws std::invalid_argument, naming the file and both sides of whatever does not fit.
ORB_EXPORT_API std::unique_ptr<Potential> load_potential(const std::string &path,
                                                         const Options &options = {});

// For hosts that open the runtime with dlopen: the one C symbol they look up ("orb_export_runtime").
struct Runtime {
  int schema_version;             // kSchemaVersion of the runtime
  const char *package_version;    // of orb_export
  const char *torch_version;      // the runtime was compiled against
  std::unique_ptr<Potential> (*load)(const std::string &path, const Options &options);
};

}    // namespace orb_export

extern "C" ORB_EXPORT_API const orb_export::Runtime *orb_export_runtime();
