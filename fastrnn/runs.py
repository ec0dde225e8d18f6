"""The folder of a training run, alike for every program: run.json says what was trained on what,
metrics.json how good it is."""

from collections.abc import Collection
from pathlib import Path

from fastrnn import storage

RUN, METRICS = "run.json", "metrics.json"
FORMAT = 1


def new(name: str, out: Path | None, others: Collection[str] = ()) -> Path:
    """A folder for a new run of a program (None: a new one in runs/); it is not made.

    Raises FileExistsError where it has a run.json, or others of a run's files, already.
    """
    if out is None:
        return storage.new_folder(f"runs/{name}")
    if any((out / file).exists() for file in (RUN, *others)):
        raise FileExistsError(f"{out}: has a run already; resume it, or choose another folder")
    return out


def write(folder: Path, name: str, content: dict[str, object]) -> None:
    """Write run.json of a program's run."""
    storage.write_json(folder / RUN, {"format": FORMAT, "program": name} | content)


def read(folder: Path, name: str) -> dict:
    """run.json of a program's run. Raises FileNotFoundError, ValueError for another format."""
    path = folder / RUN
    if not path.is_file():
        raise FileNotFoundError(f"{folder}: not a run of {name} train (no {RUN})")
    content = storage.read_json(path)
    if content.get("format") != FORMAT:
        raise ValueError(f"{path}: expected format {FORMAT}, got {content.get('format')!r}")
    if content.get("program") != name:
        raise ValueError(f"{path}: expected a run of {name}, got {content.get('program')!r}")
    return content


def check_resumable(folder: Path, given: Collection[str], resumable: Collection[str]) -> None:
    """Raise ValueError for settings that a run cannot change when it is resumed."""
    if fixed := sorted({*given} - {*resumable}):
        raise ValueError(
            f"{folder}: a resumed run keeps its settings, {', '.join(fixed)} among them"
        )


def add_metrics(folder: Path, metrics: dict[str, object]) -> dict:
    """Write figures into metrics.json over those of the same name; return all."""
    return storage.update_json(folder / METRICS, metrics)


def check_name(name: str, reserved: Collection[str], own: str, is_own: bool) -> None:
    """Raise ValueError for figures whose name is no file's, reserved, or that of what the training
    validated on while they are of something else."""
    if not name or name in reserved or Path(name).name != name:
        raise ValueError(
            f"name: expected one for a file, and not {' or '.join(reserved)}, got {name!r}"
        )
    if name == own and not is_own:
        raise ValueError(f"name: {own!r} is what train validated on; choose another with --name")
