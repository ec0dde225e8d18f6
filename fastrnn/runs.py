"""The folder of a training run, alike for every program: run.json says what was trained on what,
metrics.json how good it is."""

import json
import re
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import chain, count
from pathlib import Path

from fastrnn import storage
from fastrnn.settings import OBJECT, Kind, Settings, check

RUN, METRICS = "run.json", "metrics.json"
FORMAT = 1
# The files of all programs' runs, as a regular expression.
FILES = (
    r"(run|metrics|model|classifier|checkpoint|curves|gallery|confusion|reliability|predictions"
    r"|pictures|results|report)(-.*)?\.(csv|html|json|safetensors|png|pt)"
)


def new(name: str, out: Path | None, others: Collection[str] = ()) -> Path:
    """A folder for a new run of a program (None: a new one in runs/); it is not made.

    Raises FileExistsError where it has a run.json, or others of a run's files, already, OSError
    where it could not be written to.
    """
    out = storage.new_folder(f"runs/{name}") if out is None else out
    if any((out / file).exists() for file in (RUN, *others)):
        raise FileExistsError(f"{out}: has a run already; resume it, or choose another folder")
    storage.check_folder(out)
    return out


@contextmanager
def at_work(folder: Path) -> Iterator[None]:
    """A block that writes a run: its folder is made, kept from other processes, and freed of what
    kills have left. Raises BlockingIOError where another process is at work in it."""
    folder.mkdir(parents=True, exist_ok=True)
    with storage.locked(folder):
        _check_files(folder)
        storage.sweep(folder, FILES)
        yield


def _check_files(folder: Path) -> None:
    """Raise ValueError for a pipe or device among a run's files, on which writing would wait."""
    for path in folder.iterdir():
        if re.fullmatch(FILES, path.name) and path.exists() and not path.is_dir():
            storage.check_regular(path)


@contextmanager
def looked_at(folder: Path) -> Iterator[None]:
    """A block that adds figures to a run, where there is one. Raises BlockingIOError where a
    training is at work in it, and what keeps figures from being added."""
    if not folder.is_dir():
        yield
        return
    with storage.locked(folder, shared=True):
        storage.check_folder(folder)
        _check_files(folder)
        read_metrics(folder)
        yield


def write(folder: Path, name: str, content: dict[str, object]) -> None:
    """Write run.json of a program's run."""
    storage.write_json(folder / RUN, {"format": FORMAT, "program": name} | content)


def read(folder: Path, name: str, kinds: Mapping[str, Kind]) -> dict:
    """run.json of a program's run, which has values of these kinds. Raises FileNotFoundError,
    ValueError for another format or for other values."""
    path = folder / RUN
    if not path.exists():
        raise FileNotFoundError(f"{folder}: not a run of {name} train (no {RUN})")
    content = storage.read_json(path)
    if content.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {content.get('format')!r}")
    if content.get("program") != name:
        raise ValueError(f"{path}: expected a run of {name}, got {content.get('program')!r}")
    with storage.named(path, f"a run of {name} train"):
        check({key: content[key] for key in kinds}, kinds)
    return content


def filled(given: dict[str, object], usual: Mapping[str, object]) -> dict[str, object]:
    """What an earlier version has written, in its order, which a resumed run keeps, and behind it
    what it has not."""
    return given | {name: value for name, value in usual.items() if name not in given}


def check_resumable(folder: Path, given: Collection[str], settings: Settings) -> None:
    """Raise ValueError for settings and others that a run cannot change when it is resumed."""
    resumable = {name for name, setting in settings.items() if setting.resumable}
    if fixed := sorted({*given} - resumable):
        raise ValueError(
            f"{folder}: a resumed run keeps its settings, {', '.join(fixed)} among them"
        )


def read_metrics(folder: Path) -> dict[str, dict]:
    """The figures in metrics.json by their name; none where there is no such file."""
    path = folder / METRICS
    content = storage.read_json(path) if path.exists() else {}
    with storage.named(path, "figures by name"):
        check(content, dict.fromkeys(content, OBJECT))
    return content


def add_metrics(folder: Path, metrics: dict[str, dict]) -> dict[str, dict]:
    """Write figures into metrics.json over those of the same name; return all."""
    merged = read_metrics(folder) | metrics
    storage.write_json(folder / METRICS, merged)
    return merged


def check_name(folder: Path, name: str | None, reserved: Collection[str], own: str) -> None:
    """Raise ValueError for figures of a given name (None: of none) that is no file's, reserved, or
    own, that of what the training validated on, where there are such figures."""
    if name is None:
        return
    if not name or name in reserved or Path(name).name != name:
        raise ValueError(
            f"name: expected one for a file, and not {' or '.join(reserved)}, got {name!r}"
        )
    if name == own and own in read_metrics(folder):
        raise ValueError(f"name: {own!r} is what train validated on; choose another with --name")


def free_name(
    folder: Path, report: dict, candidates: Sequence[str], reserved: Collection[str], own: str
) -> str:
    """The first of some names, or of the last one with a number, under which a report replaces no
    figures of the training: what is own may be given the same again."""
    taken = read_metrics(folder).get(own)

    def is_free(name: str) -> bool:
        same = name != own or taken in (None, json.loads(json.dumps(report)))
        return same and name not in reserved

    return next(filter(is_free, chain(candidates, (f"{candidates[-1]}-{n}" for n in count(2)))))
