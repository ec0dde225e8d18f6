"""Scores of captions against published formulas and a maintained package's numbers; baselines."""

import itertools
import math

import nltk
import numpy as np
import pytest
from nltk.corpus.reader import CorpusReader, WordNetCorpusReader
from nltk.corpus.util import LazyCorpusLoader

from fastrnn.captioning import (
    BLEU_score,
    CaptioningRNN,
    baselines,
    consensus,
    corpus_bleu,
    metrics,
    partial,
)
from fastrnn.captioning.decode import Hypotheses, log_softmax

REFERENCES = [
    [
        "a black dog runs on the grass",
        "the dog is running through a green field",
        "a dog runs",
    ],
    [
        "two children play in the sand at the beach",
        "children on a beach",
        "two kids are playing",
    ],
    ["a man in a red shirt climbs a rock", "a climber on a red rock wall"],
    ["a girl with a ball"],
]
WORDS = [[caption.split() for caption in captions] for captions in REFERENCES]
SAMPLES = [
    "a black dog runs through the grass",
    "two children on the beach",
    "a man climbs a rock a rock",
    "a dog",
]


# Of pycocoevalcap 1.2 (COCO's evaluation), without its tokenizer, which is Java:
# Cider().compute_score(g, h) and Rouge().compute_score(g, h) where g is dict(enumerate(REFERENCES))
# and h is {i: [sample] for i, sample in enumerate(SAMPLES)}, printed with 8 digits.
@pytest.mark.parametrize(
    ("metric", "expected"),
    [
        (metrics.cider_d, [2.77052612, 1.86161881, 1.52912735, 0.0]),
        (metrics.rouge_l, [0.93606138, 0.76971609, 0.61122244, 0.26521739]),
    ],
)
def test_scores_are_those_of_cocos_evaluation(metric, expected):
    np.testing.assert_allclose(metric(WORDS, SAMPLES), expected, atol=6e-9)
    decoded = [f"<START> {sample} <END>" for sample in SAMPLES]
    np.testing.assert_allclose(metric(WORDS, decoded), expected, atol=6e-9)


def test_rouge_takes_the_longest_common_subsequence():
    """Lin 2004, section 3: of police killed the gunman, P = R = 3/4 and 2/4."""
    truth = [[["police", "killed", "the", "gunman"]]]
    for said, common in (("police kill the gunman", 3), ("the gunman kill police", 2)):
        assert metrics.rouge_l(truth, [said]) == pytest.approx([common / 4])
    assert metrics.rouge_l([[["a"]]], ["<END>"]) == [0]
    assert metrics._common("abcbdab", "bdcaba") == 4


def test_cider_of_one_picture_and_of_no_words_is_nothing():
    assert metrics.cider_d([[["a", "cat"]]], ["a cat"]) == [0]
    same = [[["a", "cat"]], [["the", "dog"]]]
    np.testing.assert_allclose(metrics.cider_d(same, ["a cat", "<END>"]), [5, 0])  # no 3-grams


@pytest.mark.parametrize("metric", [metrics.cider_d, metrics.rouge_l])
def test_an_unknown_word_is_no_word_of_a_reference(metric):
    truth = [[["a", "<UNK>", "cat"]], [["the", "dog"]]]
    known = metric(truth, ["a red cat", "the dog"])
    np.testing.assert_array_equal(metric(truth, ["a <UNK> cat", "the dog"]), known)


WRONG = [
    (["a cat"], ["a cat"], "references: expected, for each picture, its captions"),
    ([["a cat", "a dog"]], ["a cat"], "references: expected, for each picture, its captions"),
    ([[["a", "cat"]], []], ["a cat", "a dog"], r"references: expected, .* got \[\]"),
    ([[["a", "cat"]]], "a cat", "samples: expected a decoded caption a picture, got 'a cat'"),
    ([[["a", "cat"]]], [["a", "cat"]], "samples: expected a decoded caption a picture"),
    ([[["a", "cat"]]], ["a cat", "a dog"], "samples: expected one for each of 1 pictures, got 2"),
]


@pytest.mark.parametrize("metric", [corpus_bleu, metrics.cider_d, metrics.rouge_l])
@pytest.mark.parametrize(("references", "samples", "message"), WRONG)
def test_strings_do_not_pass_for_lists_of_words(metric, references, samples, message):
    with pytest.raises(ValueError, match=message):
        metric(references, samples)


@pytest.mark.parametrize("given", [(["a", "cat"], "a cat"), ("a cat", ["a", "cat"]), ("a", None)])
def test_bleu_of_one_caption_is_of_text(given):
    with pytest.raises(ValueError, match="caption: expected a decoded caption, got"):
        BLEU_score(*given)


