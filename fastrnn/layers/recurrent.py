"""Vanilla RNN, LSTM and GRU: forward, and back-propagation through time.

Letters: N batch, T steps, D input, H hidden. Inputs are float32 or float64 arrays of one dtype,
which is the dtype of every result; they are never modified. Non-contiguous inputs are copied once.
Every function takes backend="numpy" or "cython" (None: the current one) and raises ValueError for a
shape, a length or an unknown name, TypeError for a dtype, a flag that is no bool or a foreign
cache, IndexError for an index. A cache holds the inputs and outputs themselves, not copies: do not
change them before the backward pass.

Every forward function takes
- in place of Wx, Wh and b the result of prepare alone;
- transposed=True for Wx (G*H, D) and Wh (G*H, H), as PyTorch and ONNX have them: they are read as
  they lie, and their gradients have the same shapes;
- training=False where no backward pass follows: no activations are kept or written, and the cache
  has the last states of a sequence alone.

Every sequence function takes lengths (N,), integers in [0, T]: row n has the steps before
lengths[n]; what x and dh hold after them is not looked at, and h, c and dx are 0 there. With
reverse=True time runs from the last of these steps to the first, and h[n, t] is the state after
step t is taken. The last states cache.hT and cache.cT (N, H) are those after all of a row's steps;
of a row without steps they are h0 and c0. With return_sequence=False the last h is returned in
place of all, and without training not even made. Of the gradients dh, dhT and dcT each may be None,
for zeros.

With reset (N, T), bool, the state of row n is set back before step t where reset[n, t] is true, to
zeros, or with reset_to="initial" to h0 and c0: several episodes or documents in one row, each as if
it were alone. Gradients stop there, too, or reach h0 and c0.

Arrays of steps, x, h, cell states and their gradients, are laid out as layout says: "batch_first",
(N, T, ...); "time_first", (T, N, ...); or "packed", as in PyTorch's PackedSequence, (U, ...): step
by step the rows that take it, row 0 first; lengths must then fall, and U is their sum. reset lies
as they do, without the last axis.

With index (N, T), integers in [0, U), x is a table (U, D), and row n reads x[index[n, t]] at step
t, as words read their vectors: x Wx + b is then computed once a row of the table, however often it
is read, and so are the gradients, of which dx is (U, D). A row that no step reads is in no result,
and its gradient is 0. What index holds past lengths is not looked at.

With layer_norm, a fastrnn.LayerNorm, x Wx and h Wh of an lstm or a gru (reset_after=True) are
normalised row by row before biases are added, and c before its tanh. The gradients of its arrays
come last in what backward functions return, in the order of its fields.

Formulas: the course notes on captioning with RNNs and LSTMs; Cho et al. (2014) for the GRU; for
back-propagation through time Werbos (1990).
"""

import functools
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.cells import (
    ALL_STEPS,
    GRU,
    LSTM,
    RNN,
    STANDARD,
    Cell,
    GRUCache,
    LSTMCache,
    RNNCache,
    form_of,
)
from fastrnn.layers import checks, otherwise
from fastrnn.layers.prepared import PreparedWeights
from fastrnn.options import LayerNorm, Options

GATES = {name: len(cell.gates) for name, cell in STANDARD.items()}

Gradients = tuple[np.ndarray, ...]
AnyWeights = np.ndarray | PreparedWeights


# ---- any cell ------------------------------------------------------------------------------------


@functools.lru_cache(typed=True)
def _form(cell, gates, transposed, reset_after, nonlinearity):
    """The record of a cell as the keywords say, what it expects, the rest of Weights."""
    reset_after = checks.flag("reset_after", reset_after)
    cell = form_of(cell.name, reset_after=reset_after, nonlinearity=nonlinearity)
    rest = checks.gate_order(cell, gates), checks.flag("transposed", transposed), None, None
    return cell, checks.of_forward(cell, transposed), rest


