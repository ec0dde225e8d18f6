"""A transfer that was stopped, in a file of tensors: of what, and how far it had come."""

from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastrnn import storage, torch_files

if TYPE_CHECKING:
    import torch

FORMAT = 2


class State(NamedTuple):
    """How far a transfer has come: the canvas (1, 3, H, W), the losses of every step, the
    optimiser's state_dict, the average of the scale's canvases (None: of none)."""

    picture: "torch.Tensor"
    losses: list[list[float]]
    optimizer: dict[str, object]
    average: "torch.Tensor | None" = None

    @property
    def shown(self) -> "torch.Tensor":
        """The canvas that is shown, and from which the next scale begins."""
        return self.picture if self.average is None else self.average


def save(path: Path, identity: dict[str, object], state: State) -> None:
    """Write a checkpoint: the new one or the old one is whole."""
    torch_files.write(path, {"format": FORMAT, "identity": identity, "state": tuple(state)})


def load(path: Path, identity: dict[str, object]) -> State:
    """The state in a checkpoint of the transfer with this identity.

    Raises FileNotFoundError, and ValueError where the file is no checkpoint, or names what is not
    as it was.
    """
    content = torch_files.read(path, "a checkpoint")
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise ValueError(f"{path}: not a checkpoint of format {FORMAT}")
    with storage.named(path, "a checkpoint"):
        before, state = dict(content["identity"]), State(*content["state"])
    names = [*identity, *(name for name in before if name not in identity)]
    if other := [name for name in names if before.get(name) != identity.get(name)]:
        raise ValueError(f"{path}: of another transfer; not as it was: {', '.join(other)}")
    return state
