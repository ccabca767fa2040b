// SPDX-License-Identifier: GPL-2.0-or-later
#include "uncertainty.h"

#include "elements.h"
#include "failure.h"

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
#include <stdexcept>

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

void Uncertainty::make_room()
{
  // one more, so that also a process without atoms has an address to give
  errors.assign(atom->nlocal + 1, 0.0);
}

void Uncertainty::record(const std::vector<double> &confidence, const std::vector<int> &atoms,
                         double unit)
{
  constexpr int BINS = orb_export::kConfidenceBins;
  constexpr double WIDTH = orb_export::kConfidenceMaxError / BINS;
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

// "12 (0.31), 7 (0.22) and 3 more", the same on every process; needs no memory, which one may be short of
std::string Uncertainty::report(double threshold) const
{
  struct Worst {    // as MPI_DOUBLE_INT
    double error;
    int id;
    bool operator<(const Worst &other) const
    {
      return error != other.error ? error > other.error : id < other.id;
    }
  };
  std::array<Worst, NAMED_ATOMS> mine;
  mine.fill({0.0, MAXSMALLINT});
  bigint total = 0;
  for (int i = 0; i < atom->nlocal; i++) {
    if (errors[i] <= threshold) continue;
    total++;
    const Worst candidate = {errors[i], atom->tag[i]};
    if (!(candidate < mine.back())) continue;
    mine.back() = candidate;
    std::sort(mine.begin(), mine.end());
  }
  MPI_Allreduce(MPI_IN_PLACE, &total, 1, MPI_LMP_BIGINT, MPI_SUM, world);

  const auto named = std::min<bigint>(total, NAMED_ATOMS);
  std::string atoms;
  for (int k = 0, next = 0; k < named; k++) {
    Worst worst;    // of those not named yet, which are falling on every process
    MPI_Allreduce(&mine[next], &worst, 1, MPI_DOUBLE_INT, MPI_MAXLOC, world);
    if (worst.id == mine[next].id && next + 1 < NAMED_ATOMS) next++;
    atoms += fmt::format("{}{} ({:.3g})", k ? ", " : "", worst.id, worst.error);
  }
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
  // frames first: one that ends the run is written as well
  for (const auto &rule : rules_)
    if (rule.action == DUMP && error_now > rule.threshold) dump(rule, number_of_type);
  for (const auto &rule : rules_) {
    if (error_now <= rule.threshold) continue;
    acted_ = step;
    if (rule.action == DUMP) continue;
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

// One frame of extended XYZ. All processes stop with the text of one that fails.
void Uncertainty::dump(const Rule &rule, const std::vector<int> &number_of_type)
{
  auto rows = gathered(number_of_type, rule.file);
  Failure failure;
  if (comm->me == 0)
    failure.guard([&] {
      write_frame(rows, rule.file);
      begun_.push_back(rule.file);
    });
  const auto text = failure.share(world);
  if (!text.empty()) error->all(FLERR, "Pair style orbv3: " + text);
}

// On process 0 all atoms, elsewhere none. Positions are from the lower corner of the box.
std::vector<Uncertainty::Row> Uncertainty::gathered(const std::vector<int> &number_of_type,
                                                    const std::string &file) const
{
  std::vector<Row> mine, all;
  std::vector<int> counts, offsets;
  Failure failure;
  failure.guard([&] {
    mine.resize(atom->nlocal);
    counts.resize(comm->nprocs);
    offsets.resize(comm->nprocs);
    if (comm->me == 0) all.resize(atom->natoms);
  });
  const auto text = failure.share(world);
  if (!text.empty()) error->all(FLERR, "Pair style orbv3: cannot write " + file + ": " + text);

  for (int i = 0; i < atom->nlocal; i++) {
    mine[i] = {static_cast<double>(atom->tag[i]),
               static_cast<double>(number_of_type[atom->type[i]])};
    for (int k = 0; k < 3; k++)
      mine[i][2 + k] = atom->x[i][k] - domain->boxlo[k];
    mine[i][5] = errors[i];
  }
  constexpr int WIDTH = std::tuple_size<Row>::value;
  const int count = WIDTH * atom->nlocal;
  MPI_Gather(&count, 1, MPI_INT, counts.data(), 1, MPI_INT, 0, world);
  std::partial_sum(counts.begin(), counts.end() - 1, offsets.begin() + 1);
  MPI_Gatherv(mine.data(), count, MPI_DOUBLE, all.data(), counts.data(), offsets.data(), MPI_DOUBLE,
              0, world);
  return all;
}

// By ID. Throws std::runtime_error.
void Uncertainty::write_frame(std::vector<Row> &rows, const std::string &file) const
{
  std::sort(rows.begin(), rows.end(), [](const Row &a, const Row &b) {
    return a[0] < b[0];
  });
  const auto check = [&file](bool good) {
    if (!good) throw std::runtime_error("cannot write " + file + ": " + utils::getsyserror());
  };
  const bool again = std::count(begun_.begin(), begun_.end(), file);
  FILE *const fp = fopen(file.c_str(), again ? "a" : "w");
  check(fp);
  const auto truth = [](int periodic) {
    return periodic ? 'T' : 'F';
  };
  utils::print(fp, "{}\nLattice=\"{} 0 0 {} {} 0 {} {} {}\" pbc=\"{} {} {}\" step={} ", rows.size(),
               domain->xprd, domain->xy, domain->yprd, domain->xz, domain->yz, domain->zprd,
               truth(domain->xperiodic), truth(domain->yperiodic), truth(domain->zperiodic), step);
  utils::print(fp, "Properties=species:S:1:pos:R:3:id:I:1:expected_force_error:R:1 unit=\"{}\"\n",
               force_unit(update));
  for (const auto &row : rows)
    utils::print(fp, "{} {:.12g} {:.12g} {:.12g} {:.0f} {:.6g}\n",
                 row[1] > 0.0 ? symbol_of(static_cast<int>(row[1])) : "X", row[2], row[3], row[4],
                 row[0], row[5]);
  check(fclose(fp) == 0);
}

}    // namespace orbv3
