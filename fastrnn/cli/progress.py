"""Progress bars on stderr, off where that is no terminal."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastrnn.optional import require
from fastrnn.printing import printable
from fastrnn.solver import Solver

# The validated figure that a training shows, of whichever program, and its name there.
SHOWN = {
    "bleu4": "BLEU-4",
    "dev_macro_f1": "best dev macro F1",
    "dev_micro_f1": "best dev micro F1",
    "dev_accuracy": "best dev accuracy",
    "val_accuracy": "best val accuracy",
}


def bar(description: str, unit: str) -> Callable[[Iterable], Iterable]:
    """A wrapper that shows the progress of an iteration with its rate and time to go."""
    tqdm = require("tqdm").tqdm
    return lambda items: tqdm(items, desc=description, unit=unit, disable=None)


@contextmanager
def file_bar(path: Path) -> Iterator[Callable[[int], object]]:
    """Shows how far the reading of a file is; its block gets what takes the bytes just read."""
    tqdm, size = require("tqdm").tqdm, path.stat().st_size
    with tqdm(
        total=size, desc=printable(path.name), unit="B", unit_scale=True, disable=None
    ) as shown:
        yield shown.update


class TrainingBar:
    """Shows a Solver's iterations with rate, loss, time to go and the best model's figure, of one
    solver after the other; give it as on_iteration."""

    def __init__(self) -> None:
        self._bar = self._solver = None

    def __call__(self, solver: Solver) -> None:
        if solver is not self._solver:
            self.close()
            self._solver = solver
            total = solver.num_epochs * solver.iterations_per_epoch
            self._bar = require("tqdm").tqdm(
                total=total, initial=solver.iteration - 1, desc="train", unit="it", disable=None
            )
        self._bar.update(1)
        figures = {"epoch": solver.epoch + 1, "loss": f"{solver.loss_history[-1]:.3g}"}
        scored = (epoch for epoch in solver.history if "score" in epoch)
        best = max(scored, key=lambda epoch: epoch["score"], default={})
        figures |= {name: f"{best[key]:.4f}" for key, name in SHOWN.items() if key in best}
        self._bar.set_postfix(figures, refresh=False)

    def close(self) -> None:
        """Take the bar off the screen's last line."""
        if self._bar is not None:
            self._bar.close()
