"""The config file of a training run: typed, with a default for all but data, every mistake named.

Energies in eV, lengths in angstrom, stresses in eV/angstrom^3.
"""

import json
import math
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal, Self

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

from orb_export.contract import UNLIMITED_NEIGHBORS

# (channels, hidden, head_hidden, layers) of `model.size`; the first is the published family
SIZES = {
    "orb-v3": (256, 1024, 256, 5),
    "medium": (128, 384, 128, 3),
    "small": (64, 128, 64, 2),
    "tiny": (16, 32, 16, 1),
}

PositiveInt = Annotated[int, Field(gt=0)]
PositiveFloat = Annotated[float, Field(gt=0, allow_inf_nan=False)]
Weight = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Fraction = Annotated[float, Field(ge=0, lt=1)]


@dataclass(frozen=True)
class LossWeights:
    """Factors of the terms of the loss; a term of weight 0 is left out."""

    energy: float = 1.0
    forces: float = 1.0
    stress: float = 1.0
    confidence: float = 1.0
    equigrad: float = 0.0  # conservative models only; per eV, hence far below the others
    additivity: float = 0.0  # not of the published models
    energy_huber_delta: float = 0.01  # no weight: threshold of the energies, normalized


class Options(BaseModel):
    """Base of the sections: immutable, unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class ModelOptions(Options):
    """Architecture of a model that starts from random weights."""

    kind: Literal["conservative", "direct"] = "conservative"
    size: Literal["orb-v3", "medium", "small", "tiny"] = "small"
    channels: PositiveInt | None = None  # None: as `size` says, here and below
    hidden: PositiveInt | None = None
    head_hidden: PositiveInt | None = None
    layers: PositiveInt | None = None
    max_neighbors: PositiveInt = UNLIMITED_NEIGHBORS
    charge_spin: bool = False  # conditioned on total charge and multiplicity

    def dimensions(self) -> tuple[int, int, int, int]:
        """Channels, hidden width, that of the heads, and layers: of `size`, but for exceptions."""
        channels, hidden, head_hidden, layers = SIZES[self.size]
        return (
            self.channels or channels,
            self.hidden or hidden,
            self.head_hidden or head_hidden,
            self.layers or layers,
        )


class StartOptions(Options):
    """Weights to start from instead of random ones."""

    model: str  # checkpoint file or family name
    weights: str | None = None  # local file of a family name
    max_neighbors: PositiveInt | None = None  # of a checkpoint with an unknown name
    transfer: Literal["all", "trunk"] = "all"  # trunk: everything but the heads, as after pretraining
    elements: Literal["kept", "data"] = (
        "kept"  # that the new model admits: all of the old one's or the data's
    )


class DataOptions(Options):
    """Structures, which of them are used, and how they are put into batches."""

    train: Annotated[tuple[str, ...], Field(min_length=1)]  # FILE or FILE@SLICE
    validation: tuple[str, ...] = ()
    test: tuple[str, ...] = ()
    validation_fraction: Fraction = 0.0  # of `train`, held out
    split: Literal["structure", "composition", "source"] = "structure"  # what is held out together
    source_key: str = "source"  # entry of a structure that names its source; else the name of its file
    energy_key: str | None = None  # entry of `info` to use as label instead of what ASE takes for the energy
    forces_key: str | None = None  # likewise, of `arrays`
    stress_key: str | None = None  # likewise, of `info`; (3, 3) or Voigt
    keep_sources: tuple[str, ...] = ()  # empty: all
    drop_sources: tuple[str, ...] = ()
    drop_stress: tuple[str, ...] = ()  # sources whose stress labels are not used
    max_energy_deviation: PositiveFloat | None = None  # eV/atom from the fit of energies on composition
    max_force: PositiveFloat | None = None  # largest norm of a structure
    max_stress: PositiveFloat | None = None  # largest component of a structure
    balance: Annotated[float, Field(ge=0, le=1)] = 0.0  # small sources are used more often; 1: all alike
    in_memory: bool = True  # False: read structures and build graphs anew in every epoch, in the workers
    workers: Annotated[int, Field(ge=0)] = 0
    max_edges: PositiveInt = 8000  # in a batch, over all processes
    rotate: bool = True  # every structure at random in every epoch


class LossOptions(Options):
    """Weights of the terms; that of the energy may rise while the learning rate decays."""

    energy: Weight = 0.05  # more than forces bear at first stalls the training
    final_energy: Weight | None = 0.5  # None: stays
    forces: Weight = 1.0
    stress: Weight = 0.05
    confidence: Weight = 0.01
    equigrad: Weight = 0.0002
    additivity: Weight = 0.0
    energy_huber_delta: PositiveFloat = 0.01

    def at(self, decay: float) -> LossWeights:
        """The weights when the part `decay` (0 to 1) of the decay of the learning rate is behind."""
        final = self.energy if self.final_energy is None else self.final_energy
        if self.energy and final:  # by equal factors: much only where the learning rate is small already
            energy = self.energy * (final / self.energy) ** decay
        else:
            energy = self.energy + (final - self.energy) * decay
        return LossWeights(
            energy=energy,
            forces=self.forces,
            stress=self.stress,
            confidence=self.confidence,
            equigrad=self.equigrad,
            additivity=self.additivity,
            energy_huber_delta=self.energy_huber_delta,
        )


class ReferenceOptions(Options):
    """Where the energies of free atoms come from."""

    mode: Literal["refitted", "kept", "trained", "given"] | None = None
    values: dict[str, float] = {}  # by symbol, for `given`

    @model_validator(mode="after")
    def _values_if_given(self) -> Self:
        if bool(self.values) != (self.mode == "given"):
            raise ValueError("`values` are needed by mode 'given' and by no other")
        return self


class OptimizerOptions(Options):
    """Optimizer, schedule, clipping and averaging of weights."""

    name: Literal["adam", "soap"] = "adam"
    epochs: PositiveInt = 20
    learning_rate: PositiveFloat = 1e-3
    weight_decay: Weight = 0.0
    precondition_steps: PositiveInt | None = None  # of soap, between updates of the axes it scales along; 8
    schedule: Literal["hold-cosine", "one-cycle", "constant"] = "hold-cosine"
    warmup_steps: Annotated[int, Field(ge=0)] = 200
    decay_fraction: Annotated[float, Field(gt=0, le=1)] = 0.5  # last part, in which the rate falls to 0
    clip: PositiveFloat = 0.5  # global norm of the gradient, at most
    ema: Fraction = 0.999  # of the weights; the average is what is validated and exported
    equivariant: bool = False  # weights stay those of an equivariant network; conservative models only

    @model_validator(mode="after")
    def _preconditioned(self) -> Self:
        if self.precondition_steps is not None and self.name != "soap":
            steps, name = self.precondition_steps, self.name
            raise ValueError(f"`precondition_steps` is {steps} but `name` is {name!r}: it is of 'soap'")
        return self

    def decay(self, progress: float) -> float:
        """Part of the decay (0 to 1) that is behind when `progress` (0 to 1) of the run is."""
        return min(1.0, max(0.0, (progress - (1.0 - self.decay_fraction)) / self.decay_fraction))

    def factor(self, step: int, steps: int) -> float:
        """Learning rate at a step of `steps`, in units of `learning_rate`."""
        warmup = min(1.0, (step + 1) / max(1, self.warmup_steps))
        if self.schedule == "constant":
            return warmup
        return warmup * 0.5 * (1.0 + math.cos(math.pi * self.decay(step / steps)))


class DenoisingOptions(Options):
    """Pretraining: the decoder predicts the noise that was added to the positions.

    The recipe of Orb-v3 is unpublished; ours is in docs/training.md.
    """

    min_sigma: PositiveFloat = 0.01  # angstrom; the width is log-uniform between the two
    max_sigma: PositiveFloat = 0.5

    @model_validator(mode="after")
    def _ordered(self) -> Self:
        if self.min_sigma > self.max_sigma:
            raise ValueError(f"`min_sigma` is {self.min_sigma} but must not exceed `max_sigma`")
        return self


class MachineOptions(Options):
    """Where and how often; none of it changes what is learned, but `precision`."""

    accelerator: Literal["auto", "cpu", "gpu"] = "auto"
    devices: PositiveInt = 1  # processes; start them with torchrun, or let lightning do it
    strategy: Literal["auto", "ddp", "fsdp"] = "auto"
    precision: Literal["float32", "float64", "bf16-mixed"] = "float32"
    threads: PositiveInt | None = None  # of torch in each process; None: its own choice
    compile: bool | Literal["auto"] = "auto"  # the passes through the model; auto: on CPUs, where it pays
    checkpoint_steps: PositiveInt = 500
    validation_steps: PositiveInt | None = None  # None: once in an epoch
    log_steps: PositiveInt = 50


class TrainConfig(Options):
    """Everything that decides the course of a run."""

    name: str = "orb-v3-small"
    description: str = ""  # one line on data, purpose and licence, stored in the model file
    licence: str = "unspecified"
    seed: Annotated[int, Field(ge=0, lt=2**32)] = 1  # of weights, order and rotations
    data: DataOptions
    model: ModelOptions | None = None
    start: StartOptions | None = None
    denoising: DenoisingOptions | None = None
    references: ReferenceOptions = ReferenceOptions()
    loss: LossOptions = LossOptions()
    optimizer: OptimizerOptions = OptimizerOptions()
    machine: MachineOptions = MachineOptions()

    @field_validator("references")
    @classmethod
    def _known_symbols(cls, references: ReferenceOptions) -> ReferenceOptions:
        from ase.data import atomic_numbers

        unknown = [symbol for symbol in references.values if symbol not in atomic_numbers]
        if unknown:
            raise ValueError(f"`values` has {unknown} but must be chemical symbols")
        return references

    @model_validator(mode="after")
    def _one_origin(self) -> Self:
        whole = self.start is not None and self.start.transfer == "all"
        if whole and self.model is not None:
            raise ValueError("`model` and `start` are both given but `start` decides the architecture")
        if self.references.mode == "kept" and not whole:
            raise ValueError("`references.mode` is 'kept' but there is no model to keep them from")
        return self

    @model_validator(mode="after")
    def _sharded(self) -> Self:
        if self.machine.strategy == "fsdp" and self.optimizer.ema:
            raise ValueError(
                f"`optimizer.ema` is {self.optimizer.ema:g} but must be 0 with `machine.strategy` fsdp"
            )
        if self.machine.strategy == "fsdp" and self.optimizer.equivariant:
            raise ValueError("`optimizer.equivariant` is true but must be false with `machine.strategy` fsdp")
        if self.machine.strategy == "fsdp" and self.machine.accelerator == "cpu":
            raise ValueError("`machine.accelerator` is 'cpu' but `machine.strategy` fsdp needs GPUs")
        return self

    @property
    def reference_mode(self) -> str:
        """Of `references`; unless given, models keep theirs and new models get fitted ones."""
        whole = self.start is not None and self.start.transfer == "all"
        return self.references.mode or ("kept" if whole else "refitted")


class _Loader(yaml.SafeLoader):
    """YAML 1.1 takes 1e-3 for text; here it is a number."""


_Loader.add_implicit_resolver(
    "tag:yaml.org,2002:float", re.compile(r"[-+]?\d+[eE][-+]?\d+$"), list("-+0123456789")
)


def parse_config(content: Any, where: str) -> TrainConfig:
    """Check the content of a config file. Raises ValueError with every mistake, its place and its value."""
    if not isinstance(content, dict):
        raise ValueError(f"{where}: is {content!r} but must hold the sections of a config")
    try:
        # YAML has lists for tuples and 1 for 1.0: JSON's rules allow these two and nothing looser
        return TrainConfig.model_validate_json(_json(content, where))
    except ValidationError as error:
        lines = [_mistake(detail) for detail in error.errors()]
        raise ValueError(f"{where}: " + "; ".join(lines)) from None


def _json(content: dict[str, Any], where: str) -> str:
    try:
        return json.dumps(content)
    except TypeError as error:
        raise ValueError(f"{where}: {error}") from None


def _mistake(detail: Any) -> str:
    place = ".".join(str(part) for part in detail["loc"])
    message = str(detail["msg"]).removeprefix("Value error, ")
    if detail["type"] == "missing":
        return f"`{place}` is missing"
    if detail["type"] == "extra_forbidden":
        return f"`{place}` is {detail['input']!r} but there is no such option"
    if detail["type"] == "value_error":
        return f"`{place}`: {message}" if place else message
    return f"`{place}` is {detail['input']!r} but: {message[0].lower()}{message[1:]}"


def parse_yaml(text: str, where: str) -> Any:
    """The content of a YAML text. Raises ValueError."""
    try:
        return yaml.load(text, _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{where}: not YAML: {' '.join(str(error).split())}") from None


def read_config(path: Path) -> TrainConfig:
    """The config in a YAML file. Raises FileNotFoundError, and ValueError with every mistake."""
    if not path.is_file():
        raise FileNotFoundError(f"train: `{path}` does not exist")
    return parse_config(parse_yaml(path.read_text(), str(path)), str(path))
