// The potential as a chain of steps: many processes, energies without gradient, evaluations that keep a limit
// of memory.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <memory>
#include <vector>

#include "collective.h"
#include "plan.h"
#include "steps.h"

namespace orb_export {

class Chain {
 public:
  Chain(std::unique_ptr<Steps> steps, const Metadata &metadata, int device);
  // Makes the calls of calls_of(). Throws what torch throws, std::runtime_error for results that are not
  // finite.
  Result run(const Graph &graph, const Plan &plan, const Request &request, Collective &collective);
  // From the inputs to the outputs of the contract, on the device, but for `atom_energies`, which is
  // undefined. `graph` has what the host knows, the numbers of the atoms among it.
  std::vector<at::Tensor> outputs(const Graph &graph, const std::vector<at::Tensor> &inputs,
                                  const Plan &plan);

 private:
  std::unique_ptr<Steps> steps_;
  Metadata metadata_;
  c10::Device device_;
};

}    // namespace orb_export
