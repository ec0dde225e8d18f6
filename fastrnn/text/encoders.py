"""From sentences to vectors of a fixed size, and back: what the models differ in.

An encoder is a description; its parameters are a dict of arrays by name. forward(params, sentences,
rng, training=True) -> features (N, F), cache; backward(dfeatures, cache) -> gradients by name. rng
drops out (None: nothing is dropped); training is False in predictions, which no backward pass
follows.

Letters: N sentences, T words, V vocabulary, W word vector, H hidden, G gates, F features.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.backends.caches import RowGradient
from fastrnn.cells import ALL_STEPS, Steps
from fastrnn.layers import dense
from fastrnn.layers.dropout import dropout
from fastrnn.nn import direction, init, single, stack
from fastrnn.nn.stack import Form, Weights
from fastrnn.text.pooling import POOLINGS
from fastrnn.text.vocabulary import Sentences

# Steps of a sentence alone in its batch that predictions have in memory.
CHUNK = 1 << 14

Params = dict[str, np.ndarray]
Random = np.random.Generator | None
Gradient = np.ndarray | None


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

    def forward(self, params: Params, sentences: Sentences, rng: Random, training: bool = True):
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
    pooling: str = "last"  # names of POOLINGS, joined by +
    word_dropout: float = 0.0  # a word becomes an unknown one
    embedding_dropout: float = 0.0  # of the elements of a word's vector, the same in all a batch
    tuned: bool = True
    scale: float = 0.1
    zoneout: float = 0.0  # of the states
    recurrent_dropout: float = 0.0  # of h where it goes back in, the same at every step

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
        of_layer = single.shapes(self.cell, self.dim, self.hidden).items()
        shapes = {f"{name}_{d}": shape for d in self.directions for name, shape in of_layer}
        return {"W_embed": (V, self.dim)} | shapes

    def init(self, V: int, rng: np.random.Generator) -> Params:
        """Initial parameters: Wh orthogonal a gate (Saxe et al. 2014), u in [0, 1) (Li et al.
        2018), the LSTM's forget gate open (Gers et al. 2000)."""
        W, H = self.dim, self.hidden
        params = {"W_embed": _word_vectors(V, W, self.scale, rng)}
        for d in self.directions:
            for name, shape in single.shapes(self.cell, W, H).items():
                if name == "Wx":
                    w = rng.standard_normal(shape) * W**-0.5
                elif name == "Wh":
                    blocks = [init.orthogonal(rng, H, H) for _ in range(shape[1] // H)]
                    w = np.concatenate(blocks, axis=1)
                elif name.startswith(("gain", "shift")):
                    w = np.full(shape, init.of_norm(name, single.plain(self.cell)))
                else:
                    w = init.of_units(rng, H) if name == "u" else np.zeros(shape)
                params[f"{name}_{d}"] = w
            if single.plain(self.cell) == "lstm":
                params[f"b_{d}"][H : 2 * H] = 1  # gates i f o g
        return params

    @property
    def form(self) -> Form:
        """Of its one layer."""
        return single.form(
            self.cell, self.zoneout, self.recurrent_dropout, bidirectional=self.bidirectional
        )

    def prepared(self, params: Params) -> dict[str, Weights]:
        """The weights of each direction made ready for many forward passes, to stand in the params
        of predictions, which no backward pass follows."""
        layer = zip(self.directions, self._layer(params), strict=True)
        return {f"cell_{d}": single.prepared(self.cell, weights) for d, weights in layer}

    def _layer(self, params: Params) -> list[Weights]:
        """Weights a direction, as they are or prepared."""
        if _are_prepared(params):
            return [params[f"cell_{d}"] for d in self.directions]
        return [single.weights(params, f"_{d}") for d in self.directions]

    def forward(self, params: Params, sentences: Sentences, rng: Random, training: bool = True):
        if not training and len(sentences.first) == 2 and len(sentences.words) > CHUNK:
            return self._in_chunks(params, sentences.words), None
        outputs, lasts, read = self.states(params, sentences, rng, training)
        features, pooled = [], []
        for h, (hT, *_) in zip(outputs, lasts, strict=True):
            for kind in self.poolings:
                feature, cache = POOLINGS[kind].forward(h, hT, sentences.lengths)
                features.append(feature)
                pooled.append(cache)
        features = features[0] if len(features) == 1 else np.concatenate(features, axis=1)
        return features, (read, pooled)

    def states(self, params: Params, sentences: Sentences, rng: Random, training: bool = True):
        """h (N, T, H) of each direction, its last states, and the cache of states_backward."""
        x, steps, rows, mask = self._read(params, sentences, rng)
        layer, form = self._layer(params), single.in_pass(self.form, rng, training)
        h0 = np.zeros((len(sentences.lengths), self.hidden), x.dtype)
        initial = [(h0, *[None] * (len(form.record.states) - 1))] * len(layer)
        outputs, lasts, cells = stack.layer_forward(
            form, layer, x, initial, steps, training=training
        )
        return outputs, lasts, (rows, mask, cells)

    def _in_chunks(self, params: Params, words: np.ndarray) -> np.ndarray:
        """The features (1, F) of one long sentence for predictions, in the memory of CHUNK steps:
        each chunk goes on from the states of the one before."""
        chunks = [words[begin : begin + CHUNK] for begin in range(0, len(words), CHUNK)]
        features = []
        for d, weights in zip(self.directions, self._layer(params), strict=True):
            ordered = chunks[::-1] if d == "b" else chunks
            pooled = self._pooled(params["W_embed"], weights, ordered, reverse=d == "b")
            steps = np.array([*map(len, ordered)])
            for kind, parts in zip(self.poolings, zip(*pooled, strict=True), strict=True):
                features.append(POOLINGS[kind].joined(np.stack(parts), steps))
        return np.concatenate(features, axis=1)

    def _pooled(self, W_embed, weights, chunks, reverse):
        """Of each chunk in turn the features (1, H) of each pooling, in one direction."""
        form, states = single.in_pass(self.form, None, training=False), None
        for chunk in chunks:
            x, steps = W_embed[chunk][None], ALL_STEPS._replace(reverse=reverse)
            h, states, _ = direction.forward(form, weights, x, states, steps, False, None)
            lengths = np.array([len(chunk)])
            yield [POOLINGS[kind].forward(h, states[0], lengths)[0] for kind in self.poolings]

    def _read(self, params: Params, sentences: Sentences, rng: Random):
        """The vectors of the words, how a layer reads them, which words they are of, and the
        mask."""
        W_embed, words = params["W_embed"], sentences.words
        if _are_prepared(params) and len(sentences.first) == 2:  # one to predict: as it is
            return W_embed[words][None], ALL_STEPS, None, None
        if rng is not None and self.word_dropout:
            words = words * (rng.random(len(words), dtype=np.float32) >= self.word_dropout)
        rows, places = get_backend().distinct(words)
        x = W_embed[rows]
        mask = dropout(rng, self.embedding_dropout, x.shape, x.dtype)
        if mask is not None:
            x *= mask
        index = sentences._replace(words=places).padded()
        return x, Steps(sentences.lengths, index=index), rows, mask

    def backward(self, dfeatures: np.ndarray, cache):
        read, pooled = cache
        dfeatures = iter(np.split(dfeatures, len(pooled), axis=1))
        pooled, dh, dlast = iter(pooled), [], []
        for cell in read[-1]:
            to_h = to_hT = None
            for kind in self.poolings:
                upstream = np.ascontiguousarray(next(dfeatures)), cell, next(pooled)
                more, more_last = POOLINGS[kind].backward(*upstream)
                to_h, to_hT = _add(to_h, more), _add(to_hT, more_last)
            dh.append(to_h)
            dlast.append(to_hT)
        return self.states_backward(dh, dlast, read)

    def states_backward(self, dh: Sequence[Gradient], dhT: Sequence[Gradient], cache):
        """Gradients by name, of those of h and of the last h of each direction; None: zeros."""
        rows, mask, cells = cache
        others = [None] * (len(self.form.record.states) - 1)
        dlast = [(dhT_d, *others) for dhT_d in dhT]
        dx, _, layer = stack.layer_backward(self.form, dh, dlast, cells)
        grads = {}
        for d, of_direction in zip(self.directions, layer, strict=True):
            grads |= single.named(self.cell, of_direction, f"_{d}")
        if self.tuned:
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


def _add(a: np.ndarray | None, b: np.ndarray | None) -> np.ndarray | None:
    return b if a is None else a if b is None else a + b
