"""What a network's last layer reads: computed once a picture, and kept in files."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn import storage
from fastrnn.optional import require
from fastrnn.vision import tensors
from fastrnn.vision.backbones import Preprocessing
from fastrnn.vision.transfer import data

if TYPE_CHECKING:
    import torch

# (description, unit) to a wrapper of an iteration.
Bar = Callable[[str, str], data.Progress]


# Of the deviation of all features, the least that one is divided by.
LEAST_STD = 1e-3


class Features(NamedTuple):
    """rows (V, N, F) float32 of V views of N examples, and their classes (V, N)."""

    rows: "torch.Tensor"
    labels: "torch.Tensor"


def cache_folder() -> Path:
    """Where features are kept by default: fastrnn/features in the user's folder for caches."""
    base = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base) / "fastrnn" / "features"


def of_batches(
    model: "torch.nn.Module",
    head: "torch.nn.Module",
    batches: Iterable,
    device: "torch.device",
) -> tuple["torch.Tensor", "torch.Tensor"]:
    """What the layer `head` of a network in evaluation mode reads of (inputs, classes): (N, F)
    float32, and the classes (N,), both on the CPU."""
    torch = require("torch")
    rows, labels = [], []
    hook = head.register_forward_pre_hook(lambda _, inputs: rows.append(inputs[0].float().cpu()))
    model.eval()
    try:
        for inputs, targets in batches:
            with torch.no_grad():
                model(inputs.to(device))
            labels.append(targets.cpu())
    finally:
        hook.remove()
    return torch.cat(rows), torch.cat(labels)


def of_loader(
    model: "torch.nn.Module",
    head: "torch.nn.Module",
    loader: Iterable,
    device: "torch.device",
    views: int,
) -> Features:
    """Features of any DataLoader; a view is a pass over it, in whatever order."""
    torch = require("torch")
    passes = [of_batches(model, head, loader, device) for _ in range(views)]
    return Features(*map(torch.stack, zip(*passes, strict=True)))


def of_pictures(
    model: "torch.nn.Module",
    head: "torch.nn.Module",
    pictures: data.Pictures,
    to: Preprocessing,
    views: int,
    device: "torch.device",
    *,
    name: str,
    batch_size: int,
    workers: int = 0,
    cache: Path | None = None,
    bar: Bar = lambda description, unit: iter,
) -> Features:
    """Features of picture files, which are looked up in the folder `cache` (None: nowhere), and
    computed and added to it where they are not there; name, of the backbone."""
    torch, weights = require("torch"), weights_digest(model, head)
    at = dict(zip(pictures.keys, pictures.paths, strict=True))
    rows = []
    for number in range(views):
        transform = data.view(to, number)
        progress = bar(f"features, view {number + 1} of {views}", "batch")

        def compute(keys, transform=transform, number=number, progress=progress):
            examples = [(at[key], 0, (int(key, 16), number)) for key in keys]
            batches = [examples[i : i + batch_size] for i in range(0, len(examples), batch_size)]
            loader = data.loader(transform, batches, workers)
            return of_batches(model, head, progress(loader), device)[0].numpy()

        content = json.dumps([name, weights, to, number, repr(transform), device.type])
        key = hashlib.sha256(content.encode()).hexdigest()[:16]
        path = cache and cache / f"{name}-{to.crop}-view{number}-{key}.safetensors"
        rows.append(torch.from_numpy(cached(path, pictures.keys, compute)))
    labels = torch.tensor(pictures.labels).expand(views, -1)
    return Features(torch.stack(rows), labels)


def weights_digest(model: "torch.nn.Module", head: "torch.nn.Module") -> str:
    """The sha256 of a network's weights, those of its last layer aside."""
    path = next(name for name, module in model.named_modules() if module is head)
    state = model.state_dict().items()
    return tensors.digest((name, w) for name, w in state if not name.startswith(f"{path}."))


def cached(
    path: Path | None, keys: Sequence[str], compute: Callable[[list[str]], np.ndarray]
) -> np.ndarray:
    """Rows (N, F) of the keys, hexadecimal: from a file, and of those that it has not from compute,
    with which the file is completed. A file that cannot be understood counts as none."""
    if path:
        path.parent.mkdir(parents=True, exist_ok=True)
    known = _read(path) if path and path.is_file() else {}
    missing = [key for key in dict.fromkeys(keys) if key not in known]
    if missing:
        known |= zip(missing, compute(missing), strict=True)
        if path:
            table = np.array([np.frombuffer(bytes.fromhex(key), np.uint8) for key in known])
            storage.write_tensors(path, {"keys": table, "rows": np.stack([*known.values()])})
    return np.stack([known[key] for key in keys])


def _read(path: Path) -> dict[str, np.ndarray]:
    try:
        content = storage.read_tensors(path)
        keys, rows = content["keys"], content["rows"]
        return dict(zip((key.tobytes().hex() for key in keys), rows, strict=True))
    except (KeyError, ValueError):
        return {}


def moments(rows: "torch.Tensor") -> tuple["torch.Tensor", "torch.Tensor"]:
    """Mean and deviation (F,) of features (V, N, F), the latter away from 0."""
    std = rows.std(dim=(0, 1), correction=0)
    return rows.mean(dim=(0, 1)), std + LEAST_STD * rows.std(correction=0)


def random_batches(
    rows: "torch.Tensor", labels: "torch.Tensor", size: int, seed: int
) -> Callable[[int, int], Iterable]:
    """batches(epoch, first) of a Training, of features (V, N, F) and classes (V, N)."""
    torch, (views, count, _) = require("torch"), rows.shape

    def batches(epoch: int, first: int) -> Iterable:
        drawn = np.random.default_rng((seed, epoch, 1)).integers(views, size=count)
        for group in data.shuffled(count, size, seed, epoch)[first:]:
            at = torch.from_numpy(drawn[group]), torch.from_numpy(group)
            yield rows[at], labels[at]

    return batches
