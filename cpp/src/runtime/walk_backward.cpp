#include <ATen/TensorOperators.h>
#include <ATen/ops/zeros.h>
#include <ATen/ops/zeros_like.h>

#include "add_rows.h"
#include "walk.h"

namespace orb_export {

using at::Tensor;

void Walk::backward(const Tensor &g_latent, Tensor &gradient) {
  Tensor g_x = g_latent.to(options_.dtype()).expand({n_own_, channels_}).contiguous();
  for (Chunk &chunk : chunks_) chunk.g_envelope = at::zeros_like(chunk.envelope);
  for (int64_t l = layers_ - 1; l >= 0; --l) {
    update_vjp(l, g_x);
    message_gradients(l, g_x, gradient);
    LayerState &state = states_[l];
    // the gradient of an edge stream that is nowhere stored is computed again, from the highest layer
    if (plan_.has_stream())
      state.x = state.as_center = state.as_neighbor = state.g_received = state.g_sent = Tensor();
  }
}

// From g_x of own atoms after the layer to its share before it, and to the gradients of the layer's sums.
void Walk::update_vjp(int64_t layer, Tensor &g_x) {
  LayerState &state = states_[layer];
  Tensor g_received = g_x, g_sent = g_x;    // of no rows, if there are no atoms
  if (n_own_ > 0) {
    if (state.update.empty()) {
      const Tensors out =
          steps_.run("layer.update", layer, {state.x.narrow(0, 0, n_own_), state.received, state.sent});
      state.update = {out.begin() + 1, out.end()};
    }
    const Tensors &kept = state.update;
    const Tensors out = steps_.run("layer.update_vjp", layer, {kept[0], kept[1], kept[2], g_x});
    g_x = out[0];
    g_received = out[1];
    g_sent = out[2];
  }
  state.update.clear();
  state.received = state.sent = Tensor();
  // redundant: the sums of ghosts are differentiated by their own process
  state.g_received = with_ghosts(g_received, n_rows_);
  state.g_sent = with_ghosts(g_sent, n_centers_);
  if (!graph_.redundant) fill_ghosts(state.g_received);
}

// Goes back through the messages of a layer, and moves the gradient of the edge stream to the layer below.
// From the update's share in g_x of own atoms to all of it; the first layer's is not needed.
void Walk::message_gradients(int64_t layer, Tensor &g_x, Tensor &gradient) {
  LayerState &state = states_[layer];
  const auto [center, neighbor] = steps_.projections(layer);
  const int64_t hidden = center.size(1);
  Tensor g_center, g_neighbor;
  if (layer > 0) {
    g_center = at::zeros({n_centers_, hidden}, options_);
    g_neighbor = at::zeros({n_rows_, hidden}, options_);
  }
  for (size_t k = 0; k < chunks_.size(); ++k) {
    Chunk &chunk = chunks_[k];
    Tensors kept = std::move(state.messages[k]);
    const Tensor g_next = edge_stream_gradient(layer, k);
    Tensors out = message_vjp(layer, g_next, k, std::move(kept));
    state.stream[k] = Tensor();
    chunk.g_envelope += out[1];
    if (layer > 0) {
      add_rows(g_center, chunk.centers, out[2]);
      add_rows(g_neighbor, chunk.neighbors, out[2]);
      out[2] = Tensor();    // large, and no longer needed
    } else {
      encode_vjp(out[0], chunk, gradient);
    }
    if (plan_.has_stream()) chunk.g_stream = out[0];
  }
  if (layer == 0) return;
  Tensor all = product(g_neighbor, neighbor.t());
  all.narrow(0, 0, n_centers_) += product(g_center, center.t());
  all.narrow(0, 0, n_own_) += g_x;
  gather_ghosts(all);
  g_x = all.narrow(0, 0, n_own_);
}

Walk::Tensors Walk::message_vjp(int64_t layer, const Tensor &g_next, size_t k, Tensors kept) {
  if (kept.empty()) {
    const Tensors out = message(layer, edge_stream(layer, k), k, true);
    kept = {out.begin() + 3, out.end()};
  }
  const LayerState &state = states_[layer];
  const Chunk &chunk = chunks_[k];
  return steps_.run("layer.message_vjp", layer,
                    {chunk.envelope, chunk.centers, chunk.neighbors, kept[0], kept[1], kept[2], kept[3],
                     g_next, state.g_received, state.g_sent});
}

// Gradient with respect to the edge stream after a layer.
Tensor Walk::edge_stream_gradient(int64_t layer, size_t k) {
  const Tensor none = at::zeros({chunks_[k].count, channels_}, options_);
  if (layer + 1 == layers_) return none;    // nobody reads that stream
  if (chunks_[k].g_stream.defined()) return chunks_[k].g_stream;
  std::vector<Tensors> kept;
  Tensor e = edge_stream(layer + 1, k);
  for (int64_t l = layer + 1; l < layers_; ++l) {
    const Tensors out = message(l, e, k, true);
    kept.push_back({out.begin() + 3, out.end()});
    e = out[0];
  }
  Tensor g = none;
  for (int64_t l = layers_ - 1; l > layer; --l) {
    g = message_vjp(l, g, k, std::move(kept.back()))[0];
    kept.pop_back();
  }
  return g;
}

void Walk::encode_vjp(const Tensor &g_e, Chunk &chunk, Tensor &gradient) {
  Tensors kept = std::move(chunk.encoder);
  if (kept.empty()) {
    const Tensors out = steps_.run("edges.encode_keep", 0, {chunk.vectors});
    kept = {out.begin() + 2, out.end()};
  }
  chunk.of(gradient) +=
      steps_.run("edges.encode_vjp", 0, {chunk.vectors, kept[0], kept[1], kept[2], g_e, chunk.g_envelope})[0];
}

}    // namespace orb_export
