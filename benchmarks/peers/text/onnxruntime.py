"""ONNX Runtime on the CPU: the recurrent classifier's prediction as one graph, in float32."""

import numpy as np

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.peers.onnxruntime import start
from fastrnn.benchmarks.texts import classifier
from fastrnn.text.onnx import serialized


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """Prediction alone; no float64."""
    if case.dtype != "float32" or case.direction != "predict" or not case.H:
        return {}
    return {"": _predict(case, **operands)}


def _predict(case: Case, text: str) -> Idiom:
    model = classifier(case)
    session = start(serialized(model.networks, lengths=False, batch_first=False))
    index = model.vocabulary.index

    def run() -> np.ndarray:
        words = np.array([[index.get(word, 0)] for word in text.split()], np.int64)
        return session.run(None, {"words": words})[0]

    return Idiom(run, lambda proba: {"probabilities": proba})
