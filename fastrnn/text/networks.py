"""The classifiers: an encoder, dropout, a linear layer, softmax; where a text may have several
labels a sigmoid of each one's score.

bow    the sum of one weight a word and class, over the set of a sentence's words
avg    the mean of word vectors, then linear
rnn, lstm, gru, mgu, min_gru, min_lstm, ind_rnn, layer_norm_lstm, layer_norm_gru
       the state after a sentence's own last word, then linear

Letters: N sentences, V vocabulary, W word vector, F features, C classes. With two classes the
softmax is the sigmoid of the difference of the two scores.
"""

import numpy as np

from fastrnn.backends import use_backend
from fastrnn.layers import dense, losses
from fastrnn.layers.dropout import dropout
from fastrnn.nn.single import CELLS
from fastrnn.text.encoders import Bag, Params, Recurrent
from fastrnn.text.vocabulary import Sentences

RECURRENT = CELLS
MODELS = ("bow", "avg", *RECURRENT)


def shapes(encoder: Bag | Recurrent, V: int, C: int, linear: bool) -> dict[str, tuple[int, ...]]:
    """Of a network's parameters: the encoder's, W (F, C) unless the features are the scores,
    b (C,)."""
    output = {"W": (encoder.size, C)} if linear else {}
    return encoder.shapes(V) | output | {"b": (C,)}


def initial_params(
    encoder: Bag | Recurrent,
    V: int,
    C: int,
    linear: bool,
    *,
    dtype: np.dtype | type = np.float32,
    vectors: np.ndarray | None = None,
    seed: int | tuple[int, ...] | None = None,
) -> Params:
    """The parameters with which training starts; vectors (V, W), initial word vectors (None:
    random)."""
    rng = np.random.default_rng(seed)
    params = encoder.init(V, rng)
    if vectors is not None:
        params["W_embed"] = vectors
    if linear:
        params["W"] = rng.standard_normal((encoder.size, C)) * encoder.size**-0.5
    params["b"] = np.zeros(C)
    return {name: w.astype(dtype) for name, w in params.items()}


class Network:
    """Scores of sentences and their gradients.

    Parameters: encoder; params, arrays by name, of shapes(...); dropout, of the features; backend
    (None: the current one); multilabel, whether a text may have several labels, or none.
    """

    def __init__(
        self,
        encoder: Bag | Recurrent,
        params: Params,
        *,
        dropout: float = 0.0,
        backend: str | None = None,
        multilabel: bool = False,
    ) -> None:
        self.encoder, self.params = encoder, params
        self.dropout, self.backend, self.multilabel = dropout, backend, multilabel
        self.linear = "W" in params

    def copy(self) -> "Network":
        """A network with parameters of its own."""
        return self.of({name: w.copy() for name, w in self.params.items()})

    def of(self, params: Params) -> "Network":
        """The same network with other parameters."""
        options = {"dropout": self.dropout, "backend": self.backend}
        return Network(self.encoder, params, **options, multilabel=self.multilabel)

    def loss(
        self,
        sentences: Sentences,
        y: np.ndarray,
        weights: np.ndarray | None = None,
        rng: np.random.Generator | None = None,
    ):
        """Cross-entropy averaged over the sentences; with several labels a sentence, summed over
        the classes.

        Inputs: sentences, y (N,) class indices, multilabel (N, C) bool, weights like y (None: 1),
        rng that drops out (None: nothing is dropped).
        Returns: loss (float), gradients by name; that of the word vectors is a RowGradient. What
        is not trained has none.
        """
        try:
            with use_backend(self.backend):
                return self._loss(sentences, y, weights, rng)
        except MemoryError as error:
            raise _out_of_memory("the gradients", sentences, error) from error

    def _loss(self, sentences, y, weights, rng):
        features, encoded = self.encoder.forward(self.params, sentences, rng)
        scores, mask, affine = self._scores(self.params, features, rng)
        loss_of = _sigmoid_loss if self.multilabel else _softmax_loss
        (loss, d), grads = loss_of(scores, y, weights), {}
        if self.linear:
            d, grads["W"], grads["b"] = dense.affine_backward(d, affine)
        else:
            grads["b"] = d.sum(axis=0)
        if mask is not None:
            d *= mask
        return loss, grads | self.encoder.backward(d, encoded)

    def _scores(self, params: Params, features: np.ndarray, rng: np.random.Generator | None):
        mask = dropout(rng, self.dropout, features.shape, features.dtype)
        if mask is not None:
            features = features * mask
        if not self.linear:
            return features + params["b"], mask, None
        scores, affine = dense.affine_forward(features, params["W"], params["b"])
        return scores, mask, affine

    def proba(self, sentences: Sentences, params: Params | None = None) -> np.ndarray:
        """Probabilities (N, C), of sentences and params as scores takes them."""
        scores = self.scores(sentences, params)
        return _sigmoid(scores) if self.multilabel else _softmax(scores)

    def scores(self, sentences: Sentences, params: Params | None = None) -> np.ndarray:
        """Scores (N, C), the logarithms of the classes' odds, of sentences; params, in place of the
        network's own, for example with prepared weights."""
        params = self.params if params is None else params
        try:
            with use_backend(self.backend):
                features, _ = self.encoder.forward(params, sentences, None, training=False)
                return self._scores(params, features, None)[0]
        except MemoryError as error:
            raise _out_of_memory("the scores", sentences, error) from error


def _softmax_loss(scores, y, weights):
    weights = None if weights is None else weights[:, None]
    loss, d = losses.temporal_softmax_loss(scores[:, None], y[:, None], weights)
    return loss, d[:, 0]


def _sigmoid_loss(scores, y, weights):
    share = scores.dtype.type(1 / max(len(y), 1))
    weights = share if weights is None else share * weights
    loss = weights * (np.logaddexp(0, scores) - scores * y)
    return float(loss.sum(dtype=np.float64)), weights * (_sigmoid(scores) - y)


def _sigmoid(scores: np.ndarray) -> np.ndarray:
    return np.exp(-np.logaddexp(0, -scores))  # which cannot overflow


def _softmax(scores: np.ndarray) -> np.ndarray:
    # The ufuncs, not the methods: of one sentence's scores they take half the time.
    e = np.exp(scores - np.maximum.reduce(scores, axis=1, keepdims=True))
    e /= np.add.reduce(e, axis=1, keepdims=True)
    return e


def _out_of_memory(what: str, sentences: Sentences, error: MemoryError) -> MemoryError:
    """The error that says what asked for the memory."""
    lengths = sentences.lengths
    N, T = len(lengths), lengths.max(initial=0)
    return MemoryError(f"{what} of {N:,} texts of up to {T:,} words: {error}")
