// Evaluations on a GPU as graphs of kernels, captured once and replayed, which saves the launch of each
// kernel. A graph has fixed sizes: edges are padded to those of a bucket, with edges that contribute nothing.
#pragma once

#include <c10/core/Device.h>

#include <functional>
#include <memory>

#include "backend.h"

namespace orb_export {

class DeviceGraph {
 public:
  virtual ~DeviceGraph() = default;
  // Runs `work`, perhaps more than once; it must not wait for the device. Throws what torch throws.
  virtual void capture(const std::function<void()> &work) = 0;
  // Waits for what follows the last replay, if that was on another stream than the present one: what it reads
  // and writes may be overwritten from now on.
  virtual void settle() = 0;
  // Does what `work` did, with what is now at the same addresses.
  virtual void replay() = 0;
};
using MakeGraph = std::function<std::unique_ptr<DeviceGraph>()>;

// Those of the device's own kind, or none where torch has no such.
MakeGraph graphs_of(c10::Device device);

// A backend that gives the results of `plain` through graphs, from the third evaluation of a number of atoms
// on. When one cannot be captured it warns, once, and evaluates by `plain` from then on.
std::unique_ptr<Backend> through_graphs(std::unique_ptr<Backend> plain, MakeGraph make_graph,
                                        const Metadata &metadata);

}    // namespace orb_export
