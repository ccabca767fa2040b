// The potential as a chain of steps: many processes, energies without gradient, evaluations that keep a limit
// of memory.
#pragma once

#include <c10/core/Device.h>

#include <memory>

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

 private:
  std::unique_ptr<Steps> steps_;
  Metadata metadata_;
  c10::Device device_;
};

}    // namespace orb_export
