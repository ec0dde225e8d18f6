"""Solver on a least-squares problem whose every number can be checked."""

import os
import signal
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import numpy as np
import pytest

from fastrnn import RowGradient, storage
from fastrnn.solver import CHECKPOINT, Solver, clip_by_global_norm


class LeastSquares(Solver):
    """loss = |X w - y|^2 / 2n of a batch; with validation, score = -loss of all. The generator
    perturbs the loss, as dropout would, so that resuming must restore it."""

    def __init__(self, *, validated=False, **options):
        rng = np.random.default_rng(1)
        self.X, self.validated = rng.standard_normal((30, 4)), validated
        self.y = self.X @ np.array([1.0, -2.0, 3.0, 0.5])
        options = {"num_epochs": 6, "batch_size": 8, "verbose": False, **options}
        super().__init__({"w": np.zeros(4), "b": np.zeros(1)}, 30, **options)

    def loss(self, examples):
        X, y = self.X[examples], self.y[examples]
        noise = self.rng.standard_normal(len(y))
        error = X @ self.params["w"] + self.params["b"] - y + 1e-3 * noise
        grads = {"w": X.T @ error / len(y), "b": error.mean(keepdims=True)}
        return float(error @ error) / (2 * len(y)), grads

    def validate(self):
        error = self.X @ self.params["w"] - self.y
        return {"score": -float(error @ error)} if self.validated else {}


def state_of(solver):
    return (
        {name: w.tobytes() for name, w in solver.params.items()},
        {n: {k: str(v) for k, v in c.items()} for n, c in solver.optim_configs.items()},
        solver.loss_history,
        [{k: v for k, v in epoch.items() if k != "seconds"} for epoch in solver.history],
        solver.rng.bit_generator.state,
        solver.best_score,
    )


def test_solver_uses_every_example_once_an_epoch():
    seen = []

    class Recorder(LeastSquares):
        def loss(self, examples):
            seen.append(examples)
            return super().loss(examples)

    solver = Recorder(num_epochs=2)
    solver.train()
    assert [len(batch) for batch in seen] == [8, 8, 8, 6] * 2
    epochs = np.concatenate(seen[:4]), np.concatenate(seen[4:])
    assert all(sorted(epoch) == list(range(30)) for epoch in epochs)
    assert epochs[0].tolist() != epochs[1].tolist()
    assert solver.iteration == len(solver.loss_history) == 8


def test_solver_decays_the_learning_rate_after_each_epoch():
    solver = LeastSquares(optim_config={"learning_rate": 0.1}, lr_decay=0.5, num_epochs=3)
    solver.train()
    assert solver.optim_configs["w"]["learning_rate"] == 0.1 * 0.5**3


@pytest.mark.parametrize("rule", ["sgd", "sgd_momentum", "rmsprop", "adam"])
def test_solver_learns_with_every_rule(rule):
    solver = LeastSquares(update_rule=rule, optim_config={"learning_rate": 0.05}, num_epochs=100)
    solver.train()
    assert np.mean(solver.loss_history[-4:]) < 1e-2 * solver.loss_history[0]


def test_clip_scales_all_gradients_by_one_factor():
    rows = RowGradient(np.array([7, 3]), np.array([[0.0, 12.0], [0.0, 0.0]]))
    grads = {"a": np.array([3.0, 0.0]), "b": np.array([[4.0]]), "rows": rows}
    assert clip_by_global_norm(grads, 20.0) == 13.0
    assert grads["a"][0] == 3.0
    assert clip_by_global_norm(grads, 6.5) == 13.0
    assert (grads["a"][0], grads["b"][0, 0]) == (1.5, 2.0)
    assert grads["rows"] is rows
    assert rows.rows.tolist() == [7, 3] and rows.values.tolist() == [[0.0, 6.0], [0.0, 0.0]]


NORM = """
import numpy as np
from fastrnn.solver import clip_by_global_norm

gradient = np.random.default_rng(0).standard_normal(1_000_003)
print(clip_by_global_norm({"w": gradient}, 1.0).hex())
"""


def test_norm_has_the_same_bits_whatever_threads_the_blas_has():
    norms = {
        subprocess.run(
            [sys.executable, "-c", NORM],
            env=os.environ | {"OPENBLAS_NUM_THREADS": n, "OMP_NUM_THREADS": n},
            capture_output=True,
            text=True,
            check=True,
        ).stdout
        for n in ("1", "2")
    }
    assert len(norms) == 1


def test_parameter_without_a_gradient_stays_as_it_is():
    class Frozen(LeastSquares):
        def loss(self, examples):
            loss, grads = super().loss(examples)
            return loss, {"w": grads["w"]}

    solver = Frozen(num_epochs=2, optim_config={"weight_decay": 0.5})
    solver.params["b"] += 3
    solver.train()
    assert solver.params["w"].all() and solver.params["b"] == [3.0]
    assert solver.optim_configs["b"] == {"weight_decay": 0.5}


