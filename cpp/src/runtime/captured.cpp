#include "captured.h"

#include <ATen/core/Tensor.h>
#include <ATen/ops/arange.h>
#include <ATen/ops/empty.h>
#include <c10/util/Exception.h>

#include <algorithm>
#include <list>
#include <mutex>
#include <utility>
#include <vector>

#include "edge_bucket.h"
#include "tensors.h"

namespace orb_export {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

enum Input : size_t { kNumbers, kCenters, kNeighbors, kVectors, kCharge, kSpin };
constexpr size_t kEdgeGradient = 1;    // of the outputs

constexpr size_t kSizes = 4;                 // numbers of atoms that are remembered
constexpr int64_t kEvaluationsBefore = 2;    // structures that come once are not worth a capture
// More keep a GPU busy for longer than the launches take, and would only hold memory.
constexpr int64_t kMostEdges = int64_t{1} << 19;

// A captured evaluation of some number of atoms.
class Captured {
 public:
  // `inputs`: of the present evaluation.
  Captured(Backend &plain, const Tensors &inputs, int64_t room, double cutoff,
           std::unique_ptr<DeviceGraph> graph)
      : cutoff_(cutoff), padded_from_(room), graph_(std::move(graph)) {
    for (size_t i = 0; i < inputs.size(); ++i) {
      const Tensor &input = inputs[i];
      std::vector<int64_t> sizes = input.sizes().vec();
      if (is_of_edges(i)) sizes[0] = room;
      inputs_.push_back(at::empty(sizes, input.options()));
    }
    fill(inputs);
    graph_->capture([&] { outputs_ = plain.run(inputs_); });
  }

  Tensors run(const Tensors &inputs) {
    graph_->settle();
    fill(inputs);
    graph_->replay();
    Tensors results;    // copies: the next replay writes to the same place
    for (size_t i = 0; i < outputs_.size(); ++i)
      results.push_back(
          (i == kEdgeGradient ? outputs_[i].narrow(0, 0, inputs[kCenters].size(0)) : outputs_[i]).clone());
    return results;
  }

 private:
  static bool is_of_edges(size_t input) {
    return input == kCenters || input == kNeighbors || input == kVectors;
  }

  void fill(const Tensors &inputs) {
    const int64_t n_edges = inputs[kCenters].size(0);
    for (size_t i = 0; i < inputs.size(); ++i)
      (is_of_edges(i) ? inputs_[i].narrow(0, 0, n_edges) : inputs_[i]).copy_(inputs[i]);
    pad(n_edges);
  }

  // From atoms to themselves, as long as the cutoff, where the envelope and its slope are exactly zero. Each
  // atom gets as many, for on a GPU the edges of an atom are added up one after the other.
  void pad(int64_t from) {
    const int64_t count = padded_from_ - from, n_atoms = inputs_[kNumbers].size(0);
    padded_from_ = from;
    if (count <= 0) return;    // the rest has been padded before
    const Tensor atoms = at::arange(from, from + count, inputs_[kCenters].options()).remainder(n_atoms);
    inputs_[kCenters].narrow(0, from, count).copy_(atoms);
    inputs_[kNeighbors].narrow(0, from, count).copy_(atoms);
    Tensor vectors = inputs_[kVectors].narrow(0, from, count);
    vectors.zero_();
    vectors.select(1, 0).fill_(cutoff_);
  }

  double cutoff_;
  int64_t padded_from_;    // edges from here on are padding, or not yet written
  Tensors inputs_, outputs_;
  std::unique_ptr<DeviceGraph> graph_;    // refers to the tensors: destroyed before them
};

class CapturedBackend : public Backend {
 public:
  CapturedBackend(std::unique_ptr<Backend> plain, MakeGraph make_graph, const Metadata &metadata)
      : plain_(std::move(plain)),
        make_graph_(std::move(make_graph)),
        cutoff_(metadata.cutoff),
        max_neighbors_(metadata.max_neighbors) {}

  Tensors run(Tensors inputs) override {
    const std::lock_guard<std::mutex> lock(mutex_);
    const int64_t n_atoms = inputs[kNumbers].size(0), n_edges = inputs[kCenters].size(0);
    if (failed_ || n_atoms == 0 || n_edges > kMostEdges) return plain_->run(std::move(inputs));
    Size &size = size_of(n_atoms);
    if (++size.evaluations <= kEvaluationsBefore) return plain_->run(std::move(inputs));
    try {
      prepare(size, inputs, size.bucket.room_for(n_edges));
      return size.captured->run(inputs);
    } catch (const std::exception &error) {
      failed_ = true;
      sizes_.clear();
      TORCH_WARN("evaluate: no graph of kernels can be captured, evaluations go on without: ",
                 short_message(error));
    }
    return plain_->run(std::move(inputs));
  }

 private:
  struct Size {
    int64_t n_atoms, evaluations;
    EdgeBucket bucket;
    int64_t room;
    std::unique_ptr<Captured> captured;
  };

  // The most recently used comes first, and the last one goes.
  Size &size_of(int64_t n_atoms) {
    const auto found =
        std::find_if(sizes_.begin(), sizes_.end(), [&](const Size &size) { return size.n_atoms == n_atoms; });
    if (found != sizes_.end()) {
      sizes_.splice(sizes_.begin(), sizes_, found);
    } else {
      if (sizes_.size() == kSizes) sizes_.pop_back();
      sizes_.push_front({n_atoms, 0, EdgeBucket(n_atoms * max_neighbors_), 0, nullptr});
    }
    return sizes_.front();
  }

  void prepare(Size &size, const Tensors &inputs, int64_t room) {
    if (size.captured && size.room == room) return;
    size.captured.reset();    // its memory first
    size.captured = std::make_unique<Captured>(*plain_, inputs, room, cutoff_, make_graph_());
    size.room = room;
  }

  std::mutex mutex_;
  std::unique_ptr<Backend> plain_;
  MakeGraph make_graph_;
  double cutoff_;
  int64_t max_neighbors_;
  std::list<Size> sizes_;
  bool failed_ = false;
};

}    // namespace

std::unique_ptr<Backend> through_graphs(std::unique_ptr<Backend> plain, MakeGraph make_graph,
                                        const Metadata &metadata) {
  return std::make_unique<CapturedBackend>(std::move(plain), std::move(make_graph), metadata);
}

}    // namespace orb_export
