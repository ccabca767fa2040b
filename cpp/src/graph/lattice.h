// Periodic lattices, reduced to short vectors so that skewed cells cost no more than compact ones.
#pragma once

#include <array>
#include <cstdint>

#include "orb_export/graph.h"

namespace orb_export {

using Vector3 = std::array<double, 3>;

inline double dot(const Vector3 &a, const Vector3 &b) { return a[0] * b[0] + a[1] * b[1] + a[2] * b[2]; }

inline Vector3 cross(const Vector3 &a, const Vector3 &b) {
  return {a[1] * b[2] - a[2] * b[1], a[2] * b[0] - a[0] * b[2], a[0] * b[1] - a[1] * b[0]};
}

// A basis of the same lattice as the periodic rows of a box, with short and nearly orthogonal vectors; open
// axes get unit vectors perpendicular to the periodic ones.
struct Lattice {
  std::array<Vector3, 3> rows{};
  std::array<Vector3, 3> inverse{};    // fractional coordinate k of x is dot(inverse[k], x)
  Vector3 width{};                     // distance between the two faces of the cell along each axis
  std::array<bool, 3> periodic{};
  std::array<std::array<int64_t, 3>, 3> combination{};    // rows[k] = sum_l combination[k][l] * cell row l

  // Throws std::invalid_argument when the periodic rows are not finite or not linearly independent.
  explicit Lattice(const Box &box);
};

// The cell with zeros in place of the rows of open axes, which may hold anything.
std::array<double, 9> periodic_cell(const Box &box);

}    // namespace orb_export