def test_order_of_every_epoch_comes_from_shuffle():
    class InOrder(LeastSquares):
        seen = ()

        def shuffle(self):
            return np.roll(np.arange(30), self.epoch)

        def loss(self, examples):
            self.seen += tuple(examples.tolist())
            return super().loss(examples)

    solver = InOrder(num_epochs=3)
    solver.train()
    assert solver.seen == (*range(30), 29, *range(29), 28, 29, *range(28))


def test_solver_keeps_the_best_validated_parameters():
    # A learning rate that explodes: the first epochs are the best.
    solver = LeastSquares(
        validated=True, update_rule="sgd", optim_config={"learning_rate": 0.02}, num_epochs=12
    )
    for config in solver.optim_configs.values():
        config["learning_rate"] = 0.5
    solver.lr_decay = 1.6
    solver.train()
    scores = [epoch["score"] for epoch in solver.history]
    assert np.argmax(scores) < len(scores) - 1
    assert solver.best_score == max(scores)
    assert solver.validate()["score"] == solver.best_score


def test_averages_are_validated_and_kept():
    plain, averaged = LeastSquares(validated=True), LeastSquares(validated=True, averaging=0.9)
    means, scores = {name: w.copy() for name, w in plain.params.items()}, []

    def average(solver):
        keep = min(0.9, solver.iteration / (9 + solver.iteration))
        for name, w in solver.params.items():
            means[name] = keep * means[name] + (1 - keep) * w
        if solver.iteration % solver.iterations_per_epoch == 0:
            error = plain.X @ means["w"] - plain.y
            scores.append(-float(error @ error))

    plain.on_iteration = average
    for solver in (plain, averaged):
        solver.train()
    assert averaged.loss_history == plain.loss_history
    np.testing.assert_allclose([epoch["score"] for epoch in averaged.history], scores, rtol=1e-12)
    assert scores == sorted(scores)  # so the last averages are the best
    for name, mean in means.items():
        np.testing.assert_allclose(averaged.params[name], mean, rtol=1e-12)
    unvalidated = LeastSquares(averaging=0.9)
    unvalidated.train()
    np.testing.assert_array_equal(unvalidated.params["w"], averaged.params["w"])


def test_solver_stops_when_patience_runs_out():
    class Scripted(LeastSquares):
        scores = iter([1.0, 3.0, 2.0, 2.5, 9.0])

        def validate(self):
            return {"score": next(self.scores)}

    solver = Scripted(patience=2, num_epochs=5)
    solver.train()
    assert solver.epoch == 4
    assert solver.best_score == 3.0


@pytest.mark.parametrize("rule", ["adam", "sgd_momentum", "rmsprop"])
@pytest.mark.parametrize(("stop_at", "averaging"), [(1, 0), (7, 0.9), (8, 0.5), (13, 0)])
def test_resume_continues_bit_for_bit(tmp_path, rule, stop_at, averaging):
    """stop_at: within the first epoch, just before, at and after the end of the second."""

    class Stopped(Exception):
        pass

    def stop(solver):
        if solver.iteration == stop_at:
            solver.save()
            raise Stopped

    options = {"validated": True, "update_rule": rule, "lr_decay": 0.9}
    options["averaging"] = averaging
    whole = LeastSquares(**options)
    whole.train()
    first = LeastSquares(**options, checkpoint=tmp_path, on_iteration=stop)
    with pytest.raises(Stopped):
        first.train()
    second = LeastSquares(**options, checkpoint=tmp_path, seed=99)
    second.restore()
    assert second.iteration == stop_at
    second.train()
    assert state_of(second) == state_of(whole)


def test_finished_run_resumes_with_more_epochs(tmp_path):
    short = LeastSquares(num_epochs=2, checkpoint=tmp_path)
    short.train()
    longer = LeastSquares(num_epochs=5, checkpoint=tmp_path)
    longer.restore()
    longer.train()
    whole = LeastSquares(num_epochs=5)
    whole.train()
    assert state_of(longer) == state_of(whole)


def test_checkpoint_folder_holds_one_whole_checkpoint(tmp_path):
    LeastSquares(checkpoint=tmp_path, checkpoint_every=1).train()
    state = storage.read_json(tmp_path / CHECKPOINT)
    assert sorted(p.name for p in tmp_path.iterdir()) == sorted([CHECKPOINT, state["tensors"]])


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"batch_size": 9}, "expected batch_size 9, got 8"),
        ({"update_rule": "sgd"}, "expected update_rule 'sgd', got 'adam'"),
        ({"averaging": 0.9}, r"average b: expected \(\(1,\), dtype\('float64'\)\), got None"),
    ],
)
def test_restore_refuses_another_setting(tmp_path, change, message):
    LeastSquares(num_epochs=1, checkpoint=tmp_path).train()
    with pytest.raises(ValueError, match=message):
        LeastSquares(**change, checkpoint=tmp_path).restore()


def test_restore_refuses_broken_files(tmp_path):
    solver = LeastSquares(num_epochs=1, checkpoint=tmp_path)
    with pytest.raises(FileNotFoundError):
        solver.restore()
    solver.train()
    state = storage.read_json(tmp_path / CHECKPOINT)
    (tmp_path / state["tensors"]).write_bytes(b"not tensors")
    with pytest.raises(ValueError, match="not a safetensors file"):
        solver.restore()
    (tmp_path / CHECKPOINT).write_text("{")
    with pytest.raises(ValueError, match="not a JSON file"):
        solver.restore()


