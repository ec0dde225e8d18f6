"""Text classifiers inside: vocabulary, ragged batches, networks by the three oracles, training,
files."""

import json
import math
import os
import subprocess
import sys
import tracemalloc

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence
from util import ELEMENT, FLOATS, TWIN, assert_close, assert_same_bits

import fastrnn
from fastrnn import Options, RowGradient, storage
from fastrnn.gradcheck import eval_numerical_gradient
from fastrnn.solver import CHECKPOINT
from fastrnn.text import TextModel, Training
from fastrnn.text.embeddings import Report, Vectors
from fastrnn.text.encoders import dropout
from fastrnn.text.model import DESCRIPTION, build, probabilities, ready
from fastrnn.text.networks import Network
from fastrnn.text.settings import SETTINGS, complete
from fastrnn.text.training import (
    BUCKET,
    FEWEST_UNITS,
    Examples,
    TextSolver,
    class_weights,
    initial_vectors,
)
from fastrnn.text.vocabulary import UNKNOWN, Sentences, Vocabulary, as_sets
from fastrnn.weights import ORDERS, reorder

V, C, W, H = 9, 3, 3, 4
# Whatever the tuned defaults are.
PLAIN = {"pooling": "last", "bidirectional": False, "ngrams": 1, "min_count": 1}
PLAIN |= dict.fromkeys(["dropout", "embedding_dropout", "word_dropout", "weight_decay"], 0.0)
SMALL = PLAIN | {"embedding_dim": W, "hidden_dim": H, "embedding_scale": 1.0}
MINIMAL = "mgu", "min_gru", "min_lstm", "ind_rnn"
NORMALISED = "layer_norm_lstm", "layer_norm_gru"
NETWORKS = {
    "bow": {"model": "bow"},
    "avg": {"model": "avg"},
    "rnn": {"model": "rnn"},
    "lstm": {"model": "lstm"},
    "gru": {"model": "gru"},
    **{name: {"model": name} for name in (*MINIMAL, *NORMALISED)},
    "min_gru_both": {"model": "min_gru", "bidirectional": True, "pooling": "last+max"},
    "rnn_max": {"model": "rnn", "pooling": "max"},
    "lstm_both": {"model": "lstm", "bidirectional": True},
    "gru_mean": {"model": "gru", "pooling": "mean"},
    "gru_both_max_last": {"model": "gru", "bidirectional": True, "pooling": "max+last"},
    "lstm_both_last_mean_max": {
        **{"model": "lstm", "bidirectional": True},
        "pooling": "last+mean+max",
    },
}
OF_TORCH = [name for name, own in NETWORKS.items() if own["model"] in ("rnn", "lstm", "gru")]
every_network = pytest.mark.parametrize("name", NETWORKS)


def network_of(name, **others):
    """A network of NETWORKS whose parameters are all random."""
    network = build(complete(SMALL | {"dtype": "float64"} | NETWORKS[name] | others), V, C, seed=0)
    rng = np.random.default_rng(1)
    for w in network.params.values():
        w[...] = rng.standard_normal(w.shape) / 2
    return network


def ragged(sentences):
    """Lists of word indices as Sentences."""
    first = np.cumsum([0, *map(len, sentences)])
    return Sentences(np.array([word for s in sentences for word in s], np.intp), first)


def draw_sentences(lengths, rng, lowest=0):
    return ragged([rng.integers(lowest, V, size=n).tolist() for n in lengths])


def dense(gradient, w):
    """A gradient as an array like its parameter."""
    if not isinstance(gradient, RowGradient):
        return gradient
    full = np.zeros_like(w)
    full[gradient.rows] = gradient.values
    return full


def dense_gradients(network, *arguments):
    loss, grads = network.loss(*arguments)
    return loss, {name: dense(dw, network.params[name]) for name, dw in grads.items()}


# ---- words ---------------------------------------------------------------------------------------


def test_vocabulary_has_the_most_frequent_words_first():
    vocabulary = Vocabulary.of(["b a c", "", "c b", f"c {UNKNOWN} d"])
    assert vocabulary.words == [UNKNOWN, "c", "b", "a", "d"]
    assert len(vocabulary) == 5
    assert Vocabulary.of(["b a c", "c b"], min_count=2).words == [UNKNOWN, "b", "c"]
    assert Vocabulary.of([]).words == [UNKNOWN]


def test_texts_become_indices_and_unknown_words_zero():
    sentences = Vocabulary([UNKNOWN, "a", "b"]).encode(["b  a\tb", "", f"x {UNKNOWN} A", "a"])
    assert sentences.words.tolist() == [2, 1, 2, 0, 0, 0, 1]
    assert sentences.lengths.tolist() == [3, 0, 3, 1]
    assert sentences.words.dtype == sentences.first.dtype == np.intp


def test_words_tokenizer_lowers_and_cuts_punctuation_off():
    vocabulary = Vocabulary.of(["Don't STOP, café!"], tokenizer="words")
    assert vocabulary.words == [UNKNOWN, "don't", "stop", ",", "café", "!"]


def test_runs_of_tokens_are_words_too():
    vocabulary = Vocabulary.of(["a b c"], ngrams=3)
    assert set(vocabulary.words) == {UNKNOWN, "a", "b", "c", "a b", "b c", "a b c"}
    sentences = vocabulary.encode(["b c x", "a"])
    found = [vocabulary.words[i] for i in sentences.words]
    assert found == ["b", "c", UNKNOWN, "b c", UNKNOWN, UNKNOWN, "a"]
    assert sentences.lengths.tolist() == [6, 1]


@pytest.mark.parametrize(
    ("arguments", "error"),
    [
        ([["a"]], f"words: expected {UNKNOWN} first, got ['a']"),
        ([[]], f"words: expected {UNKNOWN} first, got []"),
        ([[UNKNOWN, "a", "a"]], "words: expected every word once"),
        ([[UNKNOWN], 0], "ngrams: expected an integer of at least 1, got 0"),
        ([[UNKNOWN], 1, "x"], "tokenizer: expected one of ['space', 'words'], got 'x'"),
    ],
)
def test_vocabulary_refuses(arguments, error):
    with pytest.raises(ValueError) as caught:
        Vocabulary(*arguments)
    assert str(caught.value) == error


SENTENCES = st.lists(st.lists(st.integers(0, V - 1), max_size=6), max_size=7)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(SENTENCES, st.data())
def test_ragged_batches_are_lists_of_lists(lists, data):
    sentences = ragged(lists)
    assert sentences.lengths.tolist() == [*map(len, lists)]
    chosen = data.draw(
        st.lists(st.integers(0, len(lists) - 1), max_size=9) if lists else st.just([])
    )
    taken = sentences.take(np.array(chosen, np.intp))
    assert [a.tolist() for a in taken] == [a.tolist() for a in ragged([lists[i] for i in chosen])]
    kept = np.array([data.draw(st.booleans()) for _ in sentences.words], bool)
    fate = iter(kept)
    left = [[word for word in s if next(fate)] for s in lists]
    assert [a.tolist() for a in sentences.keep(kept)] == [a.tolist() for a in ragged(left)]
    T = max(map(len, lists), default=0)
    padded = [s + [0] * (T - len(s)) for s in lists]
    np.testing.assert_array_equal(sentences.padded(), np.reshape(padded, (len(lists), T)))
    sets = as_sets(sentences)
    expected = ragged([sorted({*s} - {0}) for s in lists])
    assert [a.tolist() for a in sets] == [a.tolist() for a in expected]


