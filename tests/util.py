"""Tolerances with their reasons, and the table of layers that the oracles walk over."""

import math
from collections.abc import Callable, Iterable
from functools import partial
from typing import NamedTuple

import numpy as np

import fastrnn

FLOATS = ("float32", "float64")

# Two correct implementations differ in the order of their sums: by 30 roundings of the largest
# element over 4 steps of 600 terms, by 130 where a sum of few terms cancels.
TWIN = {dtype: 200 * float(np.finfo(dtype).eps) for dtype in FLOATS}
# The same sums in the same order.
EXACT = 0
# Central differences in float64: the outputs' roundings over the distance of the points, 1e-10, and
# the derivative along a random direction may be a ten-thousandth of them.
CALCULUS = 1e-5
# The same element by element, of the largest one: not a small fraction.
ELEMENT = 1e-8
# Of sigmoid and tanh, in units in the last place; largest seen: 2.48 and 2.54.
ULP = {"float32": 2.5, "float64": 3.0}
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
    gradients of the operands that have one.
    """

    forward: Callable[..., tuple]
    backward: Callable[..., object]
    operands: dict[str, str]


def _layer(name: str, operands: dict[str, str], **keywords: str) -> Layer:
    forward, backward = (getattr(fastrnn, f"{name}_{way}") for way in ("forward", "backward"))
    return Layer(partial(forward, **keywords), backward, operands)


def _cell(name: str, G: int, states: str, **keywords: str) -> dict[str, Layer]:
    weights = {"Wx": f"D {G}*H", "Wh": f"H {G}*H", "b": f"{G}*H"}
    step = {"x": "N D"} | {f"prev_{state}": "N H" for state in states} | weights
    sequence = {"x": "N T D", "h0": "N H"} | weights
    key = "_".join([name, *keywords.values()])
    return {
        key: _layer(name, sequence, **keywords),
        f"{key}_step": _layer(f"{name}_step", step, **keywords),
    }


def _loss(name: str, operands: dict[str, str]) -> Layer:
    """A loss as a layer whose cache is the gradient that comes with it."""

    def forward(*args, **keywords):
        loss, dx = getattr(fastrnn, name)(*args, **keywords)
        return np.asarray(loss), dx

    def backward(dloss, dx, backend=None):
        return dx * dx.dtype.type(dloss)

    return Layer(forward, backward, operands)


_SCORES = {"x": "N T V", "y": "N T"}
LAYERS = {
    **_cell("rnn", 1, "h"),
    **_cell("lstm", 4, "hc"),
    **_cell("lstm", 4, "hc", gates="fico"),
    **_cell("lstm", 4, "hc", gates="ifgo"),
    **_cell("lstm", 4, "hc", gates="iofg"),
    "affine": _layer("affine", {"x": "N D", "w": "D M", "b": "M"}),
    "affine_of_images": _layer("affine", {"x": "N T D", "w": "T*D M", "b": "M"}),
    "temporal_affine": _layer("temporal_affine", {"x": "N T D", "w": "D M", "b": "M"}),
    "word_embedding": _layer("word_embedding", {"words": "N T", "W": "V W"}),
    "softmax_loss": _loss("softmax_loss", {"x": "N V", "y": "N"}),
    "temporal_softmax_loss": _loss("temporal_softmax_loss", _SCORES),
    "temporal_softmax_loss_bool": _loss("temporal_softmax_loss", _SCORES | {"bool_mask": "N T"}),
    "temporal_softmax_loss_real": _loss("temporal_softmax_loss", _SCORES | {"real_mask": "N T"}),
}
CELLS = ("rnn", "lstm")


def differentiable(operands: Iterable[str]) -> list[str]:
    """The names of the operands that have a gradient, which indices and masks have not."""
    return [name for name in operands if name not in ("words", "y", "bool_mask", "real_mask")]


def draw(layer: Layer, rng, dtype, N: int, T: int, D: int, H: int) -> dict[str, np.ndarray]:
    """Random operands by name, weights over the root of their fan-in. M = V = H and W = D."""
    sizes = {"N": N, "T": T, "D": D, "H": H, "M": H, "V": H, "W": D, "4": 4, "1": 1}

    def operand(name: str, axes: list[str]) -> np.ndarray:
        shape = [math.prod(sizes[factor] for factor in axis.split("*")) for axis in axes]
        if name in ("words", "y"):
            return rng.integers(sizes["V"], size=shape)
        if name == "bool_mask":
            return rng.random(shape) < 0.7
        if name == "real_mask":
            return rng.random(shape).astype(dtype)
        scale = 1 / math.sqrt(shape[0]) if name in ("Wx", "Wh", "w", "W") else 1
        return (scale * rng.standard_normal(shape)).astype(dtype)

    return {name: operand(name, axes.split()) for name, axes in layer.operands.items()}


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
) -> dict[str, object]:
    """All that a layer returns, by name: outputs, fields of the cache, gradients.

    forward and backward are backends; arrange is applied to every array before it is passed on.
    """
    *outputs, cache = layer.forward(*map(arrange, operands.values()), backend=forward)
    douts = map(arrange, upstream(outputs))
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
    largest = np.max(np.abs(expected), initial=0, where=np.isfinite(expected))
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
