// The search behind radius_graph(), in two steps for callers that allocate the edge arrays themselves.
#pragma once

#include <memory>

#include "cell_grid.h"
#include "edge_lists.h"
#include "orb_export/graph.h"

namespace orb_export {

// Throws std::invalid_argument, in the name of `where`.
void check_options(const char *where, double cutoff, int threads);
void check_positions(const char *where, const double *positions, int64_t n_atoms);

// Threads to use for n atoms when the caller asked for `threads` (0: as many as useful).
int worker_count(int threads, int64_t n_atoms);

// Whether the neighbors of each center are ordered and capped by the rule of selection.h.
enum class NeighborOrder { kRule, kAny };

class NeighborSearch {
 public:
  // Finds and orders the neighbors. `positions` must live until the last write(). Throws
  // std::invalid_argument.
  NeighborSearch(const double *positions, int64_t n_atoms, const Box &box, double cutoff,
                 int64_t max_neighbors, int threads, NeighborOrder order = NeighborOrder::kRule);
  int64_t n_edges() const { return lists_.n_edges(); }
  template <class Shift>
  void write(const EdgeArrays<Shift> &edges) const {
    if (n_edges() > 0)
      lists_.write(
          positions_, box_, [this](int64_t) { return grid_->images.data(); },
          [this](int64_t center) -> const Image & { return grid_->centers[center]; }, edges, threads_);
  }
  // The neighbors of center i as images [starts[i], starts[i + 1]) with shifts relative to the given
  // positions.
  void copy_images(std::vector<int64_t> &starts, Array<Image> &images) const;

 private:
  void search_cells(int worker, int64_t first, int64_t last);

  const double *positions_;
  Box box_;
  double limit_;    // squared
  int64_t max_neighbors_;
  int threads_;
  NeighborOrder order_;
  std::unique_ptr<CellGrid> grid_;
  EdgeLists lists_;
};

}    // namespace orb_export
