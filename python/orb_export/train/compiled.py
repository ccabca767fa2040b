"""Predictions whose forward and backward passes are compiled, for any numbers of atoms, edges and graphs.

The energy and its gradient are traced into one graph of operations on weights and batch. The loss of that
graph's results stays ordinary torch, and its backward pass ends in the compiled derivative of the graph: the
second derivatives of a conservative model, which dominate its step. Every pass is compiled once.
"""

import contextlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch._inductor.compile_fx import compile_fx, compile_fx_inner
from torch._inductor.cpp_builder import get_cpp_compiler
from torch._inductor.decomposition import select_decomp_table
from torch._inductor.exc import InvalidCxxCompiler
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.func import functional_call
from torch.fx import GraphModule
from torch.fx.experimental import _config
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext
from torch.utils import _pytree as pytree

from orb_export import ops  # noqa: F401  (registers the operators that cpu_passes uses)
from orb_export.export import cpu_passes
from orb_export.graph import Graph
from orb_export.model import OrbV3

from .catalog import Catalog
from .config import TrainConfig
from .losses import Passes, Prediction, finished, passes

# Edges of a run times weights of its model from which on compiling pays: about a minute of one core each.
_WORTH_COMPILING = 2e12

# Sizes of the batch that is traced: all different, so that no two are taken to be the same.
_ATOMS, _EDGES, _GRAPHS = 11, 29, 5
_KEPT = {torch.ops.aten.index_add.default}  # cpu_passes looks for it


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings of torch about its own internals."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _any_size() -> contextlib.AbstractContextManager[None]:
    """Without it torch takes a dynamic size to be never 0 or 1, but a batch of one structure is common."""
    patch: contextlib.AbstractContextManager[None] = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    return patch


class _Passes(nn.Module):
    """`passes` as a module, whose weights functional_call can replace."""

    def __init__(self, model: OrbV3) -> None:
        super().__init__()
        self.model = model

    def forward(self, graph: Graph) -> Passes:
        return passes(self.model, graph, differentiable=True)


def _weights(model: OrbV3) -> list[Tensor]:
    # copies of the statistics: the loss updates them between forward and backward pass
    return [*model.parameters(), *(buffer.clone() for buffer in model.buffers())]


def _example(device: torch.device) -> Graph:
    """A batch whose values do not matter."""

    def integers(size: int) -> Tensor:
        return torch.zeros(size, dtype=torch.int64, device=device)

    def numbers(*sizes: int) -> Tensor:
        return torch.zeros(sizes, dtype=torch.float64, device=device)

    return Graph(
        numbers=integers(_ATOMS),
        centers=integers(_EDGES),
        neighbors=integers(_EDGES),
        vectors=numbers(_EDGES, 3),
        batch=integers(_ATOMS),
        counts=integers(_GRAPHS),
        charge=numbers(_GRAPHS),
        spin=numbers(_GRAPHS),
        cell=numbers(_GRAPHS, 3, 3),
        positions=numbers(_ATOMS, 3),
    )


def _fakes(model: OrbV3) -> list[Tensor]:
    """Stand-ins of weights and batch; the first sizes of the batch are symbols."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)

    def fake(tensor: Tensor, first: DimDynamic) -> Tensor:
        sizes = [first, DimDynamic.STATIC, DimDynamic.STATIC][: tensor.dim()]
        stand_in: Tensor = mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(sizes))
        return stand_in

    weights = [fake(tensor, DimDynamic.STATIC) for tensor in _weights(model)]
    return [*weights, *(fake(tensor, DimDynamic.DUCK) for tensor in _example(model.device))]


def _lowered(module: GraphModule, inputs: Sequence[Any], **options: Any) -> Any:
    return compile_fx_inner(cpu_passes.apply(module), inputs, **options)


def _traced(function: Callable[..., list[Tensor]], inputs: list[Tensor]) -> GraphModule:
    """The operations of a function, those of gradients inside it among them, as one differentiable graph."""
    program = make_fx(function, _allow_non_fake_inputs=True)(*inputs)
    for node in list(program.graph.nodes):
        # autograd's saved tensors are recorded as detached, which would end the second derivative
        if node.target is torch.ops.aten.detach.default:
            node.replace_all_uses_with(node.args[0])
            program.graph.erase_node(node)
    program.graph.eliminate_dead_code()
    program.recompile()
    return program


def is_compiled(config: TrainConfig, model: OrbV3, training: Catalog) -> bool:
    """Whether a run on these structures is compiled, as `machine.compile` says.

    Raises ValueError when it is to be and cannot.
    """
    machine = config.machine
    possible = config.denoising is None and machine.precision != "bf16-mixed" and machine.strategy != "fsdp"
    if machine.compile != "auto":
        if machine.compile and not possible:
            raise ValueError(
                "train: `machine.compile` is true but must be false with denoising, bf16-mixed and fsdp"
            )
        return machine.compile
    gpu = machine.accelerator == "gpu" or (machine.accelerator == "auto" and torch.accelerator.is_available())
    edges = int(training.n_edges.sum()) * config.optimizer.epochs
    weights = sum(weight.numel() for weight in model.parameters())
    return possible and not gpu and edges * weights > _WORTH_COMPILING and _has_compiler()


def _has_compiler() -> bool:
    try:
        get_cpp_compiler()
    except InvalidCxxCompiler:
        return False
    return True


class CompiledPredict:
    """`losses.predict(model, graph, differentiable=True)`, compiled at first use."""

    def __init__(self, model: OrbV3) -> None:
        self.model = model
        self._call: Callable[..., Any] | None = None
        self._spec: pytree.TreeSpec | None = None

    def __call__(self, graph: Graph) -> Prediction:
        """Differentiable results of a batch; weights must stay until its backward pass."""
        if self._call is None:
            self._call = self._compiled()
        assert self._spec is not None
        found: Passes = pytree.tree_unflatten(self._call(*_weights(self.model), *graph), self._spec)
        # the confidence head reads detached features, and nothing is detached in the compiled part
        logits = self.model.confidence_head(found.outputs.node_features)
        found = found._replace(outputs=found.outputs._replace(confidence_logits=logits))
        return finished(self.model, graph, found)

    def _compiled(self) -> Callable[..., Any]:
        names = [name for name, _ in [*self.model.named_parameters(), *self.model.named_buffers()]]
        module = _Passes(self.model)

        def function(*inputs: Tensor) -> list[Tensor]:
            state = {f"model.{name}": tensor for name, tensor in zip(names, inputs, strict=False)}
            found: Passes = functional_call(module, state, (Graph(*inputs[len(names) :]),))
            nothing = found.outputs.node_features.new_zeros(0)
            found = found._replace(outputs=found.outputs._replace(confidence_logits=nothing))
            leaves, self._spec = pytree.tree_flatten(found)
            return leaves

        with _quiet(), _any_size():
            inputs = _fakes(self.model)
            program = _traced(function, inputs)
            cpu_passes.register_fakes()
            table = {op: rule for op, rule in select_decomp_table().items() if op not in _KEPT}
            call: Any = compile_fx(program, inputs, inner_compile=_lowered, decompositions=table)
        return call  # type: ignore[no-any-return]
