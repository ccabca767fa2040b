// Verlet lists: see GraphBuilder in orb_export/graph.h.
#include <algorithm>
#include <cmath>
#include <sstream>
#include <stdexcept>

#include "neighbor_search.h"
#include "parallel.h"
#include "selection.h"

namespace orb_export {
namespace {

constexpr char kWhere[] = "GraphBuilder";
constexpr int64_t kChunksPerThread = 16;

}    // namespace

struct GraphBuilder::State {
  double cutoff = 0.0, skin = 0.0;
  int64_t max_neighbors = 0;
  int threads = 0;
  int64_t rebuilds = 0, updates = 0;

  // Candidates of center i: images [starts[i], starts[i + 1]); shifts are relative to the given positions.
  std::vector<int64_t> starts;
  Array<Image> candidates;
  std::vector<double> built_positions;
  Box built_box;
  std::vector<Selection> selections;    // one per worker
  EdgeLists lists;
  Edges edges;

  bool needs_rebuild(const double *positions, int64_t n_atoms, const Box &box) const;
  void rebuild(const double *positions, int64_t n_atoms, const Box &box);
  void filter(const double *positions, int64_t n_atoms);
  template <bool periodic>
  void filter_center(int worker, const double *positions, int64_t center, double limit, const double *cell);
};

bool GraphBuilder::State::needs_rebuild(const double *positions, int64_t n_atoms, const Box &box) const {
  if (rebuilds == 0 || static_cast<int64_t>(built_positions.size()) != 3 * n_atoms) return true;
  if (box.periodic != built_box.periodic || periodic_cell(box) != periodic_cell(built_box)) return true;
  const double limit = 0.25 * skin * skin;
  for (int64_t i = 0; i < n_atoms; ++i) {
    double square = 0.0;
    for (int d = 0; d < 3; ++d) {
      const double moved = positions[3 * i + d] - built_positions[3 * i + d];
      square += moved * moved;
    }
    if (square > limit) return true;
  }
  return false;
}

void GraphBuilder::State::rebuild(const double *positions, int64_t n_atoms, const Box &box) {
  const NeighborSearch search(positions, n_atoms, box, cutoff + skin, -1, threads, NeighborOrder::kAny);
  search.copy_images(starts, candidates);
  built_positions.assign(positions, positions + 3 * n_atoms);
  built_box = box;
  ++rebuilds;
}

void GraphBuilder::State::filter(const double *positions, int64_t n_atoms) {
  const int workers = worker_count(threads, n_atoms);
  const int64_t n_chunks = std::min<int64_t>(n_atoms, workers * kChunksPerThread);
  const double limit = squared_limit(cutoff);
  const auto cell = periodic_cell(built_box);
  const bool open = is_open(built_box);
  lists.reset(n_atoms, workers);
  if (static_cast<int>(selections.size()) < workers) selections.resize(workers);
  parallel_for(workers, n_chunks, [&](int worker, int64_t chunk) {
    const int64_t end = (chunk + 1) * n_atoms / n_chunks;
    for (int64_t center = chunk * n_atoms / n_chunks; center < end; ++center) {
      if (open)
        filter_center<false>(worker, positions, center, limit, cell.data());
      else
        filter_center<true>(worker, positions, center, limit, cell.data());
    }
  });
  edges.resize(lists.finish());
  const Image home{};
  lists.write(
      positions, built_box, [&](int64_t center) { return candidates.data() + starts[center]; },
      [&](int64_t) -> const Image & { return home; }, arrays_of(edges), workers);
}

template <bool periodic>
void GraphBuilder::State::filter_center(int worker, const double *positions, int64_t center, double limit,
                                        const double *cell) {
  Selection &selection = selections[worker];
  const int64_t begin = starts[center], end = starts[center + 1];
  const auto vector_to = [&](int64_t candidate, double v[3]) {
    const Image &image = candidates[candidate];
    edge_vector<periodic>(positions + 3 * center, positions + 3 * static_cast<int64_t>(image.atom),
                          image.shift, cell, v);
  };
  selection.reserve(end - begin);
  int64_t n = 0;
  for (int64_t k = begin; k < end; ++k) {
    double v[3];
    vector_to(k, v);
    const double square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    selection.squares[n] = square;
    selection.points[n] = static_cast<uint32_t>(k - begin);
    n += square < limit;
  }
  const auto vector = [&](int32_t hit, double v[3]) { vector_to(begin + selection.points[hit], v); };
  const auto before = [&](int32_t a, int32_t b) {
    return comes_first(candidates[begin + selection.points[a]], candidates[begin + selection.points[b]]);
  };
  const int64_t kept = selection.select(n, limit, max_neighbors, vector, before);
  lists.set(worker, center, kept, [&](int64_t k) { return selection.points[selection.order[k]]; });
}

GraphBuilder::GraphBuilder(double cutoff, int64_t max_neighbors, double skin, int threads)
    : state_(std::make_unique<State>()) {
  check_options(kWhere, cutoff, threads);
  if (!(skin >= 0.0) || !std::isfinite(skin)) {
    std::ostringstream message;
    message << kWhere << ": `skin` is " << skin << " but must be finite and not negative";
    throw std::invalid_argument(message.str());
  }
  state_->cutoff = cutoff;
  state_->skin = skin;
  state_->max_neighbors = max_neighbors;
  state_->threads = threads;
}

GraphBuilder::~GraphBuilder() = default;
GraphBuilder::GraphBuilder(GraphBuilder &&) noexcept = default;
GraphBuilder &GraphBuilder::operator=(GraphBuilder &&) noexcept = default;

const Edges &GraphBuilder::update(const double *positions, int64_t n_atoms, const Box &box) {
  check_positions(kWhere, positions, n_atoms);
  if (state_->needs_rebuild(positions, n_atoms, box)) state_->rebuild(positions, n_atoms, box);
  state_->filter(positions, n_atoms);
  ++state_->updates;
  return state_->edges;
}

int64_t GraphBuilder::rebuilds() const { return state_->rebuilds; }
int64_t GraphBuilder::updates() const { return state_->updates; }

}    // namespace orb_export
