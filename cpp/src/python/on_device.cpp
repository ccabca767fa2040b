// Python face of evaluations whose atoms stay on the potential's device: addresses in, numbers of the whole
// out.
#include <pybind11/numpy.h>
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "orb_export/contract.h"
#include "orb_export/potential.h"

namespace py = pybind11;

namespace {

using namespace orb_export;

py::dict to_dict(const Result &result) {
  py::dict out;
  out["energy"] = result.energy;
  out["largest_force"] = result.largest_force;
  out["stress"] = py::array_t<double>({6}, result.stress.data());
  out["strain_gradient"] = py::array_t<double>({3, 3}, result.strain_gradient.data());
  const auto n_rows = static_cast<py::ssize_t>(result.confidence.size()) / kConfidenceBins;
  out["confidence"] = py::array_t<double>({n_rows, py::ssize_t{kConfidenceBins}}, result.confidence.data());
  return out;
}

Request request_of(bool confidence) { return {true, confidence, false}; }

}    // namespace

void bind_on_device(py::module_ &m) {
  py::class_<DeviceEvaluation::Conditions>(m, "Conditions")
      .def(py::init([](const std::array<double, 9> &cell, const std::array<bool, 3> &periodic, double charge,
                       double spin) { return DeviceEvaluation::Conditions{{cell, periodic}, charge, spin}; }),
           py::arg("cell"), py::arg("periodic"), py::arg("charge") = 0.0, py::arg("spin") = 1.0);
  py::class_<DeviceEvaluation>(
      m, "DeviceEvaluation",
      "An evaluation whose atoms stay on the potential's device; see DeviceEvaluation of potential.h. "
      "Positions (N, 3) in angstrom and forces (N, 3) in eV/angstrom are float64 at two addresses there.")
      .def_property_readonly(
          "positions", [](DeviceEvaluation &e) { return reinterpret_cast<std::uintptr_t>(e.positions()); })
      .def_property_readonly("forces",
                             [](DeviceEvaluation &e) { return reinterpret_cast<std::uintptr_t>(e.forces()); })
      .def(
          "evaluate",
          [](DeviceEvaluation &evaluation, const DeviceEvaluation::Conditions &conditions, bool confidence) {
            py::gil_scoped_release release;
            const Result &result = evaluation.evaluate(conditions, request_of(confidence));
            py::gil_scoped_acquire acquire;
            return to_dict(result);
          },
          py::arg("conditions"), py::arg("confidence") = true)
      .def(
          "known",
          [](DeviceEvaluation &evaluation, const DeviceEvaluation::Conditions &conditions,
             bool confidence) -> std::optional<py::dict> {
            const Result *result = evaluation.known(conditions, request_of(confidence));
            return result ? std::optional(to_dict(*result)) : std::nullopt;
          },
          py::arg("conditions"), py::arg("confidence") = true);
}
