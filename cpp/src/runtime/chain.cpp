#include "chain.h"

#include <ATen/TensorOperators.h>
#include <ATen/ops/from_blob.h>
#include <ATen/ops/mv.h>
#include <ATen/ops/zeros.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <utility>

#include "add_rows.h"
#include "assemble.h"
#include "tensors.h"
#include "walk.h"

namespace orb_export {
namespace {

using at::Tensor;
using Tensors = std::vector<Tensor>;

Tensor on_host(const Tensor &tensor) { return tensor.to(at::kCPU, at::kDouble).contiguous(); }

const double *data(const Tensor &tensor) {
  return tensor.defined() ? tensor.const_data_ptr<double>() : nullptr;
}

// Sums over the atoms and edges of all processes, and what the energy head makes of them.
struct Energy {
  double references, repulsion, n_atoms;
  Tensor latent;      // (C), on the device
  Tensors outputs;    // of readout.total
  double total() const { return outputs[0].item<double>(); }
  double g_repulsion() const { return outputs[1].item<double>(); }
  const Tensor &g_latent() const { return outputs[2]; }
};

// One sum over processes; of direct models, that of the `forces` is a part of it. `x`: of own atoms.
Energy energy_of(Steps &steps, const Walk &walk, const Tensor &x, Collective &collective,
                 ForceSums *force_sums) {
  const int64_t n_own = x.size(0), channels = x.size(1);
  const Tensor latent = on_host(x.to(at::kDouble).sum(0));
  double *forces = reinterpret_cast<double *>(force_sums);
  std::vector<double> sums = {walk.references().sum().item<double>(), walk.repulsion().sum().item<double>(),
                              static_cast<double>(n_own)};
  sums.insert(sums.end(), data(latent), data(latent) + channels);
  if (forces) sums.insert(sums.end(), forces, forces + kForceSums);
  collective.sum(sums.data(), static_cast<int64_t>(sums.size()));
  if (forces) std::copy_n(sums.end() - kForceSums, kForceSums, forces);

  const auto doubles = x.options().dtype(at::kDouble);
  const auto scalar = [&](double value) { return at::zeros({}, doubles).fill_(value); };
  Energy energy = {sums[0], sums[1], sums[2], {}, {}};
  energy.latent = at::from_blob(&sums[kEnergySums], {channels}, at::kDouble).clone().to(x.device());
  if (energy.n_atoms > 0)
    energy.outputs = steps.run("readout.total", 0,
                               {energy.latent, scalar(sums[0]), scalar(sums[1]), scalar(energy.n_atoms)});
  return energy;
}

// One evaluation.
class Run {
 public:
  Run(Steps &steps, const Metadata &metadata, const Graph &graph, const Request &request,
      Collective &collective, Walk &walk)
      : steps_(steps),
        metadata_(metadata),
        graph_(graph),
        request_(request),
        collective_(collective),
        walk_(walk),
        assembly_(graph, metadata, request) {}

  Result result();

 private:
  bool direct() const { return metadata_.kind == "direct"; }
  void find_centroid();
  Energy energy(const Tensor &x);
  void add_edges(const Tensor &gradient);
  Tensor energies_of_atoms(const Tensor &x, const Energy &energy) const;

