// Which of the candidates of one center become edges, and in what order. The one rule for every host.
//
// Nearest first. Neighbors whose sorted distances differ by less than kTieTolerance from one to the next form
// a shell; within a shell the order is that of vector . kTieDirection, which no permutation of atoms, change
// of rank or rounding error alters. In perfect crystals the cap falls inside a shell as a rule.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <limits>
#include <numeric>
#include <vector>

#include "kernels.h"
#include "orb_export/contract.h"

namespace orb_export {

// Shells of perfect crystals that lie on the cutoff would come and go with rounding errors: what is closer to
// it than this, in angstrom, counts as outside.
inline constexpr double kRim = 1e-9;

inline double squared_limit(double cutoff) {
  const double limit = cutoff - kRim;
  return limit > 0.0 ? limit * limit : 0.0;
}

inline double projection(const double vector[3]) {
  return vector[0] * kTieDirection[0] + vector[1] * kTieDirection[1] + vector[2] * kTieDirection[2];
}

// Scratch and result of the selection for one center; reused from center to center.
class Selection {
 public:
  std::vector<double> squares;     // squared distances of the hits, filled by the caller
  std::vector<uint32_t> points;    // what the hits are, filled by the caller
  std::vector<int32_t> order;      // hits in order of the rule, after select()

  // Makes room for n hits and what the kernels write past them.
  void reserve(int64_t n) {
    if (static_cast<int64_t>(squares.size()) >= n + kReadAhead) return;
    squares.resize(2 * n + kReadAhead);
    points.resize(2 * n + kReadAhead);
  }

  // Orders n hits and returns how many remain under the cap (negative: none). `vector(hit, v)` yields the
  // vector of a hit, `before(a, b)` decides between hits of the same shell and projection.
  template <class Vector, class Before>
  int64_t select(int64_t n, double limit, int64_t max_neighbors, const Vector &vector, const Before &before) {
    const int64_t kept = max_neighbors < 0 ? n : std::min(n, max_neighbors);
    if (n == 0 || kept == 0) return 0;
    if (sort_by_distance(n, limit)) sort_shells(n, kept, vector, before);
    return kept;
  }

 private:
  static constexpr int64_t kRanked = 256;    // more hits are sorted by comparison
  static constexpr int kIndexBits = 8;

  // Returns whether any two neighbors may lie in the same shell.
  bool sort_by_distance(int64_t n, double limit);
  void sort_by_rank(int64_t n, double limit);
  void insert_into_place(int64_t n);

  template <class Vector, class Before>
  void sort_shells(int64_t n, int64_t kept, const Vector &vector, const Before &before) {
    for (int64_t first = 0; first < kept;) {
      int64_t last = first;
      while (last + 1 < n && std::sqrt(sorted_[last + 1]) - std::sqrt(sorted_[last]) < kTieTolerance) ++last;
      if (last > first) sort_shell(first, last + 1, vector, before);
      first = last + 1;
    }
  }

  template <class Vector, class Before>
  void sort_shell(int64_t begin, int64_t end, const Vector &vector, const Before &before) {
    shell_.clear();
    for (int64_t k = begin; k < end; ++k) {
      double v[3];
      vector(order[k], v);
      shell_.push_back({projection(v), order[k]});
    }
    std::sort(shell_.begin(), shell_.end(), [&](const Member &a, const Member &b) {
      return a.projection != b.projection ? a.projection < b.projection : before(a.hit, b.hit);
    });
    for (int64_t k = begin; k < end; ++k) order[k] = shell_[k - begin].hit;
  }

  struct Member {
    double projection;
    int32_t hit;
  };
  std::vector<Member> shell_;
  std::vector<double> sorted_;    // squared distances of the hits in `order`
  std::vector<int32_t> keys_, ranks_;
};

}    // namespace orb_export