@pytest.fixture
def wordnet(tmp_path, monkeypatch):
    """The folder where nltk looks for WordNet, which it has not looked for before."""
    folder = tmp_path / "corpora/wordnet"
    omw = LazyCorpusLoader("omw-1.4", CorpusReader, ".*")
    reader = LazyCorpusLoader("wordnet", WordNetCorpusReader, omw)
    monkeypatch.setattr(nltk.data, "path", [str(tmp_path)])
    monkeypatch.setattr(nltk.corpus, "wordnet", reader)
    yield folder
    for file in vars(reader).get("_data_file_map", {}).values():
        file.close()  # which nltk leaves open


def test_meteor_without_wordnet_says_what_is_missing(wordnet):
    message = "^METEOR needs WordNet, .*nltk.downloader wordnet$"
    with pytest.raises(LookupError, match=message):
        metrics.meteor(WORDS, SAMPLES)
    wordnet.mkdir(parents=True)
    with pytest.raises(LookupError, match=message):
        metrics.meteor(WORDS, SAMPLES)


def test_meteor_knows_the_synonyms_of_wordnet(wordnet):
    """In one of a single entry, in WordNet's format; the score by the formula."""
    wordnet.mkdir(parents=True)
    for pos in ("noun", "verb", "adj", "adv"):
        for name in (f"index.{pos}", f"{pos}.exc"):
            (wordnet / name).write_text("")
        (wordnet / f"data.{pos}").write_text("  1 WordNet 3.0 Copyright\n")
    at = f"{len('  1 WordNet 3.0 Copyright '):08}"
    with (wordnet / "data.noun").open("a") as file:
        file.write(f"{at} 05 n 02 dog 0 hound 0 000 | an animal\n")
    words = ("dog", "hound")
    (wordnet / "index.noun").write_text("".join(f"{word} n 1 0 1 0 {at}\n" for word in words))
    (wordnet / "index.sense").write_text("".join(f"{w}%1:05:00:: {at} 1 0\n" for w in words))
    (wordnet / "lexnames").write_text("".join(f"{i:02}\tname{i}\t1\n" for i in range(45)))
    references = [[["a", "black", "dog", "runs"], ["a", "dog"]]]
    f_mean, penalty = 0.8 / (0.9 * 0.8 + 0.1), 0.5 * (1 / 4) ** 3  # 4 of 5 words in one chunk
    found = metrics.meteor(references, ["a black hound runs <UNK>"])
    assert found == pytest.approx([f_mean * (1 - penalty)])


def test_diversity_counts_words_pairs_and_what_is_new():
    found = metrics.diversity(["a cat <END>", "a cat", "a dog sat"], [["a", "cat"]])
    assert found == {"words": 4, "distinct1": 4 / 7, "distinct2": 3 / 4, "novel": 1 / 3}
    assert metrics.diversity(["<END>"]) == {"words": 0, "distinct1": 0, "distinct2": 0}


# ---- baselines -----------------------------------------------------------------------------------


def test_the_constant_caption_has_the_highest_bleu_of_all():
    rng = np.random.default_rng(0)
    words = ["a", "dog", "cat", "runs", "sits", "on", "the", "grass"]
    references = [
        [rng.permutation(words)[: rng.integers(4, 7)].tolist() for _ in range(3)] for _ in range(20)
    ]
    references += [[*captions, ["a", "dog", "runs", "on", "grass"]] for captions in references[:3]]

    def bleu(caption):
        scores = corpus_bleu(references, [" ".join(caption)] * len(references))
        return scores["bleu4"], scores["bleu1"]

    best = max(map(bleu, itertools.chain.from_iterable(references)))
    assert bleu(baselines.constant(references)) == pytest.approx(best)
    assert best[0] > 0
    assert baselines.constant([[["a"]], [["a", "b"]], [["a", "b"]]]) == ["a", "b"]


def test_the_nearest_rows_are_those_at_the_least_angle(monkeypatch, rng):
    monkeypatch.setattr(partial, "BLOCK", 3)
    training, rows = rng.standard_normal((10, 2, 3)), rng.standard_normal((7, 2, 3))
    flat, ours = training.reshape(10, 6), rows.reshape(7, 6)
    angles = [
        [math.acos(a @ b / np.linalg.norm(a) / np.linalg.norm(b)) for a in flat] for b in ours
    ]
    for count in (1, 4, 20):
        found, cosines = baselines.nearest(training, rows, count)
        np.testing.assert_array_equal(found, np.argsort(angles, axis=1)[:, :count])
        np.testing.assert_allclose(cosines, np.cos(np.sort(angles, axis=1))[:, :count], atol=1e-6)
    order = rng.permutation(10)
    chosen = partial.Rows(training, order)
    np.testing.assert_array_equal(baselines.nearest(chosen, training[order])[0][:, 0], range(10))