  Steps &steps_;
  const Metadata &metadata_;
  const Graph &graph_;
  const Request &request_;
  Collective &collective_;
  Walk &walk_;
  Assembly assembly_;
};

Result Run::result() {
  if (direct() && request_.forces && !has_cell(graph_)) find_centroid();
  const Tensor x = walk_.forward(request_.forces && !direct());
  Tensors of_atoms;    // confidence, and node forces of direct models
  if (graph_.n_own() > 0)
    for (const Tensor &output : steps_.run("readout.atoms", 0, {x})) of_atoms.push_back(on_host(output));
  if (direct() && request_.forces) {
    if (graph_.n_own() > 0) assembly_.add_node_forces(data(of_atoms[1]));
    add_edges(walk_.repulsion_gradient());    // its factor is 1, see DirectReadout
  }
  const Energy energy = this->energy(x);
  if (energy.n_atoms == 0.0) return Result();
  Totals totals = {energy.total(), energy.n_atoms};
  require_finite(&totals.energy, 1, "energy");
  if (!direct() && request_.forces) {
    Tensor gradient = walk_.repulsion_gradient() * energy.g_repulsion();
    walk_.backward(energy.g_latent(), gradient);
    add_edges(gradient);
    collective_.sum(reinterpret_cast<double *>(&assembly_.sums()), kForceSums);
  }
  Tensor stress, energies;
  if (direct()) {
    totals.force_offset = energy.outputs[3].item<double>();
    stress = on_host(energy.outputs[4]);
    totals.head_stress = data(stress);
  }
  if (request_.per_atom) energies = on_host(energies_of_atoms(x, energy));
  return assembly_.finish(totals, of_atoms.empty() ? nullptr : data(of_atoms[0]), data(energies));
}

void Run::find_centroid() {
  auto sums = assembly_.centroid_sums();
  collective_.sum(sums.data(), kCentroidSums);
  assembly_.set_centroid(sums);
}

Energy Run::energy(const Tensor &x) {
  const bool with_forces = direct() && request_.forces;
  return energy_of(steps_, walk_, x, collective_, with_forces ? &assembly_.sums() : nullptr);
}

// Their forces and virials, completed over processes.
void Run::add_edges(const Tensor &gradient) {
  assembly_.add_edges(data(on_host(gradient)));
  collective_.reverse_add(assembly_.edge_rows().data(), edge_row_width(request_), sizeof(double));
  assembly_.check();
}

// See EnergyHead.shares of heads.py; what is not the network's is each atom's own.
Tensor Run::energies_of_atoms(const Tensor &x, const Energy &energy) const {
  const double interaction = energy.total() - energy.references - energy.g_repulsion() * energy.repulsion;
  const Tensor from_mean = x.to(at::kDouble) - energy.latent / energy.n_atoms;
  Tensor repulsion = at::zeros({graph_.n_atoms}, from_mean.options());
  add_rows(repulsion, walk_.centers(), walk_.repulsion());
  return at::mv(from_mean, energy.g_latent()) + interaction / energy.n_atoms + walk_.references() +
         energy.g_repulsion() * repulsion.narrow(0, 0, graph_.n_own());
}

}    // namespace

Chain::Chain(std::unique_ptr<Steps> steps, const Metadata &metadata, int device)
    : steps_(std::move(steps)), metadata_(metadata), device_(torch_device(device)) {}

Result Chain::run(const Graph &graph, const Plan &plan, const Request &request, Collective &collective) {
  const at::NoGradGuard no_grad;
  Walk walk(*steps_, metadata_, plan, graph, to_tensors(graph, device_), collective);
  return Run(*steps_, metadata_, graph, request, collective, walk).result();
}

Tensors Chain::outputs(const Graph &on_host, const Tensors &inputs, const Plan &plan) {
  const at::NoGradGuard no_grad;
  const bool direct = metadata_.kind == "direct";
  Graph graph = on_host;
  graph.n_edges = inputs[1].size(0);
  Collective alone;
  Walk walk(*steps_, metadata_, plan, graph, inputs, alone);
  const Tensor x = walk.forward(!direct);
  const Tensors of_atoms = steps_->run("readout.atoms", 0, {x});
  const Energy energy = energy_of(*steps_, walk, x, alone, nullptr);
  Tensor gradient = walk.repulsion_gradient() * energy.outputs[1];
  if (!direct) walk.backward(energy.g_latent(), gradient);
  Tensors result = {energy.outputs[0], gradient, of_atoms[0], Tensor()};
  if (direct) result.insert(result.end(), {of_atoms[1], energy.outputs[3], energy.outputs[4]});
  return result;
}

}    // namespace orb_export
