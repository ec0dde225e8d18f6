"""Threads, processes and configuration: they change the time a call takes, never a bit of it."""

import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import threadpoolctl
from util import (
    FORKS,
    LAYERS,
    SEQUENCES,
    SHAPES,
    assert_results,
    assert_same_bits,
    draw,
    run,
    without,
)

import fastrnn
from fastrnn.backends import _kernels, compiled, current_backend, threads
from fastrnn.backends._kernels import isas
from fastrnn.backends.threads import available_cpus

# Work enough for four threads.
LARGE = {
    **dict.fromkeys(LAYERS, (200, 3, 200, 100)),
    "affine": (200, 1, 200, 200),
    **dict.fromkeys([name for name in LAYERS if "embedding" in name], (100, 100, 800, 7)),
    **dict.fromkeys([name for name in LAYERS if "attention" in name], (400, 60, 200, 100)),
    "softmax_loss": (600, 1, 1, 500),
    **dict.fromkeys([name for name in LAYERS if "temporal_softmax" in name], (200, 3, 1, 500)),
}


@pytest.mark.parametrize("name", [name for name in LAYERS if "sparse" not in name])
def test_any_number_of_threads_gives_the_same_bits(name, isa, dtype, rng):
    operands = draw(LAYERS[name], rng, dtype, *LARGE[name])
    fastrnn.set_num_threads(1)
    expected = run(LAYERS[name], operands, "cython")
    for n in (2, 3, 4):
        fastrnn.set_num_threads(n)
        _kernels.most_parts()
        assert_results(assert_same_bits, run(LAYERS[name], operands, "cython"), expected)
        assert _kernels.most_parts() == n


# Fewer rows than two a thread, or a Wh of 1 MB and more: the threads share hidden units and meet.
SHARED_UNITS = [(1, 9, 40, 100), (3, 5, 33, 130), (10, 3, 64, 370)]


@pytest.mark.parametrize("shape", SHARED_UNITS, ids=str)
@pytest.mark.parametrize("name", SEQUENCES)
def test_threads_that_share_units_give_the_same_bits(name, shape, isa, small_work_is_split, rng):
    operands = draw(LAYERS[name], rng, np.float32, *shape)
    fastrnn.set_num_threads(1)
    expected = run(LAYERS[name], operands, "cython")
    for n in (2, 3, 5):
        fastrnn.set_num_threads(n)
        assert_results(assert_same_bits, run(LAYERS[name], operands, "cython"), expected)


def test_a_thread_bounds_its_own_calls(small_work_is_split, rng):
    operands = draw(LAYERS["lstm"], rng, np.float32, 200, 3, 20, 30)

    def parts():
        _kernels.most_parts()
        run(LAYERS["lstm"], operands, "cython")
        return _kernels.most_parts()

    fastrnn.set_num_threads(3)
    before = compiled.bound_threads(2)
    try:
        assert before == 0 and parts() == 2
        with ThreadPoolExecutor(1) as other:
            assert other.submit(parts).result() == 3
        assert compiled.bound_threads(8) == 2 and parts() == 3
        assert fastrnn.get_num_threads() == 3
    finally:
        compiled.bound_threads(before)
    assert parts() == 3


def test_python_threads_compute_at_once(small_work_is_split, rng):
    fastrnn.set_num_threads(2)
    cases = [
        (LAYERS[cell], draw(LAYERS[cell], rng, np.float32, *shape))
        for cell in SEQUENCES
        for shape in SHAPES
    ]
    expected = [run(layer, operands, "cython") for layer, operands in cases]
    with ThreadPoolExecutor(8) as pool:
        for _ in range(5):
            actual = pool.map(lambda case: run(*case, "cython"), cases)
            for a, e in zip(actual, expected, strict=True):
                assert_results(assert_same_bits, a, e)


# ---- how many ------------------------------------------------------------------------------------


def test_work_decides_how_many_threads():
    fastrnn.set_num_threads(3)
    assert [_kernels.threads_for(n * 2e6) for n in (0, 1, 1.9, 2, 3, 100)] == [1, 1, 1, 2, 3, 3]


