# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""A step of a cell from tensors to tensors, and its gradients, in C: a small one takes less time than
its way through Python.

torch takes from each node of its graph gradients as large as the weights and adds them up, which
takes longer than the step. So the steps here depend not on the weights but on a token, an empty
tensor that one more node makes of them. What a step has to add to the weights' gradients it adds to
sums beside the graph; torch comes to the token's node when all steps are done, and gets them there.
"""

from weakref import WeakValueDictionary

from numpy cimport (
    PyArray_DIMS, PyArray_NDIM, PyArray_SAMESHAPE, PyArray_TYPE, PyArray_ZEROS, import_array, ndarray,
    npy_intp,
)

from fastrnn.torch._arrays cimport readable

# Declared, they are found without a look into the module's dictionary.
cdef object empty, from_numpy, get_num_threads, is_grad_enabled, task_id, get_backend, is_observed

from torch import empty, from_numpy, get_num_threads, is_grad_enabled
from torch._C import _current_graph_task_id as task_id
from torch.autograd import Function

from fastrnn.backends import get_backend
from fastrnn.torch.autograd import gradients_by_torch, is_batch
from fastrnn.torch.tensors import arrays, is_observed

import_array()

cdef enum:
    WEIGHTS = 3  # where w_ih, w_hh, b_ih and b_hh begin among the tensors of steps.py
    INPUTS = 7   # how many these are
    LARGE = 50_000_000  # operations from which on Python sees to torch's threads, see threads.py


# ---- what steps share ----------------------------------------------------------------------------


cdef bint are_alike(ndarray a, ndarray b):
    """Whether they have one shape and dtype."""
    return PyArray_TYPE(a) == PyArray_TYPE(b) and PyArray_SAMESHAPE(a, b)


cdef class Sums:
    """Of the weights' gradients in one backward pass: of steps by kernels, as arrays dWx, dWh, db,
    dbh or None, and what else the kernels go on from; of others, as tensors. None: none so far."""
    cdef object __weakref__
    cdef tuple arrays
    cdef list tensors

    cdef add(self, gradients):
        """Those of one step, tensors or None."""
        if self.tensors is None:
            self.tensors = list(gradients)
            return
        for i, d in enumerate(gradients):
            mine = self.tensors[i]
            self.tensors[i] = mine if d is None else d if mine is None else mine + d

    cdef bint take(self, ndarray Wx, ndarray Wh, bint two_biases):
        """Whether gradients of such arrays can be added to those there are."""
        return self.arrays is None or (
            are_alike(Wx, self.arrays[0]) and are_alike(Wh, self.arrays[1])
            and two_biases == (self.arrays[3] is not None))

    cdef list all(self):
        """A tensor a weight, or None."""
        if self.arrays is not None:
            dWx, dWh, db, dbh = self.arrays[:4]
            dbh = db.copy() if dbh is None else dbh  # b was the sum of both
            self.add([from_numpy(d) for d in (dWx, dWh, db, dbh)])
            self.arrays = None
        return self.tensors


cdef class Shared:
    """Weights, leaves of torch's graph, and the token to depend on in their place."""
    cdef object __weakref__
    cdef tuple weights, wanted
    cdef object token
    cdef object passes  # Sums by torch's numbers of backward passes, weakly

    def __init__(self, tuple weights, tuple wanted):
        self.weights, self.wanted = weights, wanted  # whose ids are theirs as long as this lives
        self.token, self.passes = _Token.apply(*weights), WeakValueDictionary()

    cdef tuple sums(self):
        """The sums of the backward pass that runs, and what a step is to return as the token's
        gradient. The tensor that the first one returns holds the sums, so that they live as long as
        torch wants them, also where the pass fails or has no use for them."""
        task = task_id()
        found = self.passes.get(task)
        if found is not None:
            return found, None
        found = self.passes[task] = Sums()
        dtoken = empty(0, dtype=self.token.dtype)
        dtoken.sums = found
        return found, dtoken


