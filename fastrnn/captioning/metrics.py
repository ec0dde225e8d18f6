"""Captions against references: BLEU through nltk, of one caption as in the course notebook and of a
corpus; ROUGE-L, CIDEr-D, METEOR; how much a captioner has to say.

References are, for each picture, its captions as lists of words; samples, a decoded caption each.
"""

import math
import warnings
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from itertools import chain
from sys import intern
from typing import Any

import numpy as np

from fastrnn.captioning.data import SPLITS, sample_coco_minibatch
from fastrnn.captioning.model import CaptioningRNN
from fastrnn.captioning.vocabulary import END, START, UNK, decode_captions, tokenize
from fastrnn.optional import require

References = Sequence[Sequence[Sequence[str]]]

# An unknown word is no word: it matches nothing, not even an unknown word of a reference.
_UNMATCHED = object()


def _words(caption: str) -> list[str]:
    """Words of a decoded caption as the notebook counts them."""
    return [
        word
        for word in caption.split(" ")
        if END not in word and START not in word and UNK not in word
    ]


def BLEU_score(gt_caption: str, sample_caption: str) -> float:
    """Unigram BLEU of one caption against one reference (course notebook; Papineni et al. 2002).

    Inputs: decoded captions; <START>, <END> and <UNK> do not count.
    Returns: score in [0, 1]. Raises ValueError for what is no text.
    """
    for caption in (gt_caption, sample_caption):
        if not isinstance(caption, str):
            raise ValueError(f"caption: expected a decoded caption, got {caption!r:.80}")
    bleu = require("nltk.translate.bleu_score")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a score of 0 has no overlap
        return float(bleu.sentence_bleu([_words(gt_caption)], _words(sample_caption), weights=[1]))


def evaluate_model(
    model: CaptioningRNN,
    data: Mapping[str, Any],
    batch_size: int = 1000,
    *,
    seed: int = 0,
    verbose: bool = True,
) -> dict[str, float]:
    """Unigram BLEU averaged over batch_size random captions of each split, greedily sampled (course
    notebook).

    Returns: split to score; verbose prints them.
    """
    scores = {}
    for split in SPLITS:
        captions, features, _ = sample_coco_minibatch(data, batch_size, split, rng=seed)
        references = decode_captions(captions, data["idx_to_word"])
        samples = decode_captions(model.sample(features), data["idx_to_word"])
        pairs = zip(references, samples, strict=True)
        scores[split] = float(np.mean([BLEU_score(*pair) for pair in pairs]))
        if verbose:
            print(f"Average BLEU score for {split}: {scores[split]:f}")
    return scores


def references_by_image(data: Mapping[str, Any], split: str) -> dict[int, list[list[str]]]:
    """All captions of every picture of a split, as lists of words: image index to references. They
    are as they were written where the data set has that, else without the words it does not
    know."""
    if f"{split}_texts" in data:
        captions = map(tokenize, data[f"{split}_texts"])
    else:
        captions = map(words_of, decode_captions(data[f"{split}_captions"], data["idx_to_word"]))
    references = defaultdict(list)
    for image, words in zip(data[f"{split}_image_idxs"], captions, strict=True):
        references[int(image)].append([*map(intern, words)])  # there are few different ones
    return dict(sorted(references.items()))


def words_of(caption: str) -> list[str]:
    """Words of a decoded caption."""
    return [word for word in caption.split() if word not in (START, END)]


def _hypotheses(references: Sequence, samples: Sequence[str]) -> list[list]:
    """Words of the samples. Raises ValueError where these or the references are something else, for
    the letters of a string would pass as words."""
    if isinstance(samples, str) or not all(isinstance(s, str) for s in samples):
        raise ValueError(f"samples: expected a decoded caption a picture, got {samples!r:.80}")
    if len(references) != len(samples):
        raise ValueError(
            f"samples: expected one for each of {len(references)} pictures, got {len(samples)}"
        )
    for captions in references:
        right = not isinstance(captions, str) and len(captions) > 0
        if not right or any(isinstance(words, str) for words in captions):
            raise ValueError(
                "references: expected, for each picture, its captions as lists of words, got "
                f"{captions!r:.80}"
            )
    return [[_UNMATCHED if word == UNK else word for word in words_of(s)] for s in samples]


