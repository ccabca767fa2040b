#include "plan.h"

#include <algorithm>
#include <limits>
#include <stdexcept>
#include <string>

namespace orb_export {
namespace {

// Arrays of 4096 edges for each thread stay in its caches; below 256 the matrix products lose their speed.
constexpr int64_t kLargestChunk = 4096, kSmallestChunk = 256;
constexpr int64_t kReadout = 1000;    // bytes of each atom for the confidence and forces, float64

// `count` layers of `layers` with edge features, the last one and others at even distances below it.
std::vector<Keep> evenly_kept(int64_t layers, int64_t count) {
  std::vector<Keep> kept(static_cast<size_t>(layers), Keep::nothing);
  for (int64_t i = 0; i < count; ++i)
    kept[static_cast<size_t>(layers - 1 - i * layers / count)] = Keep::edges;
  return kept;
}

// Fastest first.
std::vector<Plan> plans(const Problem &problem) {
  std::vector<std::vector<Keep>> choices;
  for (int64_t first = 0; problem.gradient && first < problem.layers; ++first) {
    choices.emplace_back(static_cast<size_t>(problem.layers), Keep::activations);
    std::fill_n(choices.back().begin(), first, Keep::edges);
  }
  // a forward pass alone needs one array: of the last layer, as the others run through it
  for (int64_t count = problem.gradient ? problem.layers : 1; count >= 0; --count)
    choices.push_back(evenly_kept(problem.layers, count));
  std::vector<Plan> found;
  for (const auto &kept : choices)
    for (int64_t chunk = kLargestChunk * problem.threads; chunk >= kSmallestChunk; chunk /= 2)
      found.push_back({chunk, kept});
  return found;
}

int64_t count(const Plan &plan, Keep keep) { return std::count(plan.kept.begin(), plan.kept.end(), keep); }

}    // namespace

Problem problem_of(const Metadata &metadata, int64_t n_atoms, int64_t n_edges, bool forces, int threads) {
  return {metadata.channels,
          metadata.hidden,
          metadata.layers,
          metadata.dtype == "float64" ? 8 : 4,
          metadata.dtype == "float64"        ? 8
          : metadata.precision == "bfloat16" ? 2
                                             : 4,
          n_atoms,
          n_edges,
          metadata.format == "aoti",
          forces && metadata.kind == "conservative",
          threads};
}

bool Plan::has_stream() const { return count(*this, Keep::nothing) < static_cast<int64_t>(kept.size()); }

bool Plan::recomputes() const { return count(*this, Keep::nothing) > 0; }

Plan make_plan(int64_t chunk, const std::vector<int> &kept, const Metadata &metadata) {
  if (!metadata.has_steps())
    throw std::invalid_argument("evaluate: model `" + metadata.model + "` was exported without steps");
  if (chunk < 1)
    throw std::invalid_argument("evaluate: `chunk` is " + std::to_string(chunk) + " but must be positive");
  if (static_cast<int64_t>(kept.size()) != metadata.layers)
    throw std::invalid_argument("evaluate: `kept` has " + std::to_string(kept.size()) +
                                " entries but the model has " + std::to_string(metadata.layers) + " layers");
  Plan plan = {chunk, {}};
  for (int keep : kept) {
    if (keep < 0 || keep > 2)
      throw std::invalid_argument("evaluate: `kept` has " + std::to_string(keep) + " but must be 0, 1 or 2");
    plan.kept.push_back(static_cast<Keep>(keep));
  }
  if (plan.has_stream() && plan.kept.back() == Keep::nothing)
    throw std::invalid_argument("evaluate: `kept` must include the last layer or none");
  return plan;
}

// Counted from the tensors that are alive at once in walk.cpp, plus what Inductor allocates inside the
// programs; `Result::memory` is what they are checked against. c and h stand for rows of channels and of
// hidden width.
int64_t predicted_bytes(const Problem &p, const Plan &plan) {
  const int64_t c = p.channels, h = p.hidden, layers = p.layers;
  const bool streams = plan.has_stream();
  const bool all_projections = !streams || (p.gradient && plan.recomputes());
  const int64_t whole = p.gradient ? count(plan, Keep::activations) : 0;
  // of each atom: projections; node stream and sums of one layer, or of all, and gradients of these
  int64_t atom = (all_projections ? layers : 1) * 2 * h + 5 * c;
  if (p.gradient) {
    atom += whole * (2 * h + c) + (layers - whole) * 3 * c + 2 * h;
    if (!streams) atom += 2 * layers * c;
  }
  const int64_t update = 4 * h + 5 * c;    // inside the program of the update, while no edges are there
  // of each edge of a chunk, inside the programs of the message and of the encoder with its 128 features
  int64_t row = h + c + std::max(h, int64_t{144});
  if (p.gradient) row = (whole == layers ? 4 : 5) * h + std::max(4 * c, 256 + 2 * c);
  if (!streams) row += p.gradient ? layers * (2 * h + 2 * c) : c;
  // of each edge: what is stored, envelope and its gradient, and in float64 repulsion and gradients
  const int64_t perceptrons = whole + (p.gradient && plan.kept[0] == Keep::activations ? 1 : 0);
  const int64_t stored =
      p.gradient ? perceptrons * c + whole * 2 + count(plan, Keep::edges) * c : (streams ? c : 0);
  const int64_t edge = (stored + 2) * p.bytes + perceptrons * 2 * h * p.slope_bytes + 64;
  const int64_t chunk = std::min(plan.chunk, p.n_edges);
  const int64_t inside = std::max(chunk * row, p.n_atoms * update) * p.bytes;
  const int64_t total = p.n_atoms * (atom * p.bytes + kReadout) + p.n_edges * edge + inside;
  return p.fused ? total : total + inside * 2 / 3;
}

int64_t predicted_bytes_of_whole(const Problem &p) {
  const int64_t c = p.channels, h = p.hidden, layers = p.layers;
  const int64_t atom = p.gradient ? layers * (4 * h + 6 * c) + 6 * c : 6 * h + 12 * c;
  // the backward pass needs two rows before an activation and two of channels of every perceptron
  const int64_t edge = p.gradient ? (layers + 1) * (2 * h + 2 * c) + 64 : 2 * h + c + 144;
  const int64_t total =
      (p.n_atoms * atom + p.n_edges * edge) * p.bytes + p.n_edges * 48 + p.n_atoms * kReadout;
  return p.fused ? total : total + (p.gradient ? total * 3 / 4 : total / 3);
}

bool prefers_steps(const Problem &problem) {
  return problem.fused && problem.n_edges > 2 * kLargestChunk * problem.threads;
}

int64_t least_bytes(const Problem &problem) {
  int64_t least = std::numeric_limits<int64_t>::max();
  for (const Plan &plan : plans(problem)) least = std::min(least, predicted_bytes(problem, plan));
  return least;
}

Plan choose_plan(const Problem &problem, int64_t limit) {
  for (const Plan &plan : plans(problem))
    if (limit == 0 || predicted_bytes(problem, plan) <= limit) return plan;
  throw std::invalid_argument("evaluate: `memory_limit` is " + std::to_string(limit) + " bytes but " +
                              std::to_string(problem.n_atoms) + " atoms and " +
                              std::to_string(problem.n_edges) + " edges need at least " +
                              std::to_string(least_bytes(problem)));
}

}    // namespace orb_export
