// Radius graphs with a cap on the neighbors of each center. Knows neither torch nor any host.
#pragma once

#include <array>
#include <cstdint>
#include <vector>

namespace orb_export {

struct Box {
  std::array<double, 9> cell{};       // rows are lattice vectors, angstrom; ignored along open axes
  std::array<bool, 3> periodic{};     // per lattice vector
};

// Edges sorted by center, then by distance, ties by the projection of the vector on kTieDirection.
struct Edges {
  std::vector<int64_t> centers;      // (E)
  std::vector<int64_t> neighbors;    // (E)
  std::vector<int32_t> shifts;       // (E, 3) lattice translations of the neighbor
  std::vector<double> vectors;       // (E, 3) x_neighbor + shift . cell - x_center
  int64_t size() const { return static_cast<int64_t>(centers.size()); }
};

// All pairs closer than `cutoff`, at most `max_neighbors` nearest per center (negative: no cap).
// Throws std::invalid_argument. `threads` 0: one per core this process may use.
Edges radius_graph(const double *positions, int64_t n_atoms, const Box &box, double cutoff,
                   int64_t max_neighbors, int threads = 0);

// The same list during molecular dynamics: candidates within cutoff + skin are kept and re-filtered
// until an atom has moved further than skin / 2 or the box has changed.
class GraphBuilder {
 public:
  GraphBuilder(double cutoff, int64_t max_neighbors, double skin, int threads = 0);
  const Edges &update(const double *positions, int64_t n_atoms, const Box &box);
  int64_t rebuilds() const { return rebuilds_; }
  int64_t updates() const { return updates_; }

 private:
  double cutoff_, skin_;
  int64_t max_neighbors_;
  int threads_;
  int64_t rebuilds_ = 0, updates_ = 0;
  Edges candidates_, edges_;
  std::vector<double> built_positions_;
  Box built_box_;
};

// For a host with its own candidates (a LAMMPS neighbor list): of `n` candidate vectors of one center, the
// indices of those within `cutoff`, ordered and capped by the same rule. `order` is scratch and result.
void select_neighbors(const double *vectors, int64_t n, double cutoff, int64_t max_neighbors,
                      std::vector<int64_t> &order);

}    // namespace orb_export
