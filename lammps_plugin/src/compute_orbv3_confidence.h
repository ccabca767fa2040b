// SPDX-License-Identifier: GPL-2.0-or-later
// compute orbv3/confidence: the force error that the model expects for each atom (docs/pair_orbv3.md).
#ifndef LMP_COMPUTE_ORBV3_CONFIDENCE_H
#define LMP_COMPUTE_ORBV3_CONFIDENCE_H

#include "compute.h"

namespace LAMMPS_NS {

class ComputeOrbV3Confidence : public Compute {
 public:
  ComputeOrbV3Confidence(class LAMMPS *, int, char **);
  ~ComputeOrbV3Confidence() override;
  void init() override;
  void compute_peratom() override;
  double compute_scalar() override;
  void compute_vector() override;
  double memory_usage() override;

 private:
  const double *errors_now();

  int nsub = 0;    // which of several orbv3 of a hybrid style; 0: the only one
  class PairOrbV3 *pair = nullptr;
  int nmax = 0;
};

}    // namespace LAMMPS_NS

#endif
