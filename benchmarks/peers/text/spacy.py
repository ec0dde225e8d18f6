"""spaCy: a blank pipeline whose words are what white space separates, and TextCatBOW."""

from functools import partial

import numpy as np
import spacy
from spacy.language import Language
from spacy.tokenizer import Tokenizer
from spacy.training import Example
from spacy.util import minibatch

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.peers import Idiom
from fastrnn.benchmarks.texts import CLASSES, some_labelled

MODEL = {
    "@architectures": "spacy.TextCatBOW.v3",
    "exclusive_classes": True,
    "ngram_size": 1,
    "no_output_layer": False,
}
# With which an epoch is enough; with the defaults, 0.001 and 100 or so, it takes three.
LEARNING_RATE, BATCH = 0.01, 256


def build(case: Case, operands: dict[str, object]) -> dict[str, Idiom]:
    """The bag of words, trained and asked; its numbers are float32."""
    if case.cell != "bow" or case.dtype != "float32":
        return {}
    return {"": (_fit if case.direction == "fit" else _predict)(case, **operands)}


def _fit(case: Case, texts, y, dev_texts, dev_y) -> Idiom:
    def collect(model: Language) -> dict[str, np.ndarray]:
        found = [int(max(doc.cats, key=doc.cats.get)) for doc in model.pipe(dev_texts)]
        return {"accuracy": np.mean(found == dev_y)}

    return Idiom(partial(_train, texts, y), collect)


def _predict(case: Case, text: str) -> Idiom:
    """By a model of its own, which hashes its words: ours cannot be put into it."""
    model = _train(*some_labelled(case))
    return Idiom(lambda: model(text).cats, None)


def _train(texts, y) -> Language:
    model = spacy.blank("xx")
    model.tokenizer = Tokenizer(model.vocab)
    model.add_pipe("textcat", config={"model": MODEL})
    cats = {label: {str(other): float(other == label) for other in CLASSES} for label in CLASSES}
    examples = [
        Example.from_dict(model.make_doc(text), {"cats": cats[label]})
        for text, label in zip(texts, np.asarray(y).tolist(), strict=True)
    ]
    optimizer = model.initialize(lambda: examples)
    optimizer.learn_rate = LEARNING_RATE
    for batch in minibatch(examples, BATCH):
        model.update(batch, sgd=optimizer)
    return model
