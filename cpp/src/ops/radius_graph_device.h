// The radius graph as tensor operations, for positions that lie on a device.
#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "orb_export/graph.h"

namespace orb_export {

struct TensorEdges {
  at::Tensor centers, neighbors;    // (E) int64
  at::Tensor shifts;                // (E, 3) int64, undefined without `with_shifts`
  at::Tensor vectors;               // (E, 3) float64
};

// As radius_graph() of graph.h, edges in the same order (but for atoms at the same place), for positions (N,
// 3) float64 on any device, where everything of an atom's size stays. Deterministic. Throws
// std::invalid_argument as that does.
TensorEdges radius_graph_on_device(const at::Tensor &positions, const Box &box, double cutoff,
                                   int64_t max_neighbors, bool with_shifts);

}    // namespace orb_export
