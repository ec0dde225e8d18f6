"""Attention beyond what the oracles of all layers see: what is refused, gradients that go on."""

import numpy as np
import pytest

import fastrnn
from fastrnn.layers import attention


def operands(rng, dtype=np.float64):
    """Four queries that look at three things of five places."""
    shapes = {"query": (4, 6), "keys": (3, 5, 6), "values": (3, 5, 7), "w": (6,)}
    given = {name: rng.standard_normal(shape).astype(dtype) for name, shape in shapes.items()}
    return given | {"index": np.array([2, 0, 2, 2])}


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"query": np.zeros((4, 5))}, ValueError, "keys: expected shape (U, L, A) "),
        ({"values": np.zeros((3, 4, 7))}, ValueError, "values: expected shape (U, L, D) "),
        ({"w": np.zeros(5)}, ValueError, "w: expected shape (A,) = (6,), got (5,)"),
        ({"keys": np.zeros((3, 0, 6))}, ValueError, "keys: expected shape (U, L, A) "),
        ({"keys": np.zeros((3, 5, 6), "f")}, TypeError, "keys: expected float64"),
        ({"index": None}, ValueError, "keys: expected shape (N, L, A) with N = 4 like query, got "),
        ({"index": [0, 1, 2]}, ValueError, "index: expected shape (4,), got (3,)"),
        ({"index": [0, 1, 2, 3]}, IndexError, "index: expected"),
        ({"index": [0.0, 1, 2, 2]}, TypeError, "index: expected"),
    ],
    ids=str,
)
def test_operands_that_do_not_fit_are_refused(rng, backend, changed, error, message):
    with pytest.raises(error) as raised:
        fastrnn.attention_forward(**operands(rng) | changed)
    assert str(raised.value).startswith(message)


@pytest.mark.parametrize("scored", ["additive", "dot"])
def test_gradients_go_on_from_those_of_other_queries(rng, backend, dtype, scored):
    given = operands(rng, dtype)
    if scored == "dot":
        given["w"] = None
    *douts, cache = fastrnn.attention_forward(**given)
    expected = fastrnn.attention_backward(*douts, cache)
    onto = np.ones_like(given["keys"]), np.ones_like(given["values"])
    got = attention.backward_onto(*douts, cache, onto)
    tolerance = 50 * np.finfo(dtype).eps
    assert got[1] is onto[0] and got[2] is onto[1]
    for d, from_zero in zip(got[1:3], expected[1:3], strict=True):
        np.testing.assert_allclose(d, 1 + from_zero, rtol=tolerance, atol=tolerance)
    without = attention.backward_onto(*douts, cache, (np.zeros_like(onto[0]), None))
    assert without[2] is None
    for i in (0, 1, *range(3, len(expected))):
        np.testing.assert_array_equal(without[i], expected[i])
    assert not expected[1][1].any()  # nothing looks there


def test_gradients_to_go_on_from_must_fit(rng, backend):
    *douts, cache = fastrnn.attention_forward(**operands(rng))
    dkeys, dvalues = np.zeros((3, 5, 6)), np.zeros((3, 5, 7))
    for onto, error, message in (
        (dkeys, TypeError, "onto: expected dkeys and dvalues, got ndarray"),
        ((dkeys[:2], None), ValueError, r"dkeys: expected shape \(3, 5, 6\), got \(2, 5, 6\)"),
        ((dkeys[:, :, ::-1], None), ValueError, "dkeys: expected a writeable, aligned"),
        ((dkeys, dvalues.astype("f")), TypeError, "dvalues: expected float64"),
        ((None, dvalues), TypeError, "dkeys: expected an ndarray, got NoneType"),
    ):
        with pytest.raises(error, match=message):
            attention.backward_onto(*douts, cache, onto)


def test_scores_of_any_size_are_weighed(backend, dtype):
    """The largest score's exponential is 1."""
    huge = np.array([[[1e4], [-1e4], [0.0]]], dtype)
    _, weights, _ = fastrnn.attention_forward(np.ones((1, 1), dtype), huge, huge)
    np.testing.assert_array_equal(weights, [[1, 0, 0]])
