"""How far a gradient reaches
==========================

The norm of dh_T / dh_0 against T, and what clipping gradients is good for.

With W = P D P^-1 the gradient of h_T = (W')^T h_0 is (P')^-1 D^T P' (the homework solution's ends
in P^-1, which is wrong): an eigenvalue v makes it v a step. So does an rnn at rest (solid); inputs
(dashed) make tanh flatter. At rest lstms have s + v/4, grus s + (1 - s) v/2 with s = sigmoid(bias).
"""

import sys

import numpy as np

import fastrnn.figures
from fastrnn.solver import clip_by_global_norm

H, TIMES, RADII = 32, np.arange(1, 61), (0.8, 1, 1.25)
CASES = [("rnn", 1, 0), ("lstm", 4, 0), ("gru", 3, 0), ("lstm", 4, 2), ("gru", 3, 2)]


def norms(cell, Wh, b, x):
    """||dh_T / d(h_0, c_0)|| at all TIMES at once: row (T, i) takes T steps and sends e_i back."""
    Wx, last = np.tile(np.eye(H), len(b) // H), np.tile(np.eye(H), (len(TIMES), 1))
    rows, lengths = np.tile(x, (len(last), 1, 1)), np.repeat(TIMES, H)
    c0 = {"c0": 0 * last} if cell == "lstm" else {}
    _, cache = getattr(fastrnn, f"{cell}_forward")(rows, 0 * last, Wx, Wh, b, lengths=lengths, **c0)
    _, dh0, _, _, _, *dc0 = getattr(fastrnn, f"{cell}_backward")(None, cache, dhT=last)
    return np.linalg.norm(np.hstack([dh0, *dc0]).reshape(len(TIMES), H, -1), 2, axis=(1, 2))


def descend(Wh, x, max_norm):
    """Losses of an rnn whose unit 0 learns to be 1/2 after the inputs x."""
    for _ in range(200):
        _, cache = fastrnn.rnn_forward(x[None], np.zeros((1, H)), np.eye(H), Wh, np.zeros(H))
        dWh = fastrnn.rnn_backward(None, cache, dhT=(cache.hT - 0.5) * np.eye(H)[0])[3]
        clip_by_global_norm({"Wh": dWh}, max_norm)
        Wh = Wh - 0.3 * dWh
        yield (cache.hT[0, 0] - 0.5) ** 2


def main(folder="."):
    rng = np.random.default_rng(0)
    W, x = rng.normal(size=(10, H, H)), rng.normal(0, 0.3, (len(TIMES), H))
    W /= np.abs(np.linalg.eigvals(W)).max(axis=1)[:, None, None]
    *panels, below = fastrnn.figures.new(12, 7).subplots(2, 3).flat
    for axes, (cell, G, bias) in zip(panels, CASES, strict=True):
        Wh, b = np.hstack(W[:G]), np.repeat([0.0, bias, 0, 0][:G], H)
        rest, driven = (np.array([norms(cell, r * Wh, b, s * x) for r in RADII]).T for s in (0, 1))
        axes.set_prop_cycle(color=["b", "g", "r"])
        axes.semilogy(TIMES, rest, "-", TIMES, driven, "--")
        axes.legend(RADII, title=f"{cell}, bias {bias}:\nspectral radius")
        axes.set(xlabel="T", ylabel="norm")
        print(f"{cell}, bias {bias}: a step at rest", ((rest[-1] / rest[-21]) ** 0.05).round(3))
    for max_norm, color in (np.inf, "C3"), (1, "C0"):
        losses = np.transpose([[*descend(1.25 * w, x, max_norm)] for w in W])
        below.semilogy(losses, color, lw=0.8)
        print(f"{np.sum(losses[-1] < 0.01)} of 10 rnns learn with gradient norms up to {max_norm}")
    below.set(xlabel="update", ylabel="loss: unclipped (red), clipped (blue)")
    fastrnn.figures.save(below.figure, f"{folder}/gradient_flow.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
