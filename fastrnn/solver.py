"""Mini-batch training of anything that has parameters and a loss: updates, decay, clipping,
averages, and checkpoints that resume bit for bit.
"""

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TypedDict

import numpy as np

from fastrnn import optim, storage
from fastrnn.backends.caches import RowGradient
from fastrnn.settings import FINITE, check, mapped
from fastrnn.training import PROGRESS, Loop

CHECKPOINT = "checkpoint.json"
FORMAT = 1
# What a checkpoint says of how far a training has come.
STATE = PROGRESS | {"optim": mapped(mapped(FINITE))}

Gradients = dict[str, np.ndarray | RowGradient]


def clip_by_global_norm(grads: Gradients, max_norm: float) -> float:
    """Scale all gradients by one factor, in place, so that their joint 2-norm is at most max_norm
    (Pascanu et al. 2013); a norm that is not finite is left alone.

    Returns: the norm before.
    """
    values = _arrays(grads)
    # Not np.vdot: BLAS sums in another order on another number of threads.
    norm = math.sqrt(sum(float(np.einsum("i,i", g.ravel(), g.ravel())) for g in values))
    if max_norm < norm < math.inf:
        for g in values:
            g *= max_norm / norm
    return norm


def _arrays(grads):
    return [g.values if isinstance(g, RowGradient) else g for g in grads.values()]


def _check_options(update_rule, averaging, counts, rates):
    if update_rule not in optim.RULES:
        raise ValueError(f"update_rule: expected one of {[*optim.RULES]}, got {update_rule!r}")
    for name, value in counts.items():
        if value < 1:
            raise ValueError(f"{name}: expected at least 1, got {value}")
    for name, value in rates.items():
        if value is not None and not value > 0:
            raise ValueError(f"{name}: expected a number above 0, got {value}")
    if not 0 <= averaging < 1:
        raise ValueError(f"averaging: expected a number in [0, 1), got {averaging}")


class SolverOptions(TypedDict, total=False):
    """A Solver's parameters that its subclasses hand on, for type checkers."""

    update_rule: str
    optim_config: dict[str, float] | None
    lr_decay: float
    num_epochs: int
    batch_size: int
    clip_norm: float | None
    patience: int | None
    averaging: float
    seed: int
    print_every: int
    verbose: bool
    checkpoint: Path | str | None
    checkpoint_every: int
    on_iteration: Callable[["Solver"], None] | None
    identity: str


