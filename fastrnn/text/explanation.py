"""The words that moved a prediction: what it loses when each is left out (occlusion, Zeiler and
Fergus 2014).

Letters: L tokens, R runs of tokens, P pieces of the text that are left out in turn, C classes.
"""

from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.printing import printable
from fastrnn.text.model import WORDS, TextModel
from fastrnn.text.vocabulary import TOKENIZERS, Sentences, as_sets

# The tokens of a text are left out several at a time where there are more than PIECES, or where all
# that is read together would be more than READ words; but FEWEST pieces there are.
PIECES, READ, FEWEST = 512, 1 << 22, 16


class Explanation(NamedTuple):
    """Of one text: its tokens; proba (C,); moved (L, C), the probabilities of the classes less what
    they are without each token."""

    tokens: list[str]
    proba: np.ndarray
    moved: np.ndarray

    def strongest(self, c: int, most: int) -> list[tuple[str, float]]:
        """The tokens that moved a class most, and by how much."""
        moved = self.moved[:, c]
        order = np.argsort(-abs(moved), kind="stable")[:most]
        return [(self.tokens[i], float(moved[i])) for i in order if moved[i]]


def explain(
    model: TextModel, text: str, *, watch: Callable[[Sequence], Iterable] = iter
) -> Explanation:
    """What each token means to a model's prediction. In its place stands an unknown word; a bag of
    words loses it wherever it stands. Of a long text neighbours are left out together, and each has
    the whole piece's share. watch wraps the iteration over what is predicted at a time."""
    vocabulary = model.vocabulary
    tokens = TOKENIZERS[vocabulary.tokenizer](text)
    (words, _), L = vocabulary.encode([text]), len(tokens)
    begins, lengths = _runs(L, vocabulary.ngrams)
    P = min(L, PIECES, max(FEWEST, READ // max(L, 1)))
    piece = np.arange(L) * P // max(L, 1)
    of_first, of_last = piece[begins], piece[begins + lengths - 1]
    distinct, places = np.unique(words, return_inverse=True)
    bag, proba = model.settings["model"] == "bow", []
    at_once = max(1, WORDS // max(len(words), 1))
    for first in watch(range(-1, P, at_once)):  # number -1 leaves nothing out
        left_out = np.arange(first, min(P, first + at_once))[:, None]
        hidden = (of_first <= left_out) & (left_out <= of_last)
        if bag:
            gone = np.zeros((len(hidden), len(distinct)), bool)
            rows, runs = np.nonzero(hidden)
            gone[rows, places[runs]] = True
            hidden = gone[:, places]
        seen = np.where(hidden, 0, words)
        sentences = Sentences(seen.ravel(), np.arange(len(seen) + 1) * len(words))
        proba.append(model.proba(as_sets(sentences) if bag else sentences))
    proba = np.concatenate(proba)
    return Explanation(tokens, proba[0], proba[0] - proba[1:][piece])


def _runs(L: int, ngrams: int) -> tuple[np.ndarray, np.ndarray]:
    """Where the runs of up to so many of L tokens begin (R,) and how long they are (R,), in a
    vocabulary's order."""
    counts = [max(0, L - n + 1) for n in range(1, ngrams + 1)]
    begins = np.concatenate([np.arange(count) for count in counts])
    return begins, np.repeat(np.arange(1, ngrams + 1), counts)


def as_text(explanation: Explanation, label: str, c: int, most: int, note: str = "") -> str:
    """The class, its probability and a note in a line, and below it the strongest tokens."""
    lines = [f"{printable(label)} {explanation.proba[c]:.4f}{note}"]
    moved = explanation.strongest(c, most)
    lines += [f"  {by:+.4f}  {printable(token)}" for token, by in moved]
    return "\n".join(lines)
