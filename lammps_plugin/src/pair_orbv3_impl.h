// SPDX-License-Identifier: GPL-2.0-or-later
// What a PairOrbV3 holds, shared by its two source files.
#ifndef ORBV3_PAIR_ORBV3_IMPL_H
#define ORBV3_PAIR_ORBV3_IMPL_H

#include "lammps_graph.h"
#include "pair_orbv3.h"
#include "uncertainty.h"

#include <orb_export/potential.h>

#include <optional>

namespace LAMMPS_NS {

struct PairOrbV3::Impl {
  explicit Impl(LAMMPS *lmp) : uncertainty(lmp) {}

  struct Settings {
    std::string device = "auto";
    std::optional<double> skin;            // angstrom; none: that of the neighbor command
    std::optional<double> charge, spin;    // none: not given
    int threads = 0;        // 0: OMP_NUM_THREADS where LAMMPS took it up, else torch's choice
    double memory = 0.0;    // GB that an evaluation may use; 0: no limit
  } settings;

  std::unique_ptr<orb_export::Potential> potential;    // null until pair_coeff
  std::unique_ptr<orbv3::EdgeBuilder> edges;
  std::string path;                   // absolute, of the artefact
  std::vector<int> number_of_type;    // (ntypes + 1) atomic number, 0 for NULL
  std::string restart_sha256;         // of the artefact that a restart file was written with
  int threads = 0;                    // resolved when the model was opened

  double energy_unit = 1.0;    // units of LAMMPS per eV; lengths are angstrom in metal and real

  // of the current step
  orbv3::Uncertainty uncertainty;
  orbv3::Rows rows;
  std::vector<int64_t> numbers;     // (rows)
  std::vector<double> positions;    // (rows, 3) angstrom
  orb_export::Result result;        // eV, angstrom
};

}    // namespace LAMMPS_NS

#endif
