"""scikit-learn: CountVectorizer(binary=True) and LogisticRegression in a pipeline."""

from functools import partial

import numpy as np
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.texts import CLASSES, classifier


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """The bag of words, trained and asked."""
    if case.cell != "bow":
        return {}
    return {"": (_fit if case.direction == "fit" else _predict)(case, **operands)}


def _fit(case: Case, texts, y, dev_texts, dev_y) -> Idiom:
    def run() -> Pipeline:
        return make_pipeline(CountVectorizer(binary=True), LogisticRegression()).fit(texts, y)

    return Idiom(run, lambda model: {"accuracy": np.array(model.score(dev_texts, dev_y))})


def _predict(case: Case, text) -> Idiom:
    """The weights are put where fit would put them."""
    ours = classifier(case)
    W, b = (ours.networks[0].params[name] for name in ("W_embed", "b"))
    regression = LogisticRegression()
    regression.classes_ = np.array(CLASSES)
    regression.coef_ = (W[1:, 1] - W[1:, 0])[None]  # there is no unknown word
    regression.intercept_ = b[1:] - b[:1]
    counter = CountVectorizer(binary=True, vocabulary=ours.vocabulary.words[1:])
    model = make_pipeline(counter, regression)
    return Idiom(partial(model.predict_proba, [text]), lambda proba: {"probabilities": proba})
