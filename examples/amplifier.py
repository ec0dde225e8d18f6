"""An amplifier, learnt and streamed at 48 kHz
===========================================

A guitar amplifier bends what goes in, differently by what came before. This page makes both sides:
plucked notes, and a valve stage whose bias sags with loudness. An LSTM of 16 units learns to sound
like it, from segments whose first samples only warm its state up. Then it plays in real time, in
blocks of 64 samples through a stream, each of which has to be done within 1.33 ms.
"""

import sys
import time

import numpy as np

import fastrnn.figures
from fastrnn import nn, optim

RATE, T, WARM, H, BLOCK = 48_000, 512, 128, 16, 64


def notes(seconds, rng):
    """Plucked notes, each a third of a second: harmonics of which the high ones die first."""
    t = np.arange(RATE // 3) / RATE
    played = []
    for _ in range(3 * seconds):
        pitch, k = 82.4 * 2 ** (rng.integers(0, 36) / 12), np.arange(1, 13)[:, None]
        harmonics = np.sin(2 * np.pi * k * pitch * t) * np.exp(-t * 2.5 * k) / k
        played.append(rng.uniform(0.3, 1) * harmonics.sum(axis=0))
    return 0.5 * np.hstack(played)


def amplify(x):
    """A high-pass, a valve whose bias follows how loud it was, a low-pass: sample by sample."""
    y, low, loud, smooth = np.empty_like(x), 0.0, 0.0, 0.0
    for i, sample in enumerate(x):
        low += 0.01 * (sample - low)
        loud += 0.002 * (abs(sample) - loud)
        valve = np.tanh(4 * (sample - low) + 0.4 - 2 * loud) - np.tanh(0.4 - 2 * loud)
        smooth += 0.45 * (valve - smooth)
        y[i] = smooth
    return y


def learn(params, lstm, x, y, rng, updates=500):
    """Yields the share of the energy that is wrong, after each update."""
    configs = {name: {} for name in params}
    for update in range(updates):
        begins = rng.integers(len(x) - T, size=32)[:, None] + np.arange(T)
        h, _, cache = lstm.forward(x[begins][..., None], training=True)
        error = (h @ params["w"] + params["b"])[..., 0] - y[begins]
        error[:, :WARM] = 0
        energy = np.sum(y[begins][:, WARM:] ** 2)
        yield np.sum(error**2) / energy
        dout = (2 * error / energy)[..., None]
        _, grads, _ = lstm.backward(dout @ params["w"].T, cache)
        grads |= {"w": np.einsum("nth,ntc->hc", h, dout), "b": dout.sum(axis=(0, 1))}
        for name, value in params.items():
            configs[name]["learning_rate"] = 8e-3 * (1 - update / updates) + 1e-4
            optim.adam(value, grads[name], configs[name], out=value)


def play(stream, x):
    """What comes out, and the seconds that each block took."""
    blocks = x[: len(x) // BLOCK * BLOCK].reshape(-1, BLOCK, 1, 1)
    out, seconds = np.empty_like(blocks), []
    for block, result in zip(blocks, out, strict=True):
        began = time.perf_counter()
        stream.steps(block, out=result)
        seconds.append(time.perf_counter() - began)
    return out.ravel(), seconds


def main(folder="."):
    rng = np.random.default_rng(0)
    x = notes(6, rng).astype(np.float32)
    y, split = amplify(x).astype(np.float32), 5 * RATE
    lstm = nn.LSTM(1, H, seed=0)
    head = {"w": rng.normal(0, 0.1, (H, 1)).astype(np.float32), "b": np.zeros(1, np.float32)}
    losses = [*learn(lstm.params | head, lstm, x[:split], y[:split], rng)]
    print(f"energy that is wrong: {losses[0]:.0%} at first, {np.mean(losses[-50:]):.1%} in the end")
    before = fastrnn.get_num_threads()
    fastrnn.set_num_threads(1)  # an audio thread waits for no other
    played, seconds = play(lstm.stream(head=(head["w"], head["b"])), x[split:])
    fastrnn.set_num_threads(before)
    true = y[split:][: len(played)]
    print(f"of a second that it never heard: {np.sum((played - true) ** 2) / np.sum(true**2):.1%}")
    share = np.array(seconds) / (BLOCK / RATE)
    print(f"{len(seconds)} blocks of {BLOCK} samples, {BLOCK / RATE * 1e3:.2f} ms each")
    middle, high = np.quantile(share, [0.5, 0.99])
    print(f"share of the deadline: {middle:.1%}, of 99 blocks in 100 below {high:.1%}")
    figure = fastrnn.figures.new(9, 4)
    left, right = figure.subplots(1, 2)
    some = slice(9600, 10_100)
    left.plot(x[split:][some], "0.7", label="in")
    left.plot(true[some], "k", label="amplifier")
    left.plot(played[some], "C3--", label="LSTM")
    left.legend()
    right.semilogy(losses)
    right.set(xlabel="update", title="share of the energy that is wrong")
    fastrnn.figures.save(figure, f"{folder}/amplifier.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