# ---- calculus ------------------------------------------------------------------------------------

LENGTHS = [2, 0, 4, 1]
WEIGHTS = np.array([1.0, 0.5, 2.0, 0.0])
DROPPED = {"dropout": 0.4, "embedding_dropout": 0.3, "word_dropout": 0.3}


def dropped_of(name, **others):
    """What may be dropped in a network, and others if its cells have options."""
    options = NETWORKS[name]["model"] not in MINIMAL
    return DROPPED | ({"recurrent_dropout": 0.3, **others} if options else {})


def assert_gradients_are_derivatives(network, sentences, y, weights=None, seed=None):
    def loss():
        rng = None if seed is None else np.random.default_rng(seed)
        return network.loss(sentences, y, weights, rng)

    _, grads = loss()
    for name, dw in grads.items():
        w = network.params[name]
        numerical = eval_numerical_gradient(lambda _: loss()[0], w)
        assert_close(dense(dw, w), numerical, ELEMENT, name)
    return grads


@every_network
@pytest.mark.parametrize("dropped", [False, True])
def test_gradients_are_the_derivatives_of_the_loss(name, dropped, backend, rng):
    """Also under dropout, whose masks a seed repeats."""
    network = network_of(name, **(dropped_of(name, zoneout=0.2) if dropped else {}))
    sentences, y = draw_sentences(LENGTHS, rng), rng.integers(C, size=4)
    grads = assert_gradients_are_derivatives(
        network, sentences, y, WEIGHTS if dropped else None, 3 if dropped else None
    )
    assert grads.keys() == network.params.keys()
    assert isinstance(grads["W_embed"], RowGradient)


@pytest.mark.parametrize("name", [*OF_TORCH[:3], "avg"])
def test_frozen_vectors_have_no_gradient(name, backend, rng):
    network = network_of(name, freeze=True, embeddings="vectors.txt")
    sentences, y = draw_sentences(LENGTHS, rng), rng.integers(C, size=4)
    grads = assert_gradients_are_derivatives(network, sentences, y)
    assert grads.keys() == network.params.keys() - {"W_embed"}


# ---- padding -------------------------------------------------------------------------------------


@every_network
def test_scores_of_a_sentence_are_the_same_alone_and_in_any_batch(name, isa, dtype, rng):
    network = network_of(name, dtype=dtype.name)
    sentences = draw_sentences([0, 1, 30, 7, 2, 0, 19, 100], rng)
    together = network.scores(sentences)
    for batch in ([3], [1], [0], [6, 3], [2, 5, 1], [7, 6, 5, 4, 3, 2, 1, 0]):
        assert_same_bits(network.scores(sentences.take(np.array(batch))), together[batch])


@every_network
def test_gradients_of_a_batch_are_those_of_its_sentences(name, backend, rng):
    network = network_of(name)
    sentences, y = draw_sentences([0, 1, 9, 3], rng), rng.integers(C, size=4)
    loss, grads = dense_gradients(network, sentences, y)
    each = [dense_gradients(network, sentences.take(np.array([i])), y[[i]]) for i in range(4)]
    assert loss == pytest.approx(np.mean([alone for alone, _ in each]), rel=1e-13)
    for key, dw in grads.items():
        assert_close(dw, np.mean([alone[key] for _, alone in each], axis=0), TWIN["float64"], key)


@every_network
def test_only_words_that_are_read_have_a_gradient(name, backend, rng):
    """Not the unknown word with which a batch is padded: an update rule would move it."""
    network = network_of(name)
    sentences = draw_sentences([0, 1, 9, 3], rng, lowest=1)
    _, grads = network.loss(sentences, rng.integers(C, size=4))
    rows = grads["W_embed"].rows.tolist()
    assert sorted(rows) == sorted({*sentences.words.tolist()})


@every_network
def test_sentence_without_words_scores_the_bias(name, backend):
    network = network_of(name)
    for lists in ([[]], [[], []], [[1, 2], []]):
        assert_same_bits(network.scores(ragged(lists))[-1], network.params["b"])
    assert network.scores(ragged([])).shape == (0, C)


@pytest.mark.parametrize("lengths", [[5], [3, 0, 2]], ids=str)
@every_network
def test_loss_modifies_nothing_that_it_was_given(name, lengths, backend, rng):
    network, sentences = (
        network_of(name, **dropped_of(name)),
        draw_sentences(lengths, rng, lowest=1),
    )
    before = [a.copy() for a in (*sentences, *network.params.values())]
    network.loss(sentences, rng.integers(C, size=len(lengths)), None, np.random.default_rng(0))
    for a, b in zip((*sentences, *network.params.values()), before, strict=True):
        assert_same_bits(a, b)


# ---- a stranger ----------------------------------------------------------------------------------

TORCH_CELLS = {"rnn": torch.nn.RNN, "lstm": torch.nn.LSTM, "gru": torch.nn.GRU}


class Twin(torch.nn.Module):
    """The recurrent classifiers as PyTorch's users write them."""

    def __init__(self, cell, bidirectional, poolings):
        super().__init__()
        self.embedding = torch.nn.Embedding(V, W)
        self.cell = TORCH_CELLS[cell](W, H, batch_first=True, bidirectional=bidirectional)
        self.poolings, self.directions = poolings, 1 + bidirectional
        self.linear = torch.nn.Linear(H * self.directions * len(poolings), C)
        self.double()

    def forward(self, words, lengths):
        packed = pack_padded_sequence(
            self.embedding(words), lengths, batch_first=True, enforce_sorted=False
        )
        h, last = self.cell(packed)
        last = last[0] if isinstance(last, tuple) else last
        h, _ = pad_packed_sequence(h, batch_first=True)
        within = (torch.arange(h.shape[1]) < lengths[:, None])[..., None]
        pooled = {
            "mean": (h * within).sum(dim=1) / lengths[:, None],
            "max": h.masked_fill(~within, -math.inf).amax(dim=1),
        }
        features = []
        for d in range(self.directions):
            units = slice(d * H, (d + 1) * H)
            features += [last[d] if p == "last" else pooled[p][:, units] for p in self.poolings]
        return self.linear(torch.cat(features, dim=1))


def names_in_torch(network):
    """Our parameters' names and PyTorch's; its second bias is for ever 0."""
    yield from (("W_embed", "embedding.weight"), ("W", "linear.weight"), ("b", "linear.bias"))
    for d in network.encoder.directions:
        suffix = "_l0_reverse" if d == "b" else "_l0"
        yield f"Wx_{d}", f"cell.weight_ih{suffix}"
        yield f"Wh_{d}", f"cell.weight_hh{suffix}"
        yield f"b_{d}", f"cell.bias_ih{suffix}"


