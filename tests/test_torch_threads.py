"""fastrnn.torch uses as many threads as torch does, in every process, however it came about."""

import os
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
from fastrnn.torch import threads

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


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork")
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


needs_borrowed = pytest.mark.skipif(
    not threads.borrow(), reason="torch's threads cannot be had here"
)

BORROW = '''
import ctypes, os, sys, threading, time
import torch

large = torch.zeros(1_000_000)
torch.set_num_threads(3)
large.add_(1)  # by three threads
if "fork" in sys.argv and os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))

import fastrnn.torch
from fastrnn.backends import _kernels

fastrnn.set_num_threads(4)
layer = fastrnn.torch.LSTM(64, 128)
x = torch.randn(4, 60, 64)  # so small that torch, in a forked process, asks no thread for help

def tell():
    """In how many parts a call runs, and how many threads it adds."""
    tasks = len(os.listdir("/proc/self/task"))
    _kernels.most_parts()
    layer(x)
    print(_kernels.most_parts(), len(os.listdir("/proc/self/task")) - tasks, flush=True)
'''


def borrowing(script, *args, **environment):
    """Output of a fresh process that runs BORROW, then a script."""
    done = subprocess.run(
        [sys.executable, *FORKS, "-c", BORROW + textwrap.dedent(script), *args],
        env=os.environ | environment,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout.split()


@needs_borrowed
def test_calls_run_on_torchs_threads():
    """Of which there are as many as torch was told, whether a call needs all of them or not."""
    script = """
    tell()
    fastrnn.set_num_threads(2)
    tell()
    """
    assert borrowing(script) == ["3", "0", "2", "0"]


@needs_borrowed
def test_another_thread_and_a_forked_process_have_fastrnns():
    """OpenMP would start as many for each thread, and wait for what the child does not have."""
    script = """
    for _ in range(2):
        thread = threading.Thread(target=tell)
        thread.start()
        thread.join()
        while os.path.exists(f"/proc/self/task/{thread.native_id}"):
            time.sleep(0.001)  # which joined, but would be counted until it has ended
    tell()
    if os.fork() == 0:
        tell()
        os._exit(0)
    os.wait()
    tell()
    """
    first, second, *others = zip(*2 * [iter(borrowing(script))], strict=True)
    assert (first, second) == (("3", "2"), ("3", "0"))  # two workers, and then the same
    assert others == [("3", "0"), ("3", "2"), ("3", "0")]


@needs_borrowed
def test_import_in_a_forked_process_whose_parent_had_torchs_threads():
    assert borrowing("tell()", "fork") == ["3", "2"]


@needs_borrowed
def test_parts_are_as_many_as_the_threads_that_openmp_gives():
    script = """
    torch.manual_seed(0)
    layer, x = fastrnn.torch.LSTM(300, 300), torch.randn(5, 4, 300)  # whose threads meet
    fastrnn.set_num_threads(1)
    alone = layer(x)[0]
    fastrnn.set_num_threads(3)
    print(torch.equal(layer(x)[0], alone))
    """
    assert borrowing(script, OMP_THREAD_LIMIT="2") == ["True"]


@needs_borrowed
def test_a_call_within_a_region_of_openmps_has_its_own_thread():
    script = """
    from fastrnn.torch.threads import _openmp_entries

    results, outside = [], layer(x)[0]

    @ctypes.CFUNCTYPE(None, ctypes.c_void_p)
    def work(_):
        if threading.current_thread() is threading.main_thread():
            results.append(torch.equal(layer(x)[0], outside))

    region = ctypes.CFUNCTYPE(None, type(work), ctypes.c_void_p, ctypes.c_uint, ctypes.c_uint)
    region(_openmp_entries()[0])(work, None, 2, 0)
    print(*results)
    """
    assert borrowing(script) == ["True"]


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