def _of_weights(cell, args, gates, transposed, reset_after=True, nonlinearity="tanh"):
    """What _form returns, and args, x, the states before, Wx, Wh, b, bh, with the weights as
    arrays."""
    weights, form = args[-4], (gates, transposed, reset_after, nonlinearity)
    if type(weights) is PreparedWeights:
        alone = args[-3] is args[-2] is args[-1] is None and weights.cell == cell.name
        plain = gates is cell.gates and transposed is False and reset_after is True
        if not (alone and plain and nonlinearity is cell.form["nonlinearity"]):
            weights.check_alone(cell.name, *args[-3:], *form)
        cell, expected, arrays, rest = weights.own
        return cell, expected, rest, args[:-4] + arrays
    try:
        return *_form(cell, *form), args
    except TypeError:  # what cannot be hashed is no name
        return *_form.__wrapped__(cell, *form), args


def _otherwise(cell, args, rest, weights, options=None, vectors=None, projection=None):
    """What _of_weights returns, of the cell with options; weights: Wx, or prepared ones."""
    if type(weights) is PreparedWeights:
        if projection is not None:
            raise TypeError("projection: expected nothing with prepared weights, which hold it")
        projection = weights.projection
    record = otherwise.record_of(cell, projection is not None, vectors)
    beside = (vectors,) * bool(record.vectors or record.norm) + (projection,) * record.projection
    rest = *rest[:3], otherwise.options_of(record, options)
    return record, checks.of_forward(record, rest[1]), rest, args + beside


def _checked(cell, expected, args, rest):
    """args as kernels take them."""
    if cell.norm:
        args, norm = checks.arrays(expected, args[:-1]), args[-1]
        return *args, otherwise.layer_norm_of(cell, norm, args[1])
    args = checks.arrays(expected, args)
    if cell.projection:
        checks.narrower(args[-1], rest[1])
    return args


def _dropped(cell, args, rest, steps, backend):
    """args and rest with what dropout leaves of x and Wh."""
    n = len(cell.states) + 5
    x, *states, Wx, Wh, b, bh = args[:n]
    order, transposed, packed, options = rest
    x = otherwise.dropped_x(x, steps, options, len(states[0]), backend)
    left = otherwise.dropped_weights(Wh, cell, order, transposed, options, backend)
    args = x, *states, Wx, left, b, bh, *args[n:]
    return args, (order, transposed, packed if left is Wh else None, options)


def step_forward(
    cell: Cell,
    args: tuple[np.ndarray | None, ...],
    form: tuple,
    training: bool,
    *,
    beside: tuple | None = None,
    backend: str | None = None,
) -> tuple:
    """One time step of any cell, as its own function has it.

    Inputs: args, x, the states before, Wx, Wh, b, bh; form, gates, transposed, reset_after,
    nonlinearity; beside, options, the cell's vectors and the projection, or None for none of them.
    Returns: the states after, the cell's cache.
    """
    weights = args[-4]
    cell, expected, rest, args = _of_weights(cell, args, *form)
    if beside is not None or cell.projection:
        cell, expected, rest, args = _otherwise(cell, args, rest, weights, *beside or ())
    args = _checked(cell, expected.step, args, rest)
    if training is not True and training is not False:
        training = checks.flag("training", training)
    if cell.options and training:
        args, rest = _dropped(cell, args, rest, ALL_STEPS, backend)
    return get_backend(backend).step_forward(cell, args, rest, training)


def step_backward(
    cell: Cell, dstates: Sequence[np.ndarray], cache: NamedTuple, *, backend: str | None = None
) -> tuple:
    """Gradients of one time step of any cell; dstates, of the states after it.

    Returns: dx, a tuple of those of the states before, dWx, dWh, db, and dbh and those of the
    vectors and the projection or None.
    """
    cell = _form_of_cache(cell, cache)
    cache = _checked_cache(cell, True, cache)
    after = zip(cell.states, dstates, cell.kept_states(cache), strict=True)
    dstates = [checks.gradient(f"dnext_{name}", d, state) for name, d, state in after]
    gradients = get_backend(backend).step_backward(cell, dstates, cache)
    plain = cell.options_of(cache) is None
    return gradients if plain else _through_dropout(cell, gradients, cache, backend)


