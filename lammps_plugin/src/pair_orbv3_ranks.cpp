// SPDX-License-Identifier: GPL-2.0-or-later
// The side of pair_style orbv3 that several MPI ranks need: which ghosts take part, who evaluates which edge,
// and that all ranks stop when one fails.
#include "pair_orbv3.h"

#include "exchange_cost.h"
#include "pair_orbv3_impl.h"

#include "atom.h"
#include "comm.h"
#include "error.h"
#include "force.h"

#include <algorithm>
#include <cstring>

using namespace LAMMPS_NS;

namespace {
constexpr int LEAST_DOUBLES = 12;    // of the widest message that does not depend on the model
}    // namespace

void PairOrbV3::init_ranks()
{
  impl->timing = Impl::Timing();
  impl->exchange.reset();
  impl->redundant = impl->scheme_is_open = false;
  comm_forward = comm_reverse = comm_reverse_off = 0;
  if (comm->nprocs == 1) return;

  const auto &meta = impl->potential->metadata();
  if (!meta.has_steps())
    error->all(FLERR,
               "Pair style orbv3: model " + meta.model +
                   " was exported without steps, which several MPI ranks need: export it again "
                   "without --no-steps, or use one rank and the threads keyword");
  impl->exchange = make_exchange();
  impl->redundant = impl->settings.exchange == "redundant";
  impl->scheme_is_open = impl->settings.exchange == "auto";

  // LAMMPS sizes its buffers by the widest message; a hybrid style has asked its parts before this one knew
  const int64_t row = meta.channels * (meta.dtype == "float64" ? sizeof(double) : sizeof(float));
  const int width = std::max(LEAST_DOUBLES, static_cast<int>((row + 7) / 8));
  impl->exchange->doubles_per_message = width;
  for (Pair *const pair : {static_cast<Pair *>(this), force->pair}) {
    pair->comm_forward = std::max(pair->comm_forward, width);
    pair->comm_reverse = std::max(pair->comm_reverse, width);
    pair->comm_reverse_off = std::max(pair->comm_reverse_off, width);
  }
}

std::unique_ptr<orbv3::RankExchange> PairOrbV3::make_exchange()
{
  return std::make_unique<orbv3::RankExchange>(lmp, this, impl->halo);
}

// All ranks call this; the message is that of the first one with a cause of its own.
void PairOrbV3::stop_if_failed()
{
  const auto text = impl->failure.share(world);
  if (!text.empty()) error->all(FLERR, "Pair style orbv3: " + text);
}

// Ranks may see different folders.
void PairOrbV3::check_same_file()
{
  const auto &mine = impl->potential->metadata().file_sha256;
  const auto first = orbv3::first_text(mine, world);
  if (mine != first)
    impl->failure.set("the ranks find different models at " + impl->path + " (SHA-256 " + first +
                      " and " + mine + ")");
  stop_if_failed();
}

/* ---------------------------------------------------------------------- */

// A rank that fails on the way makes all of these collective calls, so that the last one tells the others.
void PairOrbV3::share_edges()
{
  auto &failure = impl->failure;
  impl->n_ghost_edges = 0;
  impl->n_total = static_cast<int64_t>(impl->rows.atom.size());
  if (!impl->exchange) {
    stop_if_failed();
    return;
  }
  orbv3::Border border;
  failure.guard([&] {
    impl->ghosts.clear();
    impl->halo.start(atom->nlocal + atom->nghost);
    border = mark_ghosts();
  });
  if (impl->scheme_is_open) choose_scheme(border);
  if (impl->redundant) add_ghost_edges();
  impl->exchange->collect_marks(failure.any());
  failure.guard([this] {
    give_rows_to_ghosts();
  });
  agree_on_step(border);
}

// Marks the ghosts that own edges lead to.
orbv3::Border PairOrbV3::mark_ghosts()
{
  const auto n_own = static_cast<int64_t>(impl->rows.atom.size());
  auto &needed = impl->halo.needed;
  orbv3::Border border;
  for (const int64_t neighbor : impl->edges->neighbors) {
    if (neighbor < n_own) continue;
    char &mark = needed[atom->nlocal + neighbor - n_own];
    border.ghosts += !mark;
    border.edges += 1.0;
    mark = 1;
  }
  return border;
}

// What all ranks must know before they evaluate.
void PairOrbV3::agree_on_step(const orbv3::Border &border)
{
  double sums[4] = {impl->failure.any() ? 1.0 : 0.0, static_cast<double>(impl->rows.atom.size()),
                    border.edges, static_cast<double>(impl->n_ghost_edges)};
  impl->exchange->sum(sums, 4);
  if (sums[0] > 0.0) stop_if_failed();
  impl->n_total = static_cast<int64_t>(sums[1]);
  // an edge across a border that is found from one side only would make forces that are those of no energy
  if (!impl->redundant || sums[2] == sums[3]) return;
  impl->failure.set(fmt::format("ranks found {:.0f} edges across their borders from one side and "
                                "{:.0f} from the other",
                                sums[2], sums[3]));
  stop_if_failed();
}

