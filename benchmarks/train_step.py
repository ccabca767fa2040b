"""Time of one training step beside orb-models' own fine-tuning step, as a Markdown table.

    python benchmarks/train_step.py [--models direct-20 conservative-inf] [--atoms 32] [--repeats 3]

Same random weights, same batch, float32 on the CPU: loss (all terms), backward passes, clipping, Adam. The
peer is orb-models 0.5.5 as its fine-tuning script uses it; ours is what `orb-export train` runs, compiled
before the clock starts. Both take turns within every repeat, with the same threads, on
rattled copper; graphs are ready in memory on both sides. The least of each one's times counts, and the first
losses are printed: both do the same work.
"""

import argparse
import tempfile
import time
import warnings
from collections.abc import Callable
from pathlib import Path

import ase.build
import numpy as np
import torch
from ase import Atoms
from ase.calculators.singlepoint import SinglePointCalculator
from orb_export import checkpoint
from orb_export.graph import from_atoms
from orb_export.model import OrbConfig, OrbV3
from orb_export.train.compiled import CompiledPredict
from orb_export.train.config import LossWeights
from orb_export.train.data import collate, make_sample
from orb_export.train.losses import loss_terms

MODELS = {
    "direct-20": OrbConfig("direct", max_neighbors=20),
    "direct-inf": OrbConfig("direct", max_neighbors=120),
    "conservative-20": OrbConfig("conservative", max_neighbors=20),
    "conservative-inf": OrbConfig("conservative", max_neighbors=120),
}
BAR = 0.8  # of the peer's time, issue 4
LEARNING_RATE, CLIP = 3e-4, 0.5  # of the fine-tuning script
WEIGHTS = LossWeights()  # 1 on every term, as its models have

Step = Callable[[], float]


def copper(model: OrbV3, n_atoms: int, seed: int) -> Atoms:
    """Rattled fcc copper, labelled by the model itself with small errors.

    Against other labels, every force error of random weights is beyond the last confidence bin, and the loss
    of orb-models NaN.
    """
    atoms = ase.build.bulk("Cu", "fcc", a=3.61, cubic=True).repeat((2, 2, n_atoms // 16))
    atoms.rattle(0.1, seed=seed)
    found = model.eval().predict(from_atoms(atoms, model.config.max_neighbors))
    rng = np.random.default_rng(seed)
    atoms.calc = SinglePointCalculator(
        atoms,
        energy=float(found["energy"]) + rng.normal(),
        forces=found["forces"].numpy() + 0.1 * rng.standard_normal((len(atoms), 3)),
        stress=found["stress"][0].numpy() + 0.01 * rng.standard_normal(6),
    )
    return atoms


def stepped(model: torch.nn.Module, loss: Callable[[], torch.Tensor], *, fused: bool = False) -> Step:
    parameters = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.Adam(parameters, LEARNING_RATE, fused=fused)

    def step() -> float:
        optimizer.zero_grad()
        value = loss()
        value.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP)
        optimizer.step()
        return float(value.detach())

    return step


def peer(model: OrbV3, name: str, folder: Path, batch: list[Atoms]) -> Step:
    """orb-models with the weights of `model`."""
    from orb_models.forcefield import base, pretrained

    file = folder / f"{name}.ckpt"
    torch.save(checkpoint.to_upstream_state_dict(model), file)
    load = getattr(pretrained, f"orb_v3_{name.replace('-', '_')}_omat")
    theirs = load(weights_path=str(file), device="cpu", compile=False, train=True)
    theirs.train()
    graphs = base.batch_graphs([_labelled_graph(atoms, theirs.system_config) for atoms in batch])
    return stepped(theirs, lambda: theirs.loss(graphs).loss)


def _labelled_graph(atoms: Atoms, system_config: object) -> object:
    from orb_models.forcefield import atomic_system

    def tensor(value: object) -> torch.Tensor:
        return torch.tensor(np.asarray(value), dtype=torch.float32)

    graph = atomic_system.ase_atoms_to_atom_graphs(atoms, system_config, device=torch.device("cpu"))
    return graph._replace(
        system_targets={
            "energy": tensor([atoms.get_potential_energy()]),
            "stress": tensor(atoms.get_stress())[None],
        },
        node_targets={"forces": tensor(atoms.get_forces())},
    )


def ours(model: OrbV3, batch: list[Atoms]) -> Step:
    """Compiled, as in runs of more than a few minutes."""
    model.train().decoder.requires_grad_(False)
    cap = model.config.max_neighbors
    graph, labels = collate([make_sample(atoms, "copper", cap, charge_spin=False) for atoms in batch])
    predict = CompiledPredict(model)
    return stepped(
        model, lambda: loss_terms(model, graph, labels, WEIGHTS, prediction=predict(graph))[0], fused=True
    )


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--models", nargs="+", choices=MODELS, default=["direct-20", "conservative-inf"])
    parser.add_argument(
        "--atoms", type=int, default=32, help="multiple of 16; two such structures in a batch"
    )
    parser.add_argument("--repeats", type=int, default=3)
    args = parser.parse_args()
    warnings.simplefilter("ignore")  # of orb-models
    print(f"{torch.get_num_threads()} threads, torch {torch.__version__}\n")
    print("| model | atoms | loss of orb-models, ours | orb-models | ours | ours / orb-models |")
    print("|---|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as name:
        for model_name in args.models:
            torch.manual_seed(0)
            model = OrbV3(MODELS[model_name])
            batch = [copper(model, args.atoms, seed) for seed in (0, 1)]
            steps = {"peer": peer(model, model_name, Path(name), batch), "ours": ours(model, batch)}
            losses = {key: step() for key, step in steps.items()}
            times: dict[str, list[float]] = {key: [] for key in steps}
            for _ in range(args.repeats):
                for key, step in steps.items():
                    start = time.perf_counter()
                    step()
                    times[key].append(time.perf_counter() - start)
            best = {key: min(values) for key, values in times.items()}
            print(
                f"| {model_name} | 2 x {len(batch[0])} | {losses['peer']:.5f}, {losses['ours']:.5f} "
                f"| {best['peer']:.2f} s | {best['ours']:.2f} s "
                f"| {best['ours'] / best['peer']:.2f} (bar {BAR}) |",
                flush=True,
            )


if __name__ == "__main__":
    main()
