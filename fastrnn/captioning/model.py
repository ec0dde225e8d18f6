"""The captioner of the course: an image's features start a recurrent network that says the words.

Letters: N pictures, T words, D features, W word vector, H hidden, V vocabulary.
"""

from collections.abc import Mapping
from functools import partial
from pathlib import Path

import numpy as np

from fastrnn.backends import use_backend
from fastrnn.captioning import decode
from fastrnn.layers import checks, dense, losses
from fastrnn.layers.dropout import dropout
from fastrnn.nn import direction, init, single, stack
from fastrnn.nn.graphs import Graph, write
from fastrnn.nn.stack import Form, Weights
from fastrnn.weights import Layer

NULL, START, END, UNK = "<NULL>", "<START>", "<END>", "<UNK>"
SAMPLE_ROWS = 128  # pictures captioned at once: a beam's scores take B * V doubles for each


def shapes(V: int, D: int, W: int, H: int, cell_type: str) -> dict[str, tuple[int, ...]]:
    """Of a captioner's parameters."""
    return {
        "W_proj": (D, H),
        "b_proj": (H,),
        "W_embed": (V, W),
        **single.shapes(cell_type, W, H),
        "W_vocab": (H, V),
        "b_vocab": (V,),
    }


class CaptioningRNN:
    """Image captioning with a recurrent network (course notes on captioning; Karpathy and Fei-Fei
    2015, Vinyals et al. 2015): h_0 = features W_proj + b_proj, then at every step the word so far
    goes in and scores for the next word come out.

    Parameters: word_to_idx, word to index in [0, V), with <NULL> and, to sample, <START> and <END>;
    input_dim D; wordvec_dim W; hidden_dim H; cell_type "rnn", "lstm", "gru", "mgu", "min_gru",
    "min_lstm", "ind_rnn", "layer_norm_lstm" or "layer_norm_gru"; dtype; dropout, the probability of
    dropping a word vector's or a hidden state's element in training; zoneout, that of a unit to
    stay as it was a word before, in h and of an lstm in c (in sampling the mean of both; Krueger et
    al. 2017); recurrent_dropout, of h before its product with Wh, the same units at every word of a
    caption (Gal and Ghahramani 2016), both of rnn, lstm and gru; backend (None: the current one);
    seed of the initial parameters; params, to have in their place.

    Attributes: params, a dict of W_proj (D, H), b_proj (H,), W_embed (V, W), Wx (W, G*H),
    Wh (H, G*H), b (G*H,), W_vocab (H, V), b_vocab (V,) with G = 1 (rnn), 4 (lstm, gates i f o g)
    or 3 (gru, gates r z n), and so on as fastrnn's functions have them: a min_gru and a min_lstm
    have no Wh, an ind_rnn has u (H,), with layer normalisation come the fields of LayerNorm.
    Raises ValueError for a parameter out of range.
    """

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
        backend: str | None = None,
        seed: int | None = None,
        params: dict[str, np.ndarray] | None = None,
    ) -> None:
        if cell_type not in single.CELLS:
            raise ValueError(f"cell_type: expected one of {[*single.CELLS]}, got {cell_type!r}")
        if NULL not in word_to_idx:
            raise ValueError(f"word_to_idx: expected an entry for {NULL}")
        self.word_to_idx = dict(word_to_idx)
        self.idx_to_word = {i: word for word, i in word_to_idx.items()}
        self.cell_type = cell_type
        self.dtype = np.dtype(dtype)
        self.dropout = checks.probability("dropout", dropout)
        self.zoneout = checks.probability("zoneout", zoneout)
        self.recurrent_dropout = checks.probability("recurrent_dropout", recurrent_dropout)
        single.form(cell_type, zoneout, recurrent_dropout)  # refuses what the cell has not
        self.backend = backend
        rng = np.random.default_rng(seed)

        def initial(name: str, shape: tuple[int, ...]) -> np.ndarray:
            if name.startswith("b"):
                return np.zeros(shape, dtype)
            if name == "u":
                return init.of_units(rng, *shape).astype(dtype)
            if name.startswith(("gain", "shift")):
                return np.full(shape, float(name.startswith("gain")), dtype)
            scale = 0.01 if name == "W_embed" else shape[0] ** -0.5
            return (scale * rng.standard_normal(shape)).astype(dtype)

        sizes = len(word_to_idx), input_dim, wordvec_dim, hidden_dim
        self.params = params or {
            name: initial(name, shape) for name, shape in shapes(*sizes, cell_type).items()
        }

    @property
    def form(self) -> Form:
        """Of its one layer."""
        return single.form(self.cell_type, self.zoneout, self.recurrent_dropout)

    # ---- training ------------------------------------------------------------------------------

    def loss(
        self,
        features: np.ndarray,
        captions: np.ndarray,
        rng: np.random.Generator | None = None,
    ) -> tuple[float, dict[str, np.ndarray]]:
        """Cross-entropy of every word given those before it, summed over time, averaged over the
        minibatch; <NULL> does not count.

        Inputs: features (N, D); captions (N, T), word indices beginning with <START>; rng, the
        generator that drops out (None: nothing is dropped, no state is kept).
        Returns: loss (float), grads, name to array like params.
        """
        with use_backend(self.backend):
            loss, dscores, caches = self._forward(
                np.asarray(features, self.dtype), np.asarray(captions), rng
            )
            return loss, self._backward(dscores, caches)

    def score(self, features: np.ndarray, captions: np.ndarray) -> float:
        """The loss of captions, without gradients (inputs as loss's)."""
        with use_backend(self.backend):
            given = np.asarray(features, self.dtype), np.asarray(captions)
            return self._forward(*given, None, training=False)[0]

    def _forward(self, features, captions, rng, training=True):
        """Loss, its gradient by the scores, and everything that the backward pass needs."""
        p = self.params
        words_in, words_out = captions[:, :-1], captions[:, 1:]
        h0, proj_cache = dense.affine_forward(features, p["W_proj"], p["b_proj"])
        x, embed_cache = dense.word_embedding_forward(words_in, p["W_embed"])
        x, x_mask = self._drop(x, rng)
        form, weights = single.in_pass(self.form, rng, training), single.weights(p)
        initial = h0[None], *[None] * (len(form.record.states) - 1)
        h, _, cell_cache = stack.forward(form, [[weights]], x, initial, training=training)
        h, h_mask = self._drop(h, rng)
        scores, vocab_cache = dense.temporal_affine_forward(h, p["W_vocab"], p["b_vocab"])
        counted = words_out != self.word_to_idx[NULL]
        loss, dscores = losses.temporal_softmax_loss(scores, words_out, counted)
        return loss, dscores, (proj_cache, embed_cache, x_mask, cell_cache, h_mask, vocab_cache)

    def _backward(self, dscores, caches):
        proj_cache, embed_cache, x_mask, cell_cache, h_mask, vocab_cache = caches
        grads = {}
        dh, grads["W_vocab"], grads["b_vocab"] = dense.temporal_affine_backward(
            dscores, vocab_cache
        )
        if h_mask is not None:
            dh *= h_mask
        dx, ((dh0,), *_), ((of_cell,),) = stack.backward(self.form, dh, None, cell_cache)
        grads |= single.named(self.cell_type, of_cell)
        if x_mask is not None:
            dx *= x_mask
        grads["W_embed"] = dense.word_embedding_backward(dx, embed_cache)
        _, grads["W_proj"], grads["b_proj"] = dense.affine_backward(dh0, proj_cache)
        return grads

    def _drop(self, a, rng):
        mask = dropout(rng, self.dropout, a.shape, a.dtype)
        return (a if mask is None else a * mask), mask

    # ---- saying captions -------------------------------------------------------------------------

    def initial_state(self, features: np.ndarray) -> decode.State:
        """The recurrent state before the first word: (h,) or (h, c), each (N, H)."""
        features = np.asarray(features, self.dtype)
        with use_backend(self.backend):
            h, _ = dense.affine_forward(features, self.params["W_proj"], self.params["b_proj"])
        return h, *(np.zeros_like(h) for _ in self.form.record.states[1:])

    def step(
        self, words: np.ndarray, state: decode.State, weights: Weights | None = None
    ) -> tuple[np.ndarray, decode.State]:
        """One word in, scores for the next one out; every way to decode goes through here.

        Inputs: words (M,), state as initial_state's with M rows; weights, the cell's, prepared for
        many steps.
        Returns: scores (M, V), state after the step.
        """
        p = self.params
        form = single.in_pass(self.form, None, training=False)
        cell = single.weights(p) if weights is None else weights
        with use_backend(self.backend):
            x, _ = dense.word_embedding_forward(words, p["W_embed"])
            state, _ = direction.step(form, cell, x, state, False)
            scores, _ = dense.affine_forward(state[0], p["W_vocab"], p["b_vocab"])
        return scores, tuple(state)

    def to_onnx(self, folder: Path | str) -> None:
        """Write two ONNX models of opset 14 into a folder, which is made if it is missing.

        initial.onnx takes features (N, D) and returns h (N, H) and of an lstm c, initial_state's;
        step.onnx takes words (N,), int64, h and c, and returns scores (N, V), next_h and next_c,
        step's. N may be any. Raises ValueError for zoneout and for a cell that ONNX has not,
        OSError where they cannot be written.
        """
        folder, initial, step = Path(folder), self._initial_graph(), self._step_graph()
        folder.mkdir(parents=True, exist_ok=True)
        write(folder / "initial.onnx", initial)
        write(folder / "step.onnx", step)

    def _states(self):
        """Dtype and shape of each, by name."""
        H = self.params["W_vocab"].shape[0]
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
        p, states, V = self.params, self._states(), self.params["W_vocab"].shape[1]
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
        graph.add("Gemm", "next_h", p["W_vocab"], p["b_vocab"], outputs=["scores"])
        inputs = {"words": (np.int64, ("N",)), **states}
        outputs = {"scores": (self.dtype, ("N", V))}
        outputs |= {f"next_{name}": state for name, state in states.items()}
        return graph.serialized(inputs, outputs)

    def sample(
        self,
        features: np.ndarray,
        max_length: int = 30,
        *,
        beam_size: int = 1,
        length_penalty: float = 1.0,
        temperature: float | None = None,
        top_k: int | None = None,
        top_p: float | None = None,
        suppress_unk: bool = False,
        seed: int | None = None,
    ) -> np.ndarray:
        """Captions for pictures: greedy by default, beam search with beam_size > 1, random with a
        temperature (1: the model's own distribution), top_k or top_p.

        Inputs: features (N, D); max_length, most words; beam_size, hypotheses kept a picture,
        ranked by log-probability / length**length_penalty; top_k, the number of likeliest words to
        draw from; top_p, the probability they must cover (nucleus, Holtzman et al. 2020);
        suppress_unk, never say <UNK>; seed of the draw.
        Returns: captions (N, max_length) of word indices without <START>, <NULL> after <END>;
        <NULL> and <START> are never said. Raises ValueError for parameters out of range.
        """
        special = [word for word in (NULL, START, UNK) if word != UNK or suppress_unk]
        banned = [self.word_to_idx[word] for word in special if word in self.word_to_idx]
        missing = [word for word in (START, END) if word not in self.word_to_idx]
        if missing:
            raise ValueError(f"word_to_idx: expected an entry for {missing[0]} to sample")
        vocabulary = decode.Vocabulary(*(self.word_to_idx[w] for w in (NULL, START, END)), banned)
        if beam_size < 1:
            raise ValueError(f"beam_size: expected at least 1, got {beam_size}")
        random = temperature is not None or top_k is not None or top_p is not None
        if beam_size > 1 and random:
            raise ValueError("beam_size: a beam is not random; drop temperature, top_k, top_p")
        choose = decode.likeliest
        if random:
            choose = decode.Draw(1.0 if temperature is None else temperature, top_k, top_p, seed)

        own = single.weights(self.params)
        weights = single.prepared(self.cell_type, own, self.backend)
        step = partial(self.step, weights=weights)

        def say(rows: np.ndarray) -> np.ndarray:
            state = self.initial_state(rows)
            if beam_size > 1:
                return decode.beam_search(
                    step, state, vocabulary, max_length, beam_size, length_penalty
                )
            return decode.generate(step, state, vocabulary, max_length, choose)

        blocks = range(0, max(1, len(features)), SAMPLE_ROWS)
        return np.concatenate([say(features[i : i + SAMPLE_ROWS]) for i in blocks])
