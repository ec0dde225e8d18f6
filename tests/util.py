"""Tolerances with their reasons, and the table of layers that the oracles walk over."""

import math
from collections.abc import Callable, Iterable
from typing import NamedTuple

import numpy as np
import pytest

import fastrnn
from fastrnn import cli

FLOATS = ("float32", "float64")
# Of a Python whose script forks beside threads, as pyproject.toml has it for this one.
FORKS = ("-W", "ignore:This process:DeprecationWarning")

# Two correct implementations differ in the order of their sums: by 30 roundings of the largest
# element over 4 steps of 600 terms, by 130 where a sum of few terms cancels.
TWIN = {dtype: 200 * float(np.finfo(dtype).eps) for dtype in FLOATS}
# Terms are about 1: where a whole result, one element perhaps, cancels to less than this, its
# roundings are still theirs (112 terms, whose sum is 0.093, differ by 4.4e-15 in float64).
CANCELLED = 0.1
# The same sums in the same order.
EXACT = 0
# Central differences in float64: the outputs' roundings over the distance of the points, 1e-10, and
# the derivative along a random direction may be a ten-thousandth of them.
CALCULUS = 1e-5
# The same element by element, of the largest one: not a small fraction.
ELEMENT = 1e-8
# Of sigmoid and tanh, in units in the last place; largest seen: 2.18 and 1.98.
ULP = {"float32": 2.5, "float64": 2.0}
# Printed numbers: three decimals; a rel_error of 1e-8, of which the result's roundings leave eight
# digits; one that is rounding noise, which another order of the sums makes up to 6 times larger.
HALF_A_THOUSANDTH = 5e-4
PRINTED_DIGITS = 1e-6
SAME_ORDER = 20

# (N, T, D, H), hardly ever a multiple of a vector. Up to 6 rows the kernels read the weights as
# they lie instead of packing them.
SHAPES = [
    (1, 1, 1, 1),
    (2, 3, 7, 33),
    (1, 7, 16, 7),
    (7, 1, 33, 16),
    (7, 16, 1, 1),
    (16, 33, 7, 33),
    (33, 16, 100, 7),
]
# Several chunks of time; several blocks of columns and of depth.
LARGE_SHAPES = [(100, 33, 7, 100), (7, 4, 600, 200)]


class Layer(NamedTuple):
    """A forward function, its backward function and the operands' shapes, as in "N T D".

    forward(*operands, backend=) -> *outputs, cache; backward(*douts, cache, backend=) -> the
    gradients of the operands that have one. Both call those of fastrnn named by function, with the
    keywords; where last_states names fields of the cache, these are outputs too.
    """

    forward: Callable[..., tuple]
    backward: Callable[..., object]
    operands: dict[str, str]
    function: str
    keywords: dict[str, object]
    last_states: tuple[str, ...]


# A cell's weights, each in the place that its functions have for it.
WEIGHTS = ("Wx", "Wh", "u", "b", "bh", "projection")
# Operands that are passed by name.
BY_NAME = ("c0", "bh", "lengths", "index", "reset", "projection")


def _layer(
    function: str,
    operands: dict[str, str],
    keywords: dict[str, object] | None = None,
    last_states: tuple[str, ...] = (),
) -> Layer:
    keywords = keywords or {}

    def forward(*args, **others):
        given = dict(zip(operands, args, strict=True))
        named = {name: given.pop(name) for name in BY_NAME if name in given}
        call = getattr(fastrnn, f"{function}_forward")
        *outputs, cache = call(*given.values(), **named, **(keywords | others))
        return *outputs, *(getattr(cache, state) for state in last_states), cache

    def backward(*args, **others):
        *douts, cache = args
        first = len(douts) - len(last_states)
        named = dict(zip([f"d{state}" for state in last_states], douts[first:], strict=True))
        return getattr(fastrnn, f"{function}_backward")(*douts[:first], cache, **named, **others)

    return Layer(forward, backward, operands, function, keywords, last_states)


# Columns of Wx in H: of the cells that PyTorch has, too, and of all.
GATES = {"rnn": 1, "lstm": 4, "gru": 3}
COLUMNS = GATES | {"mgu": 2, "min_gru": 2, "min_lstm": 3, "ind_rnn": 1}


