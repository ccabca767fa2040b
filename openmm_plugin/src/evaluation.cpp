#include "evaluation.h"

#include <openmm/OpenMMException.h>

#include <algorithm>
#include <cmath>

#include "timings.h"
#include "units.h"

namespace orb_export::openmm {
namespace {

[[noreturn]] void fail(const std::string &what) { throw OpenMM::OpenMMException("OrbV3Force: " + what); }

}    // namespace

Evaluation::Evaluation(const OrbV3Force &force)
    : particles_(force.getParticles()),
      numbers_(force.getAtomicNumbers().begin(), force.getAtomicNumbers().end()),
      periodic_(force.getPeriodicity()),
      scale_(force.getScaleParameter()),
      charge_(force.hasChargeAndSpin() ? force.getChargeParameter() : ""),
      spin_(force.hasChargeAndSpin() ? force.getSpinParameter() : "") {
  try {
    potential_ =
        open_potential(force.getArtefact(), force.getSha256(), {force.getDevice(), force.getThreads(), 0});
  } catch (const std::exception &failure) {
    fail(failure.what());
  }
  check_elements();
  check_charge_and_spin(force);
  const auto &model = potential_->metadata();
  builder_ = std::make_unique<GraphBuilder>(model.cutoff, model.max_neighbors,
                                            kAngstromPerNm * force.getSkin(), force.getThreads());
}

void Evaluation::check_elements() const {
  const auto &model = potential_->metadata();
  for (size_t k = 0; k < numbers_.size(); ++k)
    if (!std::count(model.elements.begin(), model.elements.end(), numbers_[k]))
      fail("particle " + std::to_string(particles_[k]) + " has atomic number " + std::to_string(numbers_[k]) +
           ", an element that model `" + model.model + "` does not know");
}

void Evaluation::check_charge_and_spin(const OrbV3Force &force) const {
  const auto &model = potential_->metadata();
  if (model.has_charge_spin && !force.hasChargeAndSpin())
    fail("model `" + model.model +
         "` depends on the total charge and the spin multiplicity: give both, `charge` and `spin`");
  if (!model.has_charge_spin && force.hasChargeAndSpin())
    fail("model `" + model.model + "` does not depend on charge or spin, but `charge` and `spin` are given");
}

const Result &Evaluation::evaluate(OpenMM::ContextImpl &context, const std::vector<OpenMM::Vec3> &positions,
                                   const OpenMM::Vec3 *box, const Request &wanted) {
  gather(positions, box);
  if (!charge_.empty()) {
    current_.charge = context.getParameter(charge_);
    current_.spin = context.getParameter(spin_);
  }
  auto *entry = cache_.find(current_);
  if (!entry || !covers(entry->held, wanted)) {
    const bool forces = wanted.forces || entry || !energy_suffices();
    if (!entry) entry = &cache_.replace_older(current_);
    entry->valid = false;
    entry->held = {forces, forces};
    entry->result = compute(entry->configuration, entry->held);
    entry->valid = true;
  }
  entry->wanted_forces = entry->wanted_forces || wanted.forces;
  return entry->result;
}

// Where OpenMM wants only the energy of a new configuration, as Monte Carlo moves do: the one after forces is
// where the moves start, and its forces are needed if they are rejected; what follows is a trial. Forces of
// a direct model are next to free.
bool Evaluation::energy_suffices() const {
  const auto &before = cache_.latest();
  return before.valid && !before.wanted_forces && potential_->metadata().kind == "conservative";
}

void Evaluation::gather(const std::vector<OpenMM::Vec3> &positions, const OpenMM::Vec3 *box) {
  current_.positions.resize(3 * particles_.size());
  for (size_t k = 0; k < particles_.size(); ++k) {
    const OpenMM::Vec3 &position = positions[static_cast<size_t>(particles_[k])];
    for (int d = 0; d < 3; ++d) {
      if (!std::isfinite(position[d]))
        fail("the position of particle " + std::to_string(particles_[k]) + " is not finite");
      current_.positions[3 * k + static_cast<size_t>(d)] = kAngstromPerNm * position[d];
    }
  }
  const bool boxed = periodic_[0] || periodic_[1] || periodic_[2];
  for (size_t entry = 0; boxed && entry < 9; ++entry)
    current_.box[entry] = kAngstromPerNm * box[entry / 3][static_cast<int>(entry % 3)];
}

const Edges &Evaluation::edges_of(const Configuration &configuration) {
  auto &spent = timings();
  const Stopwatch stopwatch(spent.graph_ns);
  const auto before = builder_->rebuilds();
  const auto &edges =
      builder_->update(configuration.positions.data(), static_cast<int64_t>(particles_.size()),
                       {configuration.box, periodic_});
  spent.graph_builds += builder_->rebuilds() - before;
  return edges;
}

Result Evaluation::compute(const Configuration &configuration, const Request &request) {
  const Edges *edges = nullptr;
  try {
    edges = &edges_of(configuration);
    Graph graph;
    graph.n_atoms = static_cast<int64_t>(particles_.size());
    graph.n_edges = edges->size();
    graph.numbers = numbers_.data();
    graph.centers = edges->centers.data();
    graph.neighbors = edges->neighbors.data();
    graph.vectors = edges->vectors.data();
    graph.positions = configuration.positions.data();
    graph.cell = configuration.box;
    graph.charge = configuration.charge;
    graph.spin = configuration.spin;
    return potential_->evaluate(graph, request);
  } catch (const std::exception &failure) {
    explain(failure.what(), edges);
  }
}

// The potential counts atoms in the order of the force; users count particles of the System.
void Evaluation::explain(const std::string &failure, const Edges *edges) const {
  for (int64_t e = 0; edges && e < edges->size(); ++e) {
    const double *v = edges->vectors.data() + 3 * e;
    if (v[0] == 0.0 && v[1] == 0.0 && v[2] == 0.0)
      fail("particles " + std::to_string(particles_[static_cast<size_t>(edges->centers[e])]) + " and " +
           std::to_string(particles_[static_cast<size_t>(edges->neighbors[e])]) + " are at the same place");
  }
  fail(failure);
}

}    // namespace orb_export::openmm
