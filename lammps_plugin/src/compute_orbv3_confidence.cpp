// SPDX-License-Identifier: GPL-2.0-or-later
#include "compute_orbv3_confidence.h"

#include "pair_orbv3.h"
#include "uncertainty.h"

#include "atom.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "update.h"

#include <algorithm>

using namespace LAMMPS_NS;

ComputeOrbV3Confidence::ComputeOrbV3Confidence(LAMMPS *lmp, int narg, char **arg) :
    Compute(lmp, narg, arg)
{
  if (narg > 4)
    error->all(FLERR, std::string("Unknown compute orbv3/confidence argument: ") + arg[4]);
  if (narg == 4) {
    nsub = utils::inumeric(FLERR, arg[3], false, lmp);
    if (nsub < 1)
      error->all(FLERR, std::string("Compute orbv3/confidence index is ") + arg[3] +
                            " but must be positive");
  }
  peratom_flag = 1;
  size_peratom_cols = 0;
  scalar_flag = vector_flag = 1;
  extscalar = extvector = 0;
  size_vector = 2;
  vector = new double[2];
}

ComputeOrbV3Confidence::~ComputeOrbV3Confidence()
{
  delete[] vector;
  memory->destroy(vector_atom);
}

void ComputeOrbV3Confidence::init()
{
  pair = dynamic_cast<PairOrbV3 *>(force->pair_match("orbv3", 1, nsub));
  if (!pair)
    error->all(FLERR, "Compute orbv3/confidence finds no pair style orbv3, or several in a hybrid "
                      "style and no index "
                      "that says which");
}

// Errors of the owned atoms of this step; the pair style knows them after every evaluation.
const double *ComputeOrbV3Confidence::errors_now()
{
  const auto &uncertainty = pair->uncertainty();
  const std::string text = "Compute orbv3/confidence needs forces of the current step";
  if (uncertainty.step != update->ntimestep) error->all(FLERR, text);
  if (uncertainty.errors.size() != static_cast<std::size_t>(atom->nlocal) + 1)
    error->one(FLERR, text);
  return uncertainty.errors.data();
}

void ComputeOrbV3Confidence::compute_peratom()
{
  invoked_peratom = update->ntimestep;
  const double *const errors = errors_now();
  if (atom->nmax > nmax) {
    nmax = atom->nmax;
    memory->destroy(vector_atom);
    memory->create(vector_atom, nmax, "orbv3/confidence:vector_atom");
  }
  for (int i = 0; i < atom->nlocal; i++)
    vector_atom[i] = atom->mask[i] & groupbit ? errors[i] : 0.0;
}

double ComputeOrbV3Confidence::compute_scalar()
{
  invoked_scalar = update->ntimestep;
  compute_vector();
  scalar = vector[0];
  return scalar;
}

// Largest and mean, of the atoms of the group that the model sees
void ComputeOrbV3Confidence::compute_vector()
{
  invoked_vector = update->ntimestep;
  const double *const errors = errors_now();
  double largest = 0.0, sums[2] = {0.0, 0.0}, all[2];
  for (int i = 0; i < atom->nlocal; i++) {
    if (!(atom->mask[i] & groupbit) || errors[i] == 0.0) continue;
    largest = std::max(largest, errors[i]);
    sums[0] += errors[i];
    sums[1] += 1.0;
  }
  MPI_Allreduce(&largest, &vector[0], 1, MPI_DOUBLE, MPI_MAX, world);
  MPI_Allreduce(sums, all, 2, MPI_DOUBLE, MPI_SUM, world);
  vector[1] = all[1] > 0.0 ? all[0] / all[1] : 0.0;
}

double ComputeOrbV3Confidence::memory_usage()
{
  return static_cast<double>(nmax) * sizeof(double);
}