def _through_dropout(cell, gradients, cache, backend):
    """The gradients of x and Wh from those of what dropout left of them."""
    dx, dstates, dWx, dWh, *others = gradients
    order, options = cell.order_of(cache), cache.options
    of_x, of_weights = (cache, options, len(cache.h0)), (cell, order, cache.transposed, options)
    dx = otherwise.dropped_x(dx, *of_x, backend, in_place=True)
    dWh = otherwise.dropped_weights(dWh, *of_weights, backend, in_place=True)
    return dx, dstates, dWx, dWh, *others


def forward(
    cell: Cell,
    args: tuple[np.ndarray | None, ...],
    form: tuple,
    steps: tuple,
    training: bool,
    return_sequence: bool,
    *,
    beside: tuple | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, tuple]:
    """All time steps of any cell, as its own function has them.

    Inputs: args, x, the initial states, Wx, Wh, b, bh; form, gates, transposed, reset_after,
    nonlinearity; steps, the fields of Steps; beside, options, the cell's vectors and the
    projection, or None for none of them.
    Returns: h, the cell's cache.
    """
    weights = args[-4]
    cell, expected, rest, args = _of_weights(cell, args, *form)
    if beside is not None or cell.projection:
        cell, expected, rest, args = _otherwise(cell, args, rest, weights, *beside or ())
    lengths, reverse, index, reset, reset_to, layout = steps
    layout = checks.layout(layout)
    args = _checked(cell, expected.sequence[layout if index is None else "indexed"], args, rest)
    plain = type(reset_to) is str and reset_to == "zeros"  # an array would compare its elements
    if plain and layout == "batch_first" and reverse is False and lengths is index is reset is None:
        steps = ALL_STEPS
    else:
        steps = checks.steps(args[0], len(args[1]), *steps)
    if training is not True and training is not False:
        training = checks.flag("training", training)
    if return_sequence is not True and return_sequence is not False:
        return_sequence = checks.flag("return_sequence", return_sequence)
    if cell.options and training:
        args, rest = _dropped(cell, args, rest, steps, backend)
    return get_backend(backend).forward(cell, args, rest, steps, training, return_sequence)


def backward(
    cell: Cell,
    dh: np.ndarray | None,
    dlast: Sequence[np.ndarray | None],
    cache: NamedTuple,
    *,
    onto: Sequence[np.ndarray] | None = None,
    backend: str | None = None,
) -> tuple:
    """Back-propagation through time of any cell, perhaps through a piece of a sequence, onto the
    weights' gradients of the pieces after it.

    From the last piece to the first, each from the states that the piece before it has left and
    with what the piece after it returned as dlast, the gradients have the bits of one call for the
    whole sequence; but not with index, of Wh not with dropout_weights, and with another backend
    than "cython" to roundings.

    Inputs: dh (N, T, H) or None; dlast, the gradients (N, H) or None of all last states; cache of
    the forward function; onto, (dWx, dWh, db), of a gru with bh also dbh, then those of peepholes,
    of a projection, or of a LayerNorm's arrays, which go on in place from what they hold:
    C-contiguous, of the weights' shapes, zeros at first. If an exception of a signal ends the call,
    they mean nothing.
    Returns: dx (N, T, D), a tuple of the gradients (N, H) of all initial states, dWx, dWh, db, and
    dbh and those of the vectors and the projection or None.
    """
    if not isinstance(dlast, tuple | list):
        raise TypeError(f"dlast: expected a tuple, got {type(dlast).__name__}")
    if len(dlast) != len(cell.states):
        wanted = ", ".join(f"d{name}" for name in cell.last_fields)
        raise ValueError(f"dlast: expected {wanted}, got {len(dlast)} of them")
    cell = _form_of_cache(cell, cache)
    cache = _checked_cache(cell, False, cache)
    dh = checks.optional_gradient("dh", dh, cache.h)
    last = zip(cell.last_fields, dlast, strict=True)
    dlast = [checks.optional_gradient(f"d{name}", d, getattr(cache, name)) for name, d in last]
    if onto is not None:
        onto = _checked_onto(cell, onto, cache)
    module = get_backend(backend)
    if cell.options_of(cache) is None:
        return module.backward(cell, dh, dlast, cache, onto)
    if onto is None or cache.options.dropout_weights == 0:
        gradients = module.backward(cell, dh, dlast, cache, onto)
        return _through_dropout(cell, gradients, cache, backend)
    alone = onto[0], np.zeros_like(onto[1]), *onto[2:]
    gradients = module.backward(cell, dh, dlast, cache, alone)
    gradients = _through_dropout(cell, gradients, cache, backend)
    onto[1][...] += gradients[3]
    return *gradients[:2], *onto


