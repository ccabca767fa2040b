// SPDX-License-Identifier: GPL-2.0-or-later
#include "backend.h"

#include <orb_export/open_runtime.h>

namespace orbv3 {

const orb_export::Runtime &backend()
{
  // the plugin lies in <site-packages>/orb_export/lib/lammps; tried again after an exception
  static const auto &runtime = orb_export::open_runtime(
      orb_export::folder_of_library(reinterpret_cast<const void *>(&backend))
          .parent_path()
          .parent_path(),
      "this lmp");
  return runtime;
}

}    // namespace orbv3
