# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, nonecheck=False, embedsignature=True
# cython: freethreading_compatible=True
"""Arrays in, kernel table calls out: no checks, no GIL while a kernel runs.

Arguments are C-contiguous arrays of one dtype whose shapes the layers have checked; outputs that
are passed in come last and are written in full. ``threads`` changes the speed only, never a bit of
the result.
"""

from cython.parallel cimport parallel, threadid
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memcpy, memmove, memset
from numpy cimport (
    NPY_DOUBLE, NPY_FLOAT, PyArray_DATA, PyArray_DIMS, PyArray_EMPTY, PyArray_ISCARRAY,
    PyArray_ISCARRAY_RO, PyArray_NDIM, PyArray_SimpleNewFromData, PyArray_TYPE,
    import_array, ndarray, npy_intp, set_array_base,
)

import os

from fastrnn.backends.threads import for_work


cdef extern from *:
    """
    #ifdef _OPENMP
    #include <omp.h>
    enum { HAS_OPENMP = 1 };
    static int team_size(void) { return omp_get_num_threads(); }
    #else
    enum { HAS_OPENMP = 0 };
    static int team_size(void) { return 1; }
    #endif
    """
    const int HAS_OPENMP
    int team_size() noexcept nogil


import_array()
include "_memory.pxi"

ctypedef fused real:
    float
    double

openmp = bool(HAS_OPENMP)

# The tables in use, float32 and float64; use_isa sets both.
cdef const kernel_table *tables[2]

cdef enum:
    # Rows (of one step or of all) up to which reading the weights as they lie beats packing them.
    UNPACKED_ROWS = 6
    # Rows of A that one pass of matmul_grad transposes.
    GRAD_ROWS = 2048


def isas() -> list[str]:
    """Names of the instruction sets compiled in that this CPU runs, best first."""
    cdef int count = 0
    cdef const kernel_table *const *all = fastrnn_tables(0, &count)
    return [all[i].isa.decode() for i in range(count)]


def use_isa(str name) -> None:
    """Use the kernels of one of isas() from now on."""
    cdef int count = 0, i = isas().index(name)
    tables[0] = fastrnn_tables(0, &count)[i]
    tables[1] = fastrnn_tables(1, &count)[i]


def current_isa() -> str:
    """Name of the instruction set in use."""
    return tables[0].isa.decode()


cdef inline idx ceil_div(idx a, idx b) noexcept nogil:
    return (a + b - 1) // b


# A child process has no threads of its parent's OpenMP pool and would wait for them for ever.
cdef bint forked = False


def after_fork() -> None:
    """Tell the kernels that this process is a child: it runs on one thread."""
    global forked
    forked = True


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=after_fork)


cdef void run(kernel *f, const void *args, int parts, bint at_once) noexcept nogil:
    """All parts of a kernel, one a thread. OpenMP may give fewer threads than wanted: then some
    compute several parts, or, if the parts must run at once, there are fewer parts."""
    cdef int part, threads
    if forked and at_once:
        parts = 1
    if forked or parts <= 1:
        for part in range(max(1, parts)):
            f(args, part, max(1, parts))
        return
    with parallel(num_threads=parts):
        threads = team_size()
        part = threadid()
        if at_once:
            f(args, part, threads)
        else:
            while part < parts:
                f(args, part, parts)
                part = part + threads


cdef size_t packed_bytes(const kernel_table *k, size_t real_size, idx K, idx gates, idx columns):
    cdef idx units = k.lanes * (2 if gates == 1 else 1)
    return ceil_div(columns, units) * (K + 1) * (units * gates) * real_size + ALIGNMENT


cdef const void *pack(const kernel_table *k, size_t real_size, pack_args *p, Scratch scratch,
                      int threads):
    p.packed = scratch.take(packed_bytes(k, real_size, p.K, p.gates, p.columns) - ALIGNMENT)
    with nogil:
        run(k.pack, p, threads, False)
    return p.packed


include "_cells.pxi"


# ---- dense layers --------------------------------------------------------------------------------

