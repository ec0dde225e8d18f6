"""What a network's last layer reads: computed once a picture and view, and kept in files."""

import hashlib
import json
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from fastrnn import storage, torch_files
from fastrnn.optional import require
from fastrnn.vision.backbones import Preprocessing
from fastrnn.vision.transfer import data

if TYPE_CHECKING:
    import torch

# (description, unit) to a wrapper of an iteration.
Bar = Callable[[str, str], data.Progress]


# Of the deviation of all features, the least that one is divided by.
LEAST_STD = 1e-3
# How pictures are read, of which features are: 2, over white, large JPEGs in part of their size.
READING = 2


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


class Known(NamedTuple):
    """What is known of picture files by their sha256: features (F,) of each view, the sha256 of the
    pixels, and why others cannot be read."""

    rows: list[dict[str, np.ndarray]]
    pixels: dict[str, str]
    problems: dict[str, str]

    def of(self, pictures: data.Pictures, views: int) -> Features:
        """Features of the first views of pictures."""
        torch = require("torch")
        rows = [np.stack([of[key] for key in pictures.keys]) for of in self.rows[:views]]
        labels = torch.tensor(pictures.labels).expand(views, -1)
        return Features(torch.from_numpy(np.stack(rows)), labels)


def look(
    model: "torch.nn.Module",
    head: "torch.nn.Module",
    wanted: Mapping[str, tuple[Path, int]],
    to: Preprocessing,
    device: "torch.device",
    *,
    name: str,
    batch_size: int,
    workers: int = 0,
    cache: Path | None = None,
    progress: data.Progress = iter,
) -> Known:
    """Features of picture files, which are looked up in the folder `cache` (None: nowhere); what is
    not there is computed, each file opened once, and added to it, also before an interrupt.

    Inputs: wanted, by a file's sha256 where it is and how many views are wanted of it; name, of the
    backbone; batch_size, views that the network reads together.
    """
    views = max((views for _, views in wanted.values()), default=0)
    paths = _files(cache, name, weights_digest(model, head), to, views, device)
    tables = [_read(path) for path in paths]
    rows, pixels = tables[1:], tables[0]
    todo = {}
    for key, (path, count) in wanted.items():
        missing = [n for n in range(count) if key not in rows[n]]
        if missing or key not in pixels:
            todo[key] = path, missing
    problems = {}
    try:
        examples = [(path, key, numbers) for key, (path, numbers) in todo.items()]
        size = max(1, batch_size // max(1, views))
        batches = [examples[i : i + size] for i in range(0, len(examples), size)]
        read = data.loader(data.ViewsReader(to, views), batches, workers, collate_fn=list)
        for batch in progress(read) if batches else ():
            problems |= {key: why for key, why, seen in batch if seen is None}
            good = [item for item in batch if item[2] is not None]
            _add(model, head, device, good, todo, rows, pixels)
    finally:
        for path, table in zip(paths, tables, strict=True):
            if path and todo and table:
                _write(path, table)
    return Known(rows, {key: row.tobytes().hex() for key, row in pixels.items()}, problems)


def _add(model, head, device, good, todo, rows, pixels) -> None:
    """Put what has been read of pictures, and their features, where it belongs."""
    torch = require("torch")
    places = [(key, n) for key, _, _ in good for n in todo[key][1]]
    if places:
        inputs = torch.cat([seen for _, _, seen in good if len(seen)])
        found, _ = of_batches(model, head, [(inputs, torch.zeros(len(inputs)))], device)
        for (key, n), row in zip(places, found.numpy(), strict=True):
            rows[n][key] = row
    pixels |= {key: _bytes(digest) for key, digest, _ in good}


def _files(cache, name, weights, to, views, device) -> list[Path | None]:
    """Where the pixels' sha256 and the features of each view are kept."""
    if cache is None:
        return [None] * (views + 1)
    cache.mkdir(parents=True, exist_ok=True)
    paths = [cache / f"pixels-{READING}-{data.enough(to)}.safetensors"]
    for number in range(views):
        transform = repr(data.view(to, number))
        content = json.dumps([READING, name, weights, to, number, transform, device.type])
        key = hashlib.sha256(content.encode()).hexdigest()[:16]
        paths.append(cache / f"{name}-{to.crop}-view{number}-{key}.safetensors")
    return paths


def _bytes(digest: str) -> np.ndarray:
    return np.frombuffer(bytes.fromhex(digest), np.uint8)


def head_probabilities(
    head: "torch.nn.Module", rows: "torch.Tensor", size: int, device: "torch.device"
) -> np.ndarray:
    """The probabilities (N, C) float32 that a last layer gives to features (N, F), so many at a
    time."""
    torch = require("torch")
    with torch.inference_mode():
        scores = [head(part.to(device)).float() for part in rows.split(size)]
        return torch.cat(scores).softmax(dim=1).cpu().numpy()


def weights_digest(model: "torch.nn.Module", head: "torch.nn.Module") -> str:
    """The sha256 of a network's weights, those of its last layer aside."""
    path = next(name for name, module in model.named_modules() if module is head)
    state = model.state_dict().items()
    return torch_files.digest((name, w) for name, w in state if not name.startswith(f"{path}."))


def _read(path: Path | None) -> dict[str, np.ndarray]:
    """Rows by their keys, hexadecimal, in a file; none of one that cannot be understood."""
    if path is None or not path.is_file():
        return {}
    try:
        content = storage.read_tensors(path)
        keys, rows = content["keys"], content["rows"]
        return dict(zip((key.tobytes().hex() for key in keys), rows, strict=True))
    except (KeyError, ValueError):
        return {}


def _write(path: Path, table: Mapping[str, np.ndarray]) -> None:
    keys = np.array([_bytes(key) for key in table])
    storage.write_tensors(path, {"keys": keys, "rows": np.stack([*table.values()])})


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
