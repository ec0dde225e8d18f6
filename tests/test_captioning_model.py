"""CaptioningRNN: the notebooks' numbers, gradients, dropout; decoding over one step function."""

import itertools

import numpy as np
import pytest

from fastrnn.captioning import CaptioningRNN, decode, decode_captions
from fastrnn.gradcheck import eval_numerical_gradient, rel_error
from fastrnn.nn.single import CELLS

WORDS = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "cat", "dog", "sat"]
WORD_TO_IDX = {word: i for i, word in enumerate(WORDS)}
RECURRENT = {"recurrent_dropout": 0.3}
NOTEBOOK_WORDS = {"<NULL>": 0, "cat": 2, "dog": 3}


def small_model(cell="lstm", backend=None, dtype=np.float64, **options):
    return CaptioningRNN(WORD_TO_IDX, 6, 5, 7, cell, dtype, seed=0, backend=backend, **options)


# ---- loss ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cell", "low", "high", "expected"),
    [("rnn", -1.5, 0.3, 9.83235591003), ("lstm", -0.5, 1.7, 9.82445935443)],
)
def test_loss_is_the_notebooks(backend, cell, low, high, expected):
    N, D, W, H, T = 10, 20, 30, 40, 13
    model = CaptioningRNN(NOTEBOOK_WORDS, D, W, H, cell, np.float64, backend=backend)
    for name, w in model.params.items():
        model.params[name] = np.linspace(-1.4, 1.3, num=w.size).reshape(w.shape)
    features = np.linspace(low, high, num=N * D).reshape(N, D)
    captions = (np.arange(N * T) % len(NOTEBOOK_WORDS)).reshape(N, T)
    loss, _ = model.loss(features, captions)
    assert abs(loss - expected) < 1e-10  # the notebooks' bound
    assert abs(model.score(features, captions) - expected) < 1e-10


def numerical_gradients(model, loss):
    return {name: eval_numerical_gradient(lambda _: loss(), w) for name, w in model.params.items()}


def test_gradients_are_as_exact_as_the_notebook_says(backend):
    np.random.seed(231)
    captions = np.random.randint(3, size=(2, 3))
    features = np.random.randn(2, 4)
    model = CaptioningRNN(NOTEBOOK_WORDS, 4, 5, 6, "rnn", np.float64, backend=backend, seed=231)
    _, grads = model.loss(features, captions)
    for name, numerical in numerical_gradients(
        model, lambda: model.score(features, captions)
    ).items():
        assert rel_error(numerical, grads[name]) < 5e-6  # "errors around 5e-6 or less"


@pytest.mark.parametrize(
    ("cell", "dropped"),
    [
        *((cell, {"zoneout": 0.3, **RECURRENT}) for cell in ("rnn", "lstm", "gru")),
        *((cell, dropped) for cell in CELLS for dropped in ({}, {"dropout": 0.4})),
    ],
    ids=str,
)
def test_gradients_are_the_derivatives_of_the_loss(rng, backend, cell, dropped):
    """Also under dropout, whose masks a seed repeats; central differences of a loss of 10 are good
    to 1e-10, gradients are of the order of 1."""
    model = small_model(cell, backend, **dropped)
    # Layer normalisation of vectors of the order of 0.01 bends within a central difference.
    model.params["W_embed"] *= 100 if cell.startswith("layer_norm") else 1
    features, captions = rng.standard_normal((3, 6)), rng.integers(len(WORDS), size=(3, 5))
    loss, grads = model.loss(features, captions, np.random.default_rng(5))
    assert (loss == model.score(features, captions)) == (not dropped)
    assert grads.keys() == model.params.keys()
    for name, numerical in numerical_gradients(
        model, lambda: model.loss(features, captions, np.random.default_rng(5))[0]
    ).items():
        np.testing.assert_allclose(grads[name], numerical, rtol=1e-6, atol=1e-9)


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_backends_give_the_same_loss_and_gradients(rng, cell, dtype):
    features = rng.standard_normal((9, 6))
    captions = rng.integers(len(WORDS), size=(9, 8))
    results = [small_model(cell, b, dtype).loss(features, captions) for b in ("numpy", "cython")]
    (loss, grads), (other_loss, other_grads) = results
    tolerance = {np.float32: 1e-5, np.float64: 1e-12}[dtype]  # rounding of sums in another order
    np.testing.assert_allclose(other_loss, loss, rtol=tolerance)
    for name, grad in grads.items():
        assert grad.dtype == other_grads[name].dtype == dtype
        np.testing.assert_allclose(other_grads[name], grad, rtol=tolerance, atol=tolerance)


