#include "assemble.h"

#include <algorithm>
#include <cmath>
#include <string>

#include "orb_export/contract.h"

namespace orb_export {
namespace {

// Upstream replaces entries of a stress of this size by 0; only a vanishing volume produces them.
constexpr double kStressLimit = 1e10;
constexpr int kVoigt[6][2] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};
constexpr int64_t kForce = 3, kVirial = 9;

std::array<double, 9> symmetric(const std::array<double, 9> &m) {
  std::array<double, 9> result;
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) result[3 * a + b] = 0.5 * (m[3 * a + b] + m[3 * b + a]);
  return result;
}

// `volume` with the sign that the kind of model wants; 0 where there is none.
std::array<double, 6> stress_of(const std::array<double, 9> &gradient, double volume) {
  std::array<double, 6> stress{};
  for (int k = 0; k < 6; ++k) {
    const double value = gradient[3 * kVoigt[k][0] + kVoigt[k][1]] / volume;
    stress[k] = std::abs(value) < kStressLimit ? value : 0.0;    // false for NaN as well
  }
  return stress;
}

}    // namespace

void require_finite(const double *values, int64_t n, const char *name) {
  for (int64_t i = 0; i < n; ++i)
    if (!std::isfinite(values[i]))
      throw NotFinite("evaluate: the potential gave a non-finite " + std::string(name) +
                      "; check the structure for atoms that are far too close");
}

double determinant(const std::array<double, 9> &c) {
  return c[0] * (c[4] * c[8] - c[5] * c[7]) - c[1] * (c[3] * c[8] - c[5] * c[6]) +
         c[2] * (c[3] * c[7] - c[4] * c[6]);
}

// whether there is a cell decides, not the periodicity: the convention of orb-models 0.5.5
bool has_cell(const Graph &graph) {
  return std::any_of(graph.cell.begin(), graph.cell.end(), [](double x) { return x != 0.0; });
}

int64_t edge_row_width(const Request &request) { return request.per_atom ? kForce + kVirial : kForce; }

Assembly::Assembly(const Graph &graph, const Metadata &metadata, const Request &request)
    : graph_(graph), metadata_(metadata), request_(request) {}

std::array<double, 4> Assembly::centroid_sums() const {
  std::array<double, 4> sums{};
  for (int64_t i = 0; i < 3 * graph_.n_own(); ++i) sums[i % 3] += graph_.positions[i];
  sums[3] = static_cast<double>(graph_.n_own());
  return sums;
}

void Assembly::set_centroid(const std::array<double, 4> &sums) {
  for (int a = 0; a < 3; ++a) centroid_[a] = sums[a] / sums[3];
}

void Assembly::add_edges(const double *gradient) {
  require_finite(gradient, 3 * graph_.n_edges, "edge gradient");
  const int64_t width = edge_row_width(request_);
  edge_rows_.assign(static_cast<size_t>(graph_.n_atoms * width), 0.0);
  for (int64_t e = 0; e < graph_.n_edges; ++e) {
    const double *g = gradient + 3 * e, *v = graph_.vectors + 3 * e;
    double *center = &edge_rows_[graph_.centers[e] * width],
           *neighbor = &edge_rows_[graph_.neighbors[e] * width];
    for (int a = 0; a < 3; ++a) {
      center[a] += g[a];
      neighbor[a] -= g[a];
      for (int b = 0; b < 3; ++b) sums_.strain[3 * a + b] += v[a] * g[b];
    }
    if (!request_.per_atom) continue;
    for (int k = 0; k < kVirial; ++k) {    // half of it to either end
      const double half = -0.5 * v[k / 3] * g[k % 3];
      center[kForce + k] += half;
      neighbor[kForce + k] += half;
    }
  }
}

void Assembly::add_node_forces(const double *forces) {
  const int64_t n = graph_.n_own();
  node_forces_.assign(forces, forces + 3 * n);
  for (int64_t i = 0; i < 3 * n; ++i) sums_.node_force[i % 3] += forces[i];
  // about the centroid, the mean force has no torque
  if (!has_cell(graph_)) add_moments(graph_.positions, forces, n, centroid_, sums_);
}

