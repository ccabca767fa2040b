#include "orb_export/selection_limit.h"

#include "selection.h"

namespace orb_export {
namespace {

double length(const double v[3]) { return std::sqrt(v[0] * v[0] + v[1] * v[1] + v[2] * v[2]); }

// Sorted distances of the candidates that may be selected.
std::vector<double> distances_within(const double *vectors, int64_t n, double limit) {
  std::vector<double> found;
  for (int64_t k = 0; k < n; ++k) {
    const double distance = length(vectors + 3 * k);
    if (distance * distance < limit) found.push_back(distance);
  }
  std::sort(found.begin(), found.end());
  return found;
}

}    // namespace

bool SelectionLimit::includes(const double vector[3]) const {
  const double distance = length(vector);
  if (distance < inner) return true;
  return distance <= outer && orb_export::projection(vector) < projection;
}

SelectionLimit selection_limit(const double *vectors, int64_t n, double cutoff,
                               const std::vector<int64_t> &order) {
  const double limit = squared_limit(cutoff), rim = std::sqrt(limit);
  const auto distances = distances_within(vectors, n, limit);
  const size_t kept = order.size();
  if (kept == distances.size()) return {rim, rim, 0.0};
  if (kept == 0) return {};

  // the shell around the cut, as far as consecutive distances are tied
  size_t first = kept, last = kept;    // [first, last): empty when the cut lies between two shells
  while (first > 0 && distances[first] - distances[first - 1] < kTieTolerance) --first;
  if (first == kept) {
    const double between = 0.5 * (distances[kept - 1] + distances[kept]);
    return {between, between, 0.0};
  }
  while (last < distances.size() && distances[last] - distances[last - 1] < kTieTolerance) ++last;
  SelectionLimit result;
  if (first > 0) result.inner = 0.5 * (distances[first - 1] + distances[first]);
  result.outer = last < distances.size() ? 0.5 * (distances[last - 1] + distances[last]) : rim;

  double last_in = -rim, first_out = rim;
  std::vector<char> selected(static_cast<size_t>(n), 0);
  for (const int64_t k : order) selected[static_cast<size_t>(k)] = 1;
  for (int64_t k = 0; k < n; ++k) {
    const double *v = vectors + 3 * k;
    const double distance = length(v);
    if (distance < result.inner || distance > result.outer) continue;
    if (selected[static_cast<size_t>(k)])
      last_in = std::max(last_in, projection(v));
    else
      first_out = std::min(first_out, projection(v));
  }
  result.projection = 0.5 * (last_in + first_out);
  return result;
}

}    // namespace orb_export
