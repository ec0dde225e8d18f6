"""Arrays beside pages that nothing may touch: an access one element too far ends the process, and
so does a write to what is an input."""

import ctypes
import mmap

import numpy as np

PAGE = mmap.PAGESIZE
PLACE = 4 << 20  # bytes
COUNT = 40


class Memory:
    """Places for arrays, a forbidden page before and after each."""

    def __init__(self) -> None:
        self._mprotect = ctypes.CDLL(None, use_errno=True).mprotect
        self._mprotect.argtypes = ctypes.c_void_p, ctypes.c_size_t, ctypes.c_int
        size = COUNT * (PLACE + PAGE) + PAGE
        self._map = mmap.mmap(-1, size, flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
        self._address = ctypes.addressof(ctypes.c_char.from_buffer(self._map))
        self._places = [PAGE + i * (PLACE + PAGE) for i in range(COUNT)]
        for at in (0, *(place + PLACE for place in self._places)):
            self._protect(at, PAGE, 0)
        self._free, self._closed = list(self._places), []

    def _protect(self, at, size, access):
        if self._mprotect(self._address + at, size, access):
            raise OSError(ctypes.get_errno(), "mprotect")

    def clear(self) -> None:
        """The arrays of the last case are no longer needed."""
        for at, size in self._closed:
            self._protect(at, size, mmap.PROT_READ | mmap.PROT_WRITE)
        self._free, self._closed = list(self._places), []

    def put(self, a: np.ndarray, layout: str, at_end: bool, read_only: bool) -> np.ndarray:
        """A copy that ends where its place ends, or begins where it begins; an ordinary one of what
        does not fit.

        layout: "C", "F", "strided", "reversed" or "misaligned", by a byte.
        """
        shape = a.shape
        if layout == "strided":
            shape = *shape[:-1], 2 * shape[-1]
        size = a.itemsize * int(np.prod(shape))
        if size >= PLACE or not self._free:
            return a.copy()
        at = self._free.pop() + (PLACE - size if at_end else 0)
        if layout == "misaligned":
            at += -1 if at_end else 1
        order = "F" if layout == "F" else "C"
        memory = np.ndarray(shape, a.dtype, self._map, at, order=order)
        if layout == "strided":
            memory = memory[..., int(at_end) :: 2]
        elif layout == "reversed":
            memory = memory[::-1]
        memory[...] = a
        if read_only:
            first = at // PAGE * PAGE
            self._closed.append((first, at + size - first))
            self._protect(*self._closed[-1], mmap.PROT_READ)
        return memory
