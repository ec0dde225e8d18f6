"""Classifiers as ONNX models: from word indices to probabilities.

Letters: N sentences, T words, W word vector, H hidden, S directions, F features, C classes.
"""

from collections.abc import Sequence

import numpy as np

from fastrnn.nn import single
from fastrnn.nn.graphs import Graph
from fastrnn.text.encoders import Bag, Params, Recurrent
from fastrnn.text.networks import Network
from fastrnn.weights import Layer


def serialized(
    networks: Sequence[Network],
    *,
    lengths: bool = True,
    batch_first: bool = True,
    temperature: float = 1.0,
) -> bytes:
    """A model of opset 14 that takes words, int64, and returns probabilities (N, C), in the
    networks' dtype.

    Inputs: networks, whose probabilities are averaged; lengths, whether the model takes lengths
    (N,), int32, of its sentences, or all have T words; batch_first, whether words are (N, T) or
    (T, N); temperature, by which the logarithms of the odds are divided.
    """
    graph, words, many = Graph(), "words", len(networks) > 1
    if batch_first:
        words = graph.add("Transpose", words, perm=[1, 0])
    output, members, multilabel = "probabilities", [], networks[0].multilabel
    last = {"outputs": [output]}
    for network in networks:
        scores = _scores(graph, network, words, "lengths" if lengths else "")
        named = {} if many or temperature != 1 else last
        if not multilabel:
            named["axis"] = 1
        members.append(graph.add("Sigmoid" if multilabel else "Softmax", scores, **named))
    proba, b = members[0], networks[0].params["b"]
    if many:
        proba = graph.add("Mean", *members, **({} if temperature != 1 else last))
    if temperature != 1:
        power = np.array(1 / temperature, b.dtype)
        graph.add("Div", *_odds(graph, proba, power, multilabel), **last)
    inputs = {"words": (np.int64, ("N", "T") if batch_first else ("T", "N"))}
    inputs |= {"lengths": (np.int32, ("N",))} if lengths else {}
    return graph.serialized(inputs, {output: (b.dtype, ("N", len(b)))})


def _odds(graph: Graph, proba: str, power: np.ndarray, multilabel: bool) -> tuple[str, str]:
    """Of each class, and what to divide them by, as calibration.tempered does."""
    if multilabel:
        odds = graph.add("Pow", proba, power)
        others = graph.add("Pow", graph.add("Sub", np.ones_like(power), proba), power)
        return odds, graph.add("Add", odds, others)
    likeliest = graph.add("ReduceMax", proba, axes=[1], keepdims=1)
    odds = graph.add("Pow", graph.add("Div", proba, likeliest), power)
    return odds, graph.add("ReduceSum", odds, np.array([1]), keepdims=1)


def _scores(graph: Graph, network: Network, words: str, lengths: str) -> str:
    encoder, params = network.encoder, network.params
    x = graph.add("Gather", params["W_embed"], words)
    if isinstance(encoder, Bag):
        if lengths:
            x = _masked(graph, x, lengths, params["b"].dtype.type(0), [2])
        features = _over_time(graph, encoder.mode, x, lengths, params["b"].dtype)
    else:
        features = _states(graph, encoder, params, x, lengths)
    if network.linear:
        return graph.add("Gemm", features, params["W"], params["b"])
    return graph.add("Add", features, params["b"])


def _states(graph: Graph, encoder: Recurrent, params: Params, x: str, lengths: str) -> str:
    """The states of a recurrent encoder, pooled (N, F)."""
    layers = [Layer(*single.weights(params, f"_{d}")[:3]) for d in encoder.directions]
    options = encoder.form.options
    y, hT, *_ = graph.recurrent(encoder.cell, x, layers, options=options, lengths=lengths)
    dtype, pooled = params["b"].dtype, {"last": hT}
    if "mean" in encoder.poolings:
        pooled["mean"] = _over_time(graph, "mean", y, lengths, dtype)
    if "max" in encoder.poolings:
        if lengths:  # a sentence without words has zeros
            some = graph.add("Max", lengths, np.array(1, np.int32))
            y = _masked(graph, y, some, dtype.type(-np.inf), [1, 3])
        pooled["max"] = graph.add("ReduceMax", y, axes=[0], keepdims=0)
    parts = [
        graph.add("Gather", pooled[kind], np.array(d), axis=0)  # of (S, N, H)
        for d in range(len(layers))
        for kind in encoder.poolings
    ]
    return parts[0] if len(parts) == 1 else graph.add("Concat", *parts, axis=1)


def _over_time(graph: Graph, mode: str, a: str, lengths: str, dtype: np.dtype) -> str:
    """The sum or the mean of an array (T, ..., N, W) whose elements past the lengths are 0."""
    if mode == "mean" and not lengths:
        return graph.add("ReduceMean", a, axes=[0], keepdims=0)
    total = graph.add("ReduceSum", a, np.array([0]), keepdims=0)
    if mode == "sum":
        return total
    some = graph.add("Max", lengths, np.array(1, np.int32))
    count = graph.add("Unsqueeze", graph.cast(some, dtype), np.array([1]))
    return graph.add("Div", total, count)


def _masked(graph: Graph, a: str, lengths: str, value: np.floating, axes: Sequence[int]) -> str:
    """An array whose elements past the lengths are replaced; axes, those that it has beside T and
    N."""
    T = graph.add("Gather", graph.add("Shape", a), np.array(0))
    steps = graph.add("Range", np.array(0), T, np.array(1))
    steps = graph.add("Unsqueeze", steps, np.array([1]))
    within = graph.add("Less", steps, graph.cast(lengths, np.int64))  # (T, N)
    return graph.add("Where", graph.add("Unsqueeze", within, np.array(axes)), a, value)
