#include "shared_potential.h"

#include <orb_export/open_runtime.h>

#include <atomic>
#include <map>
#include <stdexcept>
#include <tuple>

namespace orb_export::openmm {
namespace {

std::atomic<int64_t> n_evaluations{0};

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

Result SharedPotential::evaluate(const Graph &graph) {
  const std::lock_guard<std::mutex> lock(mutex_);
  ++n_evaluations;
  return potential_->evaluate(graph);
}

int64_t evaluations() { return n_evaluations; }

std::shared_ptr<SharedPotential> open_potential(const std::string &path, const std::string &sha256,
                                                const Options &options) {
  static std::mutex mutex;
  static std::map<std::tuple<std::string, std::string, std::string, int>, std::weak_ptr<SharedPotential>>
      open;
  const std::lock_guard<std::mutex> lock(mutex);

  auto found = open.find({path, sha256, options.device, options.threads});
  if (found != open.end())
    if (auto potential = found->second.lock()) return potential;

  auto potential = std::make_shared<SharedPotential>(runtime().load(path, options));
  const auto &actual = potential->metadata().file_sha256;
  if (!sha256.empty() && actual != sha256)
    throw std::invalid_argument("the artefact " + path + " has SHA-256 " + actual +
                                " but the force was made for " + sha256 + ": another file has its place");
  if (!sha256.empty()) open[{path, sha256, options.device, options.threads}] = potential;
  return potential;
}

}    // namespace orb_export::openmm
