#include "lattice.h"

#include <cmath>
#include <limits>
#include <sstream>
#include <stdexcept>

namespace orb_export {
namespace {

// Below this ratio of volume to the product of the lengths, of reduced vectors, no image search is
// meaningful.
constexpr double kSmallestVolumeRatio = 1e-10;
// A reduction step must shorten a squared length by this factor, so that rounding cannot make it cycle.
constexpr double kProgress = 1.0 - 1e-9;

void check_rows(const Box &box) {
  for (int k = 0; k < 3; ++k) {
    if (!box.periodic[k]) continue;
    const double *row = &box.cell[3 * k];
    const double length = std::sqrt(row[0] * row[0] + row[1] * row[1] + row[2] * row[2]);
    if (std::isfinite(length) && length > 0.0) continue;
    std::ostringstream message;
    message << "radius_graph: `cell` row " << k << " is (" << row[0] << ", " << row[1] << ", " << row[2]
            << ") but axis " << k << " is periodic and needs a finite, nonzero lattice vector";
    throw std::invalid_argument(message.str());
  }
}

void add_multiple(Lattice &lattice, int k, int l, double factor) {
  const auto count = static_cast<int64_t>(factor);
  for (int d = 0; d < 3; ++d) {
    lattice.rows[k][d] += factor * lattice.rows[l][d];
    lattice.combination[k][d] += count * lattice.combination[l][d];
  }
}

// Shortens row k by whole multiples of row l.
bool reduce_pair(Lattice &lattice, int k, int l) {
  const double overlap = dot(lattice.rows[k], lattice.rows[l]) / dot(lattice.rows[l], lattice.rows[l]);
  double factor = -std::round(overlap);
  if (factor == 0.0) return false;
  factor = std::fmax(-1e9, std::fmin(1e9, factor));    // stays an integer; the next round does the rest
  const double before = dot(lattice.rows[k], lattice.rows[k]);
  Lattice trial = lattice;
  add_multiple(trial, k, l, factor);
  if (!(dot(trial.rows[k], trial.rows[k]) < kProgress * before)) return false;
  lattice = trial;
  return true;
}

// Pairs may all be reduced while the sum of three vectors is short.
bool reduce_triple(Lattice &lattice, int k) {
  const int l = (k + 1) % 3, m = (k + 2) % 3;
  for (const double a : {-1.0, 1.0}) {
    for (const double b : {-1.0, 1.0}) {
      Lattice trial = lattice;
      add_multiple(trial, k, l, a);
      add_multiple(trial, k, m, b);
      if (dot(trial.rows[k], trial.rows[k]) < kProgress * dot(lattice.rows[k], lattice.rows[k])) {
        lattice = trial;
        return true;
      }
    }
  }
  return false;
}

double shortest(const Lattice &lattice) {
  double length = std::numeric_limits<double>::infinity();
  for (int k = 0; k < 3; ++k) {
    if (lattice.periodic[k]) length = std::fmin(length, std::sqrt(dot(lattice.rows[k], lattice.rows[k])));
  }
  return length;
}

void reduce(Lattice &lattice) {
  const bool all = lattice.periodic[0] && lattice.periodic[1] && lattice.periodic[2];
  const double given = shortest(lattice);
  // dependent rows shrink towards zero: stop there and let the volume tell
  for (bool changed = true; changed && shortest(lattice) > kSmallestVolumeRatio * given;) {
    changed = false;
    for (int k = 0; k < 3; ++k) {
      for (int l = 0; l < 3; ++l) {
        if (k != l && lattice.periodic[k] && lattice.periodic[l]) changed |= reduce_pair(lattice, k, l);
      }
      if (all) changed |= reduce_triple(lattice, k);
    }
  }
}

// Recomputed from the given rows: the sums of the reduction carry rounding errors.
void rebuild_rows(Lattice &lattice, const Box &box) {
  for (int k = 0; k < 3; ++k) {
    if (!lattice.periodic[k]) continue;
    for (int d = 0; d < 3; ++d) {
      lattice.rows[k][d] = 0.0;
      for (int l = 0; l < 3; ++l) {
        if (lattice.combination[k][l] != 0)
          lattice.rows[k][d] += static_cast<double>(lattice.combination[k][l]) * box.cell[3 * l + d];
      }
    }
  }
}

Vector3 normalized(Vector3 v) {
  const double length = std::sqrt(dot(v, v));
  for (double &x : v) x /= length;
  return v;
}

Vector3 perpendicular_to(const Vector3 &v) {
  int smallest = 0;
  for (int d = 1; d < 3; ++d) {
    if (std::fabs(v[d]) < std::fabs(v[smallest])) smallest = d;
  }
  Vector3 axis{};
  axis[smallest] = 1.0;
  return normalized(cross(v, axis));
}

void fill_open_axes(Lattice &lattice) {
  std::array<bool, 3> filled = lattice.periodic;
  int n_filled = filled[0] + filled[1] + filled[2];
  for (int k = 0; k < 3; ++k) {
    if (filled[k]) continue;
    const int l = (k + 1) % 3, m = (k + 2) % 3;
    if (n_filled == 0) {
      lattice.rows[k] = {1.0, 0.0, 0.0};
    } else if (n_filled == 1) {
      lattice.rows[k] = perpendicular_to(lattice.rows[filled[l] ? l : m]);
    } else {
      lattice.rows[k] = normalized(cross(lattice.rows[l], lattice.rows[m]));
    }
    filled[k] = true;
    ++n_filled;
  }
}

double volume_ratio(const std::array<Vector3, 3> &rows) {
  double product = 1.0;
  for (const auto &row : rows) product *= std::sqrt(dot(row, row));
  return std::fabs(dot(rows[0], cross(rows[1], rows[2]))) / product;
}

}    // namespace

Lattice::Lattice(const Box &box) : periodic(box.periodic) {
  check_rows(box);
  for (int k = 0; k < 3; ++k) {
    combination[k][k] = 1;
    if (periodic[k]) rows[k] = {box.cell[3 * k], box.cell[3 * k + 1], box.cell[3 * k + 2]};
  }
  reduce(*this);
  rebuild_rows(*this, box);
  fill_open_axes(*this);
  if (!(volume_ratio(rows) > kSmallestVolumeRatio)) {
    std::ostringstream message;
    message << "radius_graph: `cell` is singular: the lattice vectors of the periodic axes";
    for (int k = 0; k < 3; ++k) {
      if (periodic[k])
        message << " (" << box.cell[3 * k] << ", " << box.cell[3 * k + 1] << ", " << box.cell[3 * k + 2]
                << ")";
    }
    message << " are not linearly independent";
    throw std::invalid_argument(message.str());
  }
  const double volume = dot(rows[0], cross(rows[1], rows[2]));
  for (int k = 0; k < 3; ++k) {
    inverse[k] = cross(rows[(k + 1) % 3], rows[(k + 2) % 3]);
    for (double &x : inverse[k]) x /= volume;
    width[k] = 1.0 / std::sqrt(dot(inverse[k], inverse[k]));
  }
}

std::array<double, 9> periodic_cell(const Box &box) {
  std::array<double, 9> cell{};
  for (int k = 0; k < 9; ++k) {
    if (box.periodic[k / 3]) cell[k] = box.cell[k];
  }
  return cell;
}

}    // namespace orb_export
