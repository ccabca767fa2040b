// SPDX-License-Identifier: GPL-2.0-or-later
#include "lammps_graph.h"

#include <orb_export/graph.h>
#include <orb_export/selection_limit.h>

#include <algorithm>
#include <future>
#include <sched.h>

namespace orbv3 {

namespace {
// Below this a thread costs more than it saves (starting one takes some 20 us, a center 1 to 5 us).
constexpr std::size_t CENTERS_PER_THREAD = 100;
}    // namespace

std::size_t available_cores()
{
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}

EdgeBuilder::EdgeBuilder(double cutoff, int64_t max_neighbors) :
    cutoff_(cutoff), max_neighbors_(max_neighbors)
{
}

void EdgeBuilder::build(const NeighborView &list, const Rows &rows, int threads)
{
  const auto n = rows.atom.size();
  const auto wanted = threads > 0 ? static_cast<std::size_t>(threads) : available_cores();
  const auto n_parts = std::clamp<std::size_t>(n / CENTERS_PER_THREAD, 1, wanted);
  parts_.resize(n_parts);

  std::vector<std::future<void>> others;
  for (std::size_t k = 1; k < n_parts; ++k)
    others.push_back(std::async(std::launch::async, [&, k] {
      build_part(parts_[k], list, rows, n * k / n_parts, n * (k + 1) / n_parts);
    }));
  build_part(parts_[0], list, rows, 0, n / n_parts);
  for (auto &other : others)
    other.get();    // passes on an exception
  join();
}

// LAMMPS lists candidates up to cutoff + skin; most of the work is to sort those, so the far ones go first.
void EdgeBuilder::gather_candidates(Part &part, const NeighborView &list, const Rows &rows,
                                    int i) const
{
  // the margin leaves the decision at the cutoff itself to select_neighbors()
  const double near = (cutoff_ + 1e-3) * (cutoff_ + 1e-3);
  part.candidates.clear();
  part.candidate_vectors.clear();
  for (int k = 0; k < list.numneigh[i]; ++k) {
    const int j = list.firstneigh[i][k] & list.mask;
    if (rows.of_atom[j] < 0) continue;
    const double d[3] = {list.x[j][0] - list.x[i][0], list.x[j][1] - list.x[i][1],
                         list.x[j][2] - list.x[i][2]};
    const double square = d[0] * d[0] + d[1] * d[1] + d[2] * d[2];
    if (square > near) continue;
    if (square == 0.0) {
      part.coincident[0] = i;
      part.coincident[1] = j;
      continue;
    }
    part.candidates.push_back(j);
    part.candidate_vectors.insert(part.candidate_vectors.end(), d, d + 3);
  }
}

void EdgeBuilder::build_part(Part &part, const NeighborView &list, const Rows &rows,
                             std::size_t begin, std::size_t end) const
{
  part.centers.clear();
  part.neighbors.clear();
  part.vectors.clear();
  part.limits.clear();
  part.coincident[0] = part.coincident[1] = -1;
  for (auto row = begin; row < end; ++row) {
    gather_candidates(part, list, rows, rows.atom[row]);
    const auto n = static_cast<int64_t>(part.candidates.size());
    const double *const candidates = part.candidate_vectors.data();
    orb_export::select_neighbors(candidates, n, cutoff_, max_neighbors_, part.order);
    for (const int64_t k : part.order) {
      part.centers.push_back(static_cast<int64_t>(row));
      part.neighbors.push_back(rows.of_atom[part.candidates[k]]);
      part.vectors.insert(part.vectors.end(), candidates + 3 * k, candidates + 3 * k + 3);
    }
    if (wants_limits) {
      const auto limit = orb_export::selection_limit(candidates, n, cutoff_, part.order);
      part.limits.insert(part.limits.end(), {limit.inner, limit.outer, limit.projection});
    }
  }
}

void EdgeBuilder::add_ghost_edges(const NeighborView &list, const Rows &rows,
                                  const std::vector<double> &limits_of_atoms)
{
  struct Edge {
    int64_t center, neighbor;
    double vector[3];
  };
  std::vector<Edge> found;
  const auto n_own = static_cast<int64_t>(rows.atom.size());
  Part part;
  for (int64_t row = 0; row < n_own; ++row) {
    gather_candidates(part, list, rows, rows.atom[row]);
    for (std::size_t k = 0; k < part.candidates.size(); ++k) {
      const int ghost = part.candidates[k];
      if (rows.of_atom[ghost] < n_own) continue;
      const double *const d = &part.candidate_vectors[3 * k];
      const Edge edge = {rows.of_atom[ghost], row, {-d[0], -d[1], -d[2]}};
      const double *const limit = &limits_of_atoms[COLUMNS_OF_LIMIT * ghost];
      if (orb_export::SelectionLimit{limit[0], limit[1], limit[2]}.includes(edge.vector))
        found.push_back(edge);
    }
  }
  std::stable_sort(found.begin(), found.end(), [](const Edge &a, const Edge &b) {
    return a.center < b.center;
  });
  for (const auto &edge : found) {
    centers.push_back(edge.center);
    neighbors.push_back(edge.neighbor);
    vectors.insert(vectors.end(), edge.vector, edge.vector + 3);
  }
}

void EdgeBuilder::join()
{
  centers.clear();
  neighbors.clear();
  vectors.clear();
  limits.clear();
  coincident[0] = coincident[1] = -1;
  for (const auto &part : parts_) {
    centers.insert(centers.end(), part.centers.begin(), part.centers.end());
    neighbors.insert(neighbors.end(), part.neighbors.begin(), part.neighbors.end());
    vectors.insert(vectors.end(), part.vectors.begin(), part.vectors.end());
    limits.insert(limits.end(), part.limits.begin(), part.limits.end());
    if (part.coincident[0] >= 0) std::copy_n(part.coincident, 2, coincident);
  }
}

double EdgeBuilder::memory_usage() const
{
  auto bytes = (centers.capacity() + neighbors.capacity()) * sizeof(int64_t) +
               (vectors.capacity() + limits.capacity()) * sizeof(double);
  for (const auto &part : parts_)
    bytes +=
        (part.centers.capacity() + part.neighbors.capacity() + part.order.capacity()) *
            sizeof(int64_t) +
        part.candidates.capacity() * sizeof(int) +
        (part.vectors.capacity() + part.candidate_vectors.capacity() + part.limits.capacity()) *
            sizeof(double);
  return static_cast<double>(bytes);
}

}    // namespace orbv3
