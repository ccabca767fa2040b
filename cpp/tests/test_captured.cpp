// Evaluations through graphs of kernels, with a graph that only counts and a backend that only adds: what is
// captured and replayed when, and that padding is what the contract has for nothing.
#include <ATen/ATen.h>

#include <stdexcept>
#include <string>
#include <vector>

#include "../src/runtime/captured.h"
#include "../src/runtime/edge_bucket.h"
#include "check.h"

using namespace orb_export;
using at::Tensor;

namespace {

constexpr double kCutoffOfTest = 6.0;
constexpr int64_t kMaxNeighbors = 1000;

struct Counts {
  int plain = 0, captures = 0, replays = 0, settled = 0, living = 0;
  bool fails = false;
};

// Runs the work again, as a GPU would.
class FakeGraph : public DeviceGraph {
 public:
  explicit FakeGraph(Counts &counts) : counts_(counts) { ++counts_.living; }
  ~FakeGraph() override { --counts_.living; }
  void capture(const std::function<void()> &work) override {
    if (counts_.fails) throw std::runtime_error("no capture");
    ++counts_.captures;
    work_ = work;
    work_();
  }
  void settle() override { ++counts_.settled; }
  void replay() override {
    CHECK(counts_.settled == ++counts_.replays);
    work_();
  }

 private:
  Counts &counts_;
  std::function<void()> work_;
};

// energy: sum over edges of (cutoff - |vector|) times the atomic numbers of both ends
class FakeBackend : public Backend {
 public:
  explicit FakeBackend(Counts &counts) : counts_(counts) {}
  std::vector<Tensor> run(std::vector<Tensor> in) override {
    ++counts_.plain;
    last_size = in[1].size(0);
    last_centers = in[1].clone();
    const Tensor length = in[3].square().sum(1).sqrt(), z = in[0].to(at::kDouble);
    const Tensor pairs = z.index_select(0, in[1]) * z.index_select(0, in[2]);
    const Tensor of_atoms = at::zeros_like(z).index_add_(0, in[1], pairs * (kCutoffOfTest - length));
    const Tensor gradient = -(pairs / length).unsqueeze(1) * in[3];
    return {of_atoms.sum() + in[4] + in[5], gradient, of_atoms.unsqueeze(1), of_atoms};
  }
  int64_t last_size = 0;    // edges, with padding
  Tensor last_centers;