class Solver(Loop):
    """Trains ``params`` in place. A subclass says what the loss of a batch and a validation are.

    Parameters: params, name to array, updated in place; num_examples, the number of training
    examples; update_rule, a name in fastrnn.optim; optim_config, its hyperparameters; lr_decay, the
    factor on the learning rate after each epoch; num_epochs; batch_size; clip_norm, the most that
    the global norm of the gradients may be (None: any); patience, validations without a better
    score before it stops (None: never); averaging, how much of the parameters' moving average an
    iteration keeps (0: there is none): the average is what is validated and what training ends
    with; seed of the generator that shuffles (and drops out); print_every, iterations between
    printed losses when verbose; checkpoint, a folder to keep a checkpoint in, written every
    checkpoint_every iterations, after every epoch and on Ctrl-C; on_iteration, called with the
    solver after every iteration; identity, which a checkpoint must have to be continued.

    Attributes: loss_history, the loss of every iteration; history, a dict for every epoch;
    best_score, best_params of the best validation (None without one); averages, name to array, or
    None; epoch; iteration; iterations_per_epoch, the last of which may be of a smaller batch.
    Raises ValueError for hyperparameters out of range.
    """

    def __init__(
        self,
        params: dict[str, np.ndarray],
        num_examples: int,
        *,
        update_rule: str = "adam",
        optim_config: dict[str, float] | None = None,
        lr_decay: float = 1.0,
        num_epochs: int = 10,
        batch_size: int = 100,
        clip_norm: float | None = None,
        patience: int | None = None,
        averaging: float = 0.0,
        seed: int = 0,
        print_every: int = 10,
        verbose: bool = True,
        checkpoint: Path | str | None = None,
        checkpoint_every: int = 500,
        on_iteration: Callable[["Solver"], None] | None = None,
        identity: str = "",
    ) -> None:
        counts = {"num_examples": num_examples, "batch_size": batch_size}
        counts |= {"print_every": print_every, "checkpoint_every": checkpoint_every}
        rates = {"lr_decay": lr_decay, "clip_norm": clip_norm, "patience": patience}
        _check_options(update_rule, averaging, counts, rates)
        super().__init__(
            num_epochs=num_epochs,
            iterations_per_epoch=math.ceil(num_examples / batch_size),
            patience=patience,
            on_iteration=on_iteration,
            checkpoint=Path(checkpoint) if checkpoint else None,
            checkpoint_every=checkpoint_every,
            identity=identity,
        )
        self.params, self.num_examples = params, num_examples
        self.update_rule, self.lr_decay = update_rule, lr_decay
        self.batch_size, self.clip_norm, self.averaging = batch_size, clip_norm, averaging
        self.print_every, self.verbose = print_every, verbose
        self.rng = np.random.default_rng(seed)
        self.optim_configs = {name: dict(optim_config or {}) for name in params}
        self.order = self.shuffle()
        self.best_params: dict[str, np.ndarray] | None = None
        self.averages = _copies(params) if averaging else None
        self._restored = False

    # ---- what a subclass provides ----------------------------------------------------------------

    def loss(self, examples: np.ndarray) -> tuple[float, Gradients]:
        """Loss and gradients of the training examples with these indices."""
        raise NotImplementedError

    def shuffle(self) -> np.ndarray:
        """The order of an epoch's examples (num_examples,), cut into batches as it comes."""
        return self.rng.permutation(self.num_examples)

    # ---- training ------------------------------------------------------------------------------

    def start(self) -> None:
        """Write the first checkpoint, unless the training goes on from one. Raises FileExistsError
        where that of another run would be overwritten."""
        if self.checkpoint and not self._restored:
            if (self.checkpoint / CHECKPOINT).exists():
                raise FileExistsError(f"{self.checkpoint}: has a checkpoint; restore() it")
            self.save()
            self._restored = True

    def batches(self) -> Iterator[np.ndarray]:
        """Indices of the examples that the epoch has not used yet."""
        for begin in range(self.position, self.num_examples, self.batch_size):
            yield self.order[begin : begin + self.batch_size]

    def _diverged(self, what, value):
        """Before an update: the parameters are still good."""
        return FloatingPointError(
            f"the {what} became {value} at iteration {self.iteration + 1}; a lower learning rate "
            "or clip_norm may help"
        )

    def step(self, batch: np.ndarray) -> float:
        """Update params by the gradients of examples with these indices."""
        loss, grads = self.loss(batch)
        if not math.isfinite(loss):
            raise self._diverged("loss", loss)
        norm = clip_by_global_norm(grads, self.clip_norm or math.inf)
        if not math.isfinite(norm) and not all(np.isfinite(g).all() for g in _arrays(grads)):
            raise self._diverged("gradient", norm)
        rule = optim.RULES[self.update_rule]
        for name, dw in grads.items():  # of the parameters that are trained
            rule(self.params[name], dw, self.optim_configs[name], out=self.params[name])
        self._average()
        self.position += len(batch)
        if self.verbose and self.iteration % self.print_every == 0:
            total = self.num_epochs * self.iterations_per_epoch
            print(f"(Iteration {self.iteration + 1} / {total}) loss: {loss:.6f}")
        return loss

    def _average(self) -> None:
        if self.averages is not None:
            # Of the first steps' parameters little is worth keeping.
            keep = min(self.averaging, (1 + self.iteration) / (10 + self.iteration))
            for name, mean in self.averages.items():
                mean += (1 - keep) * (self.params[name] - mean)

    @contextmanager
    def _averaged(self) -> Iterator[None]:
        """The averages, if there are any, are params inside."""
        own = dict(self.params)
        self.params.update(self.averages or {})
        try:
            yield
        finally:
            self.params.update(own)

    def figures(self) -> dict[str, float]:
        """The mean loss of the epoch's batches."""
        return {"train_loss": float(np.mean(self.loss_history[-self.iterations_per_epoch :]))}

    def judge(self) -> dict[str, float]:
        """Validate the averages, or where there are none params."""
        with self._averaged():
            return super().judge()

    def keep_best(self) -> None:
        """Remember params."""
        self.best_params = _copies(self.params)

    def end_epoch(self, validated: dict[str, float]) -> None:
        """Decay the learning rate; draw the next epoch's order."""
        if self.verbose and validated:
            print(" ".join(f"{name} {value:.4g}" for name, value in self.history[-1].items()))
        for config in self.optim_configs.values():
            if "learning_rate" in config:
                config["learning_rate"] *= self.lr_decay
        self.order = self.shuffle()

    def finish(self) -> None:
        """The best validated parameters are params, where there was a validation, else their
        averages, if there are any."""
        self.params.update(_copies(self.best_params or self.averages or {}))

    # ---- checkpoints -----------------------------------------------------------------------------

    def save(self) -> None:
        """Write a checkpoint, if there is a folder for it: the new one or the old one is whole."""
        if self.checkpoint is None:
            return
        self.checkpoint.mkdir(parents=True, exist_ok=True)
        tensors = {f"params/{name}": w for name, w in self.params.items()}
        tensors["order"] = self.order
        for group, arrays in (("best", self.best_params), ("average", self.averages)):
            tensors |= {f"{group}/{name}": w for name, w in (arrays or {}).items()}
        scalars: dict[str, dict[str, object]] = {}
        for name, config in self.optim_configs.items():
            scalars[name] = {}
            for key, value in config.items():
                if isinstance(value, np.ndarray):
                    tensors[f"optim/{name}/{key}"] = value
                else:
                    scalars[name][key] = value
        state = {
            "format": FORMAT,
            "identity": self.identity,
            "update_rule": self.update_rule,
            "num_examples": self.num_examples,
            "batch_size": self.batch_size,
            "generator": self.rng.bit_generator.state,
            "optim": scalars,
        } | {name: getattr(self, name) for name in PROGRESS}
        tag = f"{self.iteration:07}-{self.epoch:04}"
        storage.write_named(self.checkpoint / CHECKPOINT, tag, state, tensors)

    def restore(self, folder: Path | str | None = None) -> None:
        """Continue from the checkpoint in a folder (None: its own) as if never interrupted.

        Raises FileNotFoundError where there is none, ValueError where it is damaged, or of another
        format, model, data set or batch size, or where no folder is given and there is no
        checkpoint; then nothing has changed.
        """
        if not (folder or self.checkpoint):
            raise ValueError("folder: expected one, as the solver has no checkpoint, got None")
        folder = Path(folder or self.checkpoint)
        path = folder / CHECKPOINT
        state = storage.read_json(path)
        for name, expected in (
            ("format", FORMAT),
            ("update_rule", self.update_rule),
            ("num_examples", self.num_examples),
            ("batch_size", self.batch_size),
        ):
            if state.get(name) != expected:
                raise ValueError(f"{path}: expected {name} {expected!r}, got {state.get(name)!r}")
        if state.get("identity", "") != self.identity:
            raise ValueError(f"{path}: of another training: its data or settings were others")
        tensors = storage.read_named(path, state)
        with storage.named(path, "a checkpoint"):
            restored = self._checked(path, state, tensors)
        self.rng.bit_generator.state = state["generator"]
        self.params.update(restored.pop("params"))
        for name, value in restored.items():
            setattr(self, name, value)
        self._restored = True
        if folder == self.checkpoint:
            storage.tidy(path, state["tensors"])

    def _checked(self, path: Path, state: dict, tensors: dict[str, np.ndarray]) -> dict:
        """What a checkpoint holds, by the attribute's name, if it can be of this training."""
        progress = {name: state[name] for name in STATE}
        check(progress, STATE)
        self._check_counts(**progress)
        np.random.default_rng().bit_generator.state = state["generator"]  # does it take it?
        order = tensors.pop("order")
        if order.shape != (self.num_examples,) or order.dtype.kind not in "iu":
            raise ValueError(f"order: expected integers ({self.num_examples},), got {order.shape}")
        if not 0 <= order.min() <= order.max() < self.num_examples:
            raise ValueError(f"order: expected 0 to {self.num_examples - 1}")
        groups: dict[str, dict[str, np.ndarray]] = {
            name: {} for name in ("params", "best", "average", "optim")
        }
        for key, a in tensors.items():
            group, _, name = key.partition("/")
            groups[group][name] = a
        _check_like(path, "parameter", self.params, groups["params"])
        scored = progress["best_score"] is not None
        _check_like(path, "best parameter", self.params if scored else {}, groups["best"])
        _check_like(path, "average", self.averages or {}, groups["average"])
        configs = self._checked_configs(path, progress.pop("optim"), groups["optim"])
        own = {"order": order, "optim_configs": configs, "params": groups["params"]}
        kept = {"best_params": groups["best"] or None, "averages": groups["average"] or None}
        return progress | own | kept

    def _check_counts(self, *, epoch, position, history, loss_history, **_) -> None:
        batches = math.ceil(position / self.batch_size)
        if position != min(batches * self.batch_size, self.num_examples):
            raise ValueError(f"position: expected the end of a batch, got {position}")
        for name, values, expected in (
            ("history", history, epoch),
            ("loss_history", loss_history, epoch * self.iterations_per_epoch + batches),
        ):
            if len(values) != expected:
                raise ValueError(f"{name}: expected {expected} entries, got {len(values)}")

    def _checked_configs(
        self, path: Path, scalars: dict[str, dict], arrays: dict[str, np.ndarray]
    ) -> dict[str, dict[str, object]]:
        """The rules' configs by parameter. A parameter that has had no gradient has no arrays."""
        if scalars.keys() != self.params.keys():
            raise ValueError(f"optim: expected {[*self.params]}, got {[*scalars]}")
        configs, like = {}, {}
        for name, w in self.params.items():
            own = {key: a for key, a in arrays.items() if key.rpartition("/")[0] == name}
            # The rule knows which arrays it keeps, and refuses what it cannot use.
            _, tried = optim.RULES[self.update_rule](np.zeros(1), np.zeros(1), {**scalars[name]})
            slots = [key for key, value in tried.items() if isinstance(value, np.ndarray)]
            like |= {f"{name}/{slot}": w for slot in slots if own}
            configs[name] = scalars[name] | {key.rpartition("/")[2]: a for key, a in own.items()}
        _check_like(path, "optim", like, arrays)
        return configs


