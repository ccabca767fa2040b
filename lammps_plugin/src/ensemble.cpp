// SPDX-License-Identifier: GPL-2.0-or-later
#include "ensemble.h"

#include "comm.h"
#include "error.h"
#include "update.h"

#include <algorithm>
#include <cmath>

using namespace LAMMPS_NS;

namespace orbv3 {

Ensemble::~Ensemble()
{
  if (fp_) fclose(fp_);
}

int Ensemble::read_setting(int narg, char **arg)
{
  const auto number = [this](const char *what, const char *word) {
    const int value = utils::inumeric(FLERR, word, false, lmp);
    if (value < 1)
      error->all(FLERR, fmt::format("Pair style orbv3 deviation {} is {} but must be positive",
                                    what, word));
    return value;
  };
  forget();
  if (narg < 4) utils::missing_cmd_args(FLERR, "pair_style orbv3 deviation", error);
  every_ = number("interval", arg[0]);
  file_ = arg[1];
  const int count = number("number of models", arg[2]);
  if (narg < 3 + count) utils::missing_cmd_args(FLERR, "pair_style orbv3 deviation", error);
  paths.assign(arg + 3, arg + 3 + count);
  return 3 + count;
}

void Ensemble::forget()
{
  paths.clear();
  members.clear();
  every_ = 0;
}

bool Ensemble::is_due() const
{
  return !members.empty() && update->ntimestep % every_ == 0 && update->ntimestep != written_;
}

void Ensemble::begin()
{
  forces_.clear();
  gradients_.clear();
}

void Ensemble::add(const orb_export::Result &result)
{
  forces_.push_back(result.forces);
  gradients_.push_back(result.strain_gradient);
}

// Standard deviations over the models (of a population): for each atom the root of the mean square distance of
// its force from the mean force; for each of the 9 components the one of the virial per atom.
void Ensemble::write(int64_t n_total)
{
  const auto models = static_cast<double>(forces_.size());
  double mine[3] = {0.0, 0.0, 0.0};    // largest, minus smallest, sum of the forces' deviations
  mine[1] = -INFINITY;
  for (std::size_t i = 0; i < forces_[0].size(); i += 3) {
    double square = 0.0;
    for (std::size_t k = i; k < i + 3; k++) {
      double mean = 0.0;
      for (const auto &forces : forces_)
        mean += forces[k] / models;
      for (const auto &forces : forces_)
        square += (forces[k] - mean) * (forces[k] - mean) / models;
    }
    const double deviation = std::sqrt(square);
    mine[0] = std::max(mine[0], deviation);
    mine[1] = std::max(mine[1], -deviation);
    mine[2] += deviation;
  }
  double force[3];
  MPI_Allreduce(mine, force, 2, MPI_DOUBLE, MPI_MAX, world);
  MPI_Allreduce(mine + 2, force + 2, 1, MPI_DOUBLE, MPI_SUM, world);
  force[1] = -force[1];
  force[2] /= static_cast<double>(n_total);

  double virial[3] = {0.0, INFINITY, 0.0};    // largest, smallest, root mean square
  for (int k = 0; k < 9; k++) {
    double mean = 0.0, square = 0.0;
    for (const auto &gradient : gradients_)
      mean += gradient[k] / models;
    for (const auto &gradient : gradients_)
      square += (gradient[k] - mean) * (gradient[k] - mean) / models;
    const double deviation = std::sqrt(square) / static_cast<double>(n_total);
    virial[0] = std::max(virial[0], deviation);
    virial[1] = std::min(virial[1], deviation);
    virial[2] += deviation * deviation / 9.0;
  }
  virial[2] = std::sqrt(virial[2]);

  written_ = update->ntimestep;
  write_line(virial, force);
}

void Ensemble::write_line(const double (&virial)[3], const double (&force)[3])
{
  int failed = 0;
  if (comm->me == 0) {
    if (!fp_) {
      fp_ = fopen(file_.c_str(), "w");
      if (fp_)
        utils::print(fp_, "#{:>11}{:>19}{:>19}{:>19}{:>19}{:>19}{:>19}\n", "step", "max_devi_v",
                     "min_devi_v", "avg_devi_v", "max_devi_f", "min_devi_f", "avg_devi_f");
    }
    failed = !fp_;
    if (fp_) {
      utils::print(fp_, "{:12}{:19.6e}{:19.6e}{:19.6e}{:19.6e}{:19.6e}{:19.6e}\n",
                   update->ntimestep, virial[0], virial[1], virial[2], force[0], force[1],
                   force[2]);
      failed = fflush(fp_) != 0;
    }
  }
  MPI_Bcast(&failed, 1, MPI_INT, 0, world);
  if (failed)
    error->all(FLERR, "Pair style orbv3: cannot write " + file_ + ": " + utils::getsyserror());
}

}    // namespace orbv3
