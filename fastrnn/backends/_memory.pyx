# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: freethreading_compatible=True
"""Work space and large results, in memory that is used again."""

from libc.stdint cimport uintptr_t
from numpy cimport (
    NPY_DOUBLE, NPY_FLOAT, PyArray_EMPTY, PyArray_SimpleNewFromData, import_array, ndarray,
    npy_intp, set_array_base,
)


cdef extern from "pool.h" nogil:
    const int POOL_ALIGNMENT, KEPT_FROM
    void *pool_take(size_t *size)
    void pool_give(void *memory, size_t size)
    size_t pool_release()


import_array()


def release() -> int:
    """Give back all memory that waits to be used again; how many bytes that was."""
    return pool_release()


cdef class Block:
    def __dealloc__(self):
        if self._taken != NULL:
            pool_give(self._taken, self._size)


cdef Block take_block(size_t size):
    """size bytes; 0 stands for more than can be counted. Raises MemoryError."""
    cdef Block block = Block.__new__(Block)
    block._size = size + POOL_ALIGNMENT
    block._taken = pool_take(&block._size) if 0 < size < block._size else NULL
    if block._taken == NULL:
        raise MemoryError(
            f"no memory for {size:,} bytes" if size else "work space beyond all memory")
    block.memory = <char *>(
        (<uintptr_t>block._taken + POOL_ALIGNMENT - 1) // POOL_ALIGNMENT * POOL_ALIGNMENT)
    return block


cdef ndarray empty(int ndim, const npy_intp *shape, int typenum):
    """A new array, uninitialized; of a kept block where it is large."""
    cdef size_t size = sizeof(double) if typenum == NPY_DOUBLE else sizeof(float)
    cdef double exact = size
    cdef int i
    cdef Block block
    cdef ndarray array
    for i in range(ndim):
        size *= shape[i]
        exact *= shape[i]
    if size < <size_t>KEPT_FROM or exact != <double>size:  # NumPy has its error for what overflows
        return PyArray_EMPTY(ndim, <npy_intp *>shape, typenum, 0)
    block = take_block(size)
    array = PyArray_SimpleNewFromData(ndim, <npy_intp *>shape, typenum, block.memory)
    set_array_base(array, block)
    return array
