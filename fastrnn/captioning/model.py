"""The captioner of the course: an image's features start a recurrent network that says the words.

Letters: N pictures, T words, D features, W word vector, H hidden, V vocabulary.
"""

from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np

from fastrnn.backends import use_backend
from fastrnn.captioning import decode
from fastrnn.captioning.captioner import Captioner
from fastrnn.captioning.decoders import Attention, Plain, Ready
from fastrnn.captioning.settings import OF_MODEL
from fastrnn.captioning.vocabulary import START
from fastrnn.layers import dense, losses
from fastrnn.layers.dropout import dropout
from fastrnn.nn import init, single
from fastrnn.nn.graphs import Graph, write
from fastrnn.nn.stack import Form
from fastrnn.settings import check, one_of, plain, recorded
from fastrnn.weights import Layer

SHAPING = "decoder", "attention", "attention_dim", "tied"  # what of the options shapes depend on


def shapes(
    V: int,
    D: int,
    W: int,
    H: int,
    cell_type: str,
    *,
    decoder: str = "plain",
    attention: str = "additive",
    attention_dim: int = 128,
    tied: bool = False,
) -> dict[str, tuple[int, ...]]:
    """Of a captioner's parameters."""
    A, looks = attention_dim, decoder == "attention"
    of_keys = {"W_query": (H, A), "W_key": (D, A), "b_key": (A,)} if looks else {}
    if looks and attention == "additive":
        of_keys["w_look"] = (A,)
    return {
        "W_proj": (D, H),
        "b_proj": (H,),
        "W_embed": (V, W),
        **of_keys,
        **single.shapes(cell_type, W + D if looks else W, H),
        **({"W_out": (H, W)} if tied else {"W_vocab": (H, V)}),
        "b_vocab": (V,),
    }


def _initial(sizes, cell, dtype, rng):
    """Parameters before training."""

    def initial(name: str, shape: tuple[int, ...]) -> np.ndarray:
        if name.startswith("b"):
            return np.zeros(shape, dtype)
        if name == "u":
            return init.of_units(rng, *shape).astype(dtype)
        if name.startswith(("gain", "shift")):
            return np.full(shape, init.of_norm(name, single.plain(cell)), dtype)
        scale = 0.01 if name == "W_embed" else shape[0] ** -0.5
        return (scale * rng.standard_normal(shape)).astype(dtype)

    return {name: initial(name, shape) for name, shape in sizes.items()}


