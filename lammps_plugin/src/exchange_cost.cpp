// SPDX-License-Identifier: GPL-2.0-or-later
#include "exchange_cost.h"

#include <algorithm>

namespace orbv3 {

namespace {
constexpr double CORE_RATE = 3e10;    // floating point operations per second in float32
constexpr double GPU_RATE = 1e13;
constexpr double BANDWIDTH = 2e9;    // bytes per second from one process to its neighbors
constexpr double LATENCY = 2e-5;     // seconds of the messages of one exchange

int bytes_of(const orb_export::Metadata &metadata)
{
  return metadata.dtype == "float64" ? 8 : 4;
}

bool is_conservative(const orb_export::Metadata &metadata)
{
  return metadata.kind == "conservative";
}
}    // namespace

// Sums of the partners' side come back after each layer, and their gradients go out in the backward pass.
double seconds_of_reverse(const orb_export::Metadata &metadata, const Border &border)
{
  const double calls =
      static_cast<double>(metadata.layers) * (is_conservative(metadata) ? 2.0 : 1.0);
  const double row = static_cast<double>(metadata.channels) * bytes_of(metadata);
  return calls * (LATENCY + border.ghosts * row / BANDWIDTH);
}

// Edges across the border are evaluated on both sides, and one exchange says which exist.
double seconds_of_redundant(const orb_export::Metadata &metadata, const Border &border, int threads)
{
  // two products of channels and hidden width, two operations a multiplication; the gradient costs twice that
  const double operations =
      static_cast<double>(metadata.layers) * 4.0 * static_cast<double>(metadata.channels) *
      static_cast<double>(metadata.hidden) * (is_conservative(metadata) ? 3.0 : 1.0);
  const double rate = (metadata.device == "cuda" ? GPU_RATE : CORE_RATE * std::max(1, threads)) *
                      4.0 / bytes_of(metadata);
  return border.edges * operations / rate + LATENCY;
}

}    // namespace orbv3
