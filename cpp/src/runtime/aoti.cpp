#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include <map>

#include "backend.h"
#include "orb_export/contract.h"
#include "steps.h"
#include "tensors.h"
#include "weights.h"

namespace orb_export {
namespace {

class AotiBackend : public Backend {
 public:
  AotiBackend(const std::string &path, int device, bool one_thread)
      : loader_(path, "model", /*run_single_threaded=*/one_thread, /*num_runners=*/1,
                static_cast<c10::DeviceIndex>(device)) {}

  std::vector<at::Tensor> run(std::vector<at::Tensor> inputs) override {
    c10::InferenceMode guard;
    return loader_.run(inputs);
  }

 private:
  torch::inductor::AOTIModelPackageLoader loader_;
};

using Loader = torch::inductor::AOTIModelPackageLoader;

// "layer.message" -> "layers.2." for layer 2, "nodes.encode" -> "nodes.": what the names of its weights begin
// with
std::string piece_of(const std::string &step, int64_t layer) {
  const std::string piece = step.substr(0, step.find('.') + 1);
  return piece == "layer." ? "layers." + std::to_string(layer) + "." : piece;
}

class AotiSteps : public Steps {
 public:
  AotiSteps(const std::string &path, const Metadata &metadata, int device) {
    for (const std::string &name : metadata.programs)
      if (name != kWholeProgram)
        loaders_[name] =
            std::make_unique<Loader>(path, name, false, 1, static_cast<c10::DeviceIndex>(device));
    for (const auto &[name, tensor] : map_weights(path)) weights_[name] = tensor.to(torch_device(device));
  }

  std::vector<at::Tensor> run(const char *step, int64_t layer, std::vector<at::Tensor> inputs) override {
    for (at::Tensor &input : inputs) input = input.contiguous();    // what the programs are compiled for
    const std::string piece = piece_of(step, layer);
    for (auto at = weights_.lower_bound(piece); at != weights_.end() && at->first.rfind(piece, 0) == 0; ++at)
      inputs.push_back(at->second);    // in the order of their names
    return loaders_.at(step)->run(inputs);
  }

  std::pair<at::Tensor, at::Tensor> projections(int64_t layer) override {
    const std::string name = "projections." + std::to_string(layer);
    return {weights_.at(name + ".center"), weights_.at(name + ".neighbor")};
  }

 private:
  std::map<std::string, std::unique_ptr<Loader>> loaders_;
  std::map<std::string, at::Tensor> weights_;
};

}    // namespace

std::unique_ptr<Steps> open_aoti_steps(const std::string &path, const Metadata &metadata, int device) {
  return std::make_unique<AotiSteps>(path, metadata, device);
}

std::unique_ptr<Backend> open_aoti(const std::string &path, int device, bool one_thread) {
  try {
    return std::make_unique<AotiBackend>(path, device, one_thread);
  } catch (const std::exception &error) {
    throw std::invalid_argument("load: `" + path +
                                "` cannot be opened by AOTInductor: " + short_message(error));
  }
}

}    // namespace orb_export
