"""Every refusal and warning of the pair style, by its text."""

import re
import shutil

import pytest

from tests.engines.lammps import runs

# A script by its parts; each test replaces or extends one.
PARTS = {
    "units": "units metal",
    "dimension": "",
    "atoms": "atom_style atomic",
    "box": "region box block 0 6 0 6 0 6\ncreate_box 2 box",
    "positions": "create_atoms 1 single 1 1 1\ncreate_atoms 2 single 3.4 1.2 0.9",
    "masses": "mass 1 22.99\nmass 2 35.45",
    "style": "pair_style orbv3",
    "coeff": "pair_coeff * * {model} Na Cl",
    "more": "",
    "run": "run 0",
}

TOUCHING = "create_atoms 1 single 1 1 1\ncreate_atoms 2 single 1 1 1"
INCLUDE = "group na type 1\natom_modify first na\nneigh_modify include na"
BONDED = "create_box 2 box bond/types 1 extra/bond/per/atom 2 extra/special/per/atom 4"


def failure(model, **parts: str) -> str:
    """The error that LAMMPS stops with."""
    with runs.session() as lmp, pytest.raises(Exception, match="ERROR") as caught:
        lmp.commands_string("\n".join({**PARTS, **parts}.values()).replace("{model}", str(model)))
    return str(caught.value)


def output(capfd, model, **parts: str) -> str:
    """What LAMMPS prints; there must be no error."""
    with runs.session(screen=True) as lmp:
        lmp.commands_string("\n".join({**PARTS, **parts}.values()).replace("{model}", str(model)))
    return capfd.readouterr().out


def test_the_script_itself_runs(model, capfd):
    printed = output(capfd, model)
    assert "WARNING: Pair" not in printed
    assert "orbv3 model random-conservative-120 (conservative, float64, cpu): cutoff 6 Angstrom" in printed


@pytest.mark.parametrize(
    ("parts", "text"),
    [
        ({"units": "units lj"}, "Pair style orbv3 works in units metal or real, but units are lj"),
        ({"units": "units si"}, "works in units metal or real, but units are si"),
        ({"style": "pair_style orbv3 divice cpu"}, "Unknown pair_style orbv3 keyword: divice"),
        ({"style": "pair_style orbv3 device"}, "Illegal pair_style orbv3 device command: missing argument"),
        ({"style": "pair_style orbv3 device gpu"}, "device is gpu but must be auto, cpu, cuda or cuda:N"),
        ({"style": "pair_style orbv3 spin 0"}, "spin is 0 but must be at least 1, a multiplicity"),
        ({"style": "pair_style orbv3 device cuda:"}, "device is cuda: but must be auto, cpu, cuda or cuda:N"),
        ({"style": "pair_style orbv3 device cuda:1x"}, "device is cuda:1x but must be auto"),
        ({"style": "pair_style orbv3 threads two"}, "Expected integer parameter instead of 'two'"),
        ({"style": "pair_style orbv3 threads 1.5"}, "Expected integer parameter instead of '1.5'"),
        ({"style": "pair_style orbv3 memory -1"}, "memory is -1 GB but must be from 0 "),
        ({"style": "pair_style orbv3 memory 1e-7"}, "`memory_limit` is 100 bytes but"),
        ({"style": "pair_style orbv3 exchange"}, "pair_style orbv3 exchange command: missing argument"),
        ({"style": "pair_style orbv3 exchange x"}, "exchange is x but must be auto, reverse or redundant"),
        ({"style": "pair_style orbv3 program x"}, "program is x but must be auto, whole or steps"),
        ({"style": "pair_style orbv3 timing maybe"}, "Expected boolean parameter instead of 'maybe'"),
        ({"style": "pair_style orbv3 threads -1"}, "threads is -1 but must not be negative"),
        ({"style": "pair_style orbv3 skin far"}, "Expected floating point parameter instead of 'far'"),
        ({"style": "pair_style orbv3 skin 1.5"}, "skin 1.5 is smaller than the 2 of the neighbor command"),
        ({"style": "pair_style orbv3 charge x"}, "Expected floating point parameter instead of 'x'"),
        ({"style": "pair_style orbv3 charge 1"}, "does not depend on charge or spin"),
        ({"style": "pair_style orbv3 spin 2"}, "does not depend on charge or spin"),
        ({"coeff": ""}, "All pair coeffs are not set"),
        ({"coeff": "pair_coeff * *"}, "pair_coeff"),
        ({"coeff": "pair_coeff * * {model} Na"}, "for each of the 2 atom types, but 1 are given"),
        ({"coeff": "pair_coeff * * {model} Na Cl Cl"}, "for each of the 2 atom types, but 3 are given"),
        ({"coeff": "pair_coeff 1 2 {model} Na Cl"}, "Pair_coeff must start with"),
        ({"coeff": "pair_coeff * * {model} Na Clx"}, "There is no element Clx; the model knows H He Li"),
        ({"coeff": "pair_coeff * * {model} Na cl"}, "There is no element cl; the model knows H He Li"),
        ({"coeff": "pair_coeff * * {model} Na Og"}, "Model has no element Og; the model knows H He .* Ts "),
        ({"coeff": "pair_coeff * * {model} NULL NULL"}, "maps every atom type to NULL"),
        ({"coeff": "pair_coeff * * {model} Na NULL"}, r"All pair coeffs are not set.*\n.*\n +1 +2: is not"),
        ({"coeff": "pair_coeff * * missing.pt Na Cl"}, r"orbv3: cannot open model file missing\.pt: No such"),
        ({"masses": "mass 1 35.45\nmass 2 22.99"}, "Na .* mass 35.45 instead of 22.9898, that of Cl: the"),
        ({"atoms": "atom_style atomic\natom_modify id no"}, "needs atom IDs, but atom_modify id is no"),
        ({"positions": TOUCHING}, "atoms (1 and 2|2 and 1) are at the same place"),
        ({"more": INCLUDE}, "needs the neighbors of all atoms: remove neigh_modify include"),
    ],
    ids=lambda value: None if isinstance(value, dict) else value[:40],
)  # fmt: skip
def test_misuse_is_refused(parts, text, model):
    message = failure(model, **parts)
    assert re.search(text, message), message


