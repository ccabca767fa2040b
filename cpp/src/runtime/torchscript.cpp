#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include "tensors.h"

namespace orb_export {
namespace {

class TorchScriptBackend : public Backend {
 public:
  TorchScriptBackend(const std::string &path, const Metadata &metadata, int device)
      : metadata_(metadata), device_(torch_device(device)), module_(torch::jit::load(path, device_)) {
    module_.eval();
  }

  RawOutputs run(const Graph &graph) override {
    // Optimization would change the last bits after the first calls, and pause for every new graph size.
    torch::jit::GraphOptimizerEnabledGuard as_written(false);
    // the script differentiates inside: no inference mode
    std::vector<c10::IValue> inputs;
    for (auto &tensor : to_tensors(graph, device_)) inputs.emplace_back(std::move(tensor));
    const auto outputs = module_.get_method("evaluate")(std::move(inputs));
    std::vector<at::Tensor> tensors;
    for (const auto &value : outputs.toTupleRef().elements()) tensors.push_back(value.toTensor());
    return to_outputs(tensors, graph, metadata_);
  }

 private:
  Metadata metadata_;
  c10::Device device_;
  torch::jit::Module module_;
};

}    // namespace

std::unique_ptr<Backend> open_torchscript(const std::string &path, const Metadata &metadata, int device) {
  try {
    return std::make_unique<TorchScriptBackend>(path, metadata, device);
  } catch (const std::exception &error) {
    throw std::invalid_argument("load: `" + path +
                                "` cannot be opened by TorchScript: " + short_message(error));
  }
}

}    // namespace orb_export
