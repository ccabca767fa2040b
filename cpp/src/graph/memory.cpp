// Memory of large arrays: see allocate_array() in orb_export/graph.h.
//
// Pages fresh from the kernel must be zeroed first and, in pages of 4 KiB, cost more than the whole search
// (12 ns per edge). So large blocks ask for huge pages, and a few released ones are kept for the next graph.
#include <algorithm>
#include <cstdlib>
#include <mutex>
#include <new>
#include <vector>

#include "orb_export/graph.h"

#ifdef __linux__
#include <sys/mman.h>
#endif

namespace orb_export {
namespace {

constexpr size_t kPage = size_t{4} << 10;
constexpr size_t kHugePage = size_t{2} << 20;
constexpr size_t kRecycled = size_t{128} << 10;    // smaller arrays are malloc's business
constexpr size_t kHuge = size_t{1} << 20;          // larger ones ask for huge pages
constexpr size_t kKeptBytes = size_t{1} << 30;     // in all
constexpr size_t kKeptBlocks = 256;
constexpr size_t kHeader = 64;    // keeps arrays aligned to cache lines

struct Block {
  void *base;
  size_t capacity;
};

// Released blocks, oldest first.
class Recycler {
 public:
  // The smallest kept block that fits without wasting more than half of itself; none: a null base.
  Block take(size_t bytes) {
    const std::lock_guard<std::mutex> lock(mutex_);
    auto best = kept_.end();
    for (auto block = kept_.begin(); block != kept_.end(); ++block) {
      if (block->capacity < bytes || block->capacity > 2 * bytes) continue;
      if (best == kept_.end() || block->capacity < best->capacity) best = block;
    }
    if (best == kept_.end()) return {nullptr, 0};
    const Block taken = *best;
    kept_bytes_ -= taken.capacity;
    kept_.erase(best);
    return taken;
  }

  void keep(Block released) noexcept {
    const std::lock_guard<std::mutex> lock(mutex_);
    while (!kept_.empty() && (kept_.size() == kKeptBlocks || kept_bytes_ + released.capacity > kKeptBytes)) {
      kept_bytes_ -= kept_.front().capacity;
      std::free(kept_.front().base);
      kept_.erase(kept_.begin());
    }
    if (released.capacity > kKeptBytes) return std::free(released.base);
    kept_bytes_ += released.capacity;
    kept_.push_back(released);    // within the reserved capacity
  }

  // Never destroyed: arrays may outlive static objects at the end of the process.
  static Recycler &instance() {
    static auto *recycler = new Recycler;
    return *recycler;
  }

 private:
  Recycler() { kept_.reserve(kKeptBlocks); }
  std::mutex mutex_;
  std::vector<Block> kept_;
  size_t kept_bytes_ = 0;
};

Block fresh_block(size_t bytes) {
  const size_t page = bytes < kHuge ? kPage : kHugePage;
  const size_t capacity = (bytes + page - 1) / page * page;
  void *base = std::aligned_alloc(page, capacity);
  if (base == nullptr) throw std::bad_alloc();
#ifdef MADV_HUGEPAGE
  if (page == kHugePage) (void)madvise(base, capacity, MADV_HUGEPAGE);    // refused: the same, slower
#endif
  return {base, capacity};
}

}    // namespace

void *allocate_array(size_t bytes) {
  if (bytes < kRecycled) return ::operator new(bytes);
  Block block = Recycler::instance().take(bytes + kHeader);
  if (block.base == nullptr) block = fresh_block(bytes + kHeader);
  *static_cast<size_t *>(block.base) = block.capacity;
  return static_cast<char *>(block.base) + kHeader;
}

void release_array(void *array, size_t bytes) noexcept {
  if (bytes < kRecycled) return ::operator delete(array);
  void *base = static_cast<char *>(array) - kHeader;
  Recycler::instance().keep({base, *static_cast<size_t *>(base)});
}

}    // namespace orb_export
