#include <c10/core/InferenceMode.h>
#include <torch/csrc/inductor/aoti_package/model_package_loader.h>

#include "tensors.h"

namespace orb_export {
namespace {

class AotiBackend : public Backend {
 public:
  AotiBackend(const std::string &path, const Metadata &metadata, int device)
      : metadata_(metadata),
        device_(torch_device(device)),
        loader_(path, "model", /*run_single_threaded=*/false, /*num_runners=*/1,
                static_cast<c10::DeviceIndex>(device)) {}

  RawOutputs run(const Graph &graph) override {
    c10::InferenceMode guard;
    return to_outputs(loader_.run(to_tensors(graph, device_)), graph, metadata_);
  }

 private:
  Metadata metadata_;
  c10::Device device_;
  torch::inductor::AOTIModelPackageLoader loader_;
};

}    // namespace

std::unique_ptr<Backend> open_aoti(const std::string &path, const Metadata &metadata, int device) {
  try {
    return std::make_unique<AotiBackend>(path, metadata, device);
  } catch (const std::exception &error) {
    throw std::invalid_argument("load: `" + path +
                                "` cannot be opened by AOTInductor: " + short_message(error));
  }
}

}    // namespace orb_export