def as_in_torch(name, w, cell):
    if name == "W_embed":
        return w
    if name in ("W", "b"):
        return w.T
    return reorder(w, *(ORDERS[library][cell] for library in ("fastrnn", "pytorch"))).T


@pytest.mark.parametrize("name", OF_TORCH)
def test_scores_and_gradients_are_those_of_torch(name, backend, rng):
    network, cell = network_of(name), NETWORKS[name]["model"]
    twin = Twin(cell, network.encoder.bidirectional, network.encoder.poolings)
    theirs = dict(twin.named_parameters())
    with torch.no_grad():
        for key in theirs:
            if "bias_hh" in key:
                theirs[key].zero_()
        for ours, key in names_in_torch(network):
            theirs[key].copy_(torch.tensor(as_in_torch(ours, network.params[ours], cell)))
    sentences, y = draw_sentences([5, 1, 12, 3, 1, 12], rng), rng.integers(C, size=6)
    scores = twin(torch.tensor(sentences.padded()), torch.tensor(sentences.lengths))
    loss = torch.nn.functional.cross_entropy(scores, torch.tensor(y))
    loss.backward()
    assert_close(network.scores(sentences), scores.detach().numpy(), TWIN["float64"])
    our_loss, grads = dense_gradients(network, sentences, y)
    assert our_loss == pytest.approx(loss.item(), rel=1e-13)
    for ours, key in names_in_torch(network):
        expected = theirs[key].grad.numpy()
        assert_close(as_in_torch(ours, grads[ours], cell), expected, TWIN["float64"], ours)


@pytest.mark.parametrize("name", ["bow", "avg"])
def test_bags_are_those_of_torch(name, backend, rng):
    network = network_of(name)
    sentences, y = draw_sentences(LENGTHS, rng), rng.integers(C, size=4)
    params = {key: torch.tensor(w, requires_grad=True) for key, w in network.params.items()}
    words, offsets = torch.tensor(sentences.words), torch.tensor(sentences.first[:-1])
    mode = "sum" if name == "bow" else "mean"
    scores = torch.nn.functional.embedding_bag(words, params["W_embed"], offsets, mode=mode)
    scores = (scores if name == "bow" else scores @ params["W"]) + params["b"]
    torch.nn.functional.cross_entropy(scores, torch.tensor(y)).backward()
    assert_close(network.scores(sentences), scores.detach().numpy(), TWIN["float64"])
    for key, dw in dense_gradients(network, sentences, y)[1].items():
        assert_close(dw, params[key].grad.numpy(), TWIN["float64"], key)


# ---- the twin ------------------------------------------------------------------------------------


@every_network
def test_backends_give_the_same_loss_and_gradients(name, dtype, rng):
    sentences, y = draw_sentences([3, 0, 17, 1, 6], rng), rng.integers(C, size=5)
    results = []
    for backend in ("numpy", "cython"):
        network = network_of(name, dtype=dtype.name, backend=backend, **dropped_of(name))
        results.append(dense_gradients(network, sentences, y, None, np.random.default_rng(0)))
    (loss, grads), (other_loss, other_grads) = results
    assert other_loss == pytest.approx(loss, rel=TWIN[dtype.name])
    for key, dw in grads.items():
        assert_close(other_grads[key], dw, TWIN[dtype.name], key)


def test_backend_of_a_network_computes_everything(monkeypatch):
    """Also where the other one is the current one, which may not even be there."""

    def never(*args, **keywords):
        raise AssertionError("another backend was asked")

    fastrnn.set_backend("cython")
    compiled = fastrnn.backends.get_backend("cython")
    for function in ("prepare", "forward", "word_embedding_forward", "affine_forward"):
        monkeypatch.setattr(compiled, function, never)
    training = Training(SHORT | {"backend": "numpy"}, *CORPUS, CLASSES)
    model = training.run()
    assert model.predict_proba(["a b"]).shape == (1, 2)


# ---- dropout -------------------------------------------------------------------------------------


def test_dropout_keeps_the_expected_value(rng, dtype):
    mask = dropout(rng, 0.4, (300, 300), dtype)
    assert mask.dtype == dtype
    assert {*np.unique(mask).tolist()} == {0.0, float(dtype.type(1 / 0.6))}
    assert mask.mean() == pytest.approx(1, abs=0.02)
    assert dropout(None, 0.4, (3, 3), dtype) is dropout(rng, 0.0, (3, 3), dtype) is None


@every_network
def test_nothing_is_dropped_in_prediction(name, backend, rng):
    sentences = draw_sentences(LENGTHS, rng)
    network, dropping = network_of(name), network_of(name, **dropped_of(name))
    assert_same_bits(dropping.scores(sentences), network.scores(sentences))
    y = rng.integers(C, size=4)
    assert dropping.loss(sentences, y)[0] == network.loss(sentences, y)[0]
    assert (
        dropping.loss(sentences, y, None, np.random.default_rng(0))[0]
        != network.loss(sentences, y)[0]
    )


@pytest.mark.parametrize("name", ["avg", "lstm"])
def test_dropped_features_leave_the_bias(name, rng):
    network = network_of(name, dropout=1 - 1e-9)
    _, grads = network.loss(draw_sentences([3], rng), np.array([0]), None, rng)
    p = np.exp(network.params["b"])
    assert_close(grads["b"], p / p.sum() - [1, 0, 0], TWIN["float64"])
    assert not grads["W"].any()


@every_network
def test_dropped_words_are_left_out_of_bags_and_unknown_to_cells(name, rng):
    network = network_of(name, word_dropout=1 - 1e-9)
    sentences, y = draw_sentences([3, 1], rng, lowest=1), np.array([0, 2])
    unknown = ragged([[], []] if name in ("bow", "avg") else [[0, 0, 0], [0]])
    loss, grads = dense_gradients(network, sentences, y, None, rng)
    expected_loss, expected = dense_gradients(network, unknown, y)
    assert loss == expected_loss
    for key, dw in expected.items():
        assert_same_bits(grads[key], dw, key)


def test_same_elements_of_a_word_are_dropped_wherever_it_stands(rng):
    """A mask for each of its five places would leave a gradient at nearly all."""
    network = network_of("rnn", embedding_dim=200, embedding_dropout=0.5)
    network.params["Wx_f"] /= 10
    sentences = ragged([[1, 2, 1], [2, 1], [2, 2, 1, 1]])
    _, grads = network.loss(sentences, rng.integers(C, size=3), None, rng)
    rows, values = grads["W_embed"]
    assert rows.tolist() == [1, 2]
    dropped = values == 0
    assert (np.abs(dropped.mean(axis=1) - 0.5) < 0.15).all()
    assert 0.3 < (dropped[0] != dropped[1]).mean() < 0.7


