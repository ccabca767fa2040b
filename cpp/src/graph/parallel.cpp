#include "parallel.h"

#include <atomic>
#include <exception>
#include <mutex>
#include <system_error>
#include <thread>
#include <vector>

#ifdef __linux__
#include <sched.h>
#endif

namespace orb_export {

int usable_cores() {
#ifdef __linux__
  cpu_set_t set;
  CPU_ZERO(&set);
  if (sched_getaffinity(0, sizeof(set), &set) == 0 && CPU_COUNT(&set) > 0) return CPU_COUNT(&set);
#endif
  const unsigned n = std::thread::hardware_concurrency();
  return n > 0 ? static_cast<int>(n) : 1;
}

void parallel_for(int threads, int64_t n_chunks, const std::function<void(int, int64_t)> &body) {
  if (threads > n_chunks) threads = static_cast<int>(n_chunks);
  if (threads <= 1) {
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) body(0, chunk);
    return;
  }
  std::atomic<int64_t> next{0};
  std::exception_ptr error;
  std::mutex error_mutex;
  const auto work = [&](int worker) {
    try {
      for (int64_t chunk = next++; chunk < n_chunks; chunk = next++) body(worker, chunk);
    } catch (...) {
      next = n_chunks;    // the others stop at their next chunk
      const std::lock_guard<std::mutex> lock(error_mutex);
      if (!error) error = std::current_exception();
    }
  };
  std::vector<std::thread> pool;
  pool.reserve(threads - 1);
  try {
    for (int worker = 1; worker < threads; ++worker) pool.emplace_back(work, worker);
  } catch (const std::system_error &) {
    // the system grants no more threads: those that run share the work
  }
  work(0);
  for (auto &thread : pool) thread.join();
  if (error) std::rethrow_exception(error);
}

}    // namespace orb_export