def _checked_onto(cell, onto, cache):
    """dWx, dWh, db, and dbh and those of the vectors and the projection or None."""
    if not isinstance(onto, tuple | list):
        raise TypeError(f"onto: expected a tuple, got {type(onto).__name__}")
    shapes, of_h = {"dWx": cache.Wx.shape}, f"d{cell.recurrent}"
    if cell.recurrent:
        shapes |= {of_h: cell.recurrent_of(cache).shape}
    shapes |= {"db": (cache.Wx.shape[0 if cache.transposed else 1],)}
    if getattr(cache, "bias", False):
        shapes |= {"dbh": shapes["db"]}
    holder, names = (cache.layer_norm, cell.norm) if cell.norm else (cache, cell.beside)
    beside = {name: getattr(holder, name) for name in names}
    shapes |= {f"d{name}": a.shape for name, a in beside.items() if a is not None}
    if len(onto) != len(shapes):
        raise ValueError(f"onto: expected {', '.join(shapes)}, got {len(onto)} of them")
    for (name, shape), d in zip(shapes.items(), onto, strict=True):
        checks.written(name, d, shape, cache.x.dtype)
    given = dict(zip(shapes, onto, strict=True))
    if cell.norm:
        vectors = tuple(given[f"d{name}"] for name in cell.norm)
    else:
        vectors = given.get(f"d{cell.vectors_name}")
    names = "dWx", of_h, "db", "dbh"
    return *(given.get(name) for name in names), vectors, given.get("dprojection")


def _checked_cache(cell, step, cache):
    cache = checks.recurrent_cache(cell, step, cache)
    if not cell.norm:
        return cache
    norm = otherwise.layer_norm_of(cell, cache.layer_norm, cache.h0)
    return cache._replace(layer_norm=norm)


def _form_of_cache(cell: Cell, cache: object) -> Cell:
    """The record that fits a cache: the variants of a cell have one kind of cache."""
    plain = _plain_form_of_cache(cell, cache)
    if not checks.is_of(cell.cache, cache) or cache.x is None:
        return plain
    norm = otherwise.vectors_of(None, getattr(cache, "layer_norm", None))
    if cell.options_of(cache) is None and norm is None:
        return plain
    projected = getattr(cache, "projection", None) is not None
    record = otherwise.record_of(plain, projected, norm)
    if cache.options is None:
        raise TypeError("options: expected fastrnn.Options with layer_norm, got None")
    otherwise.options_of(record, cache.options)
    return record


def _plain_form_of_cache(cell, cache):
    if not cell.constants or not checks.is_of(cell.cache, cache) or cache.x is None:
        return cell
    if "nonlinearity" in cell.constants:
        usual = cache.nonlinearity is cell.constants["nonlinearity"]
        return cell if usual else form_of(cell.name, nonlinearity=cache.nonlinearity)
    checks.flag("bias", cache.bias)
    reset_after = checks.flag("reset_after", cache.reset_after)
    if reset_after is (cache.candidate is None):
        wanted = "an array" if reset_after else "None"
        got = "None" if cache.candidate is None else "an array"
        raise ValueError(f"candidate: expected {wanted} with reset_after={reset_after}, got {got}")
    return cell if reset_after else form_of(cell.name, reset_after=False)


# ---- vanilla RNN ---------------------------------------------------------------------------------


