"""Ablations of the Orb-v3 report in small, one command each, as Markdown tables with the spread over seeds.

    python benchmarks/ablations.py equigrad neighbors kind distillation pretraining additivity optimizer
        equivariant confidence --data FOLDER [--sets mlearn_Si] [--epochs 10] [--seeds 3] [--runs DIR]
        [--output FILE]

FOLDER holds the sets, each with train.xyz and test.xyz. Every row is a model trained as by `orb-export train`
with the same settings but for what the ablation changes, on the same structures; runs lie in DIR and are
continued or reused. Errors are those on the test files.

equigrad      weight of the rotational gradient: from five times the default to 0 (report, Figure 3)
neighbors     20 neighbors against all
kind          direct against conservative
distillation  direct model trained on labels of the conservative one against one trained on the data
equivariant   weights tied to an equivariant network (`optimizer.equivariant`) against free ones
pretraining   trunk pretrained by denoising against random weights
additivity    weight of the penalty on energies that are not sums over atoms: 0, 0.1 and 1
optimizer     SOAP at 3e-3 with fresh and with older axes against Adam at 2e-3
confidence    force errors by what the confidence head of equivariant networks expects (report, Figure 4)
"""

import argparse
import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from orb_export import checkpoint
from orb_export.ase import OrbCalculator
from orb_export.model import OrbV3
from orb_export.model.heads import expected_error
from orb_export.train.config import LossOptions, TrainConfig, parse_config
from orb_export.train.data import collate, random_rotation, read_samples
from orb_export.train.label import Teacher, label_structures
from orb_export.train.losses import predict
from orb_export.train.report import evaluate, mean_errors, rotational
from orb_export.train.run import MODEL, train

ROTATIONS = 8  # of every test structure
CONFIDENCE_GROUPS = 6
Settings = dict[str, dict[str, Any]]


class Bench:
    """Where data and runs are, and the settings that all runs share."""

    def __init__(self, data: Path, sets: list[str], runs: Path, epochs: int, size: str) -> None:
        self.training = [str(data / name / "train.xyz") for name in sets]
        self.test = [str(data / name / "test.xyz") for name in sets]
        self.runs, self.epochs, self.size = runs, epochs, size

    def trained(self, name: str, seed: int, changes: Settings) -> OrbV3:
        """The model of a run, trained if it is not there yet."""
        folder = self.runs / f"{name}-{seed}"
        if not (folder / MODEL).is_file():
            train(self.config(name, seed, changes), folder, resume=(folder / "config.yaml").is_file())
        return checkpoint.load(folder / MODEL)

    def config(self, name: str, seed: int, changes: Settings) -> TrainConfig:
        """That of a run: the shared settings with `changes`, by section."""
        sections: dict[str, Any] = {
            "data": {"train": self.training},
            "model": {"size": self.size},
            "optimizer": {"name": "soap", "epochs": self.epochs, "learning_rate": 3e-3, "clip": 1.0},
            "machine": {"accelerator": "cpu"},
        }
        for section, options in changes.items():
            sections[section] = sections.get(section, {}) | options
        return parse_config({"name": name, "seed": seed, **sections}, name)

    def distilled(self, seed: int) -> OrbV3:
        """Direct, on labels of the conservative model of the same seed for the training structures."""
        self.trained("conservative", seed, {})
        teacher, labels = self.runs / f"conservative-{seed}" / MODEL, self.runs / f"labels-{seed}.xyz"
        calculator = Teacher(str(teacher), lambda: OrbCalculator(teacher))
        label_structures(calculator, self.training, labels, resume=labels.exists())
        changes: Settings = {"model": {"kind": "direct"}, "data": {"train": [str(labels)]}}
        return self.trained("direct-distilled", seed, changes)

    def equivariant(self, seed: int) -> OrbV3:
        """Conservative, with the weights of an equivariant network."""
        return self.trained("equivariant", seed, {"optimizer": {"equivariant": True}})

    def pretrained(self, seed: int) -> OrbV3:
        """Conservative, on the trunk of a denoising run over the same structures."""
        self.trained("denoising", seed, {"denoising": {}})
        trunk = str(self.runs / f"denoising-{seed}" / MODEL)
        return self.trained("pretrained", seed, {"start": {"model": trunk, "transfer": "trunk"}})


