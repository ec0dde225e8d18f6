"""torch.nn's recurrent modules with fastrnn's kernels.

Each is a subclass of its namesake in torch.nn: parameters, state_dict, repr, arguments and results
are the same. Float32 and float64 on the CPU are computed by fastrnn; by torch.nn's own code is what
is on another device or of another dtype, under autocast, of a subclass of Tensor, under torch.jit,
torch.func, torch.onnx and forward differentiation, and what does not fit the module, so that the
errors are torch.nn's. See docs/torch.md.

Letters: N batch, T steps, D input, H hidden, P projected (H without a projection), L layers, S
directions.
"""

from functools import partial

import torch
from torch import Tensor
from torch.nn.utils.rnn import PackedSequence

from fastrnn.cells import CELLS
from fastrnn.nn.direction import Form
from fastrnn.torch import compiled
from fastrnn.torch.autograd import compute
from fastrnn.torch.sequences import Sequence
from fastrnn.torch.steps import Step
from fastrnn.torch.tensors import are_plain, is_observed, unseen

NONLINEARITIES = {"tanh", "relu"} if "rnn_relu" in CELLS else {"tanh"}
States = tuple[Tensor | None, Tensor | None]  # h, and of an lstm c; None: zeros


class _Module:
    """What all six share."""

    own: type[torch.nn.Module]  # the namesake
    cell: str
    nonlinearity = "tanh"
    use = "auto"  # or "torch", for torch.nn's own code always

    def _weight(self, name):
        # Parameters first: Module.__getattr__ takes half a microsecond. Where a parametrization, a
        # hook or functional_call has put something else in their place, that.
        found = self._parameters.get(name)
        return getattr(self, name) if found is None else found

    def _is_computed(self, tensors):
        if self.use == "torch" or self.nonlinearity not in NONLINEARITIES:
            return False
        if torch.compiler.is_compiling():
            return compiled.are_plain(tensors)
        return are_plain(tensors) and not is_observed()

    def _states(self, hx) -> States | None:
        """None where hx is none of this module's."""
        if hx is None:
            return None, None
        if self.cell != "lstm":
            return (hx, None) if isinstance(hx, Tensor) else None
        return tuple(hx) if isinstance(hx, tuple | list) and len(hx) == 2 else None

    def __prepare_scriptable__(self):
        plain = self.own.__new__(self.own)
        plain.__dict__ = self.__dict__.copy()
        return plain


# ---- layers --------------------------------------------------------------------------------------


class _Layers(_Module):
    def forward(self, input, hx=None, *, reset=None):  # noqa: A002
        """As torch.nn's; reset (N, T), bool, whatever the layout, sets the state of row n to
        zeros before step t where reset[n, t] is true; of an unbatched input it is (T,).

        Raises TypeError and ValueError for reset, and what torch.nn raises.
        """
        if torch.compiler.is_compiling():
            return self._forward(input, hx, reset)
        if reset is None and torch.jit.is_tracing():
            return super().forward(input, hx)
        return unseen(self._forward, input, hx, reset)

    def _forward(self, given, hx, reset):
        if isinstance(given, torch.fx.Proxy):  # a leaf of the graph, as modules of torch.nn are
            path, keywords = given.tracer.path_of_module(self), {"reset": reset}
            keywords = keywords if reset is not None else {}
            return given.tracer.create_proxy("call_module", path, (given, hx), keywords)
        packed = isinstance(given, PackedSequence)
        x, states = given.data if packed else given, self._states(hx)
        if not self._fits(x, states, given.batch_sizes if packed else None):
            return super().forward(given, hx)
        weights = [self._weight(name) for name in self._flat_weights_names]
        computed = self._is_computed((x, *states, *weights))
        if packed and torch.compiler.is_compiling():
            computed = False
        if not computed and reset is None:
            return super().forward(given, hx)
        if packed:
            return self._packed(given, states, weights, reset, computed)
        if x.dim() == 3:
            return self._batch(x, states, weights, reset, computed)
        at = 0 if self.batch_first else 1
        states = [s if s is None else s.unsqueeze(1) for s in states]
        if reset is not None:
            reset = _checked(reset, ("T",), x.shape[:1])[None]
        y, hx = self._batch(x.unsqueeze(at), states, weights, reset, computed)
        return y.squeeze(at), self._each(hx, lambda s: s.squeeze(1))

    def _fits(self, x, states, sizes):
        """Whether torch.nn would take these shapes, and there is something to compute."""
        if not isinstance(x, Tensor) or states is None:
            return False
        if x.dim() != 3 and (x.dim() != 2 or x.numel() == 0):
            return False
        if x.shape[-1] != self.input_size or x.numel() == 0:
            return False
        if sizes is not None:
            batch = (int(sizes[0]),)
        else:
            batch = () if x.dim() == 2 else (x.shape[0 if self.batch_first else 1],)
        rows = self.num_layers * (2 if self.bidirectional else 1)
        columns = self.proj_size or self.hidden_size, self.hidden_size
        return all(
            s is None or (isinstance(s, Tensor) and s.shape == (rows, *batch, size))
            for s, size in zip(states, columns, strict=True)
        )

    def _packed(self, sequence, states, weights, reset, computed):
        x, sizes, order, back = sequence
        if order is not None:  # of the rows, by length
            states = [s if s is None else s.index_select(1, order) for s in states]
        if reset is not None:
            reset = _checked(reset, ("N", "T"), (int(sizes[0]), len(sizes)))
            reset = reset if order is None else reset.index_select(0, order)
        y, hx = self._run(x, states, weights, reset, computed, sizes)
        if back is not None:
            hx = self._each(hx, lambda s: s.index_select(1, back))
        return PackedSequence(y, sizes, order, back), hx

    def _batch(self, x, states, weights, reset, computed):
        if reset is not None:
            N, T = x.shape[:2] if self.batch_first else x.shape[1::-1]
            reset = _checked(reset, ("N", "T"), (N, T))
        return self._run(x, states, weights, reset, computed)

    def _run(self, x, states, weights, reset, computed, sizes=None):
        gates = "ifgo" if self.cell == "lstm" else None
        form = Form(
            self.cell, self.num_layers, self.bidirectional, gates, True, self.nonlinearity, True
        )
        layout = "batch_first" if self.batch_first else "time_first"
        layout = layout if sizes is None else "packed"
        masks = self._masks(x, layout)
        computation = Sequence(form, self.bias, self.proj_size > 0, layout, sizes, reset, masks)
        if not computed:
            run = computation.reference
        elif torch.compiler.is_compiling():
            run = partial(compiled.compute, computation)
        else:
            run = partial(compute, computation)
        y, *last = run(x, *states, *weights)
        return y, tuple(last) if self.cell == "lstm" else last[0]

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

    def _each(self, hx, f):
        return tuple(map(f, hx)) if self.cell == "lstm" else f(hx)


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