def rnn_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: AnyWeights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    nonlinearity: str = "tanh",
    transposed: bool = False,
    training: bool = True,
    options: Options | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, RNNCache]:
    """One time step: next_h = tanh(x Wx + prev_h Wh + b).

    Inputs: x (N, D), prev_h (N, H), Wx (D, H), Wh (H, H), b (H,); nonlinearity, "tanh" or "relu",
    for max(., 0) in its place; transposed, training: see fastrnn.layers.recurrent.
    Returns: next_h (N, H), cache for rnn_step_backward.
    """
    args, form = (x, prev_h, Wx, Wh, b, None), ("h", transposed, True, nonlinearity)
    beside = None if options is None else (options, None)
    return step_forward(RNN, args, form, training, beside=beside, backend=backend)


def rnn_step_backward(
    dnext_h: np.ndarray, cache: RNNCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of rnn_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, H), dWh (H, H), db (H,).
    """
    dx, (dprev_h,), *weights, _, _, _ = step_backward(RNN, (dnext_h,), cache, backend=backend)
    return dx, dprev_h, *weights


def rnn_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: AnyWeights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    nonlinearity: str = "tanh",
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reset_to: str = "zeros",
    layout: str = "batch_first",
    transposed: bool = False,
    training: bool = True,
    return_sequence: bool = True,
    options: Options | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, RNNCache]:
    """All time steps of a vanilla RNN: h_t = tanh(x_t Wx + h_{t-1} Wh + b).

    Inputs: x (N, T, D), h0 (N, H), Wx (D, H), Wh (H, H), b (H,); nonlinearity, "tanh" or "relu",
    for max(., 0) in its place; lengths (N,), reverse, index (N, T), reset (N, T), reset_to,
    layout, transposed, training, return_sequence: see fastrnn.layers.recurrent.
    Returns: h (N, T, H), cache for rnn_backward; cache.hT (N, H) is the last state.
    """
    args, steps = (x, h0, Wx, Wh, b, None), (lengths, reverse, index, reset, reset_to, layout)
    form = "h", transposed, True, nonlinearity
    beside = None if options is None else (options, None)
    return forward(
        RNN, args, form, steps, training, return_sequence, beside=beside, backend=backend
    )


def rnn_backward(
    dh: np.ndarray | None,
    cache: RNNCache,
    *,
    dhT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    rnn_forward; dhT (N, H), the gradient of cache.hT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, H), dWh (H, H), db (H,).
    """
    dx, (dh0,), *weights, _, _, _ = backward(RNN, dh, (dhT,), cache, backend=backend)
    return dx, dh0, *weights


# ---- LSTM ----------------------------------------------------------------------------------------


def lstm_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    prev_c: np.ndarray,
    Wx: AnyWeights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    gates: str = "ifog",
    transposed: bool = False,
    training: bool = True,
    peepholes: np.ndarray | None = None,
    projection: np.ndarray | None = None,
    layer_norm: LayerNorm | None = None,
    options: Options | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, np.ndarray, LSTMCache]:
    """One time step: with a = x Wx + prev_h Wh + b, i, f, o = sigmoid(a_i, a_f, a_o) and
    g = tanh(a_g), next_c = f prev_c + i g and next_h = o tanh(next_c), with a projection
    (o tanh(next_c)) projection.

    Inputs: x (N, D), prev_h (N, H), prev_c (N, H), Wx (D, 4*H), Wh (H, 4*H), b (4*H,); gates, the
    order in which the gates lie in Wx, Wh and b: "ifog", "fico" (f i c~ o), "ifgo" (PyTorch) or
    "iofg" (ONNX); transposed, training: see fastrnn.layers.recurrent; projection (H, P), transposed
    (P, H), P below H: Wh then is (P, 4*H), and h has P columns.
    Returns: next_h (N, H), next_c (N, H), cache for lstm_step_backward.
    """
    args, form = (x, prev_h, prev_c, Wx, Wh, b, None), (gates, transposed)
    beside = _beside(options, peepholes, layer_norm, projection)
    return step_forward(LSTM, args, form, training, beside=beside, backend=backend)


