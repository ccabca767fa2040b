// SPDX-License-Identifier: GPL-2.0-or-later
// The force error that the model itself expects for each atom, and what pair_style does about large ones.
#ifndef ORBV3_UNCERTAINTY_H
#define ORBV3_UNCERTAINTY_H

#include "pointers.h"

#include <array>
#include <string>
#include <vector>

namespace orbv3 {

class Uncertainty : protected LAMMPS_NS::Pointers {
 public:
  enum Action { WARN, ERROR, HALT, DUMP };
  struct Rule {
    double threshold;    // force units of LAMMPS
    Action action;
    std::string file;    // of DUMP
  };

  explicit Uncertainty(LAMMPS_NS::LAMMPS *lmp) : Pointers(lmp) {}

  // Reads "X warn|error|halt" or "X dump FILE" from the words after the keyword; returns their number.
  int add_rule(int narg, char **arg);
  void forget_rules()
  {
    rules_.clear();
    acted_ = -1;
  }
  const std::vector<Rule> &rules() const { return rules_; }
  void restore_rules(std::vector<Rule> rules) { rules_ = std::move(rules); }

  // For the errors of a step; throws std::bad_alloc, which record() does not.
  void make_room();
  // The errors of a step: `confidence` (atoms.size(), bins) are the model's probabilities, `atoms` the local
  // indices of its rows, `unit` the force units of LAMMPS per eV/angstrom.
  void record(const std::vector<double> &confidence, const std::vector<int> &atoms, double unit);
  // What the rules ask for, at most once a step; `number_of_type` (ntypes + 1) atomic numbers. Collective.
  void act(const std::vector<int> &number_of_type);

  // (owned atoms) of the last evaluation, 0 where the model sees no atom (it never expects exactly 0)
  std::vector<double> errors;
  LAMMPS_NS::bigint step = -1;    // of the last evaluation
  double memory_usage() const { return static_cast<double>(errors.capacity() * sizeof(double)); }

 private:
  double largest() const;
  std::string report(double threshold) const;
  void announce_halt(const std::string &text);
  void continue_halt();
  using Row = std::array<double, 6>;    // ID, atomic number, position, error
  std::vector<Row> gathered(const std::vector<int> &number_of_type, const std::string &file) const;
  void write_frame(std::vector<Row> &rows, const std::string &file) const;
  void dump(const Rule &rule, const std::vector<int> &number_of_type);

  std::vector<Rule> rules_;
  LAMMPS_NS::bigint acted_ = -1;        // step
  LAMMPS_NS::bigint last_step_ = -1;    // of a run that is being ended; -1: none
  std::vector<std::string> begun_;      // files of DUMP that this style has written to
};

}    // namespace orbv3

#endif
