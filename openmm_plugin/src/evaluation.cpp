#include "evaluation.h"

#include <openmm/OpenMMException.h>

#include <algorithm>
#include <cmath>

#include "timings.h"
#include "units.h"

namespace orb_export::openmm {
namespace {

constexpr double kTooClose = 0.01;    // angstrom; trial steps of minimizers come closer than one would think

// Index of the GPU that a potential was opened on; -1: the CPU.
int gpu_of(const std::string &made_for, const std::string &asked_for) {
  if (made_for != "cuda") return -1;
  const auto colon = asked_for.find(':');
  return colon == std::string::npos ? 0 : std::stoi(asked_for.substr(colon + 1));
}

[[noreturn]] void fail(const std::string &what) { throw OpenMM::OpenMMException("OrbV3Force: " + what); }

}    // namespace

Evaluation::Evaluation(const OrbV3Force &force)
    : particles_(force.getParticles()),
      numbers_(force.getAtomicNumbers().begin(), force.getAtomicNumbers().end()),
      periodic_(force.getPeriodicity()),
      scale_(force.getScaleParameter()),
      charge_(force.hasChargeAndSpin() ? force.getChargeParameter() : ""),
      spin_(force.hasChargeAndSpin() ? force.getSpinParameter() : ""),
      limited_(force.getMemoryLimit() > 0) {
  try {
    potential_ =
        open_potential({force.getArtefact(), force.getSha256(), force.getContent()},
                       {force.getDevice(), force.getThreads(), force.getMemoryLimit(), force.getProgram()});
  } catch (const std::exception &failure) {
    fail(failure.what());
  }
  check_precision(force);
  check_elements();
  check_charge_and_spin(force);
  const auto &model = potential_->metadata();
  gpu_ = gpu_of(model.device, force.getDevice());
  builder_ = std::make_unique<GraphBuilder>(model.cutoff, model.max_neighbors,
                                            kAngstromPerNm * force.getSkin(), force.getThreads());
}

void Evaluation::check_precision(const OrbV3Force &force) const {
  const auto &wanted = force.getPrecision(), &actual = potential_->metadata().dtype;
  if (wanted != "auto" && wanted != actual)
    fail("`precision` is " + wanted + " but the artefact " + force.getArtefact() + " computes in " + actual +
         ": export it with --dtype " + wanted + ", or leave `precision` at auto");
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

double Evaluation::scale(OpenMM::ContextImpl &context) const {
  const double value = context.getParameter(scale_);
  if (!std::isfinite(value))
    fail("the parameter " + scale_ + " is " + std::to_string(value) + " but must be finite");
  return value;
}

const Result &Evaluation::evaluate(OpenMM::ContextImpl &context, const double *positions,
                                   const OpenMM::Vec3 *box, const Request &wanted) {
  take_positions(positions);
  take_conditions(context, box);
  auto *entry = cache_.find(current_);
  if (!entry || !covers(entry->held, wanted)) {
    const bool trial = !wanted.forces && !entry && is_trial();
    const bool forces = wanted.forces || entry || !trial || accepted_ > 0.5;
    if (!entry) {
      learn_from(cache_.older());
      entry = &cache_.replace_older(current_);
      entry->trial = trial;
    }
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
// a direct model are next to free, and without steps an artefact has no way to the energy alone.
bool Evaluation::is_trial() const {
  const auto &before = cache_.latest();
  const auto &model = potential_->metadata();
  return before.valid && !before.wanted_forces && model.kind == "conservative" && model.has_steps();
}

// Forces of a trial are needed if it is accepted: where most are, the gradient is computed at once.
void Evaluation::learn_from(const ResultCache::Entry &past) {
  constexpr double memory = 8.0;    // trials
  if (past.valid && past.trial) accepted_ += ((past.wanted_forces ? 1.0 : 0.0) - accepted_) / memory;
}

void Evaluation::take_positions(const double *positions) {
  current_.positions.resize(3 * particles_.size());
  for (size_t i = 0; i < current_.positions.size(); ++i) {
    if (!std::isfinite(positions[i]))
      fail("the position of particle " + std::to_string(particles_[i / 3]) + " is not finite");
    current_.positions[i] = kAngstromPerNm * positions[i];
  }
}

void Evaluation::take_conditions(OpenMM::ContextImpl &context, const OpenMM::Vec3 *box) {
  const bool boxed = periodic_[0] || periodic_[1] || periodic_[2];
  for (size_t entry = 0; boxed && entry < 9; ++entry) {
    const double component = box[entry / 3][static_cast<int>(entry % 3)];
    if (!std::isfinite(component)) fail("box vector " + std::to_string(entry / 3) + " is not finite");
    current_.box[entry] = kAngstromPerNm * component;
  }
  if (charge_.empty()) return;
  current_.charge = context.getParameter(charge_);
  current_.spin = context.getParameter(spin_);
}

// Along an open axis OpenMM's own shifts of molecules by box vectors matter, which only the host knows.
bool Evaluation::move_to_device(int index) {
  const bool images_along_all = periodic_[0] && periodic_[1] && periodic_[2];
  if (index != gpu_ || !images_along_all || limited_) return false;
  on_device_ = potential_->on_device(numbers_);
  return true;
}

const Result &Evaluation::evaluate_on_device(OpenMM::ContextImpl &context, const OpenMM::Vec3 *box,
                                             const Request &wanted) {
  take_conditions(context, box);
  const DeviceEvaluation::Conditions conditions = {{current_.box, periodic_}, current_.charge, current_.spin};
  try {
    if (const Result *known = on_device_->known(conditions, wanted)) return *known;
    return potential_->evaluate(*on_device_, conditions, wanted);
  } catch (const std::exception &failure) {
    fail(failure.what());
  }
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
  try {
    const auto &edges = edges_of(configuration);
    check_distances(edges);
    Graph graph;
    graph.n_atoms = static_cast<int64_t>(particles_.size());
    graph.n_edges = edges.size();
    graph.numbers = numbers_.data();
    graph.centers = edges.centers.data();
    graph.neighbors = edges.neighbors.data();
    graph.vectors = edges.vectors.data();
    graph.positions = configuration.positions.data();
    graph.cell = configuration.box;
    graph.charge = configuration.charge;
    graph.spin = configuration.spin;
    return potential_->evaluate(graph, request);
  } catch (const OpenMM::OpenMMException &) {
    throw;
  } catch (const std::exception &failure) {
    fail(failure.what());
  }
}

// Closer atoms than any physics brings together: most often two at one place, or a box in other units.
// Edges of one center are sorted by distance, so its first is enough. Indices are those of the System.
void Evaluation::check_distances(const Edges &edges) const {
  for (int64_t e = 0; e < edges.size(); ++e) {
    if (e > 0 && edges.centers[e] == edges.centers[e - 1]) continue;
    const double *v = edges.vectors.data() + 3 * e;
    const double distance = std::hypot(v[0], v[1], v[2]);
    if (distance >= kTooClose) continue;
    const auto center = std::to_string(particles_[static_cast<size_t>(edges.centers[e])]);
    const auto neighbor = std::to_string(particles_[static_cast<size_t>(edges.neighbors[e])]);
    if (distance == 0.0) fail("particles " + center + " and " + neighbor + " are at the same place");
    fail("particles " + center + " and " + neighbor + " are " + std::to_string(distance) +
         " angstrom apart, less than " + std::to_string(kTooClose) + ": the structure is broken");
  }
}

}    // namespace orb_export::openmm
