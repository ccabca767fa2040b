// What decides whether an atom is among the selected neighbors of a center, in three numbers: for processes
// that see only a part of the center's surroundings.
#pragma once

#include <cstdint>
#include <vector>

namespace orb_export {

// A neighbor closer than `inner` is selected and one farther than `outer` is not; between, where the cap cuts
// a shell of equal distances (see graph.h), those whose vector . kTieDirection is below `projection` are.
// Each limit lies halfway between what it separates, so that rounding does not change a decision.
struct SelectionLimit {
  double inner = 0.0;         // angstrom
  double outer = 0.0;         // angstrom
  double projection = 0.0;    // angstrom
  bool includes(const double vector[3]) const;
};

// Of a center with `n` candidate vectors, of which select_neighbors() chose `order` under the same cap.
SelectionLimit selection_limit(const double *vectors, int64_t n, double cutoff,
                               const std::vector<int64_t> &order);

}    // namespace orb_export
