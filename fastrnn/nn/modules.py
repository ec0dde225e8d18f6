"""RNN, LSTM and GRU as objects that hold their weights: stacked, in both directions of time, with
dropout between layers.

Letters: N batch, T steps, D input, H hidden, P projected (H without a projection), G gates
(1 rnn, 4 lstm, 3 gru), L layers, S directions.
"""

from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.cells import form_of
from fastrnn.layers import checks
from fastrnn.layers.dropout import dropout as dropout_mask
from fastrnn.layers.otherwise import options_of, record_of
from fastrnn.layers.streaming import Chain, Stream
from fastrnn.nn import checkpoints, direction, init, stack
from fastrnn.nn.stack import Form, Weights
from fastrnn.options import LayerNorm, Options

EPS = LayerNorm._field_defaults["eps"]
State = np.ndarray | tuple[np.ndarray, ...]


class Cache(NamedTuple):
    """What forward leaves for backward."""

    inner: stack.Cache | checkpoints.Cache | None  # None: training=False
    y_shape: tuple[int, ...]
    of: tuple[object, ...]  # what the module is


def _float_dtype(dtype):
    try:
        known = np.dtype("O" if dtype is None else dtype)  # which NumPy takes for float64
    except TypeError as error:
        raise TypeError(f"dtype: expected float32 or float64: {error}") from None
    return checks.float_dtype("dtype", known)


def _generator(seed):
    try:
        return np.random.default_rng(seed)
    except (TypeError, ValueError) as error:
        raise type(error)(f"seed: expected an integer of at least 0: {error}") from None


def _normalised(layer_norm, eps, **others):
    """eps, or None where layers are not normalised; others by name, and what they then must be."""
    checks.positive("eps", eps)
    if not checks.flag("layer_norm", layer_norm):
        if eps != EPS:
            raise ValueError(f"eps: expected {EPS} without layer_norm, got {eps!r}")
        return None
    for name, (value, expected) in others.items():
        if value != expected:
            raise ValueError(f"{name}: expected {expected} with layer_norm=True, got {value!r}")
    return float(eps)


