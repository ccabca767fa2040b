#include "tiles.h"

#include <cstring>

#if defined(__x86_64__) && defined(__GNUC__)
#define ORB_EXPORT_X86 1
#define ORB_EXPORT_AVX2 __attribute__((target("avx2,fma")))
#define ORB_EXPORT_AVX512 \
  __attribute__((target("avx512f,avx512vl,avx512bw,avx512dq,fma,prefer-vector-width=512")))
#endif
// vectors wider than the baseline's registers are passed between inlined functions only
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC diagnostic ignored "-Wpsabi"
#endif
#define ORB_EXPORT_INLINE inline __attribute__((always_inline))

namespace orb_export {
namespace {

constexpr int64_t kLanes = 16;
typedef float Floats __attribute__((vector_size(4 * kLanes), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * kLanes)));
typedef uint32_t Words __attribute__((vector_size(4 * kLanes)));
typedef uint16_t Halves __attribute__((vector_size(2 * kLanes), aligned(2), may_alias));

// exp(x) to 2 ulp: 2^n times a polynomial of the rest, |rest| <= ln(2) / 2. Saturates instead of overflowing.
ORB_EXPORT_INLINE Floats exponential(Floats x) {
  x = x > 88.0f ? Floats{} + 88.0f : x;
  x = x < -87.0f ? Floats{} - 87.0f : x;
  constexpr float kRound = 12582912.0f;    // 1.5 * 2^23: adding it rounds to an integer
  const Floats shifted = x * 1.44269504f + kRound;
  const Floats n = shifted - kRound;
  const Floats r = (x - n * 0.693359375f) + n * 2.12194440e-4f;
  Floats p = r * 1.9875691500e-4f + 1.3981999507e-3f;    // minimax, Cephes expf
  p = p * r + 8.3334519073e-3f;
  p = p * r + 4.1665795894e-2f;
  p = p * r + 1.6666665459e-1f;
  p = p * r + 5.0000001201e-1f;
  p = p * r * r + r + 1.0f;
  const Ints power = ((Ints)shifted - (Ints)(Floats{} + kRound) + 127) << 23;
  return p * (Floats)power;
}

// Round to nearest, ties to even, as every bfloat16 unit does.
ORB_EXPORT_INLINE Words rounded(Floats x) {
  const Words bits = (Words)x;
  return (bits + 0x7fffu + (bits >> 16 & 1u)) >> 16;
}
ORB_EXPORT_INLINE Floats widened(Words halves) { return (Floats)(halves << 16); }

ORB_EXPORT_INLINE void store(const RowsOut &out, int64_t at, Floats x) {
  if (out.wide != nullptr) {
    *reinterpret_cast<Floats *>(out.wide + at) = x;
    return;
  }
  const Words high = rounded(x);
  *reinterpret_cast<Halves *>(out.high + at) = __builtin_convertvector(high, Halves);
  if (out.low != nullptr)
    *reinterpret_cast<Halves *>(out.low + at) = __builtin_convertvector(rounded(x - widened(high)), Halves);
}

ORB_EXPORT_INLINE void store_derivatives(const Derivatives &out, int64_t at, int64_t count, Floats x) {
  if (out.narrow) {
    const Halves halves = __builtin_convertvector(rounded(x), Halves);
    auto *to = static_cast<uint16_t *>(out.data) + at;
    if (count >= kLanes)
      *reinterpret_cast<Halves *>(to) = halves;
    else
      for (int64_t k = 0; k < count; ++k) to[k] = halves[k];
  } else {
    auto *to = static_cast<float *>(out.data) + at;
    if (count >= kLanes)
      *reinterpret_cast<Floats *>(to) = x;
    else
      for (int64_t k = 0; k < count; ++k) to[k] = x[k];
  }
}

ORB_EXPORT_INLINE Floats load_derivatives(const Derivatives &in, int64_t at, int64_t count) {
  if (in.narrow) {
    const auto *from = static_cast<const uint16_t *>(in.data) + at;
    Halves halves{};
    if (count >= kLanes)
      halves = *reinterpret_cast<const Halves *>(from);
    else
      for (int64_t k = 0; k < count; ++k) halves[k] = from[k];
    return widened(__builtin_convertvector(halves, Words));
  }
  const auto *from = static_cast<const float *>(in.data) + at;
  if (count >= kLanes) return *reinterpret_cast<const Floats *>(from);
  Floats x{};
  for (int64_t k = 0; k < count; ++k) x[k] = from[k];
  return x;
}

ORB_EXPORT_INLINE void activate_body(const float *tile, int64_t rows, int64_t columns, const float *bias,
                                     const RowsOut &out, const Derivatives &derivatives) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < kTile; c += kLanes) {
      const Floats x = *reinterpret_cast<const Floats *>(tile + r * kTile + c) +
                       *reinterpret_cast<const Floats *>(bias + c);
      const Floats sigmoid = 1.0f / (1.0f + exponential(-x));
      store(out, r * out.stride + c, x * sigmoid);
      if (derivatives.data != nullptr && c < columns)
        store_derivatives(derivatives, r * derivatives.stride + c, columns - c,
                          sigmoid * (1.0f + x * (1.0f - sigmoid)));
    }
  }
}

