// Python face of the runtime: arrays in, arrays out. `orb_export.artefact` wraps it for ASE structures.
#include "orb_export/potential.h"

#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <optional>

#include "orb_export/contract.h"

namespace py = pybind11;

namespace {

using namespace orb_export;
using Integers = py::array_t<int64_t, py::array::c_style | py::array::forcecast>;
using Reals = py::array_t<double, py::array::c_style | py::array::forcecast>;

// An exchange in Python: methods forward(rows), reverse_add(rows), sum(values) that change the array they
// get.
class PythonExchange : public Exchange {
 public:
  void forward(const RowView &rows) override { call("forward", rows); }
  void reverse_add(const RowView &rows) override { call("reverse_add", rows); }
  void sum(double *values, int64_t count) override { call("sum", {values, count, 1, 8}); }

 private:
  void call(const char *name, const RowView &rows) const {
    py::gil_scoped_acquire acquire;
    const py::function method = py::get_override(static_cast<const Exchange *>(this), name);
    if (!method)
      throw std::invalid_argument("evaluate: `exchange` has no method `" + std::string(name) + "`");
    const auto dtype = rows.bytes == 4 ? py::dtype::of<float>() : py::dtype::of<double>();
    const bool flat = std::string(name) == "sum";
    const auto shape =
        flat ? std::vector<py::ssize_t>{rows.rows} : std::vector<py::ssize_t>{rows.rows, rows.width};
    std::vector<char> zeros(rows.data ? 0 : static_cast<size_t>(rows.rows * rows.width * rows.bytes));
    void *const data = rows.data ? rows.data : zeros.data();
    method(py::array(dtype, shape, data, py::none()));    // with a base: no copy
  }
};

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
  if (request.per_atom) out["atom_energies"] = to_array(result.atom_energies.data(), {n});
  if (request.per_atom && request.forces)
    out["atom_virials"] = to_array(result.atom_virials.data(), {n, 3, 3});
  return out;
}

// Edges and atoms that a graph of one of several processes has besides its own.
struct Ghosts {
  int64_t atoms = 0, edges = 0;
  bool redundant = false;
  std::optional<std::string> failure;
};

py::dict evaluate(Potential &potential, const Integers &numbers, const Integers &centers,
                  const Integers &neighbors, const Reals &vectors, const Reals &positions, const Reals &cell,
                  double charge, double spin, const Request &request, Exchange *exchange,
                  const Ghosts &ghosts, int64_t chunk, const std::vector<int> &kept) {
  Graph graph = to_graph(numbers, centers, neighbors, vectors, positions, cell, charge, spin);
  graph.n_ghosts = ghosts.atoms;
  graph.n_ghost_edges = ghosts.edges;
  graph.redundant = ghosts.redundant;
  graph.failure = ghosts.failure ? ghosts.failure->c_str() : nullptr;
  Result result;
  {
    py::gil_scoped_release release;
    result = chunk == 0 ? potential.evaluate(graph, request, exchange)
                        : potential.evaluate_in_chunks(graph, request, chunk, kept, exchange);
  }
  return to_dict(result, graph.n_own(), request);
}

}    // namespace

void bind_potential(py::module_ &m) {
  py::class_<Exchange, PythonExchange>(
      m, "Exchange",
      "What processes that share one system do between layers; see exchange.h. Subclasses have the methods "
      "forward(rows), reverse_add(rows) and sum(values), which change the array they get and return nothing.")
      .def(py::init<>());
  py::class_<Potential>(m, "Potential", "A compiled potential; open one with `orb_export.load`.")
      .def_property_readonly("metadata_json", [](const Potential &p) { return p.metadata().json; })
      .def_property_readonly("file_sha256", [](const Potential &p) { return p.metadata().file_sha256; })
      .def(
          "evaluate",
          [](Potential &potential, const Integers &numbers, const Integers &centers,
             const Integers &neighbors, const Reals &vectors, const Reals &positions, const Reals &cell,
             double charge, double spin, bool forces, bool confidence, bool per_atom, Exchange *exchange,
             int64_t n_ghosts, int64_t n_ghost_edges, bool redundant, std::optional<std::string> failure,
             int64_t chunk, const std::vector<int> &kept) {
            return evaluate(potential, numbers, centers, neighbors, vectors, positions, cell, charge, spin,
                            {forces, confidence, per_atom}, exchange,
                            {n_ghosts, n_ghost_edges, redundant, std::move(failure)}, chunk, kept);
          },
          py::arg("numbers"), py::arg("centers"), py::arg("neighbors"), py::arg("vectors"),
          py::arg("positions"), py::arg("cell"), py::arg("charge") = 0.0, py::arg("spin") = 1.0,
          py::arg("forces") = true, py::arg("confidence") = true, py::arg("per_atom") = false,
          py::arg("exchange") = nullptr, py::arg("n_ghosts") = 0, py::arg("n_ghost_edges") = 0,
          py::arg("redundant") = false, py::arg("failure") = py::none(), py::arg("chunk") = 0,
          py::arg("kept") = std::vector<int>(),
          "Energy (eV), forces (eV/angstrom), stress (eV/angstrom^3, Voigt), strain_gradient (eV), "
          "confidence, "
          "atom_energies and atom_virials (eV) of a graph; lengths in angstrom. Without forces there is no "
          "stress, no strain_gradient, no atom_virials. `exchange` to `failure`: of one of several "
          "processes, "
          "see potential.h. For tests: `chunk` edges at a time, storing what `kept` says of each layer.")
      .def("on_device", &Potential::on_device, py::arg("numbers"), py::keep_alive<0, 1>(),
           "A DeviceEvaluation of atoms of these numbers.")
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
      [](const std::string &path, const std::string &device, int threads, int64_t memory_limit,
         const std::string &program, bool cuda_graphs) {
        py::gil_scoped_release release;
        Options options;
        options.device = device;
        options.threads = threads;
        options.memory_limit = memory_limit;
        options.program = program;
        options.cuda_graphs = cuda_graphs;
        return load_potential(path, options);
      },
      py::arg("path"), py::arg("device") = "auto", py::arg("threads") = 0, py::arg("memory_limit") = 0,
      py::arg("program") = "auto", py::arg("cuda_graphs") = true);
  m.def("runtime_versions", [] {
    const Runtime *runtime = orb_export_runtime();
    py::dict versions;
    versions["schema"] = runtime->schema_version;
    versions["orb_export"] = runtime->package_version;
    versions["torch"] = runtime->torch_version;
    return versions;
  });
}
