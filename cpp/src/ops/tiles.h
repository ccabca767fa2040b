// What happens to a tile of a matrix product before it leaves the cache: bias, SiLU and its derivative, and
// the rounding to what the next product reads. Compiled for several instruction sets; chosen at run time.
#pragma once

#include <cstdint>

namespace orb_export {

inline constexpr int64_t kTile = 64;    // columns of a tile, contiguous; rows follow each other

// Rows of numbers in the form that products read: float32, or bfloat16 with (or without) what it lost.
struct RowsOut {
  float *wide;             // either this,
  uint16_t *high, *low;    // or these; low may be null
  int64_t stride;          // between rows; all kTile columns are written
};

// Derivatives of SiLU, stored for a backward pass: float32 or bfloat16, only the columns that exist.
struct Derivatives {
  void *data;    // null: none
  bool narrow;
  int64_t stride;
};

struct TileKernels {
  // out = silu(tile + bias), and the derivative there.
  void (*activate)(const float *tile, int64_t rows, int64_t columns, const float *bias, const RowsOut &out,
                   const Derivatives &derivatives);
  // tile *= derivatives; then out = tile.
  void (*chain_rule)(float *tile, int64_t rows, int64_t columns, const RowsOut &out,
                     const Derivatives &derivatives);
  // out = rows of float32 with a stride; columns beyond `columns` become 0.
  void (*round_rows)(const float *rows_in, int64_t stride, int64_t rows, int64_t columns, const RowsOut &out);
  // tile (rows, kTile) = a (rows, inner) . b (inner, kTile); for processors without a kernel of oneDNN.
  void (*multiply)(const float *a, int64_t stride, int64_t rows, int64_t inner, const float *b, float *tile);
};

const TileKernels &tile_kernels();

}    // namespace orb_export
