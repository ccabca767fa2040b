"""A training run in a folder, from config to exported weights.

    config.yaml  checkpoints/  logs/  model.safetensors  report.json  card.md  parity_*.png  confidence_*.png

Loop, checkpoints, averaging, clipping, precision, logs and processes are Lightning's. A run is one pass over
one long list of batches (all epochs), so that a place in it is one number.
"""

import json
import logging
import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import lightning.pytorch as pl
import torch
import yaml
from lightning.pytorch.callbacks import Callback, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.loggers import CSVLogger, Logger, TensorBoardLogger

from orb_export import checkpoint
from orb_export.model import OrbConfig, OrbV3

from . import estimate, report
from .batches import Plan, TrainingLoader, evaluation_loader
from .card import model_card
from .catalog import Catalog, StructureSet, filtered, split
from .compiled import is_compiled
from .config import TrainConfig, parse_config
from .data import Sample
from .initial import architecture, initial_model
from .module import AveragedWeights, OrbModule

log = logging.getLogger(__name__)
CONFIG, CHECKPOINTS, LOGS = "config.yaml", "checkpoints", "logs"
MODEL, REPORT, CARD = "model.safetensors", "report.json", "card.md"
PRECISIONS = {"float32": "32-true", "float64": "64-true", "bf16-mixed": "bf16-mixed"}
# Advice of Lightning that does not apply: our loader resumes exactly, few workers suffice, and so on
_ADVICE = (
    ".*does not have many workers.*",
    ".*smaller than the logging interval.*",
    ".*available but not used.*",
    ".*Checkpoint directory.*exists and is not empty.*",
    ".*log directory.*exists and is not empty.*",
    ".*dirpath has changed.*",
    ".*callbacks used to create the checkpoint need to be provided.*",  # other checkpoint_steps
    ".*Grad strides do not match.*",  # of weights with one row; costs nothing
    ".*treespec, LeafSpec.*",
    ".*but have no `val_dataloader`.*",
)


class RunData:
    """The structures of a run and which of them are for what."""

    def __init__(self, config: TrainConfig, model: OrbConfig) -> None:
        data = config.data
        self.data, self.model, self.denoising = data, model, config.denoising
        self.structures = self._read(data.train)
        catalog = filtered(self.structures.catalog, data)
        self.training, self.held_out = split(catalog, data.validation_fraction, data.split, config.seed)
        self.validation = self._read(data.validation) if data.validation else None

    def _read(self, files: Sequence[str]) -> StructureSet:
        return StructureSet(
            files,
            self.data,
            self.model.max_neighbors,
            self.model.has_charge_spin,
            labelled=self.denoising is None,
        )

    def held_out_samples(self) -> Iterator[tuple[str, Iterable[Sample]]]:
        """Name and structures of every set that was not trained on."""
        if len(self.held_out):
            yield "held out of train", (self.structures[row] for row in self.held_out.rows)
        if self.validation is not None:
            yield "validation", iter(self.validation)
        for file in self.data.test:
            yield f"test {file}", iter(self._read([file]))

    def validation_loaders(self) -> list[Any]:
        """Loaders of what is evaluated during training."""
        sets: list[tuple[StructureSet, Catalog]] = []
        if len(self.held_out):
            sets.append((self.structures, self.held_out))
        if self.validation is not None:
            sets.append((self.validation, self.validation.catalog))
        return [
            evaluation_loader(*part, self.data.max_edges, self.data.workers, self.denoising) for part in sets
        ]


def train(config: TrainConfig, output: Path, *, resume: bool = False, max_steps: int | None = None) -> bool:
    """Train in the folder `output`; True when the run is complete, False when it stopped at `max_steps`.

    Raises ValueError when the folder holds a run and `resume` is false, or the other way round, or the config
    of the run differs in more than `optimizer.epochs` and `machine`.
    """
    rank, processes = place_among_processes(config)
    if rank == 0:  # the others may come when the first has already begun
        _check_folder(output, config, resume)
    if config.machine.threads is not None:
        torch.set_num_threads(config.machine.threads)
    model_config = architecture(config)
    data = RunData(config, model_config)
    model = initial_model(config, data.structures, data.training)
    plan = _plan(config, data.training, rank, processes)
    if rank == 0:
        output.mkdir(parents=True, exist_ok=True)
        (output / CONFIG).write_text(yaml.safe_dump(config.model_dump(mode="json"), sort_keys=False))
    module = OrbModule(model, config, len(plan), compiled=is_compiled(config, model, data.training))
    steps = len(plan) if max_steps is None else min(max_steps, len(plan))
    with warnings.catch_warnings():
        for message in _ADVICE:
            warnings.filterwarnings("ignore", message)
        trainer = _trainer(config, output, steps, plan)
        loader = TrainingLoader(
            data.structures,
            plan,
            rotate=config.data.rotate,
            workers=config.data.workers,
            denoising=config.denoising,
        )
        validation = data.validation_loaders()
        trainer.fit(
            module, loader, validation or None, ckpt_path=_last_checkpoint(output) if resume else None
        )
        for callback in _averaging(trainer):  # a run that was complete already has not come by its last hook
            callback.on_train_end(trainer, module)
    complete = trainer.global_step >= len(plan)
    if trainer.is_global_zero and complete:
        _finish(config, output, module.model, data)
    return complete


