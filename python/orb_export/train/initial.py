"""The model before the first step: weights of a seed or of another model, and what a fit to data gives."""

import logging
import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from ase.data import atomic_numbers
from numpy.typing import NDArray
from torch import Tensor, nn

from orb_export import checkpoint
from orb_export.model import OrbConfig, OrbV3
from orb_export.model.angular import HARMONICS
from orb_export.model.heads import StressHead

from . import equivariant
from .catalog import Catalog, StructureSet, fit_references
from .config import ModelOptions, StartOptions, TrainConfig
from .data import Sample, collate
from .losses import predict

log = logging.getLogger(__name__)

# The normalizers start from the statistics of the whole training set with the weight of this many batches.
INITIAL_COUNT = 1000
# Share of the anisotropic harmonics (l > 0) in the first layer: an energy that begins nearly as a function of
# distances has forces that correlate with true ones, and what random directions add must be unlearned first.
ANISOTROPY = 0.01
SCALE_SAMPLES = 32  # structures that set the scale of the edge features
# Standard deviation of the frequencies (per unit of charge or spin) of the conditioning: neighboring values
# begin similar, where frequencies of order 1 would make every one unrelated to the next.
CONDITION_FREQUENCY = 0.1
CONDITION_GAIN = 0.3
# Forces of a new conservative model are at least this share of the true ones. Energies of one composition
# hardly differ (a liquid): in units of their spread forces would begin a thousand times too small and stall.
FORCE_SHARE = 0.05
REFIT_STRUCTURES = 2000  # whose predictions refitted references of a model take into account, at most
TRUNK = "network."


def architecture(config: TrainConfig) -> OrbConfig:
    """What `config` asks for; of `start`, what that model is. Elements and labels come from data later."""
    if config.start is not None and config.start.transfer == "all":
        return load_start(config.start).config
    options = config.model or ModelOptions()
    channels, hidden, head_hidden, layers = options.dimensions()
    return OrbConfig(
        kind=options.kind,
        max_neighbors=options.max_neighbors,
        channels=channels,
        hidden=hidden,
        head_hidden=head_hidden,
        layers=layers,
        has_charge_spin=options.charge_spin,
        name=config.name,
        description=config.description,
    )


def load_start(start: StartOptions) -> OrbV3:
    """The model that a run starts from, float32 or as stored."""
    weights = Path(start.weights) if start.weights is not None else None
    return checkpoint.load(start.model, weights=weights, max_neighbors=start.max_neighbors)


def initial_model(config: TrainConfig, structures: StructureSet, catalog: Catalog) -> OrbV3:
    """The model of a run, in the precision of the run, with references and normalizers as the config says."""
    dtype = torch.float64 if config.machine.precision == "float64" else torch.float32
    if config.start is not None and config.start.transfer == "all":
        model = _continued(load_start(config.start).to(dtype), config, catalog)
        references = model.energy_head.reference.detach().to(torch.float64).clone()
        if config.reference_mode == "refitted":
            references = references + _missing_references(model, structures, catalog)
    else:
        model = _fresh(config, structures, catalog).to(dtype)
        references = fit_references(catalog.composition, catalog.energy)
        _set_statistics(model, catalog, references)
    for symbol, value in config.references.values.items():
        references[atomic_numbers[symbol]] = value
    with torch.no_grad():
        model.energy_head.reference.copy_(references)
    if config.reference_mode == "given":
        _check_given(config, catalog)
        _set_energy_statistics(model, catalog, references)
    new = config.start is None or config.start.transfer == "trunk"
    if new and model.config.kind == "conservative" and config.denoising is None:
        _raise_forces(model, _spread(structures, catalog))
    model.energy_head.reference.requires_grad_(config.reference_mode == "trained")
    model.decoder.requires_grad_(False)  # only denoising uses it
    return model.train()


def _check_given(config: TrainConfig, catalog: Catalog) -> None:
    given = {atomic_numbers[symbol] for symbol in config.references.values}
    if missing := sorted(set(catalog.elements) - given):
        raise ValueError(
            f"train: `references.values` lacks atomic numbers {missing}, which occur in the data"
        )


def _continued(model: OrbV3, config: TrainConfig, catalog: Catalog) -> OrbV3:
    if unknown := sorted(set(catalog.elements) - set(model.config.known_elements)):
        raise ValueError(
            f"train: `start.model` does not know atomic numbers {unknown}, which occur in the data"
        )
    narrowed = config.start is not None and config.start.elements == "data"
    elements = catalog.elements if narrowed else model.config.elements
    copy = OrbV3(renamed(model.config, config, elements)).to(model.dtype)
    copy.load_state_dict(model.state_dict())
    return copy


def renamed(architecture: OrbConfig, config: TrainConfig, elements: tuple[int, ...]) -> OrbConfig:
    """The same sizes under the name and description of the run."""
    return OrbConfig(
        **vars(architecture) | {"name": config.name, "description": config.description, "elements": elements}
    )


def _missing_references(model: OrbV3, structures: StructureSet, catalog: Catalog) -> Tensor:
    """What per-element energies would add to the predictions of `model`: least squares on composition."""
    chosen = np.random.default_rng(0).permutation(len(catalog))[:REFIT_STRUCTURES]
    part = catalog.take(np.sort(chosen))
    errors = np.empty(len(part))
    model.eval()
    for i, row in enumerate(part.rows):
        graph, labels = collate([structures[row]])
        errors[i] = float(labels.energy) - float(predict(model, graph).energy.detach())
    return fit_references(part.composition, errors)


