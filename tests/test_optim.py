"""The update rules, against their formulas written out and against torch.optim."""

import copy

import numpy as np
import pytest
import torch
from util import EXACT, TWIN, assert_close, assert_same_bits

import fastrnn
from fastrnn import RowGradient, optim


def decayed(w, learning_rate, weight_decay):
    return w - learning_rate * weight_decay * w


def sgd(w, dws, learning_rate=1e-2, weight_decay=0):
    for dw in dws:
        w = decayed(w, learning_rate, weight_decay) - learning_rate * dw
        yield w


def sgd_momentum(w, dws, learning_rate=1e-2, momentum=0.9, weight_decay=0):
    for t in range(len(dws)):
        v = -learning_rate * sum(momentum ** (t - s) * dws[s] for s in range(t + 1))
        w = decayed(w, learning_rate, weight_decay) + v
        yield w


def rmsprop(w, dws, learning_rate=1e-2, decay_rate=0.99, epsilon=1e-8, weight_decay=0):
    cache = 0
    for dw in dws:
        cache = decay_rate * cache + (1 - decay_rate) * dw * dw
        w = decayed(w, learning_rate, weight_decay)
        w = w - learning_rate * dw / (np.sqrt(cache) + epsilon)
        yield w


def adam(w, dws, learning_rate=1e-3, beta1=0.9, beta2=0.999, epsilon=1e-8, weight_decay=0):
    m = v = 0
    for t, dw in enumerate(dws, start=1):
        m = beta1 * m + (1 - beta1) * dw
        v = beta2 * v + (1 - beta2) * dw * dw
        m_hat, v_hat = m / (1 - beta1**t), v / (1 - beta2**t)
        w = decayed(w, learning_rate, weight_decay)
        w = w - learning_rate * m_hat / (np.sqrt(v_hat) + epsilon)
        yield w


