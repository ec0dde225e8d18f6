"""BLEU through nltk: of one caption as in the course notebook, of a corpus with all references."""

import warnings
from collections import defaultdict

import numpy as np

from fastrnn.captioning.captioner import END, START, UNK
from fastrnn.captioning.data import SPLITS, sample_coco_minibatch
from fastrnn.captioning.model import CaptioningRNN
from fastrnn.captioning.vocabulary import decode_captions
from fastrnn.optional import require

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
    Returns: score in [0, 1].
    """
    bleu = require("nltk.translate.bleu_score")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a score of 0 has no overlap
        return float(bleu.sentence_bleu([_words(gt_caption)], _words(sample_caption), weights=[1]))


def evaluate_model(
    model: CaptioningRNN,
    data: dict[str, object],
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


def references_by_image(data: dict[str, object], split: str) -> dict[int, list[list[str]]]:
    """All captions of every picture of a split, as lists of words: image index to references."""
    references = defaultdict(list)
    decoded = decode_captions(data[f"{split}_captions"], data["idx_to_word"])
    for image, caption in zip(data[f"{split}_image_idxs"], decoded, strict=True):
        references[int(image)].append([w for w in caption.split() if w not in (START, END)])
    return dict(sorted(references.items()))


def corpus_bleu(references: list[list[list[str]]], samples: list[str]) -> dict[str, float]:
    """BLEU-1 to BLEU-4 of a corpus, all references of a picture counting (Papineni et al. 2002).

    Inputs: references, for each picture its captions as lists of words; samples, its decoded
    caption each. Returns: "bleu1" ... "bleu4", each in [0, 1].
    """
    bleu = require("nltk.translate.bleu_score")
    hypotheses = [
        [_UNMATCHED if word == UNK else word for word in s.split() if word not in (START, END)]
        for s in samples
    ]
    weights = [tuple([1 / n] * n) for n in range(1, 5)]
    if not any(hypotheses):
        return {f"bleu{n}": 0.0 for n in range(1, 5)}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that a score of 0 has no overlap
        scores = bleu.corpus_bleu(references, hypotheses, weights)
    # Where no n-gram matches nltk takes the smallest float for 0; its roots are not scores.
    return {f"bleu{n}": float(s) if s > 1e-9 else 0.0 for n, s in enumerate(scores, 1)}
