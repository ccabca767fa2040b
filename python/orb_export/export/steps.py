"""The steps of model/chain.py as programs: what goes in, and the functions that AOTInductor compiles.

A step of a layer is compiled once and gets the weights of the layer as inputs, and so does every other step:
a compiled step is code alone. The weights lie beside the programs, one copy for all of them (`weights`).
"""

from collections.abc import Callable
from typing import Any, Literal, NamedTuple

import torch
from safetensors.torch import save
from torch import Tensor, nn
from torch.func import functional_call

from orb_export.contract import GRADIENT_STEPS, STEPS
from orb_export.export.packed import slope_dtype
from orb_export.model import OrbV3
from orb_export.model.chain import Chain, Layer


class Input(NamedTuple):
    """An input of a step: its dtype (None: that of the network) and shape in terms of the sizes below."""

    dtype: torch.dtype | Literal["slope"] | None  # "slope": see packed.slope_dtype
    shape: tuple[str | int, ...]


_X, _E = Input(None, ("atoms", "channels")), Input(None, ("edges", "channels"))
_HALO_X = Input(None, ("neighbor rows", "channels"))
_SENT = Input(None, ("center rows", "channels"))
_ENVELOPE, _VECTORS = Input(None, ("edges", 1)), Input(torch.float64, ("edges", 3))
_NUMBERS, _ENDS = Input(torch.int64, ("atoms",)), Input(torch.int64, ("edges",))
_AS_CENTER, _AS_NEIGHBOR = Input(None, ("center rows", "hidden")), Input(None, ("neighbor rows", "hidden"))
_SCALAR, _LATENT = Input(torch.float64, ()), Input(torch.float64, ("channels",))
_MESSAGE = (_E, _ENVELOPE, _AS_CENTER, _AS_NEIGHBOR, _ENDS, _ENDS)
_EDGE_SLOPE, _ATOM_SLOPE = Input("slope", ("edges", "hidden")), Input(None, ("atoms", "hidden"))
_KEPT_OF_EDGES = (_EDGE_SLOPE, _EDGE_SLOPE, _E)
_GATES = Input(None, ("edges", 2))

# in the order of the methods' parameters
INPUTS: dict[str, tuple[Input, ...]] = {
    "nodes.encode": (_NUMBERS, _SCALAR, _SCALAR),
    "edges.repulsion": (_NUMBERS, _ENDS, _ENDS, _VECTORS),
    "edges.encode": (_VECTORS,),
    "layer.message": _MESSAGE,
    "layer.update": (_X, _X, _X),
    "readout.atoms": (_X,),
    "readout.total": (_LATENT, _SCALAR, _SCALAR, _SCALAR),
    "edges.encode_keep": (_VECTORS,),
    "layer.message_keep": _MESSAGE,
    "layer.update_vjp": (_ATOM_SLOPE, _ATOM_SLOPE, _X, _X),
    "layer.message_vjp": (_ENVELOPE, _ENDS, _ENDS, *_KEPT_OF_EDGES, _GATES, _E, _HALO_X, _SENT),
    "edges.encode_vjp": (_VECTORS, *_KEPT_OF_EDGES, _E, _ENVELOPE),
}
# Sizes that differ between calls. One process of several has rows for atoms that are centers, and more for
# those that are neighbors, so the two must not be taken for one size.
DYNAMIC = {"atoms": 7, "center rows": 9, "neighbor rows": 11, "edges": 40}


def names(kind: str) -> tuple[str, ...]:
    """Steps of a kind of model; a direct one needs no gradient of the network."""
    return STEPS if kind == "direct" else STEPS + GRADIENT_STEPS


def example(model: OrbV3, step: str) -> tuple[Tensor, ...]:
    """Random inputs of a step to trace with."""
    config = model.config
    sizes = {**DYNAMIC, "channels": config.channels, "hidden": config.hidden}
    generator = torch.Generator().manual_seed(0)

    def tensor(which: Input) -> Tensor:
        shape = [sizes[size] if isinstance(size, str) else size for size in which.shape]
        if which.dtype == torch.int64:  # atomic numbers, or indices of atoms
            return torch.randint(1, DYNAMIC["atoms"], shape, generator=generator)
        dtype = slope_dtype(model) if which.dtype == "slope" else which.dtype or model.dtype
        return 1.0 + torch.rand(shape, generator=generator, dtype=torch.float64).to(dtype)

    return tuple(tensor(which).to(model.device) for which in INPUTS[step])


class _Step(nn.Module):
    def __init__(self, piece: nn.Module, method: str) -> None:
        super().__init__()
        self.piece = piece
        self.method = method

    def forward(self, *inputs: Tensor) -> Any:
        return getattr(self.piece, self.method)(*inputs)


def _piece(model: OrbV3, name: str) -> nn.Module:
    chain = Chain(model)
    return chain.layers[0] if name == "layer" else chain.get_submodule(name)


def pure_function(model: OrbV3, step: str) -> tuple[Callable[..., tuple[Tensor, ...]], tuple[Tensor, ...]]:
    """A step as a function of its inputs and then the weights of its piece, and these weights, by name."""
    name, method = step.split(".")
    piece = _piece(model, name)
    weights = dict(sorted(piece.state_dict().items()))
    module = _Step(piece, method)

    def function(*arguments: Tensor) -> tuple[Tensor, ...]:
        count = len(arguments) - len(weights)
        given = {f"piece.{key}": value for key, value in zip(weights, arguments[count:], strict=True)}
        with torch.enable_grad():
            outputs = functional_call(module, given, arguments[:count])
        outputs = outputs if isinstance(outputs, tuple) else (outputs,)
        return tuple(output.detach() for output in outputs)

    return function, tuple(weights.values())


def weights(model: OrbV3) -> bytes:
    """The weights of all pieces as a safetensors file: `nodes.*`, `edges.*`, `layers.0.*`, `readout.*`.

    A program gets those of its piece in the order of their names. `projections.0.center` and
    `projections.0.neighbor` are the matrices (C, H) that the host multiplies with.
    """
    chain = Chain(model)
    tensors = dict(chain.state_dict())
    for index, layer in enumerate(chain.layers):
        assert isinstance(layer, Layer)
        center, neighbor = layer.projections()
        tensors |= {f"projections.{index}.center": center, f"projections.{index}.neighbor": neighbor}
    return save({name: tensor.cpu().contiguous().clone() for name, tensor in tensors.items()})
