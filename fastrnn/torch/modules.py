"""torch.nn's recurrent modules with fastrnn's kernels.

Each is a subclass of its namesake in torch.nn: parameters, state_dict, repr, arguments and results
are the same. Float32 and float64 on the CPU are computed by fastrnn; by torch.nn's own code is what
is on another device or of another dtype, under autocast, of a subclass of Tensor, under torch.jit,
torch.func, torch.onnx and forward differentiation, and what does not fit the module, so that the
errors are torch.nn's. See docs/torch.md.

Letters: N batch, T steps, D input, H hidden, P projected (H without a projection), L layers, S
directions.
"""

from functools import cache
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fastrnn.cells import NAMES, Steps, form_of
from fastrnn.layers.otherwise import options_of, record_of
from fastrnn.options import Options
from fastrnn.torch import compiled
from fastrnn.torch.autograd import compute, is_differentiated
from fastrnn.torch.errors import check_dtypes, misfit
from fastrnn.torch.sequences import sequence
from fastrnn.torch.steps import KINDS, Step
from fastrnn.torch.steps import compiled as compiled_cell
from fastrnn.torch.tensors import is_observed, members, plain_arrays, unseen

States = tuple[Tensor | None, Tensor | None]  # h, and of an lstm c; None: zeros


_NONLINEARITIES = frozenset(("tanh", "relu", "linear", "positive"))


class _Module:
    """What all share."""

    own: type[torch.nn.Module] | None  # the namesake
    cell: str
    nonlinearity = "tanh"
    options: Options | None = None
    # Who computes what both can: "fastrnn", "torch", or "auto", for the faster as far as is known.
    use = "auto"

    def _may_compute(self):
        return self.use != "torch" and self.nonlinearity in _NONLINEARITIES and not is_observed()

    def _states(self, hx) -> States | None:
        """None where hx is none of this module's."""
        if hx is None:
            return None, None
        if self.cell != "lstm":
            return (hx, None) if isinstance(hx, Tensor) else None
        return tuple(hx) if isinstance(hx, tuple | list) and len(hx) == 2 else None

    def _leaf(self, proxy, hx, **keywords):
        """A leaf of torch.fx's graph, as modules of torch.nn are."""
        path = proxy.tracer.path_of_module(self)
        return proxy.tracer.create_proxy("call_module", path, (proxy, hx), keywords)

    @property
    def _is_alone(self):
        """Whether torch.nn does not have it."""
        return self.own is None or self.options is not None

    def __prepare_scriptable__(self):
        if self._is_alone:
            raise TypeError(f"torch.jit.script: expected what torch.nn has, got {self!r}")
        plain = self.own.__new__(self.own)
        plain.__dict__ = self.__dict__.copy()
        return plain


# ---- layers --------------------------------------------------------------------------------------


_step = cache(Step)
_STEPS = {False: Steps(layout="time_first"), True: Steps(layout="batch_first")}
# Of more rows than these a single step lays the weights out anew.
_READ_IN_PLACE = 6


