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
  int64_t bytes;          // of a number of the network
  int64_t slope_bytes;    // of a slope of an activation of an edge, kept for the gradient
  int64_t n_atoms, n_edges;
  bool fused;       // AOTInductor; TorchScript stores the result of every operation
  bool gradient;    // of the network: forces of a conservative model
  int64_t threads;
};

Problem problem_of(const Metadata &metadata, int64_t n_atoms, int64_t n_edges, bool forces, int threads);

// What the forward pass stores of the edges of a layer for the backward pass.
enum class Keep : int {
  nothing,       // computed again, chunk by chunk, from the nearest layer below with `edges`, or from the
                 // vectors
  edges,         // the edge features e before the layer
  activations    // all that its backward step needs, so that nothing is computed twice
};

// The forward pass runs through the edge features in one array (E, C), and the backward pass through their
// gradient in another, which takes the place of what is used up.
struct Plan {
  int64_t chunk = 0;          // edges that a step handles at once
  std::vector<Keep> kept;     // by layer; without `edges` or `activations` anywhere there is no array at all
  bool has_stream() const;    // whether there is
  bool recomputes() const;    // whether some layer keeps nothing
};

// As in Potential::evaluate_in_chunks. Throws std::invalid_argument for a plan that a walk cannot follow.
Plan make_plan(int64_t chunk, const std::vector<int> &kept, const Metadata &metadata);

// Bytes beyond the weights and the host's own arrays at the worst moment of a walk.
int64_t predicted_bytes(const Problem &problem, const Plan &plan);
// The same of the whole program, which keeps everything.
int64_t predicted_bytes_of_whole(const Problem &problem);

// Whether a walk is faster than the whole program, on the CPU and without a limit.
bool prefers_steps(const Problem &problem);

// The fastest plan within `limit` bytes; 0: no limit. Throws std::invalid_argument when none is.
Plan choose_plan(const Problem &problem, int64_t limit);

// The smallest limit that some plan keeps.
int64_t least_bytes(const Problem &problem);

}    // namespace orb_export
