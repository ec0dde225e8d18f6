"""ONNX Runtime on the CPU: the recurrent classifier's prediction as one graph, in float32."""

import numpy as np
from onnx import TensorProto, helper

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.graphs import serialized, weights
from fastrnn.benchmarks.peers.onnxruntime import start
from fastrnn.benchmarks.texts import CLASSES, classifier


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """Prediction alone; no float64."""
    if case.dtype != "float32" or case.direction != "predict" or not case.H:
        return {}
    return {"": _predict(case, **operands)}


def _predict(case: Case, text: str) -> Idiom:
    session, index = start(_model(case)), classifier(case).vocabulary.index

    def run() -> np.ndarray:
        words = np.array([[index.get(word, 0)] for word in text.split()], np.int64)
        return session.run(None, {"words": words})[0]

    return Idiom(run, lambda proba: {"probabilities": proba})


def _model(case: Case) -> bytes:
    """words (T, N) -> probabilities (N, C)."""
    ours = classifier(case).networks[0].params
    recurrent = weights(case.cell, ours["Wx_f"], ours["Wh_f"], ours["b_f"])
    constants = {"E": ours["W_embed"], **recurrent, "V": ours["W"], "c": ours["b"]}
    axes = {"axes": np.array([0])}
    nodes = [
        helper.make_node("Gather", ["E", "words"], ["x"]),
        helper.make_node(case.cell.upper(), ["x", *recurrent], ["", "hT"], hidden_size=case.H),
        helper.make_node("Squeeze", ["hT", *axes], ["h"]),
        helper.make_node("Gemm", ["h", "V", "c"], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["probabilities"], axis=1),
    ]
    inputs = [helper.make_tensor_value_info("words", TensorProto.INT64, ["T", "N"])]
    output = helper.make_tensor_value_info("probabilities", TensorProto.FLOAT, ["N", len(CLASSES)])
    return serialized(nodes, inputs, [output], constants | axes)
