// How many edges a captured evaluation has room for: more than the present ones, so that it can be replayed
// while atoms move. No torch.
#pragma once

#include <cstdint>

namespace orb_export {

class EdgeBucket {
 public:
  // `most`: edges that there can be, for which no room beyond is needed.
  explicit EdgeBucket(int64_t most) : most_(most) {}
  // The room to evaluate `n_edges` in: the present one as long as it suffices, unless it has been much too
  // large for many evaluations.
  int64_t room_for(int64_t n_edges);

 private:
  int64_t most_, room_ = 0;
  int64_t largest_ = 0, unfilled_ = 0;    // of the last evaluations in a row that left much room: most edges,
                                          // and how many they are
};

}    // namespace orb_export
