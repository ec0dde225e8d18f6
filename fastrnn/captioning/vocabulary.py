"""Between captions as text and captions as rows of word indices."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence

import numpy as np

from fastrnn.tokens import words

NULL, START, END, UNK = SPECIAL = ["<NULL>", "<START>", "<END>", "<UNK>"]


def tokenize(caption: str) -> list[str]:
    """Lower-case words; punctuation is dropped, inner hyphens and apostrophes stay."""
    return words(caption, joining="'-", punctuation=False)


def build_vocabulary(captions: Iterable[Sequence[str]], min_count: int = 1) -> list[str]:
    """The special words, then every word that occurs at least min_count times, most frequent first
    (ties in alphabetical order)."""
    counts = Counter(word for caption in captions for word in caption)
    kept = [word for word, n in counts.items() if n >= min_count and word not in SPECIAL]
    return SPECIAL + sorted(kept, key=lambda word: (-counts[word], word))


def check_indices(word_to_idx: Mapping[str, int]) -> None:
    """Raise ValueError unless every index from 0 to V - 1 has one word."""
    if sorted(word_to_idx.values()) != [*range(len(word_to_idx))]:
        raise ValueError(
            f"word_to_idx: expected each index below {len(word_to_idx)} once, and no other"
        )


def encode(
    captions: Sequence[Sequence[str]], word_to_idx: dict[str, int], max_words: int | None = None
) -> np.ndarray:
    """<START> words <END> as indices, <UNK> for unknown ones, padded with <NULL>.

    Inputs: captions, lists of words; max_words, words kept of a caption (None: all).
    Returns: (len(captions), T) int32, T = most words + 2.
    """
    cut = [caption[:max_words] for caption in captions]
    T = max(map(len, cut), default=0) + 2
    encoded = np.full((len(cut), T), word_to_idx[NULL], dtype=np.int32)
    unknown = word_to_idx[UNK]
    for row, caption in zip(encoded, cut, strict=True):
        indices = [word_to_idx.get(word, unknown) for word in caption]
        row[: len(indices) + 2] = [word_to_idx[START], *indices, word_to_idx[END]]
    return encoded


def decode_captions(captions: np.ndarray, idx_to_word: Sequence[str]) -> list[str] | str:
    """Word indices to text: up to and with <END>, <NULL> left out (course notebooks).

    Inputs: captions (N, T) or one caption (T,), idx_to_word, index to word.
    Returns: N strings, or one.
    """
    captions = np.asarray(captions)
    if captions.ndim == 1:
        return _decode_one(captions, idx_to_word)
    return [_decode_one(caption, idx_to_word) for caption in captions]


def _decode_one(caption: np.ndarray, idx_to_word: Sequence[str]) -> str:
    words = []
    for i in caption:
        word = idx_to_word[int(i)]
        if word != NULL:
            words.append(word)
        if word == END:
            break
    return " ".join(words)
