#include "parallel.h"

#include <atomic>
#include <condition_variable>
#include <exception>
#include <memory>
#include <mutex>
#include <system_error>
#include <thread>
#include <utility>

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

namespace {

// One loop, shared by its threads. A thread that the system starts late finds nothing left to do: the caller
// waits for those at work only, because on a busy machine waiting for a start costs more than the loop.
class Loop {
 public:
  Loop(int64_t n_chunks, const std::function<void(int, int64_t)> &body) : n_chunks_(n_chunks), body_(body) {}

  void work(int worker) {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      if (next_ >= n_chunks_) return;    // the caller may be gone, and the body with it
      ++at_work_;
    }
    try {
      for (int64_t chunk = next_++; chunk < n_chunks_; chunk = next_++) body_(worker, chunk);
    } catch (...) {
      next_ = n_chunks_;    // the others stop at their next chunk
      const std::lock_guard<std::mutex> lock(mutex_);
      if (!error_) error_ = std::current_exception();
    }
    const std::lock_guard<std::mutex> lock(mutex_);
    if (--at_work_ == 0) idle_.notify_all();
  }

  // Called after work() of the caller, when every chunk has been taken.
  void wait() {
    std::unique_lock<std::mutex> lock(mutex_);
    idle_.wait(lock, [this] { return at_work_ == 0; });
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  const int64_t n_chunks_;
  const std::function<void(int, int64_t)> &body_;
  std::atomic<int64_t> next_{0};
  std::mutex mutex_;
  std::condition_variable idle_;
  int at_work_ = 0;
  std::exception_ptr error_;
};

}    // namespace

void parallel_for(int threads, int64_t n_chunks, const std::function<void(int, int64_t)> &body) {
  if (threads > n_chunks) threads = static_cast<int>(n_chunks);
  if (threads <= 1) {
    for (int64_t chunk = 0; chunk < n_chunks; ++chunk) body(0, chunk);
    return;
  }
  const auto loop = std::make_shared<Loop>(n_chunks, body);
  try {
    for (int worker = 1; worker < threads; ++worker)
      std::thread([loop, worker] { loop->work(worker); }).detach();
  } catch (const std::system_error &) {
    // the system grants no more threads: those that run share the work
  }
  loop->work(0);
  loop->wait();
}

}    // namespace orb_export
