"""Weights under PyTorch's names: a state_dict, and its files, .safetensors and those of torch.save.

No file is read that runs code: those of torch.save with weights_only=True.
"""

import json
import pickle
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

import numpy as np

from fastrnn import storage
from fastrnn.cells import STANDARD
from fastrnn.layers import checks
from fastrnn.nn.assemble import Untold, assemble, naming
from fastrnn.nn.modules import Recurrent
from fastrnn.optional import require
from fastrnn.options import Options
from fastrnn.weights import (
    NORM_NAMES,
    ORDERS,
    TORCH_NAMES,
    Layer,
    from_torch,
    reorder_params,
)

METADATA = "fastrnn"  # of a file that `save` has written: what is Untold
# A parameter of a layer, or of a cell, behind the prefix of its module.
_KIND = "|".join((*TORCH_NAMES, *NORM_NAMES.values()))
# The one bias of the smaller cells: behind it comes the layer, as not in other modules.
_ANY = rf"{_KIND}|bias(?=_l\d)"
_PARAMETER = re.compile(rf"(?:(?P<prefix>.*)\.)?(?P<kind>{_ANY})(?P<end>_l\d{{1,6}}(_reverse)?)?")
# What stands for one that is computed from others.
_COMPUTED = re.compile(
    rf"(?:(?P<prefix>.*)\.)?(?:parametrizations\.(?:{_ANY})(?:_l\d+(?:_reverse)?)?\.\w+"
    rf"|(?:{_ANY})(?:_l\d+(?:_reverse)?)?_(?:g|v|orig))"
)


def of_mapping(source: Mapping[str, object], prefix: str | None, untold: Untold) -> Recurrent:
    """The module of a state_dict, of tensors or arrays."""
    chosen = _chosen(source, prefix)
    arrays = {name: _array(key, source[key]) for name, key in chosen.items()}
    return assemble(arrays, chosen, untold)


def of_torch_file(path: Path, prefix: str | None, untold: Untold) -> Recurrent:
    """The module of a file of torch.save that holds a state_dict, on its own or within dicts."""
    torch = require("torch")
    with storage.reading(path, "a file of PyTorch's weights"):
        try:
            content = torch.load(path, map_location="cpu", weights_only=True)
        except Exception as error:  # of many kinds, in many lines
            reason = str(error).partition("\n")[0] or type(error).__name__
            if isinstance(error, pickle.UnpicklingError):  # torch's words advise to trust the file
                reason = _why_refused(path)
            raise ValueError(reason) from None
        content = dict(_flat(content)) if isinstance(content, Mapping) else {}
        with naming(path):
            return of_mapping(content, prefix, untold)


def _why_refused(path: Path) -> str:
    """What a file has besides tensors, as far as that can be told without reading it."""
    try:
        names = require("torch.serialization").get_unsafe_globals_in_checkpoint(path)
    except Exception:  # as above
        names = []
    found = f"more than tensors: {', '.join(sorted(names))}" if names else "more than tensors"
    return f"{found}; save the state_dict() of the module"


def _flat(content: Mapping, path: str = "") -> Iterator[tuple[str, object]]:
    for key, value in content.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{path}{key}.")
        else:
            yield f"{path}{key}", value


def of_safetensors(path: Path, prefix: str | None, untold: Untold) -> Recurrent:
    """The module of a safetensors file; untold, of one that `save` has not written."""
    shapes, written = storage.read_shapes(path), storage.read_metadata(path).get(METADATA)
    with naming(path):
        chosen = _chosen(shapes, prefix)
    tensors = storage.read_tensors(path, names=chosen.values())
    with storage.named(path, "a file of PyTorch's weights"), naming(path):
        if written is not None:
            untold = _told(json.loads(written))
        return assemble({name: tensors[key] for name, key in chosen.items()}, chosen, untold)


def _told(content: dict) -> Untold:
    """What a file's metadata says."""
    options = content.pop("options", None)
    return Untold(**content, options=None if options is None else Options(**options)).checked()


def _telling(module: Recurrent) -> dict[str, object]:
    """What _told reads; without options, what earlier versions read, too."""
    form = module.form
    content = {
        "nonlinearity": form.nonlinearity,
        "reset_after": bool(form.reset_after),  # which may be NumPy's, as may the next
        "dropout": float(module.dropout),
        "gate_order": form.gates,
    }
    if form.cell not in STANDARD:
        content["cell"] = form.cell
    if form.eps is not None:
        content["eps"] = form.eps
    if form.options is None:
        return content
    usual, plain = Options._field_defaults, dict.fromkeys(("seed", "first_step"), int)
    said = {k: v for k, v in form.options._asdict().items() if v != usual[k]}
    return content | {"options": {k: plain.get(k, float)(v) for k, v in said.items()}}


