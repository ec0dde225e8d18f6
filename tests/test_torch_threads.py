"""fastrnn.torch uses as many threads as torch does, in every process, however it came about."""

import shutil
import subprocess
import sys
import textwrap

import pytest
import torch
from util import FORKS

import fastrnn.torch
from fastrnn.backends import _kernels
from fastrnn.backends.threads import openmp_libraries

LARGE = 64, 16, 64, 128  # work enough for several threads


@pytest.fixture
def torchs_threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.mark.parametrize("name", ["LSTM", "LSTMCell"])
def test_as_many_threads_as_torch_uses(name, torchs_threads):
    N, T, D, H = LARGE
    layer = getattr(fastrnn.torch, name)(D, H)
    x = torch.randn(T, N, D) if name == "LSTM" else torch.randn(16 * N, D)
    layer.use = "fastrnn"
    fastrnn.set_num_threads(4)
    found = {}
    for n in (1, 3):
        torchs_threads(n)
        _kernels.most_parts()
        y = layer(x)[0]
        forward = _kernels.most_parts()
        y.sum().backward()
        assert (forward, _kernels.most_parts()) == (n, n)
        found[n] = y
        assert fastrnn.get_num_threads() == 4
    assert torch.equal(found[1], found[3])
    torchs_threads(4)
    fastrnn.set_num_threads(2)  # no more than fastrnn may use
    layer(x)
    assert _kernels.most_parts() == 2


SCRIPT = """
import os, sys
import torch
layer, x = fastrnn.torch.LSTM(64, 128), torch.randn(16, 64, 64)

def train(label):
    y, _ = layer(x)
    y.sum().backward()
    print(label, fastrnn.backends._kernels.most_parts(), f"{y.sum():.3f}", flush=True)

class Data(torch.utils.data.Dataset):
    def __len__(self):
        return 2
    def __getitem__(self, i):
        fastrnn.backends._kernels.most_parts()
        y, _ = layer(x)
        return torch.tensor(fastrnn.backends._kernels.most_parts())

torch.set_num_threads(2)
fastrnn.set_num_threads(2)
torch.nn.LSTM(64, 128)(x)[0].sum().backward()  # torch's threads are there
train("parent")
if (child := os.fork()) == 0:
    torch.set_num_threads(1)  # torch's own do not outlive a fork
    train("child")
    os._exit(0)
assert os.waitpid(child, 0)[1] == 0
train("parent again")
workers = torch.utils.data.DataLoader(Data(), num_workers=1)
print("workers", *torch.cat(list(workers)).tolist())
train("parent at last")
"""


@pytest.mark.skipif(not hasattr(__import__("os"), "fork"), reason="no fork")
@pytest.mark.parametrize("order", ["import torch, fastrnn.torch", "import fastrnn.torch, torch"])
def test_forks_and_workers_in_either_order_of_imports(order):
    run = subprocess.run(
        [sys.executable, *FORKS, "-c", f"import fastrnn.backends._kernels\n{order}{SCRIPT}"],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert run.returncode == 0, run.stderr
    lines = [line.rsplit(" ", 2) for line in run.stdout.splitlines()]
    labels, parts, sums = zip(*lines, strict=True)
    assert labels == ("parent", "child", "parent again", "workers", "parent at last")
    assert parts == ("2", "1", "2", "1", "2")
    assert sums[3] == "1"
    assert len({sums[i] for i in (0, 1, 2, 4)}) == 1


def test_torchs_idle_threads_are_sent_home_before_large_work_and_come_again():
    """OpenMP's wait in a loop, and a call that competed with them took half as long again."""
    script = """
    import os, torch, fastrnn.torch

    torch.set_num_threads(2)
    fastrnn.set_num_threads(1)
    lstm, x = fastrnn.torch.LSTM(256, 256), torch.zeros(60, 20, 256)
    large = torch.zeros(1_000_000)
    for _ in range(3):
        large.add_(1)  # by two threads
        before = len(os.listdir("/proc/self/task"))
        with torch.inference_mode():
            lstm(x)
        print(before - len(os.listdir("/proc/self/task")))
    if os.fork() == 0:  # which has none of them, and would wait for ever
        lstm(x)
        print("child")
        os._exit(0)
    os.wait()
    """
    command = [sys.executable, *FORKS, "-c", textwrap.dedent(script)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["1", "1", "1", "child"], done.stderr


def test_openmp_is_found_by_any_path_and_missed_where_it_is_gone(tmp_path):
    library = next(iter(openmp_libraries()), None)
    if library is None:
        pytest.skip("torch has no OpenMP of its own here")
    copy = tmp_path / "My Env" / "libgomp-copy.so.1"
    copy.parent.mkdir()
    shutil.copy(library._name, copy)
    script = """
    import ctypes, os, sys
    from fastrnn.backends.threads import openmp_libraries

    ctypes.CDLL(sys.argv[1])
    print(*[library._name == sys.argv[1] for library in openmp_libraries()])
    os.unlink(sys.argv[1])
    print(len(openmp_libraries()))
    """
    command = [sys.executable, *FORKS, "-c", textwrap.dedent(script), str(copy)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.split() == ["True", "0"], done.stderr
