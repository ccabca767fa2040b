// What turns a checked graph into the raw outputs of the contract. Two implementations: aoti.cpp,
// torchscript.cpp. No torch in this header.
#pragma once

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

class Backend {
 public:
  virtual ~Backend() = default;
  // Throws std::runtime_error.
  virtual RawOutputs run(const Graph &graph) = 0;
};

// Throw std::invalid_argument when torch cannot open the file. `device` is -1 for the CPU, else a CUDA index.
std::unique_ptr<Backend> open_aoti(const std::string &path, const Metadata &metadata, int device);
std::unique_ptr<Backend> open_torchscript(const std::string &path, const Metadata &metadata, int device);

}    // namespace orb_export
