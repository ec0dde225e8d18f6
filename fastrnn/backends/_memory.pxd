# Blocks of pool.c as objects: given back when the last reference goes.

from numpy cimport ndarray, npy_intp


cdef class Block:
    cdef char *memory  # aligned as kernels want it
    cdef void *_taken
    cdef size_t _size


cdef Block take_block(size_t size)
cdef ndarray empty(int ndim, const npy_intp *shape, int typenum)
