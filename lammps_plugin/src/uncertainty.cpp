// SPDX-License-Identifier: GPL-2.0-or-later
#include "uncertainty.h"

#include "elements.h"

#include <orb_export/contract.h>

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "modify.h"
#include "output.h"
#include "timer.h"
#include "update.h"

#include <algorithm>
#include <array>
#include <cstring>
#include <numeric>

using namespace LAMMPS_NS;

namespace {
constexpr int NAMED_ATOMS = 5;    // in a message

const char *force_unit(const Update *update)
{
  return std::strcmp(update->unit_style, "real") == 0 ? "kcal/mol/Angstrom" : "eV/Angstrom";
}
}    // namespace

namespace orbv3 {

int Uncertainty::add_rule(int narg, char **arg)
{
  if (narg < 2) utils::missing_cmd_args(FLERR, "pair_style orbv3 uncertainty", error);
  Rule rule;
  rule.threshold = utils::numeric(FLERR, arg[0], false, lmp);
  if (!(rule.threshold > 0.0))
    error->all(FLERR,
               std::string("Pair style orbv3 uncertainty is ") + arg[0] + " but must be positive");
  const std::string action = arg[1];
  const std::vector<std::string> actions = {"warn", "error", "halt", "dump"};
  const auto found = std::find(actions.begin(), actions.end(), action);
  if (found == actions.end())
    error->all(FLERR, "Pair style orbv3 uncertainty action is " + action +
                          " but must be warn, error, halt or dump");
  rule.action = static_cast<Action>(found - actions.begin());
  if (rule.action == DUMP) {
    if (narg < 3) utils::missing_cmd_args(FLERR, "pair_style orbv3 uncertainty X dump", error);
    rule.file = arg[2];
  }
  rules_.push_back(rule);
  return rule.action == DUMP ? 3 : 2;
}

void Uncertainty::record(const std::vector<double> &confidence, const std::vector<int> &atoms,
                         double unit)
{
  constexpr int BINS = orb_export::kConfidenceBins;
  constexpr double WIDTH = orb_export::kConfidenceMaxError / BINS;
  // one more, so that also a process without atoms has an address to give
  errors.assign(atom->nlocal + 1, 0.0);
  step = update->ntimestep;
  for (std::size_t row = 0; row < atoms.size(); row++) {
    double expected = 0.0;    // by the midpoints of the bins
    for (int bin = 0; bin < BINS; bin++)
      expected += (bin + 0.5) * WIDTH * confidence[row * BINS + bin];
    errors[atoms[row]] = unit * expected;
  }
}

double Uncertainty::largest() const
{
  const double mine = *std::max_element(errors.begin(), errors.end());
  double all = 0.0;
  MPI_Allreduce(&mine, &all, 1, MPI_DOUBLE, MPI_MAX, world);
  return all;
}

// "12 (0.31), 7 (0.22) and 3 more", the same on every process
std::string Uncertainty::report(double threshold) const
{
  std::vector<std::pair<double, double>> mine;    // error, ID
  for (int i = 0; i < atom->nlocal; i++)
    if (errors[i] > threshold) mine.emplace_back(errors[i], static_cast<double>(atom->tag[i]));
  bigint count = static_cast<bigint>(mine.size());
  bigint total = 0;
  MPI_Allreduce(&count, &total, 1, MPI_LMP_BIGINT, MPI_SUM, world);

  const auto falling = [](const auto &a, const auto &b) {
    return a.first != b.first ? a.first > b.first : a.second < b.second;
  };
  std::sort(mine.begin(), mine.end(), falling);
  mine.resize(NAMED_ATOMS);    // filled up with zeros, which are no errors
  std::vector<std::pair<double, double>> all(static_cast<std::size_t>(NAMED_ATOMS) * comm->nprocs);
  MPI_Allgather(mine.data(), 2 * NAMED_ATOMS, MPI_DOUBLE, all.data(), 2 * NAMED_ATOMS, MPI_DOUBLE,
                world);
  std::sort(all.begin(), all.end(), falling);

  const auto named = std::min<bigint>(total, NAMED_ATOMS);
  std::string atoms;
  for (bigint k = 0; k < named; k++)
    atoms += fmt::format("{}{:.0f} ({:.3g})", k ? ", " : "", all[k].second, all[k].first);
  if (total > named) atoms += fmt::format(" and {} more", total - named);
  return fmt::format("Pair style orbv3: at step {} the expected force error is above {:g} {} for "
                     "the atoms with ID {}",
                     step, threshold, force_unit(update), atoms);
}

/* ---------------------------------------------------------------------- */

void Uncertainty::act(const std::vector<int> &number_of_type)
{
  if (rules_.empty()) return;
  continue_halt();
  if (acted_ == step) return;
  const double error_now = largest();
  for (const auto &rule : rules_) {
    if (error_now <= rule.threshold) continue;
    acted_ = step;
    if (rule.action == DUMP) {
      dump(rule, number_of_type);
      continue;
    }
    const auto text = report(rule.threshold);
    if (rule.action == ERROR) error->all(FLERR, text);
    if (rule.action == HALT) {
      announce_halt(text);
    } else if (comm->me == 0) {
      error->warning(FLERR, text);
    }
  }
}

// A run ends before its next step once the timer says so. Energies and virials of the step at hand may not have
// been asked for, so that its output could not be written: a run is given one step more, with all of its
// output. A minimizer writes its last state in any case, and before the first step there is nothing to write.
void Uncertainty::announce_halt(const std::string &text)
{
  if (last_step_ >= 0) return;
  if (comm->me == 0) error->warning(FLERR, text + ": the run ends here");
  if (update->whichflag != 1 || update->setupflag || update->ntimestep >= update->laststep) {
    timer->force_timeout();
    return;
  }
  last_step_ = update->ntimestep + 1;
  output->next = output->next_thermo = last_step_;
  if (output->ndump) output->next_dump_any = last_step_;
  std::fill_n(output->next_dump, output->ndump, last_step_);
  if (output->restart_flag) {
    output->next_restart = last_step_;
    if (output->restart_flag_single) output->next_restart_single = last_step_;
    if (output->restart_flag_double) output->next_restart_double = last_step_;
  }
  modify->addstep_compute_all(last_step_);
}

void Uncertainty::continue_halt()
{
  if (last_step_ < 0 || update->ntimestep < last_step_) return;
  timer->force_timeout();
  last_step_ = -1;
  acted_ = step;    // the message has been given
}

/* ---------------------------------------------------------------------- */

// One frame of extended XYZ, by ID, with the lower corner of the box at the origin.
void Uncertainty::dump(const Rule &rule, const std::vector<int> &number_of_type)
{
  constexpr int WIDTH = 6;    // ID, atomic number, position, error
  using Row = std::array<double, WIDTH>;
  std::vector<Row> mine(atom->nlocal);
  for (int i = 0; i < atom->nlocal; i++) {
    mine[i] = {static_cast<double>(atom->tag[i]),
               static_cast<double>(number_of_type[atom->type[i]])};
    for (int k = 0; k < 3; k++)
      mine[i][2 + k] = atom->x[i][k] - domain->boxlo[k];
    mine[i][5] = errors[i];
  }
  const int count = WIDTH * atom->nlocal;
  std::vector<int> counts(comm->nprocs), offsets(comm->nprocs, 0);
  MPI_Gather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, world);
  std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
  std::vector<Row> all(comm->me == 0 ? atom->natoms : 0);
  MPI_Gatherv(mine.data(), count, MPI_DOUBLE, all.data(), counts.data(), offsets.data(), MPI_DOUBLE,
              0, world);