def test_null_does_not_count(rng):
    model, features = small_model(), rng.standard_normal((3, 6))
    captions = np.array([[1, 4, 5, 2, 0, 0], [1, 6, 2, 0, 0, 0], [1, 4, 6, 7, 5, 2]])
    longer = np.pad(captions, ((0, 0), (0, 4)))
    (loss, grads), (other_loss, other_grads) = (model.loss(features, c) for c in (captions, longer))
    assert loss == pytest.approx(other_loss, rel=1e-14)
    for name, grad in grads.items():
        np.testing.assert_allclose(other_grads[name], grad, rtol=1e-12, atol=1e-14)


def test_loss_sums_over_time_and_averages_over_the_minibatch(rng):
    model = small_model()
    features, captions = rng.standard_normal((4, 6)), rng.integers(4, len(WORDS), size=(4, 5))
    each = [model.score(features[i : i + 1], captions[i : i + 1]) for i in range(4)]
    assert model.score(features, captions) == pytest.approx(np.mean(each), rel=1e-14)
    untrained = np.log(len(WORDS)) * (captions.shape[1] - 1)
    assert model.score(features, captions) == pytest.approx(untrained, rel=0.3)


def test_dropout_keeps_the_expected_input(rng):
    model = small_model(dropout=0.4)
    kept, _ = model._drop(np.ones((200, 200)), rng)
    assert kept.mean() == pytest.approx(1, abs=0.02)
    assert set(np.unique(kept).round(12)) == {0.0, round(1 / 0.6, 12)}


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"cell_type": "gru2"}, "cell_type: expected one of"),
        ({"dropout": 1.0}, r"dropout: expected a probability in \[0, 1\), got 1.0"),
        ({"zoneout": 1.5}, r"zoneout: expected a probability in \[0, 1\), got 1.5"),
        ({"cell_type": "mgu", "zoneout": 0.1}, "zoneout: expected 0 of mgu, which has none"),
        ({"recurrent_dropout": "a"}, "recurrent_dropout: expected a probability"),
        ({"word_to_idx": {"a": 0}}, "word_to_idx: expected an entry for <NULL>"),
    ],
)
def test_model_refuses_bad_parameters(arguments, message):
    with pytest.raises(ValueError, match=message):
        CaptioningRNN(**{"word_to_idx": WORD_TO_IDX} | arguments)


# ---- decoding ------------------------------------------------------------------------------------


def table_step(table):
    """A step whose scores depend on the last word and on how many words there were: table[t]."""

    def step(words, state):
        (t,) = state
        return np.log(table[np.minimum(t, len(table) - 1), words]), (t + 1,)

    return step


@pytest.fixture
def language(rng):
    """Random word distributions by time and last word, and the state of three rows."""
    table = rng.dirichlet(np.full(len(WORDS), 0.4), size=(4, len(WORDS)))
    return table_step(table), table, (np.zeros(3, dtype=int),)


VOCABULARY = decode.Vocabulary(0, 1, 2, [0, 1])


def all_hypotheses(table, length):
    """Every caption of up to that many words with its log-probability, banned words left out."""
    words = [w for w in range(len(WORDS)) if w not in VOCABULARY.banned]
    allowed = table.copy()
    allowed[:, :, VOCABULARY.banned] = 0
    allowed /= allowed.sum(axis=2, keepdims=True)
    for n in range(1, length + 1):
        for caption in itertools.product(words, repeat=n):
            if caption[-1] == VOCABULARY.end and VOCABULARY.end not in caption[:-1]:
                previous = (VOCABULARY.start, *caption[:-1])
                steps = zip(range(n), previous, caption, strict=True)
                yield caption, sum(np.log(allowed[min(t, 3), p, w]) for t, p, w in steps)


def test_wide_beam_finds_the_best_hypothesis_of_all(language):
    step, table, state = language
    length = 4
    scored = {c: value / len(c) for c, value in all_hypotheses(table, length)}
    best = max(scored, key=scored.get)
    found = decode.beam_search(step, state, VOCABULARY, length, beam_size=600)
    for row in found:
        assert tuple(row[: len(best)]) == best
        assert not row[len(best) :].any()


def test_beam_without_penalty_ranks_by_probability(language):
    step, table, state = language
    best, _ = max(all_hypotheses(table, 4), key=lambda pair: pair[1])
    found = decode.beam_search(step, state, VOCABULARY, 4, beam_size=600, length_penalty=0.0)
    assert tuple(found[0, : len(best)]) == best


@pytest.mark.parametrize("cell", ["rnn", "lstm"])
def test_beam_of_many_pictures_is_the_beam_of_each(rng, backend, cell):
    model, features = small_model(cell, backend), rng.standard_normal((7, 6))
    model.params["W_vocab"] *= 4  # far from uniform
    together = model.sample(features, 9, beam_size=3)
    for row, one in zip(together, features, strict=True):
        np.testing.assert_array_equal(model.sample(one[None], 9, beam_size=3)[0], row)


