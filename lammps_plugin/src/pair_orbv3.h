// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style orbv3: the Orb-v3 interatomic potential (docs/pair_orbv3.md).
#ifndef LMP_PAIR_ORBV3_H
#define LMP_PAIR_ORBV3_H

#include "pair.h"

#include <memory>

namespace orbv3 {
class Uncertainty;
}

namespace LAMMPS_NS {

class PairOrbV3 : public Pair {
 public:
  PairOrbV3(class LAMMPS *);
  ~PairOrbV3() override;

  void settings(int, char **) override;
  void coeff(int, char **) override;
  void init_style() override;
  double init_one(int, int) override;
  void compute(int, int) override;
  void write_restart(FILE *) override;
  void read_restart(FILE *) override;
  void write_restart_settings(FILE *) override;
  void read_restart_settings(FILE *) override;
  void *extract(const char *, int &) override;
  void *extract_peratom(const char *, int &) override;
  double memory_usage() override;

  const orbv3::Uncertainty &uncertainty() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl;

  // pair_orbv3_input.cpp
  void allocate();
  int read_setting(int narg, char **arg);
  void refuse_several_ranks();
  void forget_model();
  void open_model(const std::string &path);
  void map_types(const std::vector<std::string> &symbols);

  // pair_orbv3.cpp
  void check_system();
  void check_masses();
  void gather_atoms();
  void build_edges();
  void evaluate();
  void add_forces();
  void tally();
};

}    // namespace LAMMPS_NS

#endif
