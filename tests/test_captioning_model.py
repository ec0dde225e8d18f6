"""CaptioningRNN: the notebooks' numbers, gradients, dropout; decoding over one step function."""

import itertools

import numpy as np
import pytest

from fastrnn.captioning import CaptioningRNN, Ensemble, decode, decode_captions
from fastrnn.gradcheck import eval_numerical_gradient, rel_error
from fastrnn.nn.single import CELLS

WORDS = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "cat", "dog", "sat"]
WORD_TO_IDX = {word: i for i, word in enumerate(WORDS)}
RECURRENT = {"recurrent_dropout": 0.3}
BOTH = False, True
ATTENTION = [
    {"decoder": "attention", "attention": attention, "attention_dim": 3, "attention_penalty": 2.0}
    for attention in ("additive", "dot")
]
NOTEBOOK_WORDS = {"<NULL>": 0, "cat": 2, "dog": 3}


def small_model(cell="lstm", backend=None, dtype=np.float64, **options):
    return CaptioningRNN(WORD_TO_IDX, 6, 5, 7, cell, dtype, seed=0, backend=backend, **options)


def pictures(rng, n, model):
    """Features of so many, for attention in a grid of four places."""
    return rng.standard_normal((n, 6) if model.decoder == "plain" else (n, 4, 6))


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
        *(("lstm", {"feature_dropout": 0.4, "label_smoothing": 0.2, "tied": t}) for t in BOTH),
        ("lstm", {"dropout": 0.4, "sampled": 0.5}),
        *((cell, look) for cell in ("lstm", "gru", "min_gru", "ind_rnn") for look in ATTENTION),
        ("lstm", {**ATTENTION[0], "zoneout": 0.3, **RECURRENT, "feature_dropout": 0.4}),
    ],
    ids=str,
)
def test_gradients_are_the_derivatives_of_the_loss(rng, backend, cell, dropped):
    """Also under dropout, whose masks a seed repeats; central differences of a loss of 10 are good
    to 1e-10, gradients are of the order of 1."""
    options = dict(dropped)
    sampled = options.pop("sampled", 0.0)
    model = small_model(cell, backend, **options)
    # Layer normalisation of vectors of the order of 0.01 bends within a central difference.
    model.params["W_embed"] *= 100 if cell.startswith("layer_norm") else 1
    features, captions = pictures(rng, 3, model), rng.integers(len(WORDS), size=(3, 5))

    def loss_of(seed):
        return model.loss(features, captions, np.random.default_rng(seed), sampled=sampled)

    loss, grads = loss_of(5)
    assert (loss == model.score(features, captions)) == (not dropped)
    if "attention" in dropped:
        model.params["W_query"] *= 10  # far from where all places weigh the same
        loss, grads = loss_of(5)
    assert grads.keys() == model.params.keys()
    for name, numerical in numerical_gradients(model, lambda: loss_of(5)[0]).items():
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


def test_tied_words_are_scored_by_their_vectors(rng):
    tied, free = small_model(tied=True), small_model()
    p = tied.params
    free.params = {**p, "W_vocab": p["W_out"] @ p["W_embed"].T}
    features, captions = rng.standard_normal((3, 6)), rng.integers(len(WORDS), size=(3, 5))
    assert tied.score(features, captions) == pytest.approx(free.score(features, captions), 1e-14)


