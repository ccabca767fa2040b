#include "edge_lists.h"

#include <algorithm>

namespace orb_export {
namespace {

constexpr int64_t kFirstBlock = 1 << 14;
constexpr int64_t kLaterBlocks = (2 << 20) / sizeof(uint32_t) - 64;    // a huge page with its header

}    // namespace

uint32_t *Arena::allocate(int64_t count) {
  while (block_ < blocks_.size() && used_ + count > static_cast<int64_t>(blocks_[block_].size())) {
    ++block_;
    used_ = 0;
  }
  if (block_ == blocks_.size()) {
    blocks_.emplace_back(std::max(count, blocks_.empty() ? kFirstBlock : kLaterBlocks));
    used_ = 0;
  }
  uint32_t *values = blocks_[block_].data() + used_;
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
