// Selected neighbors of every center in compact form, before they are written out as edges.
#pragma once

#include <algorithm>
#include <cstdint>
#include <vector>

#include "cell_grid.h"
#include "orb_export/graph.h"
#include "parallel.h"

namespace orb_export {

// Where edges are written; `Shift` is int32_t or int64_t.
template <class Shift>
struct EdgeArrays {
  int64_t *centers;      // (E)
  int64_t *neighbors;    // (E)
  Shift *shifts;         // (E, 3)
  double *vectors;       // (E, 3)
};

inline EdgeArrays<int32_t> arrays_of(Edges &edges) {
  return {edges.centers.data(), edges.neighbors.data(), edges.shifts.data(), edges.vectors.data()};
}

// Memory of one worker, handed out in pieces that never move.
class Arena {
 public:
  // `count` values that stay valid until reset().
  uint32_t *allocate(int64_t count);
  void reset();

 private:
  std::vector<Array<uint32_t>> blocks_;
  size_t block_ = 0;
  int64_t used_ = 0;
};

// x_neighbor + shift . cell - x_center, in one fixed order of operations. Without `periodic`, of boxes that
// are open along all axes, whose translations are zero: the same bits sooner.
template <bool periodic>
inline void edge_vector(const double *center, const double *neighbor, const int32_t shift[3],
                        const double *cell, double vector[3]) {
  for (int d = 0; d < 3; ++d) {
    double translation = 0.0;
    if constexpr (periodic)
      translation = shift[0] * cell[d] + shift[1] * cell[3 + d] + shift[2] * cell[6 + d];
    vector[d] = (neighbor[d] + translation) - center[d];
  }
}

inline bool is_open(const Box &box) { return !box.periodic[0] && !box.periodic[1] && !box.periodic[2]; }

// Neighbors as indices into a table of images.
class EdgeLists {
 public:
  // Empty lists of n centers, to be filled by at most `workers` threads.
  void reset(int64_t n_centers, int workers);

  // Copies the list of one center; workers must fill different centers.
  template <class At>
  void set(int worker, int64_t center, int64_t count, const At &at) {
    uint32_t *points = arenas_[worker].allocate(count);
    for (int64_t k = 0; k < count; ++k) points[k] = at(k);
    lists_[center] = {points, count};
  }

  // To be called once after the last set(). Returns the number of edges.
  int64_t finish();
  int64_t n_edges() const { return offsets_.empty() ? 0 : offsets_.back(); }
  int64_t n_centers() const { return static_cast<int64_t>(lists_.size()); }
  const std::vector<int64_t> &offsets() const { return offsets_; }    // (n_centers + 1)
  const uint32_t *points(int64_t center) const { return lists_[center].points; }

  // Writes the edges in order of the centers. `images_of(center)` yields the table that the list of a center
  // refers to, `home(center)` the image of the center that its neighbors' shifts are relative to.
  template <class Shift, class ImagesOf, class Home>
  void write(const double *positions, const Box &box, const ImagesOf &images_of, const Home &home,
             const EdgeArrays<Shift> &edges, int threads) const {
    const auto cell = periodic_cell(box);
    const bool open = is_open(box);
    const int64_t n_chunks = (n_centers() + kCentersPerChunk - 1) / kCentersPerChunk;
    parallel_for(threads, n_chunks, [&](int, int64_t chunk) {
      const int64_t end = std::min(n_centers(), (chunk + 1) * kCentersPerChunk);
      for (int64_t c = chunk * kCentersPerChunk; c < end; ++c) {
        if (open)
          write_center<false>(positions, cell.data(), images_of(c), home(c), c, edges);
        else
          write_center<true>(positions, cell.data(), images_of(c), home(c), c, edges);
      }
    });
  }

 private:
  static constexpr int64_t kCentersPerChunk = 256;

  template <bool periodic, class Shift>
  void write_center(const double *positions, const double *cell, const Image *images, const Image &home,
                    int64_t center, const EdgeArrays<Shift> &edges) const {
    const List &list = lists_[center];
    int64_t e = offsets_[center];
    for (int64_t k = 0; k < list.count; ++k, ++e) {
      const Image &image = images[list.points[k]];
      const int32_t shift[3] = {image.shift[0] - home.shift[0], image.shift[1] - home.shift[1],
                                image.shift[2] - home.shift[2]};
      edges.centers[e] = center;
      edges.neighbors[e] = image.atom;
      for (int d = 0; d < 3; ++d) edges.shifts[3 * e + d] = shift[d];
      edge_vector<periodic>(positions + 3 * center, positions + 3 * static_cast<int64_t>(image.atom), shift,
                            cell, edges.vectors + 3 * e);
    }
  }

  struct List {
    const uint32_t *points;
    int64_t count;
  };
  std::vector<List> lists_;
  std::vector<int64_t> offsets_;
  std::vector<Arena> arenas_;
};

}    // namespace orb_export
