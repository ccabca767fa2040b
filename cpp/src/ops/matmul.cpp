// matmul(rows, matrix, bias): rows . matrix + bias through oneDNN, for compiled float32 programs on the CPU.
//
// MKL, which ATen and Inductor call, does not use AVX-512 on processors of other makers than its own and runs
// at half speed there. oneDNN has no such preference, but ATen calls it for float32 only through this
// internal op.
#include "matmul.h"

#include <ATen/core/dispatch/Dispatcher.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

#include <string_view>

namespace orb_export {
namespace {

using LinearPointwise = at::Tensor(const at::Tensor &, const at::Tensor &, const std::optional<at::Tensor> &,
                                   std::string_view, c10::List<std::optional<at::Scalar>>,
                                   std::optional<std::string_view>);

}    // namespace

at::Tensor matmul(const at::Tensor &rows, const at::Tensor &matrix, const std::optional<at::Tensor> &bias) {
  TORCH_CHECK(rows.dim() == 2 && matrix.dim() == 2 && rows.size(1) == matrix.size(0),
              "matmul: `rows` and `matrix` must have shapes (R, K) and (K, C), got ", rows.sizes(), " and ",
              matrix.sizes());
  if (rows.size(0) == 0) return at::zeros({0, matrix.size(1)}, rows.options());
  static const auto linear = c10::Dispatcher::singleton()
                                 .findSchemaOrThrow("mkldnn::_linear_pointwise", "")
                                 .typed<LinearPointwise>();
  // oneDNN falls back to a scalar loop for a weight that is a slice of a larger one
  const auto weight = matrix.is_contiguous() || matrix.t().is_contiguous() ? matrix : matrix.contiguous();
  return linear.call(rows.contiguous(), weight.t(), bias, "none", c10::List<std::optional<at::Scalar>>(),
                     std::nullopt);
}

}    // namespace orb_export

TORCH_LIBRARY_FRAGMENT(orb_export, m) { m.def("matmul(Tensor rows, Tensor matrix, Tensor? bias) -> Tensor"); }

TORCH_LIBRARY_IMPL(orb_export, CPU, m) { m.impl("matmul", orb_export::matmul); }