@pytest.mark.parametrize("name", ["rnn", "lstm", "gru", "lstm_both"])
def test_zoneout_is_its_expectation_in_prediction(name, backend, rng):
    """Also of prepared weights and of one sentence."""
    network = network_of(name, zoneout=0.25, recurrent_dropout=0.5)
    encoder, params, sentences = network.encoder, network.params, draw_sentences([3, 5], rng)
    features, _ = encoder.forward(params, sentences, None, training=False)
    options = Options(zoneout_h=0.25, zoneout_c=0.25 if encoder.cell == "lstm" else 0)
    given = {"lengths": sentences.lengths, "options": options, "training": False}
    x, h0 = params["W_embed"][sentences.padded()], np.zeros((2, H))
    parts = np.hsplit(features, len(encoder.directions))
    for d, part in zip(encoder.directions, parts, strict=True):
        weights = (params[f"{w}_{d}"] for w in ("Wx", "Wh", "b"))
        forward = getattr(fastrnn, f"{encoder.cell}_forward")
        _, cache = forward(x, h0, *weights, reverse=d == "b", **given)
        assert_close(part, cache.hT, TWIN["float64"])
    prepared, first = ready(network), sentences.take(np.array([0]))
    scores = network.scores(sentences)
    assert_close(network.scores(sentences, prepared), scores, TWIN["float64"])
    assert_close(network.scores(first, prepared), scores[:1], TWIN["float64"])


@pytest.mark.parametrize("given", [{"zoneout": 0.5}, {"recurrent_dropout": 0.5}], ids=str)
@pytest.mark.parametrize("name", ["rnn", "lstm", "gru"])
def test_every_batch_has_masks_of_its_own(given, name, rng):
    network, plain = network_of(name, **given), network_of(name)
    sentences, y = draw_sentences([6, 6], rng), np.array([0, 1])
    draws = np.random.default_rng(0)
    losses = {network.loss(sentences, y, None, draws)[0] for _ in range(4)}
    assert len(losses) == 4
    assert network.loss(sentences, y)[0] == plain.loss(sentences, y)[0]
    state = draws.bit_generator.state
    plain.loss(sentences, y, None, draws)
    assert draws.bit_generator.state == state  # nothing is drawn where nothing is random


# ---- weights of sentences and classes ------------------------------------------------------------


@every_network
def test_weight_of_two_is_the_sentence_twice(name, backend, rng):
    """The loss is divided by the number of sentences, whatever they weigh."""
    network, sentences = network_of(name), draw_sentences([3, 1, 0], rng)
    y, twice = rng.integers(C, size=3), np.array([0, 0, 1, 2])
    loss, grads = dense_gradients(network, sentences, y, np.array([2.0, 1.0, 1.0]))
    other_loss, others = dense_gradients(network, sentences.take(twice), y[twice])
    assert 3 * loss == pytest.approx(4 * other_loss, rel=1e-13)
    for key, dw in grads.items():
        assert_close(3 * dw, 4 * others[key], TWIN["float64"], key)


def test_class_weights():
    y = np.array([0, 0, 0, 1])
    assert class_weights(None, ["a", "b"], y) is None
    np.testing.assert_allclose(class_weights("balanced", ["a", "b"], y), [4 / 6, 4 / 2])
    assert class_weights({"b": 3}, ["a", "b"], y).tolist() == [1, 3]
    for wrong, error in (
        ("equal", "class_weight: expected None, 'balanced' or a dict, got 'equal'"),
        ({"c": 1.0}, "class_weight: 'c' is not one of a, b"),
    ):
        with pytest.raises(ValueError) as caught:
            class_weights(wrong, ["a", "b"], y)
        assert str(caught.value) == error


@pytest.mark.parametrize(
    ("of_class", "of_sample", "expected"),
    [
        (None, None, None),
        ({"b": 3}, None, [1, 3, 3, 1]),
        (None, [1, 2, 0, 0.5], [1, 2, 0, 0.5]),
        ({"b": 3}, [1, 2, 0, 0.5], [1, 6, 0, 0.5]),
    ],
)
def test_weights_of_classes_and_samples_multiply(of_class, of_sample, expected):
    sample = None if of_sample is None else np.array(of_sample)
    training = Training(
        SHORT | {"class_weight": of_class},
        *(["a"] * 4, np.array([0, 1, 1, 0]), CLASSES),
        sample_weight=sample,
    )
    weights = training.solvers[0].examples.weights
    assert weights is None if expected is None else weights.tolist() == expected
    assert weights is None or weights.dtype == np.float32


# ---- settings ------------------------------------------------------------------------------------

WRONG = {
    "model": ["cnn", None],
    "tokenizer": ["letters", None],
    "ngrams": [0, 1.5, True],
    "min_count": [0, -1, 0.5],
    "embedding_dim": [0, 2.5, "100"],
    "embedding_scale": [-1, math.nan, math.inf],
    "hidden_dim": [0, -3, 128.0, None],
    "bidirectional": ["yes", None],
    "pooling": ["", "sum", "last+last", "last+", "last mean", None],
    "freeze": ["no", 2],
    "dropout": [1, -0.1, math.nan, "0.5", None],
    "embedding_dropout": [1.0, -1],
    "word_dropout": [1, math.inf],
    "zoneout": [1.0, -0.1, math.nan, "0.1", None],
    "recurrent_dropout": [1, -1, True],
    "weight_decay": [-1e-3, math.nan],
    "learning_rate": [-1, math.inf, "fast"],
    "lr_decay": [0, -1, math.nan],
    "update_rule": ["newton", None],
    "clip_norm": [-1, math.nan],
    "patience": [-1],
    "epochs": [0, 1.5],
    "batch_size": [0, -64],
    "class_weight": ["equal", {"c": 1}],
    "ensemble": [0, False],
    "dtype": ["float16", "int32", None],
    "backend": ["torch", ""],
    "seed": [-1, 0.5, None],
}


def test_settings_are_the_given_then_the_models_then_the_defaults():
    assert complete({}) == {name: setting.default for name, setting in SETTINGS.items()}
    assert complete({}) == complete({"model": "lstm"})
    given = complete({"model": "bow", "seed": 3, "epochs": 2})
    assert given.keys() == SETTINGS.keys()
    assert (given["model"], given["seed"], given["epochs"]) == ("bow", 3, 2)


@pytest.mark.parametrize(
    ("name", "value"), [(name, value) for name, values in WRONG.items() for value in values]
)
def test_wrong_setting_is_refused_before_any_training(name, value):
    with pytest.raises(ValueError) as caught:
        Training({name: value}, *CORPUS, CLASSES)
    assert str(caught.value).startswith(f"{name}: ")


@pytest.mark.parametrize("model", MINIMAL)
@pytest.mark.parametrize("name", ["zoneout", "recurrent_dropout"])
def test_cells_without_options_refuse_them(model, name):
    with pytest.raises(
        ValueError, match=f"^{name}: expected 0 of {model}, which has none, got 0.1"
    ):
        complete({"model": model, name: 0.1})
    complete({"model": "bow", name: 0.1})  # which is no cell


def test_unknown_setting_is_refused():
    with pytest.raises(ValueError) as caught:
        complete({"layers": 2})
    assert str(caught.value).startswith("layers: no such setting; there are model, tokenizer, ")


def test_training_refuses_one_class_and_vectors_of_a_bag_of_words():
    with pytest.raises(ValueError, match="^classes: expected two or more, all different, got"):
        Training({}, ["a"], np.zeros(1, int), ["x"])
    with pytest.raises(ValueError, match="^embeddings: a bag of words has no word vectors$"):
        Training({"model": "bow", "embeddings": "vectors.txt"}, *CORPUS, CLASSES)