def weights_of(cell: str, transposed: bool = False, P: str = "H") -> dict[str, str]:
    """A cell's weights by name, and their shapes."""
    columns = f"{COLUMNS[cell]}*H"
    of_h = {"min_gru": {}, "min_lstm": {}, "ind_rnn": {"u": "H"}}
    shapes = {"Wx": f"D {columns}"} | of_h.get(cell, {"Wh": f"{P} {columns}"}) | {"b": columns}
    if transposed:
        shapes = {name: " ".join(reversed(shape.split())) for name, shape in shapes.items()}
    return shapes


def _cell(function: str, *by_name: str, last_states: bool = True, **keywords: object) -> Layer:
    """A cell, as "lstm" or "lstm_step", with these of its keywords."""
    cell, P = function.removesuffix("_step"), "P" if "projection" in by_name else "H"
    states = ("h", "c") if cell == "lstm" else ("h",)
    if function == cell:
        operands = {"x": "U D" if "index" in by_name else "N T D", "h0": f"N {P}"}
        outputs = tuple(f"{state}T" for state in states)
    else:
        operands = {"x": "N D"} | {f"prev_{s}": f"N {P}" if s == "h" else "N H" for s in states}
        outputs = ()
    operands |= weights_of(cell, keywords.get("transposed", False), P)
    columns = operands["b"]
    optional = {"c0": "N H", "bh": columns, "lengths": "N", "index": "N T", "reset": "N T"}
    optional["projection"] = "P H" if keywords.get("transposed") else "H P"
    operands |= {name: optional[name] for name in by_name}
    return _layer(function, operands, keywords, outputs if last_states else ())


def _loss(name: str, operands: dict[str, str], **options: float) -> Layer:
    """A loss as a layer whose cache is the gradient that comes with it."""

    def forward(*args, **keywords):
        loss, dx = getattr(fastrnn, name)(*args, **options, **keywords)
        return np.asarray(loss), dx

    def backward(dloss, dx, backend=None):
        return dx * dx.dtype.type(dloss)

    return Layer(forward, backward, operands, name, {}, ())


def _sparse(layer: Layer) -> Layer:
    """The same layer, its gradient by way of a RowGradient."""

    def backward(*args, **others):
        rows, values = layer.backward(*args, sparse=True, **others)
        dW = np.zeros(args[-1].shape, values.dtype)
        dW[rows] = values
        return dW

    return layer._replace(backward=backward)