def test_packing_counts_among_the_work(rng):
    x, h, c, Wx, Wh, b = (
        rng.standard_normal(shape, np.float32)
        for shape in ((8, 512), (8, 128), (8, 128), (512, 512), (128, 512), 512)
    )
    fastrnn.set_num_threads(4)
    prepared = fastrnn.prepare("lstm", Wx, Wh, b)
    found = []
    for weights in ((prepared,), (Wx, Wh, b)):
        _kernels.most_parts()
        fastrnn.lstm_step_forward(x, h, c, *weights)
        found.append(_kernels.most_parts())
    assert found == [2, 4]


@pytest.mark.parametrize("n", [0, -1, 1.0, True, "2", None])
def test_number_of_threads_is_a_positive_integer(n):
    before = fastrnn.get_num_threads()
    with pytest.raises(ValueError) as error:
        fastrnn.set_num_threads(n)
    assert str(error.value) == f"n: expected an integer of at least 1, got {n!r}"
    assert fastrnn.get_num_threads() == before


# ---- which backend -------------------------------------------------------------------------------


def test_use_backend_ends_with_its_block_and_nests():
    fastrnn.set_backend("cython")
    with pytest.raises(KeyError), fastrnn.use_backend("numpy"):
        with fastrnn.use_backend("cython"):
            assert current_backend() == "cython"
        assert current_backend() == "numpy"
        raise KeyError
    assert current_backend() == "cython"


def test_use_backend_is_of_one_thread_and_set_backend_of_all():
    fastrnn.set_backend("cython")
    with ThreadPoolExecutor(1) as other:
        assert other.submit(current_backend).result() == "cython"
        with fastrnn.use_backend("numpy"):
            assert other.submit(current_backend).result() == "cython"
        fastrnn.set_backend("numpy")
        assert other.submit(current_backend).result() == "numpy"


def test_backend_keyword_is_of_one_call(rng):
    fastrnn.set_backend("cython")
    operands = draw(LAYERS["rnn"], rng, np.float64, *SHAPES[-1])
    of_reference, of_kernels = (run(LAYERS["rnn"], operands, b) for b in ("numpy", "cython"))
    assert (of_reference["out_0"] != of_kernels["out_0"]).any()  # so that bits tell who computed
    assert_results(assert_same_bits, run(LAYERS["rnn"], operands), of_kernels)
    with fastrnn.use_backend("numpy"):
        assert_results(assert_same_bits, run(LAYERS["rnn"], operands), of_reference)
        assert_results(assert_same_bits, run(LAYERS["rnn"], operands, "cython"), of_kernels)


@pytest.mark.parametrize("name", ["torch", "", "NumPy"])
def test_unknown_backend_is_refused_and_changes_nothing(name):
    before = current_backend()
    with pytest.raises(ValueError, match=f"got {name!r}$"):
        fastrnn.set_backend(name)
    with pytest.raises(ValueError, match=f"got {name!r}$"), fastrnn.use_backend(name):
        pass
    assert current_backend() == before


@pytest.mark.parametrize("name", ["mmx", "", "AVX2"])
def test_unknown_isa_is_refused_and_changes_nothing(name, isa):
    with pytest.raises(ValueError) as error:
        fastrnn.use_isa(name)
    assert str(error.value) == f"name: expected one of {isas()} on this CPU, got {name!r}"
    assert fastrnn.show_config()["isa"] == isa


def test_show_config_prints_what_it_returns(isa, capsys):
    fastrnn.set_num_threads(3)
    config = fastrnn.show_config()
    assert config["isa"] == isa and config["threads"] == 3
    assert config["backend"] == current_backend()
    printed = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert printed == {key: str(value) for key, value in config.items()}


# ---- fresh processes -----------------------------------------------------------------------------


def python(script, **environment):
    """Output and errors of a fresh interpreter that runs a script in an environment."""
    names = ("OMP_NUM_THREADS", "FASTRNN_ISA", "FASTRNN_BACKEND")
    inherited = {name: value for name, value in os.environ.items() if name not in names}
    process = subprocess.run(
        [sys.executable, *FORKS, "-c", script],
        cwd=Path(__file__).parent,
        env=inherited | environment,
        capture_output=True,
        text=True,
        timeout=120,
    )
    return process.stdout.strip(), process.stderr


