"""Training of anything: epochs of iterations, validation, the best model, early stopping, Ctrl-C,
and how far it has come, for checkpoints that resume bit for bit.
"""

import signal
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np

from fastrnn.settings import FINITE, NOT_NEGATIVE, NUMBER, integer, listed, mapped, optional

# Attributes that say how far a training has come, as a checkpoint has them.
PROGRESS = {
    "epoch": integer(0),
    "position": integer(0),
    "seconds": NOT_NEGATIVE,
    "best_score": optional(NUMBER),
    "history": listed(mapped(NUMBER)),
    "loss_history": listed(FINITE),
}


class Loop:
    """Trains something. A subclass says what it is: how it learns from a batch, what a validation
    is, what the best model is kept as, and what is in a checkpoint.

    Parameters: num_epochs; iterations_per_epoch; patience, validations without a better score
    before it stops (None: never); on_iteration, called with the loop after every iteration;
    checkpoint, where one is kept (None: nowhere), written every checkpoint_every iterations (None:
    not within epochs), after every epoch and on Ctrl-C; identity, which a checkpoint must have to
    be continued.

    Attributes: loss_history, the loss of every iteration; history, a dict for every epoch;
    best_score, of the best validation (None without one); epoch; iteration; position, how far the
    epoch has come; seconds, that it has taken.
    """

    def __init__(
        self,
        *,
        num_epochs: int,
        iterations_per_epoch: int,
        patience: int | None = None,
        on_iteration: Callable[["Loop"], None] | None = None,
        checkpoint: Path | None = None,
        checkpoint_every: int | None = None,
        identity: str = "",
    ) -> None:
        self.num_epochs, self.iterations_per_epoch = num_epochs, iterations_per_epoch
        self.patience, self.on_iteration = patience, on_iteration
        self.checkpoint, self.checkpoint_every = checkpoint, checkpoint_every
        self.identity = identity
        self.epoch = self.position = 0
        self.seconds = 0.0
        self.loss_history: list[float] = []
        self.history: list[dict[str, float]] = []
        self.best_score: float | None = None

    # ---- what a subclass provides ----------------------------------------------------------------

    def start(self) -> None:
        """Before the first iteration, also of a training that goes on."""

    def batches(self) -> Iterable:
        """Those of the epoch from position on."""
        raise NotImplementedError

    def step(self, batch) -> float:
        """Learn from a batch and move position behind it; return its loss, which is finite."""
        raise NotImplementedError

    def figures(self) -> dict[str, float]:
        """Of the iterations of the epoch that ends."""
        raise NotImplementedError

    def validate(self) -> dict[str, float]:
        """Figures of the model as it stands; "score", more is better, chooses the best model.
        Empty: there is no validation."""
        return {}

    def keep_best(self) -> None:
        """Remember the model as it stands."""
        raise NotImplementedError

    def end_epoch(self, validated: dict[str, float]) -> None:
        """Make ready for the next epoch; validated, what validate has found."""

    def finish(self) -> None:
        """Take the best model, if one was kept."""

    def save(self) -> None:
        """Write a checkpoint, if there is a place for it: the new one or the old one is whole."""

    # ---- the loop --------------------------------------------------------------------------------

    @property
    def iteration(self) -> int:
        """Iterations done (int)."""
        return len(self.loss_history)

    @property
    def stopped_early(self) -> bool:
        """Whether patience ran out."""
        scores = [epoch["score"] for epoch in self.history if "score" in epoch]
        if self.patience is None or not scores:
            return False
        return len(scores) - 1 - int(np.argmax(scores)) >= self.patience

    def train(self) -> None:
        """Train until num_epochs epochs are done or patience runs out; then the model is the best
        one.

        Raises KeyboardInterrupt on Ctrl-C, after the iteration at hand and its checkpoint,
        FloatingPointError where the loss is not finite, and what start raises.
        """
        self.start()
        with deferred_interrupt() as interrupted:
            while self.epoch < self.num_epochs and not self.stopped_early:
                self._iterate(interrupted)
                self._end_epoch()
                self.save()
                if interrupted():
                    raise KeyboardInterrupt
        self.finish()

    def _iterate(self, interrupted: Callable[[], bool]) -> None:
        """The iterations that are left of an epoch."""
        clock = time.perf_counter()
        for batch in self.batches():
            self.loss_history.append(self.step(batch))
            self.seconds += time.perf_counter() - clock
            if self.on_iteration:
                self.on_iteration(self)
            due = self.checkpoint_every and self.iteration % self.checkpoint_every == 0
            if due or interrupted():
                self.save()
            if interrupted():
                raise KeyboardInterrupt
            clock = time.perf_counter()

    def _end_epoch(self) -> None:
        self.epoch += 1
        figures = {"epoch": self.epoch, **self.figures(), "seconds": self.seconds}
        validated = self.judge()
        self.history.append(figures | validated)
        self.position, self.seconds = 0, 0.0
        self.end_epoch(validated)

    def judge(self) -> dict[str, float]:
        """Validate, and keep the model if it is the best; return the figures."""
        figures = self.validate()
        score = figures.get("score")
        if score is not None and (self.best_score is None or score > self.best_score):
            self.best_score = score
            self.keep_best()
        return figures


@contextmanager
def deferred_interrupt() -> Iterator[Callable[[], bool]]:
    """Turns the first Ctrl-C into a flag, so that no update is cut in half; a second one acts at
    once. Only the main thread may handle signals; in others nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield lambda: False
        return
    asked: list[int] = []
    previous = signal.getsignal(signal.SIGINT)

    def handle(number, frame):
        asked.append(number)
        signal.signal(signal.SIGINT, previous)

    signal.signal(signal.SIGINT, handle)
    try:
        yield lambda: bool(asked)
    finally:
        signal.signal(signal.SIGINT, previous)
