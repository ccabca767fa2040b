// Results of the configurations evaluated last. Two, since a Monte Carlo move that is rejected goes back to
// the one before.
#pragma once

#include <orb_export/potential.h>

#include <array>
#include <vector>

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

class ResultCache {
 public:
  struct Entry {
    Configuration configuration;
    Request held;    // what `result` has; energy always
    Result result;
    bool valid = false;
    bool wanted_forces = false;    // whether a host has asked for them, rather than got them in advance
    bool trial = false;            // of a Monte Carlo move, as far as can be told
  };

  // Entry of this configuration, which becomes the latest; nullptr if there is none.
  Entry *find(const Configuration &configuration);
  // Makes the older entry the latest, with this configuration and no result.
  Entry &replace_older(const Configuration &configuration);
  const Entry &latest() const { return entries_[latest_]; }
  const Entry &older() const { return entries_[1 - latest_]; }

 private:
  std::array<Entry, 2> entries_;
  size_t latest_ = 0;
};

inline bool covers(const Request &held, const Request &wanted) {
  return (held.forces || !wanted.forces) && (held.confidence || !wanted.confidence) &&
         (held.per_atom || !wanted.per_atom);
}

}    // namespace orb_export::openmm
