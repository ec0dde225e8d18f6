"""Pre-training of a recurrent encoder: it learns from texts without labels which word comes next
(Dai and Le 2015; Howard and Ruder 2018), and backwards which one came before.

Letters: N sentences, T words, V vocabulary, W word vector, H hidden, K words to say, C candidates.
"""

import numpy as np

from fastrnn.backends import get_backend, use_backend
from fastrnn.backends.caches import RowGradient
from fastrnn.layers import dense, losses
from fastrnn.layers.dropout import dropout
from fastrnn.text.encoders import Params, Random, Recurrent
from fastrnn.text.gradients import added
from fastrnn.text.vocabulary import Sentences

# A text is read in pieces of so many words, and scores are computed for so many at a time.
LONGEST, AT_ONCE = 256, 2048
LEARNING_RATE, LR_DECAY, BATCH = 3e-3, 0.85, 64


class LanguageModel:
    """Scores of words to come: a state, brought to W numbers, times the vectors of the words, which
    are those that are read (Inan et al. 2017).

    Candidates are the words of the batch alone, whose scores are less the logarithm of how likely
    they are to be there (Bengio and Senecal 2008; Yi et al. 2019): hundreds in place of V.

    Parameters: encoder; params, its own, trained in place; counts (V,) of the words in all texts;
    dropout, of the states; backend; seed of the other parameters.
    """

    multilabel = False

    def __init__(
        self,
        encoder: Recurrent,
        params: Params,
        counts: np.ndarray,
        *,
        dropout: float = 0.0,
        backend: str | None = None,
        seed: int | tuple[int, ...] | None = None,
    ) -> None:
        rng, dtype = np.random.default_rng(seed), params["W_embed"].dtype
        V, W = params["W_embed"].shape
        H = encoder.hidden
        bring = {f"bring_{d}": rng.standard_normal((H, W)) * H**-0.5 for d in encoder.directions}
        new = bring | {"b_words": np.zeros(V)}
        self.encoder, self.dropout, self.backend = encoder, dropout, backend
        self.params = params | {name: w.astype(dtype) for name, w in new.items()}
        self._absent = np.log1p(-counts / (counts.sum() + 1))  # log of 1 - a word's share

    def loss(
        self, sentences: Sentences, y: object = None, weights: object = None, rng: Random = None
    ):
        """Cross-entropy averaged over the words to say, and gradients by name, as Network.loss has
        them; y and weights are not read. An unknown word is read, and never said."""
        encoder, words, lengths = self.encoder, sentences.padded(), sentences.lengths
        to_say = [_neighbours(words, lengths, d == "b") for d in encoder.directions]
        K = max(1, sum(len(y) for _, y in to_say))
        with use_backend(self.backend):
            outputs, _, read = encoder.states(self.params, sentences, rng)
            loss, grads, dh = 0.0, {}, []
            for d, h, (at, y) in zip(encoder.directions, outputs, to_say, strict=True):
                more, dsaid, of_output = self._say(d, h[at], y, rng)
                loss += more / K
                dh.append(np.zeros_like(h))
                dh[-1][at] = dsaid / K
                for name, dw in of_output.items():
                    grads[name] = added(grads.get(name), dw, 1 / K)
            for name, dw in encoder.states_backward(dh, [None] * len(dh), read).items():
                grads[name] = added(grads.get(name), dw)
        if not encoder.tuned:
            del grads["W_embed"]
        return loss, grads

    def _say(self, d: str, h: np.ndarray, y: np.ndarray, rng: Random):
        """The cross-entropy of words y (K,) after the states h (K, H), summed; the gradients of h
        and, by name, of parameters."""
        params, bring = self.params, f"bring_{d}"
        mask = dropout(rng, self.dropout, h.shape, h.dtype)
        h = h if mask is None else h * mask
        candidates, places = get_backend().distinct(y)
        dtype = h.dtype
        there = np.log(-np.expm1(len(y) * self._absent[candidates])).astype(dtype)
        vectors = np.ascontiguousarray(params["W_embed"][candidates].T)
        shift = params["b_words"][candidates] - there
        total, dh = 0.0, np.empty_like(h)
        dbring = np.zeros_like(params[bring])
        dvectors, db = np.zeros_like(vectors), np.zeros_like(params["b_words"])
        for begin in range(0, len(y), AT_ONCE):
            part = slice(begin, begin + AT_ONCE)
            brought, first = dense.affine_forward(
                h[part], params[bring], np.zeros(len(vectors), dtype)
            )
            scores, second = dense.affine_forward(brought, vectors, shift)
            loss, dscores = losses.softmax_loss(scores, places[part])
            total += loss * len(scores)
            dscores *= len(scores)
            dbrought, more, db_part = dense.affine_backward(dscores, second)
            dvectors += more
            db[candidates] += db_part
            dh[part], more, _ = dense.affine_backward(dbrought, first)
            dbring += more
        if mask is not None:
            dh *= mask
        of_vectors = RowGradient(candidates, np.ascontiguousarray(dvectors.T))
        return total, dh, {bring: dbring, "b_words": db, "W_embed": of_vectors}


def _neighbours(
    words: np.ndarray, lengths: np.ndarray, before: bool
) -> tuple[np.ndarray, np.ndarray]:
    """Where in words (N, T) a known word comes next, or before, bool (N, T); those words (K,)."""
    at = np.zeros(words.shape, bool)
    pairs = np.arange(1, words.shape[1]) < lengths[:, None]  # steps with one before
    here, there = (slice(1, None), slice(-1)) if before else (slice(-1), slice(1, None))
    at[:, here] = pairs & (words[:, there] > 0)
    return at, words[:, there][at[:, here]]


def pieces(sentences: Sentences) -> Sentences:
    """The same words in sentences of at most LONGEST."""
    counts = -(-sentences.lengths // LONGEST)
    number = np.arange(counts.sum()) - np.repeat(counts.cumsum() - counts, counts)
    begins = np.repeat(sentences.first[:-1], counts) + LONGEST * number
    return Sentences(sentences.words, np.append(begins, sentences.first[-1]))
