// SPDX-License-Identifier: GPL-2.0-or-later
// Opens the runtime of orb_export, which brings torch with it, when a model is first asked for.
#ifndef ORBV3_BACKEND_H
#define ORBV3_BACKEND_H

#include <orb_export/potential.h>

namespace orbv3 {

// The runtime that was installed together with this plugin. It stays open until the process ends, since
// torch cannot be unloaded. Throws std::runtime_error saying what does not fit and what to do.
const orb_export::Runtime &backend();

}    // namespace orbv3

#endif
