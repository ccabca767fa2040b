// matmul_tf32(rows, matrix, bias): rows . matrix + bias, on a GPU with factors rounded to TF32 (10 bits) and
// sums in float32, for programs compiled with that precision; elsewhere in float32.
//
// Whether cuBLAS may round is a switch of the whole process. It is on for the launch of this product alone.
#include <ATen/Context.h>
#include <ATen/core/Tensor.h>
#include <ATen/ops/addmm.h>
#include <ATen/ops/mm.h>
#include <torch/library.h>
#include <torch/version.h>

#include <optional>

namespace {

class AllowTf32 {
 public:
  AllowTf32() : before_(get()) { set(kAllowed); }
  ~AllowTf32() { set(before_); }
  AllowTf32(const AllowTf32 &) = delete;
  AllowTf32 &operator=(const AllowTf32 &) = delete;

 private:
#if TORCH_VERSION_MAJOR > 2 || TORCH_VERSION_MINOR >= 13
  using State = at::Float32Precision;
  static constexpr State kAllowed = State::TF32;
  static State get() {
    return at::globalContext().float32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL);
  }
  static void set(State state) {
    at::globalContext().setFloat32Precision(at::Float32Backend::CUDA, at::Float32Op::MATMUL, state);
  }
#else
  using State = bool;
  static constexpr State kAllowed = true;
  static State get() { return at::globalContext().allowTF32CuBLAS(); }
  static void set(State state) { at::globalContext().setAllowTF32CuBLAS(state); }
#endif

  const State before_;
};

at::Tensor matmul_tf32(const at::Tensor &rows, const at::Tensor &matrix,
                       const std::optional<at::Tensor> &bias) {
  TORCH_CHECK(rows.dim() == 2 && matrix.dim() == 2 && rows.size(1) == matrix.size(0),
              "matmul_tf32: `rows` and `matrix` must have shapes (R, K) and (K, C), got ", rows.sizes(),
              " and ", matrix.sizes());
  TORCH_CHECK(rows.scalar_type() == at::kFloat, "matmul_tf32: `rows` must be float32, got ",
              rows.scalar_type());
  const AllowTf32 allowed;
  return bias ? at::addmm(*bias, rows, matrix) : at::mm(rows, matrix);
}

}    // namespace

TORCH_LIBRARY_FRAGMENT(orb_export, m) {
  m.def("matmul_tf32(Tensor rows, Tensor matrix, Tensor? bias) -> Tensor");
}

TORCH_LIBRARY_IMPL(orb_export, CompositeExplicitAutograd, m) { m.impl("matmul_tf32", matmul_tf32); }
