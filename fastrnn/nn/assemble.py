"""Modules of weights that come from elsewhere."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import numpy as np

from fastrnn.cells import STANDARD, form_of
from fastrnn.layers import checks
from fastrnn.nn.minimal import MGU, IndRNN, MinGRU, MinLSTM
from fastrnn.nn.modules import EPS, GRU, LSTM, RNN, Recurrent
from fastrnn.options import Options
from fastrnn.weights import ORDERS, reorder_params

CELLS = {len(cell.gates): name for name, cell in STANDARD.items()}
SMALLER = {kind.cell: kind for kind in (MGU, MinGRU, MinLSTM, IndRNN)}


class Untold(NamedTuple):
    """What weights do not say of their module."""

    nonlinearity: str | None = None  # of an RNN, or a smaller cell; None: its own
    reset_after: bool = True  # of a GRU
    dropout: float = 0.0
    gate_order: str | None = None  # in which the module keeps its gates; None: PyTorch's
    options: Options | None = None  # of its cells
    eps: float = EPS  # of layer normalisation
    cell: str | None = None  # of the smaller ones, whose weights do not tell; None: rnn, lstm, gru

    def checked(self) -> "Untold":
        """The same, complete. Raises ValueError for a value, TypeError for a flag or what is no
        Options."""
        checks.flag("reset_after", self.reset_after)
        checks.probability("dropout", self.dropout)
        checks.positive("eps", self.eps)
        if self.cell is not None and not (isinstance(self.cell, str) and self.cell in SMALLER):
            raise ValueError(f"cell: expected None or one of {[*SMALLER]}, got {self.cell!r}")
        if self.cell is not None and self.options is not None:
            raise TypeError(f"options: expected nothing for {self.cell}")
        given = {} if self.nonlinearity is None else {"nonlinearity": self.nonlinearity}
        record = form_of(self.cell or "rnn", **given)
        if not isinstance(self.options, Options | None):
            got = type(self.options).__name__
            raise TypeError(f"options: expected fastrnn.Options, got {got}")
        return self._replace(nonlinearity=record.form["nonlinearity"])

    def with_options(self, **known: float | None) -> "Untold":
        """With some of its cells' options as a file says."""
        given = Options() if self.options is None else self.options
        options = given._replace(**known)
        return self._replace(options=self.options if options == given else options)


@contextmanager
def naming(path: Path) -> Iterator[None]:
    """A block that refuses what a file has: its ValueErrors name the file."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error


def assemble(
    params: Mapping[str, np.ndarray], labels: Mapping[str, str], untold: Untold
) -> Recurrent:
    """A module with copies of params, arrays under PyTorch's names and as it lays them out, float16
    widened; labels, what each is called where it comes from.

    Raises ValueError for a name, a shape or numbers that are not finite, TypeError for a dtype.
    """
    params = {name: widened(a) for name, a in params.items()}
    module = (_module if untold.cell is None else _smaller)(params, labels, untold)
    for name, shape in module.shapes.items():
        _check(name, params, labels, shape)
        label, a = labels[name], params[name]
        if a.dtype != module.dtype:
            raise TypeError(f"{label}: expected {module.dtype} like the others, got {a.dtype}")
        if not np.isfinite(a).all():
            raise ValueError(f"{label}: expected finite numbers, got others")
    for name in params:
        if name not in module.shapes:
            raise ValueError(f"{labels[name]}: expected none beside {sorted(labels.values())}")
    turned, cell = params, module.form.record
    if untold.cell is None:
        before, after = ORDERS["pytorch"][cell.name], cell.orders[module.form.gates]
        turned = reorder_params(params, before, after)
    module.params = {name: np.array(turned[name], order="C") for name in module.shapes}
    return module


def widened(a: np.ndarray) -> np.ndarray:
    """Floats as float32 or float64, in this CPU's byte order."""
    return a.astype(np.promote_types(a.dtype, np.float32)) if a.dtype.kind == "f" else a


def check_shape(label: str, a: np.ndarray, shape: Sequence[int | str]) -> None:
    """Raise ValueError unless an array has a shape, of which text matches any size."""
    fits = a.ndim == len(shape) and all(
        isinstance(n, str) or n == m for n, m in zip(shape, a.shape, strict=True)
    )
    if not fits:
        text = ", ".join(map(str, shape)) + ("," if len(shape) == 1 else "")
        raise ValueError(f"{label}: expected shape ({text}), got {a.shape}")


def _check(name, params, labels, shape):
    if name not in params:
        raise ValueError(f"{name}: expected an array, got only {sorted(labels.values())}")
    check_shape(labels[name], params[name], shape)