# ---- training ------------------------------------------------------------------------------------

CLASSES = ["a", "b"]
SHORT = PLAIN | {"model": "lstm", "embedding_dim": 6, "hidden_dim": 7, "batch_size": 8, "epochs": 3}
SHORT |= {"dropout": 0.2, "word_dropout": 0.1, "embedding_dropout": 0.1}
SHORT |= {"learning_rate": 0.02, "lr_decay": 0.7, "clip_norm": 1.0, "embedding_scale": 0.1}


def make_corpus(n, seed):
    """Texts of 0 to 12 words of which the first "a" or "b" is the class."""
    rng = np.random.default_rng(seed)
    texts, y = [], rng.integers(2, size=n)
    for label, length in zip(y, rng.integers(13, size=n), strict=True):
        words = rng.choice(["c", "d", "e", "f"], size=length).tolist()
        texts.append(" ".join(words[:2] + ["ab"[label]] + words[2:]))
    texts[3], texts[5] = "", "c"
    return texts, y


CORPUS, DEV = make_corpus(60, 0), make_corpus(30, 1)


def parameters(model):
    return [(name, w) for network in model.networks for name, w in network.params.items()]


def assert_same_parameters(model, other):
    for (name, w), (other_name, other_w) in zip(parameters(model), parameters(other), strict=True):
        assert name == other_name
        assert_same_bits(w, other_w, name)


@pytest.mark.parametrize(
    "given",
    [
        {"model": "bow"},
        {"model": "avg"},
        {},
        {"model": "gru", "bidirectional": True, "ensemble": 2},
        {"zoneout": 0.1, "recurrent_dropout": 0.2, "bidirectional": True},
    ],
    ids=lambda given: f"{given.get('model', 'lstm')}{len(given)}",
)
def test_same_seed_gives_the_same_bits_for_any_number_of_threads(given, small_work_is_split):
    models = []
    for n in (1, 2, 3, 4):
        fastrnn.set_num_threads(n)
        models.append(Training(SHORT | given, *CORPUS, CLASSES, dev=DEV).run())
    for model in models[1:]:
        assert_same_parameters(model, models[0])
    other = Training(SHORT | given | {"seed": 1}, *CORPUS, CLASSES, dev=DEV).run()
    assert (parameters(other)[0][1] != parameters(models[0])[0][1]).any()


def test_networks_of_an_ensemble_are_those_of_the_following_seeds():
    together = Training(SHORT | {"ensemble": 3}, *CORPUS, CLASSES).run()
    alone = [Training(SHORT | {"seed": seed}, *CORPUS, CLASSES).run() for seed in range(3)]
    assert_same_parameters(together, TextModel(*together_of(alone)))
    mean = np.mean([model.predict_proba(CORPUS[0]) for model in alone], axis=0)
    assert_same_bits(together.predict_proba(CORPUS[0]), mean)


def together_of(models):
    networks = [model.networks[0] for model in models]
    return models[0].vocabulary, CLASSES, networks, models[0].settings


@pytest.mark.parametrize("model", ["bow", "avg", "rnn", "lstm", "gru", *MINIMAL, *NORMALISED])
def test_models_learn(model):
    given = {"model": model, "epochs": 25, "lr_decay": 1.0}
    given |= dict.fromkeys(("dropout", "embedding_dropout", "word_dropout"), 0.0)
    trained = Training(SHORT | given, *CORPUS, CLASSES).run()
    right = trained.predict_proba(CORPUS[0]).argmax(axis=1) == CORPUS[1]
    says = [bool({*text.split()} & {*CLASSES}) for text in CORPUS[0]]
    assert right[says].all()


class Interrupted(Exception):
    pass


def interrupt_at(iteration):
    def interrupt(solver):
        if solver.iteration == iteration:
            solver.save()
            raise Interrupted

    return interrupt


@pytest.mark.parametrize("iteration", [1, 8, 11])
def test_interrupted_training_goes_on_with_the_same_bits(iteration, tmp_path):
    given = SHORT | {"ensemble": 2, "weight_decay": 0.1, "zoneout": 0.1, "recurrent_dropout": 0.1}
    whole = Training(given, *CORPUS, CLASSES, dev=DEV)
    expected = whole.run()
    for _ in range(2):  # in the first network, then, when that is trained, in the second
        with pytest.raises(Interrupted):
            cut = Training(given, *CORPUS, CLASSES, dev=DEV, folder=tmp_path)
            cut.run(interrupt_at(iteration))
    again = Training(given, *CORPUS, CLASSES, dev=DEV, folder=tmp_path)
    assert_same_parameters(again.run(), expected)
    for solver, other in zip(again.solvers, whole.solvers, strict=True):
        assert solver.loss_history == other.loss_history
        for epoch, other_epoch in zip(solver.history, other.history, strict=True):
            assert epoch | {"seconds": 0} == other_epoch | {"seconds": 0}


def test_checkpoints_of_versions_without_zoneout_go_on(tmp_path):
    def identity(given, unknown=()):
        training = Training(SHORT | given, *CORPUS, CLASSES, folder=tmp_path)
        for name in unknown:
            del training.settings[name]
        return training._identity(training.solvers[0].examples)

    later = ["zoneout", "recurrent_dropout", "max_words", "metric", "calibrate", "quantize"]
    assert identity({}) == identity({}, later)
    assert identity({}) != identity({"zoneout": 0.1}) != identity({"recurrent_dropout": 0.1})


def test_best_epoch_is_kept_and_patience_stops():
    given = SHORT | {"learning_rate": 0.3, "lr_decay": 1.0, "epochs": 30, "patience": 2}
    training = Training(given, *CORPUS, CLASSES, dev=DEV)
    model = training.run()
    (solver,) = training.solvers
    scores = [epoch["dev_accuracy"] - 1e-6 * epoch["dev_loss"] for epoch in solver.history]
    best = int(np.argmax(scores))
    assert len(scores) == best + 3 < 30
    right = model.predict_proba(DEV[0]).argmax(axis=1) == DEV[1]
    assert right.mean() == solver.history[best]["dev_accuracy"]
    again = solver.validate()
    assert again["dev_loss"] == solver.history[best]["dev_loss"]


def test_validation_is_by_definition():
    training = Training(SHORT, *CORPUS, CLASSES, dev=DEV)
    training.run()
    (solver,) = training.solvers
    proba = probabilities(solver.network, solver.dev.sentences)
    truth = proba[np.arange(30), DEV[1]]
    figures = solver.validate()
    assert figures["dev_loss"] == pytest.approx(-np.log(truth).mean(), rel=1e-5)
    assert figures["dev_accuracy"] == (truth > 0.5).mean()
    by_the_loss = figures["dev_accuracy"] - figures["score"]  # where accuracies are the same
    assert by_the_loss == pytest.approx(1e-6 * figures["dev_loss"], rel=1e-6)


