"""The training loop: Adam, warm-up / hold / cosine decay, clipping, moving average of weights, exact resume.

Whatever is random in a step (order, rotations) is derived from seed, epoch and batch number, so a checkpoint
needs no generator state, and an interrupted run continues bit for bit as if it had not been.
"""

import csv
import json
import logging
import os
import signal
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, replace
from itertools import islice
from pathlib import Path
from threading import Event, current_thread, main_thread
from typing import Any

import torch
from torch import Tensor, nn
from tqdm import tqdm

from orb_export import checkpoint
from orb_export.model import OrbV3

from .config import TrainConfig
from .data import Sample, collate, epoch_batches, random_rotation
from .initial import new_model
from .losses import loss_terms, predict

log = logging.getLogger(__name__)
CHECKPOINT, MODEL, LOG, REPORT = "checkpoint.pt", "model.safetensors", "log.csv", "report.json"


@contextmanager
def _deferred_interrupt() -> Iterator[Event]:
    """Set the event where SIGINT would raise KeyboardInterrupt: a half-done step could not be resumed.

    Python allows this in the main thread only; elsewhere the event is never set.
    """
    event = Event()
    if current_thread() is not main_thread():
        yield event
        return
    previous = signal.signal(signal.SIGINT, lambda *_: event.set())
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, previous)


