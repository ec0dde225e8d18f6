"""The parity of bits
==================

The running parity, y_t = y_{t-1} xor x_t, by an RNN made by hand and by learnt ones.

The homework solution's a + b - ab = 1 - (1 - a)(1 - b) is OR and stays 1; XOR is a + b - 2ab. Its
OR and AND units, which see x_t and their own past, stay 1 too; they have to see y_{t-1} = OR - AND.
"""

import sys

import numpy as np

import fastrnn.figures

# Wx, Wh, b, w, c: h is tanh(40 (x_t + y_{t-1} - 0.5 or 1.5)), which rounds to -1 or 1; y_t is h w.
WEIGHTS = [[40.0, 40]], [[20.0, 20], [-20, -20]], [-20.0, -60], [[0.5], [-0.5]], [0.0]
BY_HAND = [np.array(w) for w in WEIGHTS]


def run(cell, params, bits):
    """What is read off the states after each of bits (N, T), and the caches of both layers."""
    x, h0 = bits[..., None] * 1.0, np.zeros((len(bits), len(params[1])))
    h, cache = getattr(fastrnn, f"{cell}_forward")(x, h0, *params[:3])
    return *fastrnn.temporal_affine_forward(h, *params[3:]), cache


def learn(cell, seed, H=16):
    """Yields the parameters learnt from strings of 1 bit, of up to 2, ... of up to 20 bits."""
    rng, G = np.random.default_rng(seed), {"rnn": 1, "lstm": 4, "gru": 3}[cell]
    params = [rng.normal(0, H**-0.5, s) for s in ((1, G * H), (H, G * H), G * H, (H, 2), 2)]
    configs = [{"learning_rate": 0.005} for _ in params]
    for T in range(1, 21):
        for bits in rng.integers(2, size=(40, 128, T)):
            s, s_cache, cache = run(cell, params, bits)
            _, ds = fastrnn.temporal_softmax_loss(s, bits.cumsum(axis=1) % 2)
            dh, *output = fastrnn.temporal_affine_backward(ds, s_cache)
            _, _, *recurrent = getattr(fastrnn, f"{cell}_backward")(dh, cache)
            for w, dw, config in zip(params, recurrent + output, configs, strict=True):
                fastrnn.optim.adam(w, dw, config, out=w)
        yield params


def main(folder="."):
    bits = np.random.default_rng(11).integers(2, size=(100, 1000))
    parity, homework = bits.cumsum(axis=1) % 2, 1 - (1 - bits).cumprod(axis=1)
    y, _, hand = run("rnn", BY_HAND, bits)
    rows = bits, hand.h[..., 0] > 0, hand.h[..., 1] > 0, y[..., 0], homework
    print("right by hand, by a + b - ab:", *[f"{np.mean(row == parity):.1%}" for row in rows[3:]])
    figure = fastrnn.figures.new(9, 8)
    top, *others = figure.subplots(4)
    top.imshow([row[0, :60] for row in rows], "Greys", aspect="auto")
    top.set_yticks(range(5), ["x", "OR", "AND", "OR - AND", "a + b - ab"])
    for axes, cell in zip(others, ["rnn", "lstm", "gru"], strict=True):
        right = np.mean([run(cell, p, bits)[0].argmax(2) == parity for p in learn(cell, 0)], axis=1)
        print(f"{cell}, learnt from up to 20 bits: {right[-1, -1]:.0%} right after 1,000 bits")
        axes.imshow(right, "Greys", aspect="auto", extent=(0, 1000, 20.5, 0.5), vmin=0.5)
        axes.set(ylabel=f"{cell}, learnt up to", title="right after so many bits (white: half)")
    fastrnn.figures.save(figure, f"{folder}/parity.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
