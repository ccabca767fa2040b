#include "reference_kernel.h"

#include <openmm/OpenMMException.h>
#include <openmm/reference/ReferencePlatform.h>

#include "units.h"

namespace orb_export::openmm {

void ReferenceCalcOrbV3ForceKernel::initialize(const OpenMM::System &, const OrbV3Force &force) {
  evaluation_ = std::make_unique<Evaluation>(force);
  has_charge_and_spin_ = force.hasChargeAndSpin();
  scale_ = force.getScaleParameter();
  charge_ = force.getChargeParameter();
  spin_ = force.getSpinParameter();
}

double ReferenceCalcOrbV3ForceKernel::execute(OpenMM::ContextImpl &context, bool includeForces, bool) {
  const auto &data = *static_cast<OpenMM::ReferencePlatform::PlatformData *>(context.getPlatformData());
  const double charge = has_charge_and_spin_ ? context.getParameter(charge_) : 0.0;
  const double spin = has_charge_and_spin_ ? context.getParameter(spin_) : 1.0;
  const double scale = context.getParameter(scale_);
  const auto &result = evaluation_->evaluate(*data.positions, data.periodicBoxVectors, charge, spin);

  const double energy = kKJPerMolPerEV * result.energy;
  const double force_unit = scale * kKJPerMolPerEV * kAngstromPerNm;
  if (includeForces) {
    const auto &particles = evaluation_->particles();
    for (size_t k = 0; k < particles.size(); ++k) {
      const double *const force = &result.forces[3 * k];
      (*data.forces)[static_cast<size_t>(particles[k])] +=
          OpenMM::Vec3(force[0], force[1], force[2]) * force_unit;
    }
  }
  (*data.energyParameterDerivatives)[scale_] += energy;
  return scale * energy;
}

OpenMM::KernelImpl *ReferenceOrbV3KernelFactory::createKernelImpl(std::string name,
                                                                  const OpenMM::Platform &platform,
                                                                  OpenMM::ContextImpl &) const {
  if (name == CalcOrbV3ForceKernel::Name()) return new ReferenceCalcOrbV3ForceKernel(name, platform);
  throw OpenMM::OpenMMException("OrbV3Force: there is no kernel " + name);
}

}    // namespace orb_export::openmm
