// Artefacts opened through the runtime; Contexts that use the same one share its weights.
#pragma once

#include <orb_export/potential.h>

#include <memory>
#include <mutex>
#include <string>

#include "temporary_file.h"

namespace orb_export::openmm {

class SharedPotential {
 public:
  explicit SharedPotential(std::unique_ptr<Potential> potential,
                           std::unique_ptr<TemporaryFile> file = nullptr)
      : file_(std::move(file)), potential_(std::move(potential)) {}
  const Metadata &metadata() const { return potential_->metadata(); }
  // One Context at a time: OpenMM lets those of different Python threads run together.
  Result evaluate(const Graph &graph, const Request &request);
  // The same with atoms that stay on the device; `evaluation` comes from on_device().
  const Result &evaluate(DeviceEvaluation &evaluation, const DeviceEvaluation::Conditions &conditions,
                         const Request &request);
  std::unique_ptr<DeviceEvaluation> on_device(const std::vector<int64_t> &numbers);

 private:
  template <class Function>
  decltype(auto) counted(const Request &request, const Function &evaluate);

  std::unique_ptr<TemporaryFile> file_;    // the potential may read it again; removed after it
  std::unique_ptr<Potential> potential_;
  std::mutex mutex_;
};

struct Artefact {
  std::string path;
  std::string sha256;                            // hexadecimal; empty: any
  std::shared_ptr<const std::string> content;    // instead of the file
};

// Opened unless a living Context has it open, with the same options and the SHA-256 that is asked for (empty:
// always opened). Throws std::invalid_argument and std::runtime_error.
std::shared_ptr<SharedPotential> open_potential(const Artefact &artefact, const Options &options);

}    // namespace orb_export::openmm