def test_biases_do_not_decay():
    training = Training(SHORT | {"weight_decay": 0.1}, *CORPUS, CLASSES)
    configs = training.solvers[0].optim_configs
    decays = {name: config["weight_decay"] for name, config in configs.items()}
    assert decays == dict.fromkeys(["W_embed", "Wx_f", "Wh_f", "W"], 0.1) | {"b": 0, "b_f": 0}


@pytest.mark.parametrize("N", [1, 7, 8, 200, 353])
def test_batches_are_of_similar_lengths_and_the_smaller_one_is_last(N):
    lengths = np.random.default_rng(0).integers(50, size=N)
    sentences = ragged([[0] * n for n in lengths])
    size, y = 8, np.zeros(N, int)

    def solver():
        return TextSolver(network_of("lstm"), Examples(sentences, y), batch_size=size, seed=3)

    orders = [solver().order for _ in range(2)]
    np.testing.assert_array_equal(*orders)
    order, trained = orders[0], solver()
    assert sorted(order.tolist()) == list(range(N))
    assert N < 9 or order.tolist() != trained.shuffle().tolist()
    whole = order[: N // size * size].reshape(-1, size)
    for batch in whole:
        assert (np.diff(lengths[batch]) >= 0).all()
    if len(order) > BUCKET * size:
        assert np.ptp(lengths[whole], axis=1).mean() < np.ptp(lengths) / 4
        assert (np.diff(lengths[whole[:, 0]]) < 0).any()  # in random order


@pytest.mark.parametrize("dtype", FLOATS)
def test_initial_vectors_are_the_file_s_shifted_and_scaled(dtype, rng):
    vocabulary = Vocabulary([UNKNOWN, *(f"w{i}" for i in range(5000))])
    words = [f"w{2 * i}" for i in range(2000)]
    known = ([3, -4] + [0.5, 0.2] * rng.standard_normal((2000, 2))).astype(dtype)
    vectors = Vectors(words, known, Report(2000, 5001, 2000, None, {}))
    initial = initial_vectors(vocabulary, vectors, 0.1, np.random.default_rng(0))
    found = initial[[vocabulary.index[word] for word in words]]
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-6)
    assert found.std() == pytest.approx(0.1, rel=1e-5)
    scale = np.ptp(found) / np.ptp(known - known.mean(axis=0))
    np.testing.assert_allclose(found - found[0], scale * (known - known[0]), atol=1e-6)
    assert not initial[0].any()
    others = np.setdiff1d(range(1, 5001), [vocabulary.index[word] for word in words])
    np.testing.assert_allclose(initial[others].mean(axis=0), 0, atol=0.01)
    np.testing.assert_allclose(initial[others].std(axis=0), 0.1, atol=0.01)
    again = initial_vectors(vocabulary, vectors, 0.1, np.random.default_rng(0))
    assert_same_bits(again, initial)


def test_one_vector_has_no_deviation():
    vocabulary = Vocabulary([UNKNOWN, "a", "b"])
    vectors = Vectors(["b"], np.ones((1, 2), np.float32), Report(1, 3, 1, None, {}))
    initial = initial_vectors(vocabulary, vectors, 0.1, np.random.default_rng(0))
    assert initial[1].all() and not initial[[0, 2]].any()


def test_vectors_of_a_file_are_where_training_starts(tmp_path):
    path = tmp_path / "vectors.txt"
    path.write_text("c 1 2 3\nzzz 7 8 9\nd 4 5 6\n")
    training = Training(SHORT | {"embeddings": str(path), "freeze": True}, *CORPUS, CLASSES)
    index = training.vocabulary.index
    assert training.settings["embedding_dim"] == 3
    before = training.solvers[0].network.params["W_embed"].copy()
    model = training.run()
    after = model.networks[0].params["W_embed"]
    assert_same_bits(after, before)
    assert_close(after[index["c"]], np.full(3, -0.1, "f"), TWIN["float32"])
    assert_close(after[index["d"]], np.full(3, 0.1, "f"), TWIN["float32"])


# ---- what a step costs ---------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["bow", "avg", "lstm"])
def test_step_allocates_no_row_that_it_does_not_read(model, rng):
    many, dim = 1_000_000, 8
    given = SHORT | {"model": model, "embedding_dim": dim, "hidden_dim": 4}
    network = build(complete(given), V, dim, seed=0)
    network.params["W_embed"] = np.zeros((many, dim), np.float32)
    sentences = Sentences(rng.integers(many, size=640), np.arange(0, 641, 10))
    peaks = []

    def watch(solver):
        if tracemalloc.is_tracing():
            peaks.append(tracemalloc.get_traced_memory()[1])
            tracemalloc.stop()
        if solver.iteration < 4:
            tracemalloc.start()

    solver = TextSolver(
        network,
        Examples(sentences, rng.integers(dim, size=64)),
        **{"batch_size": 16, "num_epochs": 1, "clip_norm": 0.01, "weight_decay": 0.1},
        **{"on_iteration": watch, "verbose": False},
    )
    solver.train()
    assert len(peaks) == 3
    assert max(peaks) < many * dim * 4 / 50
    assert 0 < np.count_nonzero(network.params["W_embed"].any(axis=1)) <= 640


# ---- prediction and files ------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model():
    given = {"model": "gru", "bidirectional": True, "pooling": "last+max", "ensemble": 2}
    return Training(SHORT | given, *CORPUS, CLASSES).run()


@pytest.mark.parametrize("given", [{"model": "bow"}, {"model": "avg", "ngrams": 2}, {}], ids=str)
def test_many_sentences_are_predicted_as_one_by_one(given):
    texts, _ = make_corpus(300, 5)
    trained = Training(SHORT | {"epochs": 1} | given, *CORPUS, CLASSES).run()
    together = trained.predict_proba(texts)
    assert together.shape == (300, 2) and together.dtype == np.float32
    assert_close(together.sum(axis=1), np.ones(300, "f"), TWIN["float32"])
    for text, proba in zip(texts, together, strict=True):
        assert_same_bits(trained.predict_proba([text])[0], proba)
    assert trained.predict_proba([]).shape == (0, 2)


def test_proba_is_the_softmax_of_the_scores(model, rng):
    sentences = model.vocabulary.encode(CORPUS[0])
    for network in model.networks:
        scores = torch.tensor(network.scores(sentences))
        expected = torch.softmax(scores, dim=1).numpy()
        assert_close(probabilities(network, sentences), expected, TWIN["float32"])


def test_saved_model_is_the_same_to_the_bit(model, tmp_path):
    model.save(tmp_path / "run" / "model")
    again = TextModel.load(tmp_path / "run" / "model")
    assert_same_parameters(again, model)
    assert again.vocabulary.words == model.vocabulary.words
    assert (again.classes, again.settings) == (model.classes, model.settings)
    assert_same_bits(again.predict_proba(DEV[0]), model.predict_proba(DEV[0]))
    model.save(tmp_path / "run" / "model")  # over itself
    files = sorted(path.suffix for path in (tmp_path / "run" / "model").iterdir())
    assert files == [".json", ".safetensors"]