def test_scheduled_sampling_puts_in_what_the_model_says(rng):
    """As often as it says it, but for <START> and after the end."""
    model, features = small_model(), np.tile(rng.standard_normal(6), (4000, 1))
    captions = np.tile([1, 4, 5, 2, 0], (4000, 1))
    words_in = model._with_own_words(features, captions, np.random.default_rng(0), 0.5)
    np.testing.assert_array_equal(words_in[:, 0], 1)
    scores, _ = model.step(np.array([1]), model.initial_state(features[:1]))
    said = 0.5 * np.exp(decode.log_softmax(scores)[0])
    said[4] += 0.5
    share = np.bincount(words_in[:, 1], minlength=len(WORDS)) / 4000
    np.testing.assert_allclose(share, said, atol=3 * 0.5 / 4000**0.5)
    captions[:, 2:] = 0
    words_in = model._with_own_words(features, captions, np.random.default_rng(0), 0.5)
    assert not words_in[:, 2:].any()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"label_smoothing": 1}, r"label_smoothing: expected a number in \[0, 1\), got 1"),
        ({"decoder": "soft"}, "decoder: expected one of .'plain', 'attention'., got 'soft'"),
        ({"attention": "hard"}, "attention: expected one of .'additive', 'dot'., got 'hard'"),
        ({"attention_penalty": -1}, "attention_penalty: expected a number of at least 0, got -1"),
        ({"feature_dropout": -0.1}, "feature_dropout: expected a number in"),
        ({"cell_type": "gru2"}, "cell_type: expected one of"),
        ({"dropout": 1.0}, r"dropout: expected a number in \[0, 1\), got 1.0"),
        ({"zoneout": 1.5}, r"zoneout: expected a number in \[0, 1\), got 1.5"),
        ({"cell_type": "mgu", "zoneout": 0.1}, "zoneout: expected 0 of mgu, which has none"),
        ({"recurrent_dropout": "a"}, "recurrent_dropout: expected a number in"),
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
    found = decode.beam_search(step, state, VOCABULARY, length, decode.Beam(600))
    for row in found.words[:, 0]:
        assert tuple(row[: len(best)]) == best
        assert not row[len(best) :].any()


def test_wide_beam_ranks_all_hypotheses(language):
    step, table, state = language
    scored = sorted((-value / len(c), c) for c, value in all_hypotheses(table, 4))[:50]
    found = decode.beam_search(step, state, VOCABULARY, 4, decode.Beam(600), n_best=50)
    for words, scores in zip(*found, strict=True):
        np.testing.assert_allclose(scores, [-value for value, _ in scored])
        assert [tuple(row[row != 0]) for row in words] == [caption for _, caption in scored]


def test_a_beam_that_finds_fewer_says_so(language):
    step, _, state = language
    found = decode.beam_search(step, state, VOCABULARY, 1, decode.Beam(2), n_best=5)
    assert np.isfinite(found.scores).sum(axis=1).max() <= 2
    assert (found.words[~np.isfinite(found.scores)][:, 1:] == 0).all()


def test_groups_of_a_beam_say_other_things(rng, backend):
    """By the definition: a group is a beam of its own but for what words that those before it say
    at that place lose."""
    model, features, strength = small_model("gru", backend), rng.standard_normal((5, 6)), 0.7
    model.params["W_vocab"] *= 4
    model.params["b_vocab"][WORD_TO_IDX["<END>"]] = 2  # tempting
    vocabulary, (step, state) = model._vocabulary(True, 0), model.start(features)
    beam = decode.Beam(4, groups=4, diversity=strength)
    found = decode.beam_search(step, state, vocabulary, 4, beam, n_best=4)
    for picture in range(5):
        said, expected = [], {}
        for _ in range(4):  # a beam of one is greedy
            own, total, words = tuple(s[[picture]] for s in state), 0.0, []
            for t in range(4):
                before = words[-1] if words else vocabulary.start
                scores, own = step(np.array([before]), own)
                scores[:, vocabulary.banned] = -np.inf
                logs = decode.log_softmax(scores)[0]
                counts = np.bincount([w[t] for w in said if len(w) > t], minlength=len(WORDS))
                value = logs - strength * counts
                ended = total + logs[vocabulary.end]
                if vocabulary.end in np.argsort(-value)[:2]:
                    caption = (*words, vocabulary.end)
                    expected[caption] = max(expected.get(caption, -np.inf), ended / len(caption))
                value[vocabulary.end] = -np.inf
                words.append(int(value.argmax()))
                total += logs[words[-1]]
            said.append(words)
        best = max(expected, key=expected.get)
        assert found.scores[picture, 0] == pytest.approx(expected[best])
        assert tuple(found.words[picture, 0, : len(best)]) == best


def test_what_chooses_among_a_beam_is_asked(rng):
    model, features, asked = small_model(), rng.standard_normal((200, 6)), []

    def choose(rows, found):
        asked.append((rows, found))
        return np.full(len(rows), 2)

    said = model.sample(features, 7, beam_size=3, choose=choose)
    np.testing.assert_array_equal(np.concatenate([rows for rows, _ in asked]), features)
    np.testing.assert_array_equal(np.concatenate([f.words[:, 2] for _, f in asked]), said)
    with pytest.raises(ValueError, match="choose: expected None without a beam"):
        model.sample(features, choose=choose)