class Recurrent:
    """What RNN, LSTM and GRU have in common.

    Attributes: params, arrays under PyTorch's names, in its shapes: of layer k weight_ih_lk
    (G*H, D), above the first layer (G*H, S*P), weight_hh_lk (G*H, P), bias_ih_lk and bias_hh_lk
    (G*H,), with a projection weight_hr_lk (P, H), with layer normalisation gain_ih_lk and
    gain_hh_lk (G*H,), of an LSTM gain_c_lk and shift_c_lk (H,); _reverse at the end for the
    direction backwards.
    They are read at every call: change or replace them at will. form, what the stack is; rng, what
    drops out where forward is given none.
    """

    peepholes = False  # of an LSTM

    def __init__(
        self,
        form: Form,
        input_size: int,
        hidden_size: int,
        *,
        bias: bool,
        dropout: float,
        proj_size: int = 0,
        dtype: type,
        init: str,
        seed: int | np.random.Generator | None,
        backend: str | None,
    ) -> None:
        checks.count("num_layers", form.layers)
        checks.flag("bidirectional", form.bidirectional)
        if not isinstance(form.gates, str) or form.gates not in form.record.orders:
            expected = [*form.record.orders]
            raise ValueError(f"gate_order: expected one of {expected}, got {form.gates!r}")
        options_of(record_of(form_of(form.cell, nonlinearity=form.nonlinearity)), form.options)
        get_backend(backend)
        self.form = form
        self.input_size = checks.count("input_size", input_size)
        self.hidden_size = checks.count("hidden_size", hidden_size)
        self.bias = checks.flag("bias", bias)
        self.dropout = checks.probability("dropout", dropout)
        if proj_size != 0 and checks.count("proj_size", proj_size) >= hidden_size:
            raise ValueError(
                f"proj_size: expected 0, or less than hidden_size = {hidden_size}, got {proj_size}"
            )
        self.proj_size = int(proj_size)
        self.dtype = _float_dtype(dtype)
        self.backend = backend
        self.rng = _generator(seed)
        self.params: dict[str, np.ndarray] = self._initial(init)

    def _initial(self, scheme):
        if scheme not in init.SCHEMES:
            raise ValueError(f"init: expected one of {list(init.SCHEMES)}, got {scheme!r}")
        make, H, params = getattr(init, scheme), self.hidden_size, {}
        for name, shape in self.shapes.items():
            kind = name.partition("_l")[0]
            alone = kind == "weight_hh" and len(shape) == 1
            if kind.startswith(("gain", "shift")):
                a = np.full(shape, init.of_norm(kind, self.form.cell))
            else:
                a = init.of_units(self.rng, H) if alone else make(self.rng, kind, shape, H)
            params[name] = a.astype(self.dtype)
            if scheme == "keras" and kind == "bias_ih" and self.form.cell == "lstm":
                # The forget gate begins open (Gers et al. 2000).
                f = checks.gate_order(self.form.record, self.form.gates).index("f")
                params[name][f * H : (f + 1) * H] = 1
        return params

    @property
    def _kind(self):
        sizes = self.input_size, self.hidden_size, self.proj_size
        return self.form, *sizes, self.bias, self.peepholes, self.dtype

    @property
    def output_size(self) -> int:
        """P, of one direction."""
        return self.proj_size or self.hidden_size

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of params."""
        shapes = {}
        for k, suffixes in enumerate(self.suffixes()):
            D = self.form.directions * self.output_size if k else self.input_size
            for end in suffixes:
                shapes |= {f"{kind}{end}": s for kind, s in self._shapes_of_direction(D).items()}
        return shapes

    def _shapes_of_direction(self, D):
        beside = {"proj_size": self.proj_size, "peepholes": self.peepholes}
        return direction.shapes_of(self.form, D, self.hidden_size, bias=self.bias, **beside)

    def suffixes(self) -> Iterator[list[str]]:
        """What the names of params end with, layer by layer, a direction each."""
        for k in range(self.form.layers):
            yield [f"_l{k}", f"_l{k}_reverse"][: self.form.directions]

    def _weights(self) -> list[list[Weights]]:
        """params as the stack takes them."""
        self.check_params()
        return [[self._of_direction(end) for end in ends] for ends in self.suffixes()]

    def check_params(self) -> None:
        """Raise ValueError for a name or a shape in params, TypeError for a dtype."""
        shapes = self.shapes
        if not isinstance(self.params, dict):
            raise TypeError(f"params: expected a dict, got {type(self.params).__name__}")
        if self.params.keys() != shapes.keys():
            raise ValueError(f"params: expected {list(shapes)}, got {list(self.params)}")
        for name, shape in shapes.items():
            a = self.params[name]
            if not isinstance(a, np.ndarray):
                raise TypeError(f"{name}: expected an ndarray, got {type(a).__name__}")
            if a.dtype != self.dtype:
                raise TypeError(f"{name}: expected {self.dtype}, got {a.dtype}")
            if a.shape != shape:
                raise ValueError(f"{name}: expected shape {shape}, got {a.shape}")

    def _of_direction(self, end):
        kinds = self._shapes_of_direction(self.input_size)
        return direction.from_kinds(self.form, {kind: self.params[kind + end] for kind in kinds})

    def forward(
        self,
        x: np.ndarray,
        state: State | None = None,
        *,
        lengths: np.ndarray | None = None,
        reset: np.ndarray | None = None,
        training: bool = False,
        rng: np.random.Generator | None = None,
        checkpoint_every: int | None = None,
    ) -> tuple[np.ndarray, State, Cache]:
        """All steps of all layers.

        Inputs: x (N, T, D); state, the one to begin from: h (L*S, N, P), of an LSTM (h, c) with c
        (L*S, N, H), layer by layer, forwards before backwards, None for zeros; lengths (N,): row n
        has the steps before lengths[n]; reset (N, T), bool: the state of row n is set to zeros
        before step t, for several episodes in one row; training, whether backward may follow and
        elements drop out, by rng (None: the module's own); checkpoint_every: keep the states every
        so many steps alone, and let backward compute the rest again.
        Returns: y (N, T, S*P), 0 past a row's length; the last state; the cache for backward, which
        holds x, state and y themselves: do not change them before.
        Raises ValueError for a shape or a value, TypeError for a dtype or a flag.
        """
        weights, training = self._weights(), checks.flag("training", training)
        x = self._input(x)
        initial = self._state("{}0", state, len(x))
        if rng is not None and not isinstance(rng, np.random.Generator):
            raise TypeError(f"rng: expected a numpy.random.Generator, got {type(rng).__name__}")
        rng = self.rng if rng is None else rng
        masks = self._masks(x.shape[:2], rng, training)
        form = self.form.drawn(rng) if training else self.form
        given = {"lengths": lengths, "reset": reset, "masks": masks, "backend": self.backend}
        every = self._every(checkpoint_every)
        if every is None or not training:
            run = stack.forward(form, weights, x, initial, training=training, **given)
        else:
            run = checkpoints.forward(form, weights, x, initial, every, **given)
        y, last, inner = run
        return y, self._as_state(last), Cache(inner if training else None, y.shape, self._kind)

    def _every(self, steps):
        if steps is None:
            return None
        if self.form.bidirectional:
            raise ValueError(
                "checkpoint_every: expected None with bidirectional=True: the direction backwards "
                "begins at the end"
            )
        return checks.count("checkpoint_every", steps)

    def _input(self, x):
        x = checks.array("x", x)
        if x.dtype != self.dtype:
            raise TypeError(f"x: expected {self.dtype} like the weights, got {x.dtype}")
        if x.ndim != 3 or x.shape[2] != self.input_size:
            expected = f"(N, T, D) = (N, T, {self.input_size})"
            raise ValueError(f"x: expected shape {expected}, got {x.shape}")
        return np.ascontiguousarray(x)

    def _state_shapes(self, N):
        rows = self.form.layers * self.form.directions
        sizes = self.output_size, self.hidden_size
        return {
            name: (rows, N, size)
            for name, size in zip(self.form.record.states, sizes, strict=False)
        }

    def _state(self, name, state, N):
        """Its arrays, None for zeros; name.format("h") is that of its h."""
        shapes = self._state_shapes(N)
        if state is None:
            return (None,) * len(shapes)
        several = isinstance(state, tuple | list)
        expected = ", ".join(map(name.format, shapes))
        if len(shapes) == 1 and isinstance(state, tuple):
            raise TypeError(f"{expected}: expected an array, got a tuple")
        if len(shapes) == 1:
            state = (state,)
        elif not several or len(state) != len(shapes):
            got = f"{len(state)} of them" if several else type(state).__name__
            raise TypeError(f"{expected}: expected a tuple of these, got {got}")
        return tuple(
            a if a is None else checks.gradient_of(name.format(letter), a, shape, self.dtype)
            for a, (letter, shape) in zip(state, shapes.items(), strict=True)
        )

    def _as_state(self, arrays):
        return arrays if len(arrays) > 1 else arrays[0]

    def _masks(self, shape, rng, training):
        p, width = self.dropout if training else 0.0, self.form.directions * self.output_size
        return [
            dropout_mask(rng, p, (*shape, width), self.dtype) for _ in range(self.form.layers - 1)
        ]

    def backward(
        self, dy: np.ndarray | None, cache: Cache, dstate: State | None = None
    ) -> tuple[np.ndarray, dict[str, np.ndarray], State]:
        """Back-propagation through time and layers.

        Inputs: dy (N, T, S*P), the gradient of y, None for zeros; cache of forward with
        training=True; dstate, the gradient of the last state, like it, None for zeros.
        Returns: dx (N, T, D); grads, by name like params; the gradient of the first state.
        Raises ValueError for a shape or a cache of training=False, TypeError for a dtype.
        """
        checks.cache_of(f"{type(self).__name__}.forward", Cache, cache)
        if cache.of != self._kind:
            raise ValueError(f"cache: expected that of {self!r}, got that of another module")
        if cache.inner is None:
            raise ValueError(
                "cache: expected that of forward with training=True, got one of training=False, "
                "which keeps nothing for a backward pass"
            )
        if dy is not None:
            dy = checks.gradient_of("dy", dy, cache.y_shape, self.dtype)
        dlast = self._state("d{}T", dstate, cache.y_shape[0])
        run = checkpoints if isinstance(cache.inner, checkpoints.Cache) else stack
        dx, dinitial, grads = run.backward(self.form, dy, dlast, cache.inner, backend=self.backend)
        return dx, self._named(grads), self._as_state(dinitial)

    def _named(self, grads):
        """Gradients of weights by the names of params."""
        named = {}
        for ends, layer in zip(self.suffixes(), grads, strict=True):
            for end, d in zip(ends, layer, strict=True):
                kinds = direction.by_kinds(self.form, d)
                named |= {f"{kind}{end}": a for kind, a in kinds.items()}
        return {name: named[name] for name in self.shapes}

    def stream(self, batch: int = 1, *, head: tuple[np.ndarray, np.ndarray] | None = None) -> Chain:
        """All layers one step after the other, for inputs that arrive one by one, with the bits of
        forward: see fastrnn.layers.streaming.Chain. The weights are those of now.

        Inputs: batch N; head, w (P, C) and b (C,) of a dense layer on top.
        Raises ValueError for a stack that is bidirectional, and for a batch or a head that does not
        fit.
        """
        if self.form.bidirectional:
            raise ValueError(
                "stream: expected bidirectional=False: the direction backwards begins at the end"
            )
        form = self.form
        given = {"gates": form.gates, "transposed": True, "reset_after": form.reset_after}
        given |= {"nonlinearity": form.nonlinearity, "options": form.options}
        given |= {"batch": batch, "backend": self.backend}
        streams = [
            Stream(
                *(form.cell, w.Wx, w.Wh, w.b),
                **given,
                bh=w.bh,
                **{"peepholes" if form.eps is None else "layer_norm": w.vectors},
                projection=w.Whr,
            )
            for (w,) in self._weights()
        ]
        return Chain(streams, head)

    def __repr__(self) -> str:
        form = self.form
        said = {
            "num_layers": (form.layers, 1),
            "bidirectional": (form.bidirectional, False),
            "bias": (self.bias, True),
            "dropout": (self.dropout, 0),
            "proj_size": (self.proj_size, 0),
            "peepholes": (self.peepholes, False),
            "layer_norm": (form.eps is not None, False),
            "eps": (form.eps or EPS, EPS),
            "nonlinearity": (form.nonlinearity, "tanh"),
            "reset_after": (form.reset_after, True),
            "gate_order": (form.gates, {"lstm": "ifgo"}.get(form.cell, form.record.gates)),
            "dtype": (self.dtype.name, "float32"),
            "options": (form.options, None),
        }
        text = "".join(f", {k}={v!r}" for k, (v, usual) in said.items() if v != usual)
        return f"{type(self).__name__}({self.input_size}, {self.hidden_size}{text})"


class RNN(Recurrent):
    """Layers of h_t = tanh(x_t Wx + h_{t-1} Wh + b), or relu in place of tanh.

    Inputs: input_size D, hidden_size H, num_layers L; nonlinearity, "tanh" or "relu"; bias, whether
    there are biases; dropout, the probability of dropping an element between layers in training;
    bidirectional; dtype, float32 or float64; init, how the weights begin: "pytorch", "keras" or
    "scaled" (fastrnn.nn.init); options of the cells, whose seed is drawn anew at every call with
    training=True; seed of the weights and of what drops out; backend, None for the current one.
    Raises ValueError for a value, TypeError for a dtype or a flag.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        nonlinearity: str = "tanh",
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        dtype: type = np.float32,
        init: str = "pytorch",
        options: Options | None = None,
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        form = Form("rnn", num_layers, bidirectional, "h", True, nonlinearity, True, options)
        own = {"bias": bias, "dropout": dropout, "dtype": dtype, "init": init}
        super().__init__(form, input_size, hidden_size, **own, seed=seed, backend=backend)


class LSTM(Recurrent):
    """Layers of LSTM cells; the step is fastrnn.lstm_step_forward's.

    Inputs: those of RNN but nonlinearity; proj_size P, of a hidden state that is projected (Sak et
    al. 2014), 0 for none; peepholes, whether params have any, peephole_lk (3*H,), the gates in
    their order but g (Gers and Schmidhuber 2000); layer_norm, whether x Wx, h Wh and c are
    normalised, with params of their own, and eps of that (fastrnn.LayerNorm), with neither of the
    two before; gate_order, in which the gates lie in params: "ifgo" (PyTorch's), "ifog", "fico" or
    "iofg".
    Raises ValueError for a value, TypeError for a dtype or a flag.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        proj_size: int = 0,
        peepholes: bool = False,
        layer_norm: bool = False,
        eps: float = EPS,
        dtype: type = np.float32,
        gate_order: str = "ifgo",
        init: str = "pytorch",
        options: Options | None = None,
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        self.peepholes = checks.flag("peepholes", peepholes)
        eps = _normalised(layer_norm, eps, peepholes=(peepholes, False), proj_size=(proj_size, 0))
        form = Form("lstm", num_layers, bidirectional, gate_order)
        form = form._replace(transposed=True, options=options, eps=eps)
        own = {"bias": bias, "dropout": dropout, "proj_size": proj_size, "dtype": dtype}
        super().__init__(
            form, input_size, hidden_size, **own, init=init, seed=seed, backend=backend
        )


class GRU(Recurrent):
    """Layers of GRU cells; the step is fastrnn.gru_step_forward's.

    Inputs: those of RNN but nonlinearity; reset_after, False for the original form of Cho et al.
    (2014); layer_norm, whether x Wx and h Wh are normalised, with params of their own, and eps of
    that (fastrnn.LayerNorm), of the other form; gate_order, in which the gates lie in params: "rzn"
    (PyTorch's) or "zrn".
    Raises ValueError for a value, TypeError for a dtype or a flag.
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        num_layers: int = 1,
        *,
        bias: bool = True,
        dropout: float = 0.0,
        bidirectional: bool = False,
        reset_after: bool = True,
        layer_norm: bool = False,
        eps: float = EPS,
        dtype: type = np.float32,
        gate_order: str = "rzn",
        init: str = "pytorch",
        options: Options | None = None,
        seed: int | np.random.Generator | None = None,
        backend: str | None = None,
    ) -> None:
        checks.flag("reset_after", reset_after)
        eps = _normalised(layer_norm, eps, reset_after=(reset_after, True))
        form = Form("gru", num_layers, bidirectional, gate_order, reset_after)
        form = form._replace(transposed=True, options=options, eps=eps)
        own = {"bias": bias, "dropout": dropout, "dtype": dtype, "init": init}
        super().__init__(form, input_size, hidden_size, **own, seed=seed, backend=backend)
