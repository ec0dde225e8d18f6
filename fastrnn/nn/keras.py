"""Weights in files of Keras, read without it: .keras archives and HDF5 files, of whole models and
of weights alone.

Taken are LSTM, GRU, SimpleRNN, and Bidirectional of these. What a layer says of its calls alone is
the caller's (return_sequences, return_state, stateful, unroll, masks) or of training (regularizers;
dropout and recurrent_dropout, the same elements of x and of h at every step, as Options has
dropout_x and dropout_h; Keras may draw anew for every gate).
"""

import json
import re
import zipfile
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn import storage
from fastrnn.layers import checks
from fastrnn.nn.assemble import CELLS, Untold, assemble, choose, naming, widened
from fastrnn.nn.modules import Recurrent
from fastrnn.optional import require
from fastrnn.weights import ORDERS, TORCH_NAMES, from_keras, to_torch

CLASSES = {"SimpleRNN": "rnn", "LSTM": "lstm", "GRU": "gru"}
# Layers that pass on what they read, but in training.
PASSING = ("ActivityRegularization", "Dropout", "GaussianDropout", "GaussianNoise")
PASSING += ("InputLayer", "SpatialDropout1D")
ROLES = ("kernel", "recurrent_kernel", "bias")
NUMBERED = dict(zip("012", ROLES, strict=True))  # in the files of Keras 3
CONFIG_BYTES = 1 << 26  # of config.json, at the most
HARD_SIGMOIDS = {1: 0.2, 2: 0.2, 3: 1 / 6}  # their slopes, by the version of Keras
DEFLATED = 1100  # times as large as it is kept may a compressed array be, at the most

Datasets = dict[str, object]  # by their roles


