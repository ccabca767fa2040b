// SPDX-License-Identifier: GPL-2.0-or-later
#include "lammps_graph.h"

#include <orb_export/graph.h>

#include <algorithm>
#include <future>
#include <sched.h>

namespace orbv3 {

namespace {
// Below this a thread costs more than it saves (starting one takes some 20 us, a center 1 to 5 us).
constexpr std::size_t CENTERS_PER_THREAD = 100;

std::size_t available_cores()
{
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) != 0) return 1;
  return std::max(1, CPU_COUNT(&set));
}
}    // namespace

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

void EdgeBuilder::build_part(Part &part, const NeighborView &list, const Rows &rows,
                             std::size_t begin, std::size_t end) const
{
  part.centers.clear();
  part.neighbors.clear();
  part.vectors.clear();
  part.coincident[0] = part.coincident[1] = -1;
  // LAMMPS lists candidates up to cutoff + skin; most of the work is to sort those, so drop the far ones
  // first. The margin leaves the decision at the cutoff itself to select_neighbors().
  const double near = (cutoff_ + 1e-3) * (cutoff_ + 1e-3);

  for (auto row = begin; row < end; ++row) {
    const int i = rows.atom[row];
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
    orb_export::select_neighbors(part.candidate_vectors.data(),
                                 static_cast<int64_t>(part.candidates.size()), cutoff_,
                                 max_neighbors_, part.order);
    for (const int64_t k : part.order) {
      part.centers.push_back(static_cast<int64_t>(row));
      part.neighbors.push_back(rows.of_atom[part.candidates[k]]);
      const double *const d = &part.candidate_vectors[3 * k];
      part.vectors.insert(part.vectors.end(), d, d + 3);
    }
  }
}

void EdgeBuilder::join()
{
  centers.clear();
  neighbors.clear();
  vectors.clear();
  coincident[0] = coincident[1] = -1;
  for (const auto &part : parts_) {
    centers.insert(centers.end(), part.centers.begin(), part.centers.end());
    neighbors.insert(neighbors.end(), part.neighbors.begin(), part.neighbors.end());
    vectors.insert(vectors.end(), part.vectors.begin(), part.vectors.end());
    if (part.coincident[0] >= 0) std::copy_n(part.coincident, 2, coincident);
  }
}

double EdgeBuilder::memory_usage() const
{
  auto bytes = (centers.capacity() + neighbors.capacity()) * sizeof(int64_t) +
               vectors.capacity() * sizeof(double);
  for (const auto &part : parts_)
    bytes += (part.centers.capacity() + part.neighbors.capacity() + part.order.capacity()) *
                 sizeof(int64_t) +
             part.candidates.capacity() * sizeof(int) +
             (part.vectors.capacity() + part.candidate_vectors.capacity()) * sizeof(double);
  return static_cast<double>(bytes);
}

}    // namespace orbv3
