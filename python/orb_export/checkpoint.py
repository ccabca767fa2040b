"""Weights in and out: checkpoints of orb-models, and our own files (safetensors, the config in the header).

A published checkpoint is a flat state dict that holds neither the neighbor cap nor the kind of the model. The
kind and all sizes follow from keys and shapes; the cap comes from the model's name or from the caller.
"""

import dataclasses
import json
import pickle
import re
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from orb_export import variants
from orb_export.model import OrbConfig, OrbV3

CONFIG_KEY = "orb_export_config"  # in the metadata of our safetensors files

# Our name -> upstream's, applied in this order to every key of our state dict.
_TO_UPSTREAM = (
    (r"^network\.embedding\.", "model.atom_emb.embeddings."),
    (r"^network\.conditioning\.(charge|spin)_frequencies$", r"model.conditioner.\1_embedding.W"),
    (r"^network\.node_encoder\.", "model._encoder._node_fn."),
    (r"^network\.edge_encoder\.block\.", "model._encoder._edge_fn."),
    (r"^network\.edge_encoder\.radial\.", "model.rbf_transform."),
    (r"^network\.layers\.", "model.gnn_stacks."),
    (r"^decoder\.", "model._decoder.node_fn.mlp."),
    (r"^(energy|force|stress|confidence)_head\.", r"heads.\1."),
    (r"^heads\.force\.", "heads.forces."),
    (r"^(forces|stress)_normalizer\.", r"grad_\1_normalizer."),
    (r"\.diagonal_normalizer\.", ".diag_normalizer."),
    (r"\.offdiagonal_normalizer\.", ".offdiag_normalizer."),
    (r"normalizer\.mean$", "normalizer.bn.running_mean"),
    (r"normalizer\.var$", "normalizer.bn.running_var"),
    (r"normalizer\.count$", "normalizer.bn.num_batches_tracked"),
    (r"\.reference$", ".reference.linear.weight"),
    (r"\.wavenumbers$", ".bessel_weights"),
    (r"\.node_block\.", "._node_mlp."),
    (r"\.edge_block\.", "._edge_mlp."),
    (r"\.receive_gate\.", "._receive_attn."),
    (r"\.send_gate\.", "._send_attn."),
    (r"\.shift\.linear\.", "._cond_node_proj."),
    (r"\.norm\.", ".layer_norm."),
    (r"\.first\.", ".NN-0."),
    (r"\.second\.", ".NN-1."),
    (r"\.third\.", ".NN-2."),
)

# Spellings of older files -> today's upstream spelling.
_HISTORIC = (
    (r"^node_head\.", "heads.forces."),
    (r"^graph_head\.", "heads.energy."),
    (r"^stress_head\.", "heads.stress."),
    (r"normaliser\.", "normalizer."),
)


def _renamed(key: str, rules: tuple[tuple[str, str], ...]) -> str:
    for pattern, replacement in rules:
        key = re.sub(pattern, replacement, key)
    return key


