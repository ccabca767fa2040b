// numpy face of orb_export/graph.h. std::invalid_argument arrives in Python as ValueError.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>

#include <algorithm>
#include <memory>
#include <sstream>
#include <stdexcept>
#include <utility>
#include <vector>

#include "../graph/neighbor_search.h"

namespace py = pybind11;

namespace {

using Doubles = py::array_t<double, py::array::c_style | py::array::forcecast>;
using Flags = py::array_t<bool, py::array::c_style | py::array::forcecast>;

void check_shape(const py::array &array, const char *name, bool fits, const char *shape) {
  if (fits) return;
  std::ostringstream message;
  message << "radius_graph: `" << name << "` has shape " << py::str(array.attr("shape")).cast<std::string>()
          << " but must have shape " << shape;
  throw std::invalid_argument(message.str());
}

orb_export::Box to_box(const Doubles &cell, const Flags &periodic) {
  check_shape(cell, "cell", cell.ndim() == 2 && cell.shape(0) == 3 && cell.shape(1) == 3, "(3, 3)");
  check_shape(periodic, "periodic", periodic.ndim() == 1 && periodic.shape(0) == 3, "(3,)");
  orb_export::Box box;
  std::copy_n(cell.data(), 9, box.cell.begin());
  std::copy_n(periodic.data(), 3, box.periodic.begin());
  return box;
}

void check_positions_shape(const Doubles &positions) {
  check_shape(positions, "positions", positions.ndim() == 2 && positions.shape(1) == 3, "(N, 3)");
}

// An uninitialized array on memory of the graph library, which recycles it.
template <class T>
py::array_t<T> new_array(std::vector<py::ssize_t> shape) {
  auto owner = std::make_unique<orb_export::Array<T>>(shape[0] * shape[1]);
  T *data = owner->data();
  const py::capsule base(owner.get(), [](void *array) { delete static_cast<orb_export::Array<T> *>(array); });
  owner.release();
  return py::array_t<T>(std::move(shape), data, base);
}

struct NumpyEdges {
  py::array_t<int64_t> edges;
  py::array_t<int32_t> shifts;
  py::array_t<double> vectors;

  explicit NumpyEdges(int64_t n)
      : edges(new_array<int64_t>({2, n})),
        shifts(new_array<int32_t>({n, 3})),
        vectors(new_array<double>({n, 3})) {}

  orb_export::EdgeArrays<int32_t> arrays() {
    int64_t *centers = edges.mutable_data();
    return {centers, centers + edges.shape(1), shifts.mutable_data(), vectors.mutable_data()};
  }
  py::tuple tuple() const { return py::make_tuple(edges, shifts, vectors); }
};

py::tuple radius_graph(const Doubles &positions, const Doubles &cell, const Flags &periodic, double cutoff,
                       int64_t max_neighbors, int threads) {
  check_positions_shape(positions);
  const orb_export::Box box = to_box(cell, periodic);
  const double *x = positions.data();
  const int64_t n_atoms = positions.shape(0);
  std::unique_ptr<orb_export::NeighborSearch> search;
  {
    const py::gil_scoped_release release;
    search = std::make_unique<orb_export::NeighborSearch>(x, n_atoms, box, cutoff, max_neighbors, threads);
  }
  NumpyEdges result(search->n_edges());
  const auto arrays = result.arrays();
  {
    const py::gil_scoped_release release;
    search->write(arrays);
    search.reset();
  }
  return result.tuple();
}

py::tuple update(orb_export::GraphBuilder &builder, const Doubles &positions, const Doubles &cell,
                 const Flags &periodic) {
  check_positions_shape(positions);
  const orb_export::Box box = to_box(cell, periodic);
  const double *x = positions.data();
  const int64_t n_atoms = positions.shape(0);
  const orb_export::Edges *found = nullptr;
  {
    const py::gil_scoped_release release;
    found = &builder.update(x, n_atoms, box);
  }
  NumpyEdges result(found->size());
  const auto arrays = result.arrays();
  std::copy(found->centers.begin(), found->centers.end(), arrays.centers);
  std::copy(found->neighbors.begin(), found->neighbors.end(), arrays.neighbors);
  std::copy(found->shifts.begin(), found->shifts.end(), arrays.shifts);
  std::copy(found->vectors.begin(), found->vectors.end(), arrays.vectors);
  return result.tuple();
}

}    // namespace

void bind_graph(py::module_ &m) {
  m.def("radius_graph", &radius_graph, py::arg("positions"), py::arg("cell"), py::arg("periodic"),
        py::arg("cutoff"), py::arg("max_neighbors"), py::arg("threads") = 0,
        R"(All pairs closer than `cutoff`.

positions (N, 3) and cell (3, 3, rows are lattice vectors) in angstrom, periodic (3,) per lattice vector; rows of
open axes are ignored. At most `max_neighbors` nearest neighbors per center; negative: no cap. threads 0: one per
usable core. Returns edges (2, E) int64 of centers and neighbors, shifts (E, 3) int32 and vectors (E, 3) float64,
vector = x_neighbor + shift . cell - x_center, sorted by center, distance, and direction within equal distances.
Raises ValueError.)");

  py::class_<orb_export::GraphBuilder>(
      m, "GraphBuilder",
      "radius_graph for molecular dynamics: searches only when an atom has "
      "moved further than skin / 2 since the last search, or the cell has changed.")
      .def(py::init<double, int64_t, double, int>(), py::arg("cutoff"), py::arg("max_neighbors"),
           py::arg("skin"), py::arg("threads") = 0)
      .def("update", &update, py::arg("positions"), py::arg("cell"), py::arg("periodic"),
           "Edges, shifts and vectors, equal to those of radius_graph.")
      .def_property_readonly("rebuilds", &orb_export::GraphBuilder::rebuilds)
      .def_property_readonly("updates", &orb_export::GraphBuilder::updates);
}
