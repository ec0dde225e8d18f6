"""Files that are whole or not there: written beside their place, synced, then renamed into it."""

import json
import os
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from itertools import count
from pathlib import Path

import numpy as np

from fastrnn.optional import require


@contextmanager
def replacing(path: Path | str) -> Iterator[Path]:
    """A path to write to that takes the place of ``path`` when the block ends without an error."""
    path = Path(path)
    temporary = _beside(path)
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
        _sync_folder(path.parent)
    finally:
        temporary.unlink(missing_ok=True)


def _beside(path: Path) -> Path:
    return path.with_name(f".{path.stem}-{os.getpid()}-{threading.get_ident()}{path.suffix}")


def check_writable(path: Path | str) -> None:
    """Raise OSError where replacing could not write ``path``; nothing stays behind."""
    temporary = _beside(Path(path))
    try:
        temporary.touch()
    except OSError as error:
        raise OSError(f"{path}: cannot be written ({error.strerror})") from None
    temporary.unlink()


def _sync_folder(folder: Path) -> None:
    if os.name == "posix":  # elsewhere a folder cannot be opened
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


def new_folder(name: str) -> Path:
    """The first of name-1, name-2, ... that does not exist; it is not made."""
    return next(path for n in count(1) if not (path := Path(f"{name}-{n}")).exists())


def write_json(path: Path | str, value: object) -> None:
    """Write a JSON file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(json.dumps(value, indent=1) + "\n", encoding="utf-8")


def update_json(path: Path | str, values: dict[str, object]) -> dict:
    """Write the object of a JSON file, {} where there is none, with these values over its own;
    return it."""
    merged = (read_json(path) if Path(path).is_file() else {}) | values
    write_json(path, merged)
    return merged


def write_named(
    path: Path | str, tag: str, content: dict, tensors: Mapping[str, np.ndarray]
) -> None:
    """Write a JSON file, NAME.json, and the tensors that belong to it, NAME-tag.safetensors, which
    it names under "tensors": first the tensors, then the JSON file that names them; then older
    tensors go, and what was left behind by kills. Killed at any moment, one of the two is whole."""
    path = Path(path)
    file = f"{path.stem}-{tag}.safetensors"
    write_tensors(path.with_name(file), tensors)
    write_json(path, content | {"tensors": file})
    for pattern in (f"{path.stem}-*.safetensors", f".{path.stem}-*"):
        for old in path.parent.glob(pattern):
            if old.name != file:
                old.unlink()


def read_json(path: Path | str) -> dict:
    """Read a JSON object. Raises ValueError that names the file where it is not one."""
    try:
        value = json.loads(Path(path).read_text(encoding="utf-8"))
    except ValueError as error:  # JSONDecodeError, UnicodeDecodeError
        raise ValueError(f"{path}: not a JSON file ({error})") from None
    if not isinstance(value, dict):
        raise ValueError(f"{path}: expected a JSON object, got {type(value).__name__}")
    return value


def write_tensors(path: Path | str, tensors: Mapping[str, np.ndarray]) -> None:
    """Write a safetensors file atomically."""
    # Not ascontiguousarray, which gives a scalar an axis.
    contiguous = {name: np.require(a, requirements="C") for name, a in tensors.items()}
    with replacing(path) as temporary:
        require("safetensors.numpy").save_file(contiguous, temporary)


def read_tensors(path: Path | str) -> dict[str, np.ndarray]:
    """Read a safetensors file. Raises ValueError that names the file where it is not one."""
    safetensors = require("safetensors")
    try:
        return require("safetensors.numpy").load_file(path)
    except safetensors.SafetensorError as error:
        raise ValueError(f"{path}: not a safetensors file ({error})") from None
