"""A network that writes
=====================

Character by character an LSTM learns to continue a text, here fastrnn's made-up reviews: the task
that Karpathy's min-char-rnn made known. One long text is cut into rows that lie side by side; each
update takes the next 64 characters of every row and goes on from the states that the last one left
(truncated back-propagation). What is written is drawn from the network's own probabilities: each
character goes back in as the next input, through a stream.
"""

import sys

import numpy as np

import fastrnn.figures
from fastrnn import Chain, Stream, optim
from fastrnn.text import grammar

N, T, W, H = 32, 64, 32, 128


def parameters(V, rng):
    """Vectors of the characters, an LSTM, and what makes scores of its states."""
    shapes = {"E": (V, W), "Wx": (W, 4 * H), "Wh": (H, 4 * H), "b": 4 * H, "w": (H, V), "c": V}
    params = {name: rng.normal(0, 0.08, shape) for name, shape in shapes.items()}
    return {name: a.astype(np.float32) for name, a in params.items()}


def learn(params, text, updates):
    """Yields the loss of each update, in bits a character."""
    rows = text[: len(text) // N * N].reshape(N, -1)
    configs = {name: {"learning_rate": 4e-3} for name in params}
    h = c = np.zeros((N, H), np.float32)
    for update in range(updates):
        begin = update * T % (rows.shape[1] - T - 1)
        x, y = rows[:, begin : begin + T], rows[:, begin + 1 : begin + T + 1]
        E, Wx, Wh, b, *head = params.values()
        hs, cache = fastrnn.lstm_forward(E, h, Wx, Wh, b, c0=c, index=x)  # x: rows of E
        scores, head_cache = fastrnn.temporal_affine_forward(hs, *head)
        loss, dscores = fastrnn.temporal_softmax_loss(scores, y)
        dh, *dhead = fastrnn.temporal_affine_backward(dscores / T, head_cache)
        dE, _, dWx, dWh, db, _ = fastrnn.lstm_backward(dh, cache)
        for (name, w), dw in zip(params.items(), (dE, dWx, dWh, db, *dhead), strict=True):
            optim.adam(w, dw, configs[name], out=w)
        h, c = cache.hT, cache.cT
        yield loss / T / np.log(2)


def write(params, begin, length, rng, temperature=0.5):
    """The indices of begin, and of so many characters more."""
    E, Wx, Wh, b, *head = params.values()
    stream, written = Chain([Stream("lstm", Wx, Wh, b)], head), list(begin)
    scores = stream.steps(E[begin][:, None])[-1, 0]
    for _ in range(length):
        p = np.exp((scores - scores.max()) / temperature, dtype=float)
        written.append(rng.choice(len(E), p=p / p.sum()))
        scores = stream.step(E[written[-1:]])[0]
    return written


def main(folder="."):
    rng = np.random.default_rng(0)
    text = np.array(list("\n".join(grammar.make_reviews(3000, seed=0)[0])))
    letters, text = np.unique(text, return_inverse=True)
    params = parameters(len(letters), rng)
    losses = [*learn(params, text, updates=500)]
    print(
        f"{len(text):,} characters, {len(letters)} different ones: {np.log2(len(letters)):.1f} bits"
    )
    print(f"bits a character: {losses[0]:.2f} at first, {np.mean(losses[-50:]):.2f} in the end")
    begin = np.searchsorted(letters, list("\nthe "))
    lines = "".join(letters[write(params, begin, 400, rng)]).split("\n")
    print("It writes:", *lines[1:5], sep="\n")
    figure = fastrnn.figures.new(8, 4)
    axes = figure.subplots()
    axes.plot(losses)
    axes.set(xlabel="update", ylabel="bits a character", ylim=(0, None))
    fastrnn.figures.save(figure, f"{folder}/characters.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