class _Token(Function):
    @staticmethod
    def forward(ctx, *weights):
        ctx.set_materialize_grads(False)
        return weights[0].new_empty(0)

    @staticmethod
    def backward(ctx, dtoken):
        cdef tuple wanted = ctx.needs_input_grad
        cdef Sums sums
        if dtoken is None:
            return (None,) * len(wanted)
        sums = dtoken.sums
        return tuple([d if want else None for d, want in zip(sums.all(), wanted)])


cdef object alive = WeakValueDictionary()  # Shared of the graphs there are


cdef Shared shared_of(tuple weights):
    """What all steps of these weights share as long as there is one; None where torch is to add up
    the gradients, since the weights are themselves computed, or there are none to add."""
    cdef tuple wanted = tuple([w is not None and w.requires_grad for w in weights])
    cdef tuple key = (*map(id, weights), wanted, weights[0].dtype)
    found = alive.get(key)
    if found is None and True in wanted and all([w is None or w.is_leaf for w in weights]):
        found = alive[key] = Shared(weights, wanted)
    return found


# ---- steps ---------------------------------------------------------------------------------------


cdef bint has_shape(ndarray a, int ndim, npy_intp rows, npy_intp columns) noexcept:
    """columns: of two axes."""
    return (a is not None and PyArray_NDIM(a) == ndim and PyArray_DIMS(a)[0] == rows
            and (ndim == 1 or PyArray_DIMS(a)[1] == columns))


cdef bint may_have_shape(ndarray a, int ndim, npy_intp rows, npy_intp columns) noexcept:
    """The same of an array that may be None."""
    return a is None or has_shape(a, ndim, rows, columns)


cdef bint is_compiled(backend):
    return hasattr(backend, "bound_threads")


cdef object bounded(backend, f, tuple args):
    """threads.run."""
    before = backend.bound_threads(get_num_threads())
    try:
        return f(*args)
    finally:
        backend.bound_threads(before)


cdef ndarray zeros_like_states(list found, npy_intp N):
    """(N, H)."""
    cdef ndarray w_hh = found[WEIGHTS + 1]
    cdef npy_intp shape[2]
    shape[0], shape[1] = N, PyArray_DIMS(w_hh)[1]
    return PyArray_ZEROS(2, shape, PyArray_TYPE(w_hh), 0)


cdef bint any_requires_grad(tuple tensors):
    for t in tensors:
        if t is not None and t.requires_grad:
            return True
    return False


