"""JAX on the CPU: fastrnn's equations in a compiled lax.scan, the input projection outside of it;
gradients by its vjp."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from fastrnn.benchmarks.cases import Case
from fastrnn.benchmarks.operands import WAYS, Operands
from fastrnn.benchmarks.peers import Idiom

jax.config.update("jax_enable_x64", True)  # else float64 operands become float32

States = tuple[jax.Array, ...]


def build(case: Case, operands: Operands) -> dict[str, Idiom]:
    """A compiled function a case; no captioner."""
    if case.direction == "iteration":
        return {}
    # Time comes first, as scan wants it.
    arrays = {name: jnp.asarray(a) for name, a in operands.items()}
    x, dh = (arrays.pop(name).swapaxes(0, 1) for name in ("x", "dh"))
    if case.one_step:
        return {"": _step(CELLS[case.cell], x[0], arrays)}
    lengths, reset = arrays.pop("lengths", None), arrays.pop("reset", None)
    layer = _bidirectional if case.direction == "bidirectional" else _layer
    layer = partial(layer, CELLS[case.cell], lengths, None if reset is None else reset.T)
    if case.direction in ("forward", "steps"):
        return {"": _forward(layer, x, arrays)}
    return {"": _both(layer, x, arrays, dh)}


# ---- cells: states and the input's projection to the next states ---------------------------------


def _rnn(p: dict[str, jax.Array], states: States, a: jax.Array) -> States:
    return (jnp.tanh(a + states[0] @ p["Wh"]),)


def _lstm(p: dict[str, jax.Array], states: States, a: jax.Array) -> States:
    h, c = states
    i, f, o, g = jnp.split(a + h @ p["Wh"], 4, axis=-1)
    c = jax.nn.sigmoid(f) * c + jax.nn.sigmoid(i) * jnp.tanh(g)
    return jax.nn.sigmoid(o) * jnp.tanh(c), c


def _gru(p: dict[str, jax.Array], states: States, a: jax.Array) -> States:
    (h,) = states
    ar, az, an = jnp.split(a, 3, axis=-1)
    br, bz, bn = jnp.split(h @ p["Wh"] + p["bh"], 3, axis=-1)
    z = jax.nn.sigmoid(az + bz)
    n = jnp.tanh(an + jax.nn.sigmoid(ar + br) * bn)
    return ((1 - z) * n + z * h,)


CELLS = {"rnn": _rnn, "lstm": _lstm, "gru": _gru}


def _layer(
    cell,
    lengths: jax.Array | None,
    reset: jax.Array | None,
    x: jax.Array,
    p: dict[str, jax.Array],
    reverse: bool = False,
) -> jax.Array:
    """h (T, N, H) of x (T, N, D); zero after a row's length, where the states stand still. States
    are zero before a step where reset (T, N) is true."""
    h0 = p["h0"]
    states = (h0, p.get("c0", jnp.zeros_like(h0))) if cell is _lstm else (h0,)

    def step(states: States, now: tuple[jax.Array, ...]) -> tuple[States, jax.Array]:
        a, t = now
        if reset is not None:
            states = tuple(jnp.where(reset[t][:, None], 0, state) for state in states)
        following = cell(p, states, a)
        if lengths is None:
            return following, following[0]
        runs = (t < lengths)[:, None]
        kept = tuple(map(partial(jnp.where, runs), following, states))
        return kept, jnp.where(runs, following[0], 0)

    steps = x @ p["Wx"] + p["b"], jnp.arange(len(x))
    return jax.lax.scan(step, states, steps, reverse=reverse)[1]


def _bidirectional(cell, lengths, reset, x: jax.Array, p: dict[str, jax.Array]) -> jax.Array:
    """h (T, N, 2*H)."""
    weights = {way: {name: p[name + way] for name in p if name + way in p} for way in WAYS}
    hs = [_layer(cell, lengths, reset, x, weights[way], reverse=way != "") for way in WAYS]
    return jnp.concatenate(hs, axis=-1)


# ---- what is timed -------------------------------------------------------------------------------


def _forward(layer, x, p) -> Idiom:
    compiled = jax.jit(layer)
    return Idiom(
        lambda: compiled(x, p).block_until_ready(),
        lambda h: {"h": np.asarray(h).swapaxes(0, 1)},
    )


def _both(layer, x, p, dh) -> Idiom:
    @jax.jit
    def compiled(x, p, dh):
        h, pull = jax.vjp(layer, x, p)
        return h, *pull(dh)

    def collect(result: tuple) -> dict[str, np.ndarray]:
        h, dx, gradients = result
        arrays = {"h": h.swapaxes(0, 1), "dx": dx.swapaxes(0, 1)}
        arrays |= {f"d{name}": a for name, a in gradients.items()}
        return {name: np.asarray(a) for name, a in arrays.items()}

    return Idiom(lambda: jax.block_until_ready(compiled(x, p, dh)), collect)


def _step(cell, x, p) -> Idiom:
    compiled = jax.jit(lambda x, states, p: cell(p, states, x @ p["Wx"] + p["b"]))
    states = tuple(p[name] for name in ("h0", "c0") if name in p)
    return Idiom(
        lambda: jax.block_until_ready(compiled(x, states, p)),
        lambda result: {name: np.asarray(a) for name, a in zip("hc", result, strict=False)},
    )
