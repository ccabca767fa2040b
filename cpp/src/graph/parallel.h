// Threads for loops over independent chunks. Not OpenMP: inside LAMMPS or torch a second OpenMP runtime would
// fight the first, and threads that live for one call survive the fork() of a host.
#pragma once

#include <cstdint>
#include <functional>

namespace orb_export {

// Cores this process may run on, at least 1.
int usable_cores();

// Calls body(worker, chunk) once for every chunk in [0, n_chunks) on at most `threads` threads, worker in
// [0, threads). The first exception thrown by a body is rethrown here after all bodies have returned. Threads
// may outlive the call by a moment, doing nothing: a library with this code must not be unloaded (dlclose).
void parallel_for(int threads, int64_t n_chunks, const std::function<void(int, int64_t)> &body);

}    // namespace orb_export
