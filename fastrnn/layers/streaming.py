"""One step after the other with the state kept inside, for inputs that arrive one by one.

Letters: N batch (streams side by side), T steps, D input, H hidden, G gates (1 rnn and ind_rnn,
2 mgu and min_gru, 3 gru and min_lstm, 4 lstm), C columns of a dense head.
"""

import copy
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from types import ModuleType

import numpy as np

from fastrnn.backends import current_backend, get_backend
from fastrnn.cells import Cell, Weights
from fastrnn.layers import checks, otherwise
from fastrnn.layers.prepared import PreparedWeights, prepare
from fastrnn.options import LayerNorm, Options

_COMPILED = ("step", "steps")
_MADE = ("_stepper", *_COMPILED)  # by _start
_HEAD = checks.signature(w="H C", b="C")


class _Stepping:
    """What a Stream and a Chain have in common: a stepper that _made makes, and what it takes,
    _input_shape (N, D), _output_shape (N, H) and _dtype."""

    def _start(self):
        self._stepper = self._made()
        # The compiled methods themselves: one call of Python less a step. Not over a subclass's.
        for name in _COMPILED:
            if self._is_plain(name):
                setattr(self, name, getattr(self._stepper, name))

    def _is_plain(self, name):
        return getattr(type(self), name) is getattr(_Stepping, name)

    def __getstate__(self):
        """What a copy begins with."""
        return {name: value for name, value in vars(self).items() if name not in _MADE}

    def __setstate__(self, kept):
        vars(self).update(kept)
        self._start()

    def step(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Take one step and return the new h, or what a head makes of it.

        Inputs: x (N, D); out (N, H), with a head (N, C), C-contiguous, which then receives it.
        Returns: out, or a new array of its shape.
        Raises ValueError for a shape, TypeError for a dtype, RuntimeError while another thread
        takes a step; the state then stays as it was.
        """
        return self._stepper.step(x, out)

    def steps(
        self, x: np.ndarray, out: np.ndarray | None = None, *, reset: np.ndarray | None = None
    ) -> np.ndarray:
        """Take many steps in one call: the bits of as many calls of step.

        Inputs: x (T, N, D), time first; out (T, N, H), with a head (T, N, C), C-contiguous, which
        then receives all results; reset (T, N), bool: where it is true the state is set to zeros
        before the step.
        Returns: out, or a new array of its shape.
        Raises what step raises.
        """
        return self._stepper.steps(x, out, reset=reset)

    def _checked(self, x, out, reset, many):
        """x, out and reset as the kernels take them, of one step or of many."""
        x, dtype = checks.array("x", x), self._dtype
        steps = ()
        if many and x.dtype == dtype:
            if x.ndim != 3:
                N, D = self._input_shape
                raise ValueError(f"x: expected shape (T, N, D) = (T, {N}, {D}), got {x.shape}")
            steps = x.shape[:1]
        x = checks.gradient_of("x", x, (*steps, *self._input_shape), dtype)
        if out is not None:
            checks.written("out", out, (*steps, *self._output_shape), dtype)
        if reset is not None:
            reset = checks.resets(reset, "(T, N)", x.shape[:2])
        return x, out, reset


class Stream(_Stepping):
    """A recurrent cell that remembers its state from step to step: same bits as the sequence
    function, weights prepared once, no memory allocated by a step with out=.

    Inputs: cell, Wx (D, G*H), Wh (H, G*H), b (G*H,), gates, bh, reset_after, nonlinearity,
    transposed, projection, backend: as prepare has them; or cell and the result of prepare alone;
    batch N; peepholes (3*H,), for the lstm; layer_norm, for the lstm and the gru; options, as with
    training=False. h has P columns with a projection.
    The state begins as zeros. The number of threads is the one that is set when a stream is made;
    one caller at a time may use it. A copy, or one by way of pickle, has a state of its own.
    Raises ValueError for a shape, a name or a batch below 1, TypeError for a dtype, MemoryError
    for a batch beyond all memory.
    """

    def __init__(
        self,
        cell: str,
        Wx: np.ndarray | PreparedWeights,
        Wh: np.ndarray | None = None,
        b: np.ndarray | None = None,
        *,
        batch: int = 1,
        gates: str | None = None,
        bh: np.ndarray | None = None,
        reset_after: bool = True,
        nonlinearity: str | None = None,
        transposed: bool = False,
        peepholes: np.ndarray | None = None,
        projection: np.ndarray | None = None,
        layer_norm: LayerNorm | None = None,
        options: Options | None = None,
        backend: str | None = None,
    ) -> None:
        batch = checks.count("batch", batch)
        given = {"bh": bh, "gates": gates, "transposed": transposed}
        given |= {"reset_after": reset_after, "nonlinearity": nonlinearity}
        if type(Wx) is PreparedWeights:
            Wx.check_alone(cell, Wh, b, **given, projection=projection)
        else:
            Wx = prepare(cell, Wx, Wh, b, **given, projection=projection, backend=backend)
        record, dtype = Wx.own.record, Wx.b.dtype
        D, H = Wx.Wx.shape[Wx.transposed], len(Wx.b) // len(record.gates)
        P = Wx.Wh.shape[Wx.transposed] if record.projection else H
        self._weights, self._backend = Wx, current_backend() if backend is None else backend
        vectors = otherwise.vectors_of(peepholes, layer_norm)
        self._beside = otherwise.beside(record, Wx.b, vectors, options)
        self._input_shape, self._output_shape = (batch, D), (batch, P)
        shapes = [(batch, {"P": P, "H": H}[axis]) for axis in record.state_axes]
        try:
            states = zip(record.states, shapes, strict=True)
            self._state = {name: np.zeros(shape, dtype) for name, shape in states}
        except ValueError:  # of more bytes than can be counted
            raise MemoryError(f"batch: no memory for states of {batch} rows") from None
        self._start()

    def _made(self):
        own, module = self._weights.own, get_backend(self._backend)
        make = getattr(module, "stream", None) or partial(_Stepper, module)
        weights = Weights(*own.arrays, *own.rest, projection=self._weights.projection)
        weights, record = weights._replace(**self._beside), own.record
        if self._beside:
            record = otherwise.record_of(record, vectors=weights.vectors)
        return make(record, weights, self._state.values(), self._checked)

    @property
    def _dtype(self):
        return self._weights.b.dtype

    def __getstate__(self):
        return super().__getstate__() | {"_state": self.state}

    def reset(self, rows: np.ndarray | None = None) -> None:
        """Set the state to zeros, of all streams or of the rows (indices or a mask) given.

        Raises IndexError for a row out of range, TypeError for what is neither, ValueError for a
        shape.
        """
        chosen = ... if rows is None else checks.rows_of("rows", rows, self._output_shape[0])
        for state in self._state.values():
            state[chosen] = 0

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Copies of the state: h (N, H) and, of an lstm, c (N, H). Assign such a dict to go on from
        it; where an array does not fit that raises ValueError or TypeError and changes nothing."""
        return {name: state.copy() for name, state in self._state.items()}

    @state.setter
    def state(self, state: dict[str, np.ndarray]) -> None:
        self._go_on_from(self._fitting("state", state))

    def _fitting(self, name, state):
        """A state as it may be gone on from; the name is what errors call it."""
        if not isinstance(state, dict):
            raise TypeError(f"{name}: expected a dict, got {type(state).__name__}")
        if state.keys() != self._state.keys():
            raise ValueError(f"{name}: expected {sorted(self._state)}, got {list(state)}")
        of = "" if name == "state" else f"{name}: "
        return {key: checks.gradient(of + key, a, self._state[key]) for key, a in state.items()}

    def _go_on_from(self, state):
        for name, a in state.items():
            self._state[name][...] = a


class Chain(_Stepping):
    """Streams one after the other, the h of each being the x of the next, and perhaps a dense head
    on the last h: a step is one call, without memory allocated where out= is given.

    Inputs: streams, each a Stream of its own, of one batch and dtype, which take their steps here;
    head, (w (H, C), b (C,)), which are copied.
    One caller at a time may use it or one of its streams. A copy, or one by way of pickle, has
    streams of its own.
    Raises ValueError for sizes that do not fit each other, TypeError for a dtype or what is no
    Stream.
    """

    def __init__(
        self,
        streams: Sequence[Stream],
        head: tuple[np.ndarray, np.ndarray] | None = None,
    ) -> None:
        self._streams, self._head = _fitting_streams(streams), (None, None)
        first, last = self._streams[0], self._streams[-1]
        self._input_shape, self._output_shape = first._input_shape, last._output_shape
        if head is not None:
            self._head = _fitting_head(head, last)
            self._output_shape = last._output_shape[0], len(self._head[1])
        self._start()

    def _made(self):
        module = get_backend(self._streams[-1]._backend)
        steppers = [stream._stepper for stream in self._streams]
        one_kind = len({type(stepper) for stepper in steppers}) == 1
        plain = all(stream._is_plain(name) for stream in self._streams for name in _COMPILED)
        if one_kind and plain and hasattr(module, "chain"):
            return module.chain(steppers, *self._head, self._checked)
        return _Linked(module, self._streams, *self._head, self._checked)

    @property
    def _dtype(self):
        return self._streams[0]._dtype

    def __getstate__(self):
        return super().__getstate__() | {"_streams": tuple(map(copy.copy, self._streams))}

    def reset(self, rows: np.ndarray | None = None) -> None:
        """As Stream.reset, of all streams."""
        for stream in self._streams:
            stream.reset(rows)

    @property
    def state(self) -> list[dict[str, np.ndarray]]:
        """Copies of the streams' states, one after the other. Assign such a list to go on from it;
        where something does not fit that raises ValueError or TypeError and changes nothing."""
        return [stream.state for stream in self._streams]

    @state.setter
    def state(self, state: Sequence[dict[str, np.ndarray]]) -> None:
        _expect_sequence("state", state)
        if len(state) != len(self._streams):
            raise ValueError(f"state: expected {len(self._streams)} dicts, got {len(state)}")
        pairs = list(zip(self._streams, state, strict=True))
        new = [stream._fitting(f"state[{i}]", given) for i, (stream, given) in enumerate(pairs)]
        for stream, fitting in zip(self._streams, new, strict=True):
            stream._go_on_from(fitting)


def _expect_sequence(name, given):
    if not isinstance(given, list | tuple):
        raise TypeError(f"{name}: expected a list or a tuple, got {type(given).__name__}")


def _fitting_streams(streams):
    _expect_sequence("streams", streams)
    if not streams:
        raise ValueError("streams: expected at least one Stream, got none")
    for i, stream in enumerate(streams):
        name = f"streams[{i}]"
        if not isinstance(stream, Stream):
            raise TypeError(f"{name}: expected a Stream, got {type(stream).__name__}")
        if any(stream is other for other in streams[:i]):
            raise ValueError(f"{name}: expected a Stream of its own, got one from before again")
        if stream._dtype != streams[0]._dtype:
            wanted = f"{streams[0]._dtype} like streams[0]"
            raise TypeError(f"{name}: expected {wanted}, got {stream._dtype}")
        N, width = streams[max(i - 1, 0)]._output_shape
        batch, D = stream._input_shape
        if batch != N:
            raise ValueError(f"{name}: expected a batch of {N} like streams[0], got {batch}")
        if i and width != D:
            raise ValueError(f"{name}: expected D = {width}, the H before it, got {D}")
    return tuple(streams)


def _fitting_head(head, last):
    """w and b, copied."""
    _expect_sequence("head", head)
    if len(head) != 2:
        raise ValueError(f"head: expected w and b, got {len(head)} of them")
    w, b = (a.copy() for a in checks.arrays(_HEAD, tuple(head)))
    if w.dtype != last._dtype:
        raise TypeError(f"w: expected {last._dtype} like the streams, got {w.dtype}")
    H = last._output_shape[1]
    if len(w) != H:
        raise ValueError(f"w: expected shape (H, C) = ({H}, C), got {w.shape}")
    return w, b


class _Stepper:
    """Steps by a backend that has no streams of its own, the states in place as others'."""

    def __init__(
        self,
        backend: ModuleType,
        cell: Cell,
        weights: Weights,
        states: Iterable[np.ndarray],
        checked: Callable,
    ):
        self._backend, self._cell, self._weights = backend, cell, weights
        self._states, self._checked = tuple(states), checked

    def step(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        x, out, _ = self._checked(x, out, None, False)
        return self._take(x, np.empty_like(self._states[0]) if out is None else out)

    def steps(
        self, x: np.ndarray, out: np.ndarray | None = None, *, reset: np.ndarray | None = None
    ) -> np.ndarray:
        x, out, reset = self._checked(x, out, reset, True)
        if out is None:
            out = np.empty((len(x), *self._states[0].shape), x.dtype)
        elif np.may_share_memory(x, out):
            x = x.copy()
        for t, h in enumerate(out):
            for state in self._states if reset is not None else ():
                state[reset[t]] = 0
            self._take(x[t], h)
        return out

    def _take(self, x: np.ndarray, h: np.ndarray) -> np.ndarray:
        beside = self._weights[8 : 8 + len(self._cell.beside)]
        args = x, *self._states, *self._weights[:4], *beside
        *after, _ = self._backend.step_forward(self._cell, args, self._weights[4:8], False)
        for state, new in zip(self._states, after, strict=True):
            state[...] = new
        h[...] = after[0]
        return h


class _Linked:
    """A Chain whose streams are not all compiled ones, or have steps of their own."""

    def __init__(
        self,
        backend: ModuleType,
        streams: tuple[Stream, ...],
        w: np.ndarray | None,
        b: np.ndarray | None,
        checked: Callable,
    ):
        self._backend, self._streams, self._w, self._b = backend, streams, w, b
        self._checked = checked

    def step(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        x, out, _ = self._checked(x, out, None, False)
        return self._take("step", x, out)

    def steps(
        self, x: np.ndarray, out: np.ndarray | None = None, *, reset: np.ndarray | None = None
    ) -> np.ndarray:
        x, out, reset = self._checked(x, out, reset, True)
        return self._take("steps", x, out, reset=reset)

    def _take(self, method: str, x: np.ndarray, out: np.ndarray | None, **keywords) -> np.ndarray:
        done = []
        try:
            for stream in self._streams:
                before = stream.state
                x = getattr(stream, method)(x, **keywords)
                done.append((stream, before))
            if self._w is not None:
                x = self._through_head(x)
        except BaseException:
            for stream, before in done:
                stream.state = before
            raise
        if out is None:
            return x
        out[...] = x
        return out

    def _through_head(self, h: np.ndarray) -> np.ndarray:
        """Step by step: BLAS has other sums for more rows."""
        y = np.empty((*h.shape[:-1], len(self._b)), h.dtype)
        for t in np.ndindex(h.shape[:-2]):
            y[t] = self._backend.affine_forward(h[t], self._w, self._b)
        return y