def test_consensus_is_the_mean_cosine_with_captions_of_pictures_alike(monkeypatch, rng):
    monkeypatch.setattr(consensus, "NEIGHBOURS", 4)
    words = ["<NULL>", "<START>", "<END>", "<UNK>", *"abcdefg"]
    references = [
        [[words[i] for i in rng.integers(4, 11, size=rng.integers(3, 7))] for _ in range(2)]
        for _ in range(9)
    ]
    training, features = rng.standard_normal((9, 5)), rng.standard_normal((6, 5))
    found = Hypotheses(rng.integers(4, 11, size=(6, 3, 5)), rng.standard_normal((6, 3)))
    found.words[:, 1, 3:] = 2, 0

    def vector(caption, n):
        grams = [*zip(*(caption[i:] for i in range(n)), strict=False)]
        value = np.zeros(7**n)
        for gram in grams:
            having = sum(
                any(gram in zip(*(c[i:] for i in range(n)), strict=False) for c in captions)
                for captions in references
            )
            place = sum((words.index(w) - 4) * 7**i for i, w in enumerate(gram))
            value[place] += math.log(9 / max(1, having))
        return value / (np.linalg.norm(value) or 1)

    def likeness(picture, caption):
        cosines = training @ features[picture] / np.linalg.norm(training, axis=1)
        nearest = [i for i in np.argsort(-cosines)[:4] if cosines[i] > 0]
        parts = [
            np.mean([vector(caption, n) @ vector(c, n) for n in range(1, 5) for c in references[i]])
            for i in nearest
        ]
        return np.average(parts, weights=cosines[nearest])

    for weight in (0.0, 3.0, 1e6):
        asked = consensus.Neighbours(training, references)
        choose = consensus.Consensus(asked, dict(enumerate(words)), weight)
        expected = [
            np.argmax([
                score + weight * likeness(i, [words[w] for w in row if w > 2])
                for row, score in zip(found.words[i], found.scores[i], strict=True)
            ])
            for i in range(6)
        ]  # fmt: skip
        np.testing.assert_array_equal(choose(features, found), expected)
    with pytest.raises(ValueError, match="consensus: expected a number of at least 0, got -1.0"):
        consensus.Consensus(asked, {}, -1.0)
    with pytest.raises(ValueError, match="references: expected training pictures with captions"):
        consensus.Neighbours(training[:0], [])


def test_reminders_are_of_words_that_captions_of_pictures_alike_have(monkeypatch, rng):
    monkeypatch.setattr(consensus, "NEIGHBOURS", 2)
    words = ["<NULL>", "<START>", "<END>", "<UNK>", "a", "dog", "cat"]
    model = CaptioningRNN({word: i for i, word in enumerate(words)}, 2, 3, 4, seed=0)
    asked = consensus.Neighbours(
        np.array([[1.0, 0.0], [1.0, 0.1], [0.0, 1.0]]),
        [[["a", "dog"], ["a", "wolf"]], [["a", "a"]], [["cat"]]],
    )
    features, weight = np.array([[2.0, 0.0], [0.1, 1.0]], np.float32), 0.7
    reminded = consensus.Reminded(model, asked, weight)
    (step, state), (own, before) = reminded.start(features), model.start(features)
    rows = np.array([1, 0, 1])  # of beams
    scores, after = step(np.full(3, 1), tuple(s[rows] for s in state))
    plain, expected_after = own(np.full(3, 1), tuple(s[rows] for s in before))
    usual = {"a": 2 / 3, "dog": 1 / 6, "cat": 1 / 3}
    near = [{"a": 1, "dog": 0.5 / (1 + 1 / 1.01**0.5)}, {}]
    cosines = [(0.1 + 0.1) / (1.01**0.5) ** 2, 1 / 1.01**0.5]  # of the second and the third picture
    near[1] = {"a": cosines[0] / sum(cosines), "cat": cosines[1] / sum(cosines)}
    for row, i in enumerate(rows):
        gains = [
            weight * math.log((near[i].get(w, 0) + 0.01) / (usual.get(w, 0) + 0.01)) for w in words
        ]
        np.testing.assert_allclose(scores[row], log_softmax(plain)[row] + gains, rtol=1e-5)
    np.testing.assert_array_equal(after[0], expected_after[0])
    for beam_size in (1, 3):
        same = consensus.Reminded(model, asked, 0.0).sample(features, 5, beam_size=beam_size)
        np.testing.assert_array_equal(same, model.sample(features, 5, beam_size=beam_size))
    with pytest.raises(ValueError, match="reminders: expected a number of at least 0, got nan"):
        consensus.Reminded(model, asked, math.nan)
