"""AOTInductor: energy and gradient traced into one graph and compiled ahead of time, for any size."""

import contextlib
import copy
import platform
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch._inductor.package.package import package_aoti
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental import _config
from torch.fx.experimental.proxy_tensor import make_fx
from torch.fx.experimental.symbolic_shapes import DimDynamic, ShapeEnv, StatelessSymbolicContext

from orb_export import (
    artefact,
    ops,  # noqa: F401  (registers the operators that cpu_passes uses)
)
from orb_export.contract import WEIGHTS_ENTRY
from orb_export.export import cpu_passes, gpu_passes, steps
from orb_export.export.packed import packed
from orb_export.export.program import contract_program, example_inputs
from orb_export.export.tf32 import in_tf32
from orb_export.model import OrbV3


def processor() -> dict[str, Any]:
    """`arch` of the metadata: machine, and the features the code needs, by the names the runtime checks."""
    from torch._inductor.cpu_vec_isa import valid_vec_isa_list

    machine = platform.machine()
    if machine != "x86_64":
        return {"machine": machine, "features": []}
    names = " ".join(str(isa) for isa in valid_vec_isa_list())
    if "avx512" not in names:
        return {"machine": machine, "features": ["x86-64-v3"] if "avx2" in names else []}
    return {
        "machine": machine,
        "features": ["x86-64-v4", *(["avx512_vnni"] if "avx512_vnni" in names else [])],
    }


def _inductor_options() -> dict[str, Any]:
    from torch._inductor import config

    # Else loops would have the threads of this process in every process that opens the file. With Inductor's
    # own remedy, dynamic_threads, energies were wrong where the numbers differ (torch 2.13). What takes time
    # are our operators and oneDNN's products, which have the threads of the process that runs them.
    options: dict[str, Any] = {"cpp.threads": 1}
    levels = [name for name in processor()["features"] if name.startswith("x86-64-")]
    if levels:
        if not hasattr(config.cpp, "march"):
            raise ValueError(
                f"export: `format` is aoti but Inductor of torch {torch.__version__} can compile for this "
                "very processor only: install torch 2.13 or newer, or export with --format torchscript"
            )
        # not "native": a named level is what the metadata can state and another machine can check
        options["cpp.march"] = levels[0]
    return options


def _sizes_from_zero() -> contextlib.AbstractContextManager[None]:
    """Without it torch takes a dynamic size to be never 0 or 1, and an isolated atom would need a trick."""
    patch: contextlib.AbstractContextManager[None] = _config.patch(backed_size_oblivious=True)  # type: ignore[attr-defined]
    return patch


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Hides warnings of torch about its own internals; nothing in them is about the model."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


_ATOMS, _EDGES = Dim("atoms", min=1, max=1 << 31), Dim("edges", min=0, max=1 << 40)


def _fakes(inputs: tuple[Tensor, ...], shapes: tuple[dict[int, Any], ...]) -> list[Tensor]:
    """Stand-ins of the inputs whose sizes are symbols where `shapes` names them, the same for equal sizes."""
    mode = FakeTensorMode(shape_env=ShapeEnv(), allow_non_fake_inputs=True)

    def fake(tensor: Tensor, dynamic: dict[int, Any]) -> Tensor:
        sizes = [DimDynamic.DUCK if axis in dynamic else DimDynamic.STATIC for axis in range(tensor.dim())]
        result: Tensor = mode.from_tensor(tensor, symbolic_context=StatelessSymbolicContext(sizes))
        return result

    return [fake(*pair) for pair in zip(inputs, shapes, strict=True)]


def _traced(
    function: Callable[..., Any], inputs: tuple[Tensor, ...], shapes: tuple[dict[int, Any], ...]
) -> ExportedProgram:
    with _quiet(), _sizes_from_zero():
        traced = make_fx(function, _allow_non_fake_inputs=True)(*_fakes(inputs, shapes))
        program: ExportedProgram = export(traced, inputs, dynamic_shapes=shapes, strict=False)
        table = torch.export.default_decompositions()
        del table[torch.ops.aten.index_add.default]  # the passes look for it
        program = program.run_decompositions(table)
        return program


def trace(model: OrbV3) -> ExportedProgram:
    """The differentiated program with dynamic numbers of atoms (1 and more) and edges (0 and more)."""
    shapes: tuple[dict[int, Any], ...] = ({0: _ATOMS}, {0: _EDGES}, {0: _EDGES}, {0: _EDGES}, {}, {})
    return _traced(contract_program(model), example_inputs(model.device), shapes)


def trace_step(model: OrbV3, step: str) -> ExportedProgram:
    """A step of the chain, with the weights of its piece as inputs after its own."""
    function, weights = steps.pure_function(model, step)
    dims = {name: Dim(name.replace(" ", "_"), min=0, max=1 << 40) for name in steps.DYNAMIC}
    sizes = {name: {0: dim} for name, dim in dims.items()}
    own: list[dict[int, Any]] = [
        sizes.get(str(given.shape[0]), {}) if given.shape else {} for given in steps.INPUTS[step]
    ]
    return _traced(function, (*steps.example(model, step), *weights), (*own, *({} for _ in weights)))


def _compile(program: ExportedProgram, device: torch.device, options: dict[str, Any]) -> Any:
    """The files that AOTInductor makes of a program."""
    with _quiet(), _sizes_from_zero():
        if device.type == "cpu":
            cpu_passes.register_fakes()
            cpu_passes.apply(program.graph_module)
        else:
            gpu_passes.apply(program.graph_module)
        inputs, keywords = program.example_inputs
        return torch._inductor.aot_compile(program.module(), inputs, keywords, options=options)


def compile_aoti(model: OrbV3, path: Path, with_steps: bool = True, precision: str = "float32") -> None:
    """Write the AOTInductor package of a model to `path` (.pt2), without metadata.

    It holds the whole program, `model`, and with `with_steps` the steps of the chain and their weights.
    `precision`: of the matrix products of edges of a float32 model.
    """
    options = {**_inductor_options(), "aot_inductor.package": True}
    model = copy.deepcopy(model).requires_grad_(False)  # the caller keeps training
    packs = model.dtype == torch.float32 and model.device.type == "cpu"
    if packs:
        model = packed(model, precision)
    elif precision == "tf32":
        model = in_tf32(model)
    # freezing: folds what depends on constants alone
    programs = {"model": _compile(trace(model), model.device, {**options, "freezing": True})}
    names = steps.names(model.config.kind) if with_steps else ()
    for step in names:
        programs[step] = _compile(trace_step(model, step), model.device, options)
    package_aoti(str(path), programs)
    if with_steps:
        artefact.append_aligned(path, WEIGHTS_ENTRY, steps.weights(model))
