#include "orbv3_force_impl.h"

#include <openmm/OpenMMException.h>
#include <openmm/Platform.h>
#include <openmm/System.h>

#include <cmath>

namespace orb_export::openmm {
namespace {

[[noreturn]] void fail(const std::string &what) { throw OpenMM::OpenMMException("OrbV3Force: " + what); }

void check_particles(const OrbV3Force &force, int n_particles) {
  const auto &particles = force.getParticles();
  if (particles.empty()) fail("it has no particles");
  std::vector<char> seen(static_cast<size_t>(n_particles), 0);
  for (int particle : particles) {
    if (particle < 0 || particle >= n_particles)
      fail("particle " + std::to_string(particle) + " is none of the " + std::to_string(n_particles) +
           " particles of the System");
    if (seen[static_cast<size_t>(particle)]++)
      fail("particle " + std::to_string(particle) + " was added twice");
  }
}

void check_settings(const OrbV3Force &force) {
  if (force.getThreads() < 0)
    fail("`threads` is " + std::to_string(force.getThreads()) + " but must not be negative");
  const auto &sha256 = force.getSha256();
  if (!sha256.empty() &&
      (sha256.size() != 64 || sha256.find_first_not_of("0123456789abcdef") != std::string::npos))
    fail("`sha256` is `" + sha256 + "` but must be 64 hexadecimal digits, or empty");
  if (force.getMemoryLimit() < 0)
    fail("`memory_limit` is " + std::to_string(force.getMemoryLimit()) +
         " but must be bytes, or 0 for no limit");
  const auto &precision = force.getPrecision();
  if (precision != "auto" && precision != "float32" && precision != "float64")
    fail("`precision` is `" + precision + "` but must be auto, float32 or float64");
  const auto &program = force.getProgram();
  if (program != "auto" && program != "whole" && program != "steps")
    fail("`program` is `" + program + "` but must be auto, whole or steps");
  if (!std::isfinite(force.getSkin()) || force.getSkin() < 0.0)
    fail("`skin` is " + std::to_string(force.getSkin()) + " nm but must be finite and not negative");
  if (!std::isfinite(force.getDefaultScale()))
    fail("`scale` is " + std::to_string(force.getDefaultScale()) + " but must be finite");
  if (force.getParameterPrefix().empty()) fail("`prefix` is empty");
}

// OpenMM keeps one default of each parameter and drops the others without a word.
void check_shared_parameters(const OrbV3Force &force, const OpenMM::System &system) {
  const auto defaults = OrbV3ForceImpl(force).getDefaultParameters();
  for (int i = 0; i < system.getNumForces(); ++i) {
    const auto *other = dynamic_cast<const OrbV3Force *>(&system.getForce(i));
    if (!other || other == &force) continue;
    for (const auto &[name, value] : OrbV3ForceImpl(*other).getDefaultParameters()) {
      const auto ours = defaults.find(name);
      if (ours != defaults.end() && ours->second != value)
        fail("the parameter " + name + " has the defaults " + std::to_string(ours->second) + " and " +
             std::to_string(value) + " in two forces: give one of them another `prefix`");
    }
  }
}

}    // namespace

void OrbV3ForceImpl::initialize(OpenMM::ContextImpl &context) {
  const auto &system = context.getSystem();
  check_particles(owner_, system.getNumParticles());
  check_settings(owner_);
  check_shared_parameters(owner_, system);
  kernel_ = context.getPlatform().createKernel(CalcOrbV3ForceKernel::Name(), context);
  kernel_.getAs<CalcOrbV3ForceKernel>().initialize(system, owner_);
}

double OrbV3ForceImpl::calcForcesAndEnergy(OpenMM::ContextImpl &context, bool includeForces,
                                           bool includeEnergy, int groups) {
  if ((groups & (1 << owner_.getForceGroup())) == 0) return 0.0;
  return kernel_.getAs<CalcOrbV3ForceKernel>().execute(context, includeForces, includeEnergy);
}

std::map<std::string, double> OrbV3ForceImpl::getDefaultParameters() {
  std::map<std::string, double> defaults = {{owner_.getScaleParameter(), owner_.getDefaultScale()}};
  if (owner_.hasChargeAndSpin()) {
    defaults[owner_.getChargeParameter()] = owner_.getDefaultCharge();
    defaults[owner_.getSpinParameter()] = owner_.getDefaultSpin();
  }
  return defaults;
}

std::vector<std::string> OrbV3ForceImpl::getKernelNames() { return {CalcOrbV3ForceKernel::Name()}; }

}    // namespace orb_export::openmm
