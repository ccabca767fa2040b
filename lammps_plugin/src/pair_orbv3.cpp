// SPDX-License-Identifier: GPL-2.0-or-later
#include "pair_orbv3.h"

#include "elements.h"
#include "pair_orbv3_impl.h"

#include "atom.h"
#include "comm.h"
#include "domain.h"
#include "error.h"
#include "force.h"
#include "memory.h"
#include "neigh_list.h"
#include "neighbor.h"
#include "update.h"

#include <algorithm>
#include <cmath>
#include <cstring>

using namespace LAMMPS_NS;

PairOrbV3::PairOrbV3(LAMMPS *lmp) : Pair(lmp), impl(std::make_unique<Impl>(lmp))
{
  cite();

  one_coeff = 1;                  // one pair_coeff * * with all elements
  manybody_flag = 1;              // no mixing, no pair tables
  single_enable = 0;              // a pair has no energy of its own
  restartinfo = 1;                // path, hash and elements are stored
  respa_enable = 0;               // no split by distance
  no_virial_fdotr_compute = 1;    // the model gives its own virial, also where forces were folded
  reinitflag = 0;                 // no coefficients for fix adapt
  centroidstressflag = CENTROID_AVAIL;
}

PairOrbV3::~PairOrbV3()
{
  if (allocated) {
    memory->destroy(setflag);
    memory->destroy(cutsq);
  }
}

/* ---------------------------------------------------------------------- */

void PairOrbV3::init_style()
{
  check_system();
  check_masses();

  // ghosts are folded onto the atoms that they are images of, by their IDs
  if (atom->map_style == Atom::MAP_NONE) {
    atom->map_init();
    atom->map_set();
  }

  impl->cutoff = impl->potential->metadata().cutoff;
  // real: LAMMPS's own factor, so that energies agree with those of styles that convert by it
  impl->energy_unit = 1.0;
  if (std::strcmp(update->unit_style, "real") == 0)
    impl->energy_unit = utils::get_conversion_factor(utils::ENERGY, utils::METAL2REAL);

  init_ranks();
  neighbor->add_request(this, NeighConst::REQ_FULL);
}

void PairOrbV3::check_system()
{
  if (!impl->potential)
    error->all(FLERR, "Pair style orbv3 has no model yet: pair_coeff comes first");
  const std::string units = update->unit_style;
  if (units != "metal" && units != "real")
    error->all(FLERR, "Pair style orbv3 works in units metal or real, but units are " + units);
  if (domain->dimension != 3)
    error->all(FLERR, "Pair style orbv3 is for three dimensions, but dimension is 2");
  if (!atom->tag_enable)
    error->all(FLERR, "Pair style orbv3 needs atom IDs, but atom_modify id is no");
  if (neighbor->includegroup)
    error->all(FLERR,
               "Pair style orbv3 needs the neighbors of all atoms: remove neigh_modify include");
  if (neighbor->nex_type || neighbor->nex_group || neighbor->nex_mol)
    error->warning(
        FLERR, "Pair style orbv3 does not see the pairs that neigh_modify exclude removes, and its "
               "forces are those of a system without them");
  for (int k = 1; k < 4; k++)
    if (atom->molecular != Atom::ATOMIC && force->special_lj[k] != 1.0)
      error->all(
          FLERR,
          "Pair style orbv3 needs all neighbors, but special_bonds removes or scales those of "
          "bonded atoms: use special_bonds lj/coul 1 1 1");
  if (impl->settings.skin && *impl->settings.skin < neighbor->skin)
    error->all(FLERR, fmt::format("Pair style orbv3 skin {} is smaller than the {} of the neighbor "
                                  "command: neighbors would be missed between list builds",
                                  *impl->settings.skin, neighbor->skin));
}

// A mass that fits another element of the list means types in the wrong order, which nothing else would
// tell; any other odd mass (isotopes, repartitioned hydrogen) is the user's choice.
void PairOrbV3::check_masses()
{
  if (!atom->mass) return;
  constexpr double TOLERANCE = 0.1;
  const auto fits = [this](int type, int number) {
    const double expected = orbv3::mass_of(number);
    return std::fabs(atom->mass[type] - expected) <= TOLERANCE * expected;
  };
  const auto &numbers = impl->number_of_type;
  for (int type = 1; type <= atom->ntypes; type++) {
    if (!numbers[type] || fits(type, numbers[type])) continue;
    const auto text = fmt::format(
        "Atom type {} is {} for pair style orbv3 but has mass {} instead of {}", type,
        orbv3::symbol_of(numbers[type]), atom->mass[type], orbv3::mass_of(numbers[type]));
    for (const int other : numbers)
      if (other && fits(type, other))
        error->all(FLERR,
                   text + ", that of " + orbv3::symbol_of(other) +
                       ": the elements of pair_coeff must be in the order of the atom types");
    error->warning(FLERR, text);
  }
}

double PairOrbV3::init_one(int /*i*/, int /*j*/)
{
  // LAMMPS adds the skin of the neighbor command; ours may be larger
  const double skin = impl->settings.skin.value_or(neighbor->skin);
  return impl->potential->metadata().cutoff + (skin - neighbor->skin);
}

/* ---------------------------------------------------------------------- */

