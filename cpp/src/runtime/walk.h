// One evaluation of the network over the steps of python/orb_export/model/chain.py: names and shapes are
// those there. Rows are atoms, own ones first, then ghosts; x of ghosts comes from their processes before
// each layer but the first, which every process has from the elements alone.
#pragma once

#include <ATen/core/Tensor.h>
#include <c10/core/Device.h>

#include <vector>

#include "collective.h"
#include "plan.h"
#include "steps.h"

namespace orb_export {

class Walk {
 public:
  // `inputs`: those of the contract, on the device. Of arrays of the `graph` only `numbers` are read.
  Walk(Steps &steps, const Metadata &metadata, const Plan &plan, const Graph &graph,
       const std::vector<at::Tensor> &inputs, Collective &collective);
  // x of own atoms (n_own, C) after the last layer. `keep`: backward() will follow.
  at::Tensor forward(bool keep);
  // Adds the gradient of the network's energy with respect to the vectors to `gradient` (E, 3), from that
  // with respect to the latent sum (C).
  void backward(const at::Tensor &g_latent, at::Tensor &gradient);

  // After forward(), of own atoms and of edges with own centers; float64.
  const at::Tensor &references() const { return references_; }                    // (n_own)
  const at::Tensor &repulsion() const { return repulsion_; }                      // (E), 0 for other edges
  const at::Tensor &repulsion_gradient() const { return repulsion_gradient_; }    // (E, 3) of their sum
  const at::Tensor &centers() const { return centers_; }

 private:
  using Tensor = at::Tensor;
  using Tensors = std::vector<at::Tensor>;
  struct Chunk {
    int64_t first, count;
    Tensor centers, neighbors, vectors, envelope;
    Tensors encoder;    // what the encoder of edges keeps
    Tensor g_stream, g_envelope;
    Tensor of(const Tensor &rows) const { return rows.narrow(0, first, count); }
  };
  // What later steps need of a layer; by chunk where it is of edges.
  struct LayerState {
    Tensor x;                         // all rows, with the shift of the layer
    Tensor received, sent;            // of own atoms
    Tensors update;                   // what the update keeps
    Tensor as_center, as_neighbor;    // what atoms give to edges
    Tensors stream;                   // e before the layer
    std::vector<Tensors> messages;    // what the messages keep
    Tensor g_received, g_sent;
  };

  // walk.cpp
  Tensor encode_nodes();
  void encode_edges(bool keep);
  void sum_messages(int64_t layer, bool keep);
  Tensor update(int64_t layer, bool keep);
  Tensors message(int64_t layer, const Tensor &e, size_t chunk, bool keep);
  Tensor edge_stream(int64_t layer, size_t chunk);
  void project(LayerState &state, int64_t layer);
  Tensor with_ghosts(const Tensor &own, int64_t rows) const;
  void fill_ghosts(Tensor &rows);
  void gather_ghosts(Tensor &rows);

  // walk_backward.cpp
  void update_vjp(int64_t layer, Tensor &g_x);
  void message_gradients(int64_t layer, Tensor &g_x, Tensor &gradient);
  Tensors message_vjp(int64_t layer, const Tensor &g_next, size_t chunk, Tensors kept);
  Tensor edge_stream_gradient(int64_t layer, size_t chunk);
  void encode_vjp(const Tensor &g_e, Chunk &chunk, Tensor &gradient);

  Steps &steps_;
  const int64_t layers_, channels_;
  const Plan &plan_;
  const Graph &graph_;
  Collective &collective_;
  const int64_t n_rows_, n_own_, n_centers_;    // n_centers: atoms that may be centers
  const at::TensorOptions options_;             // of numbers of the network
  Tensor numbers_, centers_, neighbors_, vectors_, charge_, spin_;
  Tensor shifts_, references_, repulsion_, repulsion_gradient_;
  std::vector<Chunk> chunks_;
  std::vector<LayerState> states_;
};

// rows . matrix, through oneDNN where that is faster
at::Tensor product(const at::Tensor &rows, const at::Tensor &matrix);

}    // namespace orb_export