def test_greedy_is_the_likeliest_word_each_time(rng, backend):
    model, features = small_model("lstm", backend), rng.standard_normal((5, 6))
    captions = model.sample(features, 6)
    state = model.initial_state(features)
    words, talking = np.full(5, WORD_TO_IDX["<START>"]), np.ones(5, bool)
    for t in range(6):
        scores, state = model.step(words, state)
        words = 2 + scores[:, 2:].argmax(axis=1)
        np.testing.assert_array_equal(captions[talking, t], words[talking])
        assert (captions[~talking, t] == 0).all()
        talking &= words != WORD_TO_IDX["<END>"]


@pytest.mark.parametrize(
    ("cell", "given"),
    [*((cell, {}) for cell in CELLS)]
    + [(cell, {"zoneout": 0.3, **RECURRENT}) for cell in ("rnn", "lstm", "gru")],
    ids=str,
)
def test_steps_say_what_the_sequence_scores(rng, backend, cell, given):
    """Teacher forcing through step() gives the loss that loss() computes over the sequence."""
    model = small_model(cell, backend, **given)
    features = rng.standard_normal((4, 6))
    captions = rng.integers(4, len(WORDS), size=(4, 6))
    state, total = model.initial_state(features), 0.0
    for word, target in itertools.pairwise(captions.T):
        scores, state = model.step(word, state)
        total -= decode.log_softmax(scores)[np.arange(4), target].sum() / 4
    assert model.score(features, captions) == pytest.approx(total, rel=1e-12)


@pytest.mark.parametrize(
    "options",
    [{}, {"temperature": 1.5, "seed": 0}, {"temperature": 1e-320}, {"top_k": 5, "seed": 1},
     {"top_p": 0.9, "seed": 2}, {"beam_size": 4}],
)  # fmt: skip
@pytest.mark.parametrize("suppress_unk", [False, True])
def test_sampling_never_says_null_or_start(rng, options, suppress_unk):
    model, features = small_model(), rng.standard_normal((40, 6))
    for name in ("<NULL>", "<START>", "<UNK>"):
        model.params["b_vocab"][WORD_TO_IDX[name]] = 2.0  # tempting
    captions = model.sample(features, 12, suppress_unk=suppress_unk, **options)
    assert captions.shape == (40, 12)
    said_unk = False
    for caption in captions.tolist():
        end = caption.index(2) if 2 in caption else len(caption)
        assert not {0, 1} & set(caption[:end])
        assert not any(caption[end + 1 :])
        said_unk |= 3 in caption
    assert said_unk != suppress_unk


def test_draws_follow_the_distribution(rng):
    p = np.array([0.5, 0.3, 0.15, 0.05])
    scores = np.tile(np.log(p), (40_000, 1))
    shares = lambda draw: np.bincount(draw(scores), minlength=4) / len(scores)  # noqa: E731
    sigma = 3 * np.sqrt(0.25 / len(scores))
    np.testing.assert_allclose(shares(decode.Draw(1.0, None, None, 0)), p, atol=sigma)
    np.testing.assert_allclose(
        shares(decode.Draw(0.5, None, None, 0)), p**2 / (p**2).sum(), atol=sigma
    )
    top_two = np.array([0.625, 0.375, 0, 0])
    np.testing.assert_allclose(shares(decode.Draw(1.0, 2, None, 0)), top_two, atol=sigma)
    np.testing.assert_allclose(shares(decode.Draw(1.0, None, 0.6, 0)), top_two, atol=sigma)
    nucleus = np.array([1, 0, 0, 0])
    np.testing.assert_array_equal(shares(decode.Draw(1.0, None, 0.5, 0)), nucleus)


def test_a_seed_repeats_a_draw(rng):
    model, features = small_model(), rng.standard_normal((5, 6))
    draws = [model.sample(features, temperature=1.0, seed=s) for s in (3, 3, 4)]
    np.testing.assert_array_equal(draws[0], draws[1])
    assert (draws[0] != draws[2]).any()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": 0.0}, "temperature: expected a number above 0"),
        ({"temperature": np.inf}, "temperature: expected a number above 0"),
        ({"beam_size": 0}, "beam_size: expected at least 1"),
        ({"top_k": 0}, "top_k: expected at least 1"),
        ({"top_p": 1.1}, "top_p: expected a probability"),
        ({"beam_size": 2, "temperature": 1.0}, "beam_size: a beam is not random"),
    ],
)
def test_sample_refuses_bad_parameters(rng, options, message):
    with pytest.raises(ValueError, match=message):
        small_model().sample(rng.standard_normal((1, 6)), **options)


def test_sample_of_no_pictures_is_empty():
    for beam_size in (1, 3):
        assert small_model().sample(np.empty((0, 6)), 5, beam_size=beam_size).shape == (0, 5)


def test_decode_captions_as_the_notebook():
    captions = np.array([[1, 4, 5, 2, 0], [1, 0, 6, 7, 4]])
    assert decode_captions(captions, WORDS) == ["<START> a cat <END>", "<START> dog sat a"]
    assert decode_captions(captions[0], WORDS) == "<START> a cat <END>"
