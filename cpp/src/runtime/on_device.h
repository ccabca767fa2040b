// Evaluations whose atoms stay on the potential's device.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <functional>
#include <optional>
#include <vector>

#include "orb_export/potential.h"

namespace orb_export {

class OnDevice : public DeviceEvaluation {
 public:
  // From what the host knows of a graph and the inputs of the contract to its outputs.
  using Run = std::function<std::vector<at::Tensor>(const Graph &, const std::vector<at::Tensor> &)>;

  // Throws std::invalid_argument for elements that the model does not know.
  OnDevice(Run run, const Metadata &metadata, c10::Device device, const std::vector<int64_t> &numbers);
  double *positions() override { return positions_.mutable_data_ptr<double>(); }
  const double *forces() const override { return forces_.const_data_ptr<double>(); }
  const Result &evaluate(const Conditions &conditions, const Request &request) override;
  const Result *known(const Conditions &conditions, const Request &request) override;

 private:
  Result compute(const Conditions &conditions, const Request &request);
  void set_forces(const at::Tensor &centers, const at::Tensor &neighbors,
                  const std::vector<at::Tensor> &outputs);
  std::vector<double> downloaded_confidence() const;

  Graph host_graph(const Conditions &conditions) const;

  Run run_;
  Metadata metadata_;
  std::vector<int64_t> host_numbers_;
  at::Tensor numbers_, positions_, forces_;
  // of the last evaluation; the confidence stays here until it is asked for
  at::Tensor known_positions_, confidence_;
  Conditions known_conditions_;
  std::optional<Result> result_;
};

}    // namespace orb_export
