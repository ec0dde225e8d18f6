"""State dicts as they come in files, into torchvision's networks."""

import re
from collections.abc import Callable, Collection, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from fastrnn import storage, torch_files
from fastrnn.optional import require

if TYPE_CHECKING:
    import torch

# What DataParallel and torch.compile put before the names of what they wrap.
WRAPPERS = ("module", "_orig_mod")
# Names as torchvision's DenseNets and vision transformers had them, and as they have them now.
RENAMED = (
    (rf"(^|\.)(?:(?:{'|'.join(WRAPPERS)})\.)+", r"\1"),
    (r"(denselayer\d+\.(?:norm|relu|conv))\.([12]\.)", r"\1\2"),
    (r"(encoder_layer_\d+\.mlp)\.linear_1\.", r"\1.0."),
    (r"(encoder_layer_\d+\.mlp)\.linear_2\.", r"\1.3."),
)
# A part of a network that is saved by itself, too, under its own names.
PART = "features."
NAMED = 3  # tensors that a message names


Report = Callable[[str], object]


class Found(NamedTuple):
    """Tensors by a network's names for them, where in a file they were, and what stood before
    their names there."""

    tensors: dict[str, "torch.Tensor"]
    place: str
    before: str


def silent(_line: str) -> None:
    """Reports nothing."""


def give(model: "torch.nn.Module", state: Mapping[str, "torch.Tensor"]) -> None:
    """Load a whole state dict of the same network into it, also one that does not tell the versions
    of modules, without which MNASNet refuses it. Raises ValueError where it is another's."""
    own = model.state_dict()
    if {n: w.shape for n, w in own.items()} != {n: w.shape for n, w in state.items()}:
        raise ValueError(f"not the tensors of this network ({_differences(own, state, own)})")
    own.update(state)
    model.load_state_dict(own)


def read(path: Path | str) -> object:
    """What a file of torch's or a safetensors file holds. Raises what torch_files.read and
    storage.read_tensors do."""
    if not Path(path).exists():
        raise FileNotFoundError(f"{path}: no such file")
    with Path(path).open("rb") as file:
        start = file.read(9)
    if start[8:] != b"{":  # with which the header of a safetensors file begins
        return torch_files.read(path, "a file of tensors")
    torch = require("torch")
    return {name: torch.from_numpy(w) for name, w in storage.read_tensors(path).items()}


def load(
    model: "torch.nn.Module",
    content: object,
    source: Path | str,
    *,
    head: str,
    part: str = "",
    optional: Collection[str] = (),
    report: Report = silent,
) -> None:
    """Load what a file holds into a network: the state dict in it, bare, or in dicts beside other
    things, under the network's names or with something before them, whole or of the part `features`
    alone.

    Inputs: model, changed; content, what read returns; source, named in messages; head, the path of
    what ends in the last layer, which keeps its weights where the file has none or others; part,
    with what the names begin that are looked at; optional, modules that the file may lack; report,
    called with a line that says what was taken where this is not the whole of a bare state dict.
    Raises ValueError that names missing keys, unexpected ones and those of another shape.
    """
    own = {name: w for name, w in model.state_dict().items() if name.startswith(part)}
    # Files of earlier versions of torch do not count a batch normalisation's batches.
    spared = {n for n in own if n.endswith("num_batches_tracked") or _within(n, (head, *optional))}
    body = {name: w for name, w in own.items() if name not in spared}
    found = _find(content, [*body])
    given = {name: w for name, w in found.tensors.items() if name.startswith(part)}
    given = {n: w for n, w in given.items() if not _within(n, optional) or _same(w, own.get(n))}

    of_head = {name: w for name, w in given.items() if _within(name, (head,))}
    expected = {name: w for name, w in own.items() if _within(name, (head,))}
    fits = _shapes(of_head) == _shapes(expected)
    parts = {name.partition(".")[0] for name in own}
    beside = [name for name in given if name.partition(".")[0] not in parts]
    kept = {name: w for name, w in given.items() if fits or name not in of_head}
    taken = {name: w for name, w in kept.items() if name not in beside}
    if _differences(own, taken, body):
        differences = _differences(own, kept, body)
        raise ValueError(f"{source}: not the weights of this model ({differences})")
    give(model, {**model.state_dict(), **taken})

    words = ["weights"]
    if found.place or found.before:
        words[0] += f" of {found.place!r}" if found.place else ""
        words[0] += f" whose names begin with {found.before!r}" if found.before else ""
    if not fits:
        words.append(_without(of_head) if of_head else "without a last layer")
    if beside:
        words.append(f"without {_some(beside)} beside them")
    if words != ["weights"]:
        report(f"{source}: {', '.join(words)}")


