#include "radius_graph_device.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>
#include <stdexcept>
#include <string>
#include <vector>

#include "../graph/lattice.h"
#include "../graph/selection.h"
#include "orb_export/contract.h"

namespace orb_export {
namespace {

using at::Tensor;

// Candidates that are examined at once: what bounds the memory, some 100 bytes each.
constexpr int64_t kCandidates = int64_t{1} << 22;
constexpr double kFarthest = 1e9;    // angstrom, as graph.h says

Tensor rows_of(const std::array<Vector3, 3> &rows, const at::TensorOptions &options) {
  return at::tensor({rows[0][0], rows[0][1], rows[0][2], rows[1][0], rows[1][1], rows[1][2], rows[2][0],
                     rows[2][1], rows[2][2]},
                    options.device(at::kCPU))
      .reshape({3, 3})
      .to(options.device());
}

Tensor sorted_order(const Tensor &keys) {
  return std::get<1>(keys.sort(/*stable=*/true, /*dim=*/0, /*descending=*/false));
}

// `order` sorted by `keys`, ties as they were.
Tensor then_by(const Tensor &order, const Tensor &keys) {
  return order.index_select(0, sorted_order(keys.index_select(0, order)));
}

// Where each of 0..n-1 begins in ascending values.
Tensor starts_of(const Tensor &ascending, int64_t n) {
  return at::searchsorted(ascending, at::arange(n + 1, ascending.options()));
}

// Atoms sorted into the boxes of a grid, each at least as wide as the cutoff where the cell allows.
class Grid {
 public:
  Grid(const Tensor &positions, const Lattice &lattice, double cutoff);

  // All pairs of a range of centers that may be closer than the cutoff: center, neighbor (P), and how many
  // reduced lattice vectors the neighbor is moved by (P, 3).
  struct Pairs {
    Tensor centers, neighbors, shifts;
  };
  Pairs pairs(int64_t first, int64_t count) const;
  // How many centers give some kCandidates pairs.
  int64_t centers_at_once() const;

 private:
  void choose_boxes(const Lattice &lattice, const std::array<double, 3> &widths, double cutoff);
  void sort_atoms(const Tensor &fractional);
  void list_offsets();