def _module(params, labels, untold):
    """As the names and shapes say, with weights of its own, of no more bytes than theirs."""
    if "bias_l0" in params:
        raise ValueError(f"cell: expected one of {[*SMALLER]}, whose {labels['bias_l0']} is")
    _check("weight_ih_l0", params, labels, ("G*H", "D"))
    _check("weight_hh_l0", params, labels, ("G*H", "P"))
    GH, P = params["weight_hh_l0"].shape
    H, proj_size = P, 0
    if "weight_hr_l0" in params:
        _check("weight_hr_l0", params, labels, (P, "H"))
        proj_size, H = params["weight_hr_l0"].shape
    cell = CELLS.get(GH // H if H else 0)
    if cell is None or GH % H:
        raise ValueError(
            f"{labels['weight_hh_l0']}: expected shape (G*H, H) with 1, 3 or 4 for G, got {(GH, P)}"
        )
    for name in ("weight_hr_l0", "peephole_l0"):
        if cell != "lstm" and name in params:
            raise ValueError(f"{labels[name]}: expected none of a {cell}")
    norm = {"layer_norm": True, "eps": untold.eps} if "gain_ih_l0" in params else {}
    if cell == "rnn" and norm:
        raise ValueError(f"{labels['gain_ih_l0']}: expected none of a {cell}")
    kind, own = {
        "rnn": (RNN, {"nonlinearity": untold.nonlinearity}),
        "lstm": (LSTM, {"proj_size": proj_size, "peepholes": "peephole_l0" in params} | norm),
        "gru": (GRU, {"reset_after": untold.reset_after} | norm),
    }[cell]
    if untold.gate_order is not None and cell != "rnn":
        own["gate_order"] = untold.gate_order
    for name in params:
        if name.startswith("weight_hh"):
            _check(name, params, labels, (GH, P))
    given = _as_all_have(params, labels, untold)
    return kind(params["weight_ih_l0"].shape[1], H, options=untold.options, **own, **given)


def _as_all_have(params, labels, untold):
    """Keywords of any module that its weights tell."""
    ends = {name.partition("_l")[2] for name in params}
    first = "weight_hh_l0" if "weight_hh_l0" in params else "weight_ih_l0"
    return {
        "num_layers": len({end.removesuffix("_reverse") for end in ends}),
        "dropout": untold.dropout,
        "bias": any(name.startswith("bias") for name in params),
        "bidirectional": any(end.endswith("_reverse") for end in ends),
        "dtype": checks.float_dtype(labels[first], params[first].dtype),
    }


def _smaller(params, labels, untold):
    """As _module, of a cell whose name is told; its gates lie as they do."""
    kind, record = SMALLER[untold.cell], form_of(untold.cell)
    _check("weight_ih_l0", params, labels, ("G*H", "D"))
    GH, D = params["weight_ih_l0"].shape
    if GH == 0 or GH % len(record.gates):
        expected = f"(G*H, D) with {len(record.gates)} for G"
        raise ValueError(f"{labels['weight_ih_l0']}: expected shape {expected}, got {(GH, D)}")
    own = {"nonlinearity": untold.nonlinearity, "gate_order": untold.gate_order}
    return kind(D, GH // len(record.gates), **own, **_as_all_have(params, labels, untold))


def choose(
    known: Mapping[str, object],
    names: str | Sequence[str] | None,
    keyword: str,
    parse: Callable[[object], object],
    is_on: Callable[[object, object], bool],
) -> list:
    """Layers of a file that make one stack: those with the given names, or all.

    Inputs: known, what the file has by name; keyword, of names; parse, from that to a layer, which
    has a kind, that all of a stack share; is_on, whether the first of two layers is read by the
    second one.
    Raises ValueError for a name, or layers that are no stack.
    """
    if not known:
        raise ValueError("expected recurrent layers, got none")
    if names is None:
        stacks = _stacks([parse(layer) for layer in known.values()], is_on)
        if len(stacks) == 1:
            return stacks[0]
        given = "None, and they are not one stack, of one kind and size"
    else:
        given, names = repr(names), [*names] if isinstance(names, list | tuple) else [names]
        if names and all(isinstance(name, str) and name in known for name in names):
            layers = [parse(known[name]) for name in names]
            if all(layer.kind == layers[0].kind for layer in layers):
                return layers
            given += ", which are of different kinds or sizes"
    raise ValueError(f"{keyword}: expected one or several of {[*known]}, got {given}")


def _stacks(layers, is_on):
    stacks = []
    for layer in layers:
        ends = (stack for stack in stacks if stack[-1].kind == layer.kind)
        below = next((stack for stack in ends if is_on(stack[-1], layer)), None)
        if below is None:
            stacks.append([layer])
        else:
            below.append(layer)
    return stacks