FORMULAS = {formula.__name__: formula for formula in (sgd, sgd_momentum, rmsprop, adam)}
DEFAULTS = {
    "sgd": {"learning_rate": 1e-2},
    "sgd_momentum": {"learning_rate": 1e-2, "momentum": 0.9},
    "rmsprop": {"learning_rate": 1e-2, "decay_rate": 0.99, "epsilon": 1e-8},
    "adam": {"learning_rate": 1e-3, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8},
}
DEFAULTS = {name: config | {"weight_decay": 0} for name, config in DEFAULTS.items()}
OTHERS = {
    "sgd": {"learning_rate": 0.3},
    "sgd_momentum": {"learning_rate": 0.3, "momentum": 0.7},
    "rmsprop": {"learning_rate": 0.3, "decay_rate": 0.8, "epsilon": 1e-3},
    "adam": {"learning_rate": 0.3, "beta1": 0.7, "beta2": 0.8, "epsilon": 1e-3},
}
DECAYED = {name: config | {"weight_decay": 0.2} for name, config in OTHERS.items()}
STATE = {"sgd": set(), "sgd_momentum": {"velocity"}, "rmsprop": {"cache"}, "adam": {"m", "v", "t"}}
STRANGERS = {
    "sgd": lambda w: torch.optim.SGD([w], lr=0.3),
    "sgd_momentum": lambda w: torch.optim.SGD([w], lr=0.3, momentum=0.7),
    "rmsprop": lambda w: torch.optim.RMSprop([w], lr=0.3, alpha=0.8, eps=1e-3),
    "adam": lambda w: torch.optim.Adam([w], lr=0.3, betas=(0.7, 0.8), eps=1e-3),
}
# PyTorch's other rules add weight_decay to the gradient.
DECAYED_STRANGERS = {
    "sgd": lambda w: torch.optim.SGD([w], lr=0.3, weight_decay=0.2),
    "adam": lambda w: torch.optim.AdamW([w], lr=0.3, betas=(0.7, 0.8), eps=1e-3, weight_decay=0.2),
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
@pytest.mark.parametrize(
    "hyperparameters", [{}, OTHERS, DECAYED], ids=["defaults", "others", "decayed"]
)
def test_rule_follows_its_formula(name, hyperparameters, implementation, w, dws):
    chosen = hyperparameters.get(name, {})
    expected = FORMULAS[name](w, dws, **chosen)
    for after, e in zip(descend(name, w, dws, dict(chosen)), expected, strict=True):
        assert_close(after, e, TWIN["float64"])


@pytest.mark.parametrize(
    ("name", "stranger", "config"),
    [
        *((name, stranger, OTHERS[name]) for name, stranger in STRANGERS.items()),
        *((name, stranger, DECAYED[name]) for name, stranger in DECAYED_STRANGERS.items()),
    ],
    ids=[*STRANGERS, *(f"{name}_decayed" for name in DECAYED_STRANGERS)],
)
def test_rule_goes_where_torch_goes(name, stranger, config, backend, w, dws):
    theirs = torch.tensor(w, requires_grad=True)
    optimizer = stranger(theirs)
    for dw, after in zip(dws, descend(name, w, dws, dict(config)), strict=True):
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


# ---- gradients of rows ---------------------------------------------------------------------------

# The rows of three gradients: none, one, all, some in any order.
STEPS = [[[2, 0], [], [3, 0, 1]], [[1], [1], [3]], [[0, 1, 2, 3]] * 3]
SHAPES = [(4, 5), (4,), (4, 3, 7)]


def arrays_of(config):
    return {key: value for key, value in config.items() if isinstance(value, np.ndarray)}


def row_gradients(steps, shape, dtype, rng):
    for rows in steps:
        values = rng.standard_normal((len(rows), *shape[1:])).astype(dtype)
        yield RowGradient(np.array(rows, np.intp), values)


@every_rule
@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_rows_take_the_step_of_all_and_others_stand_still(
    name, steps, shape, implementation, dtype, rng
):
    w, config = rng.standard_normal(shape).astype(dtype), dict(DECAYED[name])
    optim.RULES[name](w, w, config)  # so that there is a state
    for rows, values in row_gradients(steps, shape, dtype, rng):
        of_rows = copy.deepcopy(config)
        of_rows |= {key: a[rows] for key, a in arrays_of(of_rows).items()}
        taken, of_rows = optim.RULES[name](w[rows], values, of_rows)
        expected = {"w": w.copy()} | {key: a.copy() for key, a in arrays_of(config).items()}
        for key, a in {"w": taken, **arrays_of(of_rows)}.items():
            expected[key][rows] = a
        w, config = optim.RULES[name](w, RowGradient(rows, values), config)
        for key, a in {"w": w, **arrays_of(config)}.items():
            others = np.setdiff1d(range(4), rows)
            assert_close(a, expected[key], TWIN[dtype.name], key)
            assert_same_bits(a[others], expected[key][others], key)
        assert config.get("t") == of_rows.get("t")


# SparseAdam adds epsilon before it corrects the bias.
SPARSE_STRANGERS = {
    "sgd": lambda w: torch.optim.SGD([w], lr=0.3),
    "adam": lambda w: torch.optim.SparseAdam([w], lr=0.3, betas=(0.7, 0.8), eps=1e-30),
}


@pytest.mark.parametrize("steps", STEPS, ids=str)
@pytest.mark.parametrize("name", SPARSE_STRANGERS)
def test_rows_go_where_torch_goes(name, steps, backend, w, rng):
    theirs = torch.tensor(w, requires_grad=True)
    optimizer = SPARSE_STRANGERS[name](theirs)
    config = dict(OTHERS[name])
    if "epsilon" in config:
        config["epsilon"] = 1e-30
    for rows, values in row_gradients(steps, w.shape, w.dtype, rng):
        theirs.grad = torch.sparse_coo_tensor(rows[None], values, w.shape, check_invariants=True)
        optimizer.step()
        w, config = optim.RULES[name](w, RowGradient(rows, values), config)
        assert_close(w, theirs.detach().numpy(), TWIN["float64"])


@every_rule
@pytest.mark.parametrize("sparse", [False, True])
def test_any_number_of_threads_gives_the_same_bits(
    name, sparse, isa, dtype, small_work_is_split, rng
):
    w, dw = rng.standard_normal((2, 37, 19)).astype(dtype)
    if sparse:
        rows = rng.permutation(37)[:23]
        dw = RowGradient(rows, dw[rows])
    results = []
    for n in (1, 2, 3, 4):
        fastrnn.set_num_threads(n)
        results.append(optim.RULES[name](w, dw, dict(DECAYED[name])))
    for after, config in results[1:]:
        assert_same_bits(after, results[0][0])
        for key, a in arrays_of(config).items():
            assert_same_bits(a, results[0][1][key], key)


@every_rule
@pytest.mark.parametrize("sparse", [False, True])
def test_out_receives_the_weights(name, sparse, backend, w, dws):
    dw = RowGradient(np.array([3, 1]), dws[0][:2]) if sparse else dws[0]
    expected, _ = optim.RULES[name](w, dw)
    before, out = w.copy(), np.full_like(w, np.nan)
    assert optim.RULES[name](w, dw, out=out)[0] is out
    assert_same_bits(out, expected)
    assert_same_bits(w, before)
    assert optim.RULES[name](w, dw, out=w)[0] is w
    assert_same_bits(w, expected)


@every_rule
def test_rows_of_a_matrix_in_place_cost_no_pass_over_it(name, backend, w, dws, monkeypatch):
    monkeypatch.setattr(optim, "_copied", None)
    optim.RULES[name](w, RowGradient(np.array([3, 1]), dws[0][:2]), out=w)


@every_rule
def test_rows_of_any_layout_and_integers(name, backend, dws):
    w = np.asfortranarray(dws[0])
    expected, _ = optim.RULES[name](w.copy(), RowGradient(np.array([3, 1]), dws[1][:2].copy()))
    for integer in np.typecodes["AllInteger"]:
        strided = RowGradient(np.array([3, 1], integer), np.asfortranarray(dws[1][:2]))
        after, _ = optim.RULES[name](w, strided)
        assert_close(after, expected, TWIN["float64"])


@every_rule
def test_rows_of_a_matrix_without_rows(name, backend):
    w = np.zeros((0, 3))
    after, _ = optim.RULES[name](w, RowGradient(np.zeros(0, int), w))
    assert_close(after, w, EXACT)


@pytest.mark.parametrize(
    ("rows", "values", "error"),
    [
        ([0, 4], (2, 5), "IndexError: dw: expected rows in [0, 4), got 0..4"),
        ([-1, 3], (2, 5), "IndexError: dw: expected rows in [0, 4), got -1..3"),
        ([0.0, 1.0], (2, 5), "ValueError: dw: expected rows as integers (R,), got float64 (2,)"),
        ([[0, 1]], (2, 5), "ValueError: dw: expected rows as integers (R,), got int64 (1, 2)"),
        ([0, 1], (3, 5), "ValueError: dw: expected shape (2, 5) like w, got (3, 5)"),
        ([0, 1], (2, 4), "ValueError: dw: expected shape (2, 5) like w, got (2, 4)"),
    ],
)
@every_rule
def test_wrong_rows_are_refused_and_change_nothing(name, rows, values, error, backend, w):
    before, config = w.copy(), dict(DEFAULTS[name])
    with pytest.raises((IndexError, ValueError)) as caught:
        optim.RULES[name](w, RowGradient(np.array(rows), np.zeros(values)), config, out=w)
    assert f"{caught.type.__name__}: {caught.value}" == error
    assert_same_bits(w, before)
    assert config == DEFAULTS[name]


def test_a_row_that_comes_twice_is_refused(backend):
    twice = fastrnn.RowGradient(np.array([2, 0, 2]), np.ones((3, 4)))
    with pytest.raises(ValueError, match="^dw: expected every row once"):
        optim.adam(np.zeros((5, 4)), twice)


# ---- what is refused, and that nothing has changed then ------------------------------------------

ABOVE = "expected a finite float32 above 0"
AT_LEAST = "expected a finite float32 of at least 0"
WRONG_NUMBERS = [
    *(("learning_rate", n, ValueError, AT_LEAST) for n in (-0.1, np.nan, np.inf, 1e39, -np.inf)),
    *(("weight_decay", n, ValueError, AT_LEAST) for n in (-1e-9, np.float64(np.nan), 10**400)),
    *(("epsilon", n, ValueError, ABOVE) for n in (0, -1e-8, np.nan, np.inf, 1e-60)),
    *(
        (name, n, ValueError, "expected a number in [0, 1)")
        for name in ("momentum", "decay_rate", "beta1", "beta2")
        for n in (1, -0.1, 1.5, np.nan, np.array(1.0))
    ),
    *(("t", n, ValueError, "expected an integer of at least 0") for n in (-1, 1.5, np.nan, 2**70)),
    *(
        (name, n, TypeError, "expected a number")
        for name in ("learning_rate", "weight_decay", "epsilon", "momentum", "beta2", "t")
        for n in (None, "0.1", True, 1j, [0.1], np.ones(1), np.array("1"), np.bool_(True))
    ),
]


def snapshot(*things):
    return copy.deepcopy(things)


def assert_unchanged(things, before):
    for a, b in zip(things, before, strict=True):
        if isinstance(a, dict):
            assert list(a) == list(b)
            assert_unchanged(list(a.values()), list(b.values()))
        elif isinstance(a, list):
            assert_unchanged(a, b)
        elif isinstance(a, np.ndarray):
            assert_same_bits(a, b)
        else:
            assert a is b or a == b or a != a, (a, b)  # NaN


@pytest.mark.parametrize(("key", "value", "exception", "text"), WRONG_NUMBERS)
def test_number_out_of_range_is_refused(key, value, exception, text, backend):
    w = np.ones(3, np.float32)
    for name, rule in optim.RULES.items():
        if key not in DEFAULTS[name] and key not in STATE[name]:
            continue
        _, config = rule(w, w)
        config[key] = value
        before = snapshot(w, config)
        with pytest.raises(exception) as error:
            rule(w, 2 * w, config, out=w)
        if isinstance(value, np.ndarray) and value.ndim == 0:
            value = value.item()
        assert str(error.value) == f"{key}: {text}, got {value!r}"
        assert_unchanged((w, config), before)


@every_rule
@pytest.mark.parametrize("key", ["lr", "Learning_rate", "alpha", "nu", None, 3])
def test_unknown_key_is_refused(name, key, backend, w):
    config = {key: 0.1}
    with pytest.raises(ValueError) as error:
        optim.RULES[name](w, w, config)
    known = [*DEFAULTS[name], *sorted(STATE[name])]
    assert str(error.value).startswith("config: expected keys among ['learning_rate', ")
    assert all(repr(k) in str(error.value) for k in known)
    assert str(error.value).endswith(f", got {key!r}")
    assert config == {key: 0.1}


@every_rule
@pytest.mark.parametrize(
    "dtype", ["int64", "bool", "float16", "complex64", "longdouble", ">f8", "O", "S1", "M8[s]"]
)
def test_parameters_are_float32_or_float64(name, dtype, backend):
    if np.dtype(dtype) == np.float64:  # long double, where it is no longer
        return
    w = np.zeros(3, dtype)
    with pytest.raises(TypeError) as error:
        optim.RULES[name](w, w, {})
    assert str(error.value) == f"w: expected float32 or float64, got {np.dtype(dtype)}"


def masked(a):
    return np.ma.masked_array(a, np.arange(a.size).reshape(a.shape) == 1)


def read_only(a):
    a = a.copy()
    a.flags.writeable = False
    return a


REFUSED = {
    "w masked": ({"w": masked}, TypeError, "w: expected an array without a mask"),
    "dw masked": ({"dw": masked}, TypeError, "dw: expected an array without a mask"),
    "dw lists of masked": ({"dw": lambda a: list(masked(a))}, TypeError, "dw: expected an array w"),
    "dw ragged": ({"dw": lambda a: [[1], [1, 2]]}, ValueError, "dw: expected an array, got none"),
    "dw dtype": ({"dw": lambda a: a.astype("f")}, TypeError, "dw: expected float64 like w"),
    "dw shape": ({"dw": lambda a: a[1:]}, ValueError, "dw: expected shape (4, 5) like w"),
    "dw empty": ({"dw": lambda a: []}, ValueError, "dw: expected shape (4, 5) like w, got (0,)"),
    "out read-only": ({"out": read_only}, ValueError, "out: expected a writeable array, got"),
    "w read-only": ({"w": read_only, "out": None}, ValueError, "out: expected a writeable array"),
    "out list": ({"out": np.ndarray.tolist}, TypeError, "out: expected an ndarray, got list"),
    "out masked": ({"out": masked}, TypeError, "out: expected an array without a mask"),
    "out shape": ({"out": lambda a: a[:1]}, ValueError, "out: expected shape (4, 5) like w"),
    "out dtype": ({"out": lambda a: a.astype("f")}, TypeError, "out: expected float64 like w"),
    "config list": ({"config": lambda c: [c]}, TypeError, "config: expected a dict, got list"),
    "state masked": ({"state": masked}, TypeError, ": expected an array without a mask"),
    "state shape": ({"state": lambda a: a[1:]}, ValueError, "config: expected "),
    "state dtype": ({"state": lambda a: a.astype(int)}, ValueError, "config: expected "),
    "state list": ({"state": lambda a: [1, 2]}, ValueError, "config: expected "),
    "state None": ({"state": lambda a: None}, TypeError, ": expected an array, got None"),
}


@every_rule
@pytest.mark.parametrize(("change", "exception", "text"), REFUSED.values(), ids=REFUSED)
def test_what_is_refused_has_changed_nothing(name, change, exception, text, backend, w, dws):
    given = {"w": w, "dw": dws[0], "out": dws[1], "config": optim.RULES[name](w, dws[2])[1]}
    arrays = sorted(STATE[name] - {"t"})
    for key, make in change.items():
        if key == "state":
            if not arrays:
                return
            given["config"][arrays[-1]] = make(given["config"][arrays[-1]])
        elif key == "out" and make is None:
            given["out"] = given["w"]
        else:
            given[key] = make(given[key])
    before = snapshot(*given.values())
    with pytest.raises(exception) as error:
        optim.RULES[name](given["w"], given["dw"], given["config"], out=given["out"])
    assert text in str(error.value)
    assert_unchanged(given.values(), before)


# ---- arrays as they come -------------------------------------------------------------------------


@every_rule
def test_config_of_an_npz_file_gives_the_same_bits(name, backend, dtype, w, dws, tmp_path):
    w, dws = w.astype(dtype), dws.astype(dtype)
    after, config = optim.RULES[name](w, dws[0], dict(DECAYED[name]))
    np.savez(tmp_path / "config.npz", **config)
    expected, config = optim.RULES[name](after, dws[1], config)
    with np.load(tmp_path / "config.npz") as file:
        loaded = dict(file)
    given = dict(loaded)
    before = snapshot(given)
    actual, loaded = optim.RULES[name](after, dws[1], loaded)
    assert_same_bits(actual, expected)
    assert {k: type(v) for k, v in loaded.items()} == {k: type(v) for k, v in config.items()}
    numbers = {key: a for key, a in given.items() if a.ndim == 0}
    assert_unchanged([numbers], [{key: before[0][key] for key in numbers}])


def shifted(a, by):
    """Two arrays like a in one memory, the second so many elements after the first."""
    memory = np.empty(a.size + abs(by), a.dtype)
    views = memory[: a.size], memory[abs(by) :]
    first, second = (view.reshape(a.shape) for view in (views if by >= 0 else views[::-1]))
    return first, second


PAIRS = ["w out", "dw out", "m v", "m out", "w v", "dw m", "velocity out", "cache w", "cache dw"]


@every_rule
@pytest.mark.parametrize("by", [0, 1, -7])
@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("sparse", [False, True])
def test_arrays_that_share_memory_are_as_if_apart(name, pair, by, sparse, backend, rng):
    """Large enough that a kernel takes several vectors, and all rows where some are wanted."""
    w, dw, m, v = rng.random((4, 9, 37))
    first, second = pair.split()
    state = {"velocity": m, "cache": v, "m": m, "v": v, "t": 3}
    arrays = {key: a for key, a in state.items() if key in STATE[name]} | {"w": w, "dw": dw}
    if first not in arrays or (second != "out" and second not in arrays):
        return
    one, other = shifted(arrays[first], by)
    if second != "out":
        other[...] = arrays[second]
    one[...] = arrays[first]
    arrays |= {first: one, second: other}
    rows = rng.permutation(9)

    def step(arrays, out):
        config = {key: a for key, a in arrays.items() if key in STATE[name]}
        given = RowGradient(rows, arrays["dw"]) if sparse else arrays["dw"]
        return optim.RULES[name](arrays["w"], given, config, out=out)

    apart = snapshot({key: a for key, a in arrays.items() if key != "out"})[0]
    expected, after = step(apart, np.full_like(w, np.nan))
    out = arrays.pop("out", None)
    actual, config = step(arrays, out)
    assert out is None or actual is out
    assert_same_bits(actual, expected)
    for key, a in arrays_of(after).items():
        if second != "out" or not np.may_share_memory(config[key], actual):
            assert_same_bits(config[key], a, key)


def unaligned(a):
    memory = np.frombuffer(bytearray(b"x" + a.tobytes()), np.uint8)[1:]
    return memory.view(a.dtype).reshape(a.shape)


LAYOUTS = {
    "fortran": np.asfortranarray,
    "strided": lambda a: np.repeat(a, 2, axis=-1)[..., ::2],
    "reversed": lambda a: a[::-1].copy()[::-1],
    "unaligned": unaligned,
}


@every_rule
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
@pytest.mark.parametrize("which", ["w", "dw", "out", "state", "all"])
def test_arrays_of_any_layout(name, layout, which, backend, dtype, w, dws):
    w, dws = w.astype(dtype), dws.astype(dtype)
    _, config = optim.RULES[name](w, dws[0])
    expected, after = optim.RULES[name](w, dws[1], snapshot(config)[0])
    given = {"w": w, "dw": dws[1], "out": dws[2]}
    for key in given:
        if which in (key, "all"):
            given[key] = layout(given[key])
    for key in STATE[name] - {"t"} if which in ("state", "all") else ():
        config[key] = layout(config[key])
    actual, config = optim.RULES[name](given["w"], given["dw"], config, out=given["out"])
    assert actual is given["out"]
    assert_close(np.ascontiguousarray(actual), expected, TWIN[dtype.name])
    for key in STATE[name] - {"t"}:
        assert_close(np.ascontiguousarray(config[key]), after[key], TWIN[dtype.name])


@every_rule
@pytest.mark.filterwarnings("ignore:the matrix subclass:PendingDeprecationWarning")
def test_matrices_lists_and_files_are_taken(name, backend, w, dws, tmp_path):
    expected, _ = optim.RULES[name](w, dws[0])
    for kind in (np.matrix, np.ndarray.tolist):
        actual, _ = optim.RULES[name](kind(w), kind(dws[0]))
        assert_same_bits(actual, expected)
    mapped = np.memmap(tmp_path / "w", w.dtype, "w+", shape=w.shape)
    mapped[...] = w
    assert optim.RULES[name](mapped, dws[0], out=mapped)[0] is mapped
    assert_same_bits(np.asarray(mapped), expected)


@every_rule
def test_read_only_state_is_replaced_by_a_copy(name, backend, w, dws):
    _, config = optim.RULES[name](w, dws[0])
    frozen = {key: read_only(a) if isinstance(a, np.ndarray) else a for key, a in config.items()}
    before = snapshot(frozen)[0]
    given = arrays_of(frozen)
    expected, _ = optim.RULES[name](w, dws[1], config)
    assert_same_bits(optim.RULES[name](w, dws[1], frozen)[0], expected)
    for key, a in given.items():
        assert_same_bits(a, before[key])


@every_rule
@pytest.mark.parametrize("rows", [[], np.zeros(0, int)], ids=["list", "array"])
def test_no_rows_change_nothing(name, rows, backend, w):
    after, _ = optim.RULES[name](w, RowGradient(rows, np.zeros((0, 5))))
    assert_same_bits(after, w)