 private:
  Counts &counts_;
};

struct Fixture {
  Counts counts, of_reference;
  FakeBackend *plain = new FakeBackend(counts);
  FakeBackend reference{of_reference};
  std::unique_ptr<Backend> backend;
  Fixture() {
    Metadata metadata;
    metadata.cutoff = kCutoffOfTest;
    metadata.max_neighbors = kMaxNeighbors;
    backend = through_graphs(
        std::unique_ptr<Backend>(plain), [this] { return std::make_unique<FakeGraph>(counts); }, metadata);
  }
};

std::vector<Tensor> graph(int64_t n_atoms, int64_t n_edges, int64_t seed) {
  at::manual_seed(seed);
  return {at::randint(1, 90, {n_atoms}, at::kLong),
          std::get<0>(at::randint(n_atoms, {n_edges}, at::kLong).sort()),
          at::randint(n_atoms, {n_edges}, at::kLong),
          at::rand({n_edges, 3}, at::kDouble) + 0.1,
          at::scalar_tensor(0.5 * static_cast<double>(seed), at::kDouble),
          at::scalar_tensor(2.0, at::kDouble)};
}

// Whether the results are those without graphs, bit by bit but for the order of one sum.
bool agrees(Fixture &fixture, const std::vector<Tensor> &inputs) {
  const auto found = fixture.backend->run(inputs), expected = fixture.reference.run(inputs);
  bool same = found.size() == expected.size() && at::allclose(found[0], expected[0], 1e-14, 0.0);
  for (size_t i = 1; same && i < found.size(); ++i) same = at::equal(found[i], expected[i]);
  return same;
}

void a_capture_serves_while_edges_fit() {
  Fixture fixture;
  for (int64_t step = 0; step < 20; ++step) CHECK(agrees(fixture, graph(10, 5000 + (step * 37) % 200, step)));
  CHECK(fixture.counts.captures == 1);
  CHECK(fixture.counts.replays == 18);
  CHECK(fixture.plain->last_size > 5200);
}

void padding_is_shared_out_among_the_atoms() {
  Fixture fixture;
  for (int64_t step = 0; step < 4; ++step) CHECK(agrees(fixture, graph(10, 3000, step)));
  const Tensor padded = fixture.plain->last_centers.slice(0, 3000).bincount();
  CHECK(padded.size(0) == 10);
  CHECK((padded.max() - padded.min()).item<int64_t>() <= 1);
}

void more_edges_are_captured_again_and_the_old_memory_goes_first() {
  Fixture fixture;
  for (int64_t step = 0; step < 5; ++step) CHECK(agrees(fixture, graph(10, 3000, step)));
  CHECK(agrees(fixture, graph(10, 4000, 5)));
  CHECK(fixture.counts.captures == 2);
  CHECK(fixture.counts.living == 1);
  CHECK(agrees(fixture, graph(10, 3000, 6)));    // padding over what were edges
  CHECK(agrees(fixture, graph(10, 0, 7)));
  CHECK(fixture.counts.captures == 2);
}

void results_are_not_overwritten_by_the_next_ones() {
  Fixture fixture;
  const auto first = graph(10, 100, 1), second = graph(10, 100, 2);
  for (int64_t step = 0; step < 3; ++step) fixture.backend->run(first);
  const auto kept = fixture.backend->run(first);
  fixture.backend->run(second);
  CHECK(at::equal(kept[1], fixture.reference.run(first)[1]));
}

void structures_that_come_once_or_are_huge_are_not_captured() {
  Fixture fixture;
  for (int64_t atoms = 1; atoms < 30; ++atoms) CHECK(agrees(fixture, graph(atoms, 50, atoms)));
  for (int64_t step = 0; step < 4; ++step) CHECK(agrees(fixture, graph(1000, (int64_t{1} << 19) + 1, step)));
  CHECK(fixture.counts.captures == 0);
}

void sizes_that_take_turns_keep_their_captures() {
  Fixture fixture;
  for (int64_t step = 0; step < 12; ++step) CHECK(agrees(fixture, graph(10 + step % 3, 50, step)));
  CHECK(fixture.counts.captures == 3);
  CHECK(fixture.counts.living == 3);
  for (int64_t atoms = 20; atoms < 30; ++atoms) CHECK(agrees(fixture, graph(atoms, 50, atoms)));
  CHECK(fixture.counts.living == 0);
}

void without_a_capture_evaluations_go_on() {
  Fixture fixture;
  fixture.counts.fails = true;
  for (int64_t step = 0; step < 6; ++step) CHECK(agrees(fixture, graph(10, 50, step)));
  fixture.counts.fails = false;    // it is not tried again
  for (int64_t step = 0; step < 6; ++step) CHECK(agrees(fixture, graph(10, 50, step)));
  CHECK(fixture.counts.captures == 0);
  CHECK(fixture.counts.living == 0);
}

void rooms_grow_at_once_and_shrink_after_many_evaluations() {
  EdgeBucket bucket(1000000);
  const int64_t first = bucket.room_for(10000);
  CHECK(first > 10000 && first < 11000);
  CHECK(bucket.room_for(9000) == first);
  const int64_t second = bucket.room_for(first + 1);
  CHECK(second > first + 1);
  for (int step = 0; step < 99; ++step) CHECK(bucket.room_for(step == 50 ? 6000 : 5000) == second);
  const int64_t third = bucket.room_for(5000);
  CHECK(third > 6000 && third < 7000);    // what the last hundred evaluations need
  for (int step = 0; step < 300; ++step) CHECK(bucket.room_for(step % 90 == 0 ? 6000 : 4000) == third);
}

void rooms_do_not_exceed_what_can_be() {
  CHECK(EdgeBucket(2000).room_for(1999) == 2000);
  CHECK(EdgeBucket(2000).room_for(2000) == 2000);
  CHECK(EdgeBucket(20).room_for(0) == 20);
}

}    // namespace

int main() {
  a_capture_serves_while_edges_fit();
  padding_is_shared_out_among_the_atoms();
  more_edges_are_captured_again_and_the_old_memory_goes_first();
  results_are_not_overwritten_by_the_next_ones();
  structures_that_come_once_or_are_huge_are_not_captured();
  sizes_that_take_turns_keep_their_captures();
  without_a_capture_evaluations_go_on();
  rooms_grow_at_once_and_shrink_after_many_evaluations();
  rooms_do_not_exceed_what_can_be();
  return orb_export_test::failures();
}
