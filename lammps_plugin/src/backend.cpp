// SPDX-License-Identifier: GPL-2.0-or-later
#include "backend.h"

#include <orb_export/contract.h>

#include <dlfcn.h>
#include <filesystem>
#include <fstream>
#include <stdexcept>
#include <string>

namespace orbv3 {

namespace {
namespace fs = std::filesystem;

constexpr const char *REMEDY = "install orb-export again into the environment of this lmp (pip "
                               "install --force-reinstall orb-export)";

// <site-packages>/orb_export/lib/lammps
fs::path plugin_folder()
{
  Dl_info info;
  if (!dladdr(reinterpret_cast<const void *>(&plugin_folder), &info))
    throw std::runtime_error("cannot find the folder of orbv3plugin.so");
  return fs::canonical(info.dli_fname).parent_path();
}

// 2.13.0+cpu -> 2.13.0: the builds of one release for different devices share their interface
std::string release(const std::string &version)
{
  return version.substr(0, version.find('+'));
}

// Read as text, since opening a wrong libtorch ends in a message about symbols. Empty: no torch there.
std::string torch_version(const fs::path &folder)
{
  std::ifstream file(folder / "version.py");
  const std::string key = "__version__ = '";
  for (std::string line; std::getline(file, line);)
    if (line.compare(0, key.size(), key) == 0)
      return line.substr(key.size(), line.find('\'', key.size()) - key.size());
  return "";
}

const orb_export::Runtime *open_backend()
{
  const auto folder = plugin_folder();
  const auto library = folder.parent_path() / "liborb_export_runtime.so";
  const auto torch = folder.parent_path().parent_path().parent_path() / "torch";

  const auto found = torch_version(torch);
  if (!found.empty() && release(found) != release(ORBV3_TORCH_VERSION))
    throw std::runtime_error("orb_export was built for torch " ORBV3_TORCH_VERSION " but torch " +
                             found + " is installed in " + torch.string() + ": " + REMEDY);
  if (!fs::exists(library))
    throw std::runtime_error("the runtime " + library.string() + " is missing: " + REMEDY);

  void *const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const std::string why = dlerror();
    throw std::runtime_error("cannot open the runtime of orb_export (" + why + "): " +
                             (found.empty()
                                  ? "there is no torch in " + torch.string() + ", install torch " +
                                        ORBV3_TORCH_VERSION + " beside orb_export"
                                  : std::string(REMEDY)));
  }
  const auto entry =
      reinterpret_cast<const orb_export::Runtime *(*)()>(dlsym(handle, "orb_export_runtime"));
  if (!entry)
    throw std::runtime_error(library.string() + " has no symbol orb_export_runtime: " + REMEDY);
  const auto *const runtime = entry();
  if (runtime->schema_version != orb_export::kSchemaVersion ||
      std::string(runtime->package_version) != ORBV3_PACKAGE_VERSION)
    throw std::runtime_error(
        std::string("the plugin is of orb_export " ORBV3_PACKAGE_VERSION " (schema ") +
        std::to_string(orb_export::kSchemaVersion) + ") but its runtime of " +
        runtime->package_version + " (schema " + std::to_string(runtime->schema_version) +
        "): " + REMEDY);
  return runtime;
}
}    // namespace

const orb_export::Runtime &backend()
{
  static const auto *const runtime = open_backend();    // tried again after an exception
  return *runtime;
}

}    // namespace orbv3
