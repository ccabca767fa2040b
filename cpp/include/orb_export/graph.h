// Radius graphs with a cap on the neighbors of each center. Knows neither torch nor any host.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <memory>
#include <utility>
#include <vector>

namespace orb_export {

struct Box {
  std::array<double, 9> cell{};      // rows are lattice vectors, angstrom; ignored along open axes
  std::array<bool, 3> periodic{};    // per lattice vector
};

// Memory for large arrays, uninitialized; up to 1 GiB of released memory is kept for the next array.
void *allocate_array(std::size_t bytes);
void release_array(void *array, std::size_t bytes) noexcept;

// Leaves numbers uninitialized: edge arrays are large and written once, by many threads.
template <class T>
struct UninitializedAllocator : std::allocator<T> {
  template <class U>
  struct rebind {
    using other = UninitializedAllocator<U>;
  };
  T *allocate(std::size_t n) { return static_cast<T *>(allocate_array(n * sizeof(T))); }
  void deallocate(T *array, std::size_t n) noexcept { release_array(array, n * sizeof(T)); }
  template <class U>
  void construct(U *at) {
    ::new (static_cast<void *>(at)) U;
  }
  template <class U, class... Args>
  void construct(U *at, Args &&...args) {
    ::new (static_cast<void *>(at)) U(std::forward<Args>(args)...);
  }
};
template <class T>
using Array = std::vector<T, UninitializedAllocator<T>>;

// Edges sorted by center, then by distance, ties by the projection of the vector on kTieDirection.
struct Edges {
  Array<int64_t> centers;      // (E)
  Array<int64_t> neighbors;    // (E)
  Array<int32_t> shifts;       // (E, 3) lattice translations of the neighbor
  Array<double> vectors;       // (E, 3) x_neighbor + shift . cell - x_center
  int64_t size() const { return static_cast<int64_t>(centers.size()); }
  void resize(int64_t n_edges);
};

// All pairs closer than `cutoff`, at most `max_neighbors` nearest per center (negative: no cap).
// Neighbors whose sorted distances differ by less than kTieTolerance from one to the next are ordered by
// vector . kTieDirection; a distance within 1e-9 angstrom of the cutoff counts as outside, so that rounding
// decides neither. Any cell (skewed, left-handed, smaller than the cutoff), atoms anywhere relative to it.
// The result does not depend on `threads`; 0: one per core this process may use.
// Throws std::invalid_argument for a non-positive or infinite cutoff, a position that is not finite or
// farther than 1e9 angstrom from the origin, and a cell that is singular along its periodic axes.
Edges radius_graph(const double *positions, int64_t n_atoms, const Box &box, double cutoff,
                   int64_t max_neighbors, int threads = 0);

// The same list during molecular dynamics: candidates within cutoff + skin are kept and re-filtered
// until an atom has moved further than skin / 2 or the box has changed.
class GraphBuilder {
 public:
  GraphBuilder(double cutoff, int64_t max_neighbors, double skin, int threads = 0);
  ~GraphBuilder();
  GraphBuilder(GraphBuilder &&) noexcept;
  GraphBuilder &operator=(GraphBuilder &&) noexcept;
  // Equal to radius_graph() of the same arguments, order included; valid until the next call.
  const Edges &update(const double *positions, int64_t n_atoms, const Box &box);
  int64_t rebuilds() const;
  int64_t updates() const;

 private:
  struct State;
  std::unique_ptr<State> state_;
};

// For a host with its own candidates (a LAMMPS neighbor list): of `n` candidate vectors of one center, the
// indices of those within `cutoff`, ordered and capped by the same rule. `order` is scratch and result.
void select_neighbors(const double *vectors, int64_t n, double cutoff, int64_t max_neighbors,
                      std::vector<int64_t> &order);

}    // namespace orb_export
