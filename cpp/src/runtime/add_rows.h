#pragma once

#include <ATen/core/Tensor.h>

namespace orb_export {

// total[index[k]] += rows[k], in an order that depends on the indices alone: the same bits in every run.
void add_rows(at::Tensor &total, const at::Tensor &index, const at::Tensor &rows);

}    // namespace orb_export
