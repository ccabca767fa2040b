// OrbV3Force on the platforms Reference and CPU, which share their data structures.
#pragma once

#include <openmm/KernelFactory.h>

#include <memory>
#include <vector>

#include "evaluation.h"
#include "orbv3_kernels.h"

namespace orb_export::openmm {

class ReferenceCalcOrbV3ForceKernel : public CalcOrbV3ForceKernel {
 public:
  using CalcOrbV3ForceKernel::CalcOrbV3ForceKernel;
  void initialize(const OpenMM::System &system, const OrbV3Force &force) override;
  double execute(OpenMM::ContextImpl &context, bool includeForces, bool includeEnergy) override;
  const Result &evaluate(OpenMM::ContextImpl &context) override;

 private:
  const Result &evaluate(OpenMM::ContextImpl &context, const Request &wanted);

  std::unique_ptr<Evaluation> evaluation_;
  std::vector<double> positions_;    // (n, 3) nm
};

class ReferenceOrbV3KernelFactory : public OpenMM::KernelFactory {
 public:
  OpenMM::KernelImpl *createKernelImpl(std::string name, const OpenMM::Platform &platform,
                                       OpenMM::ContextImpl &context) const override;
};

}    // namespace orb_export::openmm
