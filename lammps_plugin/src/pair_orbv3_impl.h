// SPDX-License-Identifier: GPL-2.0-or-later
// What a PairOrbV3 holds, shared by its source files.
#ifndef ORBV3_PAIR_ORBV3_IMPL_H
#define ORBV3_PAIR_ORBV3_IMPL_H

#include "ensemble.h"
#include "failure.h"
#include "lammps_graph.h"
#include "pair_orbv3.h"
#include "rank_exchange.h"
#include "uncertainty.h"

#include <orb_export/potential.h>

#include <optional>

namespace LAMMPS_NS {

struct PairOrbV3::Impl {
  explicit Impl(LAMMPS *lmp) : ensemble(lmp), uncertainty(lmp) {}

  struct Settings {
    std::string device = "auto";
    std::optional<double> skin;            // angstrom; none: that of the neighbor command
    std::optional<double> charge, spin;    // none: not given
    int threads = 0;        // 0: OMP_NUM_THREADS where LAMMPS took it up, else torch's choice
    double memory = 0.0;    // GB that an evaluation may use; 0: no limit
    std::string exchange = "auto";    // or reverse or redundant: how ranks share edges
    std::string program = "auto";     // or whole or steps: what gives forces on one rank
    bool timing = false;              // a table at the end of each run
  } settings;

  std::unique_ptr<orb_export::Potential> potential;    // null until pair_coeff
  std::unique_ptr<orbv3::EdgeBuilder> edges;
  orbv3::Ensemble ensemble;
  std::string path;                   // absolute, of the artefact
  std::vector<int> number_of_type;    // (ntypes + 1) atomic number, 0 for NULL
  std::string restart_sha256;         // of the artefact that a restart file was written with
  int threads = 0;                    // resolved when the model was opened

  double cutoff = 0.0;         // angstrom
  double energy_unit = 1.0;    // units of LAMMPS per eV; lengths are angstrom in metal and real

  // with several ranks
  orbv3::Halo halo;
  std::unique_ptr<orbv3::RankExchange> exchange;    // null on one rank
  bool redundant = false;         // edges across borders are evaluated on both sides
  bool scheme_is_open = false;    // until the first step of a run has counted edges

  // of the current step; rows are own atoms, then ghosts
  orbv3::Uncertainty uncertainty;
  orbv3::Failure failure;
  orbv3::Rows rows;
  std::vector<int> ghosts;    // (ghost rows) local index
  int64_t n_ghost_edges = 0;
  std::vector<double> limits_of_atoms;    // (own + ghosts, 3) see EdgeBuilder::limits
  int64_t n_total = 0;                    // own rows of all ranks
  std::vector<int64_t> numbers;           // (rows)
  std::vector<double> positions;          // (rows, 3) angstrom
  orb_export::Result result;              // eV, angstrom

  // of the run, on this rank
  struct Timing {
    int64_t steps = 0;
    double atoms = 0.0, edges = 0.0, ghosts = 0.0;    // summed over steps
    double graph = 0.0, model = 0.0;                  // seconds, without communication
    double total = 0.0;
    double processor = 0.0;    // seconds of the processor, with those of waiting
  } timing;
};

}    // namespace LAMMPS_NS

#endif
