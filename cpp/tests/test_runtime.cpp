// The torch-free half of the runtime. Whole artefacts are tested from Python; here: SHA-256 against the
// published vectors, the JSON reader, the removal of torque against its defining properties, and the choice
// of a plan for a memory limit.
#include <algorithm>
#include <array>
#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "../src/runtime/assemble.h"
#include "../src/runtime/device_choice.h"
#include "../src/runtime/json.h"
#include "../src/runtime/plan.h"
#include "../src/runtime/sha256.h"
#include "check.h"

using namespace orb_export;
using orb_export_test::rejection;

namespace {

std::string hash(const std::string &text, size_t piece) {
  Sha256 running;
  for (size_t at = 0; at < text.size(); at += piece)
    running.update(text.data() + at, std::min(piece, text.size() - at));
  return running.hex();
}

// FIPS 180-2, appendix B
void sha256_has_the_published_values() {
  CHECK(hash("abc", 1) == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string two_blocks = "abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq";
  for (size_t piece : {1, 7, 56, 64})
    CHECK(hash(two_blocks, piece) == "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
  CHECK(hash(std::string(1000000, 'a'), 1000) ==
        "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

void json_reads_every_kind_of_value() {
  const Json json = Json::parse(R"( {"a": [1, -2.5e-1, true, null], "b": {"c": "x\n\u00e5\ud83d\ude00"}} )");
  const Json::Array &a = *json.find("a")->array();
  CHECK(*a[0].number() == 1.0);
  CHECK(*a[1].number() == -0.25);
  CHECK(*a[2].boolean());
  CHECK(a[3].is_null());
  CHECK(*json.find("b")->find("c")->string() == "x\n\xc3\xa5\xf0\x9f\x98\x80");
  CHECK(json.find("d") == nullptr);
}

void json_refuses_what_is_no_json() {
  for (const char *text :
       {"", "{", "[1,]", "{\"a\" 1}", "tru", "01x", "\"open", "\"\\q\"", "\"\\u12g4\"", "1 2"})
    CHECK(rejection([&] { Json::parse(text); }).rfind("JSON: expected ", 0) == 0);
}

double torque_size(const std::vector<double> &x, const std::vector<double> &f) {
  double t[3] = {0, 0, 0};
  for (size_t i = 0; i < x.size(); i += 3)
    for (int a = 0; a < 3; ++a)
      t[a] += x[i + (a + 1) % 3] * f[i + (a + 2) % 3] - x[i + (a + 2) % 3] * f[i + (a + 1) % 3];
  return std::sqrt(t[0] * t[0] + t[1] * t[1] + t[2] * t[2]);
}

// Forces without net force, so that the torque does not depend on the origin.
std::vector<double> balanced_forces(size_t n, std::mt19937_64 &generator) {
  std::normal_distribution<double> normal(0.0, 1.0);
  std::vector<double> f(3 * n);
  std::array<double, 3> mean{};
  for (size_t i = 0; i < f.size(); ++i) mean[i % 3] += (f[i] = normal(generator)) / static_cast<double>(n);
  for (size_t i = 0; i < f.size(); ++i) f[i] -= mean[i % 3];
  return f;
}

// As assemble.cpp does it, in two parts as two processes would.
void remove_torque(const double *x, int64_t n, double *f) {
  std::array<double, 3> centroid{};
  for (int64_t i = 0; i < 3 * n; ++i) centroid[i % 3] += x[i] / static_cast<double>(n);
  ForceSums sums;
  const int64_t here = n / 2;
  add_moments(x, f, here, centroid, sums);
  add_moments(x + 3 * here, f + 3 * here, n - here, centroid, sums);
  add_rotation(x, n, centroid, compensation(sums), f);
}

void torque_is_removed_from_molecules_of_every_shape() {
  std::mt19937_64 generator(3);
  std::normal_distribution<double> normal(0.0, 1.0);
  for (int shape = 0; shape < 3; ++shape) {    // general, planar, linear
    std::vector<double> x(15);
    for (size_t i = 0; i < x.size(); ++i) x[i] = normal(generator);
    for (size_t i = 0; i < 5; ++i) {
      if (shape == 1) x[3 * i + 2] = 0.3 * x[3 * i] - 0.7 * x[3 * i + 1];
      if (shape == 2) x[3 * i + 1] = 0.4 * x[3 * i], x[3 * i + 2] = -1.3 * x[3 * i];
    }
    auto f = balanced_forces(5, generator);
    CHECK(torque_size(x, f) > 0.1);
    remove_torque(x.data(), 5, f.data());
    CHECK(torque_size(x, f) < 1e-12);
    const auto once = f;
    remove_torque(x.data(), 5, f.data());    // a projection: nothing is left to remove
    for (size_t i = 0; i < f.size(); ++i) CHECK(std::abs(f[i] - once[i]) < 1e-12);
  }
}

void a_single_atom_keeps_its_force() {
  const double x[3] = {1, 2, 3};
  double f[3] = {0.5, -0.25, 4};
  remove_torque(x, 1, f);
  CHECK(f[0] == 0.5 && f[1] == -0.25 && f[2] == 4);
}

void eigenvectors_diagonalize() {
  const std::array<double, 9> matrix = {2, -1, 0.5, -1, 3, 0.25, 0.5, 0.25, -4};
  std::array<double, 3> values;
  std::array<double, 9> vectors;
  symmetric_eigen(matrix, values, vectors);
  for (int k = 0; k < 3; ++k)
    for (int a = 0; a < 3; ++a) {
      double product = 0.0;
      for (int b = 0; b < 3; ++b) product += matrix[3 * a + b] * vectors[3 * b + k];
      CHECK(std::abs(product - values[k] * vectors[3 * a + k]) < 1e-14);
    }
}

Problem full_size(int64_t n_atoms, int64_t n_edges, bool gradient) {
  return {256, 1024, 5, 4, 4, n_atoms, n_edges, true, gradient, 1};
}

int64_t stored(const Plan &plan) {
  int64_t sum = 0;
  for (const Keep keep : plan.kept) sum += static_cast<int64_t>(keep);
  return sum;
}

void steps_are_for_more_edges_than_two_chunks_of_every_thread() {
  Problem problem = full_size(1000, 8192, true);
  CHECK(!prefers_steps(problem));
  problem.n_edges += 1;
  CHECK(prefers_steps(problem));
  CHECK(choose_plan(problem, 0).chunk == 4096);
  problem.threads = 2;
  CHECK(!prefers_steps(problem));
  CHECK(choose_plan(problem, 0).chunk == 8192);
}

void less_memory_never_stores_more() {
  for (const bool gradient : {true, false}) {
    const Problem problem = full_size(20000, 2400000, gradient);
    Plan previous = choose_plan(problem, 0);
    CHECK(stored(previous) == (gradient ? 10 : 1));
    const int64_t most = predicted_bytes(problem, previous), least = least_bytes(problem);
    CHECK(most > 2 * least);
    for (int64_t limit = most; limit >= least; limit -= (most - least) / 50) {
      const Plan plan = choose_plan(problem, limit);
      CHECK(predicted_bytes(problem, plan) <= limit);
      CHECK(stored(plan) < stored(previous) ||
            (stored(plan) == stored(previous) && plan.chunk <= previous.chunk));
      CHECK(stored(plan) == 0 || plan.kept.back() != Keep::nothing);
      previous = plan;
    }
    CHECK(stored(choose_plan(problem, least)) == 0);
  }
}

void a_limit_below_every_plan_says_what_is_needed() {
  const Problem problem = full_size(10, 200, true);
  const int64_t least = least_bytes(problem);
  CHECK(rejection([&] { choose_plan(problem, least - 1); }) ==
        "evaluate: `memory_limit` is " + std::to_string(least - 1) +
            " bytes but 10 atoms and 200 edges need at least " + std::to_string(least));
}

void stored_layers_are_spread_evenly() {
  const Problem problem = full_size(20000, 2400000, true);
  const auto no = Keep::nothing, yes = Keep::edges;
  const int64_t all = predicted_bytes(problem, {256, std::vector<Keep>(5, yes)}), array = 2400000LL * 256 * 4;
  const std::vector<Keep> four = {no, yes, yes, yes, yes}, three = {no, yes, no, yes, yes};
  CHECK(choose_plan(problem, all - array / 2).kept == four);
  CHECK(choose_plan(problem, all - 3 * array / 2).kept == three);
}

void activations_of_the_last_layers_are_stored_first() {
  const Problem problem = full_size(20000, 2400000, true);
  const auto e = Keep::edges, a = Keep::activations;
  const int64_t most = predicted_bytes(problem, choose_plan(problem, 0));
  CHECK(choose_plan(problem, most).kept == std::vector<Keep>(5, a));
  CHECK((choose_plan(problem, most / 2).kept == std::vector<Keep>{e, e, e, a, a}));
}

}    // namespace

void processes_of_a_machine_share_its_gpus_out() {
  for (const char *name : {"auto", "cuda"})
    for (int process = 0; process < 5; ++process)
      CHECK(choose_device("m", std::string(name) + "/" + std::to_string(process), "cuda", 2) == process % 2);
  CHECK(choose_device("m", "cuda:1", "cuda", 2) == 1);
  CHECK(choose_device("m", "auto", "cuda", 2) == 0);
  CHECK(choose_device("m", "auto/3", "cpu", 0) == -1);
  CHECK(choose_device("m", "cpu", "cpu", 2) == -1);
}

void devices_that_are_not_there_are_refused() {
  const auto refused = [](const char *requested, const char *made_for, int n_gpus) {
    return rejection([&] { choose_device("m", requested, made_for, n_gpus); });
  };
  for (const char *bad : {"gpu", "", "cpu:0", "auto:1", "cuda:", "cuda:x", "cuda:100", "cuda/", "cuda/-1"})
    CHECK(refused(bad, "cuda", 2) ==
          "load: `device` is `" + std::string(bad) + "` but must be auto, cpu, cuda or cuda:N");
  CHECK(refused("cuda:2", "cuda", 2) ==
        "load: `m` was exported for device `cuda` but device `cuda:2` was asked for, and there are 2, the "
        "first "
        "of which is cuda:0");
  CHECK(refused("auto/1", "cuda", 0) ==
        "load: `m` was exported for device `cuda` but torch finds no CUDA device here");
  CHECK(refused("cuda", "cpu", 2) ==
        "load: `m` was exported for device `cpu` but device `cuda` was asked for");
}

int main() {
  processes_of_a_machine_share_its_gpus_out();
  devices_that_are_not_there_are_refused();
  sha256_has_the_published_values();
  json_reads_every_kind_of_value();
  json_refuses_what_is_no_json();
  torque_is_removed_from_molecules_of_every_shape();
  a_single_atom_keeps_its_force();
  eigenvectors_diagonalize();
  less_memory_never_stores_more();
  steps_are_for_more_edges_than_two_chunks_of_every_thread();
  a_limit_below_every_plan_says_what_is_needed();
  stored_layers_are_spread_evenly();
  activations_of_the_last_layers_are_stored_first();
  return orb_export_test::failures();
}
