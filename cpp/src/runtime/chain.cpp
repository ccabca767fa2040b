// Read python/orb_export/model/chain.py first: names and shapes are those of the steps there.
#include "chain.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/empty_like.h>
#include <ATen/ops/full_like.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>
#include <vector>

#include "../ops/matmul.h"
#include "tensors.h"

namespace orb_export {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

struct Chunk {
  int64_t first, count;
  Tensor of(const Tensor &rows) const { return rows.narrow(0, first, count); }
};

Tensor product(const Tensor &rows, const Tensor &matrix) {
  const bool onednn = rows.is_cpu() && rows.scalar_type() == at::kFloat;
  return onednn ? matmul(rows, matrix, std::nullopt) : at::mm(rows, matrix);
}

// One evaluation: what its steps leave for later ones.
class Walk {
 public:
  Walk(Steps &steps, int64_t layers, const Plan &plan, const Tensors &inputs, RowExchange &exchange);
  // Outputs of `readout.evaluate`; with `keep`, what the backward pass needs is kept.
  Tensors forward(bool keep);
  // Edge gradient (E, 3) of the network, after forward(true), from g_latent_sum (C).
  Tensor backward(const Tensor &g_latent);
  // That of the repulsion's sum, after forward().
  const Tensor &repulsion_gradient() const { return repulsion_gradient_; }

 private:
  void encode_edges(const at::TensorOptions &options, int64_t channels);
  void sum_messages(int64_t layer, bool needed_again);
  void sum_message_gradients(int64_t layer, Tensor &g_x);
  Tensors message(int64_t layer, const Tensor &e, const Chunk &chunk);
  Tensors message_vjp(int64_t layer, const Tensor &e, const Tensor &g_next, const Chunk &chunk);
  Tensor edge_stream(int64_t layer, const Chunk &chunk);
  Tensor edge_stream_gradient(int64_t layer, const Chunk &chunk);
  std::pair<Tensor, Tensor> projected(int64_t layer);
  Tensor over_processes(const Tensor &sum);

