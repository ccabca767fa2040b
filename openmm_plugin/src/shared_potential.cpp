#include "shared_potential.h"

#include <orb_export/open_runtime.h>

#include <filesystem>
#include <map>
#include <stdexcept>
#include <tuple>

#include "timings.h"

namespace orb_export::openmm {
namespace {

// This plugin lies in <site-packages>/OpenMM.libs/lib/plugins, and orb_export in <site-packages>.
const Runtime &runtime() {
  static const auto &opened =    // tried again after an exception
      open_runtime(folder_of_library(reinterpret_cast<const void *>(&open_potential))
                           .parent_path()
                           .parent_path()
                           .parent_path() /
                       "orb_export",
                   "this openmm");
  return opened;
}

std::shared_ptr<SharedPotential> open_artefact(const Artefact &artefact, const Options &options) {
  std::unique_ptr<TemporaryFile> file;
  if (artefact.content)
    file = std::make_unique<TemporaryFile>((artefact.sha256.empty() ? "embedded" : artefact.sha256) +
                                               std::filesystem::path(artefact.path).extension().string(),
                                           *artefact.content);
  const std::string path = file ? file->path().string() : artefact.path;
  auto potential = runtime().load(path, options);
  const auto &actual = potential->metadata().file_sha256;
  if (!artefact.sha256.empty() && actual != artefact.sha256)
    throw std::invalid_argument("the artefact " + (file ? "inside the XML" : path) + " has SHA-256 " +
                                actual + " but the force was made for " + artefact.sha256 +
                                (file ? "" : ": another file has its place"));
  return std::make_shared<SharedPotential>(std::move(potential), std::move(file));
}

}    // namespace

template <class Function>
decltype(auto) SharedPotential::counted(const Request &request, const Function &evaluate) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto &spent = timings();
  ++spent.evaluations;
  if (!request.forces) ++spent.energy_evaluations;
  const Stopwatch stopwatch(spent.model_ns);
  return evaluate();
}

Result SharedPotential::evaluate(const Graph &graph, const Request &request) {
  return counted(request, [&] { return potential_->evaluate(graph, request); });
}

const Result &SharedPotential::evaluate(DeviceEvaluation &evaluation,
                                        const DeviceEvaluation::Conditions &conditions,
                                        const Request &request) {
  return counted(request, [&]() -> const Result & { return evaluation.evaluate(conditions, request); });
}

std::unique_ptr<DeviceEvaluation> SharedPotential::on_device(const std::vector<int64_t> &numbers) {
  const std::lock_guard<std::mutex> lock(mutex_);
  return potential_->on_device(numbers);
}

std::shared_ptr<SharedPotential> open_potential(const Artefact &artefact, const Options &options) {
  if (artefact.sha256.empty()) return open_artefact(artefact, options);
  using Key = std::tuple<std::string, std::string, std::string, int, int64_t, std::string>;
  static std::mutex mutex;
  static std::map<Key, std::weak_ptr<SharedPotential>> open;
  const Key key{artefact.content ? "" : artefact.path,
                artefact.sha256,
                options.device,
                options.threads,
                options.memory_limit,
                options.program};
  const std::lock_guard<std::mutex> lock(mutex);
  if (auto living = open[key].lock()) return living;
  auto potential = open_artefact(artefact, options);
  open[key] = potential;
  return potential;
}

}    // namespace orb_export::openmm
