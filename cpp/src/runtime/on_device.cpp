#include "on_device.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <stdexcept>
#include <string>
#include <utility>

#include "../ops/radius_graph_device.h"
#include "add_rows.h"
#include "assemble.h"
#include "graph_checks.h"
#include "peak_memory.h"
#include "python_lock.h"
#include "tensors.h"

namespace orb_export {
namespace {

using at::Tensor;

constexpr double kTooClose = 0.01;    // angstrom; trial steps of minimizers come closer than one would think

// Where in the one array that goes to the host each number lies.
enum Summary : int64_t { kEnergy, kLargestForce, kShortestEdge, kStrain, kForceOffset = 12, kHeadStress };

void refuse_close_atoms(const TensorEdges &edges, double shortest) {
  if (shortest >= kTooClose) return;
  const int64_t edge = edges.vectors.square().sum(1).argmin().item<int64_t>();
  throw std::runtime_error("evaluate: atoms " + std::to_string(edges.centers[edge].item<int64_t>()) +
                           " and " + std::to_string(edges.neighbors[edge].item<int64_t>()) + " are " +
                           std::to_string(shortest) + " angstrom apart, less than " +
                           std::to_string(kTooClose) + ": the structure is broken");
}

bool same(const DeviceEvaluation::Conditions &a, const DeviceEvaluation::Conditions &b) {
  return a.box.cell == b.box.cell && a.box.periodic == b.box.periodic && a.charge == b.charge &&
         a.spin == b.spin;
}

}    // namespace

OnDevice::OnDevice(Run run, const Metadata &metadata, c10::Device device, const std::vector<int64_t> &numbers)
    : run_(std::move(run)),
      metadata_(metadata),
      host_numbers_(numbers),
      numbers_(at::tensor(numbers, at::kLong).to(device)) {
  const auto n_atoms = static_cast<int64_t>(numbers.size());
  positions_ = at::zeros({n_atoms, 3}, at::TensorOptions().dtype(at::kDouble).device(device));
  forces_ = at::zeros_like(positions_);
  Conditions any;
  any.box.cell = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  check_graph(host_graph(any), metadata_, false);
}

// What the host knows of the graph: neither positions nor edges.
Graph OnDevice::host_graph(const Conditions &conditions) const {
  Graph graph;
  graph.n_atoms = static_cast<int64_t>(host_numbers_.size());
  graph.numbers = host_numbers_.data();
  graph.cell = conditions.box.cell;
  graph.charge = conditions.charge;
  graph.spin = conditions.spin;
  return graph;
}

const Result &OnDevice::evaluate(const Conditions &conditions, const Request &request) {
  result_.reset();
  check_graph(host_graph(conditions), metadata_, false);
  PeakMemory peak;
  try {
    const WithoutPythonLock unlocked;
    Result result = compute(conditions, request);
    result.memory = peak.bytes();
    known_positions_ = positions_.clone();
    known_conditions_ = conditions;
    result_ = std::move(result);
  } catch (const NotFinite &) {
    throw;
  } catch (const c10::Error &error) {
    throw std::runtime_error("evaluate: model `" + metadata_.model + "` failed on " +
                             std::to_string(host_numbers_.size()) + " atoms: " + short_message(error));
  }
  return *result_;
}

const Result *OnDevice::known(const Conditions &conditions, const Request &request) {
  if (!result_ || !same(conditions, known_conditions_) || !at::equal(positions_, known_positions_))
    return nullptr;
  if (request.confidence && result_->confidence.empty()) result_->confidence = downloaded_confidence();
  return &*result_;
}

Result OnDevice::compute(const Conditions &conditions, const Request &request) {
  const auto edges =
      radius_graph_on_device(positions_, conditions.box, metadata_.cutoff, metadata_.max_neighbors, false);
  const auto scalar = positions_.options();
  const auto outputs = run_(host_graph(conditions), {numbers_, edges.centers, edges.neighbors, edges.vectors,
                                                     at::scalar_tensor(conditions.charge, scalar),
                                                     at::scalar_tensor(conditions.spin, scalar)});
  confidence_ = outputs[2];
  set_forces(edges.centers, edges.neighbors, outputs);

  const bool direct = metadata_.kind == "direct";
  const Tensor shortest = at::cat({edges.vectors.square().sum(1).sqrt(), at::full({1}, kTooClose, scalar)});
  std::vector<Tensor> summary = {outputs[0].reshape(1), forces_.abs().max().reshape(1),
                                 shortest.min().reshape(1), edges.vectors.t().mm(outputs[1]).reshape(9)};
  if (direct) summary.insert(summary.end(), {outputs[5].reshape(1), outputs[6].reshape(6)});
  const Tensor host = at::cat(summary).cpu();    // also waits for everything above
  const double *value = host.const_data_ptr<double>();

  refuse_close_atoms(edges, value[kShortestEdge]);
  Graph nothing;    // no atom is on the host
  nothing.cell = conditions.box.cell;
  Assembly assembly(nothing, metadata_, request);
  std::copy_n(value + kStrain, 9, assembly.sums().strain.begin());
  Totals totals = {value[kEnergy], static_cast<double>(numbers_.size(0)), 0.0, nullptr};
  if (direct) totals = {totals.energy, totals.n_atoms, value[kForceOffset], value + kHeadStress};
  Result result = assembly.finish(totals, nullptr, nullptr);
  result.largest_force = value[kLargestForce];
  require_finite(&result.largest_force, 1, "force");
  if (request.confidence) result.confidence = downloaded_confidence();
  return result;
}

// With images along all axes there is a cell, and no torque is removed.
void OnDevice::set_forces(const Tensor &centers, const Tensor &neighbors,
                          const std::vector<Tensor> &outputs) {
  Tensor total = at::zeros_like(forces_);
  add_rows(total, centers, outputs[1]);
  add_rows(total, neighbors, outputs[1].neg());
  if (metadata_.kind == "direct") total.add_(outputs[4] - outputs[4].mean(0)).add_(outputs[5]);
  forces_.copy_(total);    // its address is known to the host
}

std::vector<double> OnDevice::downloaded_confidence() const {
  const Tensor host = confidence_.cpu().contiguous();
  return {host.const_data_ptr<double>(), host.const_data_ptr<double>() + host.numel()};
}

}    // namespace orb_export
