#include "edge_bucket.h"

#include <algorithm>

namespace orb_export {
namespace {

constexpr int64_t kUnit = 256;          // edges
constexpr int64_t kSpare = 16;          // one in so many is spare in a new room, 6 %
constexpr int64_t kMuchTooLarge = 4;    // one in so many is unfilled
constexpr int64_t kPatience = 100;      // evaluations

}    // namespace

int64_t EdgeBucket::room_for(int64_t n_edges) {
  const bool leaves_much = n_edges + room_ / kMuchTooLarge < room_;
  unfilled_ = leaves_much ? unfilled_ + 1 : 0;
  largest_ = leaves_much ? std::max(largest_, n_edges) : 0;
  if (room_ > 0 && n_edges <= room_ && unfilled_ < kPatience) return room_;
  const int64_t needed = std::max(largest_, n_edges);
  const int64_t spacious = (needed + needed / kSpare) / kUnit * kUnit + kUnit;
  room_ = std::max(n_edges, std::min(spacious, most_));
  largest_ = unfilled_ = 0;
  return room_;
}

}    // namespace orb_export