def _modernized(state: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Any historic state dict with today's upstream keys and shapes."""
    tensors = {_renamed(key, _HISTORIC): tensor for key, tensor in state.items()}
    if not any(key.startswith("heads.") for key in tensors):
        tensors = {f"model.{key}": tensor for key, tensor in tensors.items()}
    if any(key.startswith("model.model.") for key in tensors):  # wrapped in a denoiser with keys of its own
        tensors = {
            key.removeprefix("model.") if key.startswith("model.") else key: tensor
            for key, tensor in tensors.items()
            if key.startswith("model.model.") or not key.startswith("model.")
        }
    reference = "heads.energy.reference.linear.weight"
    if reference in tensors and tensors[reference].ndim == 2:  # written by fine-tuning scripts of one period
        tensors[reference] = tensors[reference].squeeze(0)
    return tensors


def _listed(keys: set[str]) -> str:
    shown = sorted(keys)
    return (
        ", ".join(shown[:20]) + (f" and {len(shown) - 20} more" if len(shown) > 20 else "")
        if shown
        else "none"
    )


def infer_config(
    state: Mapping[str, Tensor], max_neighbors: int, name: str, description: str = ""
) -> OrbConfig:
    """The configuration of an upstream state dict in today's spelling. Raises ValueError if not Orb-v3."""
    needed = {
        "model.rbf_transform.bessel_weights",
        "model.atom_emb.embeddings.weight",
        "model._encoder._node_fn.mlp.NN-0.weight",
        "heads.energy.mlp.NN-0.weight",
    }
    if not needed <= state.keys():
        raise ValueError(
            f"checkpoint: `{name}` is no Orb-v3 checkpoint; missing keys: {_listed(needed - state.keys())}"
        )
    direct = any(key.startswith("heads.forces.") for key in state)
    layers = {key.split(".")[2] for key in state if key.startswith("model.gnn_stacks.")}
    return OrbConfig(
        kind="direct" if direct else "conservative",
        max_neighbors=max_neighbors,
        channels=state["model.atom_emb.embeddings.weight"].shape[1],
        hidden=state["model._encoder._node_fn.mlp.NN-0.weight"].shape[0],
        head_hidden=state["heads.energy.mlp.NN-0.weight"].shape[0],
        layers=len(layers),
        has_charge_spin=any(key.startswith("model.conditioner.") for key in state),
        has_stress=not direct or any(key.startswith("heads.stress.") for key in state),
        name=name,
        description=description,
    )


def _fill(model: OrbV3, state: Mapping[str, Tensor], names: Mapping[str, str], origin: str) -> None:
    """Copy tensors into the model; `names` maps its keys to those of `state`. ValueError on a misfit."""
    missing, unexpected = set(names.values()) - state.keys(), state.keys() - set(names.values())
    if missing or unexpected:
        raise ValueError(
            f"checkpoint: `{origin}` does not fit; missing keys: {_listed(missing)}; "
            f"unexpected keys: {_listed(set(unexpected))}"
        )
    own = model.state_dict()
    for key, theirs in names.items():
        tensor = state[theirs]
        if tensor.numel() == 1 and own[key].numel() == 1:  # counters come as () and as (1,)
            tensor = tensor.reshape(own[key].shape)
        if tensor.shape != own[key].shape:
            raise ValueError(
                f"checkpoint: `{origin}`: {theirs} has shape {tuple(tensor.shape)} but must have shape "
                f"{tuple(own[key].shape)}"
            )
        own[key].copy_(tensor)


def from_upstream_state_dict(
    state: Mapping[str, Tensor],
    max_neighbors: int,
    *,
    name: str = "orb-v3",
    description: str = "",
    dtype: torch.dtype = torch.float32,
) -> OrbV3:
    """A model (in eval mode) from a state dict of orb-models, in any historic spelling.

    Raises ValueError that lists all missing and unexpected keys, or names the tensor of a wrong shape.
    """
    tensors = _modernized(state)
    config = infer_config(tensors, max_neighbors, name, description)
    model = OrbV3(config).to(dtype)
    _fill(model, tensors, {key: _renamed(key, _TO_UPSTREAM) for key in model.state_dict()}, name)
    return model.eval()


def to_upstream_state_dict(model: OrbV3) -> dict[str, Tensor]:
    """The state dict that orb-models 0.5.5 loads strictly: its keys, its shapes, dtype as in the model."""
    state = {
        _renamed(key, _TO_UPSTREAM): tensor.detach().clone() for key, tensor in model.state_dict().items()
    }
    counter = "heads.energy.normalizer.bn.num_batches_tracked"
    state[counter] = state[counter].reshape(1)  # the only counter that upstream stores with a dimension
    return state


def _read_upstream(path: Path) -> dict[str, Tensor]:
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except (pickle.UnpicklingError, RuntimeError, EOFError, KeyError, ValueError) as error:
        raise ValueError(f"checkpoint: `{path}` is not a readable checkpoint: {error}") from error
    if not isinstance(state, dict) or not all(isinstance(value, Tensor) for value in state.values()):
        raise ValueError(f"checkpoint: `{path}` holds {type(state).__name__} but must hold a flat state dict")
    return state


def _read_own(path: Path, dtype: torch.dtype | None) -> OrbV3:
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            header = (file.metadata() or {}).get(CONFIG_KEY)
            state = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 (not a dict)
    except safetensors.SafetensorError as error:
        raise ValueError(f"checkpoint: `{path}` is not a readable safetensors file: {error}") from error
    if header is None:
        raise ValueError(f"checkpoint: `{path}` has no `{CONFIG_KEY}` in its header but must have one")
    try:
        config = OrbConfig(**json.loads(header))
    except (TypeError, json.JSONDecodeError) as error:
        raise ValueError(
            f"checkpoint: `{path}` has a config that this version cannot read: {error}"
        ) from error
    stored = next((tensor.dtype for key, tensor in state.items() if key.endswith("weight")), torch.float32)
    model = OrbV3(config).to(dtype or stored)
    _fill(model, state, {key: key for key in model.state_dict()}, str(path))
    return model.eval()


def load(
    model: str | Path,
    *,
    weights: str | Path | None = None,
    dtype: torch.dtype | None = None,
    max_neighbors: int | None = None,
    device: torch.device | str = "cpu",
) -> OrbV3:
    """A model in eval mode: from a family name (variants.py), a checkpoint of orb-models, or a file of ours.

    `weights`: a local file for a family name; without it the published file is downloaded once and cached.
    `dtype`: of the weights; default float32, for files of ours the stored one.
    `max_neighbors`: the neighbor cap; needed for a checkpoint whose file name does not tell the model.
    Raises ValueError for files that are not what they should be, FileNotFoundError, ConnectionError.
    """
    path = Path(model)
    is_file = path.suffix in (".ckpt", ".pt", ".pth", ".safetensors") or path.exists()
    variant = variants.by_file(path.name) if is_file else variants.get(str(model))
    if not is_file:
        assert variant is not None
        path = variants.weights_path(variant, weights)
    elif weights is not None:
        raise ValueError(
            f"checkpoint: `weights` is {str(weights)!r} but `model` names a file already: {path}"
        )
    if not path.is_file():
        raise FileNotFoundError(f"checkpoint: `{path}` does not exist")
    if path.suffix == ".safetensors":
        loaded = _read_own(path, dtype)
    else:
        loaded = _load_upstream(path, variant, max_neighbors, dtype or torch.float32)
    if max_neighbors is not None and loaded.config.max_neighbors != max_neighbors:
        loaded.config = dataclasses.replace(loaded.config, max_neighbors=max_neighbors)
    return loaded.to(device)


def _load_upstream(
    path: Path, variant: variants.Variant | None, max_neighbors: int | None, dtype: torch.dtype
) -> OrbV3:
    cap = variant.max_neighbors if max_neighbors is None and variant else max_neighbors
    if cap is None:
        raise ValueError(
            f"checkpoint: `max_neighbors` is None but must be given, since `{path.name}` is not the name of "
            "a published file: checkpoints do not store the neighbor cap (20 or 120)"
        )
    name, description = (variant.name, variant.description) if variant else (path.stem, "")
    model = from_upstream_state_dict(
        _read_upstream(path), cap, name=name, description=description, dtype=dtype
    )
    if variant:
        for field in ("kind", "has_charge_spin", "has_stress"):
            found, expected = getattr(model.config, field), getattr(variant, field)
            if found != expected:
                raise ValueError(
                    f"checkpoint: `{path}` has {field} {found!r} but {variant.name} has {expected!r}"
                )
    return model


def save(model: OrbV3, path: str | Path) -> None:
    """Write weights and config as one safetensors file; the config is JSON in the header."""
    path = Path(path)
    if path.suffix != ".safetensors":
        raise ValueError(f"checkpoint: `path` is {str(path)!r} but must end in .safetensors")
    config = json.dumps(dataclasses.asdict(model.config), sort_keys=True)
    state = {key: tensor.contiguous().cpu() for key, tensor in model.state_dict().items()}
    temporary = path.with_name(path.name + ".partial")
    safetensors.torch.save_file(state, temporary, metadata={CONFIG_KEY: config})
    temporary.replace(path)


def convert(source: str | Path, destination: str | Path, *, max_neighbors: int | None = None) -> OrbV3:
    """Write a checkpoint in the format of the destination's suffix and return the model.

    `.safetensors` is ours, `.ckpt` that of orb-models; the source is anything that load() takes.
    """
    source, destination = Path(source), Path(destination)
    if destination.suffix not in (".safetensors", ".ckpt"):
        raise ValueError(
            f"convert: `destination` is {str(destination)!r} but must end in .safetensors or .ckpt"
        )
    model = load(source, max_neighbors=max_neighbors)
    if destination.suffix == ".safetensors":
        save(model, destination)
    else:
        temporary = destination.with_name(destination.name + ".partial")
        torch.save(to_upstream_state_dict(model), temporary)
        temporary.replace(destination)
    return model