class Trainer:
    """One training run in a directory: model, its moving average, optimizer, and the place in the data."""

    def __init__(
        self, config: TrainConfig, training: Sequence[Sample], validation: Sequence[Sample], output: Path
    ):
        self.config, self.training, self.validation, self.output = config, training, validation, output
        self.model = new_model(config, training)
        self.average = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.optimizer = torch.optim.Adam(self.model.parameters(), lr=config.learning_rate)
        self.step = self.epoch = self.batch = 0  # `batch` of `epoch` comes next
        self.sums: dict[str, float] = defaultdict(float)  # of the terms of this epoch, for the log
        self.seconds = 0.0

    def generator(self, *place: int) -> torch.Generator:
        """Random numbers that belong to a place in the run: an epoch, or a batch of an epoch."""
        seed = self.config.seed
        for number in place:
            seed = (seed * 1_000_003 + number + 1) % (2**63 - 1)
        return torch.Generator().manual_seed(seed)

    def fit(self, max_steps: int | None = None) -> bool:
        """Train to the end, or for at most `max_steps` more steps; True when the last epoch is done.

        A checkpoint is written after every epoch and when the run stops; an interrupt (Ctrl-C) stops it after
        the step in progress and is raised then.
        """
        last = None if max_steps is None else self.step + max_steps
        with _deferred_interrupt() as interrupt:
            while self.epoch < self.config.epochs:
                if not self._epoch(last, interrupt):
                    self.save()
                    if interrupt.is_set():
                        raise KeyboardInterrupt
                    return False
        return True

    def _epoch(self, last: int | None, interrupt: Event) -> bool:
        edges = [sample.n_edges for sample in self.training]
        batches = list(epoch_batches(edges, self.config.max_edges, self.generator(self.epoch)))
        title = f"epoch {self.epoch + 1}/{self.config.epochs}"
        with tqdm(total=len(batches), initial=self.batch, desc=title, unit="step", mininterval=1.0) as bar:
            for members in islice(batches, self.batch, None):
                if self.step == last or interrupt.is_set():
                    return False
                start = time.perf_counter()
                terms = self._step(members, (self.epoch + self.batch / len(batches)) / self.config.epochs)
                self.seconds += time.perf_counter() - start
                self.step, self.batch = self.step + 1, self.batch + 1
                for name, value in terms.items():
                    self.sums[name] += value
                bar.update()
                bar.set_postfix(force=f"{1e3 * terms['forces_mae']:.0f} meV/Å", refresh=False)
        self._finish_epoch(len(batches))
        return True

    def _step(self, members: Sequence[int], progress: float) -> dict[str, float]:
        generator = self.generator(self.epoch, self.batch)
        samples = [self.training[i] for i in members]
        if self.config.rotate:
            samples = [sample.rotated(random_rotation(generator)) for sample in samples]
        for group in self.optimizer.param_groups:
            group["lr"] = self.config.rate(progress, self.step)
        graph, labels = collate(samples)
        self.model.train()
        loss, terms = loss_terms(self.model, graph, labels, self.config.loss_weights(progress))
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = nn.utils.clip_grad_norm_(self.model.parameters(), self.config.clip, error_if_nonfinite=True)
        self.optimizer.step()
        self._update_average()
        return {name: float(value) for name, value in terms.items()} | {"gradient_norm": float(norm)}

    @torch.no_grad()
    def _update_average(self) -> None:
        # young averages forget faster, or the first random weights would stay in them for 1 / (1 - ema) steps
        weight = 1.0 - min(self.config.ema, (1 + self.step) / (10 + self.step))
        for name, value in self.model.state_dict().items():
            if value.is_floating_point():
                self.average[name].lerp_(value, weight)
            else:
                self.average[name].copy_(value)

    def _finish_epoch(self, n_batches: int) -> None:
        row: dict[str, object] = {
            "epoch": self.epoch + 1,
            "step": self.step,
            "seconds": round(self.seconds, 1),
        }
        row |= {name: f"{value / n_batches:.6g}" for name, value in self.sums.items()}
        if self.validation:
            row |= {
                f"validation_{k}": f"{v:.6g}"
                for k, v in errors(self.averaged_model(), self.validation).items()
            }
        path = self.output / LOG
        with path.open("a", newline="") as file:
            writer = csv.DictWriter(file, row)
            if file.tell() == 0:
                writer.writeheader()
            writer.writerow(row)
        log.info(" ".join(f"{name} {value}" for name, value in row.items()))
        self.epoch, self.batch = self.epoch + 1, 0
        self.sums.clear()
        self.save()

    def averaged_model(self) -> OrbV3:
        """A copy of the model with the moving average of its weights, in evaluation mode."""
        model = OrbV3(self.model.config).to(self.model.dtype)
        model.load_state_dict(self.average)
        return model.eval()

    def state(self) -> dict[str, Any]:
        """All that a resumed run needs, as tensors and plain values."""
        return {
            "config": asdict(self.config),
            "model": self.model.state_dict(),
            "average": self.average,
            "optimizer": self.optimizer.state_dict(),
            "place": {"step": self.step, "epoch": self.epoch, "batch": self.batch, "seconds": self.seconds},
            "sums": dict(self.sums),
            "n_training": len(self.training),
        }

    def save(self) -> None:
        """Write the checkpoint, whole or not at all."""
        temporary = self.output / (CHECKPOINT + ".new")
        torch.save(self.state(), temporary)
        os.replace(temporary, self.output / CHECKPOINT)

    def resume(self) -> None:
        """Continue from the checkpoint in the output directory; only `epochs` may differ from before."""
        path = self.output / CHECKPOINT
        state = torch.load(path, weights_only=True)
        theirs, ours = state["config"], asdict(replace(self.config, epochs=state["config"]["epochs"]))
        different = [f"`{k}` was {theirs.get(k)} and is {v}" for k, v in ours.items() if theirs.get(k) != v]
        if state["n_training"] != len(self.training):
            different.append(f"{state['n_training']} structures before and {len(self.training)} now")
        if different:
            raise ValueError(f"train: cannot resume {path}: " + ", ".join(different))
        self.model.load_state_dict(state["model"])
        self.average = state["average"]
        self.optimizer.load_state_dict(state["optimizer"])
        for name, value in state["place"].items():
            setattr(self, name, value)
        self.sums.clear()
        self.sums.update(state["sums"])

    def export(self) -> Path:
        """Write the moving average as a model file."""
        path = self.output / MODEL
        checkpoint.save(self.averaged_model(), path)
        return path

    def report(self, tests: Mapping[str, Sequence[Sample]]) -> dict[str, dict[str, float]]:
        """Errors of the averaged model on each named set, also written to the run directory."""
        model = self.averaged_model()
        result = {name: errors(model, samples) for name, samples in tests.items()}
        (self.output / REPORT).write_text(json.dumps(result, indent=2) + "\n")
        return result


def errors(model: OrbV3, samples: Sequence[Sample]) -> dict[str, float]:
    """Mean absolute errors: energy in meV/atom, forces in eV/angstrom, stress in GPa (components alike)."""
    energy, forces, stress = [], [], []
    for sample in samples:
        graph, labels = collate([sample])
        predicted = predict(model, graph)
        energy.append((predicted.energy.detach() - labels.energy).abs() / graph.numbers.numel())
        forces.append((predicted.forces.detach() - labels.forces).abs().flatten())
        if predicted.stress is not None:
            stress.append((predicted.stress.detach() - labels.stress).abs().flatten())
    everything: dict[str, list[Tensor]] = {"energy_mae": energy, "forces_mae": forces, "stress_mae": stress}
    scale = {"energy_mae": 1e3, "forces_mae": 1.0, "stress_mae": 160.21766208}
    return {
        name: scale[name] * float(torch.cat(values).nanmean())
        for name, values in everything.items()
        if values
    }
