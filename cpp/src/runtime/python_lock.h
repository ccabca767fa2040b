// Some calls of a host reach us with Python's global lock held, as those of OpenMM's binding to
// computeCurrentPressure do, and torch's autograd engine refuses to run under it.
#pragma once

#include <dlfcn.h>

namespace orb_export {

// Gives the lock back while it lives, if there is a Python in this process and this thread holds it.
class WithoutPythonLock {
 public:
  WithoutPythonLock() {
    const auto initialized = find<int (*)()>("Py_IsInitialized");
    const auto held = find<int (*)()>("PyGILState_Check");
    const auto release = find<void *(*)()>("PyEval_SaveThread");
    if (initialized && held && release && initialized() && held()) thread_ = release();
  }
  ~WithoutPythonLock() {
    if (thread_) find<void (*)(void *)>("PyEval_RestoreThread")(thread_);
  }
  WithoutPythonLock(const WithoutPythonLock &) = delete;
  WithoutPythonLock &operator=(const WithoutPythonLock &) = delete;

 private:
  // looked up, not linked: most hosts have no Python
  template <class Function>
  static Function find(const char *name) {
    return reinterpret_cast<Function>(dlsym(RTLD_DEFAULT, name));
  }

  void *thread_ = nullptr;
};

}    // namespace orb_export
