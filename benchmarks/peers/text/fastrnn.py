"""fastrnn itself, through fastrnn.text."""

from functools import partial

import numpy as np

import fastrnn
from fastrnn.backends.caches import RowGradient
from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.texts import BATCH, CLASSES, classifier
from fastrnn.text import TextModel, Training, load_vectors
from fastrnn.text.training import Examples, TextSolver


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """The compiled kernels."""
    fastrnn.set_backend("cython")
    return functions(case, operands)


def functions(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """The functions of the current backend."""
    kinds = {"training": _training, "fit": _fit, "predict": _predict, "load": _load}
    return {"": kinds[case.direction](case, **operands)}


def _training(case: Case, sentences, y) -> Idiom:
    def start() -> TextSolver:
        network = classifier(case).networks[0]
        options = {"num_epochs": 0, "batch_size": BATCH, "verbose": False}
        return TextSolver(network, Examples(sentences, y), **options)

    solver = start()

    def epoch() -> None:
        solver.num_epochs += 1
        solver.train()

    def collect(_: None) -> dict[str, np.ndarray]:
        fresh = start()
        loss, grads = fresh.loss(np.arange(BATCH))
        dense = {name: _dense(dw, fresh.params[name]) for name, dw in grads.items()}
        return {"loss": np.array(loss), **dense}

    return Idiom(epoch, collect)


def _dense(dw: np.ndarray | RowGradient, like: np.ndarray) -> np.ndarray:
    if not isinstance(dw, RowGradient):
        return dw
    full = np.zeros_like(like)
    full[dw.rows] = dw.values
    return full


def _fit(case: Case, texts, y, dev_texts, dev_y) -> Idiom:
    """As TextClassifier does by default, which would need scikit-learn."""
    settings = {"model": case.cell, "dtype": case.dtype, "embedding_dim": case.D or 1}

    def run() -> TextModel:
        return Training(settings, texts, y, CLASSES).run()

    def collect(model: TextModel) -> dict[str, np.ndarray]:
        right = model.predict_proba(dev_texts).argmax(axis=1) == dev_y
        return {"accuracy": right.mean()}

    return Idiom(run, collect)


def _predict(case: Case, text) -> Idiom:
    run = partial(classifier(case).predict_proba, [text])
    return Idiom(run, lambda proba: {"probabilities": proba})


def _load(case: Case, path, words) -> Idiom:
    run = partial(load_vectors, path, words, dtype=case.dtype)
    return Idiom(run, lambda loaded: {"vectors": loaded.vectors})
