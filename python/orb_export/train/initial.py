"""The model before the first step: seeded weights, and everything that a fit to the data gives for free."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from orb_export.model import OrbConfig, OrbV3
from orb_export.model.angular import HARMONICS

from .config import TrainConfig
from .data import Sample, fit_references

# The normalizers start from the statistics of the whole training set with the weight of this many batches.
INITIAL_COUNT = 1000
# 1 / sqrt(<SiLU(x)^2>) of a unit normal x: layers that follow an activation keep the scale of the signal.
SILU_GAIN = 1.68
# Share of the anisotropic harmonics (l > 0) in the first layer: an energy that begins nearly as a function of
# distances has forces that correlate with true ones, and training does not wait for that to arise from noise.
ANISOTROPY = 0.1
SCALE_SAMPLES = 32  # structures that set the scale of the edge features


def new_model(config: TrainConfig, samples: Sequence[Sample]) -> OrbV3:
    """A conservative model with seeded weights, and references and normalizers fitted to the training set."""
    torch.manual_seed(config.seed)
    model = OrbV3(
        OrbConfig(
            kind="conservative",
            max_neighbors=config.max_neighbors,
            channels=config.channels,
            hidden=config.hidden,
            head_hidden=config.head_hidden,
            layers=config.layers,
            name=config.name,
            description=config.description,
            elements=tuple(sorted({int(z) for sample in samples for z in sample.graph.numbers})),
        )
    )
    with torch.no_grad():
        _initialize_layers(model)
        _scale_edge_encoder(model, samples[:: math.ceil(len(samples) / SCALE_SAMPLES)])
        references = fit_references(samples)
        model.energy_head.reference.copy_(references)
    model = model.to(getattr(torch, config.dtype))
    _set_statistics(model, samples, references)
    return model


def _initialize_layers(model: OrbV3) -> None:
    """Normal weights that keep the variance of the signal, and no biases: geometry decides the features.

    With the default of torch, the small edge features drown in the biases of the layers above them.
    """
    for name, layer in model.named_modules():
        if isinstance(layer, nn.Linear):
            gain = 1.0 if name.endswith(("first", "gate")) else SILU_GAIN
            nn.init.normal_(layer.weight, std=gain / math.sqrt(layer.in_features))
            nn.init.zeros_(layer.bias)


def _scale_edge_encoder(model: OrbV3, samples: Sequence[Sample]) -> None:
    """Bring its first layer to unit scale on data, smooth and nearly isotropic at first.

    Radial function k gets 1/k, since forces of random weights grow with its wavenumber.
    """
    encoder = model.network.edge_encoder
    weight = encoder.block.mlp.first.weight.view(model.config.hidden, -1, HARMONICS)  # (H, K, 16)
    weight[:, :, 1:] *= ANISOTROPY
    weight /= torch.arange(1, weight.shape[1] + 1)[None, :, None]
    vectors = [sample.graph.vectors for sample in samples if sample.n_edges]
    if vectors:
        features, _ = encoder.features(torch.cat(vectors))  # (E, 128)
        weight /= (features @ encoder.block.mlp.first.weight.T).std().clamp(min=1e-6)


def _set_statistics(model: OrbV3, samples: Sequence[Sample], references: Tensor) -> None:
    residuals = torch.cat(
        [(s.labels.energy - references[s.graph.numbers].sum()) / len(s.graph.numbers) for s in samples]
    )
    stress = torch.cat([s.labels.stress for s in samples])
    for normalizer, values in (
        (model.energy_head.normalizer, residuals),
        (model.forces_normalizer, torch.cat([s.labels.forces for s in samples])),
        (model.stress_normalizer, stress[stress.isfinite().all(dim=1)]),
    ):
        if values.numel() > 1 and values.var() > 0:
            normalizer.mean.fill_(float(values.mean()))
            normalizer.var.fill_(float(values.var()))
            normalizer.count.fill_(INITIAL_COUNT)
