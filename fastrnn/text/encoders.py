"""From sentences to vectors of a fixed size, and back: what the models differ in.

An encoder is a description; its parameters are a dict of arrays by name. forward(params, sentences,
rng) -> features (N, F), cache; backward(dfeatures, cache) -> gradients by name. rng drops out
(None: nothing is dropped).

Letters: N sentences, T words, V vocabulary, W word vector, H hidden, G gates, F features.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.backends.caches import RowGradient
from fastrnn.layers import dense, recurrent
from fastrnn.layers.dropout import dropout
from fastrnn.layers.prepared import PreparedWeights, prepare
from fastrnn.text import pooling
from fastrnn.text.vocabulary import Sentences

Params = dict[str, np.ndarray]


class Bag(NamedTuple):
    """The sum ("sum") or the mean ("mean") of the vectors of a sentence's words."""

    dim: int  # W = F
    mode: str
    word_dropout: float = 0.0  # of words
    tuned: bool = True  # the vectors get gradients
    scale: float = 0.1  # of the initial vectors

    @property
    def size(self) -> int:
        """F."""
        return self.dim

    def shapes(self, V: int) -> dict[str, tuple[int, ...]]:
        """Of its parameters."""
        return {"W_embed": (V, self.dim)}

    def init(self, V: int, rng: np.random.Generator) -> Params:
        """Initial parameters; the vector of unknown words is 0."""
        return {"W_embed": _word_vectors(V, self.dim, self.scale, rng)}

    def forward(self, params: Params, sentences: Sentences, rng: np.random.Generator | None):
        if rng is not None and self.word_dropout:
            kept = rng.random(len(sentences.words), dtype=np.float32) >= self.word_dropout
            sentences = sentences.keep(kept)
        words, lengths = sentences.words, sentences.lengths
        return dense.embedding_bag_forward(words, lengths, params["W_embed"], mode=self.mode)

    def backward(self, dfeatures: np.ndarray, cache):
        if not self.tuned:
            return {}
        return {"W_embed": dense.embedding_bag_backward(dfeatures, cache, sparse=True)}


