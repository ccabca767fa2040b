#include "selection.h"

#include "orb_export/graph.h"

namespace orb_export {

bool Selection::sort_by_distance(int64_t n, double limit) {
  if (static_cast<int64_t>(order.size()) < n) {
    order.resize(2 * n);
    sorted_.resize(2 * n);
  }
  if (n <= kRanked) {
    sort_by_rank(n, limit);
  } else {
    std::iota(order.begin(), order.begin() + n, 0);
    std::sort(order.begin(), order.begin() + n, [this](int32_t a, int32_t b) {
      return squares[a] != squares[b] ? squares[a] < squares[b] : a < b;
    });
    for (int64_t i = 0; i < n; ++i) sorted_[i] = squares[order[i]];
  }
  // d2 - d1 = (s2 - s1) / (d2 + d1), and no distance exceeds the cutoff: a larger gap is no tie
  const double possible_tie = 2.0 * std::sqrt(limit) * kTieTolerance * (1.0 + 1e-9);
  int64_t n_ties = 0;
  for (int64_t i = 0; i + 1 < n; ++i) n_ties += sorted_[i + 1] - sorted_[i] < possible_tie;
  if (n_ties == 0) return false;
  insert_into_place(n);
  return true;
}

void Selection::sort_by_rank(int64_t n, double limit) {
  keys_.resize(kRanked + 2 * kRankBlock);
  ranks_.resize(kRanked + 2 * kRankBlock);
  // keys: 23 bits of the squared distance above 8 bits of index, so that no two are equal
  const double scale = limit > 0.0 ? ((1 << 23) - 2) / limit : 0.0;
  for (int64_t i = 0; i < n; ++i) {
    keys_[i] = static_cast<int32_t>(squares[i] * scale) << kIndexBits | static_cast<int32_t>(i);
  }
  std::fill_n(keys_.begin() + n, 2 * kRankBlock, std::numeric_limits<int32_t>::max());
  kernels().rank(keys_.data(), n, ranks_.data());
  for (int64_t i = 0; i < n; ++i) {
    order[ranks_[i]] = static_cast<int32_t>(i);
    sorted_[ranks_[i]] = squares[i];
  }
}

// Distances that the short keys cannot tell apart lie next to each other: an insertion sort is enough.
void Selection::insert_into_place(int64_t n) {
  for (int64_t i = 1; i < n; ++i) {
    const int32_t hit = order[i];
    const double square = sorted_[i];
    int64_t k = i;
    for (; k > 0 && sorted_[k - 1] > square; --k) {
      order[k] = order[k - 1];
      sorted_[k] = sorted_[k - 1];
    }
    order[k] = hit;
    sorted_[k] = square;
  }
}

void select_neighbors(const double *vectors, int64_t n, double cutoff, int64_t max_neighbors,
                      std::vector<int64_t> &order) {
  thread_local Selection selection;
  const double limit = squared_limit(cutoff);
  selection.reserve(n);
  int64_t n_hits = 0;
  for (int64_t k = 0; k < n; ++k) {
    const double *v = vectors + 3 * k;
    const double square = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    selection.squares[n_hits] = square;
    selection.points[n_hits] = static_cast<uint32_t>(k);
    n_hits += square < limit;
  }
  const auto vector = [&](int32_t hit, double v[3]) {
    std::memcpy(v, vectors + 3 * static_cast<int64_t>(selection.points[hit]), 3 * sizeof(double));
  };
  const auto before = [](int32_t a, int32_t b) { return a < b; };
  const int64_t kept = selection.select(n_hits, limit, max_neighbors, vector, before);
  order.resize(kept);
  for (int64_t k = 0; k < kept; ++k) order[k] = selection.points[selection.order[k]];
}

}    // namespace orb_export
