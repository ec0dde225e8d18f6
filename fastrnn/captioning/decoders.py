"""What a captioner's words pass through: from word vectors to hidden states, given the picture.

A decoder has initial_state, ready and step to say captions with, and forward and backward to learn
from them. Letters: N pictures, M rows, T words, D features, W word vector, H hidden, L places of a
grid, A attention units.
"""

from typing import NamedTuple

import numpy as np

from fastrnn.captioning import decode
from fastrnn.layers import attention, dense
from fastrnn.nn import direction, single, stack
from fastrnn.nn.stack import Form, Weights

DECODERS = "plain", "attention"
ATTENTION = "additive", "dot"


class Ready(NamedTuple):
    """What all steps use: the cell's weights, and of attention the pictures."""

    weights: Weights
    grid: np.ndarray | None = None  # (N, L, D)
    keys: np.ndarray | None = None  # (N, L, A)


def _project(features, params):
    return dense.affine_forward(features, params["W_proj"], params["b_proj"])


class Plain(NamedTuple):
    """The picture is where the words start: h_0 = features W_proj + b_proj. Of a grid the mean is
    the picture's features."""

    cell: str
    form: Form
    params: dict[str, np.ndarray]

    def ready(self, features: np.ndarray) -> Ready:
        """For many steps of the captions of these pictures."""
        return Ready(single.prepared(self.cell, single.weights(self.params)))

    def initial_state(self, features: np.ndarray) -> decode.State:
        """The recurrent state (N, H) before the first word: h, and of an lstm c."""
        h, _ = _project(pooled(features), self.params)
        return h, *(np.zeros_like(h) for _ in self.form.record.states[1:])

    def step(self, x: np.ndarray, state: decode.State, ready: Ready | None = None) -> decode.State:
        """The state after one word: x (M, W)."""
        form = single.in_pass(self.form, None, training=False)
        weights = single.weights(self.params) if ready is None else ready.weights
        return direction.step(form, weights, x, state, False)[0]

    def forward(
        self,
        features: np.ndarray,
        x: np.ndarray,
        counted: np.ndarray,
        rng: np.random.Generator | None,
        training: bool,
    ) -> tuple[np.ndarray, float, tuple]:
        """All words.

        Inputs: features (N, D); x (N, T, W); counted (N, T), what follows which of them counts.
        Returns: h (N, T, H), what the loss gains, the cache for backward.
        """
        h0, of_features = _project(pooled(features), self.params)
        form, weights = single.in_pass(self.form, rng, training), single.weights(self.params)
        initial = h0[None], *[None] * (len(form.record.states) - 1)
        h, _, of_cell = stack.forward(form, [[weights]], x, initial, training=training)
        return h, 0.0, (of_features, of_cell)

    def backward(self, dh: np.ndarray, cache: tuple) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """dx (N, T, W), and the gradients of the parameters by name."""
        of_features, of_cell = cache
        dx, ((dh0,), *_), ((of_weights,),) = stack.backward(self.form, dh, None, of_cell)
        grads = single.named(self.cell, of_weights)
        _, grads["W_proj"], grads["b_proj"] = dense.affine_backward(dh0, of_features)
        return dx, grads