def variants(bench: Bench) -> dict[str, dict[str, Callable[[int], OrbV3]]]:
    """By ablation and row, what trains the model of a seed."""

    def plain(name: str, changes: Settings | None = None) -> Callable[[int], OrbV3]:
        return lambda seed: bench.trained(name, seed, changes or {})

    conservative, direct = plain("conservative"), plain("direct", {"model": {"kind": "direct"}})
    return {
        "equigrad": {
            "five times": plain("equigrad-5x", {"loss": {"equigrad": 5 * LossOptions().equigrad}}),
            "twice": plain("equigrad-2x", {"loss": {"equigrad": 2 * LossOptions().equigrad}}),
            "default": conservative,
            "off": plain("no-equigrad", {"loss": {"equigrad": 0.0}}),
        },
        "neighbors": {"all": conservative, "20": plain("neighbors-20", {"model": {"max_neighbors": 20}})},
        "kind": {"conservative": conservative, "direct": direct},
        "distillation": {"direct": direct, "direct, distilled": bench.distilled},
        "optimizer": {
            "soap": conservative,
            "soap, axes of 25 steps": plain("soap-25", {"optimizer": {"precondition_steps": 25}}),
            "adam": plain("adam", {"optimizer": {"name": "adam", "learning_rate": 2e-3}}),
        },
        "equivariant": {
            "off": conservative,
            "on": bench.equivariant,
        },
        "pretraining": {"random weights": conservative, "pretrained": bench.pretrained},
        "additivity": {
            "off": conservative,
            "0.1": plain("additivity-0.1", {"loss": {"additivity": 0.1}}),
            "1": plain("additivity-1", {"loss": {"additivity": 1.0}}),
        },
    }


def energy_spread(model: OrbV3, files: list[str]) -> float:
    """Standard deviation of a structure's energy under random rotations, mean over structures, meV/atom."""
    generator = torch.Generator().manual_seed(0)
    spreads = []
    for sample in read_samples(files, model.config.max_neighbors, model.config.has_charge_spin):
        energies = [
            float(predict(model, collate([sample.rotated(random_rotation(generator))])[0]).energy.detach())
            for _ in range(ROTATIONS)
        ]
        spreads.append(1e3 * np.std(energies) / sample.graph.numbers.numel())
    return float(np.mean(spreads))


def measured(model: OrbV3, files: list[str]) -> dict[str, float]:
    """What a row shows of one model."""
    model.eval().requires_grad_(False)
    samples = read_samples(files, model.config.max_neighbors, model.config.has_charge_spin)
    found = evaluate(model, samples)
    turning = rotational(found)
    return {
        "energy, meV/atom": mean_errors(found)["energy_mae"],
        "force, meV/Å": 1e3 * mean_errors(found)["forces_mae"],
        "rotational gradient, meV/atom": np.nan if turning is None else turning["mean"],
        "energy under rotation, meV/atom": energy_spread(model, files),
    }


class Table(NamedTuple):
    """Results of an ablation: `values[row][column][seed]`."""

    rows: list[str]
    columns: list[str]
    values: np.ndarray  # (rows, columns, seeds)

    def lines(self, corner: str) -> list[str]:
        """As Markdown."""
        head = [f"| {corner} | " + " | ".join(self.columns) + " |", "|" + "---|" * (len(self.columns) + 1)]
        cells = [[_with_spread(seeds) for seeds in row] for row in self.values]
        return head + [
            f"| {row} | " + " | ".join(texts) + " |" for row, texts in zip(self.rows, cells, strict=True)
        ]


def compared(bench: Bench, name: str, seeds: int) -> Table:
    """The models of an ablation, seed by seed."""
    results = {
        row: [measured(trained(seed), bench.test) for seed in range(1, seeds + 1)]
        for row, trained in variants(bench)[name].items()
    }
    columns = list(next(iter(results.values()))[0])
    values = [[[found[column] for found in row] for column in columns] for row in results.values()]
    return Table(list(results), columns, np.array(values))


