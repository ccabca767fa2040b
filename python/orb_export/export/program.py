"""The function that is compiled: a model with its gradient, from the contract's inputs to its outputs."""

from collections.abc import Callable

import torch
from torch import Tensor

from orb_export.model import OrbV3

Program = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor], tuple[Tensor, ...]]


def contract_program(model: OrbV3) -> Program:
    """INPUTS of the contract -> OUTPUTS of the contract for the kind of `model`, detached."""
    core = model.core()

    def evaluate(
        numbers: Tensor, centers: Tensor, neighbors: Tensor, vectors: Tensor, charge: Tensor, spin: Tensor
    ) -> tuple[Tensor, ...]:
        with torch.enable_grad():
            vectors = vectors.detach().requires_grad_()
            energy, *others = core(numbers, centers, neighbors, vectors, charge, spin)
            (gradient,) = torch.autograd.grad([energy], [vectors])
        return energy.detach(), gradient, *(tensor.detach() for tensor in others)

    return evaluate


def example_inputs(device: torch.device, atoms: int = 7, edges: int = 40) -> tuple[Tensor, ...]:
    """A graph of random edges to trace with; its sizes are unlike each other and every size in a model."""
    generator = torch.Generator().manual_seed(0)
    centers = torch.randint(0, atoms, (edges,), generator=generator).sort().values
    inputs = (
        torch.randint(1, 90, (atoms,), generator=generator),
        centers,
        torch.randint(0, atoms, (edges,), generator=generator),
        2.0 * torch.randn(edges, 3, generator=generator, dtype=torch.float64),
        torch.tensor(0.0, dtype=torch.float64),
        torch.tensor(1.0, dtype=torch.float64),
    )
    return tuple(tensor.to(device) for tensor in inputs)
