#include "walk.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/empty.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mm.h>
#include <ATen/ops/zeros.h>

#include <algorithm>

#include "../ops/matmul.h"
#include "add_rows.h"
#include "tensors.h"

namespace orb_export {

using at::Tensor;

Tensor product(const Tensor &rows, const Tensor &matrix) {
  const bool onednn = rows.is_cpu() && rows.scalar_type() == at::kFloat;
  return onednn ? matmul(rows, matrix, std::nullopt) : at::mm(rows, matrix);
}

Walk::Walk(Steps &steps, const Metadata &metadata, const Plan &plan, const Graph &graph,
           const Tensors &inputs, Collective &collective)
    : steps_(steps),
      layers_(metadata.layers),
      channels_(metadata.channels),
      plan_(plan),
      graph_(graph),
      collective_(collective),
      n_rows_(graph.n_atoms),
      n_own_(graph.n_own()),
      n_centers_(graph.redundant ? n_rows_ : n_own_),
      options_(inputs[0].options().dtype(metadata.dtype == "float64" ? at::kDouble : at::kFloat)),
      states_(static_cast<size_t>(layers_)) {
  numbers_ = inputs[0];
  centers_ = inputs[1];
  neighbors_ = inputs[2];
  vectors_ = inputs[3];
  charge_ = inputs[4];
  spin_ = inputs[5];
  // all of about the same size: a small rest would be slow
  const int64_t n_chunks = (graph.n_edges + plan.chunk - 1) / plan.chunk;
  for (int64_t k = 0; k < n_chunks; ++k) {
    const int64_t first = graph.n_edges * k / n_chunks, count = graph.n_edges * (k + 1) / n_chunks - first;
    chunks_.push_back({first,
                       count,
                       centers_.narrow(0, first, count),
                       neighbors_.narrow(0, first, count),
                       vectors_.narrow(0, first, count),
                       {},
                       {},
                       {},
                       {}});
  }
  for (LayerState &state : states_) {
    state.stream.resize(chunks_.size());
    state.messages.resize(chunks_.size());
  }
}

Tensor Walk::forward(bool keep) {
  Tensor x = encode_nodes();
  encode_edges(keep);
  for (int64_t l = 0; l < layers_; ++l) {
    LayerState &state = states_[l];
    state.x = with_ghosts(x + shifts_[l], n_rows_);
    if (l > 0) fill_ghosts(state.x);
    sum_messages(l, keep);
    x = update(l, keep);
  }
  return x;
}

// x of all rows before the first layer. An atom enters by its element alone, so each element is encoded once.
Tensor Walk::encode_nodes() {
  std::vector<int64_t> row_of(256, -1), elements, index;
  for (int64_t i = 0; i < n_rows_; ++i) {
    int64_t &row = row_of.at(static_cast<size_t>(graph_.numbers[i]));
    if (row < 0) {
      row = static_cast<int64_t>(elements.size());
      elements.push_back(graph_.numbers[i]);
    }
    index.push_back(row);
  }
  if (elements.empty()) elements.push_back(1);    // for the shapes
  const auto on_device = [&](std::vector<int64_t> &list) {
    return at::from_blob(list.data(), {static_cast<int64_t>(list.size())}, at::kLong).to(numbers_.device());
  };
  const Tensors encoded = steps_.run("nodes.encode", 0, {on_device(elements), charge_, spin_});
  const Tensor rows = on_device(index);
  shifts_ = encoded[1];
  references_ = encoded[2].index_select(0, rows.narrow(0, 0, n_own_));
  return encoded[0].index_select(0, rows);
}

void Walk::encode_edges(bool keep) {
  keep = keep && plan_.kept[0] == Keep::activations;
  const auto doubles = options_.dtype(at::kDouble);
  repulsion_ = at::zeros({graph_.n_edges}, doubles);
  repulsion_gradient_ = at::zeros({graph_.n_edges, 3}, doubles);
  const int64_t n_counted = graph_.n_edges - graph_.n_ghost_edges;
  for (size_t k = 0; k < chunks_.size(); ++k) {
    Chunk &chunk = chunks_[k];
    const Tensors repulsion =
        steps_.run("edges.repulsion", 0, {numbers_, chunk.centers, chunk.neighbors, chunk.vectors});
    const int64_t count = std::clamp<int64_t>(n_counted - chunk.first, 0, chunk.count);
    repulsion_.narrow(0, chunk.first, count).copy_(repulsion[0].narrow(0, 0, count));
    repulsion_gradient_.narrow(0, chunk.first, count).copy_(repulsion[1].narrow(0, 0, count));
    Tensors out = steps_.run(keep ? "edges.encode_keep" : "edges.encode", 0, {chunk.vectors});
    chunk.envelope = out[1];
    if (plan_.has_stream()) states_[0].stream[k] = out[0];
    if (keep) chunk.encoder = {out.begin() + 2, out.end()};
  }
}

// Sums the messages of a layer over edges, and moves the stored edge stream to the next one.
void Walk::sum_messages(int64_t layer, bool keep) {
  LayerState &state = states_[layer];
  const Keep kept = keep ? plan_.kept[layer] : Keep::nothing;
  const bool streams = plan_.has_stream();
  Tensor received = at::zeros({n_rows_, channels_}, options_),
         sent = at::zeros({n_centers_, channels_}, options_);
  for (size_t k = 0; k < chunks_.size(); ++k) {
    const Tensor e = edge_stream(layer, k);
    if (kept != Keep::edges) state.stream[k] = Tensor();
    Tensors out = message(layer, e, k, kept == Keep::activations);
    add_rows(received, chunks_[k].neighbors, out[1]);
    add_rows(sent, chunks_[k].centers, out[2]);
    if (streams && layer + 1 < layers_) states_[layer + 1].stream[k] = out[0];
    if (kept == Keep::activations) state.messages[k] = {out.begin() + 3, out.end()};
  }
  // messages are computed again for the streams of higher layers, or of the backward pass, that are not
  // stored
  if (keep ? !plan_.recomputes() : streams) state.as_center = state.as_neighbor = Tensor();
  // redundant: all edges of own atoms are here
  if (!graph_.redundant) gather_ghosts(received);
  state.received = received.narrow(0, 0, n_own_);
  state.sent = sent.narrow(0, 0, n_own_);
}

// x of own atoms after a layer.
Tensor Walk::update(int64_t layer, bool keep) {
  LayerState &state = states_[layer];
  if (n_own_ == 0) return at::empty({0, channels_}, options_);
  Tensors out = steps_.run("layer.update", layer, {state.x.narrow(0, 0, n_own_), state.received, state.sent});
  const bool whole = keep && plan_.kept[layer] == Keep::activations;
  if (whole) state.update = {out.begin() + 1, out.end()};
  if (!keep || whole) state.received = state.sent = Tensor();
  if (!keep ? plan_.has_stream() : whole && !plan_.recomputes()) state.x = Tensor();
  return out[0];
}

Walk::Tensors Walk::message(int64_t layer, const Tensor &e, size_t k, bool keep) {
  LayerState &state = states_[layer];
  project(state, layer);
  const Chunk &chunk = chunks_[k];
  return steps_.run(keep ? "layer.message_keep" : "layer.message", layer,
                    {e, chunk.envelope, state.as_center, state.as_neighbor, chunk.centers, chunk.neighbors});
}

// The edge stream of a chunk before a layer: stored, or from the nearest layer below where it is, or from the
// vectors.
Tensor Walk::edge_stream(int64_t layer, size_t k) {
  const Tensor &stored = states_[layer].stream[k];
  if (stored.defined()) return stored;
  if (layer > 0) return message(layer - 1, edge_stream(layer - 1, k), k, false)[0];
  return steps_.run("edges.encode", 0, {chunks_[k].vectors})[0];
}

void Walk::project(LayerState &state, int64_t layer) {
  if (state.as_center.defined()) return;
  const auto [center, neighbor] = steps_.projections(layer);
  state.as_center = product(state.x.narrow(0, 0, n_centers_), center);
  state.as_neighbor = product(state.x, neighbor);
}

// Rows of own atoms followed by zeros for ghosts.
Tensor Walk::with_ghosts(const Tensor &own, int64_t rows) const {
  if (own.size(0) == rows) return own.contiguous();
  Tensor result = at::zeros({rows, own.size(1)}, own.options());
  result.narrow(0, 0, own.size(0)).copy_(own);
  return result;
}

void Walk::fill_ghosts(Tensor &rows) {
  if (collective_.alone()) return;
  const Tensor host = rows.to(at::kCPU).contiguous();
  collective_.forward(host.mutable_data_ptr(), host.size(1), static_cast<int>(host.element_size()));
  if (!host.is_same(rows)) rows.copy_(host);
}

void Walk::gather_ghosts(Tensor &rows) {
  if (collective_.alone()) return;
  const Tensor host = rows.to(at::kCPU).contiguous();
  collective_.reverse_add(host.mutable_data_ptr(), host.size(1), static_cast<int>(host.element_size()));
  if (!host.is_same(rows)) rows.copy_(host);
}

}    // namespace orb_export
