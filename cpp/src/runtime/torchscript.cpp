#include <torch/csrc/jit/api/module.h>
#include <torch/csrc/jit/runtime/graph_executor.h>
#include <torch/csrc/jit/serialization/import.h>

#include "backend.h"
#include "steps.h"
#include "tensors.h"

namespace orb_export {
namespace {

class TorchScriptBackend : public Backend {
 public:
  TorchScriptBackend(const std::string &path, int device)
      : module_(torch::jit::load(path, torch_device(device))) {
    module_.eval();
  }

  std::vector<at::Tensor> run(std::vector<at::Tensor> inputs) override {
    // Optimization would change the last bits after the first calls, and pause for every new graph size.
    torch::jit::GraphOptimizerEnabledGuard as_written(false);
    // the script differentiates inside: no inference mode
    const auto outputs = module_.get_method("evaluate")({inputs.begin(), inputs.end()});
    std::vector<at::Tensor> tensors;
    for (const auto &value : outputs.toTupleRef().elements()) tensors.push_back(value.toTensor());
    return tensors;
  }

 private:
  torch::jit::Module module_;
};

class TorchScriptSteps : public Steps {
 public:
  TorchScriptSteps(const std::string &path, int device)
      : chain_(torch::jit::load(path, torch_device(device)).attr("chain").toModule()) {
    for (const torch::jit::Module &layer : chain_.attr("layers").toModule().children())
      layers_.push_back(layer);
  }

  std::vector<at::Tensor> run(const char *step, int64_t layer, std::vector<at::Tensor> inputs) override {
    const std::string name(step), piece = name.substr(0, name.find('.'));
    return call(piece == "layer" ? layers_.at(static_cast<size_t>(layer)) : chain_.attr(piece).toModule(),
                name.substr(piece.size() + 1), std::move(inputs));
  }

  std::pair<at::Tensor, at::Tensor> projections(int64_t layer) override {
    const auto pair = call(layers_.at(static_cast<size_t>(layer)), "projections", {});
    return {pair.at(0), pair.at(1)};
  }

 private:
  static std::vector<at::Tensor> call(const torch::jit::Module &module, const std::string &method,
                                      std::vector<at::Tensor> inputs) {
    torch::jit::GraphOptimizerEnabledGuard as_written(false);
    const at::AutoGradMode enable(true);    // the gradient steps differentiate inside
    const c10::IValue output = module.get_method(method)({inputs.begin(), inputs.end()});
    if (output.isTensor()) return {output.toTensor().detach()};
    std::vector<at::Tensor> tensors;
    for (const auto &value : output.toTupleRef().elements()) tensors.push_back(value.toTensor().detach());
    return tensors;
  }

  torch::jit::Module chain_;
  std::vector<torch::jit::Module> layers_;
};

}    // namespace

std::unique_ptr<Steps> open_torchscript_steps(const std::string &path, const Metadata &, int device) {
  return std::make_unique<TorchScriptSteps>(path, device);
}

std::unique_ptr<Backend> open_torchscript(const std::string &path, int device) {
  try {
    return std::make_unique<TorchScriptBackend>(path, device);
  } catch (const std::exception &error) {
    throw std::invalid_argument("load: `" + path +
                                "` cannot be opened by TorchScript: " + short_message(error));
  }
}

}    // namespace orb_export