def last_line(text):
    return text.splitlines()[-1]


OPTIONAL = (
    "click h5py jax matplotlib nltk onnxruntime PIL safetensors sklearn torch torchvision tqdm"
)


def test_import_needs_numpy_alone():
    out, errors = python("import sys, fastrnn; print(*{m.partition('.')[0] for m in sys.modules})")
    assert not errors
    assert {"fastrnn", "numpy"} <= set(out.split())
    assert not set(OPTIONAL.split()) & set(out.split())


@pytest.mark.parametrize(("value", "n"), [("3", 3), (" 3 ", 3), ("5,2", 5)])
def test_omp_num_threads_is_the_default(value, n):
    out, _ = python("import fastrnn; print(fastrnn.get_num_threads())", OMP_NUM_THREADS=value)
    assert int(out) == n


@pytest.mark.parametrize("value", ["", "0", "-2", "many"])
def test_omp_num_threads_that_is_no_number_means_the_cpus_at_hand(value):
    out, _ = python("import fastrnn; print(fastrnn.get_num_threads())", OMP_NUM_THREADS=value)
    assert int(out) == available_cpus()


CONFIG = "import fastrnn; config = fastrnn.show_config(); print(config['backend'], config['isa'])"


def test_environment_chooses_isa_and_backend(isa):
    out, errors = python(CONFIG, FASTRNN_ISA=isa, FASTRNN_BACKEND="numpy")
    assert not errors
    assert last_line(out) == f"numpy {isa}"


def test_environment_may_be_empty():
    out, errors = python(CONFIG, FASTRNN_ISA="", FASTRNN_BACKEND="")
    assert not errors
    assert last_line(out) == f"cython {isas()[0]}"


CALL = """
import numpy, fastrnn
fastrnn.softmax_loss(numpy.zeros((1, 1)), [0])
"""


def test_unknown_isa_in_the_environment_is_refused():
    _, errors = python(CALL, FASTRNN_ISA="mmx")
    expected = f"FASTRNN_ISA: expected one of {isas()} on this CPU, got 'mmx'"
    assert last_line(errors) == f"ValueError: {expected}"


@pytest.mark.parametrize("code", [CALL, CONFIG], ids=["call", "config"])
def test_unknown_backend_in_the_environment_is_refused(code):
    _, errors = python(code, FASTRNN_BACKEND="torch")
    assert last_line(errors).startswith("ValueError: ")
    assert last_line(errors).endswith("""expected "numpy" or "cython", got 'torch'""")


FORK = """
import hashlib, os, select, signal
import numpy as np
import fastrnn
from fastrnn.backends import _kernels
from util import LAYERS, draw, run

operands = draw(LAYERS["lstm"], np.random.default_rng(0), np.float32, 64, 20, 64, 64)

def report():
    _kernels.most_parts()
    results = run(LAYERS["lstm"], operands, "cython")
    bits = b"".join(a.tobytes() for a in results.values() if isinstance(a, np.ndarray))
    return f"{fastrnn.get_num_threads()} {_kernels.most_parts()} {hashlib.sha256(bits).hexdigest()}"

print(report())
read, write = os.pipe()
child = os.fork()
if child == 0:
    try:
        os.write(write, report().encode())
    finally:
        os._exit(0)
os.close(write)
if not select.select([read], [], [], 30)[0]:
    os.kill(child, signal.SIGKILL)
print(os.read(read, 1000).decode())
os.waitpid(child, 0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_forked_process_computes_the_same_bits():
    """A fork copies no threads: a child that waited for those of the parent would never end."""
    out, _ = python(FORK, OMP_NUM_THREADS="2")
    parent, child = out.splitlines()
    assert parent.startswith("2 2 ")
    assert child == parent


FORK_BEFORE_IMPORT = """
import os, sys, torch
torch.rand(2_000_000).sigmoid()
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
import numpy as np
import fastrnn
fastrnn.set_num_threads(2)
x, h0, Wx, Wh, b = (np.ones(shape, "f") for shape in ((64, 20, 64), (64, 64), *2 * [(64, 64)], 64))
fastrnn.rnn_forward(x, h0, Wx, Wh, b)
print("done")
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_import_in_a_forked_process_that_inherits_the_threads_of_another_library():
    out, errors = python(FORK_BEFORE_IMPORT, OMP_NUM_THREADS="2")
    assert out == "done", errors


