// The exchange calls of one evaluation. All processes make the same ones, whatever happens to any of them.
#pragma once

#include <cstdint>
#include <stdexcept>
#include <vector>

#include "orb_export/potential.h"

namespace orb_export {

struct Call {
  enum class Kind { forward, reverse_add, sum } kind;
  int64_t width;    // numbers of a row, or of the sum
  int bytes;        // of a number
  bool operator==(const Call &other) const {
    return kind == other.kind && width == other.width && bytes == other.bytes;
  }
};

// What chain.cpp will call for such a graph and request, in order.
std::vector<Call> calls_of(const Graph &graph, const Metadata &metadata, const Request &request);

class AnotherProcessFailed : public std::runtime_error {
 public:
  AnotherProcessFailed() : std::runtime_error("evaluate: another process failed") {}
};

// Every sum carries the number of processes that failed before it, so all learn of it at the same call.
class Collective {
 public:
  // One process.
  Collective() = default;
  Collective(Exchange &exchange, std::vector<Call> calls, int64_t n_rows);

  bool alone() const { return exchange_ == nullptr; }
  void forward(void *rows, int64_t width, int bytes);
  void reverse_add(void *rows, int64_t width, int bytes);
  // Throws AnotherProcessFailed.
  void sum(double *values, int64_t count);
  // After an error of this process: makes the calls that the others wait for, with zeros, up to the sum that
  // tells them.
  void give_up() noexcept;

 private:
  void begin(const Call &call);
  void make_with_zeros(const Call &call);

  Exchange *exchange_ = nullptr;
  std::vector<Call> calls_;
  int64_t n_rows_ = 0;
  size_t next_ = 0;
};

}    // namespace orb_export
