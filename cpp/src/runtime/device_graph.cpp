// Graphs of kernels of whatever accelerator torch was built for; CUDA is one.
#include "captured.h"

#if __has_include(<ATen/accelerator/Graph.h>)
#include <ATen/DeviceAccelerator.h>
#include <ATen/accelerator/Graph.h>
#include <c10/core/DeviceGuard.h>
#include <c10/core/StreamGuard.h>
#include <c10/core/impl/VirtualGuardImpl.h>

#include <optional>
#define ORB_EXPORT_DEVICE_GRAPHS 1
#endif

namespace orb_export {

#ifdef ORB_EXPORT_DEVICE_GRAPHS
namespace {

class AcceleratorGraph : public DeviceGraph {
 public:
  explicit AcceleratorGraph(c10::Device device) : device_(device) {}

  void capture(const std::function<void()> &work) override {
    const c10::DeviceGuard guard(device_);
    const c10::impl::VirtualGuardImpl device(device_.type());
    at::accelerator::synchronizeDevice(device_.index());
    // the default stream cannot be captured
    const c10::StreamGuard stream(device.getStreamFromGlobalPool(device_));
    work();    // loads kernels and makes workspaces, which cannot be done in a capture
    at::accelerator::synchronizeDevice(device_.index());
    // a capture has memory of its own, and cannot give back what evaluations before it have left
    at::accelerator::emptyCache();
    // other threads of the host, an engine's perhaps, may use the device meanwhile
    graph_.capture_begin({0, 0}, at::GraphCaptureMode::ThreadLocal);
    try {
      work();
    } catch (...) {
      end_failed_capture();
      throw;
    }
    graph_.capture_end();
  }

  void settle() override {
    if (last_ && *last_ != at::accelerator::getCurrentStream(device_.index())) last_->synchronize();
  }

  void replay() override {
    const c10::DeviceGuard guard(device_);
    last_ = at::accelerator::getCurrentStream(device_.index());
    graph_.replay();
  }

 private:
  // The stream must leave the capture; that it failed is known.
  void end_failed_capture() noexcept {
    try {
      graph_.capture_end();
    } catch (const std::exception &) {
    }
  }

  c10::Device device_;
  std::optional<c10::Stream> last_;    // of a replay
  at::accelerator::Graph graph_;
};

}    // namespace
#endif

MakeGraph graphs_of(c10::Device device) {
#ifdef ORB_EXPORT_DEVICE_GRAPHS
  if (at::has_graph_impl(device.type()))
    return [device] {
      const c10::DeviceGuard guard(device);    // on which it will find its stream
      return std::make_unique<AcceleratorGraph>(device);
    };
#endif
  (void)device;
  return {};
}

}    // namespace orb_export
