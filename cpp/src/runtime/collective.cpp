#include "collective.h"

#include <algorithm>

#include "assemble.h"

namespace orb_export {

std::vector<Call> calls_of(const Graph &graph, const Metadata &metadata, const Request &request) {
  using Kind = Call::Kind;
  const bool direct = metadata.kind == "direct";
  const int bytes = metadata.dtype == "float64" ? 8 : 4;
  const Call forward = {Kind::forward, metadata.channels, bytes};
  const Call reverse_add = {Kind::reverse_add, metadata.channels, bytes};
  const Call edge_rows = {Kind::reverse_add, edge_row_width(request), 8};
  std::vector<Call> calls;
  if (direct && request.forces && !has_cell(graph)) calls.push_back({Kind::sum, kCentroidSums, 8});
  for (int64_t layer = 0; layer < metadata.layers; ++layer) {
    if (layer > 0) calls.push_back(forward);
    if (!graph.redundant) calls.push_back(reverse_add);
  }
  if (direct && request.forces) calls.push_back(edge_rows);
  calls.push_back(
      {Kind::sum, kEnergySums + metadata.channels + (direct && request.forces ? kForceSums : 0), 8});
  if (direct || !request.forces) return calls;
  for (int64_t layer = metadata.layers - 1; layer >= 0; --layer) {
    if (!graph.redundant) calls.push_back(forward);
    if (layer > 0) calls.push_back(reverse_add);
  }
  calls.push_back(edge_rows);
  calls.push_back({Kind::sum, kForceSums, 8});
  return calls;
}

Collective::Collective(Exchange &exchange, std::vector<Call> calls, int64_t n_rows)
    : exchange_(&exchange), calls_(std::move(calls)), n_rows_(std::max<int64_t>(n_rows, 0)) {}

void Collective::begin(const Call &call) {
  if (next_ >= calls_.size() || !(calls_[next_] == call))
    throw std::logic_error("evaluate: exchange call " + std::to_string(next_) +
                           " is not the one of calls_of()");
  ++next_;    // before the call itself: one that throws counts as made
}

void Collective::forward(void *rows, int64_t width, int bytes) {
  if (alone()) return;
  begin({Call::Kind::forward, width, bytes});
  exchange_->forward({rows, n_rows_, width, bytes});
}

void Collective::reverse_add(void *rows, int64_t width, int bytes) {
  if (alone()) return;
  begin({Call::Kind::reverse_add, width, bytes});
  exchange_->reverse_add({rows, n_rows_, width, bytes});
}

void Collective::sum(double *values, int64_t count) {
  if (alone()) return;
  begin({Call::Kind::sum, count, 8});
  std::vector<double> with_failures(values, values + count);
  with_failures.push_back(0.0);
  exchange_->sum(with_failures.data(), count + 1);
  if (with_failures.back() != 0.0) {
    next_ = calls_.size();    // the others have stopped as well
    throw AnotherProcessFailed();
  }
  std::copy_n(with_failures.begin(), count, values);
}

void Collective::give_up() noexcept {
  while (next_ < calls_.size()) {
    const Call call = calls_[next_++];
    try {
      make_with_zeros(call);
    } catch (...) {
      // the error that brought us here is the one to tell; the others still wait for the calls that follow
    }
    if (call.kind == Call::Kind::sum) next_ = calls_.size();
  }
}

void Collective::make_with_zeros(const Call &call) {
  if (call.kind == Call::Kind::sum) {
    std::vector<double> values(static_cast<size_t>(call.width) + 1, 0.0);
    values.back() = 1.0;
    exchange_->sum(values.data(), call.width + 1);
    return;
  }
  const RowView view = {nullptr, n_rows_, call.width, call.bytes};
  if (call.kind == Call::Kind::forward)
    exchange_->forward(view);
  else
    exchange_->reverse_add(view);
}

}    // namespace orb_export