  int failed = 0;
  if (comm->me == 0) {
    std::sort(all.begin(), all.end(), [](const Row &a, const Row &b) {
      return a[0] < b[0];
    });
    const bool again = std::count(begun_.begin(), begun_.end(), rule.file);
    FILE *const fp = fopen(rule.file.c_str(), again ? "a" : "w");
    if (fp) {
      const auto truth = [](int periodic) {
        return periodic ? 'T' : 'F';
      };
      utils::print(fp, "{}\nLattice=\"{} 0 0 {} {} 0 {} {} {}\" pbc=\"{} {} {}\" step={} ",
                   all.size(), domain->xprd, domain->xy, domain->yprd, domain->xz, domain->yz,
                   domain->zprd, truth(domain->xperiodic), truth(domain->yperiodic),
                   truth(domain->zperiodic), step);
      utils::print(fp,
                   "Properties=species:S:1:pos:R:3:id:I:1:expected_force_error:R:1 unit=\"{}\"\n",
                   force_unit(update));
      for (const auto &row : all)
        utils::print(fp, "{} {:.12g} {:.12g} {:.12g} {:.0f} {:.6g}\n",
                     row[1] > 0.0 ? symbol_of(static_cast<int>(row[1])) : "X", row[2], row[3],
                     row[4], row[0], row[5]);
      failed = fclose(fp) != 0;
    } else {
      failed = 1;
    }
  }
  begun_.push_back(rule.file);
  MPI_Bcast(&failed, 1, MPI_INT, 0, world);
  if (failed)
    error->all(FLERR, "Pair style orbv3 cannot write " + rule.file + ": " + utils::getsyserror());
}

}    // namespace orbv3
