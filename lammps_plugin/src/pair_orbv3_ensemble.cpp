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
    open_model(find_model(name));
    map_types(symbols);
    ensemble.members.push_back({std::move(impl->potential), std::move(impl->edges)});
  }
}

void PairOrbV3::compare_ensemble()
{
  auto &ensemble = impl->ensemble;
  if (!ensemble.is_due() || impl->n_total == 0) return;
  ensemble.begin();
  impl->failure.guard([&] {
    ensemble.add(impl->result);
  });
  auto first = std::move(impl->result);
  for (auto &member : ensemble.members)
    add_to_ensemble(member);
  stop_if_failed();
  impl->result = std::move(first);
  ensemble.write(impl->n_total);
}

namespace {
// Two values that have changed places, until the end, also that by an exception.
template <typename T> class Exchanged {
 public:
  Exchanged(T &a, T &b) : a_(a), b_(b) { std::swap(a_, b_); }
  ~Exchanged() { std::swap(a_, b_); }

 private:
  T &a_, &b_;
};
}    // namespace

void PairOrbV3::add_to_ensemble(orbv3::EnsembleMember &member)
{
  const Exchanged potential(impl->potential, member.potential);
  const Exchanged edges(impl->edges, member.edges);
  // from the atoms on, since the rows of ghosts depend on the edges
  impl->failure.guard([this] {
    gather_atoms();
    build_edges();
  });
  share_edges();
  orb_export::Request request;
  request.confidence = false;
  evaluate(request);
  impl->failure.guard([this] {
    impl->ensemble.add(impl->result);
  });
}
