"""Our operators use the threads of torch. Oracle: the threads that the kernel counts in a fresh process."""

import subprocess
import sys

import pytest

PROGRAM = """
import os, torch
from orb_export import ops

torch.set_num_threads({threads})
weights = [torch.ops.orb_export.pack_matrix(torch.randn(64, 64), "float32") for _ in range(3)]
bias, x = torch.zeros(64), torch.randn(512, 64)
before = len(os.listdir("/proc/self/task"))
torch.ops.orb_export.perceptron(
    x, None, None, None, None, weights[0], bias, weights[1], bias, weights[2], bias, False
)
print(len(os.listdir("/proc/self/task")) - before)
"""


@pytest.mark.parametrize("threads", [1, 3])
def test_a_perceptron_uses_the_threads_of_torch(threads):
    program = [sys.executable, "-c", PROGRAM.format(threads=threads)]
    done = subprocess.run(program, capture_output=True, text=True, check=True)
    assert int(done.stdout) == threads - 1