def _fresh(config: TrainConfig, structures: StructureSet, catalog: Catalog) -> OrbV3:
    torch.manual_seed(config.seed)
    model = OrbV3(renamed(architecture(config), config, catalog.elements))
    with torch.no_grad():
        _initialize_layers(model)
        features = _edge_features(model, _spread(structures, catalog))
        _scale_edge_encoder(model, features)
        if config.optimizer.equivariant:
            equivariant.initialize(model, features)
    if config.start is not None:  # transfer of the trunk
        source = load_start(config.start)
        trunk = {name: value for name, value in source.state_dict().items() if name.startswith(TRUNK)}
        ours, theirs = model.config, source.config
        differing = [
            f"`{name}` {getattr(theirs, name)} there and {getattr(ours, name)} here"
            for name in ("channels", "hidden", "layers", "has_charge_spin")
            if getattr(theirs, name) != getattr(ours, name)
        ]
        if differing:
            raise ValueError(f"train: the trunk of `start.model` does not fit: {', '.join(differing)}")
        model.load_state_dict(model.state_dict() | trunk)
    return model


def _initialize_layers(model: OrbV3) -> None:
    """Normal weights that keep the variance of the signal, and no biases: geometry decides the features.

    With the default of torch, the small edge features drown in the biases of the layers above them.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            gain = 1.0 if name.endswith(("first", "gate")) else equivariant.SILU_GAIN
            gain = CONDITION_GAIN if ".shift." in name else gain
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)
    if model.config.has_charge_spin:
        for frequencies in model.network.conditioning.parameters():
            frequencies.mul_(CONDITION_FREQUENCY)


def _edge_features(model: OrbV3, samples: Sequence[Sample]) -> Tensor:
    """What the first layer of the edge encoder reads: (E, 128)."""
    vectors = torch.cat([sample.graph.vectors for sample in samples])
    features: Tensor = model.network.edge_encoder.features(vectors)[0]
    return features


def _scale_edge_encoder(model: OrbV3, features: Tensor) -> None:
    """Bring its first layer to unit scale on data, smooth and nearly isotropic at first.

    Radial function k gets 1/k, since forces of random weights grow with its wavenumber.
    """
    first = model.network.edge_encoder.block.mlp.first
    weight = first.weight.view(model.config.hidden, -1, HARMONICS)  # (H, K, 16)
    if model.config.kind == "conservative":  # direct forces are read off the anisotropy itself
        weight[:, :, 1:] *= ANISOTROPY
    weight /= torch.arange(1, weight.shape[1] + 1)[None, :, None]
    if len(features):
        weight /= (features @ first.weight.T).std().clamp(min=1e-6)


def _spread(structures: StructureSet, catalog: Catalog) -> list[Sample]:
    """Structures from all over the set, SCALE_SAMPLES at most."""
    return [structures[row] for row in catalog.rows[:: math.ceil(len(catalog) / SCALE_SAMPLES)]]


def _raise_forces(model: OrbV3, samples: Sequence[Sample]) -> None:
    """Enlarge the last layer of the energy head until forces are FORCE_SHARE of the labels.

    Energies stay centered.
    """
    model.eval()
    predicted = true = 0.0
    for sample in samples:
        graph, labels = collate([sample])
        predicted += float(predict(model, graph).forces.detach().square().sum())
        true += float(labels.forces.square().sum())
    if predicted == 0.0 or predicted >= FORCE_SHARE**2 * true:
        return
    head = model.energy_head
    with torch.no_grad():
        head.mlp.second.weight.mul_(FORCE_SHARE * math.sqrt(true / predicted))
    errors = []
    for sample in samples:
        graph, labels = collate([sample])
        difference = predict(model, graph).energy.detach() - labels.energy
        errors.append(float(difference / graph.counts))
    with torch.no_grad():
        head.mlp.second.bias.sub_(float(np.mean(errors)) / float(head.normalizer.std()))


def _set_statistics(model: OrbV3, catalog: Catalog, references: Tensor) -> None:
    _set_energy_statistics(model, catalog, references)
    count = 3 * int(catalog.n_atoms.sum())
    total, squares = catalog.forces[:, 0].sum(), catalog.forces[:, 1].sum()
    mean = total / count
    variance = (squares - count * mean * mean) / max(1, count - 1)
    stress = catalog.stress[np.isfinite(catalog.stress).all(axis=1)]
    if model.config.kind == "conservative":
        _fill(model.forces_normalizer, mean, variance)
        _fill_from(model.stress_normalizer, stress)
        return
    _fill(model.force_head.normalizer, mean, variance)
    if isinstance(model.stress_head, StressHead):
        _fill_from(model.stress_head.diagonal_normalizer, stress[:, :3])
        _fill_from(model.stress_head.offdiagonal_normalizer, stress[:, 3:])


def _set_energy_statistics(model: OrbV3, catalog: Catalog, references: Tensor) -> None:
    residuals = catalog.energy - catalog.composition[:, : len(references)] @ references.numpy()
    _fill_from(model.energy_head.normalizer, residuals / catalog.n_atoms)


def _fill_from(normalizer: nn.Module, values: NDArray[np.float64]) -> None:
    if values.size > 1:
        _fill(normalizer, float(values.mean()), float(values.var(ddof=1)))


def _fill(normalizer: nn.Module, mean: float, variance: float) -> None:
    if variance > 0:
        for buffer, value in (("mean", mean), ("var", variance), ("count", INITIAL_COUNT)):
            normalizer.get_buffer(buffer).fill_(value)
