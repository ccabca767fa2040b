#include "kernels.h"

#include <cstring>

// Fused multiply-adds would give each instruction set its own last bit. Here and not in the build file, which
// could forget it; clang fuses only within an expression of the baseline, which has no such instruction.
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("fp-contract=off")
#endif

#if defined(__x86_64__) && defined(__GNUC__)
#define ORB_EXPORT_X86 1
#include <immintrin.h>
#define ORB_EXPORT_AVX2 __attribute__((target("avx2,popcnt")))
#define ORB_EXPORT_AVX512 __attribute__((target("avx512f,avx512vl,popcnt,prefer-vector-width=512")))
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
ORB_EXPORT_AVX2 int64_t append_hits_avx2(const double *x, const double *y, const double *z, int64_t begin,
                                         int64_t end, const double center[3], double limit, int64_t n,
                                         double *squares, uint32_t *points) {
  return append_hits_body(x, y, z, begin, end, center, limit, n, squares, points);
}
ORB_EXPORT_AVX2 void rank_avx2(const int32_t *keys, int64_t n, int32_t *ranks) { rank_body(keys, n, ranks); }

// Eight candidates at a time; hits are compressed in registers, because compressing stores are slow on Zen.
ORB_EXPORT_AVX512 int64_t append_hits_avx512(const double *x, const double *y, const double *z, int64_t begin,
                                             int64_t end, const double center[3], double limit, int64_t n,
                                             double *squares, uint32_t *points) {
  const __m512d cx = _mm512_set1_pd(center[0]), cy = _mm512_set1_pd(center[1]),
                cz = _mm512_set1_pd(center[2]);
  const __m512d bound = _mm512_set1_pd(limit);
  const __m256i step = _mm256_set1_epi32(8);
  __m256i point = _mm256_add_epi32(_mm256_set1_epi32(static_cast<int32_t>(begin)),
                                   _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
  for (int64_t k = begin; k < end; k += 8) {
    const __m512d dx = _mm512_sub_pd(_mm512_loadu_pd(x + k), cx);
    const __m512d dy = _mm512_sub_pd(_mm512_loadu_pd(y + k), cy);
    const __m512d dz = _mm512_sub_pd(_mm512_loadu_pd(z + k), cz);
    const __m512d square =
        _mm512_add_pd(_mm512_add_pd(_mm512_mul_pd(dx, dx), _mm512_mul_pd(dy, dy)), _mm512_mul_pd(dz, dz));
    __mmask8 hits = _mm512_cmp_pd_mask(square, bound, _CMP_LT_OQ);
    if (end - k < 8) hits &= static_cast<__mmask8>((1 << (end - k)) - 1);
    _mm512_storeu_pd(squares + n, _mm512_maskz_compress_pd(hits, square));
    _mm256_storeu_si256(reinterpret_cast<__m256i *>(points + n), _mm256_maskz_compress_epi32(hits, point));
    n += __builtin_popcount(hits);
    point = _mm256_add_epi32(point, step);
  }
  return n;
}
ORB_EXPORT_AVX512 void rank_avx512(const int32_t *keys, int64_t n, int32_t *ranks) {
  rank_body(keys, n, ranks);
}
#endif

}    // namespace

std::vector<Kernels> supported_kernels() {
  std::vector<Kernels> supported = {{append_hits_base, rank_base}};
#ifdef ORB_EXPORT_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("popcnt"))
    supported.push_back({append_hits_avx2, rank_avx2});
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("popcnt"))
    supported.push_back({append_hits_avx512, rank_avx512});
#endif
  return supported;
}

const Kernels &kernels() {
  static const Kernels fastest = supported_kernels().back();
  return fastest;
}

}    // namespace orb_export
