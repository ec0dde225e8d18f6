"""Progress on stderr: bars, and where that is no terminal a line for each epoch of a training."""

import sys
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path

from fastrnn.cli.output import say
from fastrnn.optional import require
from fastrnn.printing import printable
from fastrnn.training import Loop

# The validated figure that a training shows, of whichever program, and its name there.
SHOWN = {
    "bleu4": "BLEU-4",
    "dev_macro_f1": "dev macro F1",
    "dev_micro_f1": "dev micro F1",
    "dev_accuracy": "dev accuracy",
    "val_accuracy": "val accuracy",
}


def bar(description: str, unit: str, **options: object) -> Callable[[Iterable], Iterable]:
    """A wrapper that shows the progress of an iteration with its rate and time to go; options,
    tqdm's."""
    tqdm = require("tqdm").tqdm
    return lambda items: tqdm(items, desc=description, unit=unit, disable=None, **options)


@contextmanager
def file_bar(path: Path) -> Iterator[Callable[[int], object]]:
    """Shows how far the reading of a file is; its block gets what takes the bytes just read."""
    tqdm, size = require("tqdm").tqdm, path.stat().st_size
    with tqdm(
        total=size, desc=printable(path.name), unit="B", unit_scale=True, disable=None
    ) as shown:
        yield shown.update


class TrainingBar:
    """Shows a training's iterations with rate, loss, time to go and the best model's figure, of one
    training after the other; give it as on_iteration. What is no terminal gets a line an epoch."""

    def __init__(self) -> None:
        self._bar = self._loop = None
        self._told = 0  # epochs of the loop

    def __call__(self, loop: Loop) -> None:
        if loop is not self._loop:
            self.close()
            self._loop, self._told = loop, len(loop.history)
            total = loop.num_epochs * loop.iterations_per_epoch
            self._bar = require("tqdm").tqdm(
                total=total, initial=loop.iteration - 1, desc="train", unit="it", disable=None
            )
        self._bar.update(1)
        figures = {"epoch": loop.epoch + 1, "loss": f"{loop.loss_history[-1]:.3g}"}
        scored = (epoch for epoch in loop.history if "score" in epoch)
        best = max(scored, key=lambda epoch: epoch["score"], default={})
        figures |= {f"best {name}": figure for name, figure in _shown(best)}
        self._bar.set_postfix(figures, refresh=False)
        self._tell()

    def _tell(self) -> None:
        """Say how the epochs went that have ended since last time, where nobody sees a bar."""
        if not sys.stderr.isatty():
            for epoch in self._loop.history[self._told :]:
                figures = [f"loss {epoch['train_loss']:.4g}"] if "train_loss" in epoch else []
                figures += map(" ".join, _shown(epoch))
                said = ", ".join([*figures, f"{epoch['seconds']:.0f} s"])
                say(f"epoch {epoch['epoch']} of {self._loop.num_epochs}: {said}", err=True)
        self._told = len(self._loop.history)

    def close(self) -> None:
        """Take the bar off the screen's last line."""
        if self._bar is not None:
            self._tell()
            self._bar.close()


def _shown(epoch: dict[str, float]) -> list[tuple[str, str]]:
    """Names and values of an epoch's SHOWN figures."""
    return [(name, f"{epoch[key]:.4f}") for key, name in SHOWN.items() if key in epoch]