def lstm_step_backward(
    dnext_h: np.ndarray, dnext_c: np.ndarray, cache: LSTMCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), dnext_c (N, H), cache of lstm_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dprev_c (N, H), dWx (D, 4*H), dWh (H, 4*H), db (4*H,), the
    gates in the order of the forward pass; dpeepholes (3*H,) and dprojection (H, P) where peepholes
    and a projection were given; with layer_norm dgain_x (4*H,), dgain_h (4*H,), dgain_c (H,) and
    dshift_c (H,).
    """
    dstates = dnext_h, dnext_c
    dx, dstates, *weights, _, dvectors, dprojection = step_backward(
        LSTM, dstates, cache, backend=backend
    )
    return dx, *dstates, *weights, *_given(dvectors, dprojection)


def lstm_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: AnyWeights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    c0: np.ndarray | None = None,
    gates: str = "ifog",
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reset_to: str = "zeros",
    layout: str = "batch_first",
    transposed: bool = False,
    training: bool = True,
    return_sequence: bool = True,
    peepholes: np.ndarray | None = None,
    projection: np.ndarray | None = None,
    layer_norm: LayerNorm | None = None,
    options: Options | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, LSTMCache]:
    """All time steps of an LSTM from h0 and c0; the step is lstm_step_forward's.

    Inputs: x (N, T, D), h0 (N, H), Wx (D, 4*H), Wh (H, 4*H), b (4*H,); c0 (N, H), zeros where it is
    None; gates, the order in which the gates lie in Wx, Wh and b: "ifog", "fico" (f i c~ o), "ifgo"
    (PyTorch) or "iofg" (ONNX); lengths (N,), reverse, index (N, T), reset (N, T), reset_to,
    layout, transposed, training, return_sequence: see fastrnn.layers.recurrent; projection (H, P):
    see lstm_step_forward.
    Returns: h (N, T, H), cache for lstm_backward; cache.c (N, T, H) holds all cell states, cache.hT
    and cache.cT (N, H) the last states.
    """
    args, steps = (x, h0, c0, Wx, Wh, b, None), (lengths, reverse, index, reset, reset_to, layout)
    form = gates, transposed
    beside = _beside(options, peepholes, layer_norm, projection)
    return forward(
        LSTM, args, form, steps, training, return_sequence, beside=beside, backend=backend
    )


def lstm_backward(
    dh: np.ndarray | None,
    cache: LSTMCache,
    *,
    dhT: np.ndarray | None = None,
    dcT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    lstm_forward; dhT and dcT (N, H), the gradients of cache.hT and cache.cT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, 4*H), dWh (H, 4*H), db (4*H,), the gates in the order
    of the forward pass; dc0 (N, H), dpeepholes (3*H,) and dprojection (H, P) where c0, peepholes
    and a projection were given; with layer_norm dgain_x (4*H,), dgain_h (4*H,), dgain_c (H,) and
    dshift_c (H,).
    """
    gradients = backward(LSTM, dh, (dhT, dcT), cache, backend=backend)
    dx, (dh0, dc0), *weights, _, dvectors, dprojection = gradients
    dc0 = None if cache.c0 is None else dc0
    return dx, dh0, *weights, *_given(dc0, dvectors, dprojection)


def _beside(options, peepholes=None, layer_norm=None, projection=None):
    """Options, vectors and the projection, or None for none of them."""
    vectors = otherwise.vectors_of(peepholes, layer_norm)
    nothing = options is vectors is projection is None
    return None if nothing else (options, vectors, projection)


def _given(*gradients):
    """Those that there are; of a LayerNorm one by one."""
    for d in gradients:
        if isinstance(d, tuple):
            yield from d
        elif d is not None:
            yield d


# ---- GRU -----------------------------------------------------------------------------------------


