"""Threads, processes and configuration: they change the time a call takes, never a bit of it."""

import os
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from util import (
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
from fastrnn.backends import _kernels, compiled, current_backend
from fastrnn.backends._kernels import isas
from fastrnn.backends.threads import available_cpus

# Work enough for four threads.
LARGE = {
    **dict.fromkeys(LAYERS, (200, 3, 200, 100)),
    "affine": (200, 1, 200, 200),
    **dict.fromkeys([name for name in LAYERS if "embedding" in name], (100, 100, 800, 7)),
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
    for n in (2, 3, 4):
        fastrnn.set_num_threads(n)
        assert_results(assert_same_bits, run(LAYERS[name], operands, "cython"), expected)


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
        [sys.executable, "-c", script],
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


def test_unknown_backend_in_the_environment_is_refused():
    _, errors = python(CALL, FASTRNN_BACKEND="torch")
    assert last_line(errors).startswith("ValueError: ")
    assert last_line(errors).endswith("""expected "numpy" or "cython", got 'torch'""")


FORK = """
import hashlib, os, select, signal
import numpy as np
import fastrnn
from util import LAYERS, draw, run

operands = draw(LAYERS["lstm"], np.random.default_rng(0), np.float32, 64, 20, 64, 64)

def report():
    results = run(LAYERS["lstm"], operands, "cython")
    bits = b"".join(a.tobytes() for a in results.values() if isinstance(a, np.ndarray))
    return f"{fastrnn.get_num_threads()} {hashlib.sha256(bits).hexdigest()}"

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
def test_forked_process_computes_the_same_bits_on_one_thread():
    """A fork copies no threads: a child that waited for those of the parent would never end."""
    out, _ = python(FORK, OMP_NUM_THREADS="2")
    parent, child = out.splitlines()
    assert parent.startswith("2 ")
    assert child == parent.replace("2 ", "1 ", 1)


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


TEAM = """
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

fastrnn.set_num_threads(8)
step(64, 20, 128)
before = threads()
for _ in range(5):
    step(32, 20, 64)
    step(32, 2, 64)
    step(32, 5, 64)
print(len(before), threads() == before)
"""


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="reads /proc")
@pytest.mark.skipif(not _kernels.openmp, reason="built without OpenMP")
def test_the_team_keeps_its_threads():
    """Calls that are worth fewer leave some idle: OpenMP would end those and start others."""
    out, errors = python(TEAM, OPENBLAS_NUM_THREADS="1")
    assert not errors
    n, same = out.split()
    assert int(n) >= 8 and same == "True"