def test_restore_wants_a_folder_where_the_solver_has_none():
    with pytest.raises(ValueError, match="^folder: expected one, as the solver has no checkpoint"):
        LeastSquares().restore()


@pytest.mark.parametrize("value", [-0.1, 1.0, np.nan])
def test_solver_refuses_averaging_out_of_range(value):
    with pytest.raises(ValueError, match=r"averaging: expected a number in \[0, 1\), got"):
        LeastSquares(averaging=value)


@pytest.mark.parametrize("name", ["batch_size", "print_every", "checkpoint_every"])
def test_solver_refuses_bad_hyperparameters(name):
    with pytest.raises(ValueError, match=f"{name}: expected at least 1, got 0"):
        LeastSquares(**{name: 0})
    with pytest.raises(ValueError, match="update_rule: expected one of"):
        LeastSquares(update_rule="newton")


def test_solver_stops_at_a_loss_that_is_not_finite(tmp_path):
    solver = LeastSquares(
        update_rule="sgd", optim_config={"learning_rate": 1e200}, checkpoint=tmp_path
    )
    with (
        np.errstate(over="ignore", invalid="ignore"),
        pytest.raises(FloatingPointError, match=r"the loss became .* at iteration"),
    ):
        solver.train()


@pytest.mark.parametrize("clip_norm", [None, 1.0])
@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_solver_stops_before_a_gradient_that_is_not_finite(value, clip_norm):
    class Diverging(LeastSquares):
        def loss(self, examples):
            loss, grads = super().loss(examples)
            grads["b"][:] = value if self.iteration == 3 else grads["b"]
            return loss, grads

    solver = Diverging(clip_norm=clip_norm)
    with pytest.raises(FloatingPointError, match=rf"the gradient became {value} at iteration 4"):
        solver.train()
    assert all(np.isfinite(w).all() for w in solver.params.values())


def test_train_does_not_overwrite_a_checkpoint(tmp_path):
    LeastSquares(checkpoint=tmp_path).train()
    with pytest.raises(FileExistsError, match="has a checkpoint"):
        LeastSquares(checkpoint=tmp_path).train()


@pytest.mark.parametrize("name", ["clip_norm", "patience", "lr_decay"])
def test_solver_refuses_hyperparameters_that_are_not_positive(name):
    for value in (0, -1, float("nan")):
        with pytest.raises(ValueError, match=f"{name}: expected a number above 0, got {value}"):
            LeastSquares(**{name: value})


def test_save_clears_what_kills_left_behind(tmp_path):
    (tmp_path / ".checkpoint-0000001-77-88.safetensors").write_bytes(b"half")
    LeastSquares(num_epochs=1, checkpoint=tmp_path).train()
    assert len(list(tmp_path.iterdir())) == 2


def test_verbose_prints_as_the_notebooks_do(capsys):
    LeastSquares(verbose=True, print_every=5, num_epochs=2).train()
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" loss")[0] for line in lines] == ["(Iteration 1 / 8)", "(Iteration 6 / 8)"]


SCRIPT = """
    import sys, time
    sys.path.insert(0, {tests!r})
    from test_solver import LeastSquares

    def slow(solver):
        print(solver.iteration, flush=True)
        time.sleep(0.002)

    solver = LeastSquares(num_epochs=4000, checkpoint={folder!r}, checkpoint_every=1,
                          on_iteration=slow)
    solver.train()
"""


def run_and_signal(folder, number, after_lines):
    script = textwrap.dedent(SCRIPT).format(tests=str(Path(__file__).parent), folder=str(folder))
    process = subprocess.Popen(
        [sys.executable, "-c", script],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    for _ in range(after_lines):
        process.stdout.readline()
    time.sleep(0.001 * (after_lines % 7))  # another moment of the iteration each time
    process.send_signal(number)
    _, error = process.communicate(timeout=30)
    return process.returncode, error


def test_interrupt_leaves_a_checkpoint_of_whole_iterations(tmp_path):
    code, error = run_and_signal(tmp_path, signal.SIGINT, after_lines=9)
    assert code == -signal.SIGINT
    assert error.strip().endswith("KeyboardInterrupt")
    assert_resumes_exactly(tmp_path)


@pytest.mark.skipif(not hasattr(signal, "SIGKILL"), reason="no SIGKILL on this platform")
@pytest.mark.parametrize("after_lines", [1, 4, 10, 19])
def test_kill_at_any_moment_leaves_a_checkpoint(tmp_path, after_lines):
    code, _ = run_and_signal(tmp_path, signal.SIGKILL, after_lines)
    assert code == -signal.SIGKILL
    assert_resumes_exactly(tmp_path)


def assert_resumes_exactly(folder):
    resumed = LeastSquares(num_epochs=40, checkpoint=folder)
    resumed.restore()
    assert resumed.iteration < 160
    resumed.train()
    whole = LeastSquares(num_epochs=40)
    whole.train()
    assert state_of(resumed) == state_of(whole)
