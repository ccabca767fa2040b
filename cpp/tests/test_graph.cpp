// The graph library as a C++ host uses it. Its numbers are tested from Python
// (tests/unit/test_radius_graph.py); here: that hosts' own candidates give the same graph, that every
// instruction set does, and failures.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <set>
#include <stdexcept>
#include <vector>

#include "../src/graph/kernels.h"
#include "../src/graph/parallel.h"
#include "check.h"
#include "orb_export/graph.h"

using namespace orb_export;
using orb_export_test::rejection;

namespace {

struct System {
  std::vector<double> positions;
  Box box;
  int64_t size() const { return static_cast<int64_t>(positions.size()) / 3; }
};

System face_centered_cubic(int repeats, double noise) {
  constexpr double a = 3.61;
  constexpr double basis[4][3] = {{0, 0, 0}, {0, 0.5, 0.5}, {0.5, 0, 0.5}, {0.5, 0.5, 0}};
  std::mt19937_64 generator(1);
  std::normal_distribution<double> rattle(0.0, 1.0);
  System system;
  for (int cell = 0; cell < repeats * repeats * repeats; ++cell) {
    const int at[3] = {cell % repeats, cell / repeats % repeats, cell / repeats / repeats};
    for (const auto &site : basis) {
      for (int d = 0; d < 3; ++d)
        system.positions.push_back(a * (at[d] + site[d]) + noise * rattle(generator));
    }
  }
  for (int d = 0; d < 3; ++d) system.box.cell[4 * d] = a * repeats;
  system.box.periodic = {true, true, true};
  return system;
}

// What LAMMPS does: candidates of each center in any order, selected by select_neighbors().
void test_selection_from_candidates_gives_the_same_graph(double noise, int64_t cap) {
  const System system = face_centered_cubic(3, noise);
  const Edges wide = radius_graph(system.positions.data(), system.size(), system.box, 8.0, -1);
  const Edges expected = radius_graph(system.positions.data(), system.size(), system.box, 6.0, cap);
  std::mt19937_64 generator(2);
  std::vector<int64_t> order;
  int64_t edge = 0, begin = 0;
  bool same = true;
  for (int64_t center = 0; center < system.size(); ++center) {
    int64_t end = begin;
    while (end < wide.size() && wide.centers[end] == center) ++end;
    std::vector<int64_t> candidates(end - begin);
    for (int64_t k = begin; k < end; ++k) candidates[k - begin] = k;
    std::shuffle(candidates.begin(), candidates.end(), generator);
    std::vector<double> vectors;
    for (const int64_t k : candidates)
      vectors.insert(vectors.end(), &wide.vectors[3 * k], &wide.vectors[3 * k] + 3);
    select_neighbors(vectors.data(), end - begin, 6.0, cap, order);
    for (const int64_t k : order) {
      const int64_t candidate = candidates[k];
      same = same && edge < expected.size() && expected.centers[edge] == center &&
             expected.neighbors[edge] == wide.neighbors[candidate] &&
             std::memcmp(&expected.shifts[3 * edge], &wide.shifts[3 * candidate], 3 * sizeof(int32_t)) == 0;
      ++edge;
    }
    begin = end;
  }
  CHECK(same);
  CHECK(edge == expected.size());
}

void test_selection_of_nothing() {
  std::vector<int64_t> order = {7};
  select_neighbors(nullptr, 0, 6.0, 20, order);
  CHECK(order.empty());
  const double vectors[] = {7.0, 0.0, 0.0, 0.0, 5.0, 0.0, 0.0, 0.0, 4.0};
  select_neighbors(vectors, 3, 6.0, -1, order);
  CHECK((order == std::vector<int64_t>{2, 1}));
  select_neighbors(vectors, 3, 6.0, 0, order);
  CHECK(order.empty());
}

void test_instruction_sets_agree() {
  const auto all = supported_kernels();
  CHECK(!all.empty());
  std::mt19937_64 generator(3);
  std::uniform_real_distribution<double> uniform(-4.0, 4.0);
  constexpr int64_t n = 203;
  std::vector<double> x(n + kReadAhead), y(n + kReadAhead), z(n + kReadAhead);
  for (auto *values : {&x, &y, &z})
    std::generate(values->begin(), values->end(), [&] { return uniform(generator); });
  const double center[3] = {0.1, 0.2, 0.3};
  std::vector<double> expected_squares;
  std::vector<uint32_t> expected_points;
  std::vector<int32_t> expected_ranks;
  for (const Kernels &kernels : all) {
    std::vector<double> squares(n + kReadAhead);
    std::vector<uint32_t> points(n + kReadAhead);
    const int64_t n_hits = kernels.append_hits(x.data(), y.data(), z.data(), 3, n, center, 16.0, 0,
                                               squares.data(), points.data());
    squares.resize(n_hits);
    points.resize(n_hits);
    std::vector<int32_t> keys(n_hits + 2 * kRankBlock, INT32_MAX), ranks(n_hits + 2 * kRankBlock);
    for (int64_t k = 0; k < n_hits; ++k) keys[k] = static_cast<int32_t>(squares[k] * 1e7);
    kernels.rank(keys.data(), n_hits, ranks.data());
    ranks.resize(n_hits);
    if (expected_squares.empty()) {
      expected_squares = squares;
      expected_points = points;
      expected_ranks = ranks;
      CHECK(n_hits > 10);
      CHECK(std::set<int32_t>(ranks.begin(), ranks.end()).size() == ranks.size());
      for (int64_t k = 0; k < n_hits; ++k) {
        const uint32_t p = points[k];
        CHECK(std::hypot(x[p] - center[0], y[p] - center[1], z[p] - center[2]) < 4.0);
        CHECK(std::count_if(squares.begin(), squares.end(), [&](double s) { return s < squares[k]; }) ==
              ranks[k]);
      }
    }
    CHECK(squares == expected_squares);
    CHECK(points == expected_points);
    CHECK(ranks == expected_ranks);
  }
}

void test_exceptions_of_workers_arrive() {
  for (const int threads : {1, 2, 5}) {
    bool caught = false;
    try {
      parallel_for(threads, 100, [](int, int64_t chunk) {
        if (chunk == 57) throw std::runtime_error("chunk 57");
      });
    } catch (const std::runtime_error &error) {
      caught = std::strcmp(error.what(), "chunk 57") == 0;
    }
    CHECK(caught);
  }
}

void test_every_chunk_runs_once() {
  std::vector<int> calls(1000);
  parallel_for(4, 1000, [&](int worker, int64_t chunk) {
    CHECK(worker >= 0 && worker < 4);
    ++calls[chunk];
  });
  CHECK(std::all_of(calls.begin(), calls.end(), [](int count) { return count == 1; }));
  parallel_for(4, 0, [](int, int64_t) { CHECK(false); });
}

void test_released_arrays_are_recycled() {
  for (const size_t bytes : {size_t{37} << 20, size_t{61} << 20}) {
    void *first = allocate_array(bytes);
    std::memset(first, 1, bytes);
    CHECK(reinterpret_cast<uintptr_t>(first) % 64 == 0);
    release_array(first, bytes);
    void *second = allocate_array(bytes - 100);
    CHECK(second == first);
    void *third = allocate_array(bytes);
    CHECK(third != second);
    release_array(second, bytes - 100);
    release_array(third, bytes);
  }
}

void test_builder_equals_radius_graph() {
  System system = face_centered_cubic(4, 0.05);
  GraphBuilder builder(6.0, 20, 1.0);
  std::mt19937_64 generator(4);
  std::normal_distribution<double> step(0.0, 0.02);
  for (int k = 0; k < 10; ++k) {
    for (double &x : system.positions) x += step(generator);
    const Edges &actual = builder.update(system.positions.data(), system.size(), system.box);
    const Edges expected = radius_graph(system.positions.data(), system.size(), system.box, 6.0, 20);
    CHECK(actual.neighbors == expected.neighbors);
    CHECK(actual.shifts == expected.shifts);
    CHECK(actual.vectors == expected.vectors);
  }
  CHECK(builder.updates() == 10);
  CHECK(builder.rebuilds() == 1);
}

void test_rejections_name_the_argument() {
  const System system = face_centered_cubic(1, 0.0);
  const double *x = system.positions.data();
  CHECK(rejection([&] { radius_graph(x, 4, system.box, -1.0, 20); }) ==
        "radius_graph: `cutoff` is -1 but must be positive");
  CHECK(rejection([&] { radius_graph(x, -4, system.box, 6.0, 20); }) ==
        "radius_graph: `n_atoms` is -4 but must not be negative");
  Box flat = system.box;
  flat.cell[8] = 0.0;
  CHECK(rejection([&] { radius_graph(x, 4, flat, 6.0, 20); }).find("`cell` row 2 is (0, 0, 0)") !=
        std::string::npos);
  CHECK(rejection([] { GraphBuilder(6.0, 20, -1.0); }) ==
        "GraphBuilder: `skin` is -1 but must be finite and not negative");
}

}    // namespace

int main() {
  for (const double noise : {0.0, 1e-13, 0.1}) {
    for (const int64_t cap : {int64_t{-1}, int64_t{20}, int64_t{50}})
      test_selection_from_candidates_gives_the_same_graph(noise, cap);
  }
  test_selection_of_nothing();
  test_instruction_sets_agree();
  test_exceptions_of_workers_arrive();
  test_every_chunk_runs_once();
  test_released_arrays_are_recycled();
  test_builder_equals_radius_graph();
  test_rejections_name_the_argument();
  return orb_export_test::failures() == 0 ? 0 : 1;
}
