// SPDX-License-Identifier: GPL-2.0-or-later
// The adaptor from LAMMPS's arrays to edges, with arrays made by hand: no LAMMPS, no torch.
#include "lammps_graph.h"

#include "check.h"

#include <orb_export/graph.h>
#include <orb_export/selection_limit.h>

#include <algorithm>
#include <array>
#include <random>
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

// All vectors of a crystal within `range` cells, moved by noise.
std::vector<double> crystal(const std::vector<std::array<double, 3>> &basis, double a, double noise,
                            std::mt19937 &random)
{
  std::uniform_real_distribution<double> moved(-noise, noise);
  std::vector<double> vectors;
  for (int x = -4; x <= 4; ++x)
    for (int y = -4; y <= 4; ++y)
      for (int z = -4; z <= 4; ++z)
        for (const auto &site : basis) {
          const double v[3] = {a * (x + site[0]), a * (y + site[1]), a * (z + site[2])};
          if (v[0] * v[0] + v[1] * v[1] + v[2] * v[2] < 1e-6) continue;
          for (const double component : v)
            vectors.push_back(component + moved(random));
        }
  return vectors;
}

// Another process sees the same vectors with other rounding.
bool limit_decides_as_the_selection(std::vector<double> vectors, double cutoff, int64_t cap,
                                    std::mt19937 &random)
{
  std::uniform_real_distribution<double> rounding(-1e-11, 1e-11);
  const auto n = static_cast<int64_t>(vectors.size() / 3);
  std::vector<int64_t> order;
  orb_export::select_neighbors(vectors.data(), n, cutoff, cap, order);
  const auto limit = orb_export::selection_limit(vectors.data(), n, cutoff, order);
  const std::set<int64_t> selected(order.begin(), order.end());
  for (auto &component : vectors)
    component += rounding(random);
  int64_t n_in = 0;
  for (int64_t k = 0; k < n; ++k) {
    const bool in = limit.includes(&vectors[3 * k]);
    if (in != (selected.count(k) > 0)) return false;
    n_in += in;
  }
  return n_in == static_cast<int64_t>(order.size());
}

void limits_decide_as_the_selection()
{
  std::mt19937 random(5);
  const std::vector<std::array<double, 3>> simple = {{0, 0, 0}}, bcc = {{0, 0, 0}, {0.5, 0.5, 0.5}},
                                           fcc = {{0, 0, 0},
                                                  {0.5, 0.5, 0},
                                                  {0.5, 0, 0.5},
                                                  {0, 0.5, 0.5}};
  for (const auto &basis : {simple, bcc, fcc})
    for (const double noise : {0.0, 1e-12, 1e-7, 0.05})
      // a cap inside a shell, between two, of one, of none; and shells on the cutoff itself (a = 3, 2)
      for (const int64_t cap : {0, 1, 6, 8, 12, 13, 20, 120, -1})
        for (const double a : {2.0, 3.0, 3.61})
          CHECK(limit_decides_as_the_selection(crystal(basis, a, noise, random), 6.0, cap, random));
  CHECK(limit_decides_as_the_selection({}, 6.0, 20, random));
  CHECK(limit_decides_as_the_selection({7.0, 0.0, 0.0}, 6.0, 20, random));
}

// A limit taken from one side must reproduce the selection when the ghosts carry it to the other.
void ghost_edges_are_the_edges_of_the_other_process()
{
  // ten atoms in a line; this process owns the even ones
  Row line(8);
  line.rows.atom = {0, 2, 4, 6, 8};
  for (int k = 0; k < 10; ++k)
    line.position[k][0] = k + 0.01 * k * k;    // no ties
  Row all(8);
  all.position = line.position;
  for (int k = 0; k < 10; ++k)
    all.x[k] = all.position[k].data();
  const auto everybody = [](Row &row, int n_own) {
    row.neighbors.assign(10, {});
    for (int i = 0; i < 10; ++i)
      for (int j = 0; j < 10; ++j)
        if (i != j) row.neighbors[i].push_back(j);
    row.rows.of_atom.assign(10, -1);
    for (int k = 0; k < 10; ++k)
      row.rows.of_atom[k] = n_own == 10 ? k : (k % 2 ? 5 + k / 2 : k / 2);
  };
  everybody(line, 5);
  everybody(all, 10);
  all.rows.atom = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9};

  orbv3::EdgeBuilder whole(6.0, 3), part(6.0, 3);
  whole.wants_limits = true;
  whole.build(all.view(), all.rows, 1);
  part.build(line.view(), line.rows, 1);
  part.add_ghost_edges(line.view(), line.rows, whole.limits);

  std::multiset<Edge> expected;
  for (int64_t e = 0; e < whole.size(); ++e) {
    const int64_t center = whole.centers[e], neighbor = whole.neighbors[e];
    if (center % 2 && neighbor % 2) continue;    // touches no atom of this process
    expected.insert({static_cast<double>(line.rows.of_atom[center]),
                     static_cast<double>(line.rows.of_atom[neighbor]), whole.vectors[3 * e]});
  }
  CHECK(edges_of(part) == expected);
  CHECK(part.size() > 15 && std::is_sorted(part.centers.begin(), part.centers.end()));
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
  limits_decide_as_the_selection();
  ghost_edges_are_the_edges_of_the_other_process();
  nothing_gives_nothing();
  return orb_export_test::failures() == 0 ? 0 : 1;
}
