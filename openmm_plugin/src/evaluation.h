// One OrbV3Force in one Context, whatever the platform: gathers its particles, keeps the neighbor list, and
// evaluates the potential.
#pragma once

#include <openmm/Vec3.h>
#include <openmm/internal/ContextImpl.h>
#include <orb_export/graph.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

#include "orbv3_force.h"
#include "result_cache.h"
#include "shared_potential.h"

namespace orb_export::openmm {

class Evaluation {
 public:
  // Opens the artefact. Throws OpenMMException saying what does not fit.
  explicit Evaluation(const OrbV3Force &force);

  const std::vector<int> &particles() const { return particles_; }
  // The scale parameter: its name, and its value in the Context.
  const std::string &scale_parameter() const { return scale_; }
  double scale(OpenMM::ContextImpl &context) const;

  // `positions` (n, 3) of particles() and `box`, 3 vectors, in nm. Energy in eV, forces in eV/angstrom of
  // particles(); valid until the next call. Evaluates the potential only if what is wanted is not known of
  // this configuration; may know more than is wanted. Throws OpenMMException.
  const Result &evaluate(OpenMM::ContextImpl &context, const double *positions, const OpenMM::Vec3 *box,
                         const Request &wanted);

  // Whether the potential is on GPU `index` and can leave the atoms there; the evaluations are then those of
  // evaluate_on_device(), without host arrays and without forces in the result.
  bool move_to_device(int index);
  DeviceEvaluation &on_device() { return *on_device_; }
  const Result &evaluate_on_device(OpenMM::ContextImpl &context, const OpenMM::Vec3 *box,
                                   const Request &wanted);

 private:
  void check_precision(const OrbV3Force &force) const;
  void check_elements() const;
  void check_charge_and_spin(const OrbV3Force &force) const;
  void take_positions(const double *positions);
  void take_conditions(OpenMM::ContextImpl &context, const OpenMM::Vec3 *box);
  bool is_trial() const;
  void learn_from(const ResultCache::Entry &past);
  Result compute(const Configuration &configuration, const Request &request);
  const Edges &edges_of(const Configuration &configuration);
  void check_distances(const Edges &edges) const;

  std::vector<int> particles_;
  std::vector<int64_t> numbers_;
  std::array<bool, 3> periodic_;
  std::string scale_, charge_, spin_;    // names of the parameters; the last two empty without
  bool limited_;                         // in memory
  std::shared_ptr<SharedPotential> potential_;
  int gpu_;    // of the potential; -1: it is on the CPU
  std::unique_ptr<GraphBuilder> builder_;
  std::unique_ptr<DeviceEvaluation> on_device_;    // null: host arrays
  Configuration current_;
  ResultCache cache_;
  double accepted_ = 0.5;    // share of the Monte Carlo trials of late whose forces were wanted after all
};

}    // namespace orb_export::openmm