def confidence(bench: Bench, seeds: int) -> Table:
    """Atoms of the test files in groups of equal size by their expected force error, and the errors found."""
    groups = []
    for seed in range(1, seeds + 1):
        model = bench.equivariant(seed).eval().requires_grad_(False)
        found = evaluate(model, read_samples(bench.test, model.config.max_neighbors))
        expected = expected_error(torch.from_numpy(found.confidence)).numpy()
        true = np.abs(found.forces[:, 3:] - found.forces[:, :3]).mean(axis=1)
        parts = np.array_split(np.argsort(expected), CONFIDENCE_GROUPS)
        groups.append([[1e3 * values[part].mean() for values in (expected, true)] for part in parts])
    names = [f"{part + 1} of {CONFIDENCE_GROUPS}" for part in range(CONFIDENCE_GROUPS)]
    return Table(names, ["expected error, meV/Å", "found, meV/Å"], np.moveaxis(np.array(groups), 0, -1))


def plot_bars(table: Table, path: Path) -> None:
    """A panel for each quantity, a bar for each row, with the spread over seeds."""
    columns = [i for i in range(len(table.columns)) if np.isfinite(table.values[:, i]).any()]
    figure = Figure(figsize=(3 * len(columns), 2.8), layout="tight")
    panels = figure.subplots(1, len(columns), squeeze=False)
    for panel, i in zip(panels[0], columns, strict=True):
        values = table.values[:, i]
        spread = values.std(axis=1, ddof=1) if values.shape[1] > 1 else None
        panel.bar(table.rows, values.mean(axis=1), yerr=spread, width=0.6, capsize=4, color="tab:blue")
        panel.set_title(table.columns[i], fontsize="medium")
    figure.savefig(path, dpi=100)


def plot_confidence(table: Table, path: Path) -> None:
    """Found against expected errors, a line for each seed."""
    figure = Figure(figsize=(4, 3.4), layout="tight")
    axes = figure.subplots()
    for seed in range(table.values.shape[2]):
        axes.plot(*table.values[:, :, seed].T, "o-", label=f"seed {seed + 1}")
    axes.axline((table.values.min(), table.values.min()), slope=1, color="gray", linestyle=":")
    axes.set(xlabel=table.columns[0], ylabel=table.columns[1])
    axes.legend()
    figure.savefig(path, dpi=100)


def _with_spread(values: np.ndarray) -> str:
    if np.isnan(values).any():
        return "-"
    if len(values) == 1:
        return f"{values[0]:.3g}"
    return f"{values.mean():.3g} ± {float(f'{values.std(ddof=1):.1g}'):g}"  # 70, not 7e+01


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    names = "equigrad neighbors kind distillation equivariant pretraining additivity optimizer confidence"
    parser.add_argument("ablations", nargs="+", choices=names.split())
    parser.add_argument("--data", type=Path, required=True)
    parser.add_argument("--sets", nargs="+", default=["mlearn_Si"])
    parser.add_argument("--size", default="small")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--runs", type=Path, default=Path("ablations"))
    parser.add_argument(
        "--output",
        type=Path,
        help="also write the tables to this Markdown file, with plots in a folder beside it",
    )
    args = parser.parse_args()
    logging.basicConfig(level=logging.WARNING)
    bench = Bench(args.data, args.sets, args.runs, args.epochs, args.size)
    lines = ["# Ablations", "", f"Printed by `python benchmarks/ablations.py`: {', '.join(args.sets)}, size"]
    lines[-1] += f" {args.size}, {args.epochs} epochs, {args.seeds} seeds (mean ± standard deviation)."
    for name in args.ablations:
        table = confidence(bench, args.seeds) if name == "confidence" else compared(bench, name, args.seeds)
        lines += ["", f"## {name}", *table.lines("part of the atoms" if name == "confidence" else "")]
        print("\n".join(lines), flush=True)
        if args.output is not None:
            image = args.output.parent / args.output.stem / f"{name}.png"
            image.parent.mkdir(parents=True, exist_ok=True)
            (plot_confidence if name == "confidence" else plot_bars)(table, image)
            lines += ["", f"![{name}]({args.output.stem}/{name}.png)"]
            args.output.write_text("\n".join(lines) + "\n")


if __name__ == "__main__":
    main()
