"""Kills a training with SIGKILL before and after every call by which it changes what is on disk,
and takes it up again, which has to end as the training that nobody disturbed: the same files with
the same bits, and no others.

python killed.py caption|classify, in an empty folder; prints how many such calls there are.
"""

import gc
import hashlib
import io
import os
import shutil
import signal
import sys
import time
from contextlib import ExitStack, redirect_stdout
from pathlib import Path
from unittest.mock import patch

from fastrnn import cli, storage
from fastrnn.captioning import programs as captions
from fastrnn.text import programs as texts

RUN = Path("run")
SMALL = ("--epochs", "1", "--backend", "numpy", "--batch-size")
TRAININGS = {
    "caption": ("--hidden", "3", "--wordvec", "2", *SMALL, "5"),
    "classify": ("--hidden-dim", "3", "--embedding-dim", "2", *SMALL, "9"),
}
WATCHED = ((os, "fsync"), (Path, "replace"), (Path, "unlink"))


def main(program: str) -> None:
    make_small()
    train = (program, "train", "--out", str(RUN))
    settings = TRAININGS[program]
    code, total = run([*train, *settings])  # not in a fork: what it imports, forks have
    assert code == 0
    expected = contents()
    gc.freeze()  # a collection in a fork would copy all memory
    for at in range(2 * total):
        shutil.rmtree(RUN)
        assert forked([*train, *settings], at) == -signal.SIGKILL, at
        begun = (RUN / "run.json").exists()
        assert forked([*train, *(["--resume"] if begun else settings)]) == 0, at
        assert contents() == expected, at
    print(total)


def make_small() -> None:
    """Little data, a clock that stands still, and pictures that are written as others are, but not
    drawn."""
    time.perf_counter = lambda: 0.0
    time.strftime = lambda *_: "now"
    os.fsync = lambda _: None  # a kill, unlike a power cut, loses nothing that was written
    captions.SCENES = {"train": 4, "val": 2}
    texts.REVIEWS = {"train": 16, "dev": 4}
    captions.plot_curves = texts.plots.plot_curves = draw
    texts.plots.plot_confusion = texts.plots.plot_reliability = draw
    captions.gallery = lambda *_: None
    captions.figures.save = lambda _, path: draw(path)


def draw(path: Path, *_) -> None:
    with storage.replacing(path) as temporary:
        temporary.write_bytes(b"drawn")


def forked(arguments: list[str], at: int | None = None) -> int:
    """What became of a child that runs a command: its exit code, or minus the signal."""
    child = os.fork()
    if not child:
        code = 99
        try:
            code, _ = run(arguments, at)
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])


def run(arguments: list[str], at: int | None = None) -> tuple[int, int]:
    """The exit code of a command that is killed before (2 n) or after (2 n + 1) call n of what is
    watched, and how many of these calls there were."""
    calls = 0

    def watched(original):
        def call(*given, **options):
            nonlocal calls
            if at == 2 * calls:
                os.kill(os.getpid(), signal.SIGKILL)
            result = original(*given, **options)
            if at == 2 * calls + 1:
                os.kill(os.getpid(), signal.SIGKILL)
            calls += 1
            return result

        return call

    with ExitStack() as patches:
        for owner, name in WATCHED:
            patches.enter_context(patch.object(owner, name, watched(getattr(owner, name))))
        patches.enter_context(redirect_stdout(io.StringIO()))
        try:
            cli.main(arguments)
        except SystemExit as end:
            return end.code or 0, calls


def contents() -> dict[str, str]:
    """The digest of every file in the run."""
    return {
        str(path): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in RUN.rglob("*")
        if path.is_file()
    }


if __name__ == "__main__":
    main(sys.argv[1])
