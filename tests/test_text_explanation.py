"""Which words moved a prediction."""

import numpy as np
import pytest

from fastrnn.text import Training, explanation
from fastrnn.text.explanation import as_text, explain

TEXTS = ["good film", "bad film", "a good plot", "what a bad plot", "so good", "so bad"] * 20
Y = np.array([1, 0, 1, 0, 1, 0] * 20)
QUICK = {"embedding_dim": 6, "hidden_dim": 6, "epochs": 6, "learning_rate": 0.05, "dropout": 0.0}


@pytest.fixture(scope="module", params=["bow", "avg", "lstm", "bow 2", "avg 3", "several"])
def model(request):
    name, _, ngrams = request.param.partition(" ")
    y = np.stack([Y, np.arange(120) % 2], axis=1) if name == "several" else Y
    given = QUICK | {"model": "avg" if name == "several" else name, "ngrams": int(ngrams or 1)}
    return Training(given, TEXTS, y, ["neg", "pos"]).run()


def without(model, tokens, i):
    """The probabilities with another word in token i's place, or of equal ones in a bag."""
    bag = model.settings["model"] == "bow"
    left = [
        "<unk>"
        if j == i or (bag and model.vocabulary.ngrams == 1 and token == tokens[i])
        else token
        for j, token in enumerate(tokens)
    ]
    return model.predict_proba([" ".join(left)])[0]


@pytest.mark.parametrize("text", ["what a good good film", "good", "a never seen bad", ""])
def test_what_a_word_moves_is_what_is_lost_without_it(model, text):
    said = explain(model, text)
    assert said.tokens == text.split()
    np.testing.assert_allclose(said.proba, model.predict_proba([text])[0], rtol=1e-6)
    assert said.moved.shape == (len(said.tokens), 2)
    if model.settings["model"] == "bow" and model.vocabulary.ngrams > 1 and "good good" in text:
        return  # what is left out then no text can say
    for i, moved in enumerate(said.moved):
        expected = said.proba - without(model, said.tokens, i)
        np.testing.assert_allclose(moved, expected, atol=1e-6)


def test_the_word_that_decides_moves_most(model):
    c = 0 if model.multilabel else 1
    said = explain(model, "what a good plot")
    assert said.strongest(c, 9)[0][0] == "good"
    assert len(said.strongest(c, 2)) == 2
    (first, *words) = as_text(said, "pos", c, 2, " (true: neg)").splitlines()
    assert first == f"pos {said.proba[c]:.4f} (true: neg)"
    assert words[0].endswith("  good") and words[0].startswith("  +0.")


def test_of_a_long_text_neighbours_are_left_out_together(model, monkeypatch):
    text = "a good plot so " * 5
    whole = explain(model, text)
    monkeypatch.setattr(explanation, "WORDS", 7)  # one after the other
    np.testing.assert_allclose(explain(model, text).moved, whole.moved, atol=1e-6)
    monkeypatch.setattr(explanation, "PIECES", 6)
    said = explain(model, text)
    assert len(said.tokens) == len(said.moved) == 20
    pieces = np.flatnonzero((np.diff(said.moved, axis=0) != 0).any(axis=1))
    assert len(pieces) <= 5


def test_work_for_a_long_text_is_bounded(model, monkeypatch):
    """Fewer pieces, each of which is left out as a whole."""
    monkeypatch.setattr(explanation, "READ", 4000)
    monkeypatch.setattr(explanation, "FEWEST", 3)
    watched = []

    def watch(items):
        watched.extend(items)
        return items

    for L, pieces in ((50, 50), (200, 20), (4000, 3)):
        said = explain(model, "bad " + "film " * (L - 1), watch=watch)
        at = np.arange(L) * pieces // L
        assert len(np.unique(said.moved[:, 0])) <= pieces
        assert all(len(np.unique(said.moved[at == k], axis=0)) == 1 for k in range(pieces))
        assert watched.pop(0) == -1 and watched == sorted(watched) and max(watched, default=0) < L
        watched.clear()
