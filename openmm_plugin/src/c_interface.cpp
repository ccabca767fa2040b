// What the Python face calls through ctypes. Pointers are those that OpenMM's own binding keeps in `this`.
#include <openmm/Context.h>
#include <openmm/serialization/XmlSerializer.h>

#include <algorithm>
#include <sstream>
#include <string>

#include "orbv3_force.h"
#include "timings.h"
#include "units.h"

namespace {
namespace plugin = orb_export::openmm;

thread_local std::string failure;

const plugin::OrbV3Force *as_orbv3(const void *force) {
  return dynamic_cast<const plugin::OrbV3Force *>(static_cast<const OpenMM::Force *>(force));
}

template <class Values>
void convert(const Values &values, double unit, double *out) {
  std::transform(values.begin(), values.end(), out, [unit](double value) { return unit * value; });
}

double seconds(int64_t nanoseconds) { return 1e-9 * static_cast<double>(nanoseconds); }

}    // namespace

// What the last call that returned a failure in this thread says.
extern "C" ORB_EXPORT_API const char *orbv3_openmm_failure() { return failure.c_str(); }

// `force`: an OpenMM::Force.
extern "C" ORB_EXPORT_API int orbv3_openmm_is_orbv3(const void *force) { return as_orbv3(force) != nullptr; }

// XML without the content of the artefact; valid until the next call in this thread. nullptr: see failure.
extern "C" ORB_EXPORT_API const char *orbv3_openmm_record(const void *force) {
  static thread_local std::string xml;
  try {
    auto copy = *as_orbv3(force);
    copy.setContent(nullptr);
    std::ostringstream stream;
    OpenMM::XmlSerializer::serialize<OpenMM::Force>(&copy, "Force", stream);
    xml = stream.str();
    return xml.c_str();
  } catch (const std::exception &error) {
    failure = error.what();
    return nullptr;
  }
}

// Bytes of the artefact inside the force; 0 when there is none.
extern "C" ORB_EXPORT_API int64_t orbv3_openmm_content_size(const void *force) {
  const auto &content = as_orbv3(force)->getContent();
  return content ? static_cast<int64_t>(content->size()) : 0;
}

// Number of particles, -1 if `force` is none of ours.
extern "C" ORB_EXPORT_API int orbv3_openmm_num_particles(const void *force) {
  const auto *ours = as_orbv3(force);
  return ours ? ours->getNumParticles() : -1;
}

// energy (1) kJ/mol, strain_gradient (3, 3) kJ/mol, confidence (n, kConfidenceBins), forces (n, 3) kJ/mol/nm.
// Returns whether it succeeded.
extern "C" ORB_EXPORT_API int orbv3_openmm_evaluate(const void *force, void *context, double *energy,
                                                    double *strain_gradient, double *confidence,
                                                    double *forces) {
  try {
    const auto &result = as_orbv3(force)->evaluate(*static_cast<OpenMM::Context *>(context));
    *energy = plugin::kKJPerMolPerEV * result.energy;
    convert(result.strain_gradient, plugin::kKJPerMolPerEV, strain_gradient);
    convert(result.confidence, 1.0, confidence);
    convert(result.forces, plugin::kKJPerMolPerEV * plugin::kAngstromPerNm, forces);
    return 1;
  } catch (const std::exception &error) {    // none may pass through ctypes
    failure = error.what();
    return 0;
  }
}

// counts (3): evaluations, those of the energy alone, builds of the neighbor list;
// spent (3): seconds in potentials, in the edge search, and in the rest of the force.
extern "C" ORB_EXPORT_API void orbv3_openmm_timings(int64_t *counts, double *spent) {
  const auto &process = plugin::timings();
  counts[0] = process.evaluations;
  counts[1] = process.energy_evaluations;
  counts[2] = process.graph_builds;
  spent[0] = seconds(process.model_ns);
  spent[1] = seconds(process.graph_ns);
  spent[2] = seconds(process.total_ns - process.model_ns - process.graph_ns);
}
