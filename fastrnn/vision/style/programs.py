"""What the command `fastrnn style` does, as functions: prepare, run to the end.

Beside the picture F.png:
F-losses.png            the losses by step
F-report.html           all that in a page
F-000100.png            the picture after so many steps, where that was asked for
F-checkpoint.pt         where it was stopped, to resume; gone when it is done
"""

import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import storage
from fastrnn.optional import require
from fastrnn.vision.images import over_white
from fastrnn.vision.style import checkpoint, memory, report
from fastrnn.vision.style.estimate import Estimate, estimate
from fastrnn.vision.style.optimise import Result, Step, run
from fastrnn.vision.style.plots import plot_losses
from fastrnn.vision.style.transfer import Transfer

# Of the picture, by the ending of its name.
FORMATS = {
    ".png": "png",
    ".jpg": "jpeg",
    ".jpeg": "jpeg",
    ".tif": "tiff",
    ".tiff": "tiff",
    ".webp": "webp",
}
QUALITY = 95  # of formats that lose some


class Job(NamedTuple):
    """A transfer, where its picture goes, how far it had come (None: not begun), and the names of
    content and styles."""

    transfer: Transfer
    out: Path
    start: checkpoint.State | None
    names: list[str]

    @property
    def done(self) -> int:
        """Steps that were done before."""
        return len(self.start.losses) if self.start else 0


class Report(NamedTuple):
    """What a job took: seconds, and the most bytes in memory (None: nobody tells)."""

    seconds: float
    bytes: int | None


def beside(out: Path, what: str, suffix: str = ".png") -> Path:
    """A file beside the picture."""
    return out.with_name(f"{out.stem}-{what}{suffix}")


def prepare(
    out: Path, content: Path, styles: Sequence[Path], *, resume: bool = False, **options
) -> Job:
    """Read and check all that a transfer needs; nothing is written.

    Inputs: out, a file in a folder that is there, its ending one of FORMATS; what Transfer takes;
    resume, continue from the checkpoint beside out.
    Raises ValueError, OSError or TypeError that name what cannot be right, FileExistsError where a
    checkpoint would be overwritten.
    """
    if out.suffix.lower() not in FORMATS:
        raise ValueError(f"{out}: expected a name that ends in {', '.join(FORMATS)}")
    if not out.absolute().parent.is_dir():
        raise FileNotFoundError(f"{out.parent}: no such folder")
    stopped = beside(out, "checkpoint", ".pt")
    if resume and not stopped.exists():
        raise FileNotFoundError(f"{stopped}: no checkpoint to continue from")
    if stopped.exists() and not resume:
        raise FileExistsError(f"{stopped}: of a transfer that was stopped; resume or delete it")
    _check_outputs(out, [content, *styles, *(options.get("masks") or ()), options.get("init")])
    transfer = Transfer(content, styles, **options)
    start = checkpoint.load(stopped, transfer.identity()) if resume else None
    return Job(transfer, out, start, [Path(path).name for path in (content, *styles)])


def _check_outputs(out: Path, inputs: Sequence[Path | str | None]) -> None:
    """Raise ValueError where a picture that is read would be overwritten, OSError where nothing
    can be written."""
    written = [out, beside(out, "losses"), beside(out, "report", ".html")]
    for path in (Path(source).resolve() for source in inputs if source is not None):
        if path in (target.resolve() for target in written):
            raise ValueError(f"{path}: would be overwritten; choose another --out")
    for path in (beside(out, "checkpoint", ".pt"), *written):
        storage.check_writable(path)


def forecast(job: Job) -> Estimate:
    """What the rest of a job will take."""
    return estimate(job.transfer, job.done)


def finish(
    job: Job, *, save_every: int = 0, on_step: Callable[[Step], object] | None = None
) -> Report:
    """Run a job to its end and write its files; save_every, steps between pictures and checkpoints
    in between (0: none).

    Raises KeyboardInterrupt on Ctrl-C, after a checkpoint, and FloatingPointError where a loss is
    not finite or does not fall; then the files are those that were written before.
    """
    started = time.perf_counter()
    stopped, identity = beside(job.out, "checkpoint", ".pt"), job.transfer.identity()

    def on_save(state: checkpoint.State) -> None:
        checkpoint.save(stopped, identity, state)
        if save_every and len(state.losses) % save_every == 0:
            path = beside(job.out, f"{len(state.losses):06}")
            write_picture(path, job.transfer.picture(state.shown))

    result = run(job.transfer, job.start, on_step=on_step, on_save=on_save, save_every=save_every)
    write_picture(job.out, result.picture)
    plot_losses(beside(job.out, "losses"), result.losses, result.sizes)
    stopped.unlink(missing_ok=True)
    took = Report(time.perf_counter() - started, memory.peak(job.transfer.space.device))
    _write_report(job, result, took, save_every)
    return took


def _write_report(job: Job, result: Result, took: Report, save_every: int) -> None:
    steps = len(result.losses["total"])
    figures = {"steps": steps, "seconds": took.seconds}
    if took.bytes is not None:
        figures["memory"] = f"{took.bytes / 1e9:.1f} GB"
    saved = [beside(job.out, f"{n:06}") for n in range(save_every, steps, save_every or steps)]
    report.write(
        beside(job.out, "report", ".html"),
        job.out.name,
        result,
        job.transfer.inputs,
        job.names,
        job.transfer.settings,
        figures,
        [path for path in saved if path.is_file()],
    )


def write_picture(path: Path | str, picture: np.ndarray) -> None:
    """Write a picture (H, W, 3) or (H, W, 4) uint8, atomically, in the format of its name, PNG
    where that has no ending; over white in one that has no alpha."""
    image = require("PIL.Image").fromarray(picture)
    form = FORMATS.get(Path(path).suffix.lower(), "png")
    with storage.replacing(path) as temporary:
        (over_white(image) if form == "jpeg" else image).save(
            temporary, format=form, quality=QUALITY
        )
