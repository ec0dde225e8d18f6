"""First-order update rules, all of one form: rule(w, dw, config) -> next_w, config.

w, dw and next_w are arrays of one shape and dtype; w and dw are not modified. config is a dict that
holds the hyperparameters (missing ones get the defaults below) and the rule's state; it is updated
in place and returned. Pass the same dict to the next call for the same parameter. Without a config
the rule starts afresh. Raises ValueError where dw has not w's shape, TypeError where it has
not its dtype.
"""

import numpy as np

Config = dict[str, object]


def sgd(w: np.ndarray, dw: np.ndarray, config: Config | None = None) -> tuple[np.ndarray, Config]:
    """Stochastic gradient descent: next_w = w - learning_rate dw.

    config: learning_rate (1e-2).
    """
    config = _with_defaults(w, dw, config, learning_rate=1e-2)
    return w - config["learning_rate"] * dw, config


def sgd_momentum(
    w: np.ndarray, dw: np.ndarray, config: Config | None = None
) -> tuple[np.ndarray, Config]:
    """Stochastic gradient descent with momentum: v = momentum v - learning_rate dw,
    next_w = w + v (Polyak 1964).

    config: learning_rate (1e-2), momentum (0.9); state velocity, like w.
    """
    config = _with_defaults(w, dw, config, learning_rate=1e-2, momentum=0.9)
    v = config["momentum"] * _state(config, "velocity", w) - config["learning_rate"] * dw
    config["velocity"] = v
    return w + v, config


def rmsprop(
    w: np.ndarray, dw: np.ndarray, config: Config | None = None
) -> tuple[np.ndarray, Config]:
    """Step scaled by a moving average of squared gradients (Tieleman and Hinton 2012).

    config: learning_rate (1e-2), decay_rate (0.99), epsilon (1e-8); state cache, like w.
    """
    config = _with_defaults(w, dw, config, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8)
    decay = config["decay_rate"]
    cache = decay * _state(config, "cache", w) + (1 - decay) * dw**2
    config["cache"] = cache
    return w - config["learning_rate"] * dw / (np.sqrt(cache) + config["epsilon"]), config


def adam(w: np.ndarray, dw: np.ndarray, config: Config | None = None) -> tuple[np.ndarray, Config]:
    """Adam: bias-corrected moving averages of the gradient and of its square (Kingma and Ba 2015).

    config: learning_rate (1e-3), beta1 (0.9), beta2 (0.999), epsilon (1e-8); state m and v, like w,
    and t, the number of steps taken.
    """
    config = _with_defaults(
        w, dw, config, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, t=0
    )
    beta1, beta2 = config["beta1"], config["beta2"]
    config["t"] += 1
    m = config["m"] = _state(config, "m", w)
    v = config["v"] = _state(config, "v", w)
    # In place, since parameters do not fit the cache and every temporary is a trip to memory.
    m *= beta1
    m += (1 - beta1) * dw
    v *= beta2
    v += (1 - beta2) * dw**2
    next_w = np.empty_like(w)
    np.multiply(v, 1 / (1 - beta2 ** config["t"]), out=next_w)
    np.sqrt(next_w, out=next_w)
    next_w += config["epsilon"]
    np.divide(m, next_w, out=next_w)
    next_w *= -config["learning_rate"] / (1 - beta1 ** config["t"])
    next_w += w
    return next_w, config


RULES = {rule.__name__: rule for rule in (sgd, sgd_momentum, rmsprop, adam)}


def _with_defaults(w, dw, config, **defaults):
    if dw.shape != w.shape:
        raise ValueError(f"dw: expected shape {w.shape} like w, got {dw.shape}")
    if dw.dtype != w.dtype:
        raise TypeError(f"dw: expected {w.dtype} like w, got {dw.dtype}")
    config = {} if config is None else config
    for name, value in defaults.items():
        value = config.get(name, value)
        # A NumPy scalar, unlike a Python number, would turn float32 parameters into its own dtype.
        config[name] = value.item() if isinstance(value, np.generic) else value
    return config


def _state(config, name, w):
    return config[name] if name in config else np.zeros_like(w)