  Steps &steps_;
  const int64_t layers_;
  const Plan &plan_;
  RowExchange &exchange_;
  const Tensor numbers_, centers_, neighbors_, vectors_, charge_, spin_;
  std::vector<Chunk> chunks_;
  // by layer: node stream with the layer's shift, sums of its messages, edge stream where it is stored, and
  // what atoms give to edges; then the gradients of the sums
  Tensors x_, received_, sent_, stream_;
  std::vector<std::pair<Tensor, Tensor>> projected_;
  Tensors g_received_, g_sent_;
  Tensor envelope_, repulsion_, repulsion_gradient_;
  Tensor g_stream_, g_envelope_, g_vectors_;
};

Walk::Walk(Steps &steps, int64_t layers, const Plan &plan, const Tensors &inputs, RowExchange &exchange)
    : steps_(steps),
      layers_(layers),
      plan_(plan),
      exchange_(exchange),
      numbers_(inputs[0]),
      centers_(inputs[1]),
      neighbors_(inputs[2]),
      vectors_(inputs[3]),
      charge_(inputs[4]),
      spin_(inputs[5]),
      x_(static_cast<size_t>(layers)),
      received_(x_.size()),
      sent_(x_.size()),
      stream_(x_.size()),
      projected_(x_.size()),
      g_received_(x_.size()),
      g_sent_(x_.size()) {
  for (int64_t first = 0; first < centers_.size(0); first += plan.chunk)
    chunks_.push_back({first, std::min(plan.chunk, centers_.size(0) - first)});
}

Tensors Walk::forward(bool keep) {
  const Tensors encoded = steps_.run("nodes.encode", 0, {numbers_, charge_, spin_});
  Tensor x = encoded[0];
  const Tensor &shifts = encoded[1], &references = encoded[2];
  encode_edges(x.options(), x.size(1));
  for (int64_t l = 0; l < layers_; ++l) {
    x_[l] = x + shifts[l];
    exchange_.forward(x_[l]);
    // messages are computed again for the streams of higher layers, or of the backward pass, that are not
    // stored
    sum_messages(l, keep ? plan_.recomputes() : !plan_.has_stream());
    x = steps_.run("layer.update", l, {x_[l], received_[l], sent_[l]})[0];
    if (keep) continue;
    received_[l] = sent_[l] = x_[l] = Tensor();
  }
  const Tensor latent = over_processes(x.to(at::kDouble).sum(0));
  const Tensor n_atoms = over_processes(at::full_like(charge_, x.size(0)));
  return steps_.run("readout.evaluate", 0,
                    {x, latent, over_processes(references.sum()), over_processes(repulsion_), n_atoms});
}

void Walk::encode_edges(const at::TensorOptions &options, int64_t channels) {
  const int64_t n_edges = centers_.size(0);
  envelope_ = at::empty({n_edges, 1}, options);
  if (plan_.has_stream()) stream_[0] = at::empty({n_edges, channels}, options);
  repulsion_ = at::zeros_like(charge_);
  repulsion_gradient_ = at::zeros_like(vectors_);
  for (const Chunk &chunk : chunks_) {
    const Tensors out = steps_.run("edges.encode", 0,
                                   {numbers_, chunk.of(centers_), chunk.of(neighbors_), chunk.of(vectors_)});
    if (plan_.has_stream()) chunk.of(stream_[0]).copy_(out[0]);
    chunk.of(envelope_).copy_(out[1]);
    repulsion_ += out[2];
    chunk.of(repulsion_gradient_).copy_(out[3]);
  }
}

// Sums the messages of a layer over edges, and moves the stored edge stream to the next one.
void Walk::sum_messages(int64_t layer, bool needed_again) {
  received_[layer] = at::zeros_like(x_[layer]);
  sent_[layer] = at::zeros_like(x_[layer]);
  const bool advances = plan_.has_stream() && layer + 1 < layers_;
  Tensor next;
  if (advances) next = plan_.kept[layer] ? at::empty_like(stream_[layer]) : stream_[layer];
  for (const Chunk &chunk : chunks_) {
    const Tensors out = message(layer, edge_stream(layer, chunk), chunk);
    received_[layer].index_add_(0, chunk.of(neighbors_), out[1]);
    sent_[layer].index_add_(0, chunk.of(centers_), out[2]);
    if (advances) chunk.of(next).copy_(out[0]);
  }
  if (advances) {
    if (!plan_.kept[layer]) stream_[layer] = Tensor();
    stream_[layer + 1] = next;
  }
  if (!needed_again) projected_[layer] = {};
  exchange_.reverse_add(received_[layer]);
}

Tensors Walk::message(int64_t layer, const Tensor &e, const Chunk &chunk) {
  const auto [as_center, as_neighbor] = projected(layer);
  return steps_.run(
      "layer.message", layer,
      {e, chunk.of(envelope_), as_center, as_neighbor, chunk.of(centers_), chunk.of(neighbors_)});
}

Tensors Walk::message_vjp(int64_t layer, const Tensor &e, const Tensor &g_next, const Chunk &chunk) {
  const auto [as_center, as_neighbor] = projected(layer);
  return steps_.run("layer.message_vjp", layer,
                    {e, chunk.of(envelope_), as_center, as_neighbor, chunk.of(centers_), chunk.of(neighbors_),
                     g_next, g_received_[layer], g_sent_[layer]});
}

// The edge stream of a chunk before a layer: stored, or from the nearest layer below where it is, or from the
// vectors.
Tensor Walk::edge_stream(int64_t layer, const Chunk &chunk) {
  if (stream_[layer].defined()) return chunk.of(stream_[layer]);
  if (layer > 0) return message(layer - 1, edge_stream(layer - 1, chunk), chunk)[0];
  return steps_.run("edges.encode", 0,
                    {numbers_, chunk.of(centers_), chunk.of(neighbors_), chunk.of(vectors_)})[0];
}

std::pair<Tensor, Tensor> Walk::projected(int64_t layer) {
  auto &pair = projected_[layer];
  if (!pair.first.defined()) {
    const auto [center, neighbor] = steps_.projections(layer);
    pair = {product(x_[layer], center), product(x_[layer], neighbor)};
  }
  return pair;
}

Tensor Walk::backward(const Tensor &g_latent) {
  Tensor g_x = g_latent.to(x_[0].scalar_type()).expand_as(x_[0]).contiguous();
  g_vectors_ = at::zeros_like(vectors_);
  g_envelope_ = at::zeros_like(envelope_);
  for (int64_t l = layers_ - 1; l >= 0; --l) {
    const Tensors out = steps_.run("layer.update_vjp", l, {x_[l], received_[l], sent_[l], g_x});
    received_[l] = sent_[l] = Tensor();
    g_x = out[0];
    g_received_[l] = out[1];
    g_sent_[l] = out[2];
    exchange_.forward(g_received_[l]);
    sum_message_gradients(l, g_x);
    exchange_.reverse_add(g_x);
  }
  return g_vectors_;
}

// Goes back through the messages of a layer, and moves the gradient of the edge stream to the layer below.
void Walk::sum_message_gradients(int64_t layer, Tensor &g_x) {
  const auto [as_center, as_neighbor] = projected(layer);
  Tensor g_center = at::zeros_like(as_center), g_neighbor = at::zeros_like(as_neighbor);
  const Tensor next = layer + 1 < layers_ ? g_stream_ : stream_[layer];
  for (const Chunk &chunk : chunks_) {
    Tensors out = message_vjp(layer, edge_stream(layer, chunk), edge_stream_gradient(layer, chunk), chunk);
    chunk.of(g_envelope_) += out[1];
    g_center.index_add_(0, chunk.of(centers_), out[2]);
    g_neighbor.index_add_(0, chunk.of(neighbors_), out[2]);
    out[2] = Tensor();    // large, and no longer needed
    // the last layer's edge stream has been read for the last time: its place is taken by the gradient
    if (next.defined()) chunk.of(next).copy_(out[0]);
    if (layer == 0)
      chunk.of(g_vectors_)
          .copy_(steps_.run("edges.encode_vjp", 0, {chunk.of(vectors_), out[0], chunk.of(g_envelope_)})[0]);
  }
  g_stream_ = next;
  stream_[layer] = Tensor();
  projected_[layer] = {};
  const auto [center, neighbor] = steps_.projections(layer);
  g_x = g_x + product(g_center, center.t()) + product(g_neighbor, neighbor.t());
}

// Gradient with respect to the edge stream after a layer.
Tensor Walk::edge_stream_gradient(int64_t layer, const Chunk &chunk) {
  if (layer + 1 == layers_)
    return at::zeros({chunk.count, x_[layer].size(1)}, x_[layer].options());    // nobody reads that stream
  if (g_stream_.defined()) return chunk.of(g_stream_);
  Tensors e = {edge_stream(layer + 1, chunk)};
  for (int64_t l = layer + 1; l + 1 < layers_; ++l) e.push_back(message(l, e.back(), chunk)[0]);
  Tensor g = edge_stream_gradient(layers_ - 1, chunk);
  for (int64_t l = layers_ - 1; l > layer; --l) {
    g = message_vjp(l, e.back(), g, chunk)[0];
    e.pop_back();
  }
  return g;
}

Tensor Walk::over_processes(const Tensor &sum) {
  const Tensor host = sum.to(at::kCPU).contiguous();
  exchange_.sum(host.mutable_data_ptr<double>(), host.numel());
  return host.to(sum.device());
}

}    // namespace

Chain::Chain(std::unique_ptr<Steps> steps, const Metadata &metadata, int device)
    : steps_(std::move(steps)), metadata_(metadata), device_(torch_device(device)) {}

RawOutputs Chain::run(const Graph &graph, const Plan &plan, bool forces, RowExchange &exchange) {
  const at::NoGradGuard no_grad;
  const bool direct = metadata_.kind == "direct";
  Walk walk(*steps_, metadata_.layers, plan, to_tensors(graph, device_), exchange);
  const Tensors out = walk.forward(forces && !direct);
  const Tensor &energy = out[0], &g_repulsion = out[1], &confidence = out[2];
  Tensor gradient;
  if (forces) {
    gradient = g_repulsion * walk.repulsion_gradient();
    if (!direct) gradient += walk.backward(out[3]);
  }
  Tensors outputs = {energy, gradient, confidence};
  if (direct) outputs.insert(outputs.end(), out.begin() + 3, out.end());
  return to_outputs(outputs, graph, metadata_);
}

}    // namespace orb_export
