// What all forces and Contexts of this process have spent, for timing reporters and tests.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace orb_export::openmm {

struct Timings {
  std::atomic<int64_t> evaluations{0};           // of potentials, all of them
  std::atomic<int64_t> energy_evaluations{0};    // those among them that skipped the gradient
  std::atomic<int64_t> graph_builds{0};          // searches for candidate neighbors
  std::atomic<int64_t> model_ns{0};              // nanoseconds in potentials
  std::atomic<int64_t> graph_ns{0};              // in the edge search, filtering of candidates included
  std::atomic<int64_t> total_ns{0};              // between OpenMM's call and the return to it
};

Timings &timings();

// Adds the time until its destruction.
class Stopwatch {
 public:
  explicit Stopwatch(std::atomic<int64_t> &total) : total_(total) {}
  ~Stopwatch() { total_ += std::chrono::nanoseconds(std::chrono::steady_clock::now() - start_).count(); }
  Stopwatch(const Stopwatch &) = delete;
  Stopwatch &operator=(const Stopwatch &) = delete;

 private:
  std::atomic<int64_t> &total_;
  std::chrono::steady_clock::time_point start_ = std::chrono::steady_clock::now();
};

}    // namespace orb_export::openmm
