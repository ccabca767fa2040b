"""The one contract between Python, the compiled artefacts and the C++ runtime.

A potential sees edges, not boxes. Its inputs are atomic numbers, a directed edge list and edge
vectors; periodic images, cells, ghosts and units live in the graph builder and in the hosts.
`cpp/include/orb_export/contract.h` mirrors the names and numbers below; a test holds the two together.

Shapes: N atoms, E edges. Units: angstrom, eV, elementary charges.
Edge e runs from `centers[e]` to `neighbors[e]`, and
    vectors[e] = position(neighbor, in its periodic image) - position(center).
With g = dE/d(vectors): force on the center += g, on the neighbor -= g, dE/d(strain) = sum of vector (x) g.
"""

from typing import Final, NamedTuple

SCHEMA_VERSION: Final = 2
METADATA_ENTRY: Final = "orb_export.json"  # name of the metadata record inside an artefact (a zip file)

CUTOFF: Final = 6.0  # angstrom; hard-coded in every published Orb-v3 model
UNLIMITED_NEIGHBORS: Final = 120  # what the "inf" of the model names stands for
TIE_TOLERANCE: Final = 1e-6  # angstrom; neighbors whose distances differ by less are ordered by direction
TIE_DIRECTION: Final = (0.5377, 0.6763, 0.5036)  # ordering key within a tie: vector . direction
TIE_RULE: Final = "nearest, then smallest projection on a fixed direction"

MAX_ATOMIC_NUMBER: Final = 117  # the reference-energy table has 118 rows, indexed by atomic number
CONFIDENCE_BINS: Final = 50
CONFIDENCE_MAX_ERROR: Final = 0.3  # eV/angstrom, upper edge of the last confidence bin


class Field(NamedTuple):
    """One tensor that crosses the boundary of a compiled potential."""

    name: str
    dtype: str
    shape: tuple[str | int, ...]
    unit: str


# Every compiled potential has these inputs in this order, whether it uses charge and spin or not.
INPUTS: Final = (
    Field("numbers", "int64", ("atoms",), "1"),
    Field("centers", "int64", ("edges",), "1"),
    Field("neighbors", "int64", ("edges",), "1"),
    Field("vectors", "float64", ("edges", 3), "angstrom"),
    Field("charge", "float64", (), "e"),
    Field("spin", "float64", (), "1"),  # multiplicity 2S+1
)

_COMMON_OUTPUTS: Final = (
    Field("energy", "float64", (), "eV"),
    Field("edge_gradient", "float64", ("edges", 3), "eV/angstrom"),
    Field("confidence", "float64", ("atoms", CONFIDENCE_BINS), "1"),  # probabilities
    Field("atom_energies", "float64", ("atoms",), "eV"),  # their sum is `energy`
)

# A conservative potential has the gradient of its whole energy in `edge_gradient`; a direct one has that of
# the ZBL repulsion only, and needs the host to remove mean (and, without a cell, torque) from `node_forces`
# before adding `force_offset` to every component and then the edge forces.
OUTPUTS: Final = {
    "conservative": _COMMON_OUTPUTS,
    "direct": (
        *_COMMON_OUTPUTS,
        Field("node_forces", "float64", ("atoms", 3), "eV/angstrom"),
        Field("force_offset", "float64", (), "eV/angstrom"),
        Field("node_stress", "float64", (6,), "eV/angstrom^3"),  # Voigt xx yy zz yz xz xy
    ),
}

WHOLE_PROGRAM: Final = "whole"
# The same potential as a chain of steps, methods of the modules of model/chain.py, in the order of a walk;
# those of `layer` exist for every layer. Direct potentials need no gradient steps.
STEPS: Final = (
    "nodes.encode",
    "edges.repulsion",
    "edges.encode",
    "layer.message",
    "layer.update",
    "readout.atoms",
    "readout.total",
)
GRADIENT_STEPS: Final = (
    "edges.encode_keep",
    "layer.message_keep",
    "layer.update_vjp",
    "layer.message_vjp",
    "edges.encode_vjp",
)
WEIGHTS_ENTRY: Final = "orb_export_weights.safetensors"  # of the steps, in an AOTInductor artefact
