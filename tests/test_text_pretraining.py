"""Pre-training of recurrent classifiers as language models."""

import numpy as np
import pytest
from util import CALCULUS, TWIN, assert_close, assert_same_bits

from fastrnn import RowGradient, lstm_forward
from fastrnn.gradcheck import eval_numerical_gradient
from fastrnn.text import TextClassifier, Training, pretraining
from fastrnn.text.encoders import Recurrent
from fastrnn.text.pretraining import LanguageModel, pieces
from fastrnn.text.vocabulary import Sentences

V, W, H = 9, 3, 4
COUNTS = np.arange(1, V + 1)
LENGTHS = [3, 1, 0, 6, 2, 5]


def sentences_of(lengths, rng):
    """Of random words, unknown ones among them."""
    return Sentences(rng.integers(0, V, size=sum(lengths)), np.cumsum([0, *lengths]))


def model_of(cell, rng, *, dtype=np.float64, backend=None, **options):
    """A language model whose parameters are all random."""
    encoder = Recurrent(cell, W, H, **options)
    params = {name: w.astype(dtype) for name, w in encoder.init(V, rng).items()}
    model = LanguageModel(encoder, params, COUNTS, dropout=0.3, backend=backend, seed=1)
    for w in model.params.values():
        w += rng.standard_normal(w.shape) / 2
    return model


def dense(grads, params):
    full = {}
    for name, dw in grads.items():
        full[name] = dw
        if isinstance(dw, RowGradient):
            full[name] = np.zeros_like(params[name])
            full[name][dw.rows] = dw.values
    return full


# ---- the language model --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "bidirectional"), [("lstm", True), ("gru", False), ("ind_rnn", False)]
)
def test_gradients_are_the_derivatives_of_the_loss(cell, bidirectional, backend, rng, monkeypatch):
    monkeypatch.setattr(pretraining, "AT_ONCE", 4)
    model = model_of(cell, rng, bidirectional=bidirectional, embedding_dropout=0.3)
    sentences = sentences_of(LENGTHS, rng)

    def loss(_=None):
        return model.loss(sentences, rng=np.random.default_rng(2))

    grads = dense(loss()[1], model.params)
    assert grads.keys() == model.params.keys()
    for name, w in model.params.items():
        assert_close(grads[name], eval_numerical_gradient(lambda _: loss()[0], w), CALCULUS, name)


def test_loss_is_by_definition(backend, rng):
    """A sentence and a word at a time."""
    model, sentences = model_of("lstm", rng, bidirectional=True), sentences_of(LENGTHS, rng)
    params, share, losses, count = model.params, COUNTS / (COUNTS.sum() + 1), [], 0
    for d, step in (("f", 1), ("b", -1)):
        pairs = []
        for i in range(len(LENGTHS)):
            words = sentences.words[sentences.first[i] : sentences.first[i + 1]][::step]
            weights = (params[f"{name}_{d}"] for name in ("Wx", "Wh", "b"))
            h, _ = lstm_forward(params["W_embed"][words][None], np.zeros((1, H)), *weights)
            pairs += [(h[0, t], words[t + 1]) for t in range(len(words) - 1) if words[t + 1]]
        candidates = sorted({word for _, word in pairs})
        there = np.log(1 - (1 - share[candidates]) ** len(pairs))
        for state, word in pairs:
            scores = params["W_embed"][candidates] @ (state @ params[f"bring_{d}"])
            scores += params["b_words"][candidates] - there
            losses.append(np.logaddexp.reduce(scores) - scores[candidates.index(word)])
        count += len(pairs)
    assert model.loss(sentences)[0] == pytest.approx(sum(losses) / count, rel=1e-12)


def test_backends_give_the_same(dtype, rng):
    sentences, results = sentences_of(LENGTHS, rng), []
    for backend in ("numpy", "cython"):
        model = model_of("gru", np.random.default_rng(1), dtype=dtype, backend=backend)
        loss, grads = model.loss(sentences, rng=np.random.default_rng(2))
        results.append((loss, dense(grads, model.params)))
    (loss, grads), (other_loss, others) = results
    assert other_loss == pytest.approx(loss, rel=TWIN[dtype.name])
    for name, dw in grads.items():
        assert dw.dtype == dtype
        assert_close(others[name], dw, TWIN[dtype.name], name)