@pytest.mark.parametrize(
    ("options", "message"),
    [({"beam_size": 0}, "beam_size: expected at least 1, got 0"),
     ({"length_penalty": np.inf}, "length_penalty: expected a number, got inf"),
     ({"beam_size": 4, "diverse_groups": 3}, "diverse_groups: expected a divisor of beam_size 4"),
     ({"diverse_groups": 0}, "diverse_groups: expected a divisor of beam_size 1, got 0"),
     ({"diversity": -0.1}, "diversity: expected a number of at least 0, got -0.1"),
     ({"diversity": np.nan}, "diversity: expected a number of at least 0, got nan")],
)  # fmt: skip
def test_beams_that_cannot_be_are_refused(options, message):
    with pytest.raises(ValueError, match=message):
        small_model().sample(np.zeros((1, 6)), **options)


def test_beam_without_penalty_ranks_by_probability(language):
    step, table, state = language
    best, _ = max(all_hypotheses(table, 4), key=lambda pair: pair[1])
    found = decode.beam_search(step, state, VOCABULARY, 4, decode.Beam(600, length_penalty=0.0))
    assert tuple(found.words[0, 0, : len(best)]) == best


@pytest.mark.parametrize(("cell", "look"), [("rnn", {}), ("lstm", {}), ("lstm", ATTENTION[0])])
def test_beam_of_many_pictures_is_the_beam_of_each(rng, backend, cell, look):
    model = small_model(cell, backend, **look)
    features = pictures(rng, 7, model)
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
    + [(cell, {"zoneout": 0.3, **RECURRENT}) for cell in ("rnn", "lstm", "gru")]
    + [(cell, look) for cell in CELLS for look in ATTENTION],
    ids=str,
)
def test_steps_say_what_the_sequence_scores(rng, backend, cell, given):
    """Teacher forcing through steps gives the loss that loss() computes over the sequence."""
    model = small_model(cell, backend, **given)
    features = pictures(rng, 4, model)
    captions = rng.integers(4, len(WORDS), size=(4, 6))
    (step, state), total = model.start(features), 0.0
    for word, target in itertools.pairwise(captions.T):
        scores, state = step(word, state)
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
        ({"block_ngrams": -1}, "block_ngrams: expected at least 0, got -1"),
        ({"beam_size": 2, "temperature": 1.0}, "beam_size: a beam is not random"),
    ],
)
def test_sample_refuses_bad_parameters(rng, options, message):
    with pytest.raises(ValueError, match=message):
        small_model().sample(rng.standard_normal((1, 6)), **options)


@pytest.mark.parametrize("beam_size", [1, 4])
@pytest.mark.parametrize("n", [1, 2, 3])
def test_no_ngram_is_said_twice(rng, n, beam_size):
    model, features = small_model(), rng.standard_normal((20, 6))
    model.params["b_vocab"][4:6] = 3.0, 2.0  # a and cat over and over
    model.params["b_vocab"][2] = -np.inf

    def ngrams(caption):
        said = [word for word in caption.tolist() if word]
        return [tuple(said[i : i + n]) for i in range(len(said) - n + 1)]

    repeats = lambda caption: len(ngrams(caption)) - len(set(ngrams(caption)))  # noqa: E731
    free = model.sample(features, 5, beam_size=beam_size)
    assert any(map(repeats, free))
    blocked = model.sample(features, 5, beam_size=beam_size, block_ngrams=n)
    assert not any(map(repeats, blocked))


# ---- attention -----------------------------------------------------------------------------------


def test_attention_looks_where_the_key_is(rng, backend):
    """A place whose key says so has all the weight, and the word is said by it."""
    model = small_model("lstm", backend, **ATTENTION[0])
    features = pictures(rng, 5, model)
    p, places = model.params, np.array([2, 0, 3, 1, 2])
    p["W_key"][:], p["W_query"][:], p["w_look"][:] = 0, 0, 50
    p["W_key"][5] = 1
    features[:, :, 5] = -9
    features[np.arange(5), places, 5] = 9
    captions = model.sample(features, 4)
    looks = model.looks(features, captions)
    assert looks.shape == (5, 4, 4)
    np.testing.assert_allclose(looks.sum(axis=2), 1, rtol=1e-12)
    np.testing.assert_array_equal(looks.argmax(axis=2), np.repeat(places[:, None], 4, axis=1))


