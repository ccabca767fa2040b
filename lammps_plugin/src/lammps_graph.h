// SPDX-License-Identifier: GPL-2.0-or-later
// From a full neighbor list of LAMMPS to the edges of the model. Knows neither LAMMPS nor torch.
#ifndef ORBV3_LAMMPS_GRAPH_H
#define ORBV3_LAMMPS_GRAPH_H

#include <cstdint>
#include <vector>

namespace orbv3 {

// The arrays of one LAMMPS step that the edges depend on; indices are local ones, ghosts included.
struct NeighborView {
  const double *const *x = nullptr;    // positions, angstrom
  const int *numneigh = nullptr;
  const int *const *firstneigh = nullptr;
  int mask = 0;    // clears the flag bits of a neighbor index
};

// Rows are the atoms that the model sees, in ascending order of local index.
struct Rows {
  std::vector<int> atom;    // (rows) local index; with several processes of own atoms only
  // (owned + ghosts) row of the atom, or of the one that the ghost is folded onto; -1: unseen
  std::vector<int64_t> of_atom;
};

constexpr int COLUMNS_OF_LIMIT = 3;

// That this process may use.
std::size_t available_cores();

class EdgeBuilder {
 public:
  EdgeBuilder(double cutoff, int64_t max_neighbors);

  // Every center's nearest candidates, sorted by center; periodic images are folded onto their owners.
  // `threads` 0: one per core that this process may use.
  void build(const NeighborView &list, const Rows &rows, int threads);

  // Appends the edges of other processes' atoms (rows from that of the last own atom on) to own ones, which
  // are those within the limits of these atoms; sorted by center.
  void add_ghost_edges(const NeighborView &list, const Rows &rows,
                       const std::vector<double> &limits);

  int64_t size() const { return static_cast<int64_t>(centers.size()); }
  std::vector<int64_t> centers, neighbors;    // (edges) rows
  std::vector<double> vectors;                // (edges, 3)

  // Whether build() shall also fill `limits`: (rows, COLUMNS_OF_LIMIT) of each center, see
  // orb_export::SelectionLimit; for other processes, which see only a part of its surroundings.
  bool wants_limits = false;
  std::vector<double> limits;

  // Local indices of two atoms at the same place, if the last build met any; -1 otherwise.
  int coincident[2] = {-1, -1};
  double memory_usage() const;

 private:
  struct Part {    // of one thread
    std::vector<int64_t> centers, neighbors, order;
    std::vector<int> candidates;
    std::vector<double> vectors, candidate_vectors, limits;
    int coincident[2] = {-1, -1};
  };
  void build_part(Part &part, const NeighborView &list, const Rows &rows, std::size_t begin,
                  std::size_t end) const;
  void gather_candidates(Part &part, const NeighborView &list, const Rows &rows, int i) const;
  void join();

  double cutoff_;
  int64_t max_neighbors_;
  std::vector<Part> parts_;
};

}    // namespace orbv3

#endif
