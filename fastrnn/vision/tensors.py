"""torch's tensors in files, whole or not there and never with pickled objects, and their digest."""

import hashlib
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
    with storage.replacing(path) as temporary:
        require("torch").save(content, temporary)


def read(path: Path | str, what: str) -> object:
    """Read what torch.save has written, onto the CPU.

    Raises FileNotFoundError, and ValueError that says that the file is not `what` it should be
    where it is none of torch's or holds other objects.
    """
    if not Path(path).is_file():
        raise FileNotFoundError(f"{path}: no such file")
    try:
        return require("torch").load(path, map_location="cpu", weights_only=True)
    except PermissionError:
        raise
    except Exception:  # whatever the broken file leads to; torch's words advise to trust the file
        raise ValueError(f"{path}: not {what} (no file of torch's, or more than tensors)") from None


def digest(tensors: Iterable[tuple[str, "torch.Tensor"]]) -> str:
    """The sha256 of tensors with their names."""
    content = hashlib.sha256()
    for name, tensor in tensors:
        content.update(name.encode())
        content.update(np.ascontiguousarray(tensor.detach().cpu().numpy()))
    return content.hexdigest()
