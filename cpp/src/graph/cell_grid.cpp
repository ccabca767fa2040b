#include "cell_grid.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <numeric>
#include <sstream>
#include <stdexcept>
#include <tuple>

namespace orb_export {
namespace {

// Distances at the cutoff must not be lost to the rounding of fractional coordinates.
constexpr double kMargin = 1e-9;
// Bins along the fast axis are narrower than the cutoff, so that runs of points end close to the sphere.
constexpr int64_t kFineBins = 4;
// More bins than this per point: most are empty, and only the occupied ones are kept.
constexpr int64_t kDenseBinsPerPoint = 8;
constexpr int64_t kAlwaysDense = 4096;
constexpr double kMaxPoints = 2147483647.0;

// Images of fractional coordinate f in [first, last] along one axis.
struct ImageRange {
  int64_t first, last;
};

ImageRange images_near_cell(double fraction, double margin, bool periodic) {
  if (!periodic) return {0, 0};
  return {static_cast<int64_t>(std::ceil(-margin - fraction)),
          static_cast<int64_t>(std::floor(1.0 + margin - fraction))};
}

int32_t checked_shift(int64_t shift, int64_t atom) {
  if (shift > std::numeric_limits<int32_t>::max() / 2 || shift < std::numeric_limits<int32_t>::min() / 2) {
    std::ostringstream message;
    message << "radius_graph: `positions` of atom " << atom << " lies " << shift
            << " lattice vectors outside the cell, too far for 32-bit shifts";
    throw std::invalid_argument(message.str());
  }
  return static_cast<int32_t>(shift);
}

}    // namespace

CellGrid::CellGrid(const double *positions, int64_t n_atoms, const Box &box, double cutoff)
    : lattice_(box), cutoff_(cutoff * (1.0 + kMargin)) {
  collect_points(positions, n_atoms, box, cutoff);
  choose_bins();
  const auto n_points = points_.size();
  x.resize(n_points + kPadding);
  y.resize(n_points + kPadding);
  z.resize(n_points + kPadding);
  images.resize(n_points);
  is_center.resize(n_points);
  const double n_all =
      static_cast<double>(n_bins_[0]) * static_cast<double>(n_bins_[1]) * static_cast<double>(n_bins_[2]);
  if (n_all <= static_cast<double>(kAlwaysDense + kDenseBinsPerPoint * static_cast<int64_t>(n_points))) {
    sort_dense();
  } else {
    sort_sparse();
  }
  points_ = {};
}

double CellGrid::expected_points(int64_t n_atoms, double cutoff) const {
  double expected = static_cast<double>(n_atoms);
  for (int k = 0; k < 3; ++k) {
    if (lattice_.periodic[k]) expected *= 1.0 + 2.0 * cutoff_ / lattice_.width[k];
  }
  if (!(expected < kMaxPoints)) {
    std::ostringstream message;
    message << "radius_graph: `cutoff` is " << cutoff << " but needs " << expected
            << " periodic images of the " << n_atoms << " atoms in so small a cell";
    throw std::invalid_argument(message.str());
  }
  return expected;
}

void CellGrid::collect_points(const double *positions, int64_t n_atoms, const Box &box, double cutoff) {
  points_.reserve(static_cast<size_t>(expected_points(n_atoms, cutoff) * 1.05) + 64);
  centers.resize(n_atoms);
  const auto cell = periodic_cell(box);
  Vector3 low{HUGE_VAL, HUGE_VAL, HUGE_VAL}, high{-HUGE_VAL, -HUGE_VAL, -HUGE_VAL};
  for (int64_t atom = 0; atom < n_atoms; ++atom) {
    const Vector3 given{positions[3 * atom], positions[3 * atom + 1], positions[3 * atom + 2]};
    Vector3 fraction;
    for (int k = 0; k < 3; ++k) {
      fraction[k] = dot(lattice_.inverse[k], given);
      low[k] = std::min(low[k], fraction[k]);
      high[k] = std::max(high[k], fraction[k]);
    }
    add_images(atom, given, fraction, cell);
  }
  for (int k = 0; k < 3; ++k) {
    if (lattice_.periodic[k]) {
      low_[k] = -cutoff_;
      extent_[k] = lattice_.width[k] + 2.0 * cutoff_;
    } else if (n_atoms > 0) {    // fractions of open axes are lengths
      low_[k] = low[k];
      extent_[k] = high[k] - low[k];
    }
  }
}

// Adds the images of one atom that lie in the reduced cell or within the cutoff of one of its faces.
void CellGrid::add_images(int64_t atom, const Vector3 &given, const Vector3 &fraction,
                          const std::array<double, 9> &cell) {
  int64_t home[3], n[3];
  ImageRange range[3];
  for (int k = 0; k < 3; ++k) {
    const double whole = lattice_.periodic[k] ? std::floor(fraction[k]) : 0.0;
    home[k] = static_cast<int64_t>(whole);
    range[k] = images_near_cell(fraction[k] - whole, cutoff_ / lattice_.width[k], lattice_.periodic[k]);
  }
  Point point;
  point.image.atom = static_cast<int32_t>(atom);
  for (n[2] = range[2].first; n[2] <= range[2].last; ++n[2]) {
    for (n[1] = range[1].first; n[1] <= range[1].last; ++n[1]) {
      for (n[0] = range[0].first; n[0] <= range[0].last; ++n[0]) {
        for (int l = 0; l < 3; ++l) {
          int64_t shift = 0;
          for (int k = 0; k < 3; ++k) {
            if (lattice_.periodic[k]) shift += (n[k] - home[k]) * lattice_.combination[k][l];
          }
          point.image.shift[l] = checked_shift(shift, atom);
        }
        const int32_t *s = point.image.shift;
        for (int d = 0; d < 3; ++d)
          point.x[d] = given[d] + (s[0] * cell[d] + s[1] * cell[3 + d] + s[2] * cell[6 + d]);
        point.is_center = n[0] == 0 && n[1] == 0 && n[2] == 0;
        if (point.is_center) centers[atom] = point.image;
        points_.push_back(point);
      }
    }
  }
}

void CellGrid::choose_bins() {
  const auto count = [&](int axis, int64_t per_cutoff) {
    return std::max<int64_t>(1,
                             static_cast<int64_t>(extent_[axis] * static_cast<double>(per_cutoff) / cutoff_));
  };
  for (int k = 0; k < 3; ++k) n_bins_[k] = count(k, 1);
  const double n_fine = static_cast<double>(count(0, kFineBins)) * static_cast<double>(n_bins_[1]) *
                        static_cast<double>(n_bins_[2]);
  if (n_fine <= static_cast<double>(points_.size())) {
    n_bins_[0] = count(0, kFineBins);
    reach_[0] = kFineBins;
  }
  for (int k = 0; k < 3; ++k) {
    bins_per_length_[k] = extent_[k] > 0.0 ? static_cast<double>(n_bins_[k]) / extent_[k] : 0.0;
  }
}

int64_t CellGrid::bin_of(const Point &point, int axis) const {
  const double height = lattice_.width[axis] *
                        (lattice_.inverse[axis][0] * point.x[0] + lattice_.inverse[axis][1] * point.x[1] +
                         lattice_.inverse[axis][2] * point.x[2]);
  const auto bin = static_cast<int64_t>((height - low_[axis]) * bins_per_length_[axis]);
  return std::max<int64_t>(0, std::min(bin, n_bins_[axis] - 1));
}

void CellGrid::place(int64_t from, int64_t to) {
  const Point &point = points_[from];
  x[to] = point.x[0];
  y[to] = point.x[1];
  z[to] = point.x[2];
  images[to] = point.image;
  is_center[to] = point.is_center;
}

// Counting sort into an array of all bins.
void CellGrid::sort_dense() {
  const auto n_points = static_cast<int64_t>(points_.size());
  starts_.assign(n_bins_[0] * n_bins_[1] * n_bins_[2] + 1, 0);
  std::vector<int64_t> bins(n_points);
  for (int64_t p = 0; p < n_points; ++p) {
    const Point &point = points_[p];
    bins[p] = (bin_of(point, 2) * n_bins_[1] + bin_of(point, 1)) * n_bins_[0] + bin_of(point, 0);
    ++starts_[bins[p] + 1];
  }
  std::partial_sum(starts_.begin(), starts_.end(), starts_.begin());
  std::vector<int64_t> next(starts_.begin(), starts_.end() - 1);
  for (int64_t p = 0; p < n_points; ++p) place(p, next[bins[p]]++);
  for (int64_t b = 0; b + 1 < static_cast<int64_t>(starts_.size()); ++b) {
    if (starts_[b] == starts_[b + 1]) continue;
    cells.push_back({{b % n_bins_[0], b / n_bins_[0] % n_bins_[1], b / n_bins_[0] / n_bins_[1]},
                     starts_[b],
                     starts_[b + 1]});
  }
}

// Comparison sort by bin: memory follows the number of points, however far apart they are.
void CellGrid::sort_sparse() {
  struct Key {
    int64_t bin[3];
    int64_t point;
  };
  std::vector<Key> keys(points_.size());
  for (size_t p = 0; p < keys.size(); ++p) {
    keys[p] = {{bin_of(points_[p], 0), bin_of(points_[p], 1), bin_of(points_[p], 2)},
               static_cast<int64_t>(p)};
  }
  std::sort(keys.begin(), keys.end(), [](const Key &a, const Key &b) {
    return std::tie(a.bin[2], a.bin[1], a.bin[0], a.point) < std::tie(b.bin[2], b.bin[1], b.bin[0], b.point);
  });
  for (int64_t p = 0; p < static_cast<int64_t>(keys.size()); ++p) {
    place(keys[p].point, p);
    if (cells.empty() || !std::equal(keys[p].bin, keys[p].bin + 3, cells.back().bin)) {
      cells.push_back({{keys[p].bin[0], keys[p].bin[1], keys[p].bin[2]}, p, p});
    }
    ++cells.back().end;
  }
}

const CellGrid::Cell *CellGrid::lower_bound(int64_t bx, int64_t by, int64_t bz) const {
  const auto key = std::tie(bz, by, bx);
  return std::lower_bound(
      cells.data(), cells.data() + cells.size(), key,
      [](const Cell &cell, const auto &k) { return std::tie(cell.bin[2], cell.bin[1], cell.bin[0]) < k; });
}

int CellGrid::segments(const Cell &cell, Segment *segments, int64_t *n_points) const {
  int n = 0;
  *n_points = 0;
  const int64_t first = std::max<int64_t>(0, cell.bin[0] - reach_[0]);
  const int64_t last = std::min(n_bins_[0] - 1, cell.bin[0] + reach_[0]);
  for (int64_t bz = cell.bin[2] - 1; bz <= cell.bin[2] + 1; ++bz) {
    if (bz < 0 || bz >= n_bins_[2]) continue;
    for (int64_t by = cell.bin[1] - 1; by <= cell.bin[1] + 1; ++by) {
      if (by < 0 || by >= n_bins_[1]) continue;
      Segment segment{};
      if (!starts_.empty()) {
        const int64_t row = (bz * n_bins_[1] + by) * n_bins_[0];
        segment = {starts_[row + first], starts_[row + last + 1]};
      } else {
        const Cell *from = lower_bound(first, by, bz), *to = lower_bound(last + 1, by, bz);
        if (from != to) segment = {from->begin, (to - 1)->end};
      }
      if (segment.begin == segment.end) continue;
      segments[n++] = segment;
      *n_points += segment.end - segment.begin;
    }
  }
  return n;
}

}    // namespace orb_export
