// Atoms and their periodic images near the cell, sorted into a grid (linked cells).
#pragma once

#include <algorithm>
#include <array>
#include <cstdint>
#include <vector>

#include "lattice.h"
#include "orb_export/graph.h"

namespace orb_export {

// A periodic image of an atom: x_atom + shift . cell.
struct Image {
  int32_t atom;
  int32_t shift[3];
};

// A total order, for neighbors that geometry cannot tell apart.
inline bool comes_first(const Image &a, const Image &b) {
  if (a.atom != b.atom) return a.atom < b.atom;
  return std::lexicographical_compare(a.shift, a.shift + 3, b.shift, b.shift + 3);
}

class CellGrid {
 public:
  // Occupied grid cell: points [begin, end).
  struct Cell {
    int64_t bin[3];
    int64_t begin, end;
  };
  struct Segment {
    int64_t begin, end;
  };
  // Rows of grid cells around one, each a contiguous run of points.
  static constexpr int kMaxSegments = 9;

  // Every point closer than `cutoff` to an atom lies in the segments of that atom's grid cell.
  CellGrid(const double *positions, int64_t n_atoms, const Box &box, double cutoff);

  // Points in grid order. Coordinate arrays are padded by kPadding unspecified values.
  static constexpr int kPadding = 16;
  Array<double> x, y, z;
  Array<Image> images;
  Array<uint8_t> is_center;    // the one image of each atom whose neighbors the points contain
  std::vector<Cell> cells;     // occupied ones, in ascending order of (bin[2], bin[1], bin[0])
  Array<Image> centers;        // (n_atoms), the images that are centers

  bool has_center(const Cell &cell) const {
    return std::any_of(is_center.data() + cell.begin, is_center.data() + cell.end,
                       [](uint8_t f) { return f != 0; });
  }

  // Returns the number of segments, of `n_points` points in all.
  int segments(const Cell &cell, Segment *segments, int64_t *n_points) const;

 private:
  struct Point {
    double x[3];
    Image image;
    bool is_center;
  };

  double expected_points(int64_t n_atoms, double cutoff) const;
  void add_images(int64_t atom, const Vector3 &given, const Vector3 &fraction,
                  const std::array<double, 9> &cell);
  void collect_points(const double *positions, int64_t n_atoms, const Box &box, double cutoff);
  void choose_bins();
  int64_t bin_of(const Point &point, int axis) const;
  void sort_dense();
  void sort_sparse();
  void place(int64_t from, int64_t to);
  const Cell *lower_bound(int64_t bx, int64_t by, int64_t bz) const;

  Lattice lattice_;
  double cutoff_;
  Vector3 low_{}, extent_{}, bins_per_length_{};    // along the normals of the faces of the reduced cell
  int64_t n_bins_[3] = {1, 1, 1};
  int64_t reach_[3] = {1, 1, 1};    // bins to search on each side
  Array<Point> points_;
  std::vector<int64_t> starts_;    // dense grids: first point of each bin, and the end
};

}    // namespace orb_export