def test_saving_another_model_leaves_its_files_alone(model, tmp_path):
    Training(SHORT | {"epochs": 1}, *CORPUS, CLASSES).run().save(tmp_path)
    model.save(tmp_path)
    assert len([*tmp_path.iterdir()]) == 2
    assert_same_parameters(TextModel.load(tmp_path), model)


@pytest.mark.parametrize("function", ["write_tensors", "write_json"])
def test_save_that_is_killed_leaves_the_old_model(model, function, tmp_path, monkeypatch):
    model.save(tmp_path)
    other = Training(SHORT | {"epochs": 1}, *CORPUS, CLASSES).run()

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(storage, function, killed)
        other.save(tmp_path)
    assert_same_parameters(TextModel.load(tmp_path), model)
    other.save(tmp_path)
    assert len([*tmp_path.iterdir()]) == 2


def test_folder_without_a_model_is_refused(tmp_path):
    with pytest.raises(FileNotFoundError) as caught:
        TextModel.load(tmp_path)
    assert (
        str(caught.value)
        == f"{tmp_path}: no trained classifier (no {DESCRIPTION}); was its training finished?"
    )


@pytest.mark.parametrize("version", [0, 2, "1", None])
def test_unknown_format_is_refused(model, version, tmp_path):
    model.save(tmp_path)
    path = tmp_path / DESCRIPTION
    path.write_text(json.dumps(storage.read_json(path) | {"format": version}))
    with pytest.raises(ValueError) as caught:
        TextModel.load(tmp_path)
    assert str(caught.value) == f"{path}: expected format 1, got {version!r}"


def damage(tensors):
    return {
        "missing": {k: w for k, w in tensors.items() if k != "1/W"},
        "cut": tensors | {"1/W": tensors["1/W"][:-1]},
        "wide": tensors | {"1/W": tensors["1/W"].astype(np.float64)},
    }


@pytest.mark.parametrize(
    ("kind", "got"),
    [("missing", "nothing"), ("cut", "(27, 2) float32"), ("wide", "(28, 2) float64")],
)
def test_tensors_that_do_not_fit_are_refused(model, kind, got, tmp_path):
    model.save(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    description, tag = tmp_path / DESCRIPTION, path.stem.partition("-")[2]
    tensors = damage(storage.read_tensors(path))[kind]
    storage.write_named(description, tag, storage.read_json(description), tensors)
    with pytest.raises(ValueError) as caught:
        TextModel.load(tmp_path)
    assert str(caught.value) == f"{path}: 1/W: expected (28, 2) float32, got {got}"


def test_damaged_files_are_refused(model, tmp_path):
    model.save(tmp_path)
    (path,) = tmp_path.glob("*.safetensors")
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(ValueError, match=f"^{path}: not a safetensors file"):
        TextModel.load(tmp_path)
    path.unlink()
    with pytest.raises(FileNotFoundError, match=path.name):
        TextModel.load(tmp_path)
    (tmp_path / DESCRIPTION).write_text("{")
    with pytest.raises(ValueError, match=f"{DESCRIPTION}: not a JSON file"):
        TextModel.load(tmp_path)


def test_checkpoints_of_an_ensemble_lie_side_by_side(tmp_path):
    Training(SHORT | {"epochs": 1, "ensemble": 2}, *CORPUS, CLASSES, folder=tmp_path).run()
    assert all((tmp_path / name / CHECKPOINT).is_file() for name in ("0", "1"))


def test_loading_draws_no_network_to_throw_away(model, tmp_path, monkeypatch):
    model.save(tmp_path)
    monkeypatch.setattr(np.random, "default_rng", None)
    assert_same_bits(
        TextModel.load(tmp_path).predict_proba(CORPUS[0]), model.predict_proba(CORPUS[0])
    )


def test_long_documents_are_predicted_a_few_at_a_time(model, monkeypatch):
    read = []
    scores = Network.scores

    def watch(network, sentences, params=None):
        read.append(sentences.lengths.max() * len(sentences.lengths))
        return scores(network, sentences, params)

    monkeypatch.setattr(Network, "scores", watch)
    texts = [" ".join(CORPUS[0][:n]) for n in range(1, 60)] * 3
    expected = [model.predict_proba([text])[0] for text in texts]
    monkeypatch.setattr("fastrnn.text.model.WORDS", 300)
    longest = max(len(text.split()) for text in texts)
    read.clear()
    assert_same_bits(model.predict_proba(texts), np.array(expected))
    assert max(read) <= max(300, longest)


@pytest.mark.parametrize("pooling", ["last", "last+mean+max"])
@pytest.mark.parametrize("bidirectional", [False, True])
@pytest.mark.parametrize("cell", ["lstm", "min_gru", "layer_norm_gru"])
def test_a_long_document_is_predicted_in_chunks(cell, bidirectional, pooling, monkeypatch, rng):
    given = {"model": cell, "bidirectional": bidirectional, "pooling": pooling}
    network = network_of("lstm", **given, dtype="float64")
    sentences = draw_sentences([50], rng)
    whole = network.scores(sentences)
    for chunk in (50, 49, 25, 7, 1):
        monkeypatch.setattr("fastrnn.text.encoders.CHUNK", chunk)
        for params in (None, ready(network)):
            scores = network.scores(sentences, params)
            if pooling == "last" or chunk == 50:
                assert_same_bits(scores, whole)
            assert_close(scores, whole, TWIN["float64"])


@pytest.mark.parametrize("weights", [None, WEIGHTS])
@pytest.mark.parametrize("name", ["lstm_both_last_mean_max", "gru", "bow"])
def test_a_batch_of_too_many_words_is_the_sum_of_its_parts(name, weights, monkeypatch, rng):
    network = network_of(name)
    sentences, y = draw_sentences([2, 30, 4, 1], rng), rng.integers(C, size=4)
    options = {"batch_size": 4, "verbose": False}
    solver = TextSolver(network, Examples(sentences, y, weights), **options)
    whole = network.loss(sentences, y, weights)
    solver.rng, read = None, []
    monkeypatch.setattr("fastrnn.text.training.STEP_UNITS", 8 * FEWEST_UNITS)
    loss_of = Network.loss
    monkeypatch.setattr(Network, "loss", lambda *a: (read.append(len(a[2])), loss_of(*a))[1])
    loss, grads = solver.loss(np.arange(4))
    assert read == ([4] if name == "bow" else [1, 2, 1])
    assert loss == pytest.approx(whole[0], rel=1e-12)
    assert grads.keys() == whole[1].keys()
    for part, w in network.params.items():
        assert_close(dense(grads[part], w), dense(whole[1][part], w), TWIN["float64"])


@pytest.mark.parametrize(("model", "cut"), [("lstm", 2), ("mgu", 2), ("bow", 0), ("avg", 0)])
def test_only_the_beginnings_of_long_texts_are_learnt(model, cut):
    texts, y = CORPUS
    texts = [*texts, "x " * 31, "x " * 30, "c " * 40, ""]
    y = np.append(y, [0, 1, 0, 1])
    given = SHORT | {"model": model}
    training = Training(given | {"max_words": 30}, texts, y, CLASSES, dev=(texts, y))
    (solver,) = training.solvers
    assert training.cut == cut
    assert solver.examples.sentences.lengths.max() == (30 if cut else 40 if model == "avg" else 5)
    assert solver.dev.sentences.lengths[-2] == (1 if model == "bow" else 40)
    short = [" ".join(text.split()[:30]) for text in texts]
    same = Training(given | {"max_words": 0}, short if cut else texts, y, CLASSES)
    for a, b in zip(same.solvers[0].examples[0], solver.examples[0], strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("model", ["lstm", *NORMALISED])
def test_gradients_do_not_grow_with_the_length(model, rng):
    """A layer-normalised LSTM's do, with gains of 1."""
    network, norms = build(complete({"model": model}), 200, C, seed=0), []
    for length in (10, 1000):
        sentences = ragged(rng.integers(1, 200, size=(4, length)).tolist())
        _, grads = dense_gradients(network, sentences, np.arange(4) % C)
        norms.append(math.sqrt(sum(float((dw**2).sum()) for dw in grads.values())))
    assert norms[1] < 2 * norms[0]


def test_too_little_memory_says_for_what(monkeypatch, rng):
    network, sentences = network_of("lstm"), draw_sentences([3, 700, 2], rng)

    def failing(*args, **others):
        raise MemoryError("no memory for 9 bytes")

    monkeypatch.setattr("fastrnn.text.encoders.stack.layer_forward", failing)
    for what, compute in (
        ("the gradients", lambda: network.loss(sentences, np.zeros(3, np.intp))),
        ("the scores", lambda: network.scores(sentences)),
    ):
        with pytest.raises(MemoryError) as caught:
            compute()
        expected = f"{what} of 3 texts of up to 700 words: no memory for 9 bytes"
        assert str(caught.value) == expected


LONG = """
import resource, sys
import numpy as np
from fastrnn.text import Training

texts = ["b a c d"] * 400 + ["a " * 100_000, "a " * 20_000]
y = np.arange(402) % 2
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
before = peak()
given = {"model": "lstm", "epochs": 1, "batch_size": 64, "bidirectional": True}
training = Training(given, texts, y, ["a", "b"], dev=(texts, y))
training.run().predict_proba(texts)
print(training.cut, peak() - before)
"""


def test_memory_is_bounded_however_long_a_text_is():
    done = subprocess.run([sys.executable, "-c", LONG], capture_output=True, text=True, check=True)
    cut, megabytes = done.stdout.split()
    assert int(cut) == 2
    assert float(megabytes) < 400  # of the long texts' batches whole: gigabytes


DESCRIPTIONS = {
    "model": {"settings": {"model": "tree"}},
    "settings": {"settings": [1]},
    "networks": {"networks": 0},
    "classes": {"classes": ["a"]},
    "vocabulary": {"vocabulary": ["a"]},
    "tensors": {"tensors": None},
}


@pytest.mark.parametrize("name", DESCRIPTIONS)
def test_damaged_descriptions_are_refused(model, name, tmp_path):
    model.save(tmp_path)
    path = tmp_path / DESCRIPTION
    storage.write_json(path, storage.read_json(path) | DESCRIPTIONS[name])
    with pytest.raises(ValueError, match="not a classifier's description") as caught:
        TextModel.load(tmp_path)
    assert str(caught.value).startswith(str(path))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"texts": "abcd"}, "texts: expected a sequence of strings"),
        ({"y": [0, 1]}, "y: expected integers of shape"),
        ({"y": [0, 2, 0, 1]}, "y: expected 0 to 1, got 0 to 2"),
        ({"y": [0.0, 1, 0, 1]}, "y: expected integers"),
        ({"classes": ["a", "a"]}, "classes: expected two or more, all different"),
        ({"sample_weight": [1, 1, 1, -1]}, "sample_weight: expected (4,) numbers of at least 0"),
        ({"sample_weight": [1, 1]}, "sample_weight: expected (4,)"),
        ({"dev": ([], [])}, "dev y: expected integers"),
        ({"dev": (["a"], [3])}, "dev y: expected 0 to 1"),
    ],
)
def test_training_checks_what_it_is_given(change, message):
    given = {"texts": ["a", "b", "a", "b"], "y": [0, 1, 0, 1], "classes": ["x", "y"]} | change
    with pytest.raises(ValueError) as caught:
        Training({"model": "bow"}, **given)
    assert str(caught.value).startswith(message)


