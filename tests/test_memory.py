"""Memory that waits to be used again: it is given back when it is wanted, and after a while."""

import subprocess
import sys
from pathlib import Path

import pytest
from util import FORKS

pytestmark = pytest.mark.skipif(
    not Path("/proc/self/statm").exists(), reason="asks Linux how much memory a process has"
)

COMPUTE = """
import resource, time
import numpy as np
import fastrnn

MB = 2**20

def megabytes(field=1):
    with open("/proc/self/statm") as file:
        return int(file.read().split()[field]) * resource.getpagesize() // MB

def compute(size):  # results of so many MB
    x, h0 = np.zeros((64, size * 64, 1), "f"), np.zeros((64, 64), "f")
    fastrnn.rnn_forward(x, h0, np.zeros((1, 64), "f"), np.zeros((64, 64), "f"), np.zeros(64, "f"))
    del x

compute(1)
"""


def python(script):
    """What a fresh interpreter prints."""
    command = [sys.executable, *FORKS, "-c", COMPUTE + script]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert not done.stderr
    return done.stdout.split()


def test_release_memory_gives_back_what_waits():
    script = """
before = megabytes()
compute(100)
kept = megabytes()
given = fastrnn.release_memory() // MB
print(kept - before >= 100, given >= 100, megabytes() < before + 20, fastrnn.release_memory())
"""
    assert python(script) == ["True", "True", "True", "0"]


def test_without_the_extension_in_use_there_is_nothing_to_release():
    script = "import fastrnn; print(fastrnn.release_memory())"
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert done.stdout.strip() == "0", done.stderr


def test_memory_that_waits_is_used_where_there_is_no_other():
    script = """
compute(300)
limit = megabytes(0) + 150
resource.setrlimit(resource.RLIMIT_AS, (limit * MB, limit * MB))
compute(200)
print("done")
"""
    assert python(script) == ["done"]


def test_memory_is_given_back_after_a_while():
    script = """
before = megabytes()
compute(100)
kept, end = megabytes(), time.monotonic() + 30
while megabytes() >= before + 20 and time.monotonic() < end:
    time.sleep(0.1)
print(kept - before >= 100, megabytes() < before + 20)
compute(100)
"""
    assert python(script) == ["True", "True"]


def test_memory_that_waits_survives_a_fork():
    script = """
import os
compute(100)
if os.fork() == 0:
    compute(100)
    os._exit(fastrnn.release_memory() < 100 * MB)
print(os.waitstatus_to_exitcode(os.wait()[1]), fastrnn.release_memory() >= 100 * MB)
"""
    assert python(script) == ["0", "True"]


RECOMPUTE = """
from fastrnn import nn

def backward(every):
    module, x = nn.LSTM(8, 64, 2, seed=0), np.ones((4, 10_000, 8), np.float32)
    y, _, cache = module.forward(x, training=True, checkpoint_every=every)
    module.backward(y, cache)

def most():
    with open("/proc/self/status") as file:
        return int(next(line for line in file if line.startswith("VmHWM")).split()[1]) // 1024

before = most()
backward(100)
print(most() - before)
backward(None)
print(most() - before)
"""


def test_recomputed_gradients_need_the_memory_of_a_segment():
    """Two layers of 64 units over 10,000 steps of 4 rows: y and dx, twice while they are joined,
    are 24 MB; what is kept for backward is 122 MB more."""
    segments, whole = map(int, python(RECOMPUTE))
    assert segments < 40
    assert whole > segments + 100
