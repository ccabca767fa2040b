"""AOTInductor: energy and gradient traced into one graph and compiled ahead of time, for any size."""

import contextlib
import copy
import platform
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch
from torch.export import Dim, ExportedProgram, export
from torch.fx.experimental import _config
from torch.fx.experimental.proxy_tensor import make_fx

from orb_export import ops  # noqa: F401  (registers the operators that cpu_passes uses)
from orb_export.export import cpu_passes
from orb_export.export.program import contract_program, example_inputs
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
    options: dict[str, Any] = {"freezing": True}  # weights are constants: fold what depends on them alone
    levels = [name for name in processor()["features"] if name.startswith("x86-64-")]
    if levels:
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


def trace(model: OrbV3) -> ExportedProgram:
    """The differentiated program with dynamic numbers of atoms (1 and more) and edges (0 and more)."""
    inputs = example_inputs(model.device)
    atoms, edges = Dim("atoms", min=1, max=1 << 31), Dim("edges", min=0, max=1 << 40)
    shapes: tuple[dict[int, Any], ...] = ({0: atoms}, {0: edges}, {0: edges}, {0: edges}, {}, {})
    with _sizes_from_zero():
        tracer = make_fx(contract_program(model), tracing_mode="symbolic", _allow_non_fake_inputs=True)
        traced = tracer(*inputs)
        program: ExportedProgram = export(traced, inputs, dynamic_shapes=shapes, strict=False)
        table = torch.export.default_decompositions()
        del table[torch.ops.aten.index_add.default]  # cpu_passes looks for it
        program = program.run_decompositions(table)
        return program


def compile_aoti(model: OrbV3, path: Path) -> None:
    """Write the AOTInductor package of a model to `path` (.pt2), without metadata."""
    model = copy.deepcopy(model).requires_grad_(False)  # the caller keeps training
    with _quiet(), _sizes_from_zero():
        program = trace(model)
        if model.device.type == "cpu":
            cpu_passes.register_fakes()
            cpu_passes.apply(program.graph_module)
        torch._inductor.aoti_compile_and_package(
            program, package_path=str(path), inductor_configs=_inductor_options()
        )
