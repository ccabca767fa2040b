// SPDX-License-Identifier: GPL-2.0-or-later
// The further models of pair_style orbv3 deviation: each takes the place of the first for a moment.
#include "pair_orbv3.h"

#include "pair_orbv3_impl.h"

#include "error.h"

#include <utility>

using namespace LAMMPS_NS;

// They are opened as the first one is, with all of its checks, and put aside.
void PairOrbV3::open_ensemble(const std::vector<std::string> &symbols)
{
  auto &ensemble = impl->ensemble;
  ensemble.members.clear();
  for (const auto &name : ensemble.paths) {
    const auto path = utils::get_potential_file_path(name);
    if (path.empty())
      error->all(FLERR, "Cannot open model file " + name + ": " + utils::getsyserror());
    open_model(path);
    map_types(symbols);
    ensemble.members.push_back({std::move(impl->potential), std::move(impl->edges)});
  }
}

void PairOrbV3::compare_ensemble()
{
  auto &ensemble = impl->ensemble;
  if (!ensemble.is_due() || impl->n_total == 0) return;
  ensemble.add(impl->result);
  auto first = std::move(impl->result);
  for (auto &member : ensemble.members) {
    std::swap(impl->potential, member.potential);
    std::swap(impl->edges, member.edges);
    // from the atoms on, since the rows of ghosts depend on the edges
    impl->edges->wants_limits = impl->redundant;
    gather_atoms();
    build_edges();
    share_edges();
    orb_export::Request request;
    request.confidence = false;
    evaluate(request);
    ensemble.add(impl->result);
    std::swap(impl->potential, member.potential);
    std::swap(impl->edges, member.edges);
  }
  impl->result = std::move(first);
  ensemble.write(impl->n_total);
}
