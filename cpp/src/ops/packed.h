// Weights in the order that blocked matrix products read them.
//
//   float32          float32 (panels, K, 64)
//   bfloat16         bfloat16 (panels, K', 64): pairs of rows interleaved, K' = K rounded up to even
//   three-bfloat16   bfloat16 (2, panels, K', 64): the same of the rounded weights, and of what rounding lost
//   float32-split    float32 (1, panels, K, 64): as float32 or as three-bfloat16, whichever is faster here
//
// A product of split numbers is high.high + high.low + low.high, accumulated in float32: the relative error
// of each factor is 2^-16. It pays where the processor multiplies bfloat16 numbers more than three times as
// fast as float32 ones, which is where it has AMX.
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
  // Of a packed tensor; (inner, outputs) is the shape of the matrix. Throws c10::Error if it is none.
  Packed(const at::Tensor &packed, int64_t inner, int64_t outputs);
  Precision precision() const { return precision_; }
  int64_t panels() const { return panels_; }
  // tile (rows, 64) = rows . panel; rows is a multiple of 16
  void multiply(const RowsIn &in, int64_t rows, int64_t panel, float *tile) const;

 private:
  Precision precision_;
  int64_t inner_, panels_;
  at::Tensor packed_;
};

// Whether float32-split means three products of bfloat16 numbers: on processors with AMX, or as the
// environment variable ORB_EXPORT_SPLIT says, always or never. Decided once. Throws c10::ValueError.
bool splits_products();

// Hands the matrix units of this thread back after its last multiply().
void release_matrix_units();

}    // namespace orb_export
