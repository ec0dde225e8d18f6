# cython: language_level=3, boundscheck=False, wraparound=False, freethreading_compatible=True
"""The common case of checks.arrays in a tenth of the time: a step of a small cell takes hardly
longer than checking its arrays in Python."""

from numpy cimport (
    NPY_DOUBLE, NPY_FLOAT, PyArray_DIMS, PyArray_IS_C_CONTIGUOUS, PyArray_ISALIGNED,
    PyArray_ISNOTSWAPPED, PyArray_NDIM, PyArray_TYPE, import_array, ndarray, npy_intp,
)

import_array()

cdef enum:
    MAX_ARRAYS = 16
    MAX_AXES = 3
    MAX_LETTERS = 8


cdef class Plain:
    """Whether arrays are what a kernel takes as they are: ndarrays, C-contiguous, of one float dtype,
    of shapes that fit together; or None where that is allowed.

    shapes: of each array the (factor, letter) of each axis; optional: which arrays may be None;
    may_be_empty: the letters that may be 0.
    """
    cdef int count
    cdef int ndim[MAX_ARRAYS]
    cdef bint optional[MAX_ARRAYS]
    cdef int factor[MAX_ARRAYS][MAX_AXES]
    cdef int letter[MAX_ARRAYS][MAX_AXES]
    cdef npy_intp smallest[MAX_LETTERS]

    def __init__(self, tuple shapes, tuple optional, may_be_empty):
        cdef int i, axis
        letters = sorted({letter for shape in shapes for _, letter in shape})
        axes = max(map(len, shapes))
        if len(shapes) > MAX_ARRAYS or len(letters) > MAX_LETTERS or axes > MAX_AXES:
            raise ValueError(f"expected at most {MAX_ARRAYS} arrays of {MAX_AXES} axes")
        self.count = len(shapes)
        for i, letter in enumerate(letters):
            self.smallest[i] = 0 if letter in may_be_empty else 1
        for i, shape in enumerate(shapes):
            self.ndim[i] = len(shape)
            self.optional[i] = optional[i]
            for axis, (factor, letter) in enumerate(shape):
                self.factor[i][axis] = factor
                self.letter[i][axis] = letters.index(letter)

    def __call__(self, tuple given) -> bool:
        cdef npy_intp sizes[MAX_LETTERS]
        cdef npy_intp n
        cdef int i, axis, letter, kind = -1
        cdef object a
        if len(given) != self.count:
            return False
        for i in range(MAX_LETTERS):
            sizes[i] = -1
        for i in range(self.count):
            a = given[i]
            if a is None and self.optional[i]:
                continue
            if type(a) is not ndarray or PyArray_NDIM(a) != self.ndim[i]:
                return False
            if i == 0:
                kind = PyArray_TYPE(a)
                if kind != NPY_FLOAT and kind != NPY_DOUBLE:
                    return False
            if not (PyArray_TYPE(a) == kind and PyArray_IS_C_CONTIGUOUS(a) and PyArray_ISALIGNED(a)
                    and PyArray_ISNOTSWAPPED(a)):
                return False
            for axis in range(self.ndim[i]):
                letter = self.letter[i][axis]
                n = PyArray_DIMS(a)[axis]
                if sizes[letter] < 0:
                    if n % self.factor[i][axis] or n < self.smallest[letter]:
                        return False
                    sizes[letter] = n // self.factor[i][axis]
                elif sizes[letter] * self.factor[i][axis] != n:
                    return False
        return True
