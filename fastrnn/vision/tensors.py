"""torch's tensors in files, whole or not there and never with pickled objects, and their digest."""

import hashlib
import zipfile
from argparse import Namespace
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from fastrnn import storage
from fastrnn.optional import require

if TYPE_CHECKING:
    import torch


def write(path: Path | str, content: object) -> None:
    """Write tensors, numbers and strings, in lists and dicts, as torch.save does, atomically."""
    with storage.replacing(path) as temporary, temporary.open("wb") as file:
        require("torch").save(content, file)


def read(path: Path | str, what: str) -> object:
    """Read what torch.save has written, onto the CPU: tensors and plain values, and the arguments
    of a program, which torchvision's own training scripts keep beside them.

    Raises FileNotFoundError, and ValueError that says that the file is not `what` it should be
    where it is none of torch's or holds other objects, which are named.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    with storage.reading(path, what):
        _check_sums(path)
        torch = require("torch")
        try:
            with torch.serialization.safe_globals([Namespace]):
                return torch.load(path, map_location="cpu", weights_only=True)
        except (MemoryError, PermissionError):
            raise
        except Exception:  # whatever a broken file leads to; torch's words advise to trust it
            raise ValueError(f"{path}: not {what} ({_why_refused(path)})") from None


def _why_refused(path: Path | str) -> str:
    """What in a file is not read, as far as that can be told without reading it."""
    try:
        names = require("torch.serialization").get_unsafe_globals_in_checkpoint(path)
    except Exception:  # as above
        names = []
    if not names:
        return "no file of torch's, or more than tensors"
    return f"more than tensors: {', '.join(sorted(names))}"


def _check_sums(path: Path | str) -> None:
    """Raise ValueError where the content of a file of torch's, a zip archive, has not the checksums
    in it, at which torch does not look."""
    if not zipfile.is_zipfile(path):  # as torch wrote them before 1.6
        return
    try:
        with zipfile.ZipFile(path) as archive:
            damaged = archive.testzip()
    except Exception as error:  # an OSError, too, where it is sent to before the file's beginning
        raise ValueError(f"cannot be unpacked: {error}") from None
    if damaged is not None:
        raise ValueError(f"{path}: damaged: {damaged} is not what was written")


def digest(tensors: Iterable[tuple[str, "torch.Tensor"]]) -> str:
    """The sha256 of tensors with their names."""
    content = hashlib.sha256()
    for name, tensor in tensors:
        content.update(name.encode())
        content.update(np.ascontiguousarray(tensor.detach().cpu().numpy()))
    return content.hexdigest()
