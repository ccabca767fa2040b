#include "kernels.h"

#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define ORB_EXPORT_X86 1
#endif

#define ORB_EXPORT_INLINE inline __attribute__((always_inline))

namespace orb_export {
namespace {

typedef int32_t Keys __attribute__((vector_size(4 * kRankBlock)));

ORB_EXPORT_INLINE int64_t append_hits_body(const double *x, const double *y, const double *z, int64_t begin,
                                           int64_t end, const double center[3], double limit, int64_t n,
                                           double *squares, uint32_t *points) {
  constexpr int64_t kBlock = 64;
  double block[kBlock];
  const double cx = center[0], cy = center[1], cz = center[2];
  for (int64_t from = begin; from < end; from += kBlock) {
    const int64_t size = end - from < kBlock ? end - from : kBlock;
    const int64_t padded = (size + kReadAhead - 1) / kReadAhead * kReadAhead;
    for (int64_t k = 0; k < padded; ++k) {
      const double dx = x[from + k] - cx, dy = y[from + k] - cy, dz = z[from + k] - cz;
      block[k] = dx * dx + dy * dy + dz * dz;
    }
    for (int64_t k = 0; k < size; ++k) {    // stores always, counts hits: no branch to mispredict
      squares[n] = block[k];
      points[n] = static_cast<uint32_t>(from + k);
      n += block[k] < limit;
    }
  }
  return n;
}

// All against all: for the hundred or so neighbors of an atom faster than any branching sort.
ORB_EXPORT_INLINE void rank_body(const int32_t *keys, int64_t n, int32_t *ranks) {
  for (int64_t i = 0; i < n; i += 2 * kRankBlock) {
    Keys own[2], rank[2] = {};
    std::memcpy(own, keys + i, sizeof(own));
    for (int64_t j = 0; j < n; ++j) {
      rank[0] -= own[0] > keys[j];    // a true comparison is -1
      rank[1] -= own[1] > keys[j];
    }
    std::memcpy(ranks + i, rank, sizeof(rank));
  }
}

int64_t append_hits_base(const double *x, const double *y, const double *z, int64_t begin, int64_t end,
                         const double center[3], double limit, int64_t n, double *squares, uint32_t *points) {
  return append_hits_body(x, y, z, begin, end, center, limit, n, squares, points);
}
void rank_base(const int32_t *keys, int64_t n, int32_t *ranks) { rank_body(keys, n, ranks); }

#ifdef ORB_EXPORT_X86
__attribute__((target("avx2"))) int64_t append_hits_avx2(const double *x, const double *y, const double *z,
                                                         int64_t begin, int64_t end, const double center[3],
                                                         double limit, int64_t n, double *squares,
                                                         uint32_t *points) {
  return append_hits_body(x, y, z, begin, end, center, limit, n, squares, points);
}
__attribute__((target("avx2"))) void rank_avx2(const int32_t *keys, int64_t n, int32_t *ranks) {
  rank_body(keys, n, ranks);
}

__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,prefer-vector-width=512"))) int64_t
append_hits_avx512(const double *x, const double *y, const double *z, int64_t begin, int64_t end,
                   const double center[3], double limit, int64_t n, double *squares, uint32_t *points) {
  return append_hits_body(x, y, z, begin, end, center, limit, n, squares, points);
}
__attribute__((target("avx512f,avx512vl,avx512dq,avx512bw,prefer-vector-width=512"))) void rank_avx512(
    const int32_t *keys, int64_t n, int32_t *ranks) {
  rank_body(keys, n, ranks);
}
#endif

Kernels choose() {
#ifdef ORB_EXPORT_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512bw"))
    return {append_hits_avx512, rank_avx512};
  if (__builtin_cpu_supports("avx2")) return {append_hits_avx2, rank_avx2};
#endif
  return {append_hits_base, rank_base};
}

}    // namespace

const Kernels &kernels() {
  static const Kernels chosen = choose();
  return chosen;
}

}    // namespace orb_export
