"""One step after the other with the state kept inside, for inputs that arrive one by one.

Letters: N batch (streams side by side), T steps, D input, H hidden, G gates (1 rnn, 4 lstm, 3 gru).
"""

from collections.abc import Callable, Iterable
from functools import partial
from types import ModuleType

import numpy as np

from fastrnn.backends import current_backend, get_backend
from fastrnn.cells import Cell, Weights
from fastrnn.layers import checks
from fastrnn.layers.prepared import PreparedWeights, prepare

_COMPILED = ("step", "steps")
_MADE = ("_stepper", *_COMPILED)  # by _start


class Stream:
    """A recurrent cell that remembers its state from step to step: same bits as the sequence
    function, weights prepared once, no memory allocated by a step with out=.

    Inputs: cell, "rnn", "lstm" or "gru"; Wx (D, G*H), Wh (H, G*H), b (G*H,), or the result of
    prepare alone; batch N; gates, for the lstm and the gru; bh (3*H,) and reset_after, for the gru;
    nonlinearity, for the rnn; transposed, for Wx (G*H, D) and Wh (G*H, H); backend.
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
        nonlinearity: str = "tanh",
        transposed: bool = False,
        backend: str | None = None,
    ) -> None:
        batch = checks.count("batch", batch)
        given = {"bh": bh, "gates": gates, "transposed": transposed}
        given |= {"reset_after": reset_after, "nonlinearity": nonlinearity}
        if type(Wx) is PreparedWeights:
            Wx.check_alone(cell, Wh, b, **given)
        else:
            Wx = prepare(cell, Wx, Wh, b, **given, backend=backend)
        D, H = (W.shape[Wx.transposed] for W in (Wx.Wx, Wx.Wh))
        self._weights, self._backend = Wx, current_backend() if backend is None else backend
        self._input_shape, self._output_shape = (batch, D), (batch, H)
        states = Wx.own.record.states
        try:
            self._state = {name: np.zeros((batch, H), Wx.Wh.dtype) for name in states}
        except ValueError:  # of more bytes than can be counted
            raise MemoryError(f"batch: no memory for states of {batch} rows") from None
        self._start()

    def _start(self):
        own, module = self._weights.own, get_backend(self._backend)
        make = getattr(module, "stream", None) or partial(_Stepper, module)
        weights = Weights(*own.arrays, *own.rest)
        self._stepper = make(own.record, weights, self._state.values(), self._checked)
        # The compiled methods themselves: one call of Python less a step. Not over a subclass's.
        for name in _COMPILED:
            if getattr(type(self), name) is getattr(Stream, name):
                setattr(self, name, getattr(self._stepper, name))

    def __getstate__(self):
        """What a copy begins with: its own state."""
        kept = {name: value for name, value in vars(self).items() if name not in _MADE}
        return kept | {"_state": self.state}

    def __setstate__(self, kept):
        vars(self).update(kept)
        self._start()

    def step(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Take one step and return the new h.

        Inputs: x (N, D); out (N, H), C-contiguous, which then receives h.
        Returns: out, or a new array (N, H).
        Raises ValueError for a shape, TypeError for a dtype, RuntimeError while another thread
        takes a step; the state then stays as it was.
        """
        return self._stepper.step(x, out)

    def steps(
        self, x: np.ndarray, out: np.ndarray | None = None, *, reset: np.ndarray | None = None
    ) -> np.ndarray:
        """Take many steps in one call and return all new h: the bits of as many calls of step.

        Inputs: x (T, N, D), time first; out (T, N, H), C-contiguous, which then receives them;
        reset (T, N), bool: where it is true the state is set to zeros before the step.
        Returns: out, or a new array (T, N, H).
        Raises what step raises.
        """
        return self._stepper.steps(x, out, reset=reset)

    def _checked(self, x, out, reset, many):
        """x, out and reset as the kernels take them, of one step or of many."""
        x, dtype = checks.array("x", x), self._weights.Wh.dtype
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
        if not isinstance(state, dict):
            raise TypeError(f"state: expected a dict, got {type(state).__name__}")
        if state.keys() != self._state.keys():
            raise ValueError(f"state: expected {sorted(self._state)}, got {sorted(state)}")
        new = {name: checks.gradient(name, a, self._state[name]) for name, a in state.items()}
        for name, a in new.items():
            self._state[name][...] = a


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
        args = x, *self._states, *self._weights[:4]
        *after, _ = self._backend.step_forward(self._cell, args, self._weights[4:], False)
        for state, new in zip(self._states, after, strict=True):
            state[...] = new
        h[...] = after[0]
        return h
