# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Tensors as arrays, as tensors.py has them, in C: a step of a small cell takes hardly longer than
reaching its tensors from Python. By DLPack, so that nothing of torch is compiled against."""

from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from numpy cimport (
    NPY_ARRAY_CARRAY, NPY_ARRAY_WRITEABLE, NPY_BOOL, NPY_DOUBLE, NPY_FLOAT, NPY_INT64, PyArray_DIMS,
    PyArray_ISCARRAY_RO, PyArray_NDIM, PyArray_New, PyArray_TYPE, PyArray_ZEROS, import_array,
    ndarray, npy_intp, set_array_base,
)

from torch import Tensor, from_numpy
from torch.nn import Parameter
from torch.utils.dlpack import to_dlpack

import_array()

cdef enum:
    CPU = 1  # of DLPack's device types
    INT = 0  # of its kinds of numbers
    REAL = 2
    BOOL = 6
    MAJOR = 1  # its version
    MAX_AXES = 8


ctypedef struct Described:  # DLTensor
    void *data
    int32_t device_type, device_id
    int32_t ndim
    uint8_t kind, bits
    uint16_t lanes
    int64_t *shape
    int64_t *strides
    uint64_t byte_offset


ctypedef struct Exchange:  # DLPackExchangeAPI
    uint32_t major, minor
    void *older
    void *others[3]
    int (*describe)(void *tensor, Described *to) noexcept


cdef const Exchange *exchange_of(kind):
    """The table of a class of tensors; NULL: it has none, as those of torch before 2.10."""
    cdef object capsule = getattr(kind, "__dlpack_c_exchange_api__", None)
    cdef const Exchange *table = NULL
    if capsule is not None:
        table = <const Exchange *>PyCapsule_GetPointer(capsule, b"dlpack_exchange_api")
    return table if table != NULL and table.major == MAJOR and table.describe != NULL else NULL


cdef const Exchange *exchange = exchange_of(Tensor)


cdef object describe(tensor, Described *to):
    """Fills in what to has; returns what keeps its memory, None where there is none."""
    cdef object capsule
    if exchange != NULL:
        if exchange.describe(<PyObject *>tensor, to) == 0:
            return tensor
        PyErr_Clear()
        return None
    try:
        capsule = to_dlpack(tensor)
    except (BufferError, RuntimeError):
        return None
    to[0] = (<Described *>PyCapsule_GetPointer(capsule, b"dltensor"))[0]
    return capsule


cdef ndarray array_of(tensor):
    """None where the tensor is none that an array can be."""
    cdef Described d
    cdef npy_intp shape[MAX_AXES]
    cdef npy_intp strides[MAX_AXES]
    cdef int i, kind, size
    cdef npy_intp expected
    cdef bint contiguous = True
    cdef ndarray a
    cdef object owner = describe(tensor, &d)
    if owner is None or d.device_type != CPU or d.lanes != 1 or d.ndim > MAX_AXES:
        return None
    size = d.bits // 8
    if d.kind == REAL and (size == 4 or size == 8):
        kind = NPY_FLOAT if size == 4 else NPY_DOUBLE
    elif d.kind == INT and size == 8:
        kind = NPY_INT64
    elif d.kind == BOOL:
        kind = NPY_BOOL
    else:
        return None
    d.data = <char *>d.data + d.byte_offset
    if <uintptr_t>d.data % size:
        return None
    expected = size
    for i in range(d.ndim - 1, -1, -1):
        shape[i], strides[i] = d.shape[i], d.strides[i] * size
        contiguous = contiguous and (shape[i] == 1 or strides[i] == expected)
        expected *= shape[i]
    if d.data == NULL and expected:  # zeros that are not there, what was freed
        return None
    a = PyArray_New(ndarray, d.ndim, shape, kind, NULL if contiguous else strides, d.data, 0,
                    NPY_ARRAY_CARRAY if contiguous else NPY_ARRAY_WRITEABLE, None)
    set_array_base(a, owner)
    return a


cdef bint is_plain(t):
    """Whether its elements are what lies in its memory."""
    return (type(t) is Tensor or type(t) is Parameter) and not t.is_neg()


def arrays(tensors) -> list:
    cdef list found = []
    for t in tensors:
        a = array_of(t) if t is not None and is_plain(t) else None
        found.append(t.numpy(force=True) if a is None and t is not None else a)
    return found


def plain_arrays(tuple tensors) -> list | None:
    cdef list found = []
    cdef ndarray a
    cdef int dtype = -1
    for t in tensors:
        if t is None:
            found.append(None)
            continue
        if not is_plain(t):
            return None
        a = array_of(t)
        if a is None or not (PyArray_TYPE(a) == NPY_FLOAT or PyArray_TYPE(a) == NPY_DOUBLE):
            return None
        if dtype != -1 and PyArray_TYPE(a) != dtype:
            return None
        dtype = PyArray_TYPE(a)
        found.append(a)
    return found


cdef bint lies_as(ndarray a, int ndim, npy_intp rows, npy_intp columns) noexcept:
    """Whether a kernel can read it as an array of that shape; columns: of two axes."""
    return (PyArray_NDIM(a) == ndim and PyArray_ISCARRAY_RO(a) and PyArray_DIMS(a)[0] == rows
            and (ndim == 1 or PyArray_DIMS(a)[1] == columns))


def step(step_forward, record, tuple rest, tuple tensors) -> tuple | None:
    """What a backend's step_forward makes of the tensors of steps.py, as tensors; None where they are
    not plain or lie otherwise than its kernels read."""
    cdef list found = plain_arrays(tensors)
    cdef ndarray x, w_ih, w_hh, b, bh
    cdef npy_intp shape[2]
    cdef npy_intp D, GH
    cdef int i, states = len(record.states), gates = len(record.gates)
    if found is None or found[0] is None:
        return None
    x, w_ih, w_hh, b, bh = found[0], found[3], found[4], found[5], found[6]
    if PyArray_NDIM(x) != 2 or PyArray_NDIM(w_hh) != 2:
        return None
    shape[0], shape[1] = PyArray_DIMS(x)[0], PyArray_DIMS(w_hh)[1]
    D, GH = PyArray_DIMS(x)[1], gates * shape[1]
    if not (lies_as(x, 2, shape[0], D) and lies_as(w_ih, 2, GH, D)
            and lies_as(w_hh, 2, GH, shape[1])):
        return None
    for i in range(1, 1 + states):
        if found[i] is None:
            found[i] = PyArray_ZEROS(2, shape, PyArray_TYPE(x), 0)
        elif not lies_as(found[i], 2, shape[0], shape[1]):
            return None
    if b is None and bh is None:
        b = PyArray_ZEROS(1, &GH, PyArray_TYPE(x), 0)
    elif b is None or bh is None or not (lies_as(b, 1, GH, 0) and lies_as(bh, 1, GH, 0)):
        return None
    elif not record.two_biases:
        b, bh = b + bh, None
    after = step_forward(record, (*found[:1 + states], w_ih, w_hh, b, bh), rest, False)
    return tuple([from_numpy(a) for a in after[:states]])
