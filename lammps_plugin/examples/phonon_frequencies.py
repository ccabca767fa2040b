"""Frequencies of the dynamical matrix that `dynamical_matrix all eskm` of LAMMPS wrote, in THz.

    python phonon_frequencies.py dynmat.dat

Imaginary frequencies are printed as negative ones; the three of a moving
crystal are zero up to the accuracy of the forces.
"""

import sys

import numpy as np


def frequencies(file: str) -> np.ndarray:
    """(3N,) in THz, ascending, of a matrix of (3N)^2 numbers in units of 10 J/mol/angstrom^2/(g/mol)."""
    entries = np.loadtxt(file).ravel()
    size = round(len(entries) ** 0.5)
    matrix = entries.reshape(size, size)
    squares = np.linalg.eigvalsh((matrix + matrix.T) / 2)
    # sqrt(10 J/mol / angstrom^2 / (g/mol)) is 1 rad/ps
    return np.sign(squares) * np.sqrt(np.abs(squares)) / (2 * np.pi)


if __name__ == "__main__":
    for frequency in frequencies(sys.argv[1]):
        print(f"{frequency:.4f}")