def save(module: Recurrent, path: Path | str) -> None:
    """Write a module's weights into a safetensors file, atomically, under PyTorch's names and in
    its order: torch.nn's module of the same sizes loads them, unless there are peepholes or layers
    are normalised, and `load` makes the same module of them, bit for bit.

    Inputs: module of fastrnn.nn, of the smaller cells as it lies; path, a name that ends with
    .safetensors.
    Raises TypeError for another module, ValueError for another name, OSError where it cannot be
    written.
    """
    tensors = _as_it_lies(module) if _is_smaller(module) else in_torch_order(module)
    if Path(path).suffix.lower() != ".safetensors":
        raise ValueError(f"path: expected a name that ends with .safetensors, got {str(path)!r}")
    metadata = {"format": "pt", METADATA: json.dumps(_telling(module))}
    storage.write_tensors(path, tensors, metadata)


def _is_smaller(module):
    return isinstance(module, Recurrent) and module.form.cell not in STANDARD


def _as_it_lies(module):
    module.check_params()
    return module.params


def in_torch_order(module: Recurrent) -> dict[str, np.ndarray]:
    """The params of a module with their gates in PyTorch's order.

    Raises TypeError for what is no RNN, LSTM or GRU of fastrnn.nn.
    """
    if not isinstance(module, Recurrent) or module.form.cell not in STANDARD:
        got = type(module).__name__
        raise TypeError(f"module: expected an RNN, LSTM or GRU of fastrnn.nn, got {got}")
    module.check_params()
    cell = module.form.record
    before, after = cell.orders[module.form.gates], ORDERS["pytorch"][cell.name]
    return reorder_params(module.params, before, after)


def in_layers(module: Recurrent) -> list[list[Layer]]:
    """The weights of a module, layer by layer, of each direction, their gates in the cell's order.

    Raises TypeError for what is no module of fastrnn.nn, ValueError for one with layer
    normalisation, which nobody else has in a layer.
    """
    params, cell = in_torch_order(module), module.form.cell
    if module.form.eps is not None:
        raise ValueError(f"layer_norm: expected False, got {module!r}")

    def layer(end):
        own = {name: params[name + end] for name in TORCH_NAMES if name + end in params}
        return from_torch(cell, **own)

    return [[layer(end) for end in ends] for ends in module.suffixes()]


# ---- names ---------------------------------------------------------------------------------------


def _chosen(keys: Iterable[str], prefix: str | None) -> dict[str, str]:
    """Of the keys of a state_dict those of one recurrent module, by the names of its parameters.

    Raises ValueError where there is none, or prefix chooses none of several.
    """
    found, computed = {}, {}
    for key in keys:
        if not isinstance(key, str):
            continue
        if match := _PARAMETER.fullmatch(key):
            name = match["kind"] + (match["end"] or "_l0")
            found.setdefault(match["prefix"] or "", {})[name] = key
        elif match := _COMPUTED.fullmatch(key):
            computed.setdefault(match["prefix"] or "", key)
    prefixes = [p for p, names in found.items() if any(n.startswith("weight") for n in names)]
    prefixes += [p for p in computed if p not in prefixes]
    if not prefixes:
        raise ValueError(
            "expected weights under PyTorch's names, such as lstm.weight_ih_l0, got none"
        )
    own = [p for p in prefixes if _is_below(p, prefix)]
    if len(own) != 1 and prefix not in own:
        raise ValueError(f"prefix: expected one of {prefixes}, got {prefix!r}")
    (own,) = own if len(own) == 1 else [prefix]
    if own in computed:
        raise ValueError(
            f"{computed[own]}: expected the weights themselves, got what a parametrization computes"
            " them of: remove it before saving"
        )
    return found[own]


def _is_below(prefix: str, ancestor: str | None) -> bool:
    """Whether a module is another one or within it."""
    return not ancestor or f"{prefix}.".startswith(f"{ancestor}".removesuffix(".") + ".")


def _array(name: str, a: object) -> np.ndarray:
    """A tensor or an array as an array."""
    if hasattr(a, "detach"):  # of PyTorch, which need not be imported to be asked
        try:
            a = a.detach().cpu()
            held, declared = a.untyped_storage().nbytes(), a.numel() * a.element_size()
            a = (a.float() if str(a.dtype) == "torch.bfloat16" else a).numpy()
        except (RuntimeError, TypeError):
            got = f"{a.layout} {a.dtype} on {a.device}"
            raise ValueError(f"{name}: expected a dense tensor of numbers, got {got}") from None
        if held < declared:  # of one number, say, as many as a file likes
            raise ValueError(f"{name}: expected {declared} bytes, got {held}")
    return checks.array(name, a)