class Layers(_Module):
    """What RNN, LSTM, GRU and the layers of fastrnn.torch.cells share."""

    # From how many steps on fastrnn is the faster one; 16 with a projection.
    _fewest_steps = 1
    # Up to how many weights a gate it is where a single step lays them out anew.
    _most_weights = float("inf")
    eps: float | None = None  # of layer normalisation
    _options: Options | None = None

    def __init__(self, *args: Any, options: Options | None = None, **keywords: Any) -> None:
        super().__init__(*args, **keywords)
        self.options = options

    @property
    def options(self) -> Options | None:
        """Of the cells. Raises what options_of raises where it is set."""
        return self._options

    @options.setter
    def options(self, options: Options | None) -> None:
        record = record_of(form_of(self.cell, nonlinearity=self.nonlinearity))
        self._options = None if options is None else options_of(record, options)

    def forward(self, input, hx=None, *, reset=None):  # noqa: A002
        """As torch.nn's; reset (N, T), bool, whatever the layout, sets the state of row n to
        zeros before step t where reset[n, t] is true; of an unbatched input it is (T,).

        Raises TypeError and ValueError for reset, and what torch.nn raises.
        """
        if torch.compiler.is_compiling():
            if self._is_alone and isinstance(input, PackedSequence):
                return unseen(self._forward, input, hx, reset)
            return self._forward(input, hx, reset)
        theirs = not self._is_alone and (torch.jit.is_tracing() or self._is_slower(input))
        if theirs and reset is None:
            return super().forward(input, hx)
        return unseen(self._eager, input, hx, reset)

    def _eager(self, given, hx, reset):
        found = self._short(given, hx) if reset is None else None
        return self._forward(given, hx, reset) if found is None else found

    def _is_one(self):
        """Whether it is one layer in one direction, and nothing but torch.nn's plain cell."""
        plain = not self.proj_size and not self._is_alone
        return self.num_layers == 1 and not self.bidirectional and plain

    def _short(self, x, hx):
        """One layer in one direction without gradients; None where it takes the longer way."""
        if not (self._is_one() and self._may_compute()):
            return None
        cell, states = compiled_cell(_step(self.cell, self.nonlinearity)), self._states(hx)
        if cell is None or states is None:
            return None
        tensors = x, *states, *members(self, self._flat_weights_names)
        found = cell.sequence(_STEPS[self.batch_first], 1 - self.batch_first, tensors)
        if found is None:
            return None
        return (found[0], found[1:]) if self.cell == "lstm" else found

    def _forward(self, given, hx, reset):
        packed = isinstance(given, PackedSequence)
        x, states = given.data if packed else given, self._states(hx)
        if not self._fits(x, states, given.batch_sizes if packed else None):
            if isinstance(given, torch.fx.Proxy):
                return self._leaf(given, hx, **({} if reset is None else {"reset": reset}))
            if self._is_alone:
                raise self._misfit(x, hx, states, given.batch_sizes if packed else None)
            return super().forward(given, hx)
        if packed:
            found = self._packed(given, states, reset)
        elif x.dim() == 3:
            found = self._batch(x, states, reset)
        else:
            found = self._row(x, states, reset)
        return super().forward(given, hx) if found is None else found

    def _is_slower(self, given):
        fewest = 16 if self.proj_size else self._fewest_steps
        if fewest == 3 and not torch.is_grad_enabled() and self._is_one():
            fewest = 1
        large = self.hidden_size * (self.input_size + self.hidden_size) > self._most_weights
        if self.use != "auto" or not (fewest > 1 or large):
            return False
        if isinstance(given, PackedSequence):
            steps, rows = len(given.batch_sizes), given.batch_sizes[0]
        elif isinstance(given, Tensor) and given.dim() == 3:
            steps, rows = given.shape[:2] if not self.batch_first else given.shape[1::-1]
        elif isinstance(given, Tensor) and given.dim() == 2:
            steps, rows = len(given), 1
        else:
            return False
        return fewest > steps or (large and steps == 1 and rows > _READ_IN_PLACE)

    def _fits(self, x, states, sizes):
        """Whether torch.nn would take these shapes, and there is something to compute."""
        if not isinstance(x, Tensor) or states is None:
            return False
        if x.dim() != 2 and (x.dim() != 3 or sizes is not None):
            return False
        if x.shape[-1] != self.input_size or (x.numel() == 0 and not self._may_be_empty(x)):
            return False
        if states[0] is None and states[1] is None:
            return True
        return all(
            s is None or (isinstance(s, Tensor) and s.shape == shape)
            for s, shape in zip(states, self._state_shapes(x, sizes), strict=True)
        )

    def _may_be_empty(self, x):
        """Whether it has steps, but no rows to take them, which torch.nn's own sees to itself."""
        return self._is_alone and x.dim() == 3 and x.shape[1 if self.batch_first else 0] > 0

    def _state_shapes(self, x, sizes):
        if sizes is not None:
            batch = (int(sizes[0]),)
        else:
            batch = () if x.dim() == 2 else (x.shape[0 if self.batch_first else 1],)
        rows = self.num_layers * (2 if self.bidirectional else 1)
        columns = self.proj_size or self.hidden_size, self.hidden_size
        return [(rows, *batch, size) for size in columns]

    def _misfit(self, x, hx, states, sizes):
        single = isinstance(x, Tensor) and x.dim() == 2
        letters = "T, D" if single else "N, T, D" if self.batch_first else "T, N, D"
        if sizes is not None:
            letters = "U, D"
        names = NAMES[self.cell].states
        named = None if states is None else dict(zip(names, states, strict=False))
        shapes = self._state_shapes(x, sizes)[: len(names)] if isinstance(x, Tensor) else []
        return misfit(x, self.input_size, letters, hx, named, shapes)

    # These three return None where torch.nn is to compute.

    def _row(self, x, states, reset):
        at = 0 if self.batch_first else 1
        states = [s if s is None else s.unsqueeze(1) for s in states]
        if reset is not None:
            reset = _checked(reset, ("T",), x.shape[:1])[None]
        if (found := self._run(x.unsqueeze(at), states, reset)) is None:
            return None
        y, hx = found
        return y.squeeze(at), self._each(hx, lambda s: s.squeeze(1))

    def _packed(self, sequence, states, reset):
        x, sizes, order, back = sequence
        if torch.compiler.is_compiling() or not _are_sizes(sizes.numpy(), len(x)):
            if self._is_alone:
                got = sizes.tolist()
                raise ValueError(f"batch_sizes: expected those of {len(x)} rows, got {got}")
            return None
        if order is not None:  # of the rows, by length
            states = [s if s is None else s.index_select(1, order) for s in states]
        if reset is not None:
            reset = _checked(reset, ("N", "T"), (int(sizes[0]), len(sizes)))
            reset = reset if order is None else reset.index_select(0, order)
        if (found := self._run(x, states, reset, sizes)) is None:
            return None
        y, hx = found
        if back is not None:
            hx = self._each(hx, lambda s: s.index_select(1, back))
        return PackedSequence(y, sizes, order, back), hx

    def _batch(self, x, states, reset):
        if reset is not None:
            N, T = x.shape[:2] if self.batch_first else x.shape[1::-1]
            reset = _checked(reset, ("N", "T"), (N, T))
        return self._run(x, states, reset)

    def _run(self, x, states, reset, sizes=None):
        compiling, names = torch.compiler.is_compiling(), self._flat_weights_names
        weights = [getattr(self, name) for name in names] if compiling else members(self, names)
        tensors = (x, *states, *weights)
        if compiling:
            computed = self.use != "torch" and sizes is None and compiled.are_plain(tensors)
        else:
            arrays = plain_arrays(tensors) if self._may_compute() else None
            computed = arrays is not None
        options, seed = self._of_call()
        if options is not None and seed is None and (options.zoneout_h or options.zoneout_c):
            # What predictions expect of zoneout has no backward pass but torch's.
            computed = computed and not is_differentiated(tensors)
        if not computed and reset is None and not self._is_alone:
            return None
        if not computed and self._is_alone and not torch.is_autocast_enabled(x.device.type):
            check_dtypes(dict(zip(("input", "h", "c"), tensors, strict=False)), weights[0])
        computation = self._computation(x, sizes, reset, options, seed)
        if not computed:
            results = computation.reference(*tensors)
        elif compiling:
            results = compiled.compute(computation, tensors)
        else:
            results = compute(computation, tensors, arrays)
        y, *last = results
        return y, tuple(last) if self.cell == "lstm" else last[0]

    def _of_call(self):
        """The options of a call, and the seed of what is random in it, or None."""
        options = self.options
        if options is None:
            return None, None
        options = options._replace(seed=0)
        if not self.training:
            return options.without_dropout(), None
        return options, torch.randint(2**63 - 1, (), device="cpu") if options.is_random else None

    @property
    def _kinds(self):
        """Of the parameters of a direction: see nn.direction."""
        names = self._flat_weights_names
        of_first = names[: len(names) // (self.num_layers * (2 if self.bidirectional else 1))]
        return tuple(name.removesuffix("_l0") for name in of_first)

    def _computation(self, x, sizes, reset, options, seed):
        layout = "batch_first" if self.batch_first else "time_first"
        layout = layout if sizes is None else "packed"
        about = self.cell, self.num_layers, self.bidirectional, self.nonlinearity, options
        about = *about, self.eps, self._kinds, layout
        masks, compiling = self._masks(x, layout), torch.compiler.is_compiling()
        if sizes is None and reset is None and seed is None and not masks and not compiling:
            return _plain_sequence(*about)
        return sequence(*about, sizes, reset, masks, seed)

    def _masks(self, x, layout):
        """What the outputs of all layers but the last are multiplied with, as torch draws it: one
        after the other, time first."""
        p = self.dropout if self.training else 0.0
        if p == 0 or self.num_layers == 1:
            return ()
        leading = x.shape[1::-1] if layout == "batch_first" else x.shape[:-1]
        width = (self.proj_size or self.hidden_size) * (2 if self.bidirectional else 1)
        masks = [x.new_empty((*leading, width)) for _ in range(self.num_layers - 1)]
        return tuple(m.bernoulli_(1 - p).div_(1 - p) if p < 1 else m.zero_() for m in masks)

    def extra_repr(self) -> str:
        said = "" if self.options is None else f", options={self.options}"
        return super().extra_repr() + said

    def _each(self, hx, f):
        return tuple(map(f, hx)) if self.cell == "lstm" else f(hx)


_plain_sequence = cache(sequence)


def _are_sizes(sizes, U):
    """Whether so many of U rows take each step of a packed sequence, never more than before."""
    return sizes[-1] > 0 and sizes.sum() == U and bool((sizes[1:] <= sizes[:-1]).all())


def _checked(reset, letters, shape):
    if not isinstance(reset, Tensor) or reset.dtype != torch.bool:
        got = f"a tensor of {reset.dtype}" if isinstance(reset, Tensor) else type(reset).__name__
        raise TypeError(f"reset: expected a tensor of torch.bool, got {got}")
    if reset.shape != shape:
        expected = f"({', '.join(letters)}{',' * (len(letters) == 1)})"
        raise ValueError(
            f"reset: expected shape {expected} = {tuple(shape)}, got {tuple(reset.shape)}"
        )
    return reset


class RNN(Layers, torch.nn.RNN):
    """torch.nn.RNN, by fastrnn; of one or two steps torch.nn's own, which is faster, unless it is
    one layer in one direction and no gradients are wanted.
    """

    own, cell = torch.nn.RNN, "rnn"
    _fewest_steps = 3


class LSTM(Layers, torch.nn.LSTM):
    """torch.nn.LSTM, by fastrnn; with a projection and of fewer than 16 steps torch.nn's own, which
    is faster.
    """

    own, cell = torch.nn.LSTM, "lstm"


class GRU(Layers, torch.nn.GRU):
    """torch.nn.GRU, by fastrnn; of one step, more than 6 rows and more than 20,000 weights a gate
    torch.nn's own, which is faster.
    """

    own, cell = torch.nn.GRU, "gru"
    _most_weights = 20_000


# ---- cells ---------------------------------------------------------------------------------------


# Multiply-adds of a step up to which fastrnn is the faster one, and up to how many weights it is
# whatever the rows, where no gradients are wanted.
_MOST_WORK, _MOST_WEIGHTS = 262_144, 50_000


class _Cell(_Module):
    gates: int
    _is_for_inference = False  # where it is the faster one, with "auto"

    def forward(self, input, hx=None):  # noqa: A002
        """As torch.nn's, whose own it is in a graph of torch.compile."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing() or self._is_slower(input):
            return super().forward(input, hx)
        return unseen(self._forward, input, hx)

    def _forward(self, x, hx):
        found = None
        if self._may_compute() and (states := self._states(hx)) is not None:
            found = self._run((x, *states, *members(self, KINDS)))
        if found is not None:
            return found if self.cell == "lstm" else found[0]
        return self._leaf(x, hx) if isinstance(x, torch.fx.Proxy) else super().forward(x, hx)

    def _run(self, tensors):
        """None where torch.nn is to compute."""
        step = _step(self.cell, self.nonlinearity)
        if (cell := compiled_cell(step)) and (found := cell.step(tensors)) is not None:
            return found
        arrays = plain_arrays(tensors)
        if arrays is None or not self._fits(*arrays[:3]):
            return None
        if arrays[0].ndim == 2:
            return compute(step, tensors, arrays)
        rows = [t if t is None else t.unsqueeze(0) for t in tensors[:3]]
        found = self._run((*rows, *tensors[3:]))
        return tuple(state.squeeze(0) for state in found)

    def _is_slower(self, x):
        if self.use != "auto" or not isinstance(x, Tensor):
            return False
        weights = self.gates * self.hidden_size * (self.input_size + self.hidden_size)
        if weights * x.numel() <= _MOST_WORK * self.input_size:
            return self._is_for_inference and torch.is_grad_enabled()
        return weights > _MOST_WEIGHTS or torch.is_grad_enabled()

    def _fits(self, x, h, c):
        """Whether torch.nn would take arrays of these shapes."""
        if x is None or x.ndim not in (1, 2) or x.shape[-1] != self.input_size:
            return False
        shape = (*x.shape[:-1], self.hidden_size)
        return (h is None or h.shape == shape) and (c is None or c.shape == shape)


class RNNCell(_Cell, torch.nn.RNNCell):
    """torch.nn.RNNCell, by fastrnn where it is small: see docs/torch.md."""

    own, cell, gates = torch.nn.RNNCell, "rnn", 1
    _is_for_inference = True


class LSTMCell(_Cell, torch.nn.LSTMCell):
    """torch.nn.LSTMCell, by fastrnn where it is small: see docs/torch.md."""

    own, cell, gates = torch.nn.LSTMCell, "lstm", 4


class GRUCell(_Cell, torch.nn.GRUCell):
    """torch.nn.GRUCell, by fastrnn where it is small: see docs/torch.md."""

    own, cell, gates = torch.nn.GRUCell, "gru", 3
