"""The model card that a run writes: what was trained on what, and how good it is."""

from collections.abc import Iterator, Mapping
from typing import Any

from ase.data import chemical_symbols

from orb_export.model import OrbV3

from .config import TrainConfig
from .estimate import parameters


def model_card(config: TrainConfig, model: OrbV3, structures: int, reports: Mapping[str, Any]) -> str:
    """Markdown; `reports` are the results of `report` by the name of the set."""
    return "\n".join([*_facts(config, model, structures), *_errors(reports), *_limits(model, reports)]) + "\n"


def _facts(config: TrainConfig, model: OrbV3, structures: int) -> Iterator[str]:
    shape = model.config
    yield f"# Model card: `{config.name}`"
    yield ""
    yield config.description or "(no description was given)"
    yield ""
    yield "| | |"
    yield "|---|---|"
    charge = ", conditioned on total charge and spin" if shape.has_charge_spin else ""
    yield f"| architecture | Orb-v3, {shape.kind}, up to {shape.max_neighbors} neighbors{charge} |"
    yield (
        f"| sizes | {shape.channels} channels, hidden {shape.hidden}, heads {shape.head_hidden}, "
        f"{shape.layers} layers; {parameters(model):,} weights |"
    )
    yield f"| elements | {' '.join(chemical_symbols[z] for z in shape.known_elements)} |"
    yield f"| training data | {structures:,} structures of {', '.join(config.data.train)} |"
    yield f"| start | {config.start.model if config.start else 'random weights'} |"
    yield f"| reference energies | {config.reference_mode} |"
    yield f"| licence | {config.licence} |"
    yield ""
    yield "The config of the run, beside this card, is all that is needed to repeat it."


def _errors(reports: Mapping[str, Any]) -> Iterator[str]:
    for name, found in reports.items():
        everything = found["all"]
        stress = f", stress {everything['stress_mae']:.3g} GPa" if "stress_mae" in everything else ""
        yield ""
        yield f"## {name}"
        yield (
            f"Mean absolute errors on {everything['structures']:,} structures: energy "
            f"{everything['energy_mae']:.3g} meV/atom, forces {everything['forces_mae']:.3g} eV/Å{stress}."
        )
        yield ""
        yield "| source | structures | energy meV/atom | forces eV/Å |"
        yield "|---|---|---|---|"
        for source, row in found["by source"].items():
            yield f"| {source} | {row['structures']} | {row['energy_mae']:.3g} | {row['forces_mae']:.3g} |"
        yield ""
        yield "| element | atoms | forces eV/Å |"
        yield "|---|---|---|"
        for symbol, row in found["by element"].items():
            yield f"| {symbol} | {row['atoms']} | {row['forces_mae']:.3g} |"
        if rotation := found["rotational gradient"]:
            yield ""
            yield (
                f"Norm of the rotational gradient, meV per atom: mean {rotation['mean']:.3g}, median "
                f"{rotation['median']:.3g}, largest {rotation['largest']:.3g}."
            )


def _limits(model: OrbV3, reports: Mapping[str, Any]) -> Iterator[str]:
    yield ""
    yield "## Known limits"
    yield "- Elements and arrangements that the training data lack are outside of what the model knows."
    yield "- The energy is a function of the mean over all atoms, not a sum over fragments."
    yield "- Rotational invariance is learned, not built in."
    if model.config.kind == "direct":
        yield "- Forces are not the gradient of the energy: energy is not conserved in dynamics."
    if not reports:
        yield "- No structures were held out: nothing is known about its errors."