def corpus_bleu(references: References, samples: Sequence[str]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 of a corpus, all references of a picture counting (Papineni et al. 2002).

    Inputs: references, for each picture its captions as lists of words; samples, its decoded
    caption each. Returns: "bleu1" ... "bleu4", each in [0, 1].
    Raises ValueError for strings in the place of lists, and for a picture without references.
    """
    bleu = require("nltk.translate.bleu_score")
    hypotheses = _hypotheses(references, samples)
    weights = [tuple([1 / n] * n) for n in range(1, 5)]
    if not any(hypotheses):
        return {f"bleu{n}": 0.0 for n in range(1, 5)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a score of 0 has no overlap
        scores = bleu.corpus_bleu(references, hypotheses, weights)
    # Where no n-gram matches nltk takes the smallest float for 0; its roots are not scores.
    return {f"bleu{n}": float(s) if s > 1e-9 else 0.0 for n, s in enumerate(scores, 1)}


def rouge_l(references: References, samples: Sequence[str], beta: float = 1.2) -> np.ndarray:
    """ROUGE-L of every picture (Lin 2004): the F-measure, with recall beta times as important, of
    the longest common subsequence; of several references the highest recall and the highest
    precision, as COCO's evaluation has it.

    Inputs: as corpus_bleu's. Returns: (len(samples),), each in [0, 1]. Raises ValueError as there.
    """

    def score(words: list, captions: list[list[str]]) -> float:
        common = [_common(words, caption) for caption in captions]
        precision = max(common) / max(1, len(words))
        recall = max(n / max(1, len(c)) for n, c in zip(common, captions, strict=True))
        if not max(common):
            return 0.0
        return (1 + beta**2) * precision * recall / (recall + beta**2 * precision)

    pairs = zip(_hypotheses(references, samples), references, strict=True)
    return np.array([score(words, captions) for words, captions in pairs])


def _common(one: list, other: list) -> int:
    """Length of the longest common subsequence."""
    row = [0] * (len(other) + 1)
    for word in one:
        before = row
        row = [0]
        for j, same in enumerate(other):
            row.append(before[j] + 1 if word == same else max(before[j + 1], row[j]))
    return row[-1]


def cider_d(references: References, samples: Sequence[str], sigma: float = 6) -> np.ndarray:
    """CIDEr-D of every picture (Vedantam et al. 2015): ten times the cosine of n-grams weighted by
    how few of the pictures have them, clipped, averaged over n = 1 to 4 and the references, less
    where lengths differ (sigma).

    Inputs: as corpus_bleu's; what is rare is told by these references alone, so scores of different
    sets of pictures do not compare. Returns: (len(samples),). Raises ValueError as corpus_bleu.
    """
    hypotheses = _hypotheses(references, samples)
    counted = [[ngrams(words) for words in captions] for captions in references]
    having = Counter(chain.from_iterable(set().union(*captions) for captions in counted))
    pictures = math.log(max(1, len(references)))

    def weighted(counts: Counter) -> tuple[list[dict], list[float]]:
        vectors: list[dict] = [{}, {}, {}, {}]
        for ngram, count in counts.items():
            rarity = pictures - math.log(max(1, having[ngram]))
            vectors[len(ngram) - 1][ngram] = count * rarity
        return vectors, [math.sqrt(sum(w * w for w in v.values())) for v in vectors]

    def similarity(one, other) -> float:
        total = 0.0
        for a, norm_a, b, norm_b in zip(*one, *other, strict=True):
            if norm_a and norm_b:
                shared = (min(w, b[ngram]) * b[ngram] for ngram, w in a.items() if ngram in b)
                total += sum(shared) / (norm_a * norm_b)
        return total / 4

    def score(words: list, captions: list[list[str]], counts: list[Counter]) -> float:
        said = weighted(ngrams(words))
        parts = [
            similarity(said, weighted(of_one))
            * math.exp(-((len(words) - len(caption)) ** 2) / (2 * sigma**2))
            for caption, of_one in zip(captions, counts, strict=True)
        ]
        return 10 * sum(parts) / len(parts)

    return np.array([score(*each) for each in zip(hypotheses, references, counted, strict=True)])


def ngrams(words: Sequence) -> Counter:
    """How often each run of one to four words occurs."""
    return Counter(tuple(words[i : i + n]) for n in range(1, 5) for i in range(len(words) - n + 1))


def meteor(references: References, samples: Sequence[str]) -> np.ndarray:
    """METEOR of every picture (Banerjee and Lavie 2005), nltk's, with synonyms from WordNet.

    Inputs: as corpus_bleu's. Returns: (len(samples),), each in [0, 1]. Raises ValueError as there,
    LookupError where nltk's data has no WordNet.
    """
    score, wordnet = require("nltk.translate.meteor_score"), require("nltk.corpus").wordnet
    try:
        wordnet.ensure_loaded()
    except (LookupError, OSError):
        raise LookupError(
            "METEOR needs WordNet, which nltk has not found: python -m nltk.downloader wordnet"
        ) from None
    said = (
        ["\0" if word is _UNMATCHED else word for word in words]
        for words in _hypotheses(references, samples)
    )
    pairs = zip(references, said, strict=True)
    scores = (score.meteor_score(captions, words, wordnet=wordnet) for captions, words in pairs)
    return np.array([*scores])


def diversity(samples: Sequence[str], training: Iterable[Sequence[str]] | None = None) -> dict:
    """How much a captioner has to say: "words", how many different ones; "distinct1" and
    "distinct2", the share of different words and pairs of words among all (Li et al. 2016);
    "novel", the share of captions that none of the training's are, as lists of words."""
    said = [tuple(words_of(sample)) for sample in samples]
    runs = Counter()
    for words in said:
        runs.update({g: n for g, n in ngrams(words).items() if len(g) < 3})
    figures: dict[str, float] = {"words": sum(len(ngram) == 1 for ngram in runs)}
    for n in (1, 2):
        of_length = [count for ngram, count in runs.items() if len(ngram) == n]
        figures[f"distinct{n}"] = len(of_length) / max(1, sum(of_length))
    if training is not None:
        known = {*map(tuple, training)}
        figures["novel"] = sum(words not in known for words in said) / max(1, len(said))
    return figures