class RNN(_Layers, torch.nn.RNN):
    __doc__ = torch.nn.RNN.__doc__
    own, cell = torch.nn.RNN, "rnn"


class LSTM(_Layers, torch.nn.LSTM):
    __doc__ = torch.nn.LSTM.__doc__
    own, cell = torch.nn.LSTM, "lstm"


class GRU(_Layers, torch.nn.GRU):
    __doc__ = torch.nn.GRU.__doc__
    own, cell = torch.nn.GRU, "gru"


# ---- cells ---------------------------------------------------------------------------------------


class _Cell(_Module):
    def forward(self, input, hx=None):  # noqa: A002
        """As torch.nn's, whose own it is in a graph of torch.compile."""
        if torch.compiler.is_compiling() or torch.jit.is_tracing():
            return super().forward(input, hx)
        return unseen(self._forward, input, hx)

    def _forward(self, x, hx):
        states = self._states(hx)
        if states is None or not self._fits(x, *states):
            return super().forward(x, hx)
        weights = map(self._weight, ("weight_ih", "weight_hh", "bias_ih", "bias_hh"))
        tensors = (x, *states, *weights)
        if not self._is_computed(tensors):
            return super().forward(x, hx)
        step = Step(self.cell, self.nonlinearity)
        if x.dim() == 2:
            results = compute(step, *tensors)
        else:
            tensors = [t if t is None else t.unsqueeze(0) for t in tensors[:3]] + [*tensors[3:]]
            results = [r.squeeze(0) for r in compute(step, *tensors)]
        return tuple(results) if self.cell == "lstm" else results[0]

    def _fits(self, x, h, c):
        """Whether torch.nn would take these shapes, and there is something to compute."""
        if not isinstance(x, Tensor) or x.dim() not in (1, 2):
            return False
        *batch, columns = x.shape
        if columns != self.input_size or x.numel() == 0:
            return False
        shape = (*batch, self.hidden_size)
        return (h is None or (isinstance(h, Tensor) and h.shape == shape)) and (
            c is None or (isinstance(c, Tensor) and c.shape == shape)
        )


class RNNCell(_Cell, torch.nn.RNNCell):
    __doc__ = torch.nn.RNNCell.__doc__
    own, cell = torch.nn.RNNCell, "rnn"


class LSTMCell(_Cell, torch.nn.LSTMCell):
    __doc__ = torch.nn.LSTMCell.__doc__
    own, cell = torch.nn.LSTMCell, "lstm"


class GRUCell(_Cell, torch.nn.GRUCell):
    __doc__ = torch.nn.GRUCell.__doc__
    own, cell = torch.nn.GRUCell, "gru"
