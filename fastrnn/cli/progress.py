"""Progress bars on stderr, off where that is no terminal."""

from collections.abc import Callable, Iterable

from fastrnn.optional import require
from fastrnn.solver import Solver


def bar(description: str, unit: str) -> Callable[[Iterable], Iterable]:
    """A wrapper that shows the progress of an iteration with its rate and time to go."""
    tqdm = require("tqdm").tqdm
    return lambda items: tqdm(items, desc=description, unit=unit, disable=None)


class TrainingBar:
    """Shows a Solver's iterations with rate, loss and time to go; give it as on_iteration."""

    def __init__(self) -> None:
        self._bar = None

    def __call__(self, solver: Solver) -> None:
        if self._bar is None:
            total = solver.num_epochs * solver.iterations_per_epoch
            self._bar = require("tqdm").tqdm(
                total=total, initial=solver.iteration - 1, desc="train", unit="it", disable=None
            )
        self._bar.update(1)
        figures = {"epoch": solver.epoch + 1, "loss": f"{solver.loss_history[-1]:.2f}"}
        if solver.best_score is not None:
            best = max((e for e in solver.history if "bleu4" in e), key=lambda e: e["score"])
            figures["BLEU-4"] = f"{best['bleu4']:.3f}"
        self._bar.set_postfix(figures, refresh=False)

    def close(self) -> None:
        """Take the bar off the screen's last line."""
        if self._bar is not None:
            self._bar.close()
