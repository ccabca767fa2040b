"""One pass over a data set: size, composition and label statistics of every structure, without its graph.

Batches, splits, filters, reference energies and normalizers are decided on this table alone, so the
structures themselves need not fit into memory. Shapes: M structures.
"""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from ase import Atoms
from numpy.typing import NDArray
from torch import Tensor
from torch.utils.data import DataLoader
from tqdm import tqdm

from orb_export.contract import MAX_ATOMIC_NUMBER

from .config import DataOptions
from .data import Sample, make_sample, with_labels_of
from .sources import Selection

log = logging.getLogger(__name__)

# A composition fit is ill-conditioned where elements always occur together; singular values below this
# fraction of the largest are dropped, which shares the energy among such elements.
REFERENCE_RCOND = 1e-6


class Summary(NamedTuple):
    """What the table keeps of one structure."""

    composition: NDArray[np.int64]  # (119,) atoms of each atomic number
    n_edges: int
    energy: float  # eV
    forces: tuple[float, float, float]  # sum and sum of squares of the components, largest norm
    stress: NDArray[np.float64]  # (6,) eV/angstrom^3, NaN without a label
    source: str


def summarize(sample: Sample) -> Summary:
    """The row of a structure."""
    forces = sample.labels.forces
    return Summary(
        torch.bincount(sample.graph.numbers, minlength=MAX_ATOMIC_NUMBER + 1).numpy(),
        sample.n_edges,
        float(sample.labels.energy),
        (float(forces.sum()), float(forces.square().sum()), float(forces.norm(dim=1).max())),
        sample.labels.stress[0].numpy().copy(),
        sample.source,
    )


@dataclass(frozen=True)
class Catalog:
    """Columns over structures; `rows` are their numbers in the selection of files."""

    rows: NDArray[np.int64]  # (M,)
    composition: NDArray[np.int32]  # (M, 119)
    n_edges: NDArray[np.int64]  # (M,)
    energy: NDArray[np.float64]  # (M,) eV
    forces: NDArray[np.float64]  # (M, 3) as in Summary
    stress: NDArray[np.float64]  # (M, 6)
    sources: NDArray[np.str_]  # (M,)

    @classmethod
    def of(cls, summaries: Sequence[Summary]) -> "Catalog":
        """The table of all structures of a selection, in its order."""
        composition, n_edges, energy, forces, stress, sources = zip(*summaries, strict=True)
        return cls(
            np.arange(len(summaries)),
            np.array(composition, dtype=np.int32),
            np.array(n_edges),
            np.array(energy),
            np.array(forces),
            np.array(stress),
            np.array(sources),
        )

    def __len__(self) -> int:
        return len(self.rows)

    def take(self, chosen: NDArray[Any]) -> "Catalog":
        """The structures with these indices, or where a mask is true."""
        return Catalog(*(column[chosen] for column in vars(self).values()))

    @property
    def n_atoms(self) -> NDArray[np.int64]:
        """(M,) atoms of each structure."""
        counts: NDArray[np.int64] = self.composition.sum(axis=1, dtype=np.int64)
        return counts

    @property
    def elements(self) -> tuple[int, ...]:
        """Atomic numbers that occur."""
        return tuple(int(z) for z in np.flatnonzero(self.composition.any(axis=0)))


def fit_references(composition: NDArray[Any], energy: NDArray[np.float64]) -> Tensor:
    """Energy per element (118,), eV, float64: the least-squares fit of total energies (M,) on composition.

    Rows of `composition` (M, 119) are divided by the number of atoms, so that every structure counts alike;
    absent elements get 0.
    """
    rows = torch.from_numpy(np.asarray(composition, dtype=np.float64))[:, : MAX_ATOMIC_NUMBER + 1]
    counts = rows.sum(dim=1, keepdim=True)
    targets = torch.from_numpy(energy)[:, None]
    fit = torch.linalg.lstsq(rows / counts, targets / counts, rcond=REFERENCE_RCOND, driver="gelsd")
    references: Tensor = fit.solution[:, 0]
    return references