_EMBEDDING = _layer("word_embedding", {"words": "N T", "W": "V W"})
_BAG = _layer("embedding_bag", {"words": "N*T", "bags": "N", "W": "V W"})
_MEANS = _layer("embedding_bag", _BAG.operands, {"mode": "mean"})
_SCORES = {"x": "N T V", "y": "N T"}
_LOOK = {"query": "N H", "keys": "N T H", "values": "N T D"}
_LOOK_AT = {"query": "N H", "keys": "U T H", "values": "U T D"}
LAYERS = {
    # As they are called first: no keyword, no gradient of the last states.
    **{cell: _cell(cell, last_states=False) for cell in COLUMNS},
    **{f"{cell}_step": _cell(f"{cell}_step") for cell in COLUMNS},
    # Every keyword, alone or beside those it could get in the way of.
    "lstm_fico_step": _cell("lstm_step", gates="fico"),
    "lstm_ifgo_step": _cell("lstm_step", gates="ifgo"),
    "lstm_iofg_step": _cell("lstm_step", gates="iofg"),
    "rnn_relu_step": _cell("rnn_step", nonlinearity="relu"),
    "rnn_relu_lengths": _cell("rnn", "lengths", nonlinearity="relu"),
    "rnn_relu_transposed_index_reverse": _cell(
        "rnn", "index", nonlinearity="relu", transposed=True, reverse=True
    ),
    "rnn_relu_reset_initial": _cell("rnn", "reset", nonlinearity="relu", reset_to="initial"),
    "gru_bh_step": _cell("gru_step", "bh"),
    "gru_original_step": _cell("gru_step", reset_after=False),
    "gru_original_bh_step": _cell("gru_step", "bh", reset_after=False),
    "rnn_lengths": _cell("rnn", "lengths"),
    "rnn_reverse": _cell("rnn", reverse=True),
    "rnn_lengths_reverse": _cell("rnn", "lengths", reverse=True),
    "lstm_fico": _cell("lstm", gates="fico"),
    "lstm_ifgo_c0_lengths": _cell("lstm", "c0", "lengths", gates="ifgo"),
    "lstm_iofg_c0_reverse": _cell("lstm", "c0", gates="iofg", reverse=True),
    "lstm_lengths_reverse": _cell("lstm", "lengths", reverse=True),
    "gru_bh_lengths": _cell("gru", "bh", "lengths"),
    "gru_bh_reverse": _cell("gru", "bh", reverse=True),
    "gru_lengths_reverse": _cell("gru", "lengths", reverse=True),
    "gru_original": _cell("gru", reset_after=False),
    "gru_original_bh_lengths_reverse": _cell(
        "gru", "bh", "lengths", reset_after=False, reverse=True
    ),
    "rnn_index": _cell("rnn", "index"),
    "lstm_fico_index_lengths_reverse": _cell(
        "lstm", "lengths", "index", gates="fico", reverse=True
    ),
    "gru_index_lengths": _cell("gru", "lengths", "index"),
    "gru_original_bh_index_reverse": _cell("gru", "bh", "index", reset_after=False, reverse=True),
    "gru_zrn_bh_step": _cell("gru_step", "bh", gates="zrn"),
    "gru_zrn_bh_lengths": _cell("gru", "bh", "lengths", gates="zrn"),
    "gru_original_zrn_bh": _cell("gru", "bh", gates="zrn", reset_after=False),
    "rnn_transposed_step": _cell("rnn_step", transposed=True),
    "lstm_transposed_ifgo_step": _cell("lstm_step", transposed=True, gates="ifgo"),
    "gru_transposed_bh_step": _cell("gru_step", "bh", transposed=True),
    "gru_original_transposed_step": _cell("gru_step", transposed=True, reset_after=False),
    "rnn_transposed_lengths_reverse": _cell("rnn", "lengths", transposed=True, reverse=True),
    "lstm_transposed_ifgo_c0": _cell("lstm", "c0", transposed=True, gates="ifgo"),
    "lstm_transposed_index_lengths": _cell("lstm", "lengths", "index", transposed=True),
    "gru_transposed_bh": _cell("gru", "bh", transposed=True),
    "gru_transposed_zrn_bh_index": _cell("gru", "bh", "index", transposed=True, gates="zrn"),
    "gru_original_transposed_bh": _cell("gru", "bh", transposed=True, reset_after=False),
    "rnn_reset": _cell("rnn", "reset"),
    "rnn_reset_initial_lengths": _cell("rnn", "lengths", "reset", reset_to="initial"),
    "lstm_reset_c0_lengths": _cell("lstm", "c0", "lengths", "reset"),
    "lstm_reset_initial_c0_reverse": _cell("lstm", "c0", "reset", reset_to="initial", reverse=True),
    "lstm_reset_initial_lengths_transposed": _cell(
        "lstm", "lengths", "reset", reset_to="initial", transposed=True
    ),
    "gru_reset_bh_lengths_reverse": _cell("gru", "bh", "lengths", "reset", reverse=True),
    "gru_reset_initial_index": _cell("gru", "index", "reset", reset_to="initial"),
    "gru_original_reset_bh_lengths": _cell("gru", "bh", "lengths", "reset", reset_after=False),
    "gru_original_reset_initial": _cell("gru", "reset", reset_after=False, reset_to="initial"),
    "lstm_projected": _cell("lstm", "projection"),
    "lstm_projected_step": _cell("lstm_step", "projection"),
    "lstm_projected_transposed_ifgo_step": _cell(
        "lstm_step", "projection", transposed=True, gates="ifgo"
    ),
    "lstm_projected_c0_lengths_reverse": _cell("lstm", "c0", "lengths", "projection", reverse=True),
    "lstm_projected_transposed_index_lengths": _cell(
        "lstm", "lengths", "index", "projection", transposed=True
    ),
    "lstm_projected_reset_initial_c0_lengths": _cell(
        "lstm", "c0", "lengths", "reset", "projection", reset_to="initial"
    ),
    "lstm_projected_fico_reset_index": _cell("lstm", "index", "reset", "projection", gates="fico"),
    "mgu_nf_transposed_step": _cell("mgu_step", gates="nf", transposed=True),
    "mgu_nf_lengths_reverse": _cell("mgu", "lengths", gates="nf", reverse=True),
    "mgu_transposed_index_reverse": _cell("mgu", "index", transposed=True, reverse=True),
    "mgu_reset_lengths": _cell("mgu", "lengths", "reset"),
    "mgu_reset_initial": _cell("mgu", "reset", reset_to="initial"),
    "min_gru_positive_step": _cell("min_gru_step", nonlinearity="positive"),
    "min_gru_nz_lengths": _cell("min_gru", "lengths", gates="nz"),
    "min_gru_positive_transposed_reverse": _cell(
        "min_gru", nonlinearity="positive", transposed=True, reverse=True
    ),
    "min_gru_reset_initial_index": _cell("min_gru", "index", "reset", reset_to="initial"),
    "min_gru_positive_reset_lengths": _cell("min_gru", "lengths", "reset", nonlinearity="positive"),
    "min_lstm_positive_transposed_step": _cell(
        "min_lstm_step", nonlinearity="positive", transposed=True
    ),
    "min_lstm_nfi_lengths_reverse": _cell("min_lstm", "lengths", gates="nfi", reverse=True),
    "min_lstm_positive_index_lengths": _cell(
        "min_lstm", "lengths", "index", nonlinearity="positive"
    ),
    "min_lstm_transposed_reset": _cell("min_lstm", "reset", transposed=True),
    "ind_rnn_tanh_step": _cell("ind_rnn_step", nonlinearity="tanh"),
    "ind_rnn_transposed_lengths": _cell("ind_rnn", "lengths", transposed=True),
    "ind_rnn_tanh_index_reverse": _cell("ind_rnn", "index", nonlinearity="tanh", reverse=True),
    "ind_rnn_reset_initial_lengths": _cell("ind_rnn", "lengths", "reset", reset_to="initial"),
    "ind_rnn_tanh_reset_reverse": _cell("ind_rnn", "reset", nonlinearity="tanh", reverse=True),
    "affine": _layer("affine", {"x": "N D", "w": "D M", "b": "M"}),
    "affine_of_images": _layer("affine", {"x": "N T D", "w": "T*D M", "b": "M"}),
    "temporal_affine": _layer("temporal_affine", {"x": "N T D", "w": "D M", "b": "M"}),
    "word_embedding": _EMBEDDING,
    "word_embedding_sparse": _sparse(_EMBEDDING),
    "embedding_bag": _BAG,
    "embedding_bag_mean": _MEANS,
    "embedding_bag_mean_sparse": _sparse(_MEANS),
    "attention": _layer("attention", _LOOK | {"w": "H"}),
    "attention_dot": _layer("attention", _LOOK),
    "attention_index": _layer("attention", _LOOK_AT | {"w": "H", "index": "N"}),
    "attention_dot_index": _layer("attention", _LOOK_AT | {"index": "N"}),
    "softmax_loss": _loss("softmax_loss", {"x": "N V", "y": "N"}),
    "temporal_softmax_loss": _loss("temporal_softmax_loss", _SCORES),
    "temporal_softmax_loss_bool": _loss("temporal_softmax_loss", _SCORES | {"bool_mask": "N T"}),
    "temporal_softmax_loss_real": _loss("temporal_softmax_loss", _SCORES | {"real_mask": "N T"}),
    "temporal_softmax_loss_smoothed": _loss(
        "temporal_softmax_loss", _SCORES | {"bool_mask": "N T"}, label_smoothing=0.3
    ),
}
SEQUENCES = [name for name, layer in LAYERS.items() if layer.function in COLUMNS]


