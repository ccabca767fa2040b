// OrbV3Force: an Orb-v3 potential on some or all particles of a System. Plain data; OpenMM's names and units.
#pragma once

#include <openmm/Force.h>
#include <orb_export/potential.h>

#include <array>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <vector>

namespace orb_export::openmm {

/**
 * The artefact is opened when a Context is created, and everything that does not fit is reported then.
 *
 * Global parameters of the Context, whose names begin with the parameter prefix:
 *   <prefix>_scale   factor of energy and forces, 1 by default; its energy derivative is always provided
 *   <prefix>_charge  total charge in e, and
 *   <prefix>_spin    spin multiplicity 2S+1, of models conditioned on them
 */
class ORB_EXPORT_API OrbV3Force : public OpenMM::Force {
 public:
  /**
   * @param artefact  file written by `orb-export export`
   * @param sha256    hexadecimal SHA-256 that the file must have; empty: any
   */
  explicit OrbV3Force(std::string artefact, std::string sha256 = "");

  const std::string &getArtefact() const { return artefact_; }
  const std::string &getSha256() const { return sha256_; }

  /** The content of the artefact, if the force carries it (and its XML then does): the path is not read.
   * Otherwise nullptr. */
  const std::shared_ptr<const std::string> &getContent() const { return content_; }
  void setContent(std::shared_ptr<const std::string> content) { content_ = std::move(content); }

  /** Add a particle of the System, in any order, each at most once. Returns its index within the force. */
  int addParticle(int particle, int atomicNumber);
  int getNumParticles() const { return static_cast<int>(particles_.size()); }
  const std::vector<int> &getParticles() const { return particles_; }
  const std::vector<int> &getAtomicNumbers() const { return numbers_; }

  /** Whether there are images along each box vector; none by default. */
  const std::array<bool, 3> &getPeriodicity() const { return periodicity_; }
  void setPeriodicity(const std::array<bool, 3> &periodicity) { periodicity_ = periodicity; }
  bool usesPeriodicBoundaryConditions() const override;

  /** Defaults of the two parameters; required by, and only allowed for, models conditioned on them. */
  void setDefaultChargeAndSpin(double charge, double spin);
  bool hasChargeAndSpin() const { return hasChargeAndSpin_; }
  double getDefaultCharge() const { return charge_; }
  double getDefaultSpin() const { return spin_; }

  /** Default of the scale parameter. */
  double getDefaultScale() const { return scale_; }
  void setDefaultScale(double scale) { scale_ = scale; }

  /** auto, cpu, cuda or cuda:N; auto, the default, is the device that the artefact was made for. */
  const std::string &getDevice() const { return device_; }
  void setDevice(const std::string &device) { device_ = device; }

  /** float32, float64 or auto, the default: what the artefact must compute in; auto takes any. */
  const std::string &getPrecision() const { return precision_; }
  void setPrecision(const std::string &precision) { precision_ = precision; }

  /** Bytes that an evaluation may use beyond the weights; 0, the default: no limit. */
  int64_t getMemoryLimit() const { return memoryLimit_; }
  void setMemoryLimit(int64_t bytes) { memoryLimit_ = bytes; }

  /** auto, the default, whole or steps: what gives forces on the CPU, where the memory limit permits. */
  const std::string &getProgram() const { return program_; }
  void setProgram(const std::string &program) { program_ = program; }

  /** Threads of torch in this process and of the edge search; 0, the default: their own choice. */
  int getThreads() const { return threads_; }
  void setThreads(int threads) { threads_ = threads; }

  /** Length in nm that the list of candidate neighbors reaches beyond the cutoff; results do not depend on
   * it. */
  double getSkin() const { return skin_; }
  void setSkin(double skin) { skin_ = skin; }

  /** Two forces of one System with the same prefix, "orbv3" by default, share their parameters. */
  const std::string &getParameterPrefix() const { return prefix_; }
  void setParameterPrefix(const std::string &prefix) { prefix_ = prefix; }
  std::string getScaleParameter() const { return prefix_ + "_scale"; }
  std::string getChargeParameter() const { return prefix_ + "_charge"; }
  std::string getSpinParameter() const { return prefix_ + "_spin"; }

  /**
   * Energy, forces, strain gradient and confidence at the present positions of a Context with this force, in
   * units of the model, for the particles in the order of the force, without the scale. Evaluates the
   * potential only if the Context has not just done so; valid until the Context evaluates again.
   */
  const Result &evaluate(OpenMM::Context &context) const;

 protected:
  OpenMM::ForceImpl *createImpl() const override;

 private:
  std::string artefact_, sha256_;
  std::shared_ptr<const std::string> content_;
  std::vector<int> particles_, numbers_;
  std::array<bool, 3> periodicity_{};
  bool hasChargeAndSpin_ = false;
  double charge_ = 0.0, spin_ = 1.0, scale_ = 1.0;
  std::string device_ = "auto", precision_ = "auto", program_ = "auto", prefix_ = "orbv3";
  int64_t memoryLimit_ = 0;
  int threads_ = 0;
  double skin_ = 0.1;
};

}    // namespace orb_export::openmm
