#include "orbv3_force.h"

#include <openmm/OpenMMException.h>
#include <openmm/internal/ContextImpl.h>

#include <algorithm>

#include "orbv3_force_impl.h"

namespace orb_export::openmm {

OrbV3Force::OrbV3Force(std::string artefact, std::string sha256)
    : artefact_(std::move(artefact)), sha256_(std::move(sha256)) {}

int OrbV3Force::addParticle(int particle, int atomicNumber) {
  particles_.push_back(particle);
  numbers_.push_back(atomicNumber);
  return getNumParticles() - 1;
}

bool OrbV3Force::usesPeriodicBoundaryConditions() const {
  return std::any_of(periodicity_.begin(), periodicity_.end(), [](bool axis) { return axis; });
}

void OrbV3Force::setDefaultChargeAndSpin(double charge, double spin) {
  hasChargeAndSpin_ = true;
  charge_ = charge;
  spin_ = spin;
}

const Result &OrbV3Force::evaluate(OpenMM::Context &context) const {
  auto &impl = getContextImpl(context);
  for (auto *candidate : impl.getForceImpls())
    if (&candidate->getOwner() == this) return static_cast<OrbV3ForceImpl *>(candidate)->evaluate(impl);
  throw OpenMM::OpenMMException(
      "OrbV3Force: evaluate: `context` does not have this force but perhaps a copy of it: take the force "
      "from "
      "context.getSystem()");
}

OpenMM::ForceImpl *OrbV3Force::createImpl() const { return new OrbV3ForceImpl(*this); }

}    // namespace orb_export::openmm
