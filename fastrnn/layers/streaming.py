"""One step after the other with the state kept inside, for inputs that arrive one by one.

Letters: N batch (streams side by side), D input, H hidden, G gates (1 rnn, 4 lstm, 3 gru).
"""

import numpy as np

from fastrnn.backends import get_backend
from fastrnn.layers import checks
from fastrnn.layers.prepared import PreparedWeights, prepare


class Stream:
    """A recurrent cell that remembers its state from step to step: same bits as the sequence
    function, weights prepared once, no memory allocated by a step with out=.

    Inputs: cell, "rnn", "lstm" or "gru"; Wx (D, G*H), Wh (H, G*H), b (G*H,), or the result of
    prepare alone; batch N; gates, for the lstm; bh (3*H,) and reset_after, for the gru; backend.
    The state begins as zeros. The number of threads is the one that is set when a stream is made;
    one caller at a time may use it.
    Raises ValueError for a shape, a name or a batch below 1, TypeError for a dtype.
    """

    def __init__(
        self,
        cell: str,
        Wx: np.ndarray | PreparedWeights,
        Wh: np.ndarray | None = None,
        b: np.ndarray | None = None,
        *,
        batch: int = 1,
        gates: str = "ifog",
        bh: np.ndarray | None = None,
        reset_after: bool = True,
        backend: str | None = None,
    ) -> None:
        batch = checks.count("batch", batch)
        if type(Wx) is PreparedWeights:
            weights = Wx.alone(cell, Wh, b, gates=gates, bh=bh, reset_after=reset_after)
        else:
            weights = prepare(
                cell, Wx, Wh, b, gates=gates, bh=bh, reset_after=reset_after, backend=backend
            )
        states = "hc" if cell == "lstm" else "h"
        H, dtype = len(weights.Wh), weights.Wh.dtype
        self._state = {name: np.zeros((batch, H), dtype) for name in states}
        self._step = get_backend(backend).stream(weights, *self._state.values())
        self._input = np.empty((batch, len(weights.Wx)), dtype)

    def step(self, x: np.ndarray, out: np.ndarray | None = None) -> np.ndarray:
        """Take one step and return the new h.

        Inputs: x (N, D); out (N, H), C-contiguous, which then receives h.
        Returns: out, or a new array (N, H).
        Raises ValueError for a shape, TypeError for a dtype, RuntimeError while another thread
        takes a step; the state then stays as it was.
        """
        h = self._step(x, out)
        return h if h is not None else self._step(*self._checked(x, out))

    def _checked(self, x, out):
        x = checks.gradient("x", x, self._input)
        if out is not None and type(out) is not np.ndarray:
            raise TypeError(f"out: expected an ndarray, got {type(out).__name__}")
        if out is not None and not out.flags.carray:
            raise ValueError("out: expected a writeable, aligned, C-contiguous array")
        if out is not None:
            checks.gradient("out", out, self._state["h"])
        return x, out

    def reset(self, rows: np.ndarray | None = None) -> None:
        """Set the state to zeros, of all streams or of the rows (indices or a mask) given.

        Raises IndexError for a row out of range.
        """
        for state in self._state.values():
            state[... if rows is None else rows] = 0

    @property
    def state(self) -> dict[str, np.ndarray]:
        """Copies of the state: h (N, H) and, of an lstm, c (N, H). Assign such a dict to go on from
        it; where an array does not fit that raises ValueError or TypeError and changes nothing."""
        return {name: state.copy() for name, state in self._state.items()}

    @state.setter
    def state(self, state: dict[str, np.ndarray]) -> None:
        if set(state) != set(self._state):
            raise ValueError(f"state: expected {sorted(self._state)}, got {sorted(state)}")
        new = {name: checks.gradient(name, a, self._state[name]) for name, a in state.items()}
        for name, a in new.items():
            self._state[name][...] = a
