// One OrbV3Force in one Context, whatever the platform: gathers its particles, keeps the neighbor list, and
// evaluates the potential.
#pragma once

#include <openmm/Vec3.h>
#include <orb_export/graph.h>

#include <array>
#include <memory>
#include <vector>

#include "orbv3_force.h"
#include "shared_potential.h"

namespace orb_export::openmm {

// Everything that a result depends on, in units of the model.
struct Configuration {
  std::vector<double> positions;    // (n, 3) of the force's particles
  std::array<double, 9> box{};      // rows are box vectors; all zero without any periodic axis
  double charge = 0.0, spin = 1.0;
  bool operator==(const Configuration &other) const {
    return positions == other.positions && box == other.box && charge == other.charge && spin == other.spin;
  }
};

class Evaluation {
 public:
  // Opens the artefact. Throws OpenMMException saying what does not fit.
  explicit Evaluation(const OrbV3Force &force);

  const std::vector<int> &particles() const { return particles_; }
  // `positions` of all particles of the System and `box`, 3 vectors, in nm. Energy in eV, forces in
  // eV/angstrom of particles(); valid until the next call. Evaluates the potential only if something has
  // changed since. Throws OpenMMException.
  const Result &evaluate(const std::vector<OpenMM::Vec3> &positions, const OpenMM::Vec3 *box, double charge,
                         double spin);

 private:
  void check_elements() const;
  void check_charge_and_spin(const OrbV3Force &force) const;
  void gather(const std::vector<OpenMM::Vec3> &positions, const OpenMM::Vec3 *box);
  Result compute();
  [[noreturn]] void explain(const std::string &failure, const Edges *edges) const;

  std::vector<int> particles_;
  std::vector<int64_t> numbers_;
  std::array<bool, 3> periodic_;
  std::shared_ptr<SharedPotential> potential_;
  std::unique_ptr<GraphBuilder> builder_;
  Configuration current_, evaluated_;
  bool has_result_ = false;
  Result result_;
};

}    // namespace orb_export::openmm
