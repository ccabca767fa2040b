// The potential as a chain of steps: energies without gradient, and evaluations that keep a limit of memory.
#pragma once

#include <c10/core/Device.h>

#include <memory>

#include "backend.h"
#include "exchange.h"
#include "plan.h"
#include "steps.h"

namespace orb_export {

class Chain {
 public:
  Chain(std::unique_ptr<Steps> steps, const Metadata &metadata, int device);
  // Outputs as of the whole program; without forces there is no edge gradient.
  RawOutputs run(const Graph &graph, const Plan &plan, bool forces, RowExchange &exchange);

 private:
  std::unique_ptr<Steps> steps_;
  Metadata metadata_;
  c10::Device device_;
};

}    // namespace orb_export
