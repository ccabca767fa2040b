#include "tensors.h"

#include <ATen/Context.h>
#include <ATen/Parallel.h>
#include <ATen/detail/CUDAHooksInterface.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/scalar_tensor.h>
#include <torch/version.h>

#include "device_choice.h"
#include "orb_export/contract.h"

namespace orb_export {
namespace {

at::Tensor view(const void *data, at::IntArrayRef sizes, at::ScalarType dtype, c10::Device device) {
  // from_blob wants a mutable pointer; no potential writes into its inputs
  auto tensor = at::from_blob(const_cast<void *>(data), sizes, at::TensorOptions().dtype(dtype));
  return device.is_cpu() ? tensor : tensor.to(device);
}

const double *checked(const at::Tensor &tensor, at::IntArrayRef sizes, const char *name) {
  if (tensor.scalar_type() != at::kDouble || tensor.sizes() != sizes)
    throw std::runtime_error("evaluate: the potential returned `" + std::string(name) + "` as " +
                             c10::toString(tensor.scalar_type()) + " " + c10::str(tensor.sizes()) +
                             " where the contract has float64 " + c10::str(sizes));
  return tensor.const_data_ptr<double>();
}

}    // namespace

c10::Device torch_device(int device) {
  return device < 0 ? c10::Device(c10::kCPU) : c10::Device(c10::kCUDA, static_cast<c10::DeviceIndex>(device));
}

std::vector<at::Tensor> to_tensors(const Graph &graph, c10::Device device) {
  const auto scalar = at::TensorOptions().dtype(at::kDouble).device(device);
  return {view(graph.numbers, {graph.n_atoms}, at::kLong, device),
          view(graph.centers, {graph.n_edges}, at::kLong, device),
          view(graph.neighbors, {graph.n_edges}, at::kLong, device),
          view(graph.vectors, {graph.n_edges, 3}, at::kDouble, device),
          at::scalar_tensor(graph.charge, scalar),
          at::scalar_tensor(graph.spin, scalar)};
}

RawOutputs to_outputs(const std::vector<at::Tensor> &tensors, const Graph &graph, const Metadata &metadata) {
  const bool direct = metadata.kind == "direct";
  const size_t expected = direct ? kDirectOutputs.size() : kConservativeOutputs.size();
  if (tensors.size() != expected)
    throw std::runtime_error("evaluate: the potential returned " + std::to_string(tensors.size()) +
                             " tensors where the contract has " + std::to_string(expected));
  auto host = std::make_shared<std::vector<at::Tensor>>();
  for (const auto &tensor : tensors) host->push_back(tensor.detach().to(at::kCPU).contiguous());
  const auto &t = *host;
  RawOutputs out;
  out.energy = *checked(t[0], {}, kDirectOutputs[0]);
  out.edge_gradient = checked(t[1], {graph.n_edges, 3}, kDirectOutputs[1]);
  out.confidence = checked(t[2], {graph.n_atoms, kConfidenceBins}, kDirectOutputs[2]);
  out.atom_energies = checked(t[3], {graph.n_atoms}, kDirectOutputs[3]);
  if (direct) {
    out.node_forces = checked(t[4], {graph.n_atoms, 3}, kDirectOutputs[4]);
    out.force_offset = *checked(t[5], {}, kDirectOutputs[5]);
    out.node_stress = checked(t[6], {6}, kDirectOutputs[6]);
  }
  out.owner = host;
  return out;
}

std::string short_message(const std::exception &error) {
  const auto *torch_error = dynamic_cast<const c10::Error *>(&error);
  std::string text = torch_error ? torch_error->what_without_backtrace() : error.what();
  return text.substr(0, text.find('\n'));
}

int resolve_device(const std::string &path, const Metadata &metadata, const std::string &requested) {
  const bool any = metadata.device == "cuda" && at::globalContext().hasCUDA();
  const int n_gpus = any ? at::detail::getCUDAHooks().deviceCount() : 0;
  return choose_device(path, requested, metadata.device, n_gpus);
}

void set_torch_threads(int threads) { at::set_num_threads(threads); }

int torch_threads() { return at::get_num_threads(); }

const char *torch_version() { return TORCH_VERSION; }

}    // namespace orb_export