class StructureSet(Sequence[Sample]):
    """The graphs and labels of the files of a config, read on demand or held in memory."""

    def __init__(
        self,
        files: Sequence[str],
        options: DataOptions,
        max_neighbors: int,
        charge_spin: bool,
        *,
        labelled: bool = True,
    ) -> None:
        self.frames, self.labelled = Selection(files), labelled
        self.options, self.max_neighbors, self.charge_spin = options, max_neighbors, charge_spin
        self.memory: list[Sample] | None = None
        if options.in_memory:
            self.memory = [self._read(i) for i in tqdm(range(len(self.frames)), "graphs", leave=False)]
        self.catalog = Catalog.of(self._summaries(options.workers))

    def __len__(self) -> int:
        return len(self.frames)

    def __getitem__(self, index: Any) -> Any:
        return self._read(index) if self.memory is None else self.memory[index]

    def _read(self, index: int) -> Sample:
        return self.sample_of(self.frames[index], index)

    def sample_of(self, atoms: Atoms, index: int) -> Sample:
        """The sample of a structure of the set whose atoms may have been moved."""
        source = str(atoms.info.get(self.options.source_key, self.frames.path(index).stem))
        place = self.frames.place(index)
        if self.labelled:
            options = self.options
            atoms = with_labels_of(atoms, place, options.energy_key, options.forces_key, options.stress_key)
        sample = make_sample(
            atoms, place, self.max_neighbors, self.charge_spin, source, labelled=self.labelled
        )
        return sample.without_stress() if source in self.options.drop_stress else sample

    def _summaries(self, workers: int) -> list[Summary]:
        if self.memory is not None:
            return [summarize(sample) for sample in self.memory]
        rows = _Rows(self)
        loader = DataLoader(rows, batch_size=None, num_workers=workers)  # type: ignore[var-annotated, arg-type]
        return list(tqdm(loader, "catalog", total=len(self), leave=False))


class _Rows(Sequence[Summary]):
    """The summaries, computed in the workers of a DataLoader."""

    def __init__(self, structures: StructureSet) -> None:
        self.structures = structures

    def __len__(self) -> int:
        return len(self.structures)

    def __getitem__(self, index: Any) -> Any:
        return summarize(self.structures[index])


def filtered(catalog: Catalog, options: DataOptions) -> Catalog:
    """Without unwanted sources and outliers; how many each rule removes is logged.

    Raises ValueError when a source does not occur or nothing is left.
    """
    present = sorted(set(catalog.sources.tolist()))
    for name in ("keep_sources", "drop_sources", "drop_stress"):
        chosen = getattr(options, name)
        if unknown := [source for source in chosen if source not in present]:
            raise ValueError(f"train: `data.{name}` has {unknown} but the sources are {present}")
    if options.keep_sources:
        catalog = _without(catalog, ~np.isin(catalog.sources, options.keep_sources), "keep_sources")
    if options.drop_sources:
        catalog = _without(catalog, np.isin(catalog.sources, options.drop_sources), "drop_sources")
    if options.max_force is not None:
        catalog = _without(catalog, catalog.forces[:, 2] > options.max_force, "max_force")
    if options.max_stress is not None:
        largest = np.abs(np.nan_to_num(catalog.stress)).max(axis=1, initial=0.0)
        catalog = _without(catalog, largest > options.max_stress, "max_stress")
    if options.max_energy_deviation is not None:
        fit = fit_references(catalog.composition, catalog.energy).numpy()
        deviation = (catalog.energy - catalog.composition[:, : len(fit)] @ fit) / catalog.n_atoms
        far = np.abs(deviation - np.median(deviation)) > options.max_energy_deviation
        catalog = _without(catalog, far, "max_energy_deviation")
    return catalog


def _without(catalog: Catalog, unwanted: NDArray[np.bool_], rule: str) -> Catalog:
    if unwanted.all():
        raise ValueError(f"train: `data.{rule}` leaves no structure of {len(catalog)}")
    log.info("data.%s removes %d of %d structures", rule, int(unwanted.sum()), len(catalog))
    return catalog.take(~unwanted)


def split(catalog: Catalog, fraction: float, by: str, seed: int) -> tuple[Catalog, Catalog]:
    """Training and validation parts. What shares `by` (structure, composition, source) stays together.

    Groups are drawn at random until the validation part has at least `fraction` of the structures; of single
    structures exactly that many (rounded). Raises ValueError when nothing would be left to train on.
    """
    if by == "structure":
        group = np.arange(len(catalog))
    elif by == "source":
        group = np.unique(catalog.sources, return_inverse=True)[1]
    else:
        group = np.unique(catalog.composition, axis=0, return_inverse=True)[1]
    group = group.reshape(-1)
    wanted, sizes = round(fraction * len(catalog)), np.bincount(group)
    held_out = np.zeros(len(sizes), dtype=bool)
    taken = 0
    for chosen in np.random.default_rng(seed).permutation(len(sizes)):
        if taken >= wanted:
            break
        held_out[chosen] = True
        taken += sizes[chosen]
    if held_out.all():
        raise ValueError(
            f"train: `data.validation_fraction` is {fraction} but {len(sizes)} group(s) by `data.split` "
            f"{by!r} leave nothing to train on"
        )
    return catalog.take(~held_out[group]), catalog.take(held_out[group])
