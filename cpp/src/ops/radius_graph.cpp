// The torch face of the radius graph: schema, checks, kernels for the CPU and for devices, and derivative.
// Differentiable from libtorch alone, because openmm-torch runs it in processes without Python; the fake
// kernel is in orb_export/ops.py.
#include <ATen/Parallel.h>
#include <torch/library.h>
#include <torch/torch.h>

#include <memory>
#include <stdexcept>
#include <tuple>

#include "../graph/neighbor_search.h"
#include "radius_graph_device.h"

namespace orb_export {
namespace {

using torch::Tensor;
using Outputs = std::tuple<Tensor, Tensor, Tensor>;    // edges (2, E), shifts (E, 3), vectors (E, 3)

void check_float64(const Tensor &tensor, const char *name) {
  TORCH_CHECK_TYPE(tensor.scalar_type() == torch::kFloat64, "radius_graph: `", name, "` is ",
                   tensor.scalar_type(), " but must be float64, in which the geometry is computed");
}

void check_inputs(const Tensor &positions, const Tensor &cell, const Tensor &periodic) {
  check_float64(positions, "positions");
  check_float64(cell, "cell");
  TORCH_CHECK_TYPE(periodic.scalar_type() == torch::kBool, "radius_graph: `periodic` is ",
                   periodic.scalar_type(), " but must be bool");
  TORCH_CHECK_VALUE(positions.dim() == 2 && positions.size(1) == 3, "radius_graph: `positions` has shape ",
                    positions.sizes(), " but must have shape (N, 3)");
  TORCH_CHECK_VALUE(cell.dim() == 2 && cell.size(0) == 3 && cell.size(1) == 3,
                    "radius_graph: `cell` has shape ", cell.sizes(), " but must have shape (3, 3)");
  TORCH_CHECK_VALUE(periodic.dim() == 1 && periodic.size(0) == 3, "radius_graph: `periodic` has shape ",
                    periodic.sizes(), " but must have shape (3,)");
}

Box to_box(const Tensor &cell, const Tensor &periodic) {
  Box box;
  const Tensor rows = cell.cpu().contiguous(), flags = periodic.cpu().contiguous();
  std::copy_n(rows.const_data_ptr<double>(), 9, box.cell.begin());
  std::copy_n(flags.const_data_ptr<bool>(), 3, box.periodic.begin());
  return box;
}

// An uninitialized tensor on memory of the graph library, which recycles it.
template <class T>
Tensor new_tensor(at::IntArrayRef shape) {
  auto owner = std::make_shared<Array<T>>(shape[0] * shape[1]);
  T *data = owner->data();
  return torch::from_blob(data, shape, [owner](void *) {}, torch::CppTypeToScalarType<T>::value);
}

Outputs radius_graph_cpu(const Tensor &positions, const Tensor &cell, const Tensor &periodic, double cutoff,
                         int64_t max_neighbors) {
  check_inputs(positions, cell, periodic);
  const Tensor given = positions.contiguous();
  try {
    const NeighborSearch search(given.const_data_ptr<double>(), given.size(0), to_box(cell, periodic), cutoff,
                                max_neighbors, at::get_num_threads());
    const int64_t n = search.n_edges();
    const Tensor edges = new_tensor<int64_t>({2, n}), shifts = new_tensor<int64_t>({n, 3});
    const Tensor vectors = new_tensor<double>({n, 3});
    auto *centers = edges.mutable_data_ptr<int64_t>();
    search.write(EdgeArrays<int64_t>{centers, centers + n, shifts.mutable_data_ptr<int64_t>(),
                                     vectors.mutable_data_ptr<double>()});
    return {edges, shifts, vectors};
  } catch (const std::invalid_argument &error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

Outputs radius_graph_device(const Tensor &positions, const Tensor &cell, const Tensor &periodic,
                            double cutoff, int64_t max_neighbors) {
  check_inputs(positions, cell, periodic);
  try {
    const auto found = radius_graph_on_device(positions, to_box(cell, periodic), cutoff, max_neighbors, true);
    return {at::stack({found.centers, found.neighbors}), found.shifts, found.vectors};
  } catch (const std::invalid_argument &error) {
    TORCH_CHECK_VALUE(false, error.what());
  }
}

Outputs call_radius_graph(const Tensor &positions, const Tensor &cell, const Tensor &periodic, double cutoff,
                          int64_t max_neighbors) {
  static const auto op = c10::Dispatcher::singleton()
                             .findSchemaOrThrow("orb_export::radius_graph", "")
                             .typed<decltype(radius_graph_cpu)>();
  return op.call(positions, cell, periodic, cutoff, max_neighbors);
}

// vectors = positions[neighbors] + shifts . cell - positions[centers]: linear, with this transpose. Made of
// differentiable operations, so that second derivatives (training on forces) come by themselves.
class RadiusGraph : public torch::autograd::Function<RadiusGraph> {
 public:
  static torch::autograd::variable_list forward(torch::autograd::AutogradContext *context,
                                                const Tensor &positions, const Tensor &cell,
                                                const Tensor &periodic, double cutoff,
                                                int64_t max_neighbors) {
    const at::AutoDispatchBelowADInplaceOrView guard;
    auto [edges, shifts, vectors] = call_radius_graph(positions, cell, periodic, cutoff, max_neighbors);
    context->save_for_backward({edges, shifts});
    context->saved_data["n_atoms"] = positions.sym_size(0);
    context->mark_non_differentiable({edges, shifts});
    return {edges, shifts, vectors};
  }

  static torch::autograd::variable_list backward(torch::autograd::AutogradContext *context,
                                                 const torch::autograd::variable_list &gradients) {
    const Tensor &gradient = gradients[2];
    if (!gradient.defined()) return torch::autograd::variable_list(5);
    const auto saved = context->get_saved_variables();
    const Tensor centers = saved[0].select(0, 0), neighbors = saved[0].select(0, 1);
    const Tensor positions_gradient =
        gradient.new_zeros_symint({context->saved_data["n_atoms"].toSymInt(), 3})
            .index_add(0, neighbors, gradient)
            .index_add(0, centers, gradient.neg());
    const Tensor cell_gradient = saved[1].to(gradient.scalar_type()).t().mm(gradient);
    return {positions_gradient, cell_gradient, Tensor(), Tensor(), Tensor()};
  }
};

Outputs radius_graph_autograd(const Tensor &positions, const Tensor &cell, const Tensor &periodic,
                              double cutoff, int64_t max_neighbors) {
  const auto outputs = RadiusGraph::apply(positions, cell, periodic, cutoff, max_neighbors);
  return {outputs[0], outputs[1], outputs[2]};
}

}    // namespace

TORCH_LIBRARY_FRAGMENT(orb_export, m) {
  m.def(
      "radius_graph(Tensor positions, Tensor cell, Tensor periodic, float cutoff, int max_neighbors)"
      " -> (Tensor edges, Tensor shifts, Tensor vectors)",
      {at::Tag::pt2_compliant_tag});
  m.def(
      "radius_graph_device(Tensor positions, Tensor cell, Tensor periodic, float cutoff, int max_neighbors)"
      " -> (Tensor edges, Tensor shifts, Tensor vectors)");
}

TORCH_LIBRARY_IMPL(orb_export, CPU, m) { m.impl("radius_graph", radius_graph_cpu); }

TORCH_LIBRARY_IMPL(orb_export, CUDA, m) { m.impl("radius_graph", radius_graph_device); }

// what devices run, for any device: the tests run it on the CPU
TORCH_LIBRARY_IMPL(orb_export, CompositeExplicitAutograd, m) {
  m.impl("radius_graph_device", radius_graph_device);
}

TORCH_LIBRARY_IMPL(orb_export, Autograd, m) { m.impl("radius_graph", radius_graph_autograd); }

}    // namespace orb_export
