// What a platform implements to run OrbV3Force.
#pragma once

#include <openmm/KernelImpl.h>
#include <openmm/System.h>
#include <openmm/internal/ContextImpl.h>

#include <string>

#include "orbv3_force.h"

namespace orb_export::openmm {

class CalcOrbV3ForceKernel : public OpenMM::KernelImpl {
 public:
  static std::string Name() { return "CalcOrbV3Force"; }
  using KernelImpl::KernelImpl;
  /** Opens the artefact. */
  virtual void initialize(const OpenMM::System &system, const OrbV3Force &force) = 0;
  /** Adds to the forces if asked to; returns the energy in kJ/mol. */
  virtual double execute(OpenMM::ContextImpl &context, bool includeForces, bool includeEnergy) = 0;
  /** Energy, forces, strain gradient and confidence in units of the model, without the scale; adds nothing.
   */
  virtual const Result &evaluate(OpenMM::ContextImpl &context) = 0;
};

}    // namespace orb_export::openmm
