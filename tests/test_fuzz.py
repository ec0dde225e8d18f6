"""The torture test: some cases; that it draws everything there is, and sees what is wrong."""

import ctypes
import faulthandler
import inspect
import os
import signal
import subprocess
import sys
from collections import defaultdict
from pathlib import Path

import numpy as np
import pytest
from fuzz import __main__, judge, programs
from fuzz.draws import LAYOUTS, Draw
from fuzz.memory import Memory

import fastrnn
from fastrnn.backends import compiled

pytestmark = pytest.mark.skipif(os.name != "posix", reason="protects memory as POSIX has it")
TESTS = Path(__file__).parent


@pytest.fixture(scope="module")
def memory():
    return Memory()


def test_cases_pass():
    done = subprocess.run(
        [sys.executable, "-m", "fuzz", "--seed", "0", "--cases", "1000"],
        cwd=TESTS,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert "1000 cases" in done.stdout


def test_every_public_function_and_parameter_is_drawn(memory):
    """A new one fails here until programs.py draws it."""
    drawn = defaultdict(set)
    for name, program in programs.programs().items():
        for seed in range(200):
            memory.clear()
            draw = Draw(seed, memory)
            program(draw, name)
            for function, given in draw.calls:
                drawn[function] |= set(given)
    functions = programs.public_functions()
    for kind in (fastrnn.Stream, fastrnn.Chain):
        functions[kind.__name__] = kind
        for method in ("step", "steps", "reset"):
            functions[f"{kind.__name__}.{method}"] = getattr(kind, method)
    for name, function in functions.items():
        expected = set(inspect.signature(function).parameters) - {"self", "backend"}
        assert expected == drawn[name] - {"then"}, name


def test_case_is_the_same_again(memory):
    def case(seed):
        memory.clear()
        draw = Draw(seed, memory)
        programs.layer(draw, "lstm")
        arrays = [a for _, given in draw.calls for a in given.values() if type(a) is np.ndarray]
        return judge.text_of(draw, "lstm"), programs.frozen(arrays)

    assert all(case(seed) == case(seed) for seed in range(20))
    assert case(0) != case(1)


# ---- what it sees --------------------------------------------------------------------------------


def ends(action):
    """The signal that ends a forked process that does this, or 0."""
    if (child := os.fork()) == 0:
        faulthandler.disable()
        action()
        os._exit(0)
    return os.WTERMSIG(os.waitpid(child, 0)[1])


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
@pytest.mark.parametrize("layout", ["C", *LAYOUTS])
def test_an_element_too_far_ends_the_process(layout, memory):
    a = np.arange(12.0).reshape(3, 4)
    for at_end in (False, True):
        memory.clear()
        placed = memory.put(a, layout, at_end, read_only=False)
        np.testing.assert_array_equal(placed, a)
        corners = [placed[i, j:].ctypes.data for i in (0, -1) for j in (0, -1)]
        beyond = max(corners) + 16 if at_end else min(corners) - 9  # of one that is a byte off
        assert ends(lambda at=beyond: ctypes.string_at(at, 1)) == signal.SIGSEGV
        assert ends(lambda b=placed: b.fill(1)) == 0
        placed = memory.put(a, layout, at_end, read_only=True)
        assert ends(lambda b=placed: b.fill(1)) == signal.SIGSEGV


def faults(memory, name):
    """The first of some cases of a program that is found to be wrong."""
    program = programs.programs()[name]
    for seed in range(40):
        memory.clear()
        draw = Draw(seed, memory)
        run = program(draw, name)
        try:
            judge.compare_ways(draw, run)
        except programs.Broken as broken:
            yield str(broken)


def test_wrong_numbers_and_words_are_seen(memory, monkeypatch):
    right = compiled.softmax_loss
    assert not list(faults(memory, "softmax_loss"))

    def wrong_by(change):
        monkeypatch.setattr(compiled, "softmax_loss", lambda *args: change(*right(*args)))
        return "\n".join(faults(memory, "softmax_loss"))

    assert "roundings" in wrong_by(lambda loss, dx: (loss, dx * (1 + 1e-4)))
    assert "instead of" in wrong_by(lambda loss, dx: (loss, dx.astype("d")))
    threads = fastrnn.get_num_threads
    assert "other bits" in wrong_by(lambda loss, dx: (loss * (1 + 2.3e-16 * threads()), dx))

    def refuses(*args):
        raise ValueError("y: other words")

    monkeypatch.setattr(compiled, "softmax_loss", refuses)
    assert "other words\n    instead of: no exception" in "\n".join(faults(memory, "softmax_loss"))


def test_a_process_that_dies_is_a_fault_and_others_follow(tmp_path, monkeypatch, capfd):
    dies = tmp_path / "dies"
    dies.write_text("#!/bin/sh\nkill -SEGV $$\n")
    dies.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(dies))
    assert __main__.run([range(7, 13, 2)], seconds=60) == 1
    out = capfd.readouterr().out
    for case in (7, 9, 11):
        assert f"case {case}: its process ended with {-signal.SIGSEGV}" in out
    assert out.endswith("3 faults\n")