FORK_DURING_A_STEP = """
import os, sys, threading
import numpy as np
import fastrnn

rng = np.random.default_rng(0)
weights = [rng.standard_normal(shape).astype("f") / 8 for shape in ((64, 256), (64, 256), 256)]
stream = fastrnn.Stream("lstm", *weights)
out = np.zeros((100_000, 1, 64), "f")
thread = threading.Thread(target=stream.steps, args=(np.ones_like(out), out), daemon=True)
thread.start()
while not out[0].any():
    pass
inside = not out[-1].any()
if os.fork():
    sys.exit(os.waitstatus_to_exitcode(os.wait()[1]))
stream.reset()
x = np.ones((1, 64), "f")
fresh = fastrnn.Stream("lstm", *weights)
print(inside, all(np.array_equal(stream.step(x), fresh.step(x)) for _ in range(3)), flush=True)
os._exit(0)
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_stream_that_was_stepped_during_a_fork_goes_on_in_the_child():
    out, errors = python(FORK_DURING_A_STEP)
    assert out == "True True", errors


@pytest.mark.parametrize("N", [1, 3, 25])
@pytest.mark.parametrize(
    ("name", "step"),
    [
        ("rnn", "rnn_step"),
        ("lstm_ifgo_c0_lengths", "lstm_ifgo_step"),
        ("gru", "gru_step"),
        ("gru_bh_lengths", "gru_bh_step"),
        ("gru_original", "gru_original_step"),
    ],
)
def test_steps_give_the_bits_of_the_sequence(name, step, N, isa, dtype, rng):
    T = 7
    layer = without(LAYERS[name], "lengths")
    x, *operands = draw(layer, rng, dtype, N, T, 33, 20).values()
    h, *_, cache = layer.forward(x, *operands)
    state, weights = operands[:1], operands[1:]
    if "c0" in layer.operands:
        state.append(weights.pop())
    for t in range(T):
        *state, _ = LAYERS[step].forward(x[:, t], *state, *weights)
        assert_same_bits(state[0], h[:, t])
    assert_same_bits(state[0], cache.hT)
    if "c0" in layer.operands:
        assert_same_bits(state[1], cache.cT)


def test_set_backend_keeps_the_instruction_set(monkeypatch):
    """FASTRNN_ISA is heeded once, when the extension is loaded; use_isa stands after that."""
    best, last = isas()[0], isas()[-1]
    fastrnn.use_isa(best)
    monkeypatch.setenv("FASTRNN_ISA", last)
    fastrnn.set_backend("cython")
    assert compiled._kernels.current_isa() == best


# ---- the team ------------------------------------------------------------------------------------

STEP = """
import os
import numpy as np
import fastrnn

def step(N, T, H):
    shapes = (N, T, H), (N, H), (H, 4 * H), (H, 4 * H), 4 * H
    x, h0, Wx, Wh, b = (np.ones(shape, "f") / H for shape in shapes)
    h, cache = fastrnn.lstm_forward(x, h0, Wx, Wh, b)
    fastrnn.lstm_backward(h, cache)

def threads():
    return set(os.listdir("/proc/self/task"))
"""
TEAM = """
step(64, 20, 128)
before = threads()
for _ in range(5):
    step(32, 20, 64)
    step(32, 2, 64)
    step(32, 5, 64)
