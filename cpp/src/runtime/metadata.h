// The metadata record of an artefact, and everything that must hold before its tensors are touched.
#pragma once

#include "container.h"
#include "orb_export/potential.h"

namespace orb_export {

// Throws std::invalid_argument, naming `path` and both sides, for whatever this runtime cannot run:
// another schema, format, contract, torch version, device or processor, or a payload that was altered.
Metadata read_metadata(const std::string &path, const Container &container, const std::string &torch_version);

}    // namespace orb_export
