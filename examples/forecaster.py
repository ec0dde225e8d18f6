"""A forecaster that says how sure it is
=====================================

The load of a made-up power grid: a day, a week, weather that wanders. From seven days a GRU
predicts every hour of the next one, not as a number but as three: the quantiles of 10, 50 and 90 %,
which it learns by the pinball loss. Eight of ten values should then lie within the band, on days
that it has never seen. It is compared with what costs nothing: the same hours a week ago.
"""

import sys

import numpy as np

import fastrnn.figures
from fastrnn import nn, optim

PAST, AHEAD, H, QUANTILES = 7 * 24, 24, 48, np.array([0.1, 0.5, 0.9], np.float32)


def load_of_a_grid(days, rng):
    hours = np.arange(24 * days)
    weather = np.zeros(len(hours))
    for t in range(1, len(hours)):
        weather[t] = 0.98 * weather[t - 1] + rng.normal(0, 0.6)
    daily, weekend = np.sin((hours % 24 - 8) * np.pi / 12), hours // 24 % 7 >= 5
    return 50 + (8 - 5 * weekend) * daily - 6 * weekend + weather + rng.normal(0, 0.4, len(hours))


def windows(z, every):
    """x (N, PAST, 3), the load and the hour of the day; y (N, AHEAD), what followed."""
    angle = np.arange(len(z)) * np.pi / 12
    inputs = np.stack([z, np.sin(angle), np.cos(angle)], axis=1).astype(np.float32)
    begins = range(0, len(z) - PAST - AHEAD + 1, every)
    x = np.stack([inputs[i : i + PAST] for i in begins])
    return x, np.stack([inputs[i + PAST : i + PAST + AHEAD, 0] for i in begins])


def predict(params, gru, x):
    """The quantiles (N, AHEAD, 3), and the cache and the last h that they were made of."""
    _, h, cache = gru.forward(x, training=True)
    deviation = h[-1] @ params["w"] + params["b"]  # from the same hour of the day before
    return x[:, -24:, :1] + deviation.reshape(-1, AHEAD, 3), cache, h


def learn(params, gru, x, y, rng, updates=300):
    configs = {name: {"learning_rate": 4e-3} for name in params}
    for update in range(updates):
        batch = rng.choice(len(x), 64)
        quantiles, cache, h = predict(params, gru, x[batch])
        error = y[batch, :, None] - quantiles
        yield np.maximum(QUANTILES * error, (QUANTILES - 1) * error).mean()
        dout = np.where(error > 0, -QUANTILES, 1 - QUANTILES).reshape(64, -1) / error.size
        dh = (dout @ params["w"].T)[None]
        _, grads, _ = gru.backward(None, cache, dh)
        grads |= {"w": h[-1].T @ dout, "b": dout.sum(axis=0)}
        for name, value in params.items():
            configs[name]["learning_rate"] = 4e-3 * (1 - update / updates)
            optim.adam(value, grads[name], configs[name], out=value)


def main(folder="."):
    rng = np.random.default_rng(0)
    load = load_of_a_grid(600, rng)
    mean, scale = load[: 500 * 24].mean(), load[: 500 * 24].std()
    z = (load - mean) / scale
    x, y = windows(z[: 500 * 24], every=7)
    new_x, new_y = windows(z[500 * 24 :], every=24)
    gru = nn.GRU(3, H, seed=0)
    head = {"w": np.zeros((H, 3 * AHEAD), np.float32), "b": np.zeros(3 * AHEAD, np.float32)}
    params = gru.params | head
    losses = [*learn(params, gru, x, y, rng)]
    found = predict(params, gru, new_x)[0]
    print(f"pinball loss: {losses[0]:.3f} at first, {np.mean(losses[-50:]):.3f} in the end")
    print(f"mean error on {len(new_y)} new days: {scale * abs(found[..., 1] - new_y).mean():.2f}")
    print(f"of the same hours a week ago: {scale * abs(new_x[:, :AHEAD, 0] - new_y).mean():.2f}")
    inside = (found[..., 0] <= new_y) & (new_y <= found[..., 2])
    print(f"within the band that is to hold 80 %: {inside.mean():.0%}")
    figure = fastrnn.figures.new(9, 4)
    axes, hours = figure.subplots(), np.arange(7 * AHEAD)
    low, middle, high = mean + scale * found[:7].reshape(-1, 3).T
    axes.fill_between(hours, low, high, alpha=0.3, label="10 to 90 %")
    axes.plot(hours, middle, label="50 %")
    axes.plot(hours, mean + scale * new_y[:7].ravel(), "k.", ms=3, label="what came")
    axes.set(xlabel="hour", ylabel="load", title="seven days, each predicted the midnight before")
    axes.legend()
    fastrnn.figures.save(figure, f"{folder}/forecaster.png")


if __name__ == "__main__":
    main(*sys.argv[1:])
