// SPDX-License-Identifier: GPL-2.0-or-later
// The adaptor from LAMMPS's arrays to edges, with arrays made by hand: no LAMMPS, no torch.
#include "lammps_graph.h"

#include "check.h"

#include <array>
#include <set>
#include <vector>

namespace {

constexpr int MASK = 0x1FFFFFFF;

// Atoms in a row along x, one angstrom apart; the last two are ghosts: images of atoms 0 and 1.
struct Row {
  std::vector<std::array<double, 3>> position;
  std::vector<double *> x;
  std::vector<std::vector<int>> neighbors;
  std::vector<int> numneigh;
  std::vector<int *> firstneigh;
  orbv3::Rows rows;

  explicit Row(int owned)
  {
    const int all = owned + 2;
    position.resize(all);
    neighbors.resize(owned);
    for (int i = 0; i < all; ++i) {
      position[i] = {static_cast<double>(i), 0.0, 0.0};
      x.push_back(position[i].data());
      rows.of_atom.push_back(i % owned);
    }
    for (int i = 0; i < owned; ++i) {
      rows.atom.push_back(i);
      for (int j = 0; j < all; ++j)
        if (j != i) neighbors[i].push_back(j);
    }
  }
  orbv3::NeighborView view()
  {
    numneigh.clear();
    firstneigh.clear();
    for (auto &list : neighbors) {
      numneigh.push_back(static_cast<int>(list.size()));
      firstneigh.push_back(list.data());
    }
    return {x.data(), numneigh.data(), firstneigh.data(), MASK};
  }
};

using Edge = std::array<double, 3>;    // center, neighbor, x component of the vector

std::multiset<Edge> edges_of(const orbv3::EdgeBuilder &edges)
{
  std::multiset<Edge> result;
  for (int64_t e = 0; e < edges.size(); ++e)
    result.insert({static_cast<double>(edges.centers[e]), static_cast<double>(edges.neighbors[e]),
                   edges.vectors[3 * e]});
  return result;
}

void ghosts_are_folded_onto_their_owners()
{
  Row row(3);
  orbv3::EdgeBuilder edges(1.5, 120);
  edges.build(row.view(), row.rows, 1);
  // atom 2 has atom 1 on its left and, through the ghost at x = 3, atom 0 on its right
  CHECK((edges_of(edges) ==
         std::multiset<Edge>{{0, 1, 1}, {1, 0, -1}, {1, 2, 1}, {2, 1, -1}, {2, 0, 1}}));
}

void flag_bits_are_cleared()
{
  Row plain(3), flagged(3);
  for (auto &list : flagged.neighbors)
    for (int &j : list)
      j |= 3 << 30;
  orbv3::EdgeBuilder a(1.5, 120), b(1.5, 120);
  a.build(plain.view(), plain.rows, 1);
  b.build(flagged.view(), flagged.rows, 1);
  CHECK(a.size() > 0 && edges_of(a) == edges_of(b));
}

void unseen_atoms_have_no_edges()
{
  Row row(3);
  row.rows.atom = {0, 2};
  row.rows.of_atom = {0, -1, 1, 0, -1};
  orbv3::EdgeBuilder edges(1.5, 120);
  edges.build(row.view(), row.rows, 1);
  CHECK((edges_of(edges) == std::multiset<Edge>{{1, 0, 1}}));
}

void the_cap_keeps_the_nearest()
{
  Row row(5);
  orbv3::EdgeBuilder edges(10.0, 1);
  row.position[3][0] = 3.25;    // so that atom 4 is its nearest, and nothing is tied
  row.position[1][0] = 0.75;
  row.position[2][0] = 1.75;
  edges.build(row.view(), row.rows, 1);
  CHECK(edges.size() == 5);
  CHECK(edges.neighbors[0] == 1 && edges.neighbors[1] == 0 && edges.neighbors[3] == 4);
}

void coincident_atoms_are_reported_once_and_forgotten()
{
  Row row(3);
  orbv3::EdgeBuilder edges(1.5, 120);
  row.position[2][0] = 1.0;
  edges.build(row.view(), row.rows, 1);
  CHECK((std::set<int>{edges.coincident[0], edges.coincident[1]} == std::set<int>{1, 2}));
  row.position[2][0] = 2.0;
  edges.build(row.view(), row.rows, 1);
  CHECK(edges.coincident[0] == -1);
}

void threads_do_not_change_the_order()
{
  Row row(1000);
  orbv3::EdgeBuilder one(6.0, 20), many(6.0, 20);
  one.build(row.view(), row.rows, 1);
  many.build(row.view(), row.rows, 7);
  CHECK(one.size() > 9000);
  CHECK(one.centers == many.centers && one.neighbors == many.neighbors &&
        one.vectors == many.vectors);
  CHECK(many.memory_usage() > 0);
}

void nothing_gives_nothing()
{
  orbv3::EdgeBuilder edges(6.0, 20);
  edges.build({}, {}, 0);
  CHECK(edges.size() == 0);
}

}    // namespace

int main()
{
  ghosts_are_folded_onto_their_owners();
  flag_bits_are_cleared();
  unseen_atoms_have_no_edges();
  the_cap_keeps_the_nearest();
  coincident_atoms_are_reported_once_and_forgotten();
  threads_do_not_change_the_order();
  nothing_gives_nothing();
  return orb_export_test::failures() == 0 ? 0 : 1;
}