cdef class Cell:
    """A cell's kernels from tensors to tensors.

    record: of fastrnn.cells; rest: of its Weights; computation: its step in Python.
    A step's tensors are those of steps.py. What is kept for backward are tensors, too: the inputs,
    with zeros for states that are None, the states after the step, and what the cell saves.
    """
    cdef readonly object computation
    cdef object record
    cdef tuple rest
    cdef int states, gates
    cdef list widths  # in H, of what is kept beside the inputs
    cdef list fields  # of its cache, with None for arrays
    cdef list places  # among these, of x, the states before, w_ih, w_hh, what else is kept
    cdef int bias     # and of whether there are two biases; -1: its one bias is their sum

    def __init__(self, record, tuple rest, computation):
        names = record.cache._fields
        known = record.cache._field_defaults | record.constants
        known = known | {"gates": rest[0], "transposed": rest[1], "packed": rest[2]}
        arrays = "x", *record.initial_fields, "Wx", "Wh", *record.kept_fields
        self.record, self.rest, self.computation = record, rest, computation
        self.states, self.gates = len(record.states), len(record.gates)
        self.widths = [1] * self.states + list(record.saved.values())
        self.fields = [known.get(name) for name in names]
        self.places = [names.index(name) for name in arrays]
        self.bias = names.index("bias") if record.two_biases else -1

    cdef bint weights_fit(self, list found, npy_intp rows, npy_intp D):
        """Whether the weights' shapes fit together and to rows of x, and the work is not large."""
        cdef ndarray w_hh = found[WEIGHTS + 1]
        cdef npy_intp H, GH
        if w_hh is None or PyArray_NDIM(w_hh) != 2:
            return False
        H = PyArray_DIMS(w_hh)[1]
        GH = self.gates * H
        return (2.0 * rows * GH * (D + H) <= LARGE
                and has_shape(found[WEIGHTS], 2, GH, D) and has_shape(w_hh, 2, GH, H)
                and (found[5] is None) == (found[6] is None)
                and may_have_shape(found[5], 1, GH, 0) and may_have_shape(found[6], 1, GH, 0))

    cdef tuple biases(self, list found):
        """b and bh of b_ih and b_hh."""
        cdef ndarray b = found[5], bh = found[6], w_ih = found[WEIGHTS]
        if b is None:
            return PyArray_ZEROS(1, PyArray_DIMS(w_ih), PyArray_TYPE(w_ih), 0), None
        return (b, bh) if self.bias != -1 else (b + bh, None)

    cdef bint fit(self, list found, bint kept):
        """Whether all shapes fit together; kept: of all that is."""
        cdef ndarray x = found[0]
        cdef npy_intp N, H
        cdef int i
        if x is None or PyArray_NDIM(x) != 2:
            return False
        N = PyArray_DIMS(x)[0]
        if not self.weights_fit(found, N, PyArray_DIMS(x)[1]):
            return False
        H = PyArray_DIMS(<ndarray>found[WEIGHTS + 1])[1]
        for i in range(1, 1 + self.states):
            if (found[i] is None and kept) or not may_have_shape(found[i], 2, N, H):
                return False
        for i in range(len(self.widths) if kept else 0):
            if not has_shape(found[INPUTS + i], 2, N, <npy_intp>self.widths[i] * H):
                return False
        return True

    cdef tuple args(self, tuple tensors):
        """x, the states before, Wx, Wh, b, bh; None where the tensors are not plain or do not fit
        together."""
        cdef list found = readable(tensors)
        cdef int i
        if found is None or not self.fit(found, False):
            return None
        for i in range(1, 1 + self.states):
            if found[i] is None:
                found[i] = zeros_like_states(found, len(<ndarray>found[0]))
        return tuple(found[:1 + self.states] + found[WEIGHTS:5]) + self.biases(found)

    def sequence(self, steps, int batch, tuple tensors) -> tuple | None:
        """y and the last states of one layer in one direction, of tensors as sequences.py has them;
        None where gradients are wanted, and as below. steps: of fastrnn.cells; batch: N's axis of x."""
        cdef list found, states = []
        cdef ndarray x
        cdef npy_intp N, H
        cdef npy_intp *shape
        cdef int i
        backend = get_backend()
        if not is_compiled(backend):
            return None
        if len(tensors) == 5:  # without biases
            tensors = tensors + (None, None)
        found = readable(tensors)
        if found is None or found[0] is None or PyArray_NDIM(<ndarray>found[0]) != 3:
            return None
        if is_grad_enabled() and any_requires_grad(tensors):
            return None
        x = found[0]
        shape = PyArray_DIMS(x)
        N = shape[batch]
        if shape[0] * shape[1] == 0 or not self.weights_fit(found, shape[0] * shape[1], shape[2]):
            return None
        H = PyArray_DIMS(<ndarray>found[WEIGHTS + 1])[1]
        for i in range(1, 1 + self.states):
            if found[i] is None:
                states.append(zeros_like_states(found, N))
            elif PyArray_NDIM(<ndarray>found[i]) != 3 or len(found[i]) != 1:
                return None
            else:
                states.append(found[i][0])
                if not has_shape(states[i - 1], 2, N, H):
                    return None
        args = (x, *states, found[WEIGHTS], found[WEIGHTS + 1], *self.biases(found))
        args = self.record, args, self.rest, steps, False, True
        y, cache = bounded(backend, backend.forward, args)
        last = [getattr(cache, name)[None] for name in self.record.last_fields]
        return tuple([from_numpy(a) for a in (y, *last)])

    def step(self, tuple tensors) -> tuple | None:
        """The states after the step, with gradients where they are wanted; None where the tensors are
        not plain or do not fit together, the work is large, or torch is to add up the gradients."""
        backend = get_backend()
        cdef Shared weights = None
        cdef tuple args = self.args(tensors), after, cache, results
        cdef list kept
        cdef bint training
        cdef int i
        if args is None or not is_compiled(backend):
            return None
        training = is_grad_enabled() and any_requires_grad(tensors)
        if training:
            weights = shared_of(tensors[WEIGHTS:])
            if weights is None:
                return None
        after = bounded(backend, backend.step_forward, (self.record, args, self.rest, training))
        results = tuple([from_numpy(after[i]) for i in range(self.states)])
        if not training:
            return results
        cache = <tuple>after[self.states]  # a tuple with names is one, too
        kept = list(tensors)
        for i in range(1, 1 + self.states):
            if kept[i] is None:
                kept[i] = from_numpy(args[i])
        kept += results
        for i in range(3 + 2 * self.states, len(self.places)):
            kept.append(from_numpy(cache[<int>self.places[i]]))
        return _Step.apply(self, weights, results, kept, weights.token, *tensors[:WEIGHTS])

    def cache(self, list found):
        """The cache that arrays of what is kept are."""
        cdef list values = self.fields[:]
        cdef list arrays = found[:1 + self.states] + found[WEIGHTS:WEIGHTS + 2] + found[INPUTS:]
        cdef int i
        for i in range(len(arrays)):
            values[<int>self.places[i]] = arrays[i]
        if self.bias != -1:
            values[self.bias] = found[6] is not None
        return tuple.__new__(self.record.cache, values)

    cdef tuple gradients(self, tuple kept, tuple dstates, Sums sums):
        """Arrays, of x and the states before; those of the weights go onto the sums."""
        backend = get_backend()
        cdef list found = readable(kept), d = readable(dstates)
        cdef tuple made
        cdef bint fit = (is_compiled(backend) and found is not None and d is not None
                         and self.fit(found, True)
                         and sums.take(found[WEIGHTS], found[WEIGHTS + 1],
                                       self.bias != -1 and found[6] is not None))
        cdef int i
        for i in range(self.states if fit else 0):
            fit = fit and (d[i] is None or are_alike(d[i], found[1]))
        if not fit:
            made = self.computation.backward(self.cache(arrays(kept)), *arrays(dstates))
            sums.add([None if a is None else from_numpy(a) for a in made[WEIGHTS:]])
            return made[:WEIGHTS]
        args = self.record, d[0], (None, *d[1:]), self.cache(found), sums.arrays
        made = bounded(backend, backend.backward, args)
        sums.arrays = made[2:]
        return (made[0], *made[1])