def _copies(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    return {name: a.copy() for name, a in arrays.items()}


def check_shapes(folder: Path, shapes: Mapping[str, tuple[int, ...]]) -> None:
    """Raise ValueError where the parameters in a folder's checkpoint, if it has one, are of other
    shapes: before a model is made, as large as damaged settings say."""
    path = folder / CHECKPOINT
    if not path.exists():
        return
    saved = storage.read_shapes(storage.named_tensors(path, storage.read_json(path)))
    for name, shape in shapes.items():
        if (got := saved.get(f"params/{name}")) != shape:
            raise ValueError(f"{path}: parameter {name}: expected {shape}, got {got}")


def _check_like(
    path: Path, what: str, expected: dict[str, np.ndarray], saved: dict[str, np.ndarray]
) -> None:
    """Raise ValueError unless the same names have arrays of the same shapes and dtypes, and finite
    numbers."""
    for name in sorted(expected.keys() | saved.keys()):
        want, got = (
            None if a is None else (a.shape, a.dtype) for a in (expected.get(name), saved.get(name))
        )
        if want != got:
            raise ValueError(f"{path}: {what} {name}: expected {want}, got {got}")
        if not np.isfinite(saved[name]).all():
            raise ValueError(f"{path}: {what} {name}: expected finite numbers")
