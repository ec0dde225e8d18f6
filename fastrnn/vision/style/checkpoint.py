"""A transfer that was stopped, in a file of tensors: of what, and how far it had come."""

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn import storage
from fastrnn.optional import require

if TYPE_CHECKING:
    import torch

FORMAT = 1


class State(NamedTuple):
    """How far a transfer has come: the picture (1, 3, H, W), the losses of every step, the
    optimiser's state_dict."""

    picture: "torch.Tensor"
    losses: list[list[float]]
    optimizer: dict[str, object]


def weights_hash(modules: list["torch.nn.Module"]) -> str:
    """A hash of all parameters."""
    content = hashlib.sha256()
    for module in modules:
        for w in module.parameters():
            content.update(np.ascontiguousarray(w.cpu().numpy()))
    return content.hexdigest()


def save(path: Path, identity: dict[str, object], state: State) -> None:
    """Write a checkpoint: the new one or the old one is whole."""
    content = {"format": FORMAT, "identity": identity, "state": tuple(state)}
    with storage.replacing(path) as temporary:
        require("torch").save(content, temporary)


def load(path: Path, identity: dict[str, object]) -> State:
    """The state in a checkpoint of the transfer with this identity.

    Raises FileNotFoundError, and ValueError where the file is no checkpoint, or names what is not
    as it was.
    """
    if not path.is_file():
        raise FileNotFoundError(f"{path}: no checkpoint to continue from")
    try:
        content = require("torch").load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch raises whatever the broken file leads it to
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ValueError(f"{path}: not a checkpoint ({reason})") from None
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of format {FORMAT}")
    before = content["identity"]
    names = [*identity, *(name for name in before if name not in identity)]
    if other := [name for name in names if before.get(name) != identity.get(name)]:
        raise ValueError(f"{path}: of another transfer; not as it was: {', '.join(other)}")
    return State(*content["state"])
