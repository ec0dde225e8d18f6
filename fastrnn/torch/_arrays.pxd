# Tensors as arrays, for _steps.pyx.

cdef list readable(tuple tensors)
