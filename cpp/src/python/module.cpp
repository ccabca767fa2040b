// The pybind11 module orb_export._core. Each file of this folder binds one header of orb_export/.
#include <pybind11/pybind11.h>

namespace py = pybind11;

void bind_graph(py::module_ &m);
void bind_on_device(py::module_ &m);
void bind_potential(py::module_ &m);

PYBIND11_MODULE(_core, m) {
  m.doc() = "C++ core of orb_export: radius graphs and compiled potentials.";
  bind_graph(m);
  bind_on_device(m);
  bind_potential(m);
}
