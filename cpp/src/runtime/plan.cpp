#include "plan.h"

#include <algorithm>
#include <stdexcept>
#include <string>

namespace orb_export {
namespace {

// A step is as fast with 4096 edges as with all; below 256 the matrix products lose their speed.
constexpr int64_t kLargestChunk = 8192, kSmallestChunk = 256;

// `count` kept layers of `layers`, the last one and others at even distances below it.
std::vector<bool> evenly_kept(int64_t layers, int64_t count) {
  std::vector<bool> kept(static_cast<size_t>(layers), false);
  for (int64_t i = 0; i < count; ++i) kept[static_cast<size_t>(layers - 1 - i * layers / count)] = true;
  return kept;
}

// Fastest first.
std::vector<Plan> plans(const Problem &problem) {
  std::vector<Plan> found;
  // a forward pass alone needs one array: of the last layer, as the others run through it
  for (int64_t count = problem.gradient ? problem.layers : 1; count >= 0; --count)
    for (int64_t chunk = kLargestChunk; chunk >= kSmallestChunk; chunk /= 2)
      found.push_back({chunk, evenly_kept(problem.layers, count)});
  return found;
}

}    // namespace

Problem problem_of(const Metadata &metadata, int64_t n_atoms, int64_t n_edges, bool forces) {
  return {metadata.channels,
          metadata.hidden,
          metadata.layers,
          metadata.dtype == "float64" ? 8 : 4,
          n_atoms,
          n_edges,
          forces && metadata.kind == "conservative"};
}

bool Plan::has_stream() const { return std::find(kept.begin(), kept.end(), true) != kept.end(); }

bool Plan::recomputes() const { return std::find(kept.begin(), kept.end(), false) != kept.end(); }

void check_plan(const Plan &plan, const Metadata &metadata) {
  if (!metadata.has_steps())
    throw std::invalid_argument("evaluate: model `" + metadata.model + "` was exported without steps");
  if (plan.chunk < 1)
    throw std::invalid_argument("evaluate: `chunk` is " + std::to_string(plan.chunk) +
                                " but must be positive");
  if (static_cast<int64_t>(plan.kept.size()) != metadata.layers)
    throw std::invalid_argument("evaluate: `kept` has " + std::to_string(plan.kept.size()) +
                                " entries but the model has " + std::to_string(metadata.layers) + " layers");
  if (plan.has_stream() && !plan.kept.back())
    throw std::invalid_argument("evaluate: `kept` must include the last layer or none");
}

int64_t predicted_bytes(const Problem &p, const Plan &plan) {
  const int64_t c = p.channels, h = p.hidden, layers = p.layers;
  const int64_t chunk = std::min(plan.chunk, p.n_edges);
  const int64_t arrays = std::count(plan.kept.begin(), plan.kept.end(), true);
  // stored for each atom: node streams and sums of every layer, projections of one layer or of all
  int64_t atom = p.gradient ? 3 * layers * c : 4 * c;
  atom += (plan.recomputes() && (p.gradient || arrays == 0) ? layers : 1) * 2 * h;
  atom += p.gradient ? 2 * h + 4 * c + (arrays == 0 ? 2 * layers * c : 0) : 0;
  atom += 3 * h + 4 * c;    // inside the update
  // of each edge: the arrays, the envelope and its gradient, and in float64 the gradient and its copy
  const int64_t edge = arrays * c * p.bytes + 2 * p.bytes + 48;
  // inside a step: rows of hidden width and of channels
  const int64_t row = p.gradient ? 9 * h + 8 * c : 4 * h + 6 * c;
  return p.n_atoms * (atom * p.bytes + 1000) + p.n_edges * edge +
         chunk * (row + (arrays == 0 ? layers * c : 0)) * p.bytes;
}

int64_t predicted_bytes_of_whole(const Problem &p) {
  const int64_t c = p.channels, h = p.hidden, layers = p.layers;
  const int64_t atom = p.gradient ? layers * (4 * h + 6 * c) : 6 * h + 6 * c;
  const int64_t edge = p.gradient ? layers * (2 * h + 4 * c) + 4 * h : 3 * h + 4 * c;
  return (p.n_atoms * atom + p.n_edges * edge) * p.bytes + p.n_edges * 48 + p.n_atoms * 1000;
}

Plan choose_plan(const Problem &problem, int64_t limit) {
  int64_t least = 0;
  for (const Plan &plan : plans(problem)) {
    const int64_t bytes = predicted_bytes(problem, plan);
    if (limit == 0 || bytes <= limit) return plan;
    least = least == 0 ? bytes : std::min(least, bytes);
  }
  throw std::invalid_argument("evaluate: `memory_limit` is " + std::to_string(limit) + " bytes but " +
                              std::to_string(problem.n_atoms) + " atoms and " +
                              std::to_string(problem.n_edges) + " edges need at least " +
                              std::to_string(least));
}

}    // namespace orb_export
