#include "graph_checks.h"

#include <cmath>
#include <stdexcept>

namespace orb_export {
namespace {

// A host may round its cutoff; beyond this an edge can only come from another cutoff.
constexpr double kCutoffSlack = 1e-6;    // angstrom

[[noreturn]] void fail(const std::string &what) { throw std::invalid_argument("evaluate: " + what); }

std::string index(const char *name, int64_t i) {
  std::string text("`");
  return text.append(name).append("[").append(std::to_string(i)).append("]`");
}

void check_sizes(const Graph &g, bool shared) {
  if (g.n_atoms < (shared ? 0 : 1))
    fail("`n_atoms` is " + std::to_string(g.n_atoms) + " but must " +
         (shared ? "not be negative" : "be positive"));
  if (g.n_edges < 0) fail("`n_edges` is " + std::to_string(g.n_edges) + " but must not be negative");
  if (g.n_ghosts < 0 || g.n_ghosts > g.n_atoms)
    fail("`n_ghosts` is " + std::to_string(g.n_ghosts) + " but must be from 0 to the " +
         std::to_string(g.n_atoms) + " of `n_atoms`");
  if (g.n_ghost_edges < 0 || g.n_ghost_edges > g.n_edges)
    fail("`n_ghost_edges` is " + std::to_string(g.n_ghost_edges) + " but must be from 0 to the " +
         std::to_string(g.n_edges) + " of `n_edges`");
  if (!shared && (g.n_ghosts > 0 || g.redundant))
    fail("`n_ghosts` is " + std::to_string(g.n_ghosts) + " and `redundant` is " +
         (g.redundant ? "true" : "false") + ", but without an exchange there are no ghosts");
  if (g.n_ghost_edges > 0 && !g.redundant)
    fail("`n_ghost_edges` is " + std::to_string(g.n_ghost_edges) + " but must be 0 unless `redundant`");
}

void check_arrays(const Graph &g, const Metadata &metadata) {
  if (g.n_atoms > 0 && !g.numbers) fail("`numbers` is missing");
  if (g.n_edges > 0 && (!g.centers || !g.neighbors || !g.vectors))
    fail("`centers`, `neighbors` or `vectors` is missing");
  bool has_cell = false;
  for (double entry : g.cell) {
    if (!std::isfinite(entry)) fail("`cell` has the entry " + std::to_string(entry) + " but must be finite");
    has_cell = has_cell || entry != 0.0;
  }
  if (metadata.kind == "direct" && !has_cell) {
    if (g.n_own() > 0 && !g.positions)
      fail("`positions` is missing, but a direct model without a cell needs it to remove the torque");
    for (int64_t i = 0; i < 3 * g.n_own(); ++i)
      if (!std::isfinite(g.positions[i])) fail(index("positions", i / 3) + " is not finite");
  }
  if (metadata.has_charge_spin) {
    if (!std::isfinite(g.charge)) fail("`charge` is " + std::to_string(g.charge) + " but must be finite");
    if (!(std::isfinite(g.spin) && g.spin >= 0))
      fail("`spin` is " + std::to_string(g.spin) +
           " but must be a multiplicity 2S+1 (or 0 for an unknown one)");
  }
}

void check_numbers(const Graph &g, const Metadata &metadata) {
  std::vector<char> known(256, 0);
  for (int element : metadata.elements) known[static_cast<size_t>(element)] = 1;
  for (int64_t i = 0; i < g.n_atoms; ++i) {
    const int64_t z = g.numbers[i];
    if (z < 0 || z >= 256 || !known[static_cast<size_t>(z)])
      fail(index("numbers", i) + " is " + std::to_string(z) + ", an element that model `" + metadata.model +
           "` does not know");
  }
}

// Edges have own centers, but ghost edges a ghost as center and an own neighbor.
void check_owners(const Graph &g, int64_t e) {
  const bool ghost_edge = e >= g.n_edges - g.n_ghost_edges;
  if ((g.centers[e] >= g.n_own()) != ghost_edge)
    fail(index("centers", e) + " is " + std::to_string(g.centers[e]) + ", " +
         (ghost_edge ? "an own atom, in a ghost edge" : "a ghost, in an edge of own atoms"));
  if (ghost_edge && g.neighbors[e] >= g.n_own())
    fail(index("neighbors", e) + " is " + std::to_string(g.neighbors[e]) + ", a ghost, in a ghost edge");
}

void check_edges(const Graph &g, const Metadata &metadata) {
  const double limit = (metadata.cutoff + kCutoffSlack) * (metadata.cutoff + kCutoffSlack);
  int64_t in_row = 0;
  for (int64_t e = 0; e < g.n_edges; ++e) {
    const int64_t center = g.centers[e], neighbor = g.neighbors[e];
    if (center < 0 || center >= g.n_atoms)
      fail(index("centers", e) + " is " + std::to_string(center) + ", no index of " +
           std::to_string(g.n_atoms) + " atoms");
    if (neighbor < 0 || neighbor >= g.n_atoms)
      fail(index("neighbors", e) + " is " + std::to_string(neighbor) + ", no index of " +
           std::to_string(g.n_atoms) + " atoms");
    check_owners(g, e);
    if (e > 0 && center < g.centers[e - 1])
      fail(index("centers", e) + " is smaller than the one before: `centers` must ascend");
    in_row = e > 0 && center == g.centers[e - 1] ? in_row + 1 : 1;
    if (in_row > metadata.max_neighbors)
      fail("atom " + std::to_string(center) + " has more than " + std::to_string(metadata.max_neighbors) +
           " edges, the cap of model `" + metadata.model + "`");
    const double *v = g.vectors + 3 * e;
    const double r2 = v[0] * v[0] + v[1] * v[1] + v[2] * v[2];
    if (!std::isfinite(r2)) fail(index("vectors", e) + " is not finite");
    if (r2 == 0.0)
      fail(index("vectors", e) + " has length 0: atoms " + std::to_string(center) + " and " +
           std::to_string(neighbor) + " are at the same place");
    if (r2 > limit)
      fail(index("vectors", e) + " has length " + std::to_string(std::sqrt(r2)) + " but the cutoff is " +
           std::to_string(metadata.cutoff));
  }
}

}    // namespace

void check_graph(const Graph &graph, const Metadata &metadata, bool shared) {
  check_sizes(graph, shared);
  check_arrays(graph, metadata);
  check_numbers(graph, metadata);
  check_edges(graph, metadata);
}

}    // namespace orb_export
