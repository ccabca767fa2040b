// From gradients of edges and outputs of atoms to energy, forces, stress and their parts of atoms. No torch.
#pragma once

#include <array>
#include <memory>
#include <stdexcept>
#include <vector>

#include "orb_export/potential.h"

namespace orb_export {

// Outputs in the order of contract.h, float64 on the host; they live as long as `owner`.
struct RawOutputs {
  double energy = 0.0;
  const double *edge_gradient = nullptr;    // (n_edges, 3)
  const double *confidence = nullptr;       // (n_atoms, kConfidenceBins)
  const double *atom_energies = nullptr;    // (n_atoms)
  const double *node_forces = nullptr;      // (n_atoms, 3), direct only
  double force_offset = 0.0;                // direct only
  const double *node_stress = nullptr;      // (6), direct only
  std::shared_ptr<void> owner;
};

// What forces need that is summed over the atoms and edges of all processes.
struct ForceSums {
  std::array<double, 3> node_force{};    // of direct models
  std::array<double, 3> torque{};        // of these forces about the centroid
  std::array<double, 9> inertia{};       // sum of r r^T about the centroid
  std::array<double, 9> strain{};        // sum of vector (x) gradient
};
inline constexpr int64_t kForceSums = sizeof(ForceSums) / sizeof(double);
inline constexpr int64_t kCentroidSums = 4;    // of positions, and number of atoms
inline constexpr int64_t kEnergySums = 3;      // references, repulsion, number of atoms; then the latent sum

struct NotFinite : std::runtime_error {
  using std::runtime_error::runtime_error;
};

// Throws NotFinite naming the values.
void require_finite(const double *values, int64_t n, const char *name);

bool has_cell(const Graph &graph);
// Numbers of an atom that its edges add up: the force and, where asked for, the virial.
int64_t edge_row_width(const Request &request);

// What of a result is the same for all atoms.
struct Totals {
  double energy = 0.0;
  double n_atoms = 0.0;
  double force_offset = 0.0;              // direct only
  const double *head_stress = nullptr;    // (6), direct only
};

// The result of one process under construction. Called in this order; what comes between is between
// processes.
class Assembly {
 public:
  Assembly(const Graph &graph, const Metadata &metadata, const Request &request);

  // Own atoms' sum of positions, and their number: (kCentroidSums); set_centroid takes it back summed up.
  std::array<double, 4> centroid_sums() const;
  void set_centroid(const std::array<double, 4> &sums);
  // Energy gradient of each edge (n_edges, 3). Throws NotFinite.
  void add_edges(const double *gradient);
  // (n_atoms, edge_row_width): the rows of ghosts are to be added to those of their atoms.
  std::vector<double> &edge_rows() { return edge_rows_; }
  // Forces from the head of a direct model (n_own, 3).
  void add_node_forces(const double *forces);
  // Throws NotFinite unless everything of own atoms is finite so far.
  void check() const;
  ForceSums &sums() { return sums_; }

  // Both pointers: of own atoms; null where not asked for.
  Result finish(const Totals &totals, const double *confidence, const double *atom_energies);

 private:
  void add_node_part(const Totals &totals, Result &result) const;
  void set_stress(const Totals &totals, Result &result) const;
  void set_virials(const Totals &totals, Result &result) const;

  const Graph &graph_;
  const Metadata &metadata_;
  const Request request_;
  std::array<double, 3> centroid_{};
  std::vector<double> edge_rows_, node_forces_;
  ForceSums sums_;
};

// The result of the whole program. Throws NotFinite.
Result assemble(const Graph &graph, const Metadata &metadata, const Request &request, const RawOutputs &raw);

// Adds torque and inertia of `forces` (n, 3) at `positions` (n, 3) about a point to `sums`.
void add_moments(const double *positions, const double *forces, int64_t n, const std::array<double, 3> &about,
                 ForceSums &sums);
// mu of the forces r x mu that undo a torque: M mu = -torque with M = sum r r^T - (sum r^2) 1. Directions
// without inertia are left alone.
std::array<double, 3> compensation(const ForceSums &sums);
// Adds r x mu.
void add_rotation(const double *positions, int64_t n, const std::array<double, 3> &about,
                  const std::array<double, 3> &mu, double *forces);

// Eigenvalues and eigenvectors (columns of `vectors`) of a symmetric 3x3 matrix, by Jacobi rotations.
void symmetric_eigen(std::array<double, 9> matrix, std::array<double, 3> &values,
                     std::array<double, 9> &vectors);

double determinant(const std::array<double, 9> &cell);

}    // namespace orb_export
