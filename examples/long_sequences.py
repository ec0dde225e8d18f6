"""10,000 steps, learnt in parts
=============================

A leaky sum, y_t = 0.98 y_{t-1} + x_t / 10, learnt in parts, which the state
crosses and gradients do not; how near these are to the whole gradient, and that one recomputed.
"""

import sys

import numpy as np

import fastrnn.figures
from fastrnn import nn, optim

N, T, H, LENGTHS = 8, 10_000, 16, (1, 3, 10, 30, 100, 300, 1000)


def in_parts(gru, x, y, length, every=None):
    """Squared error and gradients, one part after the other; unit 0 is the answer."""
    state = None
    for begin in range(0, T, length):
        part = np.s_[:, begin : begin + length]
        h, state, cache = gru.forward(x[part], state, training=True, checkpoint_every=every)
        error = (h - y[part]) * np.eye(1, H, dtype=h.dtype)
        yield np.mean(error**2) * H, gru.backward(2 / T * error, cache)[1]


def whole(gru, *how):
    """The sum of all parts' gradients, as a vector."""
    return sum(np.hstack([*map(np.ravel, grads.values())]) for _, grads in in_parts(gru, *how))


def learn(gru, x, y, length, updates):
    configs = {name: {"learning_rate": 3e-3} for name in gru.params}
    for _ in range(updates * length // T):
        for error, grads in in_parts(gru, x, y, length):
            for name, w in gru.params.items():
                optim.adam(w, grads[name], configs[name], out=w)
            yield error


def main(folder="."):
    x = np.random.default_rng(0).standard_normal((N, T, 1)).astype(np.float32)
    y = np.zeros_like(x)
    for t in range(T):
        y[:, t] = 0.98 * y[:, t - 1] + x[:, t] / 10
    left, right = fastrnn.figures.new(10, 4).subplots(1, 2)
    left.set(xlabel="update", title="squared error, in parts of 10 (blue) and 100")
    for length in (10, 100):
        errors = [*learn(gru := nn.GRU(1, H, seed=0), x, y, length, 2000)]
        print(f"parts of {length}, 2,000 updates: squared error {np.mean(errors[-100:]):.4f}")
        left.semilogy(errors, lw=0.7)
    same = whole(gru, x, y, T, 200) == (d := whole(gru, x, y, T))
    print(f"recomputed, {np.mean(same):.0%} of the gradient's elements have the same bits")
    cosines = [p @ d / (p @ p * (d @ d)) ** 0.5 for p in (whole(gru, x, y, n) for n in LENGTHS)]
    print(f"cosine with it, in parts of {LENGTHS}:", np.round(cosines, 2))
    right.semilogx(LENGTHS, cosines, "o-")
    right.set(xlabel="steps of a part", title="cosine of its gradients with the whole one")
    fastrnn.figures.save(left.figure, f"{folder}/long_sequences.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
