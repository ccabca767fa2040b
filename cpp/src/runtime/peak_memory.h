// Counts the memory of tensors that the calling thread allocates, through the hook that torch has for
// profilers.
#pragma once

#include <c10/core/Allocator.h>
#include <c10/util/ThreadLocalDebugInfo.h>

#include <cstdint>
#include <memory>
#include <optional>

namespace orb_export {

class PeakMemory {
 public:
  // Counts until destruction. Does nothing while a profiler of torch uses the hook.
  PeakMemory();
  // Bytes at the worst moment so far, of what was allocated since construction.
  int64_t bytes() const { return counter_->peak; }

 private:
  struct Counter : c10::MemoryReportingInfoBase {
    int64_t now = 0, peak = 0;
    void reportMemoryUsage(void *, int64_t bytes, size_t, size_t, c10::Device) override;
    bool memoryProfilingEnabled() const override { return true; }
  };
  std::shared_ptr<Counter> counter_;
  std::optional<c10::DebugInfoGuard> guard_;
};

}    // namespace orb_export