def matmul(const real[:, ::1] A,    # IN  (M, K)
           const real[:, ::1] B,    # IN  (K, columns), with transposed (columns, K)
           const real[::1] bias,    # IN  (columns,) or None
           bint transposed,
           int threads,
           real[:, ::1] C):         # OUT (M, columns) = A B + bias
    cdef const kernel_table *k = tables[sizeof(real) == 8]
    cdef matmul_args m
    cdef pack_args p
    cdef Scratch scratch
    memset(&m, 0, sizeof(m))
    m.rows, m.K, m.a_row, m.columns = A.shape[0], A.shape[1], A.shape[1], C.shape[1]
    m.A, m.B, m.C = &A[0, 0], &B[0, 0], &C[0, 0]
    if bias is not None:
        m.bias = &bias[0]
    if transposed or m.rows > UNPACKED_ROWS:
        memset(&p, 0, sizeof(p))
        p.K, p.ld, p.columns, p.gates, p.transposed = m.K, B.shape[1], m.columns, 1, transposed
        p.source, p.bias = m.B, m.bias
        scratch = Scratch(packed_bytes(k, sizeof(real), m.K, 1, m.columns))
        m.packed = pack(k, sizeof(real), &p, scratch, threads)
    with nogil:
        run(k.matmul, &m, threads, False)


def matmul_grad(const real[:, ::1] A,   # IN  (M, K)
                const real[:, ::1] dC,  # IN  (M, columns)
                int threads,
                real[:, ::1] dB,        # OUT (K, columns) = A^T dC
                real[::1] dbias):       # OUT (columns,) = sum of the rows of dC
    cdef const kernel_table *k = tables[sizeof(real) == 8]
    cdef idx M = A.shape[0], K = A.shape[1], columns = dC.shape[1], row = 0
    cdef idx chunk = min(M, <idx>GRAD_ROWS)
    cdef size_t room_bytes = threads * GRAD_PANELS * (MAX_DEPTH + 1) * 2 * k.lanes * sizeof(real)
    cdef size_t block_bytes = ceil_div(K, k.feature_block) * chunk * k.feature_block * sizeof(real)
    cdef Scratch scratch = Scratch(room_bytes + block_bytes + 2 * ALIGNMENT)
    cdef weight_grad_list w
    w.jobs, w.room = 1, scratch.take(room_bytes)
    set_job(&w.job[0], K, columns, scratch.take(block_bytes), NULL, columns, &dB[0, 0], columns,
            &dbias[0])
    w.job[0].a_row = K
    with nogil:
        while w.job[0].first or row < M:
            w.job[0].rows = min(chunk, M - row)
            w.job[0].A, w.job[0].B = &A[row, 0], &dC[row, 0]
            run(k.transpose_rows, &w, threads, False)
            run(k.weight_grad, &w, threads, False)
            w.job[0].first = False
            row += chunk


def softmax(const real[:, ::1] x,   # IN  (M, V) scores
            const idx[::1] y,       # IN  (M,) labels
            const real[::1] weight, # IN  (M,) or None: 1
            double scale,           # of the gradient
            int threads,
            double[::1] losses,     # OUT (M,)
            real[:, ::1] dx):       # OUT (M, V)
    cdef const kernel_table *k = tables[sizeof(real) == 8]
    cdef softmax_args p
    p.rows, p.classes, p.scale = x.shape[0], x.shape[1], scale
    p.x, p.y, p.losses, p.dx = &x[0, 0], &y[0], &losses[0], &dx[0, 0]
    p.weight = NULL
    if weight is not None:
        p.weight = &weight[0]
    with nogil:
        run(k.softmax, &p, threads, False)


cdef embedding_args bags_of(const idx[::1] x, const idx[::1] first, bint mean, idx V, idx W):
    cdef embedding_args p
    p.bags, p.first = x.shape[0], NULL
    if first is not None:
        p.bags, p.first = first.shape[0] - 1, &first[0]
    p.x, p.mean, p.fresh, p.vocabulary, p.W = &x[0], mean, True, V, W
    return p


def embedding(const idx[::1] x,      # IN  (words,)
              const idx[::1] first,  # IN  (bags + 1,) or None: every word is a bag
              bint mean,             # of a bag, not the sum
              const real[:, ::1] W,  # IN  (V, W)
              int threads,
              real[:, ::1] out):     # OUT (bags, W)
    cdef embedding_args p = bags_of(x, first, mean, W.shape[0], W.shape[1])
    p.input, p.out = &W[0, 0], &out[0, 0]
    with nogil:
        run(tables[sizeof(real) == 8].embedding, &p, threads, False)


