"""torch's tensors in files, whole or not there and never with pickled objects, and their digest."""

import hashlib
import zipfile
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
    """Read what torch.save has written, onto the CPU.

    Raises FileNotFoundError, and ValueError that says that the file is not `what` it should be
    where it is none of torch's or holds other objects.
    """
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    with storage.reading(path, what):
        _check_sums(path)
        try:
            return require("torch").load(path, map_location="cpu", weights_only=True)
        except (MemoryError, PermissionError):
            raise
        except Exception:  # whatever a broken file leads to; torch's words advise to trust it
            raise ValueError(
                f"{path}: not {what} (no file of torch's, or more than tensors)"
            ) from None


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