print(len(before), threads() == before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.parametrize("n", [8, 16])
def test_the_team_keeps_its_threads(n):
    """Calls that are worth fewer leave some idle, which neither end nor are started anew."""
    script = f"{STEP}fastrnn.set_num_threads({n}){TEAM}"
    out, errors = python(script, OPENBLAS_NUM_THREADS="1")
    assert not errors
    assert out == f"{n} True"


CROWD = """
from concurrent.futures import ThreadPoolExecutor
fastrnn.set_num_threads(4)
with ThreadPoolExecutor(8) as pool:
    list(pool.map(lambda _: step(32, 20, 64), range(64)))
    print(len(threads()) <= 1 + 8 + 3)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
def test_calls_from_several_threads_share_one_team():
    out, errors = python(STEP + CROWD, OPENBLAS_NUM_THREADS="1")
    assert not errors
    assert out == "True"


NO_THREADS = "int pthread_create() { return 11; /* EAGAIN */ }"


@pytest.mark.skipif(sys.platform != "linux", reason="replaces a function of the C library")
def test_a_system_without_threads_to_give_computes_on_one(tmp_path):
    source, library = tmp_path / "no_threads.c", tmp_path / "no_threads.so"
    source.write_text(NO_THREADS)
    subprocess.run(["cc", "-shared", "-fPIC", source, "-o", library], check=True)
    script = f"{STEP}fastrnn.set_num_threads(4)\nstep(64, 20, 128)\nprint(len(threads()))"
    out, errors = python(script, OPENBLAS_NUM_THREADS="1", LD_PRELOAD=str(library))
    assert not errors
    assert out == "1"


# Four parts that say they met and waited: how often, and for how many microseconds of the call's.
JUDGED = """
#include "barrier.h"
#include "clock.h"
#include "team.h"
#include <stdio.h>
#include <stdlib.h>

static int flags[4 * FLAG_STRIDE], waits, per_mille;

static void meeting(const void *args, idx part, idx parts)
{
    (void)args, (void)parts;
    const long long begin = nanoseconds();
    long long now;
    while ((now = nanoseconds()) < begin + 2000000)
        ;
    flags[part * FLAG_STRIDE + STAGE] = 1;
    flags[part * FLAG_STRIDE + LONG_WAITS] = part ? waits : 0;
    flags[part * FLAG_STRIDE + WAITED] = part ? (int)((now - begin) * per_mille / 1000000) : 0;
}

int main(int argc, char **argv)
{
    waits = atoi(argv[argc - 2]);
    per_mille = atoi(argv[argc - 1]);
    team_set_threads(4, 0);
    team_run_meeting(meeting, 0, 4, flags);
    printf("%d", team_is_oversubscribed());
}
"""


@pytest.fixture(scope="module")
def judge(tmp_path_factory):
    folder = tmp_path_factory.mktemp("judge")
    (folder / "judge.c").write_text(JUDGED)
    sources = Path(__file__).parents[1] / "src_c"
    command = ["cc", "-pthread", f"-I{sources}", folder / "judge.c", sources / "team.c"]
    subprocess.run([*command, "-o", folder / "judge"], check=True)
    return folder / "judge"


@pytest.mark.skipif(sys.platform == "win32", reason="compiles as others do")
@pytest.mark.parametrize(
    ("waits", "per_mille", "expected"),
    [
        (1, 100_000, "0"),  # whatever it was, once
        (20, 0, "0"),  # on many threads somebody often is late, but not by much
        (20, 600, "0"),  # still faster than one thread
        (20, 100_000, "1"),
    ],
)
def test_threads_that_wait_long_give_way_to_one_that_would_be_faster(
    judge, waits, per_mille, expected
):
    command = [judge, str(waits), str(per_mille)]
    assert subprocess.run(command, capture_output=True, text=True).stdout == expected


PARTS = """
from fastrnn.backends import _kernels

def parts():
    _kernels.most_parts()
    step(64, 20, 128)
    return fastrnn.get_num_threads(), _kernels.most_parts()
"""


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
def test_the_affinity_is_followed():
    """Also where it changes after the threads were started."""
    script = f"""{STEP}{PARTS}
all_cpus = os.sched_getaffinity(0)
print(parts() == (len(all_cpus), len(all_cpus)))
os.sched_setaffinity(0, [min(all_cpus)])
print(parts() == (1, 1))
fastrnn.set_num_threads(4)
print(parts() == (4, 4))
masks = [os.sched_getaffinity(int(thread)) for thread in threads()]
print(len(masks) == 4, all(mask == {{min(all_cpus)}} for mask in masks))
"""
    out, errors = python(script, OPENBLAS_NUM_THREADS="1")
    assert not errors
    assert out.split() == 5 * ["True"]


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system has no affinity")
@pytest.mark.parametrize(
    ("binding", "imports"),
    [
        ({"OMP_PROC_BIND": "true"}, "import fastrnn"),
        ({"OMP_PROC_BIND": "true"}, "import fastrnn, torch"),
        ({"OMP_PROC_BIND": "true"}, "import torch"),
        ({"OMP_PLACES": "cores"}, "import torch"),
        ({"GOMP_CPU_AFFINITY": "0-1000"}, "import torch"),
    ],
)
def test_openmp_that_binds_the_main_thread_leaves_the_other_cpus(binding, imports):
    cpus = len(os.sched_getaffinity(0))
    script = f"{imports}\n{STEP}{PARTS}\nprint(*parts())"
    out, errors = python(script, OPENBLAS_NUM_THREADS="1", **binding)
    assert not errors
    assert out == f"{cpus} {cpus}"


def test_threadpool_limits_bounds_the_threads(rng):
    fastrnn.set_num_threads(3)
    operands = draw(LAYERS["lstm"], rng, np.float32, *LARGE["lstm"])
    with threadpoolctl.threadpool_limits(2, user_api="openmp"):
        _kernels.most_parts()
        run(LAYERS["lstm"], operands, "cython")
        assert _kernels.most_parts() == fastrnn.get_num_threads() == 2
    assert fastrnn.get_num_threads() == 3
    (found,) = threadpoolctl.ThreadpoolController().select(internal_api="fastrnn").info()
    assert found["num_threads"] == 3


GROUPS = [
    ("0::/", {"cpu.max": "150000 100000"}, [2]),
    ("0::/", {"cpu.max": "max 100000"}, []),
    ("0::/a/b", {"a/cpu.max": "300000 100000", "a/b/cpu.max": "100 100000"}, [1, 3]),
    ("4:cpu,cpuacct:/a", {"cpu,cpuacct/cpu.cfs_{}_us": "400000 100000"}, [4]),
    ("4:cpu:/a\n5:memory:/", {"cpu/a/cpu.cfs_{}_us": "-1 100000"}, []),
    ("2:cpuset:/a", {"cpu/a/cpu.cfs_{}_us": "100000 100000"}, []),
]


@pytest.mark.parametrize(("membership", "files", "expected"), GROUPS)
def test_quotas_of_all_groups_around_a_process(membership, files, expected, tmp_path):
    for name, text in files.items():
        if "{}" in name:
            parts = zip(("quota", "period"), text.split(), strict=True)
            files = {name.format(part): value for part, value in parts}
        for path, value in files.items():
            (tmp_path / path).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / path).write_text(f"{value}\n")
    (tmp_path / "cgroup").write_text(f"{membership}\n")
    assert [*threads._quotas(tmp_path, tmp_path / "cgroup")] == expected


# ---- long calls ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def long_calls():
    """Functions that compute for half a second and more, on one thread of slow kernels."""
    rng = np.random.default_rng(0)
    shapes = (64, 200, 256), (64, 256), (256, 1024), (256, 1024), 1024, (5000, 1024), (1024, 1024)
    draws = (rng.standard_normal(shape, np.float32) / 16 for shape in shapes)
    x, h0, Wx, Wh, b, rows, w = draws
    _, cache = fastrnn.lstm_forward(x, h0, Wx, Wh, b)
    _, of_affine = fastrnn.affine_forward(rows, w, b)
    many = np.swapaxes(x, 0, 1)
    return {
        "forward": lambda: fastrnn.lstm_forward(x, h0, Wx, Wh, b),
        "backward": lambda: fastrnn.lstm_backward(None, cache, dhT=h0),
        "affine_forward": lambda: fastrnn.affine_forward(rows, w, b),
        "affine_backward": lambda: fastrnn.affine_backward(rows, of_affine),
        "steps": lambda: fastrnn.Stream("lstm", Wx, Wh, b, batch=64).steps(many),
    }


@contextmanager
def alarms(handler, every=0.02):
    """Call handler, as Python calls those of signals, after 20 ms and then again and again."""
    before = signal.signal(signal.SIGALRM, lambda *_: handler())
    signal.setitimer(signal.ITIMER_REAL, 0.02, every)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def interrupt():
    raise KeyboardInterrupt


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such alarms")
@pytest.mark.parametrize(
    "name", ["forward", "backward", "affine_forward", "affine_backward", "steps"]
)
def test_signals_are_heeded_within_a_long_call(name, long_calls):
    fastrnn.set_num_threads(1)
    fastrnn.use_isa("baseline")
    call, times, done = long_calls[name], [], []
    with alarms(lambda: done or times.append(1)):
        call()
        done.append(True)
    assert len(times) > 2  # after the call Python would have heeded all of them at once


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such alarms")
def test_an_exception_of_a_signal_ends_a_long_call_and_keeps_the_state(rng):
    fastrnn.set_num_threads(1)
    fastrnn.use_isa("baseline")
    weights = (rng.standard_normal(s, np.float32) for s in ((256, 1024), (256, 1024), 1024))
    stream = fastrnn.Stream("lstm", *weights, batch=64)
    stream.step(np.ones((64, 256), "f"))
    before = stream.state
    with pytest.raises(KeyboardInterrupt), alarms(interrupt, every=0):
        stream.steps(np.ones((200, 64, 256), "f"))
    assert_results(assert_same_bits, stream.state, before)
    stream.step(np.ones((64, 256), "f"))
    assert (stream.state["h"] != before["h"]).any()


@pytest.fixture
def quick_and_slow(rng):
    """A stream of small steps, and one of steps that take long, from the first one's h."""
    fastrnn.set_num_threads(1)
    fastrnn.use_isa("baseline")
    shapes = [((4, 32), (8, 32), 32), ((8, 1024), (256, 1024), 1024)]
    weights = [[rng.standard_normal(s, np.float32) for s in layer] for layer in shapes]
    return [fastrnn.Stream("lstm", *arrays, batch=64) for arrays in weights]


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="this system has no such alarms")
def test_an_exception_in_a_later_layer_of_a_chain_gives_all_states_back(quick_and_slow):
    chain = fastrnn.Chain(quick_and_slow)
    chain.step(np.ones((64, 4), "f"))
    before = chain.state
    with pytest.raises(KeyboardInterrupt), alarms(interrupt, every=0):
        chain.steps(np.ones((400, 64, 4), "f"))
    for actual, expected in zip(chain.state, before, strict=True):
        assert_results(assert_same_bits, actual, expected)


