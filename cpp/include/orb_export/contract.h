// Mirror of python/orb_export/contract.py; tests/unit/test_contract.py holds the two together.
#pragma once

#include <array>

namespace orb_export {

inline constexpr int kSchemaVersion = 2;
inline constexpr const char *kMetadataEntry = "orb_export.json";

inline constexpr double kCutoff = 6.0;           // angstrom
inline constexpr double kTieTolerance = 1e-6;    // angstrom
inline constexpr double kTieDirection[3] = {0.5377, 0.6763, 0.5036};
inline constexpr int kMaxAtomicNumber = 117;
inline constexpr int kConfidenceBins = 50;
inline constexpr double kConfidenceMaxError = 0.3;    // eV/angstrom

inline constexpr std::array<const char *, 6> kInputs = {"numbers", "centers", "neighbors",
                                                        "vectors", "charge",  "spin"};
inline constexpr std::array<const char *, 4> kConservativeOutputs = {"energy", "edge_gradient", "confidence",
                                                                     "atom_energies"};
inline constexpr std::array<const char *, 7> kDirectOutputs = {
    "energy", "edge_gradient", "confidence", "atom_energies", "node_forces", "force_offset", "node_stress"};

inline constexpr const char *kWholeProgram = "whole";
// The potential as a chain of steps, see python/orb_export/model/chain.py.
inline constexpr std::array<const char *, 7> kSteps = {"nodes.encode",  "edges.repulsion", "edges.encode",
                                                       "layer.message", "layer.update",    "readout.atoms",
                                                       "readout.total"};
inline constexpr std::array<const char *, 5> kGradientSteps = {
    "edges.encode_keep", "layer.message_keep", "layer.update_vjp", "layer.message_vjp", "edges.encode_vjp"};
inline constexpr const char *kWeightsEntry = "orb_export_weights.safetensors";

}    // namespace orb_export