def gru_step_forward(
    x: np.ndarray,
    prev_h: np.ndarray,
    Wx: AnyWeights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    gates: str = "rzn",
    bh: np.ndarray | None = None,
    reset_after: bool = True,
    transposed: bool = False,
    training: bool = True,
    layer_norm: LayerNorm | None = None,
    options: Options | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, GRUCache]:
    """One time step: with a = x Wx + b and u = prev_h Wh + bh, r, z = sigmoid(a_r + u_r,
    a_z + u_z), n = tanh(a_n + r u_n) and next_h = (1 - z) n + z prev_h.

    Inputs: x (N, D), prev_h (N, H), Wx (D, 3*H), Wh (H, 3*H), b (3*H,); gates, the order in which
    the gates lie in Wx, Wh, b and bh: "rzn" (PyTorch) or "zrn" (Keras, ONNX); bh (3*H,), zeros
    where it is None; reset_after, False for the original form, in which u_n is
    (r prev_h) Wh_n + bh_n and n = tanh(a_n + u_n); transposed, training: see
    fastrnn.layers.recurrent.
    Returns: next_h (N, H), cache for gru_step_backward.
    """
    args, form = (x, prev_h, Wx, Wh, b, bh), (gates, transposed, reset_after)
    beside = _beside(options, None, layer_norm)
    return step_forward(GRU, args, form, training, beside=beside, backend=backend)


def gru_step_backward(
    dnext_h: np.ndarray, cache: GRUCache, *, backend: str | None = None
) -> Gradients:
    """Gradients of one time step.

    Inputs: dnext_h (N, H), cache of gru_step_forward.
    Returns: dx (N, D), dprev_h (N, H), dWx (D, 3*H), dWh (H, 3*H), db (3*H,); dbh (3*H,) where bh
    was given; dgain_x and dgain_h (3*H,) with layer_norm.
    """
    gradients = step_backward(GRU, (dnext_h,), cache, backend=backend)
    dx, (dprev_h,), *weights, dbh, dnorm, _ = gradients
    return dx, dprev_h, *weights, *_given(dbh if cache.bias else None, dnorm)


def gru_forward(
    x: np.ndarray,
    h0: np.ndarray,
    Wx: AnyWeights,
    Wh: np.ndarray | None = None,
    b: np.ndarray | None = None,
    *,
    gates: str = "rzn",
    bh: np.ndarray | None = None,
    reset_after: bool = True,
    lengths: np.ndarray | None = None,
    reverse: bool = False,
    index: np.ndarray | None = None,
    reset: np.ndarray | None = None,
    reset_to: str = "zeros",
    layout: str = "batch_first",
    transposed: bool = False,
    training: bool = True,
    return_sequence: bool = True,
    layer_norm: LayerNorm | None = None,
    options: Options | None = None,
    backend: str | None = None,
) -> tuple[np.ndarray, GRUCache]:
    """All time steps of a GRU; the step is gru_step_forward's.

    Inputs: x (N, T, D), h0 (N, H), Wx (D, 3*H), Wh (H, 3*H), b (3*H,); gates, "rzn" (PyTorch) or
    "zrn" (Keras, ONNX); bh (3*H,), zeros where it is None; reset_after, False for the original
    form; lengths (N,), reverse, index (N, T), reset (N, T), reset_to, transposed, training,
    return_sequence: see fastrnn.layers.recurrent.
    Returns: h (N, T, H), cache for gru_backward; cache.hT (N, H) is the last state.
    """
    args, steps = (x, h0, Wx, Wh, b, bh), (lengths, reverse, index, reset, reset_to, layout)
    form = gates, transposed, reset_after
    beside = _beside(options, None, layer_norm)
    return forward(
        GRU, args, form, steps, training, return_sequence, beside=beside, backend=backend
    )


def gru_backward(
    dh: np.ndarray | None,
    cache: GRUCache,
    *,
    dhT: np.ndarray | None = None,
    backend: str | None = None,
) -> Gradients:
    """Back-propagation through time.

    Inputs: dh (N, T, H), the gradient of every h_t from outside the recurrence; cache of
    gru_forward; dhT (N, H), the gradient of cache.hT.
    Returns: dx (N, T, D), dh0 (N, H), dWx (D, 3*H), dWh (H, 3*H), db (3*H,); dbh (3*H,) where bh
    was given; dgain_x and dgain_h (3*H,) with layer_norm.
    """
    dx, (dh0,), *weights, dbh, dnorm, _ = backward(GRU, dh, (dhT,), cache, backend=backend)
    return dx, dh0, *weights, *_given(dbh if cache.bias else None, dnorm)