def test_two_dimensions_are_refused(model):
    message = failure(
        model,
        dimension="dimension 2",
        box="region box block 0 6 0 6 -0.5 0.5\ncreate_box 2 box",
        positions="create_atoms 1 single 1 1 0\ncreate_atoms 2 single 3.4 1.2 0",
    )
    assert "Pair style orbv3 is for three dimensions, but dimension is 2" in message


@pytest.mark.parametrize("setting", ["lj/coul 0 0 0", "lj/coul 1 0.5 1", "lj 1 1 0 coul 1 1 1"])
def test_special_bonds_are_refused_for_molecules(setting, model):
    message = failure(
        model,
        atoms="atom_style full",
        box="region box block 0 6 0 6 0 6\n" + BONDED,
        more=f"special_bonds {setting}\nbond_style zero\nbond_coeff *",
    )
    assert "special_bonds removes or scales those of bonded atoms: use special_bonds lj/coul 1 1 1" in message


def test_special_bonds_of_one_are_accepted(model, capfd):
    output(
        capfd,
        model,
        atoms="atom_style full",
        box="region box block 0 6 0 6 0 6\n" + BONDED,
        more="special_bonds lj/coul 1 1 1\nbond_style zero\nbond_coeff *\ncreate_bonds single/bond 1 1 2",
    )


def test_odd_mass_gives_a_warning(model, capfd):
    printed = output(capfd, model, masses="mass 1 50.0\nmass 2 35.45")
    assert "WARNING: Atom type 1 is Na for pair style orbv3 but has mass 50 instead of 22.9898" in printed


def test_excluded_pairs_give_a_warning(model, capfd):
    printed = output(capfd, model, more="neigh_modify exclude type 1 2")
    assert "WARNING: Pair style orbv3 does not see the pairs that neigh_modify exclude removes" in printed


def test_settings_again_ask_for_the_model_again(model):
    assert "All pair coeffs are not set" in failure(model, more="pair_style orbv3 threads 1")


@pytest.mark.parametrize("keywords", ["", "charge 0", "spin 1"])
def test_charge_and_spin_are_required_together(keywords, models):
    message = failure(models["charged"], style=f"pair_style orbv3 {keywords}")
    assert "depends on the total charge and the spin multiplicity: give pair_style orbv3 both" in message


@pytest.mark.parametrize(
    ("damage", "text"),
    [
        (lambda data: data[: len(data) // 2], "is not an orb_export artefact|truncated"),
        (lambda data: b"", "is not an orb_export artefact|truncated|empty"),
        (lambda data: b"units metal\n", "is not an orb_export artefact"),
        (
            lambda data: data[:5000] + bytes([data[5000] ^ 1]) + data[5001:],
            "altered|not an orb_export artefact",
        ),
    ],
    ids=["half", "empty", "text", "one bit"],
)
def test_damaged_files_are_refused(damage, text, model, tmp_path):
    damaged = tmp_path / model.name
    damaged.write_bytes(damage(model.read_bytes()))
    message = failure(damaged)
    assert re.search(f"Pair style orbv3: load: `.*{damaged.name}`.*({text})", message), message


def test_a_folder_is_no_model(tmp_path):
    message = failure(tmp_path)
    assert re.search("Pair style orbv3: ", message), message


def test_cuda_is_refused_for_a_model_of_the_cpu(model):
    message = failure(model, style="pair_style orbv3 device cuda:0")
    assert re.search("Pair style orbv3: load: .*cpu.*cuda|cuda.*cpu", message), message


def test_a_path_with_spaces_and_braces(model, tmp_path, capfd):
    folder = tmp_path / "a {0} b"
    folder.mkdir()
    shutil.copy(model, folder / "m.pt")
    output(capfd, folder / "m.pt", coeff='pair_coeff * * "{model}" Na Cl')
    message = failure(folder / "missing.pt", coeff='pair_coeff * * "{model}" Na Cl')
    assert "a {0} b/missing.pt" in message


def test_results_that_are_not_finite_stop_the_run(model):
    # 1 / r^2 overflows
    close = "create_atoms 1 single 0 0 0\ncreate_atoms 2 single 1e-160 0 0"
    message = failure(model, positions=close)
    assert re.search("Pair style orbv3: evaluate: the potential gave a non-finite", message), message


def test_flagged_neighbors_are_neighbors(model):
    # special_bonds coul of another weight marks the neighbor in high bits of its index
    bonded = {"atoms": "atom_style full", "box": "region box block 0 6 0 6 0 6\n" + BONDED}
    energies = []
    for bond in ("", "create_bonds single/bond 1 1 2"):
        more = f"special_bonds lj 1 1 1 coul 0.5 1 1\nbond_style zero\nbond_coeff *\n{bond}"
        with runs.session() as lmp:
            lmp.commands_string("\n".join({**PARTS, **bonded, "more": more}.values()).format(model=model))
            energies.append(lmp.get_thermo("pe"))
    assert energies[0] == energies[1]
