#include "assemble.h"

#include <algorithm>
#include <cmath>
#include <stdexcept>

#include "orb_export/contract.h"

namespace orb_export {
namespace {

// Upstream replaces entries of a stress of this size by 0; only a vanishing volume produces them.
constexpr double kStressLimit = 1e10;
// Relative size of a moment of inertia that counts as none: a collinear molecule, a single atom.
constexpr double kRankTolerance = 1e-12;
constexpr int kVoigt[6][2] = {{0, 0}, {1, 1}, {2, 2}, {1, 2}, {0, 2}, {0, 1}};

void require_finite(const double *values, int64_t n, const char *name) {
  for (int64_t i = 0; i < n; ++i)
    if (!std::isfinite(values[i]))
      throw std::runtime_error("evaluate: the potential gave a non-finite " + std::string(name) +
                               "; check the structure for atoms that are far too close");
}

std::array<double, 9> strain_gradient(const Graph &graph, const double *gradient) {
  std::array<double, 9> sum{};
  for (int64_t e = 0; e < graph.n_edges; ++e)
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) sum[3 * a + b] += graph.vectors[3 * e + a] * gradient[3 * e + b];
  auto symmetric = sum;
  for (int a = 0; a < 3; ++a)
    for (int b = 0; b < 3; ++b) symmetric[3 * a + b] = 0.5 * (sum[3 * a + b] + sum[3 * b + a]);
  return symmetric;
}

// Mean first, then (without a cell) torque, then the offset: the order of orb-models 0.5.5.
void add_node_forces(const Graph &graph, bool has_cell, const RawOutputs &raw, std::vector<double> &forces) {
  const int64_t n = graph.n_atoms;
  std::vector<double> node(raw.node_forces, raw.node_forces + 3 * n);
  for (int a = 0; a < 3; ++a) {
    double mean = 0.0;
    for (int64_t i = 0; i < n; ++i) mean += node[3 * i + a];
    mean /= static_cast<double>(n);
    for (int64_t i = 0; i < n; ++i) node[3 * i + a] -= mean;
  }
  if (!has_cell) remove_torque(graph.positions, n, node.data());
  for (int64_t i = 0; i < 3 * n; ++i) forces[i] += node[i] + raw.force_offset;
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

void set_direct_stress(const Metadata &metadata, double volume, const double *head, Result &result) {
  result.stress = stress_of(result.strain_gradient, volume);
  if (!metadata.has_stress) return;
  for (int k = 0; k < 6; ++k) {
    result.stress[k] += head[k];
    if (volume == 0.0) continue;
    const auto [a, b] = kVoigt[k];
    result.strain_gradient[3 * a + b] = result.strain_gradient[3 * b + a] =
        result.stress[k] * std::abs(volume);
  }
}

}    // namespace

double determinant(const std::array<double, 9> &c) {
  return c[0] * (c[4] * c[8] - c[5] * c[7]) - c[1] * (c[3] * c[8] - c[5] * c[6]) +
         c[2] * (c[3] * c[7] - c[4] * c[6]);
}

void symmetric_eigen(std::array<double, 9> m, std::array<double, 3> &values, std::array<double, 9> &vectors) {
  vectors = {1, 0, 0, 0, 1, 0, 0, 0, 1};
  for (int sweep = 0; sweep < 30; ++sweep) {
    const double off = m[1] * m[1] + m[2] * m[2] + m[5] * m[5];
    if (off == 0.0) break;
    for (const auto &[p, q] : {std::pair{0, 1}, {0, 2}, {1, 2}}) {
      if (m[3 * p + q] == 0.0) continue;
      const double theta = (m[3 * q + q] - m[3 * p + p]) / (2 * m[3 * p + q]);
      const double t = std::copysign(1.0, theta) / (std::abs(theta) + std::hypot(theta, 1.0));
      const double c = 1 / std::hypot(t, 1.0), s = t * c;
      for (int k = 0; k < 3; ++k) {
        const double kp = m[3 * k + p], kq = m[3 * k + q];
        m[3 * k + p] = c * kp - s * kq;
        m[3 * k + q] = s * kp + c * kq;
      }
      for (int k = 0; k < 3; ++k) {
        const double pk = m[3 * p + k], qk = m[3 * q + k];
        m[3 * p + k] = c * pk - s * qk;
        m[3 * q + k] = s * pk + c * qk;
        const double vp = vectors[3 * k + p], vq = vectors[3 * k + q];
        vectors[3 * k + p] = c * vp - s * vq;
        vectors[3 * k + q] = s * vp + c * vq;
      }
    }
  }
  values = {m[0], m[4], m[8]};
}

void remove_torque(const double *positions, int64_t n, double *forces) {
  std::array<double, 3> centroid{}, torque{};
  for (int64_t i = 0; i < 3 * n; ++i) centroid[i % 3] += positions[i] / static_cast<double>(n);
  std::array<double, 9> m{};
  auto relative = [&](int64_t i) {
    return std::array<double, 3>{positions[3 * i] - centroid[0], positions[3 * i + 1] - centroid[1],
                                 positions[3 * i + 2] - centroid[2]};
  };
  auto add_cross = [](const std::array<double, 3> &r, const double *p, double *out) {
    out[0] += r[1] * p[2] - r[2] * p[1];
    out[1] += r[2] * p[0] - r[0] * p[2];
    out[2] += r[0] * p[1] - r[1] * p[0];
  };
  for (int64_t i = 0; i < n; ++i) {
    const auto r = relative(i);
    add_cross(r, forces + 3 * i, torque.data());
    for (int a = 0; a < 3; ++a) {
      for (int b = 0; b < 3; ++b) m[3 * a + b] += r[a] * r[b];
      m[4 * a] -= r[0] * r[0] + r[1] * r[1] + r[2] * r[2];
    }
  }
  std::array<double, 3> values, mu{};
  std::array<double, 9> vectors;
  symmetric_eigen(m, values, vectors);
  double largest = 0.0;
  for (double value : values) largest = std::max(largest, std::abs(value));
  for (int k = 0; k < 3; ++k) {
    if (std::abs(values[k]) <= kRankTolerance * largest) continue;
    double projection = 0.0;
    for (int a = 0; a < 3; ++a) projection -= vectors[3 * a + k] * torque[a];
    for (int a = 0; a < 3; ++a) mu[a] += vectors[3 * a + k] * projection / values[k];
  }
  for (int64_t i = 0; i < n; ++i) add_cross(relative(i), mu.data(), forces + 3 * i);
}

Result assemble(const Graph &graph, const Metadata &metadata, const Request &request, const RawOutputs &raw) {
  const int64_t n = graph.n_atoms;
  require_finite(&raw.energy, 1, "energy");
  Result result;
  result.energy = raw.energy;
  if (request.confidence) result.confidence.assign(raw.confidence, raw.confidence + n * kConfidenceBins);
  if (!request.forces) return result;
  require_finite(raw.edge_gradient, 3 * graph.n_edges, "edge gradient");
  result.forces.assign(static_cast<size_t>(3 * n), 0.0);
  for (int64_t e = 0; e < graph.n_edges; ++e)
    for (int a = 0; a < 3; ++a) {
      result.forces[3 * graph.centers[e] + a] += raw.edge_gradient[3 * e + a];
      result.forces[3 * graph.neighbors[e] + a] -= raw.edge_gradient[3 * e + a];
    }
  result.strain_gradient = strain_gradient(graph, raw.edge_gradient);
  // whether there is a cell decides, not the periodicity: the convention of orb-models 0.5.5
  const bool has_cell = std::any_of(graph.cell.begin(), graph.cell.end(), [](double x) { return x != 0.0; });
  const double volume = determinant(graph.cell);
  if (metadata.kind == "direct") {
    add_node_forces(graph, has_cell, raw, result.forces);
    set_direct_stress(metadata, volume, raw.node_stress, result);    // signed volume, as upstream
  } else {
    result.stress = stress_of(result.strain_gradient, std::abs(volume));
  }
  require_finite(result.forces.data(), 3 * n, "force");
  require_finite(result.stress.data(), 6, "stress");
  return result;
}

}    // namespace orb_export
