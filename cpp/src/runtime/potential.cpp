#include "orb_export/potential.h"

#include "assemble.h"
#include "container.h"
#include "graph_checks.h"
#include "metadata.h"
#include "orb_export/contract.h"
#include "tensors.h"

#ifndef ORB_EXPORT_VERSION
#error "the build defines ORB_EXPORT_VERSION"
#endif

namespace orb_export {
namespace {

class CompiledPotential : public Potential {
 public:
  CompiledPotential(Metadata metadata, std::unique_ptr<Backend> backend)
      : metadata_(std::move(metadata)), backend_(std::move(backend)) {}

  const Metadata &metadata() const override { return metadata_; }

  Result evaluate(const Graph &graph, const Request &) override {
    check_graph(graph, metadata_);
    RawOutputs raw;
    try {
      raw = backend_->run(graph);
    } catch (const std::exception &error) {
      throw std::runtime_error("evaluate: model `" + metadata_.model + "` failed on " +
                               std::to_string(graph.n_atoms) + " atoms and " + std::to_string(graph.n_edges) +
                               " edges: " + short_message(error));
    }
    return assemble(graph, metadata_, raw);
  }

 private:
  Metadata metadata_;
  std::unique_ptr<Backend> backend_;
};

}    // namespace

std::unique_ptr<Potential> load_potential(const std::string &path, const Options &options) {
  if (options.threads < 0)
    throw std::invalid_argument("load: `threads` is " + std::to_string(options.threads) +
                                " but must be 0 (torch's own choice) or positive");
  Metadata metadata = read_metadata(path, read_container(path), torch_version());
  const int device = resolve_device(path, metadata, options.device);
  auto backend = metadata.format == "aoti" ? open_aoti(path, metadata, device)
                                           : open_torchscript(path, metadata, device);
  if (options.threads > 0) set_torch_threads(options.threads);
  return std::make_unique<CompiledPotential>(std::move(metadata), std::move(backend));
}

}    // namespace orb_export

extern "C" const orb_export::Runtime *orb_export_runtime() {
  static const orb_export::Runtime runtime = {orb_export::kSchemaVersion, ORB_EXPORT_VERSION,
                                              orb_export::torch_version(), orb_export::load_potential};
  return &runtime;
}