def test_nothing_to_say_has_no_gradient(backend, rng):
    model = model_of("lstm", rng)
    loss, grads = model.loss(Sentences(np.array([1, 2, 0]), np.array([0, 1, 3, 3])))
    assert loss == 0
    assert not any(dw.any() for dw in dense(grads, model.params).values())


def test_frozen_vectors_stay(rng):
    model = model_of("lstm", rng, tuned=False)
    assert model.loss(sentences_of(LENGTHS, rng))[1].keys() == model.params.keys() - {"W_embed"}


def test_texts_are_read_in_pieces(monkeypatch, rng):
    monkeypatch.setattr(pretraining, "LONGEST", 2)
    sentences = sentences_of([3, 0, 4, 1], rng)
    assert pieces(sentences).lengths.tolist() == [2, 1, 2, 2, 1]
    assert pieces(sentences).words is sentences.words


# ---- training ------------------------------------------------------------------------------------

TEXTS, Y = ["good film", "bad film", "a good one", "a bad one"] * 5, np.array([1, 0, 1, 0] * 5)
UNLABELLED = ["so fine a film", "so awful a film", "", "fine"] * 5
GIVEN = {"embedding_dim": 4, "hidden_dim": 5, "epochs": 2, "pretrain_epochs": 3}


def training_of(given=None, unlabelled=UNLABELLED, **options):
    return Training(GIVEN | (given or {}), TEXTS, Y, [0, 1], unlabelled=unlabelled, **options)


@pytest.mark.parametrize("given", [{}, {"model": "gru", "bidirectional": True, "ensemble": 2}])
def test_networks_start_from_the_language_model(given):
    training = training_of(given)
    assert "awful" in training.vocabulary.index
    before = {name: w.copy() for name, w in training.pretraining.params.items()}
    model = training.run()
    losses = training.pretraining.loss_history
    assert len(losses) == 3 and losses[-1] < losses[0]
    learnt = training.pretraining.params
    assert all((learnt[name] != w).any() for name, w in before.items())
    longer = training_of(given | {"epochs": 1, "learning_rate": 1e-30}).run()
    for network in longer.networks:
        for name in learnt.keys() & network.params.keys():
            assert_same_bits(network.params[name], learnt[name], name)
    again = training_of(given).run()
    for network, twin in zip(model.networks, again.networks, strict=True):
        for name, w in network.params.items():
            assert_same_bits(twin.params[name], w, name)


@pytest.mark.parametrize("iteration", [2, 4])
def test_interrupted_training_goes_on_with_the_same_bits(iteration, tmp_path):
    """Three iterations are the language model's."""
    expected, seen = training_of().run(), []

    def interrupt(solver):
        seen.append(solver)
        if len(seen) == iteration:
            solver.save()
            raise InterruptedError

    with pytest.raises(InterruptedError):
        training_of(folder=tmp_path).run(interrupt)
    done = training_of(folder=tmp_path).run().networks[0].params
    for name, w in expected.networks[0].params.items():
        assert_same_bits(done[name], w, name)
    with pytest.raises(ValueError, match="of another training"):
        training_of(folder=tmp_path, unlabelled=UNLABELLED[::-1]).run()


@pytest.mark.parametrize("model", ["bow", "avg"])
def test_what_reads_no_order_is_not_pretrained(model):
    with pytest.raises(ValueError, match=f"unlabelled: {model} reads no order"):
        training_of({"model": model})


def test_estimator_is_pretrained_and_saved(tmp_path):
    options = {"hidden_dim": 8, "epochs": 2, "pretrain_epochs": 4, "random_state": 0}
    clf = TextClassifier("gru", **options).fit(TEXTS, Y, unlabelled=UNLABELLED)
    assert clf.model_.settings["pretrain_epochs"] == 4
    clf.save(tmp_path)
    proba = clf.predict_proba(UNLABELLED)
    np.testing.assert_array_equal(TextClassifier.load(tmp_path).predict_proba(UNLABELLED), proba)
    alone = TextClassifier("gru", **options).fit(TEXTS, Y)
    assert "awful" not in alone.model_.vocabulary.index
    with pytest.raises(ValueError, match="X: expected strings, got int at 0"):
        clf.fit(TEXTS, Y, unlabelled=[1])
