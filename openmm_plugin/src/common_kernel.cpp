#include "common_kernel.h"

#include <openmm/OpenMMException.h>
#include <openmm/common/ContextSelector.h>
#include <openmm/cuda/CudaPlatform.h>
#include <openmm/hip/HipPlatform.h>
#include <openmm/opencl/OpenCLPlatform.h>

#include <cmath>
#include <map>
#include <string>

#include "device_code.h"
#include "timings.h"
#include "units.h"

namespace orb_export::openmm {
namespace {

constexpr double kFixedPoint = 4294967296.0;    // 2^32: OpenMM's forces, kJ/mol/nm
constexpr double kLargestForce = 2147483648.0;

std::unique_ptr<OpenMM::ArrayInterface> make_array(OpenMM::ComputeContext &compute, const char *name,
                                                   size_t size, size_t element_size) {
  std::unique_ptr<OpenMM::ArrayInterface> array(compute.createArray());
  array->initialize(compute, size, static_cast<int>(element_size), name);
  return array;
}

unsigned long long address_of(const double *array) { return reinterpret_cast<unsigned long long>(array); }

[[noreturn]] void refuse_force(const std::string &particle, double force) {
  throw OpenMM::OpenMMException("OrbV3Force: the force on " + particle + " is " + std::to_string(force) +
                                " kJ/mol/nm, more than this platform can add: the structure is broken");
}

int64_t to_fixed_point(double force, int particle) {
  if (std::abs(force) < kLargestForce) return std::llround(force * kFixedPoint);
  refuse_force("particle " + std::to_string(particle), force);
}

// ComputeContext is the first and only base of the contexts of all three platforms. Their own headers would
// ask for those of the drivers.
template <class PlatformData>
OpenMM::ComputeContext &first_context(void *data) {
  return *reinterpret_cast<OpenMM::ComputeContext *>(static_cast<PlatformData *>(data)->contexts.front());
}

using Finder = OpenMM::ComputeContext &(*)(void *platform_data);

const std::map<std::string, Finder> &finders() {
  static const std::map<std::string, Finder> known = {
      {"OpenCL", first_context<OpenMM::OpenCLPlatform::PlatformData>},
      {"CUDA", first_context<OpenMM::CudaPlatform::PlatformData>},
      {"HIP", first_context<OpenMM::HipPlatform::PlatformData>}};
  return known;
}

}    // namespace

void CommonCalcOrbV3ForceKernel::initialize(const OpenMM::System &, const OrbV3Force &force) {
  force_ = &force;
  evaluation_ = std::make_unique<Evaluation>(force);    // torch chooses its own device context
  const OpenMM::ContextSelector selector(compute_);
  const size_t n = evaluation_->particles().size();
  float64_ = compute_.getSupportsDoublePrecision();
  shared_ = gpu_ >= 0 && evaluation_->move_to_device(gpu_);
  positions_.resize(3 * n);
  rounded_positions_.resize(float64_ ? 0 : 3 * n);
  fixed_forces_.resize(3 * n);
  device_slots_ = make_array(compute_, "orbv3Slots", n, sizeof(int));
  device_positions_ =
      make_array(compute_, "orbv3Positions", 3 * n, float64_ ? sizeof(double) : sizeof(float));
  device_forces_ = make_array(compute_, "orbv3Forces", 3 * n, sizeof(int64_t));
  compute_.addEnergyParameterDerivative(evaluation_->scale_parameter());
  compile();
  compute_.getPostComputations().push_back(new Finish(*this));    // which owns it
}

void CommonCalcOrbV3ForceKernel::compile() {
  std::map<std::string, std::string> defines = {
      {"NUM_PARTICLES", std::to_string(evaluation_->particles().size())},
      {"PADDED_NUM_ATOMS", std::to_string(compute_.getPaddedNumAtoms())},
      {"POSITION", float64_ ? "double" : "float"},
      {"LENGTH_UNIT", "1"}};
  if (shared_) {
    defines["SHARED"] = "1";
    defines["LENGTH_UNIT"] = std::to_string(kAngstromPerNm);
  }
  const bool corrected = compute_.getUseMixedPrecision();
  if (corrected) defines["HAS_CORRECTION"] = "1";
  const auto program = compute_.compileProgram(kDeviceCode, defines);
  gather_ = program->createKernel("orbv3GatherPositions");
  gather_->addArg(compute_.getPosq());
  if (corrected) gather_->addArg(compute_.getPosqCorrection());
  gather_->addArg(*device_slots_);
  add_ = program->createKernel("orbv3AddForces");
  if (shared_) {
    gather_->addArg(address_of(evaluation_->on_device().positions()));
    add_->addArg(address_of(evaluation_->on_device().forces()));
    add_->addArg(1.0);    // the unit, set every time
  } else {
    gather_->addArg(*device_positions_);
    add_->addArg(*device_forces_);
  }
  add_->addArg(*device_slots_);
  add_->addArg(compute_.getLongForceBuffer());
}

double CommonCalcOrbV3ForceKernel::execute(OpenMM::ContextImpl &context, bool includeForces, bool) {
  const Stopwatch stopwatch(timings().total_ns);
  const double scale = evaluation_->scale(context);
  const auto &result = evaluate(context, {includeForces, false, false});
  if (includeForces) give_forces(result, scale);
  derivative_ = kKJPerMolPerEV * result.energy;
  return scale * derivative_;
}

double CommonCalcOrbV3ForceKernel::Finish::computeForceAndEnergy(bool includeForces, bool, int groups) {
  if ((groups & (1 << kernel_.force_->getForceGroup())) == 0) return 0.0;
  auto &compute = kernel_.compute_;
  compute.getEnergyParamDerivWorkspace()[kernel_.evaluation_->scale_parameter()] += kernel_.derivative_;
  if (!includeForces) return 0.0;
  const OpenMM::ContextSelector selector(compute);
  if (!kernel_.shared_) kernel_.device_forces_->upload(kernel_.fixed_forces_);
  kernel_.add_->execute(static_cast<int>(kernel_.slots_.size()));
  return 0.0;
}

const Result &CommonCalcOrbV3ForceKernel::evaluate(OpenMM::ContextImpl &context) {
  const Stopwatch stopwatch(timings().total_ns);
  return evaluate(context, {true, true, false});
}

const Result &CommonCalcOrbV3ForceKernel::evaluate(OpenMM::ContextImpl &context, const Request &wanted) {
  OpenMM::Vec3 box[3];
  context.getPeriodicBoxVectors(box[0], box[1], box[2]);
  {
    const OpenMM::ContextSelector selector(compute_);
    follow_reordering();
    gather_->execute(static_cast<int>(slots_.size()));
    if (shared_) {    // torch has a queue of its own
      const auto gathered = compute_.createEvent();
      gathered->enqueue();
      gathered->wait();
    } else {
      download_positions(box);
    }
  }
  if (shared_) return evaluation_->evaluate_on_device(context, box, wanted);
  return evaluation_->evaluate(context, positions_.data(), box, wanted);
}

// OpenMM sorts atoms in space from time to time.
void CommonCalcOrbV3ForceKernel::follow_reordering() {
  const auto &particles = evaluation_->particles();
  const auto &particle_at = compute_.getAtomIndex();
  bool same = slots_.size() == particles.size();
  for (size_t k = 0; same && k < particles.size(); ++k)
    same = particle_at[static_cast<size_t>(slots_[k])] == particles[k];
  if (same) return;
  std::vector<int> slot_of(particle_at.size());
  for (size_t slot = 0; slot < slot_of.size(); ++slot)
    slot_of[static_cast<size_t>(particle_at[slot])] = static_cast<int>(slot);
  slots_.clear();
  for (int particle : particles) slots_.push_back(slot_of[static_cast<size_t>(particle)]);
  device_slots_->upload(slots_);
}

void CommonCalcOrbV3ForceKernel::download_positions(const OpenMM::Vec3 *box) {
  if (float64_) {
    device_positions_->download(positions_);
  } else {
    device_positions_->download(rounded_positions_);
    positions_.assign(rounded_positions_.begin(), rounded_positions_.end());
  }
  // OpenMM also moves molecules by box vectors, which matters along axes without images
  const auto &offsets = compute_.getPosCellOffsets();
  for (size_t k = 0; k < slots_.size(); ++k) {
    const auto &offset = offsets[static_cast<size_t>(slots_[k])];
    const auto moved = box[0] * offset.x + box[1] * offset.y + box[2] * offset.z;
    for (int d = 0; d < 3; ++d) positions_[3 * k + static_cast<size_t>(d)] -= moved[d];
  }
}

void CommonCalcOrbV3ForceKernel::give_forces(const Result &result, double scale) {
  const double unit = scale * kKJPerMolPerEV * kAngstromPerNm;
  if (!shared_) return convert_forces(result, unit);
  const double largest = std::abs(unit) * result.largest_force;
  if (!(largest < kLargestForce)) refuse_force("a particle", largest);
  const OpenMM::ContextSelector selector(compute_);
  add_->setArg(1, unit * kFixedPoint);
}

void CommonCalcOrbV3ForceKernel::convert_forces(const Result &result, double unit) {
  for (size_t i = 0; i < fixed_forces_.size(); ++i)
    fixed_forces_[i] = to_fixed_point(unit * result.forces[i], evaluation_->particles()[i / 3]);
}

bool CommonOrbV3KernelFactory::serves(const std::string &platform) { return finders().count(platform) > 0; }

OpenMM::KernelImpl *CommonOrbV3KernelFactory::createKernelImpl(std::string name,
                                                               const OpenMM::Platform &platform,
                                                               OpenMM::ContextImpl &context) const {
  if (name != CalcOrbV3ForceKernel::Name())
    throw OpenMM::OpenMMException("OrbV3Force: there is no kernel " + name);
  auto &compute = finders().at(platform.getName())(context.getPlatformData());
  // with several devices, "0,1", ours is the first
  const bool cuda = platform.getName() == "CUDA";
  const int gpu = cuda ? std::stoi(platform.getPropertyValue(context.getOwner(), "DeviceIndex")) : -1;
  return new CommonCalcOrbV3ForceKernel(name, platform, compute, gpu);
}

}    // namespace orb_export::openmm
