#include "add_rows.h"

#include <ATen/ops/_index_put_impl.h>

namespace orb_export {

void add_rows(at::Tensor &total, const at::Tensor &index, const at::Tensor &rows) {
  if (total.is_cpu()) {
    total.index_add_(0, index, rows);
    return;
  }
  // index_add_ would use atomics; this sorts the indices. `unsafe`: they are known to be within bounds, and a
  // check would wait for the device.
  at::_index_put_impl_(total, {index}, rows, /*accumulate=*/true, /*unsafe=*/true);
}

}    // namespace orb_export
