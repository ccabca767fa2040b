// OrbV3Force in one Context: parameters, force group, and the kernel of the platform.
#pragma once

#include <openmm/Kernel.h>
#include <openmm/internal/ForceImpl.h>

#include <map>
#include <string>
#include <vector>

#include "orbv3_force.h"
#include "orbv3_kernels.h"

namespace orb_export::openmm {

class OrbV3ForceImpl : public OpenMM::ForceImpl {
 public:
  explicit OrbV3ForceImpl(const OrbV3Force &owner) : owner_(owner) {}
  void initialize(OpenMM::ContextImpl &context) override;
  const OpenMM::Force &getOwner() const override { return owner_; }
  void updateContextState(OpenMM::ContextImpl &, bool &) override {}
  double calcForcesAndEnergy(OpenMM::ContextImpl &context, bool includeForces, bool includeEnergy,
                             int groups) override;
  std::map<std::string, double> getDefaultParameters() override;
  std::vector<std::string> getKernelNames() override;
  // See CalcOrbV3ForceKernel.
  const Result &evaluate(OpenMM::ContextImpl &context) {
    return kernel_.getAs<CalcOrbV3ForceKernel>().evaluate(context);
  }

 private:
  const OrbV3Force &owner_;
  OpenMM::Kernel kernel_;
};

}    // namespace orb_export::openmm
