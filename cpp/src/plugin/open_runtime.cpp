#include "orb_export/open_runtime.h"

#include <dlfcn.h>

#include <fstream>
#include <stdexcept>

#include "orb_export/contract.h"

#if !defined(ORB_EXPORT_VERSION) || !defined(ORB_EXPORT_TORCH_VERSION)
#error "the build defines ORB_EXPORT_VERSION and ORB_EXPORT_TORCH_VERSION"
#endif

namespace orb_export {
namespace {
namespace fs = std::filesystem;

// 2.13.0+cpu -> 2.13.0: the builds of one release for different devices share their interface
std::string release(const std::string &version) { return version.substr(0, version.find('+')); }

// Read as text, since opening a wrong libtorch ends in a message about symbols. Empty: no torch there.
std::string torch_version(const fs::path &folder) {
  std::ifstream file(folder / "version.py");
  const std::string key = "__version__ = '";
  for (std::string line; std::getline(file, line);)
    if (line.compare(0, key.size(), key) == 0)
      return line.substr(key.size(), line.find('\'', key.size()) - key.size());
  return "";
}

void check_version(const Runtime &runtime, const std::string &remedy) {
  if (runtime.schema_version == kSchemaVersion && std::string(runtime.package_version) == ORB_EXPORT_VERSION)
    return;
  throw std::runtime_error("the plugin is of orb_export " ORB_EXPORT_VERSION " (schema " +
                           std::to_string(kSchemaVersion) + ") but its runtime of " +
                           runtime.package_version + " (schema " + std::to_string(runtime.schema_version) +
                           "): " + remedy);
}

}    // namespace

fs::path folder_of_library(const void *symbol) {
  Dl_info info;
  if (!dladdr(symbol, &info)) throw std::runtime_error("cannot find the folder of the plugin of orb_export");
  return fs::canonical(info.dli_fname).parent_path();
}

const Runtime &open_runtime(const fs::path &package, const std::string &host) {
  const std::string remedy = "install orb-export again into the environment of " + host +
                             " (pip install --force-reinstall orb-export)";
  const auto library = package / "lib" / "liborb_export_runtime.so";
  const auto torch = package.parent_path() / "torch";

  const auto found = torch_version(torch);
  if (!found.empty() && release(found) != release(ORB_EXPORT_TORCH_VERSION))
    throw std::runtime_error("orb_export was built for torch " ORB_EXPORT_TORCH_VERSION " but torch " +
                             found + " is installed in " + torch.string() + ": " + remedy);
  if (!fs::exists(library))
    throw std::runtime_error("the runtime " + library.string() + " is missing: " + remedy);

  void *const handle = dlopen(library.c_str(), RTLD_NOW | RTLD_LOCAL);
  if (!handle) {
    const std::string why = dlerror();
    throw std::runtime_error("cannot open the runtime of orb_export (" + why + "): " +
                             (found.empty() ? "there is no torch in " + torch.string() + ", install torch " +
                                                  ORB_EXPORT_TORCH_VERSION + " beside orb_export"
                                            : remedy));
  }
  const auto entry = reinterpret_cast<const Runtime *(*)()>(dlsym(handle, "orb_export_runtime"));
  if (!entry) throw std::runtime_error(library.string() + " has no symbol orb_export_runtime: " + remedy);
  check_version(*entry(), remedy);
  return *entry();
}

}    // namespace orb_export
