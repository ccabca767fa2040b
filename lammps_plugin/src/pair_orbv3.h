// SPDX-License-Identifier: GPL-2.0-or-later
// pair_style orbv3: the Orb-v3 interatomic potential (docs/pair_orbv3.md).
#ifndef LMP_PAIR_ORBV3_H
#define LMP_PAIR_ORBV3_H

#include "pair.h"

#include <memory>

namespace orb_export {
struct Request;
}

namespace orbv3 {
class RankExchange;
class Uncertainty;
struct EnsembleMember;
struct NeighborView;
struct Border;
}    // namespace orbv3

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
  void finish() override;
  int pack_forward_comm(int, int *, double *, int, int *) override;
  void unpack_forward_comm(int, int, double *) override;
  int pack_reverse_comm(int, int, double *) override;
  void unpack_reverse_comm(int, int *, double *) override;

  const orbv3::Uncertainty &uncertainty() const;

 protected:
  struct Impl;
  std::unique_ptr<Impl> impl;
  // tests replace it by one that makes mistakes
  virtual std::unique_ptr<orbv3::RankExchange> make_exchange();

 private:
  // pair_orbv3_input.cpp
  void allocate();
  int read_setting(int narg, char **arg);
  void forget_model();
  std::string find_model(const std::string &name);
  void open_model(const std::string &path);
  void map_types(const std::vector<std::string> &symbols);

  // pair_orbv3.cpp
  void check_system();
  void check_masses();
  void gather_atoms();
  void fold_ghosts();
  orbv3::NeighborView neighbor_view() const;
  void build_edges();
  void evaluate(const orb_export::Request &request);
  void add_forces();

  // pair_orbv3_outputs.cpp
  void cite();
  void tally();
  void tally_atoms();

  // pair_orbv3_ensemble.cpp
  void open_ensemble(const std::vector<std::string> &symbols);
  void compare_ensemble();
  void add_to_ensemble(orbv3::EnsembleMember &member);

  // pair_orbv3_ranks.cpp
  void init_ranks();
  void stop_if_failed();
  void check_same_file();
  void share_edges();
  orbv3::Border mark_ghosts();
  void choose_scheme(const orbv3::Border &border);
  void add_ghost_edges();
  void agree_on_step(const orbv3::Border &border);
  void give_rows_to_ghosts();

  // pair_orbv3_timing.cpp
  double communication() const;
  void print_timing();
  void count_step(double seconds, double processor_seconds);
};

}    // namespace LAMMPS_NS

#endif