def test_chain_is_refused_while_one_of_its_streams_takes_steps(quick_and_slow):
    chain, (_, slow) = fastrnn.Chain(quick_and_slow), quick_and_slow
    x, out = np.ones((64, 4), "f"), np.zeros((800, 64, 256), "f")
    with ThreadPoolExecutor(1) as pool:
        done = pool.submit(slow.steps, np.ones((800, 64, 8), "f"), out)
        while not (done.done() or out[0].any()):
            pass
        for _ in range(2):
            with pytest.raises(RuntimeError, match="^step: another thread takes a step"):
                chain.step(x)
        assert not done.done()
    assert not quick_and_slow[0].state["h"].any()
    assert chain.step(x).any()


@pytest.mark.parametrize("name", SEQUENCES)
def test_a_sequence_that_is_computed_piece_by_piece_has_the_same_bits(name, rng):
    """Long enough for several looks at the signals, on threads that share rows or units."""
    layer = without(LAYERS[name], "lengths")
    for N in (1, 9):
        operands = draw(layer, rng, np.float32, N, 2000 // N, 65, 130)
        fastrnn.set_num_threads(1)
        expected = run(layer, operands, "cython")
        fastrnn.set_num_threads(3)
        assert_results(assert_same_bits, run(layer, operands, "cython"), expected)
        _kernels.oversubscribe()
        assert_results(assert_same_bits, run(layer, operands, "cython"), expected)
