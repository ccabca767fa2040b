// For plugins of engines: opens the runtime of orb_export, which brings torch with it, when a model is first
// asked for. No torch here; linked statically into each plugin (library orb_plugin).
#pragma once

#include <filesystem>
#include <string>

#include "orb_export/potential.h"

namespace orb_export {

// Folder of the library that `symbol`, any of its functions or objects, lies in, links resolved.
// Throws std::runtime_error.
std::filesystem::path folder_of_library(const void *symbol);

// The runtime in `package`, the installed folder orb_export that has torch beside it. It stays open until the
// process ends, since torch cannot be unloaded. `host` completes "install it into the environment of ...".
// Throws std::runtime_error saying what does not fit and what to do.
const Runtime &open_runtime(const std::filesystem::path &package, const std::string &host);

}    // namespace orb_export
