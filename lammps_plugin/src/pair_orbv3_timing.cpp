// SPDX-License-Identifier: GPL-2.0-or-later
// The table of pair_style orbv3 at the end of a run (keyword timing).
#include "pair_orbv3.h"

#include "pair_orbv3_impl.h"

#include "comm.h"

#include <algorithm>

using namespace LAMMPS_NS;

namespace {

// Over ranks; the same on every rank.
struct Spread {
  double least, mean, most;
};

Spread spread_of(double value, MPI_Comm world, int n_ranks)
{
  double ends[2] = {-value, value}, sum = value;
  MPI_Allreduce(MPI_IN_PLACE, ends, 2, MPI_DOUBLE, MPI_MAX, world);
  MPI_Allreduce(MPI_IN_PLACE, &sum, 1, MPI_DOUBLE, MPI_SUM, world);
  return {-ends[0], sum / n_ranks, ends[1]};
}

std::string line(const char *name, const Spread &spread, double unit, const char *form)
{
  std::string text = fmt::format("  {:<28}", name);
  for (const double value : {spread.least, spread.mean, spread.most})
    text += " " + fmt::format(fmt::runtime(form), value / unit);
  const double imbalance = spread.mean > 0.0 ? spread.most / spread.mean : 1.0;
  return text + fmt::format(" {:>10.2f}\n", imbalance);
}

}    // namespace

void PairOrbV3::count_step(double seconds, double processor_seconds)
{
  auto &timing = impl->timing;
  timing.steps++;
  timing.atoms += static_cast<double>(impl->rows.atom.size());
  timing.edges += static_cast<double>(impl->edges->size());
  timing.ghosts += static_cast<double>(impl->ghosts.size());
  timing.total += seconds;
  timing.processor += processor_seconds;
}

// Seconds of this run in exchanges and sums so far.
double PairOrbV3::communication() const
{
  if (!impl->exchange) return 0.0;
  const auto &counters = impl->exchange->counters;
  return counters.exchange_seconds + counters.sum_seconds;
}

// LAMMPS calls this at the end of every run, on all ranks.
void PairOrbV3::finish()
{
  if (impl->settings.timing && impl->timing.steps > 0) print_timing();
  impl->timing = Impl::Timing();
  if (impl->exchange) impl->exchange->counters = orbv3::RankExchange::Counters();
}

void PairOrbV3::print_timing()
{
  const auto &timing = impl->timing;
  const auto counters = impl->exchange ? impl->exchange->counters : orbv3::RankExchange::Counters();
  const auto steps = static_cast<double>(timing.steps);
  const auto spread = [this](double value) {
    return spread_of(value, world, comm->nprocs);
  };
  const char *const time = "{:>10.4f}", *const count = "{:>10.0f}", *const small = "{:>10.3f}";

  std::string text =
      fmt::format("\nOrb-v3: {} evaluations on {} ranks", timing.steps, comm->nprocs);
  if (impl->exchange) text += impl->redundant ? ", exchange redundant" : ", exchange reverse";
  text += fmt::format("\n  {:<28} {:>10} {:>10} {:>10} {:>10}\n", "per rank and evaluation",
                      "least", "mean", "most", "most/mean");
  text += line("own atoms", spread(timing.atoms / steps), 1.0, count);
  text += line("atoms of other ranks", spread(timing.ghosts / steps), 1.0, count);
  text += line("edges", spread(timing.edges / steps), 1.0, count);
  text += line("graph, s", spread(timing.graph / steps), 1.0, time);
  text += line("model, s", spread(timing.model / steps), 1.0, time);
  text += line("exchange of rows, s", spread(counters.exchange_seconds / steps), 1.0, time);
  text += line("of these in copies, s", spread(counters.packing_seconds / steps), 1.0, time);
  text += line("exchange of rows, calls", spread(static_cast<double>(counters.exchanges) / steps),
               1.0, small);
  text += line("exchange of rows, MB", spread(counters.bytes / steps), 1e6, small);
  text += line("sums over ranks, s", spread(counters.sum_seconds / steps), 1.0, time);
  text += line("sums over ranks, calls", spread(static_cast<double>(counters.sums) / steps), 1.0,
               small);
  // what is left where other programs use the same cores
  const double busy = timing.processor - counters.processor_seconds + counters.packing_seconds;
  text += line("processor, not waiting, s", spread(busy / steps), 1.0, time);
  const auto total = spread(timing.total / steps);
  text += line("all of pair style, s", total, 1.0, time);
  const double atoms = comm->nprocs * spread(timing.atoms / steps).mean;
  text += fmt::format("  {:<28} {:>10.4f}\n", "katom-step/s", 1e-3 * atoms / total.most);
  if (comm->me == 0) utils::logmesg(lmp, text);
}