void Assembly::check() const {
  require_finite(edge_rows_.data(), graph_.n_own() * edge_row_width(request_), "force");
  require_finite(node_forces_.data(), static_cast<int64_t>(node_forces_.size()), "force");
}

// Mean first, then (without a cell) torque, then the offset: the order of orb-models 0.5.5.
void Assembly::add_node_part(const Totals &totals, Result &result) const {
  const int64_t n = graph_.n_own();
  std::vector<double> node = node_forces_;
  for (int64_t i = 0; i < 3 * n; ++i) node[i] -= sums_.node_force[i % 3] / totals.n_atoms;
  if (!has_cell(graph_)) add_rotation(graph_.positions, n, centroid_, compensation(sums_), node.data());
  for (int64_t i = 0; i < 3 * n; ++i) result.forces[i] += node[i] + totals.force_offset;
}

void Assembly::set_stress(const Totals &totals, Result &result) const {
  const double volume = determinant(graph_.cell);
  result.strain_gradient = symmetric(sums_.strain);
  if (metadata_.kind == "conservative") {
    result.stress = stress_of(result.strain_gradient, std::abs(volume));
    return;
  }
  result.stress = stress_of(result.strain_gradient, volume);    // signed volume, as upstream
  if (!metadata_.has_stress) return;
  for (int k = 0; k < 6; ++k) {
    result.stress[k] += totals.head_stress[k];
    if (volume == 0.0) continue;
    const auto [a, b] = kVoigt[k];
    result.strain_gradient[3 * a + b] = result.strain_gradient[3 * b + a] =
        result.stress[k] * std::abs(volume);
  }
}

// Those of edges; what is not of edges (the stress head) is spread evenly.
void Assembly::set_virials(const Totals &totals, Result &result) const {
  const int64_t n = graph_.n_own(), width = edge_row_width(request_);
  const bool flipped = metadata_.kind == "direct" && metadata_.has_stress && determinant(graph_.cell) < 0.0;
  const double sign = flipped ? -1.0 : 1.0;
  const std::array<double, 9> of_edges = symmetric(sums_.strain);
  std::array<double, 9> even;
  for (int k = 0; k < kVirial; ++k)
    even[k] = (sign * of_edges[k] - result.strain_gradient[k]) / totals.n_atoms;
  result.atom_virials.resize(static_cast<size_t>(kVirial * n));
  for (int64_t i = 0; i < n; ++i)
    for (int k = 0; k < kVirial; ++k)
      result.atom_virials[kVirial * i + k] = sign * edge_rows_[width * i + kForce + k] + even[k];
}

Result Assembly::finish(const Totals &totals, const double *confidence, const double *atom_energies) {
  const int64_t n = graph_.n_own(), width = edge_row_width(request_);
  require_finite(&totals.energy, 1, "energy");
  Result result;
  result.energy = totals.energy;
  if (request_.confidence && n > 0) result.confidence.assign(confidence, confidence + n * kConfidenceBins);
  if (request_.per_atom && n > 0) result.atom_energies.assign(atom_energies, atom_energies + n);
  if (!request_.forces) return result;
  result.forces.resize(static_cast<size_t>(3 * n));
  for (int64_t i = 0; i < n; ++i)
    for (int a = 0; a < 3; ++a) result.forces[3 * i + a] = edge_rows_[width * i + a];
  if (metadata_.kind == "direct") add_node_part(totals, result);
  set_stress(totals, result);
  if (request_.per_atom) set_virials(totals, result);
  require_finite(result.forces.data(), 3 * n, "force");
  require_finite(result.stress.data(), 6, "stress");
  return result;
}

Result assemble(const Graph &graph, const Metadata &metadata, const Request &request, const RawOutputs &raw) {
  Assembly assembly(graph, metadata, request);
  require_finite(&raw.energy, 1, "energy");
  if (request.forces) {
    assembly.add_edges(raw.edge_gradient);
    if (metadata.kind == "direct") {
      if (!has_cell(graph)) assembly.set_centroid(assembly.centroid_sums());
      assembly.add_node_forces(raw.node_forces);
    }
    assembly.check();
  }
  const Totals totals = {raw.energy, static_cast<double>(graph.n_atoms), raw.force_offset, raw.node_stress};
  return assembly.finish(totals, raw.confidence, raw.atom_energies);
}

}    // namespace orb_export
