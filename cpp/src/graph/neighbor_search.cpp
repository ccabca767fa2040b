#include "neighbor_search.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>

#include "parallel.h"
#include "selection.h"

namespace orb_export {
namespace {

constexpr double kLargestCoordinate = 1e9;    // angstrom; beyond, float64 does not resolve a bond
constexpr int64_t kAtomsPerThread = 32;       // starting a thread costs as much as this many atoms
constexpr int64_t kChunksPerThread = 16;

template <class Value>
[[noreturn]] void reject(const char *where, const char *name, const Value &value, const char *requirement) {
  std::ostringstream message;
  message << where << ": `" << name << "` is " << value << " but must " << requirement;
  throw std::invalid_argument(message.str());
}

// Fills the selection with the points within the cutoff of point `self`, without itself.
int64_t find_hits(const CellGrid &grid, const CellGrid::Segment *segments, int n_segments, int64_t self,
                  double limit, Selection &selection) {
  const auto append_hits = kernels().append_hits;
  const double center[3] = {grid.x[self], grid.y[self], grid.z[self]};
  double *squares = selection.squares.data();
  uint32_t *points = selection.points.data();
  int64_t n = 0;
  for (int s = 0; s < n_segments; ++s) {
    const int64_t n_before = n;
    n = append_hits(grid.x.data(), grid.y.data(), grid.z.data(), segments[s].begin, segments[s].end, center,
                    limit, n, squares, points);
    if (self < segments[s].begin || self >= segments[s].end) continue;
    const int64_t own = std::lower_bound(points + n_before, points + n, static_cast<uint32_t>(self)) - points;
    std::copy(points + own + 1, points + n, points + own);
    std::copy(squares + own + 1, squares + n, squares + own);
    --n;
  }
  return n;
}

}    // namespace

void check_options(const char *where, double cutoff, int threads) {
  if (!(cutoff > 0.0)) reject(where, "cutoff", cutoff, "be positive");
  if (!std::isfinite(cutoff)) reject(where, "cutoff", cutoff, "be finite");
  if (threads < 0) reject(where, "threads", threads, "not be negative");
}

void check_positions(const char *where, const double *positions, int64_t n_atoms) {
  if (n_atoms < 0) reject(where, "n_atoms", n_atoms, "not be negative");
  if (n_atoms > std::numeric_limits<int32_t>::max()) reject(where, "n_atoms", n_atoms, "fit in 32 bits");
  for (int64_t k = 0; k < 3 * n_atoms; ++k) {
    if (std::fabs(positions[k]) <= kLargestCoordinate) continue;
    const int64_t atom = k / 3;
    const double *x = positions + 3 * atom;
    std::ostringstream message;
    message << where << ": `positions` of atom " << atom << " is (" << x[0] << ", " << x[1] << ", " << x[2]
            << ") but must be finite and within " << kLargestCoordinate << " angstrom of the origin";
    throw std::invalid_argument(message.str());
  }
}

int worker_count(int threads, int64_t n_atoms) {
  const int64_t wanted = threads > 0 ? threads : usable_cores();
  return static_cast<int>(std::max<int64_t>(1, std::min(wanted, n_atoms / kAtomsPerThread)));
}

NeighborSearch::NeighborSearch(const double *positions, int64_t n_atoms, const Box &box, double cutoff,
                               int64_t max_neighbors, int threads, NeighborOrder order)
    : positions_(positions),
      box_(box),
      limit_(squared_limit(cutoff)),
      max_neighbors_(max_neighbors),
      threads_(worker_count(threads, n_atoms)),
      order_(order) {
  check_options("radius_graph", cutoff, threads);
  check_positions("radius_graph", positions, n_atoms);
  lists_.reset(n_atoms, threads_);
  grid_ = std::make_unique<CellGrid>(positions, n_atoms, box, cutoff);
  const auto n_cells = static_cast<int64_t>(grid_->cells.size());
  const int64_t n_chunks = std::min(n_cells, threads_ * kChunksPerThread);
  parallel_for(threads_, n_chunks, [&](int worker, int64_t chunk) {
    search_cells(worker, chunk * n_cells / n_chunks, (chunk + 1) * n_cells / n_chunks);
  });
  lists_.finish();
}

void NeighborSearch::search_cells(int worker, int64_t first, int64_t last) {
  const CellGrid &grid = *grid_;
  Selection selection;
  int64_t self = 0;
  const auto vector = [&](int32_t hit, double v[3]) {
    const uint32_t p = selection.points[hit];
    v[0] = grid.x[p] - grid.x[self];
    v[1] = grid.y[p] - grid.y[self];
    v[2] = grid.z[p] - grid.z[self];
  };
  const auto before = [&](int32_t a, int32_t b) {
    return comes_first(grid.images[selection.points[a]], grid.images[selection.points[b]]);
  };
  for (int64_t c = first; c < last; ++c) {
    const CellGrid::Cell &cell = grid.cells[c];
    if (!grid.has_center(cell)) continue;
    CellGrid::Segment segments[CellGrid::kMaxSegments];
    int64_t n_points = 0;
    const int n_segments = grid.segments(cell, segments, &n_points);
    selection.reserve(n_points);
    for (self = cell.begin; self < cell.end; ++self) {
      if (!grid.is_center[self]) continue;
      const int64_t n = find_hits(grid, segments, n_segments, self, limit_, selection);
      const int64_t center = grid.images[self].atom;
      if (order_ == NeighborOrder::kAny) {
        lists_.set(worker, center, n, [&](int64_t k) { return selection.points[k]; });
      } else {
        const int64_t kept = selection.select(n, limit_, max_neighbors_, vector, before);
        lists_.set(worker, center, kept, [&](int64_t k) { return selection.points[selection.order[k]]; });
      }
    }
  }
}

void NeighborSearch::copy_images(std::vector<int64_t> &starts, Array<Image> &images) const {
  starts = lists_.offsets();
  images.resize(n_edges());
  const auto n_centers = lists_.n_centers();
  const int64_t n_chunks = std::min<int64_t>(n_centers, threads_ * kChunksPerThread);
  parallel_for(threads_, n_chunks, [&](int, int64_t chunk) {
    const int64_t end = (chunk + 1) * n_centers / n_chunks;
    for (int64_t c = chunk * n_centers / n_chunks; c < end; ++c) {
      const Image &home = grid_->centers[c];
      const uint32_t *points = lists_.points(c);
      for (int64_t k = starts[c]; k < starts[c + 1]; ++k) {
        Image image = grid_->images[points[k - starts[c]]];
        for (int d = 0; d < 3; ++d) image.shift[d] -= home.shift[d];
        images[k] = image;
      }
    }
  });
}

void Edges::resize(int64_t n_edges) {
  centers.resize(n_edges);
  neighbors.resize(n_edges);
  shifts.resize(3 * n_edges);
  vectors.resize(3 * n_edges);
}

Edges radius_graph(const double *positions, int64_t n_atoms, const Box &box, double cutoff,
                   int64_t max_neighbors, int threads) {
  const NeighborSearch search(positions, n_atoms, box, cutoff, max_neighbors, threads);
  Edges edges;
  edges.resize(search.n_edges());
  search.write(arrays_of(edges));
  return edges;
}

}    // namespace orb_export
