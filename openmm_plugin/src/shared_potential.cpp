#include "shared_potential.h"

#include <orb_export/open_runtime.h>

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

}    // namespace

Result SharedPotential::evaluate(const Graph &graph, const Request &request) {
  const std::lock_guard<std::mutex> lock(mutex_);
  auto &spent = timings();
  ++spent.evaluations;
  if (!request.forces) ++spent.energy_evaluations;
  const Stopwatch stopwatch(spent.model_ns);
  return potential_->evaluate(graph, request);
}

std::shared_ptr<SharedPotential> open_potential(const std::string &path, const std::string &sha256,
                                                const Options &options) {
  static std::mutex mutex;
  using Key = std::tuple<std::string, std::string, std::string, int, int64_t>;
  static std::map<Key, std::weak_ptr<SharedPotential>> open;
  const Key key{path, sha256, options.device, options.threads, options.memory_limit};
  const std::lock_guard<std::mutex> lock(mutex);

  auto found = open.find(key);
  if (found != open.end())
    if (auto potential = found->second.lock()) return potential;

  auto potential = std::make_shared<SharedPotential>(runtime().load(path, options));
  const auto &actual = potential->metadata().file_sha256;
  if (!sha256.empty() && actual != sha256)
    throw std::invalid_argument("the artefact " + path + " has SHA-256 " + actual +
                                " but the force was made for " + sha256 + ": another file has its place");
  if (!sha256.empty()) open[key] = potential;
  return potential;
}

}    // namespace orb_export::openmm
