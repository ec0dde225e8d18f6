"""The update rules, against their formulas written out and against torch.optim."""

import numpy as np
import pytest
import torch
from util import TWIN, assert_close, assert_same_bits

from fastrnn import optim


def sgd(w, dws, learning_rate=1e-2):
    for dw in dws:
        w = w - learning_rate * dw
        yield w


def sgd_momentum(w, dws, learning_rate=1e-2, momentum=0.9):
    for t in range(len(dws)):
        v = -learning_rate * sum(momentum ** (t - s) * dws[s] for s in range(t + 1))
        w = w + v
        yield w


def rmsprop(w, dws, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8):
    cache = 0
    for dw in dws:
        cache = decay_rate * cache + (1 - decay_rate) * dw * dw
        w = w - learning_rate * dw / (np.sqrt(cache) + epsilon)
        yield w


def adam(w, dws, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8):
    m = v = 0
    for t, dw in enumerate(dws, start=1):
        m = beta1 * m + (1 - beta1) * dw
        v = beta2 * v + (1 - beta2) * dw * dw
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        w = w - learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)
        yield w


FORMULAS = {formula.__name__: formula for formula in (sgd, sgd_momentum, rmsprop, adam)}
DEFAULTS = {
    "sgd": {"learning_rate": 1e-2},
    "sgd_momentum": {"learning_rate": 1e-2, "momentum": 0.9},
    "rmsprop": {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8},
    "adam": {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
}
OTHERS = {
    "sgd": {"learning_rate": 0.3},
    "sgd_momentum": {"learning_rate": 0.3, "momentum": 0.7},
    "rmsprop": {"learning_rate": 0.3, "decay_rate": 0.8, "epsilon": 1e-3},
    "adam": {"learning_rate": 0.3, "beta1": 0.7, "beta2": 0.8, "epsilon": 1e-3},
}
STATE = {"sgd": set(), "sgd_momentum": {"velocity"}, "rmsprop": {"cache"}, "adam": {"m", "v", "t"}}
STRANGERS = {
    "sgd": lambda w: torch.optim.SGD([w], lr=0.3),
    "sgd_momentum": lambda w: torch.optim.SGD([w], lr=0.3, momentum=0.7),
    "rmsprop": lambda w: torch.optim.RMSprop([w], lr=0.3, alpha=0.8, eps=1e-3),
    "adam": lambda w: torch.optim.Adam([w], lr=0.3, betas=(0.7, 0.8), eps=1e-3),
}


def test_config_of_another_parameter_is_refused(backend):
    config = {}
    optim.adam(np.zeros(8), np.zeros(8), config)
    with pytest.raises(ValueError) as error:
        optim.adam(np.zeros(9), np.zeros(9), config)
    assert str(error.value) == (
        "config: expected m like w, float64 (9,), got float64 (8,); every parameter needs a config "
        "of its own"
    )


every_rule = pytest.mark.parametrize("name", optim.RULES)


@pytest.fixture
def w(rng):
    return rng.standard_normal((4, 5))


@pytest.fixture
def dws(rng):
    return rng.standard_normal((3, 4, 5))


def descend(name, w, dws, config=None):
    """w after every step."""
    for dw in dws:
        w, config = optim.RULES[name](w, dw, config)
        yield w


@every_rule
@pytest.mark.parametrize("hyperparameters", [{}, OTHERS], ids=["defaults", "others"])
def test_rule_follows_its_formula(name, hyperparameters, w, dws):
    chosen = hyperparameters.get(name, {})
    expected = FORMULAS[name](w, dws, **chosen)
    for after, e in zip(descend(name, w, dws, dict(chosen)), expected, strict=True):
        assert_close(after, e, TWIN["float64"])


@every_rule
def test_rule_goes_where_torch_goes(name, w, dws):
    theirs = torch.tensor(w, requires_grad=True)
    optimizer = STRANGERS[name](theirs)
    for dw, after in zip(dws, descend(name, w, dws, dict(OTHERS[name])), strict=True):
        theirs.grad = torch.tensor(dw)
        optimizer.step()
        assert_close(after, theirs.detach().numpy(), TWIN["float64"])


def test_velocity_is_the_step_itself(w, dws):
    """Polyak's: PyTorch's momentum buffer is this over -learning_rate."""
    config = None
    for dw in dws:
        next_w, config = optim.sgd_momentum(w, dw, config)
        assert_close(config["velocity"], next_w - w, TWIN["float64"])
        w = next_w


@every_rule
def test_config_is_filled_with_defaults_and_state(name, w):
    given = {}
    _, config = optim.RULES[name](w, w, given)
    assert config is given
    assert {key: config[key] for key in config.keys() - STATE[name]} == DEFAULTS[name]
    assert config.keys() >= STATE[name]
    assert all(config[key].shape == w.shape for key in STATE[name] - {"t"})


@every_rule
def test_without_a_config_a_rule_starts_afresh(name, w):
    first, _ = optim.RULES[name](w, w)
    second, _ = optim.RULES[name](w, w)
    np.testing.assert_array_equal(first, second)


@every_rule
def test_rule_modifies_no_array_that_it_was_given_or_gave(name, w, dws):
    given = w.copy(), dws.copy()
    path = list(descend(name, w, dws))
    again = [after.copy() for after in descend(name, w, dws)]
    np.testing.assert_array_equal(w, given[0])
    np.testing.assert_array_equal(dws, given[1])
    np.testing.assert_array_equal(path, again)


@every_rule
@pytest.mark.parametrize("number", [float, np.float64])
def test_rule_keeps_the_dtype(name, number, dtype, w, dws):
    """Also with a learning rate from np.logspace, which is a NumPy float64."""
    config = {key: number(value) for key, value in DEFAULTS[name].items()}
    for after in descend(name, w.astype(dtype), dws.astype(dtype), config):
        assert after.dtype == dtype
    assert all(config[key].dtype == dtype for key in STATE[name] - {"t"})


@every_rule
@pytest.mark.parametrize("shape", [(), (0, 3), (2, 3, 4)], ids=str)
def test_rule_takes_any_shape(name, shape):
    next_w, _ = optim.RULES[name](np.ones(shape), np.zeros(shape))
    assert_same_bits(next_w, np.ones(shape))


@every_rule
def test_rule_refuses_a_gradient_of_another_shape(name, w):
    with pytest.raises(ValueError) as error:
        optim.RULES[name](w, w[0])
    assert str(error.value) == "dw: expected shape (4, 5) like w, got (5,)"
