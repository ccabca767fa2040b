"""One step of training as Lightning calls it: losses, optimizer, schedule, and the average of weights."""

from collections.abc import Callable

import lightning.pytorch as pl
import torch
from lightning.pytorch.callbacks import WeightAveraging
from lightning.pytorch.utilities.types import OptimizerLRScheduler
from torch import Tensor, nn
from torch.optim.lr_scheduler import LambdaLR, LRScheduler, OneCycleLR

from orb_export.graph import Graph
from orb_export.model import OrbV3

from .batches import Batch
from .compiled import CompiledPredict
from .config import LossWeights, OptimizerOptions, TrainConfig
from .equivariant import Ties
from .losses import Pool, Prediction, denoising_loss, loss_terms, predict

# The published fine-tuning script: the rate climbs to ten times its value and falls to a tenth of it.
ONE_CYCLE_PEAK = ONE_CYCLE_FALL = 10.0
ONE_CYCLE_CLIMB = 0.05  # part of the run
PRECONDITION_STEPS = 8  # of SOAP; 25 cost accuracy: docs/results/ablations.md


def _all_reduced(values: Tensor) -> Tensor:
    torch.distributed.all_reduce(values)
    return values


class OrbModule(pl.LightningModule):
    """A model with its losses for `steps` steps; with `compiled`, the passes through it are compiled."""

    def __init__(self, model: OrbV3, config: TrainConfig, steps: int, *, compiled: bool = False) -> None:
        super().__init__()
        self.model, self.config, self.steps = model, config, steps
        self.compiled = CompiledPredict(model) if compiled else None
        self.ties = Ties(model) if config.optimizer.equivariant else None
        freeze_unused(model, config)

    def predict(self, graph: Graph) -> Prediction:
        """Differentiable results of a batch."""
        if self.compiled is not None:
            return self.compiled(graph)
        return predict(self.model, graph, differentiable=self.training)

    def pool(self, counts: bool = True) -> Pool:
        """The processes that share the batches of this run."""
        processes = self.trainer.world_size
        return Pool(processes, _all_reduced if processes > 1 else torch.clone, counts, self.device)

    def loss_weights(self, step: int) -> LossWeights:
        """Weights of the terms at a step."""
        return self.config.loss.at(self.config.optimizer.decay(step / self.steps))

    def training_step(self, batch: Batch, index: int) -> Tensor:
        """The part of this process in the loss of a batch."""
        if batch.noise is not None:
            loss = denoising_loss(self.model, batch.graph, batch.noise, self.pool(batch.counts))
            self._log({"train/denoising_loss": loss.detach()}, batch)
            return self._finite(loss, batch)
        weights = self.loss_weights(self.global_step)
        pool, found = self.pool(batch.counts), self.predict(batch.graph)
        loss, terms = loss_terms(self.model, batch.graph, batch.labels, weights, pool, found)
        self._log({f"train/{name}": value for name, value in terms.items()}, batch)
        self.log("forces_mae", terms["forces_mae"], prog_bar=True, logger=False, batch_size=1)
        return self._finite(loss, batch)

    def _finite(self, loss: Tensor, batch: Batch) -> Tensor:
        if not torch.isfinite(loss):
            raise RuntimeError(
                f"train: the loss is {float(loss)} at step {self.global_step}, with structures {batch.rows}"
            )
        return loss

    def validation_step(self, batch: Batch, index: int) -> None:
        """Errors of the average of weights: energies per atom (eV), force components (eV/angstrom)."""
        if batch.noise is not None:
            loss = denoising_loss(self.model, batch.graph, batch.noise)
            self.log("validation/denoising_loss", loss, batch_size=len(batch.noise), sync_dist=True)
            return
        with torch.enable_grad():
            prediction = self.predict(batch.graph)
        energy = (prediction.energy.detach() - batch.labels.energy).abs() / batch.graph.counts
        forces = (prediction.forces.detach() - batch.labels.forces).abs()
        for name, errors in (("energy_mae", energy), ("forces_mae", forces)):
            self.log(
                f"validation/{name}",
                errors.mean(),
                batch_size=len(errors),
                sync_dist=self.trainer.world_size > 1,
            )

    def _log(self, values: dict[str, Tensor], batch: Batch) -> None:
        shared = self.trainer.world_size > 1
        self.log_dict(values, batch_size=len(batch.graph.counts), sync_dist=shared)

    def configure_optimizers(self) -> OptimizerLRScheduler:
        """The optimizer and the schedule."""
        options = self.config.optimizer
        parameters = [p for p in self.parameters() if p.requires_grad]
        # Lightning does not clip fused ones in mixed precision
        optimizer = make_optimizer(parameters, options, fused=self.config.machine.precision != "bf16-mixed")
        scheduler: LRScheduler
        if options.schedule == "one-cycle":
            peak = ONE_CYCLE_PEAK * options.learning_rate
            scheduler = OneCycleLR(
                optimizer,
                peak,
                total_steps=self.steps + 1,  # Lightning steps it once more at the end
                pct_start=ONE_CYCLE_CLIMB,
                div_factor=ONE_CYCLE_PEAK,
                final_div_factor=ONE_CYCLE_FALL,
            )
        else:
            scheduler = LambdaLR(optimizer, lambda step: options.factor(step, self.steps))
        if self.ties is not None:
            self.ties.keep(self.model, optimizer)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler, "interval": "step"}}


def make_optimizer(
    parameters: list[nn.Parameter], options: OptimizerOptions, *, fused: bool
) -> torch.optim.Optimizer:
    """Adam (AdamW with weight decay), or SOAP: Adam in the eigenbasis of Shampoo's preconditioner.

    SOAP: Vyas et al., arXiv:2409.11321. Its axes cost the cube of a layer's width now and then.
    """
    rate, decay = options.learning_rate, options.weight_decay
    if options.name == "soap":
        from pytorch_optimizer import SOAP  # takes seconds to import

        steps = options.precondition_steps or PRECONDITION_STEPS
        return SOAP(parameters, rate, weight_decay=decay, precondition_frequency=steps)
    if decay:
        return torch.optim.AdamW(parameters, rate, weight_decay=decay, fused=fused)
    return torch.optim.Adam(parameters, rate, fused=fused)


def freeze_unused(model: OrbV3, config: TrainConfig) -> None:
    """Stop gradients of heads whose terms have no weight: processes would wait for them forever."""
    if config.denoising is not None:
        model.requires_grad_(False)
        model.network.requires_grad_(True)
        model.decoder.requires_grad_(True)
        return
    loss = config.loss
    if not loss.confidence:
        model.confidence_head.requires_grad_(False)
    if model.config.kind == "direct" and not loss.stress:
        model.stress_head.requires_grad_(False)


class AveragedWeights(WeightAveraging):
    """Exponential moving average whose young years forget faster.

    Otherwise the first random weights would stay in it for 1 / (1 - decay) steps. Statistics of the
    normalizers are copied, not averaged.
    """

    def __init__(self, decay: float) -> None:
        super().__init__(use_buffers=False, avg_fn=_average(decay))


def _average(decay: float) -> Callable[[Tensor, Tensor, Tensor | int], Tensor]:
    def updated(average: Tensor, current: Tensor, updates: Tensor | int) -> Tensor:
        weight = 1.0 - min(decay, (1 + int(updates)) / (10 + int(updates)))
        return average.lerp(current, weight)

    return updated
