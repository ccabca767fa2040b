#include "packed.h"

#include <ATen/TensorOperators.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <array>
#include <exception>
#include <vector>

#include "tiles.h"

namespace orb_export {
namespace {

using at::Tensor;
using at::native::cpublas::brgemm;

int64_t rounded_up(int64_t n, int64_t unit) { return (n + unit - 1) / unit * unit; }

// (K, C) -> (panels, K, 64)
Tensor panels_of(const Tensor &matrix) {
  const int64_t columns = rounded_up(matrix.size(1), kTile);
  const Tensor padded = at::constant_pad_nd(matrix, {0, columns - matrix.size(1)});
  return padded.view({matrix.size(0), columns / kTile, kTile}).transpose(0, 1).contiguous();
}

// (K, C) -> (panels, K', 64), the two rows of a pair taking turns
Tensor interleaved(const Tensor &matrix) {
  const Tensor panels = panels_of(at::constant_pad_nd(matrix, {0, 0, 0, matrix.size(0) % 2}));
  const int64_t n = panels.size(0), inner = panels.size(1);
  return panels.view({n, inner / 2, 2, kTile}).transpose(2, 3).contiguous().view({n, inner, kTile});
}

Tensor pack_matrix(const Tensor &matrix, std::string_view precision) {
  TORCH_CHECK_VALUE(matrix.dim() == 2 && matrix.scalar_type() == at::kFloat && matrix.numel() > 0,
                    "pack_matrix: `matrix` must be a float32 matrix, got ", matrix.scalar_type(),
                    " of shape ", matrix.sizes());
  if (precision == "float32") return panels_of(matrix);
  const Tensor high = matrix.to(at::kBFloat16);
  if (precision == "bfloat16") return interleaved(high);
  TORCH_CHECK_VALUE(precision == "float32-split", "pack_matrix: `precision` is ", precision,
                    " but must be float32, float32-split or bfloat16");
  const Tensor low = (matrix - high.to(at::kFloat)).to(at::kBFloat16);
  return at::stack({interleaved(high), interleaved(low)});
}

// oneDNN may lack a kernel for this processor, or be switched off.
bool has_kernel(bool narrow) {
  std::array<float, 16 * kTile> tile{};
  try {
    if (narrow) {
      std::array<c10::BFloat16, 32 * kTile> zeros{};
      brgemm(16, kTile, 32, 32, kTile, kTile, false, zeros.data(), zeros.data(), tile.data(), true);
    } else {
      std::array<float, 32 * kTile> zeros{};
      brgemm(16, kTile, 32, 32, kTile, kTile, false, zeros.data(), zeros.data(), tile.data(), false);
    }
    release_matrix_units();
    return true;
  } catch (const std::exception &) {
    return false;
  }
}

const c10::BFloat16 *as_bfloat16(const uint16_t *bits) {
  return reinterpret_cast<const c10::BFloat16 *>(bits);
}

float widened(uint16_t bits) { return static_cast<float>(c10::BFloat16(bits, c10::BFloat16::from_bits())); }

// tile (+)= rows . panel for bfloat16 without a kernel: exact products, summed in float32 as well
void multiply_slowly(const uint16_t *in, int64_t stride, int64_t rows, int64_t inner,
                     const c10::BFloat16 *panel, bool add, float *tile) {
  std::vector<float> a(rows * inner), b(inner * kTile), product(rows * kTile);
  for (int64_t r = 0; r < rows; ++r)
    for (int64_t k = 0; k < inner; ++k) a[r * inner + k] = widened(in[r * stride + k]);
  for (int64_t k = 0; k < inner; ++k)
    for (int64_t c = 0; c < kTile; ++c) b[k * kTile + c] = panel[(k / 2 * kTile + c) * 2 + k % 2];
  tile_kernels().multiply(a.data(), inner, rows, inner, b.data(), product.data());
  for (int64_t k = 0; k < rows * kTile; ++k) tile[k] = (add ? tile[k] : 0.0f) + product[k];
}

void multiply_narrow(const uint16_t *in, int64_t stride, int64_t rows, int64_t inner,
                     const c10::BFloat16 *panel, bool add, float *tile) {
  static const bool fast = has_kernel(true);
  if (fast)
    brgemm(rows, kTile, inner, stride, kTile, kTile, add, as_bfloat16(in), panel, tile, true);
  else
    multiply_slowly(in, stride, rows, inner, panel, add, tile);
}

void multiply_wide(const float *in, int64_t stride, int64_t rows, int64_t inner, const float *panel,
                   float *tile) {
  static const bool fast = has_kernel(false);
  if (fast)
    brgemm(rows, kTile, inner, stride, kTile, kTile, false, in, panel, tile, false);
  else
    tile_kernels().multiply(in, stride, rows, inner, panel, tile);
}

}    // namespace

Packed::Packed(const Tensor &packed, int64_t inner, int64_t outputs)
    : inner_(inner), panels_(rounded_up(outputs, kTile) / kTile), packed_(packed) {
  const bool narrow = packed.scalar_type() == at::kBFloat16;
  precision_ = !narrow ? Precision::kFloat32 : packed.dim() == 4 ? Precision::kSplit : Precision::kBfloat16;
  if (narrow) inner_ = rounded_up(inner, 2);
  const std::vector<int64_t> panels = {panels_, inner_, kTile}, both = {2, panels_, inner_, kTile};
  TORCH_CHECK((narrow || packed.scalar_type() == at::kFloat) && packed.is_contiguous() &&
                  packed.sizes() == at::IntArrayRef(precision_ == Precision::kSplit ? both : panels),
              "perceptron: a weight is ", packed.scalar_type(), " of shape ", packed.sizes(),
              " but must be what pack_matrix makes of a matrix (", inner, ", ", outputs, ")");
}

void Packed::multiply(const RowsIn &in, int64_t rows, int64_t panel, float *tile) const {
  const int64_t offset = panel * inner_ * kTile;
  if (precision_ == Precision::kFloat32)
    return multiply_wide(in.wide, in.stride, rows, inner_, packed_.const_data_ptr<float>() + offset, tile);
  const auto *high = packed_.const_data_ptr<c10::BFloat16>() + offset;
  multiply_narrow(in.high, in.stride, rows, inner_, high, false, tile);
  if (precision_ == Precision::kBfloat16) return;
  const auto *low = high + panels_ * inner_ * kTile;
  multiply_narrow(in.high, in.stride, rows, inner_, low, true, tile);
  multiply_narrow(in.low, in.stride, rows, inner_, high, true, tile);
}

void release_matrix_units() { at::native::cpublas::brgemm_release(true); }

TORCH_LIBRARY_FRAGMENT(orb_export, m) { m.def("pack_matrix(Tensor matrix, str precision) -> Tensor"); }

TORCH_LIBRARY_IMPL(orb_export, CPU, m) { m.impl("pack_matrix", pack_matrix); }

}    // namespace orb_export
