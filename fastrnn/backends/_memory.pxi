# Memory of work space and of large results. Blocks that come free wait for the next call of their
# size: the kernel would have to clear every page again, which takes a quarter of the time of a
# large layer. At most KEPT_BYTES wait, the rest is freed.

cdef extern from *:
    """
    #if defined(__unix__) || defined(__APPLE__)
    #include <sys/mman.h>
    #endif
    #include <stdint.h>
    #include <stddef.h>
    #include <stdlib.h>

    static void ask_for_huge_pages(void *memory, size_t size)
    {
    #ifdef MADV_HUGEPAGE
        madvise(memory, size, MADV_HUGEPAGE);
    #else
        (void)memory, (void)size;
    #endif
    }

    static void *new_block(size_t size, size_t alignment)
    {
    #ifdef _WIN32
        (void)alignment; /* the pieces of a block are aligned one by one */
        return malloc(size);
    #else
        void *memory = NULL;
        return posix_memalign(&memory, alignment, size) ? NULL : memory;
    #endif
    }

    static char blocks_taken;
    static void lock_blocks(void)
    {
        while (__atomic_test_and_set(&blocks_taken, __ATOMIC_ACQUIRE))
            ;
    }
    static void unlock_blocks(void) { __atomic_clear(&blocks_taken, __ATOMIC_RELEASE); }
    """
    void ask_for_huge_pages(void *memory, size_t size) noexcept nogil
    void *new_block(size_t size, size_t alignment) noexcept nogil
    void lock_blocks() noexcept nogil
    void unlock_blocks() noexcept nogil

cdef enum:
    ALIGNMENT = 64
    KEPT = 32                 # free blocks at most
    KEPT_FROM = 256 << 10     # smaller ones are left to malloc
    HUGE_PAGE = 2 << 20

cdef struct FreeBlock:
    void *memory
    size_t size

cdef FreeBlock kept[KEPT]  # the one that waits longest first
cdef int kept_count = 0
cdef size_t kept_bytes = 0
cdef size_t KEPT_BYTES = <size_t>512 << 20


cdef void *take_block(size_t *size) noexcept nogil:
    """Memory of at least *size bytes, which becomes its real size; NULL where there is none."""
    cdef void *memory = NULL
    cdef int i, best = -1
    global kept_count, kept_bytes
    if size[0] >= HUGE_PAGE // 2:
        size[0] = (size[0] + HUGE_PAGE - 1) // HUGE_PAGE * HUGE_PAGE
    if size[0] >= KEPT_FROM:
        lock_blocks()
        for i in range(kept_count):
            if size[0] <= kept[i].size <= size[0] + size[0] // 4:
                if best < 0 or kept[i].size < kept[best].size:
                    best = i
        if best >= 0:
            memory, size[0] = kept[best].memory, kept[best].size
            forget_block(best)
        unlock_blocks()
    if memory == NULL:
        if size[0] >= HUGE_PAGE:
            memory = new_block(size[0], HUGE_PAGE)
            if memory != NULL:
                ask_for_huge_pages(memory, size[0])
        else:
            memory = malloc(size[0])
    return memory


cdef void forget_block(int i) noexcept nogil:
    global kept_count, kept_bytes
    kept_bytes -= kept[i].size
    kept_count -= 1
    memmove(&kept[i], &kept[i + 1], (kept_count - i) * sizeof(FreeBlock))


cdef void give_block(void *memory, size_t size) noexcept nogil:
    """Keep a block for the next call, and drop those that have waited longest."""
    global kept_count, kept_bytes
    cdef void *dropped[KEPT]
    cdef int i, drops = 0
    if size < KEPT_FROM or size > KEPT_BYTES:
        free(memory)
        return
    lock_blocks()
    while kept_count == KEPT or kept_bytes + size > KEPT_BYTES:
        dropped[drops] = kept[0].memory
        drops += 1
        forget_block(0)
    kept[kept_count].memory, kept[kept_count].size = memory, size
    kept_count += 1
    kept_bytes += size
    unlock_blocks()
    for i in range(drops):
        free(dropped[i])


cdef class Scratch:
    """Aligned memory handed out piece by piece, given back together."""
    cdef void *memory
    cdef size_t size
    cdef char *next

    def __cinit__(self, size_t size):
        self.size = size + ALIGNMENT
        self.memory = take_block(&self.size)
        if self.memory == NULL:
            raise MemoryError(f"{size} bytes")
        self.next = <char *>self.memory

    def __dealloc__(self):
        if self.memory != NULL:
            give_block(self.memory, self.size)

    cdef void *take(self, size_t size) noexcept:
        cdef uintptr_t at = <uintptr_t>self.next
        at = (at + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        self.next = <char *>at + size
        return <void *>at


cdef ndarray empty(int ndim, npy_intp *shape, int typenum):
    """A new array, uninitialized; of a kept block where it is large."""
    cdef size_t size = sizeof(double) if typenum == NPY_DOUBLE else sizeof(float)
    cdef int i
    cdef Scratch block
    cdef ndarray array
    for i in range(ndim):
        size *= shape[i]
    if size < KEPT_FROM:
        return PyArray_EMPTY(ndim, shape, typenum, 0)
    block = Scratch(size)
    array = PyArray_SimpleNewFromData(ndim, shape, typenum, block.take(size))
    set_array_base(array, block)
    return array


def empty_array(tuple shape, dtype) -> ndarray:
    """np.empty for float32 and float64."""
    cdef npy_intp sizes[4]
    for i, n in enumerate(shape):
        sizes[i] = n
    return empty(len(shape), sizes, NPY_DOUBLE if dtype.itemsize == 8 else NPY_FLOAT)
