// rows . matrix + bias through oneDNN, float32 on the CPU; registered as orb_export::matmul.
#pragma once

#include <ATen/core/Tensor.h>

#include <optional>

namespace orb_export {

// (R, K), (K, C), (C) -> (R, C)
at::Tensor matmul(const at::Tensor &rows, const at::Tensor &matrix, const std::optional<at::Tensor> &bias);

}    // namespace orb_export
