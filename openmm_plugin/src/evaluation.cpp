#include "evaluation.h"

#include <openmm/OpenMMException.h>

#include <algorithm>
#include <cmath>

#include "units.h"

namespace orb_export::openmm {
namespace {

[[noreturn]] void fail(const std::string &what) { throw OpenMM::OpenMMException("OrbV3Force: " + what); }

}    // namespace

Evaluation::Evaluation(const OrbV3Force &force)
    : particles_(force.getParticles()),
      numbers_(force.getAtomicNumbers().begin(), force.getAtomicNumbers().end()),
      periodic_(force.getPeriodicity()) {
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

const Result &Evaluation::evaluate(const std::vector<OpenMM::Vec3> &positions, const OpenMM::Vec3 *box,
                                   double charge, double spin) {
  gather(positions, box);
  current_.charge = charge;
  current_.spin = spin;
  if (!has_result_ || !(current_ == evaluated_)) {
    has_result_ = false;
    result_ = compute();
    std::swap(current_, evaluated_);
    has_result_ = true;
  }
  return result_;
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

Result Evaluation::compute() {
  const Edges *edges = nullptr;
  try {
    edges = &builder_->update(current_.positions.data(), static_cast<int64_t>(particles_.size()),
                              {current_.box, periodic_});
    Graph graph;
    graph.n_atoms = static_cast<int64_t>(particles_.size());
    graph.n_edges = edges->size();
    graph.numbers = numbers_.data();
    graph.centers = edges->centers.data();
    graph.neighbors = edges->neighbors.data();
    graph.vectors = edges->vectors.data();
    graph.positions = current_.positions.data();
    graph.cell = current_.box;
    graph.charge = current_.charge;
    graph.spin = current_.spin;
    return potential_->evaluate(graph);
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