ORB_EXPORT_INLINE void chain_rule_body(float *tile, int64_t rows, int64_t columns, const RowsOut &out,
                                       const Derivatives &derivatives) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < kTile; c += kLanes) {
      auto *at = reinterpret_cast<Floats *>(tile + r * kTile + c);
      *at = c < columns ? *at * load_derivatives(derivatives, r * derivatives.stride + c, columns - c)
                        : Floats{};
      store(out, r * out.stride + c, *at);
    }
  }
}

ORB_EXPORT_INLINE void round_rows_body(const float *in, int64_t stride, int64_t rows, int64_t columns,
                                       const RowsOut &out) {
  for (int64_t r = 0; r < rows; ++r) {
    for (int64_t c = 0; c < columns; c += kTile) {
      for (int64_t k = c; k < c + kTile; k += kLanes) {
        Floats x{};
        if (columns - k >= kLanes)
          x = *reinterpret_cast<const Floats *>(in + r * stride + k);
        else if (columns > k)
          for (int64_t l = 0; l < columns - k; ++l) x[l] = in[r * stride + k + l];
        store(out, r * out.stride + k, x);
      }
    }
  }
}

ORB_EXPORT_INLINE void multiply_body(const float *a, int64_t stride, int64_t rows, int64_t inner,
                                     const float *b, float *tile) {
  constexpr int64_t kVectors = kTile / kLanes;
  for (int64_t r = 0; r < rows; ++r) {
    Floats sums[kVectors] = {};
    for (int64_t k = 0; k < inner; ++k)
      for (int64_t v = 0; v < kVectors; ++v)
        sums[v] += a[r * stride + k] * *reinterpret_cast<const Floats *>(b + k * kTile + v * kLanes);
    std::memcpy(tile + r * kTile, sums, sizeof(sums));
  }
}

// The four functions for one instruction set.
#define ORB_EXPORT_KERNELS(NAME, TARGET)                                                                     \
  struct NAME {                                                                                              \
    TARGET static void activate(const float *tile, int64_t rows, int64_t columns, const float *bias,         \
                                const RowsOut &out, const Derivatives &derivatives) {                        \
      activate_body(tile, rows, columns, bias, out, derivatives);                                            \
    }                                                                                                        \
    TARGET static void chain_rule(float *tile, int64_t rows, int64_t columns, const RowsOut &out,            \
                                  const Derivatives &derivatives) {                                          \
      chain_rule_body(tile, rows, columns, out, derivatives);                                                \
    }                                                                                                        \
    TARGET static void round_rows(const float *in, int64_t stride, int64_t rows, int64_t columns,            \
                                  const RowsOut &out) {                                                      \
      round_rows_body(in, stride, rows, columns, out);                                                       \
    }                                                                                                        \
    TARGET static void multiply(const float *a, int64_t stride, int64_t rows, int64_t inner, const float *b, \
                                float *tile) {                                                               \
      multiply_body(a, stride, rows, inner, b, tile);                                                        \
    }                                                                                                        \
    static constexpr TileKernels all() { return {activate, chain_rule, round_rows, multiply}; }              \
  };

ORB_EXPORT_KERNELS(Base, )
#ifdef ORB_EXPORT_X86
ORB_EXPORT_KERNELS(Avx2, ORB_EXPORT_AVX2)
ORB_EXPORT_KERNELS(Avx512, ORB_EXPORT_AVX512)
#endif

TileKernels fastest() {
#ifdef ORB_EXPORT_X86
  __builtin_cpu_init();
  if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq"))
    return Avx512::all();
  if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) return Avx2::all();
#endif
  return Base::all();
}

}    // namespace

const TileKernels &tile_kernels() {
  static const TileKernels kernels = fastest();
  return kernels;
}

}    // namespace orb_export
