// What a graph must satisfy before it reaches a compiled program, which would read out of bounds or return
// NaN.
#pragma once

#include "orb_export/potential.h"

namespace orb_export {

// Throws std::invalid_argument naming the argument and the offending value. `shared`: with an exchange.
void check_graph(const Graph &graph, const Metadata &metadata, bool shared);

}    // namespace orb_export
