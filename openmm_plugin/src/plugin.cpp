// What OpenMM calls when it loads its plugins.
#include <openmm/Platform.h>
#include <openmm/PluginInitializer.h>
#include <openmm/reference/ReferencePlatform.h>

#include <cstring>
#include <string>

#include "common_kernel.h"
#include "orbv3_force.h"
#include "orbv3_force_proxy.h"
#include "reference_kernel.h"

namespace {
namespace plugin = orb_export::openmm;

bool registered = false;

// Classes of OpenMM change their layout between releases, and their headers are compiled into this library.
bool fits_this_openmm() {
  const std::string here = OpenMM::Platform::getOpenMMVersion() + ".";
  const size_t length = std::strlen(ORBV3_OPENMM_RELEASE);
  return here.compare(0, length, ORBV3_OPENMM_RELEASE) == 0 && here[length] == '.';
}

}    // namespace

extern "C" ORB_EXPORT_API void registerPlatforms() {}

// May be called again, for platforms that were loaded since. With another OpenMM nothing is registered: an
// exception here would break `import openmm` for everybody.
extern "C" ORB_EXPORT_API void registerKernelFactories() {
  if (!fits_this_openmm()) return;
  if (!registered)
    OpenMM::SerializationProxy::registerProxy(typeid(plugin::OrbV3Force), new plugin::OrbV3ForceProxy);
  registered = true;
  const auto name = plugin::CalcOrbV3ForceKernel::Name();
  for (int i = 0; i < OpenMM::Platform::getNumPlatforms(); ++i) {
    auto &platform = OpenMM::Platform::getPlatform(i);
    if (platform.supportsKernels({name})) continue;
    if (dynamic_cast<OpenMM::ReferencePlatform *>(&platform))    // the CPU platform is derived from it
      platform.registerKernelFactory(name, new plugin::ReferenceOrbV3KernelFactory);
    else if (plugin::CommonOrbV3KernelFactory::serves(platform.getName()))
      platform.registerKernelFactory(name, new plugin::CommonOrbV3KernelFactory);
  }
}

extern "C" ORB_EXPORT_API int orbv3_openmm_registered() { return registered; }

extern "C" ORB_EXPORT_API const char *orbv3_openmm_release() { return ORBV3_OPENMM_RELEASE; }