class Attention(NamedTuple):
    """Before each word the places of the picture's grid are looked at anew (Xu et al. 2015): their
    mean, weighted by how well they go with h, enters the cell beside the word's vector. h_0 comes
    from the plain mean, as Plain's does.

    penalty weighs the mean over the places of (1 - sum of their weights over all words)^2: each is
    to be looked at about once (doubly stochastic attention).
    """

    cell: str
    form: Form
    params: dict[str, np.ndarray]
    penalty: float = 0.0

    def ready(self, features: np.ndarray) -> Ready:
        """For many steps of the captions of these pictures, grids (N, L, D)."""
        keys, _ = self._keys(features)
        return Ready(single.prepared(self.cell, single.weights(self.params)), features, keys)

    def initial_state(self, features: np.ndarray) -> decode.State:
        """As Plain's, and the number (N,) of each row's picture."""
        return *Plain(*self[:3]).initial_state(features), np.arange(len(features))

    def step(self, x: np.ndarray, state: decode.State, ready: Ready | None = None) -> decode.State:
        """The state after one word: x (M, W), ready for the pictures that state names."""
        if ready is None:
            raise ValueError("ready: expected that of the pictures, which a step looks at")
        *before, rows = state
        context, _, _ = self._look(before[0], ready.grid, ready.keys, rows)[0]
        form = single.in_pass(self.form, None, training=False)
        x = np.concatenate([x, context], axis=1)
        return *direction.step(form, ready.weights, x, tuple(before), False)[0], rows

    def weights(self, state: decode.State, ready: Ready) -> np.ndarray:
        """Of the places (M, L) that the next step looks at."""
        return self._look(state[0], ready.grid, ready.keys, state[-1])[0][1]

    def forward(
        self,
        features: np.ndarray,
        x: np.ndarray,
        counted: np.ndarray,
        rng: np.random.Generator | None,
        training: bool,
    ) -> tuple[np.ndarray, float, tuple]:
        """As Plain's, of grids features (N, L, D)."""
        h0, of_features = _project(pooled(features), self.params)
        keys, of_keys = self._keys(features)
        form = single.in_pass(self.form, rng, training)
        weights = single.prepared(self.cell, single.weights(self.params), training=training)
        states = h0, *(np.zeros_like(h0) for _ in form.record.states[1:])
        h, steps = np.empty((*x.shape[:2], h0.shape[1]), h0.dtype), []
        seen = np.zeros(features.shape[:2], h0.dtype)
        for t in range(x.shape[1]):
            (context, places, of_look), of_query = self._look(states[0], features, keys)
            both = np.concatenate([x[:, t], context], axis=1)[:, None]
            of = _at_step(form, t)
            h_t, states, of_cell = direction.forward(
                of, weights, both, states, direction.Steps(), training, None
            )
            h[:, t] = h_t[:, 0]
            seen += places * counted[:, t, None]
            steps.append((of_look, of_query, of_cell))
        # Means over the minibatch and the places.
        missing = 1 - seen
        share = self.penalty / max(1, missing.size)
        gained = share * float((missing**2).sum(dtype=np.float64))
        return h, gained, (of_features, of_keys, steps, counted, -2 * share * missing)

    def backward(self, dh: np.ndarray, cache: tuple) -> tuple[np.ndarray, dict[str, np.ndarray]]:
        """dx (N, T, W), and the gradients of the parameters by name."""
        of_features, of_keys, steps, counted, dseen = cache
        p, states = self.params, len(self.form.record.states)
        onto = _zeros_like(single.weights(p))
        grads = {name: np.zeros_like(p[name]) for name in ("W_query", "w_look") if name in p}
        dkeys = np.zeros((*dseen.shape, len(p["b_key"])), dh.dtype)
        dx = np.empty((*dh.shape[:2], p["W_embed"].shape[1]), dh.dtype)
        dstates: tuple = (None,) * states
        for t, (of_look, of_query, of_cell) in reversed([*enumerate(steps)]):
            dboth, dstates, _ = direction.backward(
                self.form, dh[:, t : t + 1], dstates, of_cell, onto, None
            )
            dx[:, t], dcontext = np.split(dboth[:, 0], [dx.shape[2]], axis=1)
            dplaces = dseen * counted[:, t, None] if self.penalty else None
            dquery, _, _, *dw = attention.backward_onto(dcontext, dplaces, of_look, (dkeys, None))
            for d in dw:
                grads["w_look"] += d
            dprevious, dW, _ = dense.affine_backward(dquery, of_query)
            grads["W_query"] += dW
            dstates = dstates[0] + dprevious, *dstates[1:]
        grads |= single.named(self.cell, onto)
        _, grads["W_key"], grads["b_key"] = dense.temporal_affine_backward(dkeys, of_keys)
        dh0 = np.zeros((len(dh), dh.shape[2]), dh.dtype) if dstates[0] is None else dstates[0]
        _, grads["W_proj"], grads["b_proj"] = dense.affine_backward(dh0, of_features)
        return dx, grads

    def _keys(self, features):
        return dense.temporal_affine_forward(features, self.params["W_key"], self.params["b_key"])

    def _look(self, h, grid, keys, rows=None):
        """(context, weights, cache) of attention, and the cache of the query."""
        p = self.params
        zeros = np.zeros(p["W_query"].shape[1], h.dtype)  # the keys have the bias
        query, of_query = dense.affine_forward(h, p["W_query"], zeros)
        w = p.get("w_look")
        return attention.attention_forward(query, keys, grid, w, index=rows), of_query


def pooled(features: np.ndarray) -> np.ndarray:
    """Features (N, D), of grids (N, L, D) the mean over their places."""
    return features if features.ndim == 2 else features.mean(axis=1)


def _zeros_like(weights: Weights) -> Weights:
    """Gradients to go on from: of the cell's arrays, and of those of its LayerNorm."""
    own = (None if w is None else np.zeros_like(w) for w in weights[:3])
    norm = weights.vectors
    if norm is None:
        return Weights(*own)
    fields = (a for a in norm[:-1] if a is not None)
    return Weights(*own, vectors=tuple(np.zeros_like(a) for a in fields))


def _at_step(form: Form, t: int) -> Form:
    """What is random in step t of a pass."""
    if form.options is None:
        return form
    return form._replace(options=form.options._replace(first_step=t))