  int64_t n_atoms_;
  std::array<bool, 3> periodic_;
  std::array<int64_t, 3> boxes_{}, reach_{};    // per axis: number of boxes, and of boxes to look beyond
  Tensor wraps_, places_;                       // (N, 3) int64: whole cells and box of each atom
  Tensor atoms_, starts_;                       // atoms box by box, and where a box begins
  Tensor offsets_;                              // (D, 3) int64
};

Grid::Grid(const Tensor &positions, const Lattice &lattice, double cutoff)
    : n_atoms_(positions.size(0)), periodic_(lattice.periodic) {
  Tensor fractional = positions.mm(rows_of(lattice.inverse, positions.options()).t());    // (N, 3)
  const Tensor low = std::get<0>(fractional.min(0)), high = std::get<0>(fractional.max(0));
  const Tensor bounds = at::stack({low, high}).cpu();
  const auto at = bounds.accessor<double, 2>();
  std::array<double, 3> widths{}, origin{};
  for (int k = 0; k < 3; ++k) {
    widths[k] = periodic_[k] ? lattice.width[k] : at[1][k] - at[0][k];
    origin[k] = periodic_[k] ? 0.0 : at[0][k];
  }
  choose_boxes(lattice, widths, cutoff);
  wraps_ = at::zeros_like(fractional, at::kLong);
  for (int k = 0; k < 3; ++k) {
    Tensor axis = fractional.select(1, k);
    if (periodic_[k]) {
      const Tensor whole = axis.floor();
      wraps_.select(1, k).copy_(whole);
      axis.sub_(whole);
    } else {
      axis.sub_(origin[k]);
      if (widths[k] > 0.0) axis.div_(widths[k]);
    }
  }
  sort_atoms(fractional);
  list_offsets();
}

void Grid::choose_boxes(const Lattice &lattice, const std::array<double, 3> &widths, double cutoff) {
  // counted in floating point: atoms far apart would make more boxes than an integer holds
  std::array<double, 3> boxes{};
  for (int k = 0; k < 3; ++k) boxes[k] = std::max(1.0, std::floor(widths[k] / cutoff));
  const double most = 8.0 * static_cast<double>(n_atoms_) + 64.0;
  while (boxes[0] * boxes[1] * boxes[2] > most) {
    double &largest = *std::max_element(boxes.begin(), boxes.end());
    largest = std::ceil(largest / 2);
  }
  for (int k = 0; k < 3; ++k) {
    boxes_[k] = static_cast<int64_t>(boxes[k]);
    // along an open axis a single box holds everything
    const bool closed = lattice.periodic[k] || boxes_[k] > 1;
    reach_[k] = closed ? static_cast<int64_t>(std::ceil(cutoff * boxes[k] / widths[k])) : 0;
  }
}

void Grid::sort_atoms(const Tensor &fractional) {
  places_ = at::empty_like(wraps_);
  for (int k = 0; k < 3; ++k)
    places_.select(1, k).copy_(
        (fractional.select(1, k) * static_cast<double>(boxes_[k])).floor().clamp(0, boxes_[k] - 1));
  const Tensor box =
      (places_.select(1, 0) * boxes_[1] + places_.select(1, 1)) * boxes_[2] + places_.select(1, 2);
  atoms_ = sorted_order(box);
  starts_ = starts_of(box.index_select(0, atoms_), boxes_[0] * boxes_[1] * boxes_[2]);
}

void Grid::list_offsets() {
  std::vector<int64_t> offsets;
  for (int64_t i = -reach_[0]; i <= reach_[0]; ++i)
    for (int64_t j = -reach_[1]; j <= reach_[1]; ++j)
      for (int64_t k = -reach_[2]; k <= reach_[2]; ++k) offsets.insert(offsets.end(), {i, j, k});
  offsets_ = at::tensor(offsets, at::kLong).reshape({-1, 3}).to(wraps_.device());
}

int64_t Grid::centers_at_once() const {
  const int64_t boxes = boxes_[0] * boxes_[1] * boxes_[2];
  const int64_t pairs_of_center = offsets_.size(0) * (n_atoms_ / boxes + 1);
  return std::max<int64_t>(1, kCandidates / pairs_of_center);
}

Grid::Pairs Grid::pairs(int64_t first, int64_t count) const {
  const int64_t n_offsets = offsets_.size(0);
  // the boxes that each center looks into, (count * D) each
  const Tensor looked_at = places_.narrow(0, first, count).unsqueeze(1) + offsets_.unsqueeze(0);
  Tensor box = at::zeros({count, n_offsets}, wraps_.options());
  Tensor inside = at::ones({count, n_offsets}, wraps_.options().dtype(at::kBool));
  std::vector<Tensor> images;
  for (int k = 0; k < 3; ++k) {
    const Tensor along = looked_at.select(2, k);
    const Tensor image = at::floor_divide(along, boxes_[k]);
    box = box * boxes_[k] + (along - image * boxes_[k]);
    if (!periodic_[k]) inside = inside.logical_and(image == 0);
    images.push_back(image.flatten());
  }
  box = box.flatten();
  const Tensor begin = starts_.index_select(0, box);
  const Tensor sizes = (starts_.index_select(0, box + 1) - begin) * inside.flatten();
  // every atom of every box
  const Tensor look = at::repeat_interleave(sizes);
  const Tensor before = sizes.cumsum(0) - sizes;
  const Tensor place = at::arange(look.size(0), look.options()) + (begin - before).index_select(0, look);
  Pairs pairs;
  pairs.neighbors = atoms_.index_select(0, place);
  pairs.centers = at::floor_divide(look, n_offsets) + first;
  pairs.shifts = at::stack(images, 1).index_select(0, look) + wraps_.index_select(0, pairs.centers) -
                 wraps_.index_select(0, pairs.neighbors);
  return pairs;
}

// Indices of the edges that the rule of selection.h keeps, in its order; `centers` lie in [first, first +
// count).
Tensor select(const Tensor &centers, const Tensor &vectors, int64_t first, int64_t count,
              int64_t max_neighbors) {
  if (centers.size(0) == 0) return at::empty({0}, centers.options());
  const Tensor distances = vectors.square().sum(1).sqrt();
  Tensor order = then_by(sorted_order(distances), centers);
  const Tensor by_center = centers.index_select(0, order);
  const Tensor sorted = distances.index_select(0, order);
  const int64_t n = order.size(0);
  Tensor begins_shell = at::ones({n}, centers.options());
  begins_shell.slice(0, 1).copy_(
      (by_center.slice(0, 1) != by_center.slice(0, 0, n - 1))
          .logical_or(sorted.slice(0, 1) - sorted.slice(0, 0, n - 1) >= kTieTolerance));
  const Tensor shells = begins_shell.cumsum(0);
  Tensor projections = at::zeros_like(sorted);
  for (int k = 0; k < 3; ++k) projections += vectors.select(1, k).index_select(0, order) * kTieDirection[k];
  order = order.index_select(0, then_by(sorted_order(projections), shells));
  if (max_neighbors < 0) return order;
  const Tensor starts = starts_of(by_center - first, count);
  const Tensor rank = at::arange(n, order.options()) - starts.index_select(0, by_center - first);
  return order.masked_select(rank < max_neighbors);
}

void check(const Tensor &positions, double cutoff) {
  if (!(cutoff > 0.0) || !std::isfinite(cutoff))
    throw std::invalid_argument("radius_graph: `cutoff` is " + std::to_string(cutoff) +
                                " but must be positive and finite");
  if (positions.size(0) == 0) return;
  const double farthest = positions.abs().max().item<double>();    // NaN if one is
  if (!(farthest <= kFarthest))
    throw std::invalid_argument("radius_graph: `positions` has a component of size " +
                                (std::isnan(farthest) ? "nan" : std::to_string(farthest)) +
                                " but all must be finite and within " + std::to_string(kFarthest) +
                                " angstrom of the origin");
}

}    // namespace

TensorEdges radius_graph_on_device(const Tensor &given, const Box &box, double cutoff, int64_t max_neighbors,
                                   bool with_shifts) {
  const Tensor positions = given.detach().contiguous();
  check(positions, cutoff);
  const Lattice lattice(box);
  const auto integers = positions.options().dtype(at::kLong);
  const int64_t n_atoms = positions.size(0);
  if (n_atoms == 0)
    return {at::empty({0}, integers), at::empty({0}, integers), at::empty({0, 3}, integers),
            at::empty({0, 3}, positions.options())};
  const Grid grid(positions, lattice, cutoff);
  const Tensor rows = rows_of(lattice.rows, positions.options());
  const double limit = squared_limit(cutoff);
  std::vector<Tensor> centers, neighbors, shifts, vectors;
  for (int64_t first = 0; first < n_atoms; first += grid.centers_at_once()) {
    const int64_t count = std::min(grid.centers_at_once(), n_atoms - first);
    auto [from, to, shift] = grid.pairs(first, count);
    Tensor vector =
        positions.index_select(0, to) - positions.index_select(0, from) + shift.to(at::kDouble).mm(rows);
    const Tensor itself = (from == to).logical_and(shift.eq(0).all(1));
    const Tensor near =
        (vector.square().sum(1) < limit).logical_and(itself.logical_not()).nonzero().squeeze(1);
    from = from.index_select(0, near);
    vector = vector.index_select(0, near);
    const Tensor kept = select(from, vector, first, count, max_neighbors);
    centers.push_back(from.index_select(0, kept));
    vectors.push_back(vector.index_select(0, kept));
    neighbors.push_back(to.index_select(0, near.index_select(0, kept)));
    if (with_shifts) shifts.push_back(shift.index_select(0, near.index_select(0, kept)));
  }
  if (!with_shifts) return {at::cat(centers), at::cat(neighbors), {}, at::cat(vectors)};
  // from reduced lattice vectors to those of the box; small integers, exact in float64 (which devices
  // multiply)
  std::array<Vector3, 3> combination{};
  for (int k = 0; k < 3; ++k)
    for (int l = 0; l < 3; ++l) combination[k][l] = static_cast<double>(lattice.combination[k][l]);
  const Tensor whole =
      at::cat(shifts).to(at::kDouble).mm(rows_of(combination, positions.options())).round().to(at::kLong);
  return {at::cat(centers), at::cat(neighbors), whole, at::cat(vectors)};
}

}    // namespace orb_export