void PairOrbV3::compute(int eflag, int vflag)
{
  ev_init(eflag, vflag);
  const double start = platform::walltime(), waited = communication();
  const double processor = platform::cputime();
  impl->failure.guard([this] {
    gather_atoms();    // LAMMPS arrays -> rows of the model
    build_edges();     // neighbor list -> edges between rows
    impl->uncertainty.make_room();
  });
  share_edges();    // what ranks must know of each other, failures among it
  impl->timing.graph += platform::walltime() - start - (communication() - waited);
  if (impl->n_total == 0) {
    impl->result = {};
  } else {
    orb_export::Request request;
    request.per_atom = eflag_atom || vflag_atom || cvflag_atom;
    evaluate(request);
    add_forces();    // +=, so that hybrid/overlay works
    tally();
    tally_atoms();
    count_step(platform::walltime() - start, platform::cputime() - processor);
  }
  impl->uncertainty.record(impl->result.confidence, impl->rows.atom, impl->energy_unit);
  impl->uncertainty.act(impl->number_of_type);
  compare_ensemble();
}

void PairOrbV3::gather_atoms()
{
  auto &rows = impl->rows;
  rows.atom.clear();
  for (int k = 0; k < list->inum; k++)
    if (impl->number_of_type[atom->type[list->ilist[k]]]) rows.atom.push_back(list->ilist[k]);
  std::sort(rows.atom.begin(), rows.atom.end());

  const int nall = atom->nlocal + atom->nghost;
  rows.of_atom.assign(nall, -1);
  impl->numbers.resize(rows.atom.size());
  impl->positions.resize(3 * rows.atom.size());
  for (std::size_t row = 0; row < rows.atom.size(); row++) {
    const int i = rows.atom[row];
    rows.of_atom[i] = static_cast<int64_t>(row);
    impl->numbers[row] = impl->number_of_type[atom->type[i]];
    std::copy_n(atom->x[i], 3, &impl->positions[3 * row]);
  }
  fold_ghosts();
}

// Images of one atom share a row: that of the atom, or where another rank owns it, of one of its ghosts, which
// has the row of its place among the ghosts until give_rows_to_ghosts().
void PairOrbV3::fold_ghosts()
{
  auto &rows = impl->rows;
  const int nlocal = atom->nlocal;
  const auto n_own = static_cast<int64_t>(rows.atom.size());
  for (int j = nlocal; j < nlocal + atom->nghost; j++) {
    const int first = atom->map(atom->tag[j]);
    if (first < 0 || (first >= nlocal && !impl->exchange)) {
      impl->failure.set(fmt::format(
          "the atom that ghost atom {} is an image of is not on this rank", atom->tag[j]));
      return;
    }
    if (first < nlocal)
      rows.of_atom[j] = rows.of_atom[first];
    else if (impl->number_of_type[atom->type[first]])
      rows.of_atom[j] = n_own + first - nlocal;
  }
}

orbv3::NeighborView PairOrbV3::neighbor_view() const
{
  orbv3::NeighborView view;
  view.x = atom->x;
  view.numneigh = list->numneigh;
  view.firstneigh = list->firstneigh;
  view.mask = NEIGHMASK;
  return view;
}

void PairOrbV3::build_edges()
{
  auto &edges = *impl->edges;
  edges.wants_limits = impl->redundant;
  edges.build(neighbor_view(), impl->rows, impl->threads);
  if (edges.coincident[0] >= 0)
    impl->failure.set(fmt::format("atoms {} and {} are at the same place",
                                  atom->tag[edges.coincident[0]], atom->tag[edges.coincident[1]]));
}

void PairOrbV3::evaluate(const orb_export::Request &request)
{
  orb_export::Graph graph;
  graph.n_ghosts = static_cast<int64_t>(impl->ghosts.size());
  graph.n_atoms = static_cast<int64_t>(impl->rows.atom.size()) + graph.n_ghosts;
  graph.n_edges = impl->edges->size();
  graph.n_ghost_edges = impl->n_ghost_edges;
  graph.redundant = impl->redundant;
  graph.numbers = impl->numbers.data();
  graph.centers = impl->edges->centers.data();
  graph.neighbors = impl->edges->neighbors.data();
  graph.vectors = impl->edges->vectors.data();
  graph.positions = impl->positions.data();
  if (domain->xperiodic || domain->yperiodic || domain->zperiodic)
    graph.cell = {domain->xprd, 0.0,        0.0,        domain->xy,  domain->yprd,
                  0.0,          domain->xz, domain->yz, domain->zprd};
  graph.charge = impl->settings.charge.value_or(graph.charge);
  graph.spin = impl->settings.spin.value_or(graph.spin);

  const double start = platform::walltime(), waited = communication();
  impl->failure.guard([&] {    // collective, but it fails on all ranks or on none
    impl->result = impl->potential->evaluate(graph, request, impl->exchange.get());
  });
  if (impl->failure.any()) stop_if_failed();
  impl->timing.model += platform::walltime() - start - (communication() - waited);
}

void PairOrbV3::add_forces()
{
  const auto &forces = impl->result.forces;
  for (std::size_t row = 0; row < impl->rows.atom.size(); row++) {
    double *const f = atom->f[impl->rows.atom[row]];
    for (int k = 0; k < 3; k++)
      f[k] += impl->energy_unit * forces[3 * row + k];
  }
}
