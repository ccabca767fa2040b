#include "reference_kernel.h"

#include <openmm/OpenMMException.h>
#include <openmm/reference/ReferencePlatform.h>

#include "timings.h"
#include "units.h"

namespace orb_export::openmm {

namespace {

const auto &data_of(OpenMM::ContextImpl &context) {
  return *static_cast<OpenMM::ReferencePlatform::PlatformData *>(context.getPlatformData());
}

}    // namespace

void ReferenceCalcOrbV3ForceKernel::initialize(const OpenMM::System &, const OrbV3Force &force) {
  evaluation_ = std::make_unique<Evaluation>(force);
}

double ReferenceCalcOrbV3ForceKernel::execute(OpenMM::ContextImpl &context, bool includeForces, bool) {
  const Stopwatch stopwatch(timings().total_ns);
  const auto &data = data_of(context);
  const double scale = evaluation_->scale(context);
  const auto &result = evaluate(context, {includeForces, false, false});

  if (includeForces) {
    const double force_unit = scale * kKJPerMolPerEV * kAngstromPerNm;
    const auto &particles = evaluation_->particles();
    for (size_t k = 0; k < particles.size(); ++k) {
      const double *const force = &result.forces[3 * k];
      (*data.forces)[static_cast<size_t>(particles[k])] +=
          OpenMM::Vec3(force[0], force[1], force[2]) * force_unit;
    }
  }
  const double energy = kKJPerMolPerEV * result.energy;
  (*data.energyParameterDerivatives)[evaluation_->scale_parameter()] += energy;
  return scale * energy;
}

const Result &ReferenceCalcOrbV3ForceKernel::evaluate(OpenMM::ContextImpl &context) {
  const Stopwatch stopwatch(timings().total_ns);
  return evaluate(context, {true, true, false});
}

const Result &ReferenceCalcOrbV3ForceKernel::evaluate(OpenMM::ContextImpl &context, const Request &wanted) {
  const auto &data = data_of(context);
  positions_.clear();
  for (int particle : evaluation_->particles()) {
    const auto &position = (*data.positions)[static_cast<size_t>(particle)];
    positions_.insert(positions_.end(), {position[0], position[1], position[2]});
  }
  return evaluation_->evaluate(context, positions_.data(), data.periodicBoxVectors, wanted);
}

OpenMM::KernelImpl *ReferenceOrbV3KernelFactory::createKernelImpl(std::string name,
                                                                  const OpenMM::Platform &platform,
                                                                  OpenMM::ContextImpl &) const {
  if (name == CalcOrbV3ForceKernel::Name()) return new ReferenceCalcOrbV3ForceKernel(name, platform);
  throw OpenMM::OpenMMException("OrbV3Force: there is no kernel " + name);
}

}    // namespace orb_export::openmm