class Recurrent(NamedTuple):
    """The states, pooled over time, of a recurrent network that reads the sentence; with
    bidirectional also those of another one that reads it backwards."""

    cell: str
    dim: int  # W
    hidden: int  # H
    bidirectional: bool = False
    pooling: str = "last"  # names of pooling.POOLINGS, joined by +
    word_dropout: float = 0.0  # a word becomes an unknown one
    embedding_dropout: float = 0.0  # of the elements of a word's vector, the same in all a batch
    tuned: bool = True
    scale: float = 0.1

    @property
    def directions(self) -> str:
        """f forwards, b backwards; a parameter's last letter."""
        return "fb" if self.bidirectional else "f"

    @property
    def poolings(self) -> list[str]:
        return self.pooling.split("+")

    @property
    def size(self) -> int:
        """F."""
        return self.hidden * len(self.directions) * len(self.poolings)

    def shapes(self, V: int) -> dict[str, tuple[int, ...]]:
        """Of its parameters."""
        W, H, columns = self.dim, self.hidden, recurrent.GATES[self.cell] * self.hidden
        shapes = {"W_embed": (V, W)}
        for d in self.directions:
            shapes |= {f"Wx_{d}": (W, columns), f"Wh_{d}": (H, columns), f"b_{d}": (columns,)}
        return shapes

    def init(self, V: int, rng: np.random.Generator) -> Params:
        """Initial parameters: Wh orthogonal a gate (Saxe et al. 2014), the LSTM's forget gate open
        (Gers et al. 2000)."""
        W, H, G = self.dim, self.hidden, recurrent.GATES[self.cell]
        params = {"W_embed": _word_vectors(V, W, self.scale, rng)}
        for d in self.directions:
            params[f"Wx_{d}"] = rng.standard_normal((W, G * H)) * W**-0.5
            blocks = [_orthogonal(H, rng) for _ in range(G)]
            params[f"Wh_{d}"] = np.concatenate(blocks, axis=1)
            params[f"b_{d}"] = np.zeros(G * H)
            if self.cell == "lstm":
                params[f"b_{d}"][H : 2 * H] = 1  # gates i f o g
        return params

    def prepared(self, params: Params) -> dict[str, PreparedWeights]:
        """The weights of each direction made ready for many forward passes, to stand in the params
        of predictions, which no backward pass follows."""
        return {f"cell_{d}": prepare(self.cell, *weights) for d, weights in self._weights(params)}

    def _weights(self, params: Params) -> Iterator[tuple[str, tuple]]:
        """Every direction with its weights, as they are or prepared."""
        for d in self.directions:
            if f"cell_{d}" in params:
                yield d, (params[f"cell_{d}"],)
            else:
                yield d, tuple(params[f"{name}_{d}"] for name in ("Wx", "Wh", "b"))

    def forward(self, params: Params, sentences: Sentences, rng: np.random.Generator | None):
        x, steps, rows, mask = self._read(params, sentences, rng)
        lengths = sentences.lengths
        h0 = np.zeros((len(lengths), self.hidden), x.dtype)
        scan = getattr(recurrent, f"{self.cell}_forward")
        features, cells, pooled = [], [], []
        training = not _are_prepared(params)
        for d, weights in self._weights(params):
            h, cell = scan(x, h0, *weights, **steps, reverse=d == "b", training=training)
            for kind in self.poolings:
                feature, cache = pooling.POOLINGS[kind].forward(h, cell.hT, lengths)
                features.append(feature)
                pooled.append(cache)
            cells.append(cell)
        features = features[0] if len(features) == 1 else np.concatenate(features, axis=1)
        return features, (rows, mask, cells, pooled)

    def _read(self, params: Params, sentences: Sentences, rng: np.random.Generator | None):
        """The vectors of the words, the keywords that tell a layer how to read them, which words
        they are of, and the mask."""
        W_embed, words = params["W_embed"], sentences.words
        if _are_prepared(params) and len(sentences.first) == 2:  # one to predict: as it is
            return W_embed[words][None], {}, None, None
        if rng is not None and self.word_dropout:
            words = words * (rng.random(len(words), dtype=np.float32) >= self.word_dropout)
        rows, places = get_backend().distinct(words)
        x = W_embed[rows]
        mask = dropout(rng, self.embedding_dropout, x.shape, x.dtype)
        if mask is not None:
            x *= mask
        index = sentences._replace(words=places).padded()
        return x, {"index": index, "lengths": sentences.lengths}, rows, mask

    def backward(self, dfeatures: np.ndarray, cache):
        rows, mask, cells, pooled = cache
        scan = getattr(recurrent, f"{self.cell}_backward")
        dfeatures = iter(np.split(dfeatures, len(pooled), axis=1))
        pooled, grads, dxs = iter(pooled), {}, []
        for d, cell in zip(self.directions, cells, strict=True):
            dh = dhT = None
            for kind in self.poolings:
                upstream = np.ascontiguousarray(next(dfeatures)), cell, next(pooled)
                to_h, to_hT = pooling.POOLINGS[kind].backward(*upstream)
                dh, dhT = _add(dh, to_h), _add(dhT, to_hT)
            dx, _, *weights = scan(dh, cell, dhT=dhT)
            dxs.append(dx)
            grads |= {f"{n}_{d}": g for n, g in zip(("Wx", "Wh", "b"), weights, strict=True)}
        if self.tuned:
            dx = dxs[0] if len(dxs) == 1 else dxs[0] + dxs[1]
            if mask is not None:
                dx *= mask
            grads["W_embed"] = RowGradient(rows, dx)
        return grads


def _are_prepared(params: Params) -> bool:
    """Whether they are those of predictions, which Recurrent.prepared has made."""
    return "cell_f" in params


def _word_vectors(V: int, W: int, scale: float, rng: np.random.Generator) -> np.ndarray:
    vectors = scale * rng.standard_normal((V, W))
    vectors[0] = 0
    return vectors


def _orthogonal(n: int, rng: np.random.Generator) -> np.ndarray:
    """A random orthogonal matrix, by Gram-Schmidt, twice (Giraud et al. 2005). Not np.linalg.qr,
    whose bits depend on the number of BLAS threads."""
    Q = rng.standard_normal((n, n))
    for i in range(n):
        for _ in range(2):
            Q[i] -= np.einsum("j,jk->k", np.einsum("jk,k->j", Q[:i], Q[i]), Q[:i])
        Q[i] /= np.sqrt(np.einsum("k,k", Q[i], Q[i]))
    return Q


def _add(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    return b if a is None else a if b is None else a + b