// Once a run, at the first step that has atoms.
void PairOrbV3::choose_scheme(const orbv3::Border &border)
{
  double sums[3] = {static_cast<double>(impl->rows.atom.size()), border.ghosts, border.edges};
  impl->exchange->sum(sums, 3);
  if (sums[0] == 0.0) return;
  impl->scheme_is_open = false;
  const orbv3::Border mean = {sums[1] / comm->nprocs, sums[2] / comm->nprocs};
  const auto &meta = impl->potential->metadata();
  impl->redundant = orbv3::seconds_of_redundant(meta, mean, impl->threads) <
                    orbv3::seconds_of_reverse(meta, mean);
  if (impl->redundant)
    impl->failure.guard([this] {
      build_edges();    // again, now with the limits
    });
}

// Edges of other ranks' atoms to own ones: these atoms' limits come from their owners.
void PairOrbV3::add_ghost_edges()
{
  constexpr int COLUMNS = orbv3::COLUMNS_OF_LIMIT;
  auto &failure = impl->failure;
  auto &limits = impl->limits_of_atoms;
  const auto &own = impl->rows.atom;
  failure.guard([&] {
    limits.assign(static_cast<std::size_t>(COLUMNS) * (atom->nlocal + atom->nghost), 0.0);
    for (std::size_t row = 0; row < own.size(); row++)
      std::copy_n(&impl->edges->limits[COLUMNS * row], COLUMNS, &limits[COLUMNS * own[row]]);
  });
  impl->exchange->forward_table(limits, COLUMNS, failure.any());
  failure.guard([&] {
    const auto n_edges = impl->edges->size();
    impl->edges->add_ghost_edges(neighbor_view(), impl->rows, limits);
    impl->n_ghost_edges = impl->edges->size() - n_edges;
    const auto n_own = static_cast<int64_t>(own.size());
    for (auto e = n_edges; e < impl->edges->size(); e++)
      impl->halo.needed[atom->nlocal + impl->edges->centers[e] - n_own] = 1;
  });
}

// Rows for the ghosts that this rank or one behind it needs, in the order of LAMMPS.
void PairOrbV3::give_rows_to_ghosts()
{
  auto &halo = impl->halo;
  const auto &own = impl->rows.atom;
  const auto n_own = static_cast<int64_t>(own.size());
  impl->exchange->n_own = n_own;
  for (std::size_t row = 0; row < own.size(); row++)
    halo.row[own[row]] = static_cast<int64_t>(row);
  const int nlocal = atom->nlocal;
  for (int j = nlocal; j < nlocal + atom->nghost; j++) {
    if (!halo.needed[j]) continue;
    halo.row[j] = n_own + static_cast<int64_t>(impl->ghosts.size());
    impl->ghosts.push_back(j);
    impl->numbers.push_back(impl->number_of_type[atom->type[j]]);
    impl->positions.insert(impl->positions.end(), atom->x[j], atom->x[j] + 3);
  }
  const auto settle = [&](int64_t &row) {
    if (row >= n_own) row = halo.row[nlocal + row - n_own];
  };
  auto &edges = *impl->edges;
  std::for_each(edges.neighbors.begin(), edges.neighbors.end(), settle);
  std::for_each(edges.centers.end() - impl->n_ghost_edges, edges.centers.end(), settle);
}

/* ---------------------------------------------------------------------- */

namespace {
// Of packing or unpacking one message.
class Stopwatch {
 public:
  explicit Stopwatch(double &total) : total_(total), start_(platform::walltime()) {}
  ~Stopwatch() { total_ += platform::walltime() - start_; }

 private:
  double &total_;
  const double start_;
};
}    // namespace

int PairOrbV3::pack_forward_comm(int n, int *list, double *buf, int /*pbc_flag*/, int * /*pbc*/)
{
  auto &counters = impl->exchange->counters;
  const Stopwatch stopwatch(counters.packing_seconds);
  const int length = impl->halo.pack_forward(n, list, buf);
  counters.bytes += sizeof(double) * static_cast<double>(length);
  return length;
}

void PairOrbV3::unpack_forward_comm(int n, int first, double *buf)
{
  const Stopwatch stopwatch(impl->exchange->counters.packing_seconds);
  impl->halo.unpack_forward(n, first, buf);
}

int PairOrbV3::pack_reverse_comm(int n, int first, double *buf)
{
  auto &counters = impl->exchange->counters;
  const Stopwatch stopwatch(counters.packing_seconds);
  const int length = impl->halo.pack_reverse(n, first, buf);
  counters.bytes += sizeof(double) * static_cast<double>(length);
  return length;
}

void PairOrbV3::unpack_reverse_comm(int n, int *list, double *buf)
{
  const Stopwatch stopwatch(impl->exchange->counters.packing_seconds);
  // an exception would leave LAMMPS's communication half done
  impl->failure.guard([&] {
    impl->halo.unpack_reverse(n, list, buf);
  });
}