def _averaging(trainer: pl.Trainer) -> list[AveragedWeights]:
    return [callback for callback in trainer.callbacks if isinstance(callback, AveragedWeights)]  # type: ignore[attr-defined]


def describe(config: TrainConfig) -> list[str]:
    """What `train` would do, in lines; reads the data but trains nothing."""
    data = RunData(config, architecture(config))
    model = initial_model(config, data.structures, data.training)
    plan = _plan(config, data.training, 0, 1)
    lines = list(estimate.describe(config, model, data.training, len(data.held_out), plan))
    compiled = is_compiled(config, model, data.training)
    return [*lines, f"passes      {'compiled' if compiled else 'eager'}"]


def _finish(config: TrainConfig, output: Path, model: OrbV3, data: RunData) -> None:
    """Weights, errors on everything held out, plots and the model card."""
    from . import plots  # matplotlib is needed here only

    model = model.cpu().eval().requires_grad_(False)
    checkpoint.save(model, output / MODEL)
    if config.denoising is not None:  # there is only a trunk
        return
    reports = {}
    for number, (name, samples) in enumerate(data.held_out_samples(), start=1):
        found = report.evaluate(model, samples)
        reports[name] = report.report(found)
        plots.parity(found, output / f"parity_{number}.png", name)
        plots.confidence(found, output / f"confidence_{number}.png", name)
        log.info("%s: %s", name, reports[name]["all"])
    (output / REPORT).write_text(json.dumps(reports, indent=1) + "\n")
    (output / CARD).write_text(model_card(config, model, len(data.training), reports))


def _plan(config: TrainConfig, training: Catalog, rank: int, processes: int) -> Plan:
    return Plan(
        training,
        max_edges=config.data.max_edges,
        epochs=config.optimizer.epochs,
        seed=config.seed,
        balance=config.data.balance,
        rank=rank,
        processes=processes,
    )


def place_among_processes(config: TrainConfig) -> tuple[int, int]:
    """Rank (0 is the one that writes) and number of processes, as torchrun or Lightning set them."""
    processes = int(os.environ.get("WORLD_SIZE", config.machine.devices))
    rank = int(os.environ.get("RANK", os.environ.get("LOCAL_RANK", 0)))
    return rank, processes


class _CheckpointAt(Callback):
    """Writes a checkpoint at the step where a run is told to stop early."""

    def __init__(self, folder: Path, step: int) -> None:
        self.folder, self.step = folder, step

    def on_train_batch_end(self, trainer: pl.Trainer, *_: Any) -> None:
        if trainer.global_step == self.step:
            trainer.save_checkpoint(self.folder / f"step={self.step:09d}.ckpt")


def _trainer(config: TrainConfig, output: Path, steps: int, plan: Plan) -> pl.Trainer:
    machine = config.machine
    callbacks: list[Callback] = [
        ModelCheckpoint(
            output / CHECKPOINTS, "{step:09d}", every_n_train_steps=machine.checkpoint_steps, save_top_k=1
        ),
        LearningRateMonitor("step"),
    ]
    if config.optimizer.ema:
        callbacks.append(AveragedWeights(config.optimizer.ema))
    if steps < len(plan):  # after the average, which belongs into it
        callbacks.append(_CheckpointAt(output / CHECKPOINTS, steps))
    loggers: list[Logger] = [CSVLogger(output, LOGS), TensorBoardLogger(output, LOGS, "tensorboard")]
    return pl.Trainer(
        accelerator=machine.accelerator,
        devices=machine.devices,
        strategy=machine.strategy,
        precision=PRECISIONS[machine.precision],  # type: ignore[arg-type]
        max_epochs=1,
        max_steps=steps,
        gradient_clip_val=config.optimizer.clip,
        val_check_interval=min(machine.validation_steps or plan.batches_in_epoch[0], len(plan)),
        check_val_every_n_epoch=None,
        num_sanity_val_steps=0,
        log_every_n_steps=machine.log_steps,
        callbacks=callbacks,
        logger=loggers,
        use_distributed_sampler=False,  # the plan shares batches out
        inference_mode=False,  # forces of conservative models are gradients
        enable_model_summary=False,
        default_root_dir=output,
    )


def _check_folder(output: Path, config: TrainConfig, resume: bool) -> None:
    started = (output / CONFIG).is_file()
    if resume != started:
        state = "no run to resume" if resume else "a run already; give --resume to continue it"
        raise ValueError(f"train: `{output}` holds {state}")
    if not resume:
        return
    before = parse_config(yaml.safe_load((output / CONFIG).read_text()), str(output / CONFIG))
    differing = list(_differences(before.model_dump(), config.model_dump()))
    if differing:
        raise ValueError(f"train: cannot resume `{output}`: " + ", ".join(differing))


def _last_checkpoint(output: Path) -> Path | None:
    found = sorted((output / CHECKPOINTS).glob("*.ckpt"))
    return found[-1] if found else None  # killed before the first one: from the beginning


_MAY_DIFFER = {"optimizer.epochs", "machine"}


def _differences(before: dict[str, Any], now: dict[str, Any], section: str = "") -> Any:
    for key, value in now.items():
        name = f"{section}{key}"
        if isinstance(value, dict) and isinstance(before[key], dict):
            yield from _differences(before[key], value, f"{name}.")
        elif (
            before[key] != value
            and name not in _MAY_DIFFER
            and (not name.startswith("machine.") or name == "machine.precision")
        ):
            yield f"`{name}` was {before[key]!r} and is {value!r}"
