// SPDX-License-Identifier: GPL-2.0-or-later
// What pair_style orbv3 hands out: energies and virials, values for other parts of LAMMPS, its citation.
#include "pair_orbv3.h"

#include "pair_orbv3_impl.h"

#include "atom.h"
#include "citeme.h"
#include "comm.h"

#include <cstring>

using namespace LAMMPS_NS;

namespace {
constexpr const char *CITATION =
    "pair style orbv3: the Orb-v3 model, doi:10.48550/arXiv.2504.06231\n\n"
    "@Misc{Rhodes2025,\n"
    " author = {B. Rhodes and S. Vandenhaute and V. {\\v{S}}imkus and J. Gin and J. Godwin and\n"
    "           T. Duignan and M. Neumann},\n"
    " title = {Orb-v3: Atomistic Simulation at Scale},\n"
    " year = 2025,\n"
    " eprint = {2504.06231},\n"
    " archivePrefix = {arXiv}\n"
    "}\n\n";
}    // namespace

void PairOrbV3::cite()
{
  if (lmp->citeme) lmp->citeme->add(CITATION);
}

void PairOrbV3::tally()
{
  if (comm->me != 0) return;    // energy and virial are those of all ranks, which LAMMPS sums
  if (eflag_global) eng_vdwl += impl->energy_unit * impl->result.energy;
  if (vflag_global) {
    constexpr int ORDER[6] = {0, 4, 8, 1, 2, 5};    // xx yy zz xy xz yz of a 3x3 matrix
    for (int k = 0; k < 6; k++)
      virial[k] -= impl->energy_unit * impl->result.strain_gradient[ORDER[k]];
  }
}

// Shares of the own atoms; their sums are what tally() adds.
void PairOrbV3::tally_atoms()
{
  const auto &result = impl->result;
  const double unit = impl->energy_unit;
  for (std::size_t row = 0; row < impl->rows.atom.size(); row++) {
    const int i = impl->rows.atom[row];
    if (eflag_atom) eatom[i] += unit * result.atom_energies[row];
    if (!vflag_atom && !cvflag_atom) continue;
    const double *const w = &result.atom_virials[9 * row];    // xx xy xz yx yy yz zx zy zz
    if (vflag_atom) {
      vatom[i][0] += unit * w[0];
      vatom[i][1] += unit * w[4];
      vatom[i][2] += unit * w[8];
      vatom[i][3] += unit * 0.5 * (w[1] + w[3]);
      vatom[i][4] += unit * 0.5 * (w[2] + w[6]);
      vatom[i][5] += unit * 0.5 * (w[5] + w[7]);
    }
    if (cvflag_atom) {
      constexpr int ORDER[9] = {0, 4, 8, 1, 2, 5, 3, 6, 7};    // xx yy zz xy xz yz yx zx zy
      for (int k = 0; k < 9; k++)
        cvatom[i][k] += unit * w[ORDER[k]];
    }
  }
}

/* ---------------------------------------------------------------------- */

void *PairOrbV3::extract(const char *name, int &dim)
{
  dim = 0;
  if (std::strcmp(name, "energy_eV") == 0) return &impl->result.energy;
  if (std::strcmp(name, "cutoff") == 0 && impl->potential) return &impl->cutoff;
  return nullptr;
}

void *PairOrbV3::extract_peratom(const char *name, int &columns)
{
  columns = 0;
  if (std::strcmp(name, "confidence") != 0) return nullptr;
  auto &errors = impl->uncertainty.errors;
  return errors.empty() ? nullptr : errors.data();
}

const orbv3::Uncertainty &PairOrbV3::uncertainty() const
{
  return impl->uncertainty;
}

double PairOrbV3::memory_usage()
{
  double bytes = Pair::memory_usage() + impl->uncertainty.memory_usage();
  bytes += static_cast<double>(impl->rows.atom.capacity() * sizeof(int) +
                               (impl->rows.of_atom.capacity() + impl->numbers.capacity()) *
                                   sizeof(int64_t) +
                               impl->positions.capacity() * sizeof(double));
  bytes += impl->halo.memory_usage();
  if (impl->edges) bytes += impl->edges->memory_usage();
  return bytes;
}