def differentiable(operands: Iterable[str]) -> list[str]:
    """The names of the operands that have a gradient: not indices, lengths and masks."""
    others = ("words", "bags", "y", "lengths", "index", "reset", "bool_mask", "real_mask")
    return [name for name in operands if name not in others]


def draw(layer: Layer, rng, dtype, N: int, T: int, D: int, H: int) -> dict[str, np.ndarray]:
    """Random operands by name, weights over the root of their fan-in, u over 2. M = U = V = H and
    W = D; P is half of H, which with a projection is one more."""
    H += "projection" in layer.operands
    sizes = {"N": N, "T": T, "D": D, "W": D, "P": H // 2, "4": 4, "3": 3, "2": 2, "1": 1}
    sizes |= dict.fromkeys("HMUV", H)

    def operand(name: str, axes: list[str]) -> np.ndarray:
        shape = [math.prod(sizes[factor] for factor in axis.split("*")) for axis in axes]
        if name in ("words", "y", "index"):
            return rng.integers(H, size=shape)  # V or U
        if name == "lengths":
            # No, one and all steps, in as many rows as there are.
            lengths = rng.integers(T + 1, size=N)
            lengths[1:4] = [T, 0, min(1, T)][: max(0, N - 1)]
            return lengths
        if name == "bags":
            # So many words each, of as many as there are; the first has none.
            bags = rng.multinomial(N * T, np.full(N, 1 / N))
            bags[-1] += bags[0] if N > 1 else 0
            bags[: N - 1][:1] = 0
            return bags
        if name in ("bool_mask", "reset"):
            return rng.random(shape) < (0.7 if name == "bool_mask" else 0.3)
        if name == "real_mask":
            return rng.random(shape).astype(dtype)
        fan_in = shape[-1 if layer.keywords.get("transposed") else 0]
        matrix = name in ("Wx", "Wh", "w", "W", "projection")
        fan_in = 4 if name == "u" else fan_in if matrix else 1
        return (1 / math.sqrt(fan_in) * rng.standard_normal(shape)).astype(dtype)

    return {name: operand(name, axes.split()) for name, axes in layer.operands.items()}


def without(layer: Layer, *options: str) -> Layer:
    """The same layer without these operands and keywords."""
    operands = {name: shape for name, shape in layer.operands.items() if name not in options}
    keywords = {name: value for name, value in layer.keywords.items() if name not in options}
    return _layer(layer.function, operands, keywords, layer.last_states)


def upstream(outputs: list[np.ndarray]) -> list[np.ndarray]:
    """Random gradients of the outputs, always the same."""
    rng = np.random.default_rng(1)
    return [np.asarray(rng.standard_normal(out.shape), out.dtype) for out in outputs]


def run(
    layer: Layer,
    operands: dict[str, np.ndarray],
    forward: str | None = None,
    backward: str | None = None,
    arrange: Callable[[np.ndarray], object] = lambda a: a,
    douts: list[np.ndarray | None] | None = None,
) -> dict[str, object]:
    """All that a layer returns, by name: outputs, fields of the cache, gradients.

    forward and backward are backends; arrange is applied to every array before it is passed on;
    douts are those of upstream if not given.
    """
    *outputs, cache = layer.forward(*map(arrange, operands.values()), backend=forward)
    douts = map(arrange, upstream(outputs) if douts is None else douts)
    gradients = layer.backward(*douts, cache, backend=backward or forward)
    gradients = gradients if isinstance(gradients, tuple) else (gradients,)
    fields = cache._asdict() if hasattr(cache, "_asdict") else {"dx": cache}
    return {
        **{f"out_{i}": out for i, out in enumerate(outputs)},
        **{f"cache.{name}": field for name, field in fields.items()},
        **{f"d{n}": dx for n, dx in zip(differentiable(operands), gradients, strict=True)},
    }


def assert_close(actual: np.ndarray, expected: np.ndarray, tolerance: float, name: str = "x"):
    """Same shape and dtype, NaN and infinities in the same places, else equal within tolerance of
    the largest element."""
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), name
    largest = np.max(np.abs(expected), initial=CANCELLED, where=np.isfinite(expected))
    np.testing.assert_allclose(actual, expected, rtol=0, atol=tolerance * largest, err_msg=name)


def assert_same_bits(actual: np.ndarray, expected: np.ndarray, name: str = "x"):
    assert (actual.shape, actual.dtype) == (expected.shape, expected.dtype), name
    assert actual.tobytes() == expected.tobytes(), name


def assert_results(compare: Callable, actual: dict, expected: dict, **keywords: float):
    """Two results of run: the arrays by one of the above, the rest by equality."""
    assert list(actual) == list(expected)
    for name, value in expected.items():
        if isinstance(value, np.ndarray):
            compare(actual[name], value, name=name, **keywords)
        else:
            assert actual[name] == value, name


def call(capsys, *args):
    """Exit code, stdout, stderr of the command fastrnn in this process."""
    with pytest.raises(SystemExit) as exit_:
        cli.main([str(arg) for arg in args])
    captured = capsys.readouterr()
    code = exit_.value.code
    return (0 if code is None else code), captured.out, captured.err


def done(capsys, *args):
    """The output of a command that has to succeed."""
    code, out, err = call(capsys, *args)
    assert code == 0, err
    return out