def _without(head: Mapping[str, "torch.Tensor"]) -> str:
    *_, shape = _shapes(head).values()
    return f"without its last layer, of {shape[0]} classes" if shape else "without its last layer"


def _within(name: str, modules: Collection[str]) -> bool:
    return any(name.startswith(f"{module}.") for module in modules)


def _same(one: object, other: object) -> bool:
    return getattr(one, "shape", None) == getattr(other, "shape", None)


def _shapes(state: Mapping[str, object]) -> dict[str, tuple[int, ...] | None]:
    return {name: getattr(w, "shape", None) for name, w in state.items()}


def _find(content: object, names: list[str]) -> Found:
    """Of all dicts in a file, and all that may stand before the names, what has the most of them;
    of equals the first."""
    found = [fit for place, state in _dicts(content) for fit in _fits(place, state, names)]
    known = set(names)
    return max(found, key=lambda fit: len(known & fit.tensors.keys()), default=Found({}, "", ""))


def _dicts(content: object, place: str = "") -> Iterator[tuple[str, dict[str, object]]]:
    """The dicts in a dict, itself first, each with where it is and what in it is no dict."""
    if isinstance(content, Mapping):
        yield place, {str(k): w for k, w in content.items() if not isinstance(w, Mapping)}
        for name, inner in content.items():
            yield from _dicts(inner, f"{place}.{name}" if place else str(name))


def _fits(place: str, state: Mapping[str, object], names: list[str]) -> Iterator[Found]:
    """A dict under the network's names, for everything that may stand before these."""
    now = {_renamed(name): name for name in state}
    yield Found({new: state[old] for new, old in now.items()}, place, _wrapper(state))
    first = names[0]
    for short in dict.fromkeys((first, first.removeprefix(PART))):
        for before in [n.removesuffix(short) for n in now if n.endswith(f".{short}") or n == short]:
            inner = {n: old for n, old in now.items() if n.startswith(before)}
            lacks = first.removesuffix(short)
            found = {lacks + n.removeprefix(before): state[old] for n, old in inner.items()}
            if before or lacks:
                yield Found(found, place, _wrapper(state) + before)


def _renamed(name: str) -> str:
    for old, new in RENAMED:
        name = re.sub(old, new, name)
    return name


def _wrapper(names: Collection[str]) -> str:
    """What wraps the whole of a network, as it stands before the names."""
    return next((found[0] for name in names if (found := re.match(RENAMED[0][0], name))), "")


def _differences(
    own: Mapping[str, object], given: Mapping[str, object], needed: Mapping[str, object]
) -> str:
    """In words, what of the tensors given is missing, unexpected, or of another shape; empty where
    nothing is."""
    missing, extra = sorted(needed.keys() - given.keys()), sorted(given.keys() - own.keys())
    ours, theirs = _shapes(own), _shapes(given)
    wrong = [name for name in sorted(ours.keys() & theirs.keys()) if ours[name] != theirs[name]]
    if not (missing or extra or wrong):
        return ""
    return f"missing {_some(missing)}; unexpected {_some(extra)}; of another shape {_some(wrong)}"


def _some(names: list[str]) -> str:
    more = f" and {len(names) - NAMED} more" if len(names) > NAMED else ""
    return ", ".join(names[:NAMED]) + more or "none"
