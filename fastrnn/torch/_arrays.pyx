# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Tensors as arrays, as tensors.py has them, in C: a step of a small cell takes hardly longer than
reaching its tensors from Python. By DLPack, so that nothing of torch is compiled against."""

from cpython.exc cimport PyErr_Clear
from cpython.object cimport PyObject
from cpython.pycapsule cimport PyCapsule_GetPointer
from libc.stdint cimport int32_t, int64_t, uint8_t, uint16_t, uint32_t, uint64_t, uintptr_t
from numpy cimport (
    NPY_ARRAY_CARRAY, NPY_ARRAY_WRITEABLE, NPY_BOOL, NPY_CORDER, NPY_DOUBLE, NPY_FLOAT, NPY_INT64,
    PyArray_ISCARRAY_RO, PyArray_New, PyArray_NewCopy, PyArray_TYPE, import_array, ndarray, npy_intp,
    set_array_base,
)

cdef object Tensor, Parameter  # declared, they are found without a look into a dictionary

from torch import Tensor
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


def members(module, names) -> tuple:
    """Parameters of a module by their names; where a parametrization, a hook or functional_call has
    put something else in their place, that."""
    cdef dict own = module._parameters  # Module.__getattr__ takes half a microsecond
    cdef object found
    cdef list result = []
    for name in names:
        found = own.get(name)
        result.append(getattr(module, name) if found is None else found)
    return tuple(result)


cdef list readable(tuple tensors):
    """plain_arrays as the kernels read them, copied where need be."""
    cdef list found = plain_arrays(tensors)
    cdef int i
    for i in range(0 if found is None else len(found)):
        if found[i] is not None and not PyArray_ISCARRAY_RO(<ndarray>found[i]):
            found[i] = PyArray_NewCopy(<ndarray>found[i], NPY_CORDER)
    return found
