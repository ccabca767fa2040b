// Python face of the runtime: arrays in, arrays out. `orb_export.artefact` wraps it for ASE structures.
#include "orb_export/potential.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "orb_export/contract.h"

namespace py = pybind11;

namespace {

using namespace orb_export;
using Integers = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;
using Reals = py::array_t<double, py::array::c_style | py::array::forcecast>;

template <typename T>
py::array_t<T> to_array(const T *data, std::vector<py::ssize_t> shape) {
  return py::array_t<T>(std::move(shape), data);
}

// `columns` 1 stands for a one-dimensional array.
void check_shape(const py::array &array, const char *name, py::ssize_t rows, py::ssize_t columns) {
  const bool flat = columns == 1;
  if (array.ndim() == (flat ? 1 : 2) && array.shape(0) == rows && (flat || array.shape(1) == columns)) return;
  std::string has = "(",
              needs = "(" + std::to_string(rows) + (flat ? ",)" : ", " + std::to_string(columns) + ")");
  for (py::ssize_t axis = 0; axis < array.ndim(); ++axis)
    has += (axis ? ", " : "") + std::to_string(array.shape(axis));
  throw std::invalid_argument("evaluate: `" + std::string(name) + "` has shape " + has + ") but must have " +
                              needs);
}

Graph to_graph(const Integers &numbers, const Integers &centers, const Integers &neighbors,
               const Reals &vectors, const Reals &positions, const Reals &cell, double charge, double spin) {
  const py::ssize_t n = numbers.size(), e = centers.size();
  check_shape(numbers, "numbers", n, 1);
  check_shape(centers, "centers", e, 1);
  check_shape(neighbors, "neighbors", e, 1);
  check_shape(vectors, "vectors", e, 3);
  check_shape(positions, "positions", n, 3);
  check_shape(cell, "cell", 3, 3);
  Graph graph;
  graph.n_atoms = n;
  graph.n_edges = e;
  graph.numbers = numbers.data();
  graph.centers = centers.data();
  graph.neighbors = neighbors.data();
  graph.vectors = vectors.data();
  graph.positions = positions.data();
  std::copy(cell.data(), cell.data() + 9, graph.cell.begin());
  graph.charge = charge;
  graph.spin = spin;
  return graph;
}

py::dict to_dict(const Result &result, py::ssize_t n, const Request &request) {
  py::dict out;
  out["energy"] = result.energy;
  if (request.forces) {
    out["forces"] = to_array(result.forces.data(), {n, 3});
    out["stress"] = to_array(result.stress.data(), {6});
    out["strain_gradient"] = to_array(result.strain_gradient.data(), {3, 3});
  }
  out["memory"] = result.memory;
  if (request.confidence) out["confidence"] = to_array(result.confidence.data(), {n, kConfidenceBins});
  return out;
}

py::dict evaluate(Potential &potential, const Integers &numbers, const Integers &centers,
                  const Integers &neighbors, const Reals &vectors, const Reals &positions, const Reals &cell,
                  double charge, double spin, bool forces, bool confidence, int64_t chunk,
                  const std::vector<bool> &kept) {
  const Graph graph = to_graph(numbers, centers, neighbors, vectors, positions, cell, charge, spin);
  const Request request = {forces, confidence, false};
  Result result;
  {
    py::gil_scoped_release release;
    result = chunk == 0 ? potential.evaluate(graph, request)
                        : potential.evaluate_in_chunks(graph, request, chunk, kept);
  }
  return to_dict(result, graph.n_atoms, request);
}

}    // namespace

void bind_potential(py::module_ &m) {
  py::class_<Potential>(m, "Potential", "A compiled potential; open one with `orb_export.load`.")
      .def_property_readonly("metadata_json", [](const Potential &p) { return p.metadata().json; })
      .def_property_readonly("file_sha256", [](const Potential &p) { return p.metadata().file_sha256; })
      .def("evaluate", &evaluate, py::arg("numbers"), py::arg("centers"), py::arg("neighbors"),
           py::arg("vectors"), py::arg("positions"), py::arg("cell"), py::arg("charge") = 0.0,
           py::arg("spin") = 1.0, py::arg("forces") = true, py::arg("confidence") = true,
           py::arg("chunk") = 0, py::arg("kept") = std::vector<bool>(),
           "Energy (eV), forces (eV/angstrom), stress (eV/angstrom^3, Voigt), strain_gradient (eV) and "
           "confidence of a graph; lengths in angstrom. Without forces there is no stress and no "
           "strain_gradient. "
           "For tests: `chunk` edges at a time, storing the edge features before the layers that are `kept`.")
      .def(
          "predict_memory",
          [](const Potential &p, int64_t n_atoms, int64_t n_edges, bool forces) {
            const Memory memory = p.predict_memory(n_atoms, n_edges, {forces, true, false});
            return py::make_tuple(memory.used, memory.least);
          },
          py::arg("n_atoms"), py::arg("n_edges"), py::arg("forces") = true,
          "Bytes that an evaluation will use beyond weights and inputs, and the smallest limit it can keep.");
  m.def(
      "load_potential",
      [](const std::string &path, const std::string &device, int threads, int64_t memory_limit) {
        py::gil_scoped_release release;
        Options options;
        options.device = device;
        options.threads = threads;
        options.memory_limit = memory_limit;
        return load_potential(path, options);
      },
      py::arg("path"), py::arg("device") = "auto", py::arg("threads") = 0, py::arg("memory_limit") = 0);
  m.def("runtime_versions", [] {
    const Runtime *runtime = orb_export_runtime();
    py::dict versions;
    versions["schema"] = runtime->schema_version;
    versions["orb_export"] = runtime->package_version;
    versions["torch"] = runtime->torch_version;
    return versions;
  });
}
