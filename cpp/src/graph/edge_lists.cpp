#include "edge_lists.h"

#include <algorithm>

namespace orb_export {
namespace {

constexpr int64_t kBlockValues = 1 << 16;

}    // namespace

uint32_t *Arena::allocate(int64_t count) {
  while (block_ < blocks_.size() && used_ + count > blocks_[block_].capacity) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    const int64_t capacity = std::max(count, kBlockValues);
    blocks_.push_back({std::unique_ptr<uint32_t[]>(new uint32_t[capacity]), capacity});
    used_ = 0;
  }
  uint32_t *values = blocks_[block_].values.get() + used_;
  used_ += count;
  return values;
}

void Arena::reset() {
  block_ = 0;
  used_ = 0;
}

void EdgeLists::reset(int64_t n_centers, int workers) {
  lists_.assign(n_centers, {nullptr, 0});
  offsets_.clear();
  if (static_cast<int>(arenas_.size()) < workers) arenas_.resize(workers);
  for (auto &arena : arenas_) arena.reset();
}

int64_t EdgeLists::finish() {
  offsets_.resize(lists_.size() + 1);
  offsets_[0] = 0;
  for (size_t c = 0; c < lists_.size(); ++c) offsets_[c + 1] = offsets_[c] + lists_[c].count;
  return n_edges();
}

}    // namespace orb_export
