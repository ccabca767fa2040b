// SPDX-License-Identifier: GPL-2.0-or-later
// Further models on the same frames, and the table of their disagreement that DP-GEN reads (model_devi.out).
#ifndef ORBV3_ENSEMBLE_H
#define ORBV3_ENSEMBLE_H

#include "lammps_graph.h"
#include "pointers.h"

#include <orb_export/potential.h>

#include <array>
#include <memory>
#include <string>
#include <vector>

namespace orbv3 {

struct EnsembleMember {
  std::unique_ptr<orb_export::Potential> potential;
  std::unique_ptr<EdgeBuilder> edges;
};

class Ensemble : protected LAMMPS_NS::Pointers {
 public:
  explicit Ensemble(LAMMPS_NS::LAMMPS *lmp) : Pointers(lmp) {}
  ~Ensemble() override;

  // Reads "N FILE K MODEL_1 ... MODEL_K" from the words after the keyword; returns their number.
  int read_setting(int narg, char **arg);
  void forget();

  bool is_due() const;    // the step at hand has a line in the table, and has none yet
  void begin();           // such a line; one that an error ended is forgotten
  void add(const orb_export::Result &result);
  // The line of this step; `n_total` atoms that the models see, on all ranks. Collective.
  void write(int64_t n_total);

  std::vector<std::string> paths;    // of the further models, as given
  std::vector<EnsembleMember> members;

 private:
  void write_line(const double (&virial)[3], const double (&force)[3]);

  int every_ = 0;
  std::string file_;
  FILE *fp_ = nullptr;
  LAMMPS_NS::bigint written_ = -1;                  // step
  std::vector<std::vector<double>> forces_;         // of each model, (own rows, 3) eV/angstrom
  std::vector<std::array<double, 9>> gradients_;    // of each model: strain gradient, eV
};

}    // namespace orbv3

#endif