class _Step(Function):
    """A step in torch's graph, which depends on its weights by their token."""

    @staticmethod
    def forward(ctx, Cell cell, Shared weights, tuple results, list kept, token, *others):
        ctx.save_for_backward(*kept)
        ctx.set_materialize_grads(False)
        ctx.cell, ctx.weights = cell, weights
        return results

    @staticmethod
    def backward(ctx, *dstates):
        cdef Cell cell = ctx.cell
        cdef Shared weights = ctx.weights
        cdef tuple kept = ctx.saved_tensors, wanted = ctx.needs_input_grad[5:], found
        cdef list gradients = [None] * 8
        cdef Sums sums
        cdef int i
        if all([d is None for d in dstates]):
            return tuple(gradients)
        sums, gradients[4] = weights.sums()
        if is_grad_enabled() or is_observed() or True in map(is_batch, dstates):
            wanted = wanted + weights.wanted
            found = tuple(gradients_by_torch(cell.computation, kept[:INPUTS], wanted, dstates))
            sums.add(found[WEIGHTS:])
            gradients[5:] = found[:WEIGHTS]
            return tuple(gradients)
        found = cell.gradients(kept, dstates, sums)
        for i in range(WEIGHTS):
            if wanted[i]:
                gradients[5 + i] = from_numpy(found[i])
        return tuple(gradients)
