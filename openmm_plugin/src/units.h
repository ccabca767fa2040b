// OpenMM's units in those of the model; used where positions come in and where energy and forces go out.
#pragma once

namespace orb_export::openmm {

inline constexpr double kAngstromPerNm = 10.0;
// e N_A / 1000, exact in the SI of 2019
inline constexpr double kKJPerMolPerEV = 96.48533212331002;

}    // namespace orb_export::openmm
