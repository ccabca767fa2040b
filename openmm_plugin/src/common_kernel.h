// OrbV3Force on the platforms OpenCL, HIP and CUDA, through what they share: OpenMM's ComputeContext, which
// also compiles the device code. Nothing of a platform itself is linked or included, so one library serves
// all.
//
// Where OpenMM and the potential are on the same GPU, positions and forces stay there (`shared_`). Elsewhere
// what crosses between device and host each step is of the force's particles only: positions in float64 (the
// edge search runs on the host) and forces as the fixed point numbers in which OpenMM adds them.
#pragma once

#include <openmm/KernelFactory.h>
#include <openmm/common/ComputeContext.h>

#include <cstdint>
#include <memory>
#include <vector>

#include "evaluation.h"
#include "orbv3_kernels.h"

namespace orb_export::openmm {

class CommonCalcOrbV3ForceKernel : public CalcOrbV3ForceKernel {
 public:
  // `compute`: of the first device, where a force that runs on one device belongs.
  // `gpu`: the index by which CUDA knows it; -1 on other platforms.
  CommonCalcOrbV3ForceKernel(const std::string &name, const OpenMM::Platform &platform,
                             OpenMM::ComputeContext &compute, int gpu)
      : CalcOrbV3ForceKernel(name, platform), compute_(compute), gpu_(gpu) {}
  void initialize(const OpenMM::System &system, const OrbV3Force &force) override;
  double execute(OpenMM::ContextImpl &context, bool includeForces, bool includeEnergy) override;
  const Result &evaluate(OpenMM::ContextImpl &context) override;

 private:
  // What OpenMM calls last, after it has cleared the sums of forces, in another thread with several devices.
  class Finish : public OpenMM::ComputeContext::ForcePostComputation {
   public:
    explicit Finish(CommonCalcOrbV3ForceKernel &kernel) : kernel_(kernel) {}
    double computeForceAndEnergy(bool includeForces, bool includeEnergy, int groups) override;

   private:
    CommonCalcOrbV3ForceKernel &kernel_;
  };

  const Result &evaluate(OpenMM::ContextImpl &context, const Request &wanted);
  void compile();
  void follow_reordering();
  void download_positions(const OpenMM::Vec3 *box);
  void give_forces(const Result &result, double scale);
  void convert_forces(const Result &result, double unit);

  OpenMM::ComputeContext &compute_;
  const int gpu_;
  bool shared_ = false;    // the arrays on host and device below are not used then, but for the slots
  const OrbV3Force *force_ = nullptr;
  std::unique_ptr<Evaluation> evaluation_;
  bool float64_ = false;      // whether the device has it
  std::vector<int> slots_;    // (n) where OpenMM keeps the particles at present
  std::vector<double> positions_;
  std::vector<float> rounded_positions_;    // of a device without float64
  std::vector<int64_t> fixed_forces_;
  double derivative_ = 0.0;    // of the energy with respect to the scale, kJ/mol
  std::unique_ptr<OpenMM::ArrayInterface> device_slots_, device_positions_, device_forces_;
  OpenMM::ComputeKernel gather_, add_;
};

// For one platform that has a ComputeContext.
class CommonOrbV3KernelFactory : public OpenMM::KernelFactory {
 public:
  // Whether there is such a factory for a platform of this name.
  static bool serves(const std::string &platform);
  OpenMM::KernelImpl *createKernelImpl(std::string name, const OpenMM::Platform &platform,
                                       OpenMM::ContextImpl &context) const override;
};

}    // namespace orb_export::openmm