def embedding_grad(const idx[::1] x,         # IN  (words,)
                   const idx[::1] first,     # IN  (bags + 1,) or None
                   bint mean,
                   const real[:, ::1] dout,  # IN  (bags, W)
                   int threads,
                   real[:, ::1] dW):         # OUT (V, W)
    cdef embedding_args p = bags_of(x, first, mean, dW.shape[0], dW.shape[1])
    p.input, p.out = &dout[0, 0], &dW[0, 0]
    with nogil:
        run(tables[sizeof(real) == 8].embedding_grad, &p, threads, False)


def distinct(const idx[::1] x,   # IN  (words,)
             idx[::1] found,     # OUT (words,), of which as many as are returned: by first occurrence
             idx[::1] places):   # OUT (words,): x[i] = found[places[i]]
    """How many different words there are. A hash table of the words, not a table of the vocabulary,
    which may be a thousand times as large."""
    cdef idx n = x.shape[0], count = 0, size = 2, i, slot
    while size < 2 * n:
        size *= 2
    cdef Scratch scratch = Scratch(size * sizeof(idx) + ALIGNMENT)
    cdef idx *table = <idx *>scratch.take(size * sizeof(idx))
    with nogil:
        memset(table, 0xff, size * sizeof(idx))
        for i in range(n):
            slot = (<size_t>x[i] * <size_t>0x9E3779B97F4A7C15) >> 16 & (size - 1)
            while table[slot] >= 0 and found[table[slot]] != x[i]:
                slot = slot + 1 & (size - 1)
            if table[slot] < 0:
                table[slot] = count
                found[count] = x[i]
                count += 1
            places[i] = table[slot]
    return count


# ---- update rules --------------------------------------------------------------------------------

UPDATE_RULES = {"sgd": SGD, "sgd_momentum": SGD_MOMENTUM, "rmsprop": RMSPROP, "adam": ADAM}


def update(int rule,
           const idx[::1] rows,  # IN  (R,) or None: all; each once
           idx width,            # of a row
           const real[::1] w,    # IN  (n,)
           const real[::1] dw,   # IN  (n,), or (R * width,)
           int threads,
           real[::1] out,        # OUT (n,), may be w
           real[::1] m,          # INOUT (n,) or None: moving average of the gradient, or velocity
           real[::1] v,          # INOUT (n,) or None: moving average of its square
           double rate,
           double keep,          # of w: 1 without weight decay
           double decay_m,
           double gain_m,
           double decay_v,
           double gain_v,
           double correct_v,
           double epsilon):
    cdef update_args p
    p.n, p.width, p.rows, p.rule = w.shape[0], width, NULL, rule
    if rows is not None:
        p.n, p.rows = rows.shape[0], &rows[0]
    p.rate, p.keep, p.epsilon = rate, keep, epsilon
    p.decay_m, p.gain_m, p.decay_v, p.gain_v, p.correct_v = (
        decay_m, gain_m, decay_v, gain_v, correct_v)
    p.w, p.dw, p.out = &w[0], &dw[0], &out[0]
    p.m = NULL if m is None else &m[0]
    p.v = NULL if v is None else &v[0]
    with nogil:
        run(tables[sizeof(real) == 8].update, &p, threads, False)


# ---- the machine ---------------------------------------------------------------------------------

def fma_peak(const real[::1] like, idx iterations, int threads) -> float:
    """Run ``iterations`` of the peak loop on each thread in the dtype of ``like``; return how many
    floating-point operations that was."""
    cdef const kernel_table *k = tables[sizeof(real) == 8]
    cdef peak_args p
    cdef double sink[256]
    memset(sink, 0, sizeof(sink))
    p.iterations, p.sink = iterations, sink
    threads = min(threads, 256)
    with nogil:
        run(k.fma_peak, &p, threads, False)
    return 2.0 * PEAK_FMAS * k.lanes * iterations * threads


use_isa(isas()[0])