class Layer(NamedTuple):
    """A recurrent layer in a file."""

    name: str  # behind those of the models that it is in
    cells: list[Datasets]  # one, or forwards and backwards
    keras_class: str | None = None  # or the one that Bidirectional wraps; None: not told
    configs: tuple[dict, ...] = ()  # a cell, as far as they are told
    wrapper: dict | None = None  # the config of Bidirectional
    before: str | None = None  # the recurrent layer whose output, and nothing else, it reads
    version: int | None = None  # of the Keras that wrote the file

    @property
    def cell(self) -> str:
        """As its class or its weights say."""
        if self.keras_class is not None:
            return CLASSES[self.keras_class]
        shape = self.cells[0]["recurrent_kernel"].shape
        cell = CELLS.get(shape[1] // shape[0]) if len(shape) == 2 and shape[0] else None
        if cell is None:
            expected = "expected shape (H, G*H) with 1, 3 or 4 for G"
            raise ValueError(f"{self.name}/recurrent_kernel: {expected}, got {shape}")
        return cell

    @property
    def kind(self) -> tuple[object, ...]:
        """What layers of one stack have in common."""
        H, bias = self.cells[0]["recurrent_kernel"].shape[:1], self.cells[0].get("bias")
        axes = None if bias is None else len(bias.shape)
        names = "activation", "recurrent_activation", "reset_after"
        told = [[c.get(name) for name in names] for c in self.configs[:1]]
        return self.cell, len(self.cells), H, axes, told


def of_file(path: Path, layer: str | Sequence[str] | None, untold: Untold) -> Recurrent:
    """The module of one recurrent layer, or of several on top of each other."""
    with storage.reading(path, "a Keras file"), ExitStack() as opened:
        file, config, version = _opened(path, opened)
        cells = _cells(file)
        layers = _unnamed(file, cells) if config is None else _layers(config, cells)
        with naming(path):
            known = {own.name: own._replace(version=version) for own in layers}
            stack = choose(known, layer, "layer", lambda own: own, lambda a, b: a.name == b.before)
            return _module(stack, untold)


def _opened(path: Path, stack: ExitStack) -> tuple[object, dict | None, int | None]:
    """An HDF5 file, what it says of its model, and the version of Keras that wrote it."""
    h5py = require("h5py")
    if path.suffix.lower() != ".keras":
        file = stack.enter_context(h5py.File(path, "r"))
        config = file.attrs.get("model_config")
        version = _major(file.attrs.get("keras_version"))
        return file, None if config is None else json.loads(config), version
    archive = stack.enter_context(zipfile.ZipFile(path))
    config = _json(archive, "config.json")
    told = _json(archive, "metadata.json") if "metadata.json" in archive.namelist() else {}
    weights = stack.enter_context(archive.open("model.weights.h5"))
    return stack.enter_context(h5py.File(weights, "r")), config, _major(told.get("keras_version"))


def _json(archive: zipfile.ZipFile, name: str) -> dict:
    if archive.getinfo(name).file_size > CONFIG_BYTES:
        raise ValueError(f"{name}: expected at most {CONFIG_BYTES} bytes")
    return json.loads(archive.read(name))


def _major(version: object) -> int | None:
    match = re.match(r"\d{1,4}", version) if isinstance(version, str) else None
    return match and int(match[0])


# ---- what is where -------------------------------------------------------------------------------


def _cells(file) -> dict[str, Datasets]:
    """The weights of each cell by the path of its layer, or of the layer's direction."""
    found: dict[str, Datasets] = {}

    def visit(path, item):
        where, _, name = path.rpartition("/")
        if where.endswith("/cell/vars"):
            where, name = where.removesuffix("/cell/vars"), NUMBERED.get(name, name)
        else:  # before Keras 3
            where, name = re.sub(r"/[^/]*_cell(_\d+)?$", "", where), name.partition(":")[0]
            where = where.removeprefix("model_weights/")
        if hasattr(item, "shape") and name in ROLES:
            found.setdefault(where, {})[name] = item

    file.visititems(visit)  # follows no link, so none into another file
    return {where: cell for where, cell in found.items() if "recurrent_kernel" in cell}


def _unnamed(file, cells: dict[str, Datasets]) -> Iterator[Layer]:
    """Layers as the paths alone tell of them."""

    def is_there(parent, direction):
        return any(where.startswith(f"{parent}/{direction}_") for where in cells)

    for where in cells:
        parent, _, last = where.rpartition("/")
        if not (is_there(parent, "forward") and is_there(parent, "backward")):
            parent = where
        elif last.startswith("backward_"):
            continue
        own = file[f"{parent}/vars"].attrs.get("name") if f"{parent}/vars" in file else None
        yield Layer(own or parent.rpartition("/")[2], _directions(cells, parent))


def _directions(cells: dict[str, Datasets], layer: str) -> list[Datasets]:
    """The cells of a layer, by its path: one, or that forwards and that backwards."""
    if layer in cells:
        return [cells[layer]]
    names = [where.removeprefix(f"{layer}/") for where in cells if where.startswith(f"{layer}/")]
    both = [f"{way}_" for way in ("forward", "backward")]
    return [cells[f"{layer}/{name}"] for way in both for name in names if name.startswith(way)]


def _layers(
    model: dict, cells: dict[str, Datasets], path: str = "", outer: tuple[str, ...] = ()
) -> Iterator[Layer]:
    """Layers as the config of a model, and those of the models in it, tell of them."""
    used, sources, previous = Counter(), {}, None
    for layer in model["config"]["layers"]:
        kind, config = layer["class_name"], layer["config"]
        names = (*outer, config["name"])
        in_order = model["class_name"] == "Sequential"
        source = previous if in_order else _source(layer.get("inbound_nodes", []), sources)
        key = _snake(kind)
        place = f"{path}layers/{key}_{used[key]}" if used[key] else f"{path}layers/{key}"
        used[key] += 1
        if "layers" in config:
            yield from _layers(layer, cells, f"{place}/", names)
        configs, wrapper = [config], None
        if kind == "Bidirectional":
            wrapper = config
            both = [config[name] for name in ("layer", "backward_layer") if name in config]
            kind, configs = both[0]["class_name"], [one["config"] for one in both]
        if kind in CLASSES:
            own = _located(cells, place, names)
            yield Layer("/".join(names), own, kind, tuple(configs), wrapper, source)
            source = "/".join(names)
        elif kind not in PASSING:
            source = None
        sources[config["name"]] = previous = source


def _snake(name: str) -> str:
    """As Keras spells classes in its files."""
    name = re.sub(r"(.)([A-Z][a-z]+)", r"\1_\2", re.sub(r"\W+", "", name))
    return re.sub(r"([a-z])([A-Z])", r"\1_\2", name).lower()


def _source(nodes: object, sources: dict[str, str | None]) -> str | None:
    """The recurrent layer whose output a layer with these inbound nodes reads, if it reads nothing
    else."""
    references = [*_references(nodes)]
    if len(references) != 1 or references[0][1] != 0:  # 0: the output, others are states
        return None
    return sources.get(references[0][0])


def _references(nodes: object) -> Iterator[tuple[str, int]]:
    """Names of layers, and which of their outputs, wherever they are in inbound nodes."""
    if isinstance(nodes, dict):
        nodes = [*nodes.values()]
    if isinstance(nodes, list):
        if [type(a) for a in nodes[:3]] == [str, int, int]:
            yield nodes[0], nodes[2]
            nodes = nodes[3:]
        for node in nodes:
            yield from _references(node)


def _located(cells: dict[str, Datasets], place: str, names: tuple[str, ...]) -> list[Datasets]:
    """The cells of a layer, by its place in the files of Keras 3, or by its names."""
    legacy = [
        layer
        for where in cells
        for layer in (where, where.rpartition("/")[0])
        if layer.split("/")[0] == names[0] and layer.split("/")[-1] == names[-1]
    ]
    for layer in (place, place.replace("layers/", "_layer_checkpoint_dependencies/"), *legacy):
        if found := _directions(cells, layer):
            return found
    raise ValueError(f"{'/'.join(names)}: expected its weights, got none")


# ---- which, and what of it -----------------------------------------------------------------------


def _module(layers: list[Layer], untold: Untold) -> Recurrent:
    """One stack of layers."""
    cell, params, labels = layers[0].cell, {}, {}
    for k, layer in enumerate(layers):
        untold = _checked(layer, cell, untold)
        for weights, end in zip(layer.cells, (f"_l{k}", f"_l{k}_reverse"), strict=False):
            for name, (a, label) in _params(layer.name, cell, weights).items():
                params[name + end], labels[name + end] = a, label
    return assemble(params, labels, untold)


def _checked(layer: Layer, cell: str, untold: Untold) -> Untold:
    """What a layer tells of. Raises ValueError for what fastrnn has not."""
    expected = {"recurrent_activation": ["sigmoid", "hard_sigmoid"], "time_major": [False]}
    expected["activation"] = ["tanh", "relu"] if cell == "rnn" else ["tanh"]
    for backwards, config in enumerate(layer.configs):
        expected["go_backwards"] = [bool(backwards)]
        for name, values in expected.items():
            if (got := config.get(name, values[0])) not in values:
                wanted = " or ".join(map(repr, values))
                raise ValueError(f"{layer.name}: {name}: expected {wanted}, got {got!r}")
        for name in ("activation", "recurrent_activation", *(["reset_after"] * (cell == "gru"))):
            if config.get(name) != layer.configs[0].get(name):
                raise ValueError(f"{layer.name}: {name}: expected the same in both directions")
    if layer.wrapper and (merge := layer.wrapper.get("merge_mode", "concat")) != "concat":
        raise ValueError(f"{layer.name}: merge_mode: expected 'concat', got {merge!r}")
    if layer.configs and (S := 2 if layer.wrapper else 1) != len(layer.cells):
        raise ValueError(f"{layer.name}: expected weights of {S} cells, got {len(layer.cells)}")
    return _told(layer, cell, untold)


def _told(layer: Layer, cell: str, untold: Untold) -> Untold:
    for config in layer.configs[:1]:
        if cell == "rnn":
            return untold._replace(nonlinearity=config.get("activation", "tanh"))
        untold = untold.with_options(hard_sigmoid=_hard_sigmoid(layer, config))
        if cell == "gru":
            untold = untold._replace(reset_after=bool(config.get("reset_after", False)))
    bias = layer.cells[0].get("bias")
    if cell == "gru" and bias is not None:  # which tells it best
        untold = untold._replace(reset_after=len(bias.shape) == 2)
    return untold


def _hard_sigmoid(layer, config):
    """The slope of its gates, None where they are smooth."""
    if config.get("recurrent_activation") != "hard_sigmoid":
        return None
    if layer.version not in HARD_SIGMOIDS:
        raise ValueError(
            f"{layer.name}: recurrent_activation: expected 'sigmoid' in a file that names no Keras "
            f"of {min(HARD_SIGMOIDS)} to {max(HARD_SIGMOIDS)}, got 'hard_sigmoid', whose slope "
            "depends on it"
        )
    return HARD_SIGMOIDS[layer.version]


def _params(name: str, cell: str, weights: Datasets) -> dict[str, tuple[np.ndarray, str]]:
    """PyTorch's parameters of one cell, and what each is called in the file."""
    arrays = {role: _array(f"{name}/{role}", a) for role, a in weights.items()}
    G = len(ORDERS["keras"][cell])
    shapes = {"kernel": f"D {G}*H", "recurrent_kernel": f"H {G}*H"}
    if "bias" in arrays:
        two = cell == "gru" and arrays["bias"].ndim == 2
        shapes["bias"] = f"S {G}*H" if two else f"{G}*H"
    if missing := shapes.keys() - arrays.keys():
        raise ValueError(f"{name}: expected {', '.join(missing)}, got {[*arrays]}")
    expected = checks.signature(**{f"{name}/{role}": shape for role, shape in shapes.items()})
    checked = checks.arrays(expected, tuple(arrays[role] for role in shapes))
    arrays = dict(zip(shapes, checked, strict=True))
    if "bias" in arrays and arrays["bias"].ndim == 2 and len(arrays["bias"]) != 2:
        raise ValueError(f"{name}/bias: expected shape (2, {G}*H), got {arrays['bias'].shape}")
    layer = from_keras(cell, **arrays, gates=ORDERS["pytorch"][cell])
    if layer.b is not None and layer.bh is None:
        layer = layer._replace(bh=np.zeros_like(layer.b))
    parts = to_torch(cell, layer, gates=ORDERS["pytorch"][cell])
    roles = dict(zip(TORCH_NAMES, (*ROLES, "bias"), strict=False))
    return {part: (a, f"{name}/{roles[part]}") for part, a in parts.items()}


def _array(name: str, dataset) -> np.ndarray:
    """The numbers of a dataset. Raises ValueError where the file does not hold them."""
    declared = dataset.size * dataset.dtype.itemsize
    if dataset.is_virtual or dataset.external:
        raise ValueError(f"{name}: expected its numbers in the file itself")
    if declared > dataset.id.get_storage_size() * (DEFLATED if dataset.compression else 1):
        held = dataset.id.get_storage_size()
        raise ValueError(f"{name}: expected {declared} bytes, got {held}")
    return widened(dataset[()])
