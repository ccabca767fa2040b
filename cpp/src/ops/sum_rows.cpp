// sum_rows(values, index, n): out[index[e]] += values[e], for compiled programs on the CPU.
//
// Inductor turns index_add into one atomic addition per element, slow and different in the last bits from run
// to run. ATen's own kernel sorts the indices and gives each output row to one thread; as an opaque op the
// sum stays with it.
#include <ATen/core/Tensor.h>
#include <ATen/ops/zeros.h>
#include <torch/library.h>

namespace {

at::Tensor sum_rows(const at::Tensor &values, const at::Tensor &index, int64_t n) {
  TORCH_CHECK(values.dim() == 2, "sum_rows: `values` must have shape (E, C), got ", values.sizes());
  TORCH_CHECK(n >= 0, "sum_rows: `n` is ", n, " but must not be negative");
  return at::zeros({n, values.size(1)}, values.options()).index_add_(0, index, values);
}

}    // namespace

TORCH_LIBRARY_FRAGMENT(orb_export, m) { m.def("sum_rows(Tensor values, Tensor index, SymInt n) -> Tensor"); }

TORCH_LIBRARY_IMPL(orb_export, CPU, m) { m.impl("sum_rows", sum_rows); }
