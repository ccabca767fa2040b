#include "packed.h"

#include <ATen/TensorOperators.h>
#include <ATen/cpu/Utils.h>
#include <ATen/native/CPUBlas.h>
#include <ATen/ops/constant_pad_nd.h>
#include <ATen/ops/stack.h>
#include <torch/library.h>

#include <array>
#include <cstdlib>
#include <exception>
#include <iterator>
#include <map>
#include <mutex>
#include <string_view>
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

// (panels, K, 64) -> (panels, K', 64), the two rows of a pair taking turns
Tensor interleaved(const Tensor &panels) {
  const int64_t n = panels.size(0), inner = rounded_up(panels.size(1), 2);
  const Tensor padded = at::constant_pad_nd(panels, {0, 0, 0, inner - panels.size(1)});
  return padded.view({n, inner / 2, 2, kTile}).transpose(2, 3).contiguous().view({n, inner, kTile});
}

// (panels, K, 64) float32 -> (2, panels, K', 64)
Tensor split(const Tensor &panels) {
  const Tensor high = panels.to(at::kBFloat16), low = (panels - high.to(at::kFloat)).to(at::kBFloat16);
  return at::stack({interleaved(high), interleaved(low)});
}

Tensor pack_matrix(const Tensor &matrix, std::string_view precision) {
  TORCH_CHECK_VALUE(matrix.dim() == 2 && matrix.scalar_type() == at::kFloat && matrix.numel() > 0,
                    "pack_matrix: `matrix` must be a float32 matrix, got ", matrix.scalar_type(),
                    " of shape ", matrix.sizes());
  const Tensor panels = panels_of(matrix);
  if (precision == "float32") return panels;
  if (precision == "float32-split") return panels.unsqueeze(0);
  if (precision == "bfloat16") return interleaved(panels.to(at::kBFloat16));
  TORCH_CHECK_VALUE(precision == "three-bfloat16", "pack_matrix: `precision` is ", precision,
                    " but must be float32, float32-split, three-bfloat16 or bfloat16");
  return split(panels);
}

// split() of weights that calls come back with: kept as long as the memory of the weights is.
Tensor kept_split(const Tensor &panels) {
  struct Entry {
    c10::weak_intrusive_ptr<c10::StorageImpl> owner;
    Tensor split;
  };
  static std::mutex mutex;
  static std::map<const void *, Entry> entries;
  const std::lock_guard<std::mutex> lock(mutex);
  const void *key = panels.const_data_ptr();
  const auto found = entries.find(key);
  if (found != entries.end() && !found->second.owner.expired()) return found->second.split;
  for (auto at = entries.begin(); at != entries.end();)
    at = at->second.owner.expired() ? entries.erase(at) : std::next(at);
  const Tensor result = split(panels);
  entries.insert({key, {panels.storage().getWeakStorageImpl(), result}});
  return result;
}

bool decide_to_split() {
  const char *given = std::getenv("ORB_EXPORT_SPLIT");
  const std::string_view choice = given ? given : "auto";
  TORCH_CHECK_VALUE(choice == "auto" || choice == "always" || choice == "never", "ORB_EXPORT_SPLIT is `",
                    choice, "` but must be auto, always or never");
  if (choice != "auto") return choice == "always";
#if defined(__x86_64__)
  __builtin_cpu_init();
  // the kernel gives the registers on request only
  return __builtin_cpu_supports("amx-tile") && __builtin_cpu_supports("amx-bf16") && at::cpu::init_amx();
#else
  return false;
#endif
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

bool splits_products() {
  static const bool splits = decide_to_split();
  return splits;
}

Packed::Packed(const Tensor &packed, int64_t inner, int64_t outputs)
    : inner_(inner), panels_(rounded_up(outputs, kTile) / kTile), packed_(packed) {
  const bool narrow = packed.scalar_type() == at::kBFloat16;
  if (narrow) inner_ = rounded_up(inner, 2);
  std::vector<int64_t> sizes = {panels_, inner_, kTile};
  if (packed.dim() == 4) sizes.insert(sizes.begin(), narrow ? 2 : 1);
  TORCH_CHECK((narrow || packed.scalar_type() == at::kFloat) && packed.is_contiguous() &&
                  packed.sizes() == at::IntArrayRef(sizes),
              "perceptron: a weight is ", packed.scalar_type(), " of shape ", packed.sizes(),
              " but must be what pack_matrix makes of a matrix (", inner, ", ", outputs, ")");
  const bool splits = packed.dim() == 4 && (narrow || splits_products());
  if (splits && !narrow) {
    packed_ = kept_split(packed[0]);
    inner_ = rounded_up(inner, 2);
  }
  precision_ = splits ? Precision::kSplit : narrow ? Precision::kBfloat16 : Precision::kFloat32;
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

TORCH_LIBRARY_FRAGMENT(orb_export, m) {
  m.def("pack_matrix(Tensor matrix, str precision) -> Tensor");
  m.def("splits_products() -> bool", splits_products);
}

TORCH_LIBRARY_IMPL(orb_export, CPU, m) { m.impl("pack_matrix", pack_matrix); }

}    // namespace orb_export
