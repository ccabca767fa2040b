// Removal of the torque of forces, in three parts: the middle one is the same on all processes.
#include <algorithm>
#include <cmath>

#include "assemble.h"

namespace orb_export {
namespace {

using Vector = std::array<double, 3>;

// Relative size of a moment of inertia that counts as none: a collinear molecule, a single atom.
constexpr double kRankTolerance = 1e-12;

Vector from(const Vector &about, const double *position) {
  return {position[0] - about[0], position[1] - about[1], position[2] - about[2]};
}

void add_cross(const Vector &r, const double *p, double *out) {
  out[0] += r[1] * p[2] - r[2] * p[1];
  out[1] += r[2] * p[0] - r[0] * p[2];
  out[2] += r[0] * p[1] - r[1] * p[0];
}

}    // namespace

void add_moments(const double *positions, const double *forces, int64_t n, const Vector &about,
                 ForceSums &sums) {
  for (int64_t i = 0; i < n; ++i) {
    const Vector r = from(about, positions + 3 * i);
    add_cross(r, forces + 3 * i, sums.torque.data());
    for (int a = 0; a < 3; ++a)
      for (int b = 0; b < 3; ++b) sums.inertia[3 * a + b] += r[a] * r[b];
  }
}

Vector compensation(const ForceSums &sums) {
  std::array<double, 9> m = sums.inertia, vectors;
  const double trace = m[0] + m[4] + m[8];
  for (int a = 0; a < 3; ++a) m[4 * a] -= trace;
  Vector values, mu{};
  symmetric_eigen(m, values, vectors);
  double largest = 0.0;
  for (double value : values) largest = std::max(largest, std::abs(value));
  for (int k = 0; k < 3; ++k) {
    if (std::abs(values[k]) <= kRankTolerance * largest) continue;
    double projection = 0.0;
    for (int a = 0; a < 3; ++a) projection -= vectors[3 * a + k] * sums.torque[a];
    for (int a = 0; a < 3; ++a) mu[a] += vectors[3 * a + k] * projection / values[k];
  }
  return mu;
}

void add_rotation(const double *positions, int64_t n, const Vector &about, const Vector &mu, double *forces) {
  for (int64_t i = 0; i < n; ++i) add_cross(from(about, positions + 3 * i), mu.data(), forces + 3 * i);
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

}    // namespace orb_export