def test_one_string_is_not_texts(model):
    with pytest.raises(ValueError, match="expected a sequence of strings"):
        model.predict_proba("good")


def test_checkpoint_of_another_training_is_refused(tmp_path):
    given = SHORT | {"model": "bow", "epochs": 1}
    Training(given, *CORPUS, CLASSES, folder=tmp_path).run()
    Training(given | {"epochs": 2}, *CORPUS, CLASSES, folder=tmp_path).run()
    for other in (
        Training(given | {"seed": 5}, *CORPUS, CLASSES, folder=tmp_path),
        Training(given, *CORPUS, CLASSES[::-1], folder=tmp_path),
        Training(given, CORPUS[0], 1 - CORPUS[1], CLASSES, folder=tmp_path),
    ):
        with pytest.raises(ValueError, match="of another training"):
            other.run()


def test_a_model_does_not_change_when_its_training_goes_on():
    training = Training(SHORT | {"epochs": 1}, *CORPUS, CLASSES)
    model = training.run()
    before = model.predict_proba(CORPUS[0])
    training.solvers[0].num_epochs = 2
    training.solvers[0].train()
    assert_same_bits(model.predict_proba(CORPUS[0]), before)


def test_the_smaller_batch_has_sentences_of_any_length(rng):
    lengths = rng.integers(1, 40, size=650)
    network = build(complete({"model": "bow"}), V, 2, seed=0)
    sentences = draw_sentences(lengths, rng)
    solver = TextSolver(
        network, Examples(sentences, np.zeros(650, np.intp)), batch_size=64, verbose=False
    )
    rests = [lengths[solver.shuffle()[640:]] for _ in range(20)]
    assert 15 < np.mean(rests) < 25
    batches = [{frozenset(b) for b in solver.shuffle()[:640].reshape(10, 64)} for _ in range(2)]
    shared = [max(len(a & b) for b in batches[1]) for a in batches[0]]
    assert max(shared) < 48


def test_initial_weights_do_not_depend_on_blas():
    script = (
        "import hashlib, sys; from fastrnn.text.model import build\n"
        "from fastrnn.text.settings import complete\n"
        "given = complete({'model': 'rnn', 'hidden_dim': 300, 'dtype': 'float64'})\n"
        "w = build(given, 3, 2, seed=0).params['Wh_f']\n"
        "print(hashlib.sha256(w).hexdigest(), abs(w @ w.T - __import__('numpy').eye(300)).max())"
    )
    said = []
    for threads in "12":
        environment = os.environ | {"OPENBLAS_NUM_THREADS": threads}
        done = subprocess.run(
            [sys.executable, "-c", script], env=environment, capture_output=True, text=True
        )
        said.append(done.stdout.split())
    assert said[0][0] == said[1][0]
    assert float(said[0][1]) < 1e-13