def test_penalty_of_attention_is_that_of_the_paper(rng):
    """(1 - sum over the words of a place's weight)^2, a mean over places and pictures; what follows
    <NULL> does not count."""
    plain, penalised = (
        small_model(**{**ATTENTION[0], "attention_penalty": penalty}) for penalty in (0.0, 3.0)
    )
    features, captions = pictures(rng, 2, plain), np.array([[1, 4, 5, 2, 0], [1, 6, 2, 0, 0]])
    looks = plain.looks(features, captions[:, 1:])
    seen = looks[0, :3].sum(axis=0), looks[1, :2].sum(axis=0)
    expected = 3 * np.mean([(1 - s) ** 2 for s in seen])
    losses = [model.loss(features, captions)[0] for model in (penalised, plain)]
    assert losses[0] - losses[1] == pytest.approx(expected, rel=1e-10)


def test_a_plain_decoder_takes_the_mean_of_a_grid(rng):
    model, grid = small_model(), rng.standard_normal((4, 9, 6))
    np.testing.assert_array_equal(model.sample(grid, 5), model.sample(grid.mean(axis=1), 5))


def test_a_plain_decoder_looks_nowhere(rng):
    with pytest.raises(ValueError, match="decoder: expected 'attention', got 'plain'"):
        small_model().looks(rng.standard_normal((1, 6)), np.array([[4, 2]]))


def test_attention_has_no_onnx(tmp_path):
    with pytest.raises(ValueError, match="decoder: expected 'plain' for ONNX, got 'attention'"):
        small_model(**ATTENTION[0]).to_onnx(tmp_path)


# ---- several models ------------------------------------------------------------------------------


def test_an_ensemble_says_what_its_mean_distribution_says(rng, backend):
    models = [small_model(cell, backend) for cell in ("lstm", "gru", "rnn")]
    for seed, model in enumerate(models):
        for w in model.params.values():
            w += np.random.default_rng(seed).standard_normal(w.shape)
    features, ensemble = rng.standard_normal((5, 6)), Ensemble(models)
    step, state = ensemble.start(features)
    states = [model.initial_state(features) for model in models]
    words = np.full(5, 1)
    for _ in range(3):
        scores, state = step(words, state)
        results = [m.step(words, s) for m, s in zip(models, states, strict=True)]
        mean = np.mean([np.exp(decode.log_softmax(s)) for s, _ in results], axis=0)
        np.testing.assert_allclose(np.exp(scores), mean, rtol=1e-12)
        states, words = [after for _, after in results], scores.argmax(axis=1)
    one, same = models[0].sample(features, 9, beam_size=3), Ensemble([models[0]] * 2)
    np.testing.assert_array_equal(same.sample(features, 9, beam_size=3), one)


def test_an_ensemble_looks_where_its_models_do_in_the_mean(rng):
    models = [small_model("lstm", **ATTENTION[0]) for _ in range(2)]
    for w in models[1].params.values():
        w += rng.standard_normal(w.shape)
    grids, captions = pictures(rng, 3, models[0]), np.full((3, 4), 5)
    both = [model.looks(grids, captions) for model in models]
    np.testing.assert_allclose(Ensemble(models).looks(grids, captions), np.mean(both, axis=0))


def test_an_ensemble_has_one_vocabulary():
    with pytest.raises(ValueError, match="models: expected at least one"):
        Ensemble([])
    with pytest.raises(ValueError, match="one vocabulary, but model 1 has another"):
        Ensemble([small_model(), CaptioningRNN(NOTEBOOK_WORDS)])


def test_sample_of_no_pictures_is_empty():
    for beam_size in (1, 3):
        assert small_model().sample(np.empty((0, 6)), 5, beam_size=beam_size).shape == (0, 5)


def test_decode_captions_as_the_notebook():
    captions = np.array([[1, 4, 5, 2, 0], [1, 0, 6, 7, 4]])
    assert decode_captions(captions, WORDS) == ["<START> a cat <END>", "<START> dog sat a"]
    assert decode_captions(captions[0], WORDS) == "<START> a cat <END>"