class CaptioningRNN(Captioner):
    """Image captioning with a recurrent network (course notes on captioning; Karpathy and Fei-Fei
    2015, Vinyals et al. 2015): h_0 = features W_proj + b_proj, then at every step the word so far
    goes in and scores for the next word come out.

    Parameters: word_to_idx, word to index in [0, V), with <NULL> and, to sample, <START> and <END>;
    input_dim D; wordvec_dim W; hidden_dim H; cell_type "rnn", "lstm", "gru", "mgu", "min_gru",
    "min_lstm", "ind_rnn", "layer_norm_lstm" or "layer_norm_gru"; dtype; backend (None: the current
    one); seed of the initial parameters; params, to have in their place; of the settings OF_MODEL,
    all of which are off unless given, dropout, the probability of dropping a word vector's or a
    hidden state's element in training; zoneout, that of a unit to stay as it was a word before, in
    h and of an lstm in c (in sampling the mean of both; Krueger et al. 2017); recurrent_dropout, of
    h before its product with Wh, the same units at every word of a caption (Gal and Ghahramani
    2016), both of rnn, lstm and gru; feature_dropout, of a picture's features; decoder "plain" or
    "attention", which looks at a grid of features before every word (decoders.Attention), by a
    network ("additive", Xu et al. 2015) or by scaled dot products ("dot") of attention_dim units;
    attention_penalty, the weight of its penalty; label_smoothing, how much of a word's target is
    spread over the vocabulary in training (Szegedy et al. 2016); tied, whether words are scored by
    their vectors (Press and Wolf 2017).

    Attributes: the parameters by their names; params, a dict of W_proj (D, H), b_proj (H,), W_embed
    (V, W), Wx (W, G*H), Wh (H, G*H), b (G*H,), W_vocab (H, V), b_vocab (V,) with G = 1 (rnn), 4
    (lstm, gates i f o g) or 3 (gru, gates r z n), and so on as fastrnn's functions have them: a
    min_gru and a min_lstm have no Wh, an ind_rnn has u (H,), with layer normalisation come the
    fields of LayerNorm; with attention W_query (H, A), W_key (D, A), b_key (A,), w_look (A,) unless
    it is "dot", and Wx (W + D, G*H); tied, W_out (H, W) in the place of W_vocab, which is W_out
    times the transpose of W_embed.
    Raises ValueError for a parameter out of range.
    """

    dropout: float
    zoneout: float
    recurrent_dropout: float
    feature_dropout: float
    label_smoothing: float
    tied: bool
    decoder: str
    attention: str
    attention_dim: int
    attention_penalty: float

    def __init__(
        self,
        word_to_idx: Mapping[str, int],
        input_dim: int = 512,
        wordvec_dim: int = 128,
        hidden_dim: int = 128,
        cell_type: str = "rnn",
        dtype: type = np.float32,
        *,
        dropout: float = 0.0,
        zoneout: float = 0.0,
        recurrent_dropout: float = 0.0,
        feature_dropout: float = 0.0,
        label_smoothing: float = 0.0,
        tied: bool = False,
        decoder: str = "plain",
        attention: str = "additive",
        attention_dim: int = 128,
        attention_penalty: float = 0.0,
        backend: str | None = None,
        seed: int | None = None,
        params: dict[str, np.ndarray] | None = None,
    ) -> None:
        given = dict(locals())
        check({"cell_type": cell_type}, {"cell_type": one_of(*single.CELLS)})
        options = recorded(plain({name: given[name] for name in OF_MODEL}), OF_MODEL)
        single.form(cell_type, options["zoneout"], options["recurrent_dropout"])  # or refuses
        super().__init__(word_to_idx)
        vars(self).update(options)
        self.cell_type, self.dtype, self.backend = cell_type, np.dtype(dtype), backend
        shaping = {name: options[name] for name in SHAPING}
        sizes = shapes(len(word_to_idx), input_dim, wordvec_dim, hidden_dim, cell_type, **shaping)
        self.params = params or _initial(sizes, cell_type, dtype, np.random.default_rng(seed))

    @property
    def form(self) -> Form:
        """Of its one layer."""
        return single.form(self.cell_type, self.zoneout, self.recurrent_dropout)

    @property
    def _decoder(self) -> Plain | Attention:
        if self.decoder == "plain":
            return Plain(self.cell_type, self.form, self.params)
        return Attention(self.cell_type, self.form, self.params, self.attention_penalty)

    # ---- training ------------------------------------------------------------------------------

    def loss(
        self,
        features: np.ndarray,
        captions: np.ndarray,
        rng: np.random.Generator | None = None,
        *,
        sampled: float = 0.0,
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Cross-entropy of every word given those before it, summed over time, averaged over the
        minibatch; <NULL> does not count. In training attention's penalty comes to it.

        Inputs: features (N, D), for attention (N, L, D); captions (N, T), word indices beginning
        with <START>; rng, the generator that drops out and draws words (None: nothing is dropped,
        no state is kept); sampled, the share of words that the model's own take the place of
        (scheduled sampling).
        Returns: loss (float), grads, name to array like params.
        """
        with use_backend(self.backend):
            features, captions = np.asarray(features, self.dtype), np.asarray(captions)
            words_in = captions[:, :-1]
            if rng is not None and sampled:
                words_in = self._with_own_words(features, captions, rng, sampled)
            loss, dscores, caches = self._forward(features, captions, words_in, rng)
            return loss, self._backward(dscores, caches)

    def score(self, features: np.ndarray, captions: np.ndarray) -> float:
        """The cross-entropy of captions, without gradients (inputs as loss's)."""
        with use_backend(self.backend):
            features, captions = np.asarray(features, self.dtype), np.asarray(captions)
            scores, _, _ = self._scores(features, captions[:, :-1], captions[:, 1:], None, False)
            return self._cross_entropy(scores, captions[:, 1:])[0]

    def _with_own_words(self, features, captions, rng, share):
        """The words that go in, a share of them as the model says them after the true ones before
        (Bengio et al. 2015, in two passes as Mihaylova and Martins 2019)."""
        scores, _, _ = self._scores(features, captions[:, :-2], captions[:, 1:-1], None, False)
        words_in = captions[:, :-1].copy()
        replaced = (rng.random(scores.shape[:2]) < share) & (words_in[:, 1:] != self.null)
        noise = rng.gumbel(size=(np.count_nonzero(replaced), scores.shape[2]))
        words_in[:, 1:][replaced] = (scores[replaced] + noise).argmax(axis=1)
        return words_in

    def _forward(self, features, captions, words_in, rng):
        """Loss, its gradient by the scores, and everything that the backward pass needs."""
        words_out = captions[:, 1:]
        scores, gained, caches = self._scores(features, words_in, words_out, rng)
        loss, dscores = self._cross_entropy(scores, words_out, self.label_smoothing)
        return loss + gained, dscores, caches

    def _cross_entropy(self, scores, words, smoothing=0.0):
        counted = words != self.null
        return losses.temporal_softmax_loss(scores, words, counted, label_smoothing=smoothing)

    def _scores(self, features, words_in, words_out, rng, training=True):
        """Of the words after words_in (N, T): (N, T, V), what the loss gains, and what the backward
        pass needs."""
        # All places of a grid lose the same features.
        shape = len(features), *(1 for _ in features.shape[2:]), features.shape[-1]
        mask = dropout(rng, self.feature_dropout, shape, features.dtype)
        features = features if mask is None else features * mask
        x, of_words = dense.word_embedding_forward(words_in, self.params["W_embed"])
        x, x_mask = self._drop(x, rng)
        counted = words_out != self.null
        h, gained, of_decoder = self._decoder.forward(features, x, counted, rng, training)
        h, h_mask = self._drop(h, rng)
        of_scores = []
        for w, b in self._output():
            h, cache = dense.temporal_affine_forward(h, w, b)
            of_scores.append(cache)
        return h, gained, (of_words, x_mask, of_decoder, h_mask, of_scores)

    def _output(self):
        """Weights and biases between h and scores."""
        p = self.params
        if not self.tied:
            return [(p["W_vocab"], p["b_vocab"])]
        zeros = np.zeros(p["W_out"].shape[1], self.dtype)
        return [(p["W_out"], zeros), (np.ascontiguousarray(p["W_embed"].T), p["b_vocab"])]

    def _backward(self, dscores, caches):
        of_words, x_mask, of_decoder, h_mask, of_scores = caches
        grads, dh = {}, dscores
        names = ("W_out", "W_embed") if self.tied else ("W_vocab",)
        for name, cache in zip(reversed(names), reversed(of_scores), strict=True):
            dh, grads[name], db = dense.temporal_affine_backward(dh, cache)
            grads.setdefault("b_vocab", db)
        if h_mask is not None:
            dh *= h_mask
        dx, of_parameters = self._decoder.backward(dh, of_decoder)
        grads |= of_parameters
        if x_mask is not None:
            dx *= x_mask
        dW = dense.word_embedding_backward(dx, of_words)
        grads["W_embed"] = dW + grads["W_embed"].T if self.tied else dW
        return grads

    def _drop(self, a, rng):
        mask = dropout(rng, self.dropout, a.shape, a.dtype)
        return (a if mask is None else a * mask), mask

    # ---- saying captions -------------------------------------------------------------------------

    def initial_state(self, features: np.ndarray) -> decode.State:
        """The recurrent state before the first word: (h,) or (h, c), each (N, H), and with
        attention the number (N,) of each row's picture."""
        with use_backend(self.backend):
            return self._decoder.initial_state(np.asarray(features, self.dtype))

    def step(
        self, words: np.ndarray, state: decode.State, ready: Ready | None = None
    ) -> tuple[np.ndarray, decode.State]:
        """One word in, scores for the next one out; every way to decode goes through here.

        Inputs: words (M,), state as initial_state's with M rows; ready, what start makes ready for
        many steps, without which there is no attention.
        Returns: scores (M, V), state after the step.
        """
        with use_backend(self.backend):
            x, _ = dense.word_embedding_forward(words, self.params["W_embed"])
            state = self._decoder.step(x, state, ready)
            scores = state[0]
            for w, b in self._output():
                scores, _ = dense.affine_forward(scores, w, b)
        return scores, tuple(state)

    def start(self, features: np.ndarray) -> tuple[decode.Step, decode.State]:
        """The step, with all ready that many need, and the state before the first word."""
        features = np.asarray(features, self.dtype)
        with use_backend(self.backend):
            ready = self._decoder.ready(features)
        return partial(self.step, ready=ready), self.initial_state(features)

    def take_vectors(self, words: Sequence[str], vectors: np.ndarray) -> None:
        """Put vectors (n, w) of these words of the vocabulary in the place of the first w columns
        of their own. Raises ValueError where the model's word vectors are shorter."""
        W = self.params["W_embed"].shape[1]
        if vectors.shape[1] > W:
            raise ValueError(f"wordvec_dim: expected at least {vectors.shape[1]}, got {W}")
        rows = [self.word_to_idx[word] for word in words]
        self.params["W_embed"][rows, : vectors.shape[1]] = vectors

    def looks(self, features: np.ndarray, captions: np.ndarray) -> np.ndarray:
        """Where attention looks to say each word of captions.

        Inputs: features (N, L, D); captions (N, T) as sample returns them.
        Returns: the weights (N, T, L) of the places, which sum to 1. Raises ValueError for a plain
        decoder.
        """
        decoder, features = self._decoder, np.asarray(features, self.dtype)
        if not isinstance(decoder, Attention):
            raise ValueError(f"decoder: expected 'attention', got {self.decoder!r}")
        words, weights = np.full(len(captions), self.word_to_idx[START]), []
        with use_backend(self.backend):
            ready, state = decoder.ready(features), decoder.initial_state(features)
            for following in captions.T:
                weights.append(decoder.weights(state, ready))
                _, state = self.step(words, state, ready)
                words = following
        return np.stack(weights, axis=1)

    def to_onnx(self, folder: Path | str) -> None:
        """Write two ONNX models of opset 14 into a folder, which is made if it is missing.

        initial.onnx takes features (N, D) and returns h (N, H) and of an lstm c, initial_state's;
        step.onnx takes words (N,), int64, h and c, and returns scores (N, V), next_h and next_c,
        step's. N may be any. Raises ValueError for zoneout, attention and for a cell that ONNX has
        not, OSError where they cannot be written.
        """
        if self.decoder != "plain":
            raise ValueError(f"decoder: expected 'plain' for ONNX, got {self.decoder!r}")
        folder, initial, step = Path(folder), self._initial_graph(), self._step_graph()
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "initial.onnx", initial)
        write(folder / "step.onnx", step)

    def _states(self):
        """Dtype and shape of each, by name."""
        H = self.params["W_proj"].shape[1]
        return dict.fromkeys(self.form.record.states, (self.dtype, ("N", H)))

    def _initial_graph(self):
        p, states = self.params, self._states()
        graph = Graph()
        graph.add("Gemm", "features", p["W_proj"], p["b_proj"], outputs=["h"])
        for name in [*states][1:]:
            zero = np.zeros(1, self.dtype)
            graph.add("Expand", zero, graph.add("Shape", "h"), outputs=[name])
        features = {"features": (self.dtype, ("N", len(p["W_proj"])))}
        return graph.serialized(features, states)

    def _step_graph(self):
        p, states, V = self.params, self._states(), len(self.params["b_vocab"])
        graph, time = Graph(), np.array([0])
        x, *before = (
            graph.add("Unsqueeze", a, time)
            for a in (graph.add("Gather", p["W_embed"], "words"), *states)
        )
        layer = Layer(*single.weights(p)[:3])
        _, *after = graph.recurrent(
            self.cell_type, x, [layer], options=self.form.options, initial=before
        )
        for name, a in zip(states, after, strict=True):
            graph.add("Squeeze", a, time, outputs=[f"next_{name}"])
        *first, (w, b) = self._output()
        h = "next_h" if not first else graph.add("MatMul", "next_h", first[0][0])
        graph.add("Gemm", h, w, b, outputs=["scores"])
        inputs = {"words": (np.int64, ("N",)), **states}
        outputs = {"scores": (self.dtype, ("N", V))}
        outputs |= {f"next_{name}": state for name, state in states.items()}
        return graph.serialized(inputs, outputs)
