// Weights in the order that blocked matrix products read them, in one of three precisions.
//
//   float32         (panels, K, 64)
//   bfloat16        (panels, K', 64): pairs of rows interleaved, K' = K rounded up to even
//   float32-split   (2, panels, K', 64): the same of the rounded weights, and of what rounding lost
//
// A product of split numbers is high.high + high.low + low.high, accumulated in float32: the relative error
// of each factor is 2^-16, and on processors with bfloat16 units (AMX) it is faster than float32.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace orb_export {

enum class Precision { kFloat32, kBfloat16, kSplit };

// The left factor of a product: a block of rows, either `wide`, or `high` and for kSplit `low`.
struct RowsIn {
  const float *wide;
  const uint16_t *high, *low;
  int64_t stride;
};

class Packed {
 public:
  // A view of a packed tensor, which must outlive it; (inner, outputs) is the shape of the matrix. Throws
  // c10::Error if it is none.
  Packed(const at::Tensor &packed, int64_t inner, int64_t outputs);
  Precision precision() const { return precision_; }
  int64_t panels() const { return panels_; }
  // tile (rows, 64) = rows . panel; rows is a multiple of 16
  void multiply(const RowsIn &in, int64_t rows, int64_t panel, float *tile) const;

 private:
  Precision precision_;
  int64_t inner_, panels_;
  const at::Tensor &packed_;
};

// Hands the matrix units of this thread back after its last multiply().
void release_matrix_units();

}    // namespace orb_export
