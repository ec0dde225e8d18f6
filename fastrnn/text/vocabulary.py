"""Sentences as word indices: tokens, the vocabulary, and ragged batches without padding."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from itertools import chain, repeat
from typing import NamedTuple

import numpy as np

from fastrnn.tokens import normalized, words

UNKNOWN = "<unk>"

# How a text becomes tokens: as its white space says, or lower-cased words and punctuation marks.
TOKENIZERS: dict[str, Callable[[str], list[str]]] = {"space": str.split, "words": words}


class Sentences(NamedTuple):
    """Ragged sequences: sentence i has the words first[i]..first[i + 1]."""

    words: np.ndarray  # (total,) np.intp
    first: np.ndarray  # (N + 1,) np.intp

    @property
    def lengths(self) -> np.ndarray:
        """Words of each sentence (N,)."""
        return self.first[1:] - self.first[:-1]

    def take(self, examples: np.ndarray) -> "Sentences":
        """The sentences with these indices, in this order."""
        begin = self.first[examples]
        lengths = self.first[1:][examples] - begin
        first = _running_sum(lengths)
        at = np.arange(first[-1]) + np.repeat(begin - first[:-1], lengths)
        return Sentences(self.words[at], first)

    def keep(self, kept: np.ndarray) -> "Sentences":
        """The sentences with only the words where kept (total,) is true."""
        return Sentences(self.words[kept], _running_sum(kept)[self.first])

    def padded(self) -> np.ndarray:
        """The words as a rectangle (N, T), 0 past the lengths."""
        lengths = self.lengths
        if len(lengths) == 1:
            return self.words[None]
        T = int(lengths.max(initial=0))
        x = np.zeros((len(lengths), T), np.intp)
        x[np.arange(T) < lengths[:, None]] = self.words
        return x


def _running_sum(counts: np.ndarray) -> np.ndarray:
    first = np.zeros(len(counts) + 1, np.intp)
    np.cumsum(counts, out=first[1:])
    return first


class Vocabulary:
    """The words of a model, of which index 0 stands for all others.

    Parameters: words, <unk> first; ngrams, from 2 on runs of up to so many tokens are words too,
    spelled with blanks; tokenizer, a name in TOKENIZERS.
    Raises ValueError for other parameters.
    """

    def __init__(self, words: Sequence[str], ngrams: int = 1, tokenizer: str = "space") -> None:
        if not words or words[0] != UNKNOWN:
            raise ValueError(f"words: expected {UNKNOWN} first, got {list(words[:1])}")
        self.words, self.ngrams, self.tokenizer = list(words), ngrams, tokenizer
        self.index = {word: i for i, word in enumerate(self.words)}
        if len(self.index) != len(self.words):
            raise ValueError("words: expected every word once")
        if tokenizer == "words":  # of a version that kept typographic apostrophes
            for i, word in enumerate(self.words):
                self.index.setdefault(normalized(word), i)
        self._tokens = _tokens(ngrams, tokenizer)

    def __len__(self) -> int:
        return len(self.words)

    def __reduce__(self):  # the function that cuts texts cannot be pickled
        return Vocabulary, (self.words, self.ngrams, self.tokenizer)

    @classmethod
    def of(
        cls,
        texts: Iterable[str],
        *,
        ngrams: int = 1,
        tokenizer: str = "space",
        min_count: int = 1,
    ) -> "Vocabulary":
        """The words that occur at least min_count times in texts, the most frequent first, of
        equally frequent ones the first to occur."""
        counts = Counter(chain.from_iterable(map(_tokens(ngrams, tokenizer), texts)))
        counts.pop(UNKNOWN, None)
        known = [word for word, n in counts.most_common() if n >= min_count]
        return cls([UNKNOWN, *known], ngrams, tokenizer)

    def encode(self, texts: Sequence[str]) -> Sentences:
        """Texts as word indices."""
        split = list(map(self._tokens, texts))
        first = _running_sum(np.fromiter(map(len, split), np.intp, len(split)))
        found = map(self.index.get, chain.from_iterable(split), repeat(0))
        return Sentences(np.fromiter(found, np.intp, first[-1]), first)


def _tokens(ngrams: int, tokenizer: str) -> Callable[[str], list[str]]:
    """The function from a text to its tokens and runs of tokens."""
    if tokenizer not in TOKENIZERS:
        raise ValueError(f"tokenizer: expected one of {list(TOKENIZERS)}, got {tokenizer!r}")
    if ngrams < 1:
        raise ValueError(f"ngrams: expected an integer of at least 1, got {ngrams!r}")
    split = TOKENIZERS[tokenizer]
    if ngrams == 1:
        return split

    def runs(text: str) -> list[str]:
        words = split(text)
        longer = (zip(*(words[i:] for i in range(n)), strict=False) for n in range(2, ngrams + 1))
        return words + [" ".join(run) for run in chain.from_iterable(longer)]

    return runs


def as_sets(sentences: Sentences) -> Sentences:
    """Every known word of a sentence once, in ascending order."""
    N, V = len(sentences.first) - 1, int(sentences.words.max(initial=0)) + 1
    if N == 1:  # as predictions come: a quarter of the time
        words = np.array(sorted({*sentences.words.tolist()} - {0}), np.intp)
        return Sentences(words, np.array([0, len(words)], np.intp))
    keys = np.sort(np.repeat(np.arange(N) * V, sentences.lengths) + sentences.words)
    sentence, words = np.divmod(keys, V)
    once = words > 0
    once[1:] &= keys[1:] != keys[:-1]
    return Sentences(words[once], _running_sum(np.bincount(sentence[once], minlength=N)))
