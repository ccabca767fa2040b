// How a walk over the steps keeps a limit of memory: what it stores of each edge, and how many edges it takes
// at once. No torch.
#pragma once

#include <cstdint>
#include <vector>

#include "orb_export/potential.h"

namespace orb_export {

// What memory depends on.
struct Problem {
  int64_t channels, hidden, layers;
  int64_t bytes;    // of a number of the network
  int64_t n_atoms, n_edges;
  bool fused;       // AOTInductor; TorchScript stores the result of every operation
  bool gradient;    // of the network: forces of a conservative model
};

Problem problem_of(const Metadata &metadata, int64_t n_atoms, int64_t n_edges, bool forces);

// The stream of edge features has a value e^l before each layer l. The forward pass runs through them in one
// array (E, C); the backward pass needs them again, last layer first, and is itself a stream of that size,
// which takes the place of the last e^l. What is not kept is computed again, chunk by chunk, from the nearest
// kept layer below, or from the vectors.
struct Plan {
  int64_t chunk = 0;          // edges that a step handles at once
  std::vector<bool> kept;     // by layer; all false: there is no array at all
  bool has_stream() const;    // whether any e^l is stored
  bool recomputes() const;    // whether some e^l is not
};

// Throws std::invalid_argument for a plan that a walk cannot follow.
void check_plan(const Plan &plan, const Metadata &metadata);

// Bytes beyond the weights and the host's own arrays at the worst moment of a walk.
int64_t predicted_bytes(const Problem &problem, const Plan &plan);
// The same of the whole program, which keeps everything.
int64_t predicted_bytes_of_whole(const Problem &problem);

// The fastest plan within `limit` bytes; 0: no limit. Throws std::invalid_argument when none is.
Plan choose_plan(const Problem &problem, int64_t limit);

// The smallest limit that some plan keeps.
int64_t least_bytes(const Problem &problem);

}    // namespace orb_export
