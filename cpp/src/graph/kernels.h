// The two inner loops, compiled for several instruction sets; the fastest that this machine has is chosen at
// run time. All give the same bits: no fused multiply-add.
#pragma once

#include <cstdint>
#include <vector>

namespace orb_export {

struct Kernels {
  // Appends the points [begin, end) closer than sqrt(limit) to (cx, cy, cz) to a list of n hits and returns
  // its new length. Reads up to kReadAhead values past `end` and writes as many past the new length.
  int64_t (*append_hits)(const double *x, const double *y, const double *z, int64_t begin, int64_t end,
                         const double center[3], double limit, int64_t n, double *squares, uint32_t *points);
  // ranks[i] = number of keys smaller than keys[i], for n keys followed by 2 * kRankBlock times INT32_MAX.
  void (*rank)(const int32_t *keys, int64_t n, int32_t *ranks);
};

inline constexpr int64_t kReadAhead = 8;
inline constexpr int64_t kRankBlock = 16;

// The fastest for this machine.
const Kernels &kernels();

// All that this machine can run, for tests; the slowest first.
std::vector<Kernels> supported_kernels();

}    // namespace orb_export
