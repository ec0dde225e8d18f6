# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, nonecheck=False, embedsignature=True
# cython: freethreading_compatible=True
"""Typed memoryviews in, kernel table calls out: no checks, no GIL while a kernel runs.

Arguments are C-contiguous arrays of one dtype whose shapes the layers have checked; outputs come
last and are written in full. ``threads`` changes the speed only, never a bit of the result.
"""

from cython.parallel cimport prange
from libc.stdint cimport uintptr_t
from libc.stdlib cimport free, malloc
from libc.string cimport memset


cdef extern from *:
    """
    #ifdef _OPENMP
    enum { HAS_OPENMP = 1 };
    #else
    enum { HAS_OPENMP = 0 };
    #endif
    """
    const int HAS_OPENMP


cdef extern from "kernels.h" nogil:
    ctypedef Py_ssize_t idx
    ctypedef void kernel(const void *args, idx begin, idx end) noexcept nogil
    const int MAX_DEPTH, PEAK_FMAS

    ctypedef struct kernel_table:
        const char *isa
        idx lanes, panel, feature_block
        kernel *pack
        kernel *matmul
        kernel *transpose_rows
        kernel *weight_grad
        kernel *rnn_forward
        kernel *rnn_backward
        kernel *lstm_forward
        kernel *lstm_backward
        kernel *softmax
        kernel *embedding
        kernel *embedding_grad
        kernel *fma_peak

    ctypedef struct pack_args:
        idx K, columns, ld, gates
        idx offset[4]
        int transposed
        const void *source
        void *packed

    ctypedef struct matmul_args:
        idx K, columns
        const void *A
        const void *packed
        const void *bias
        void *C

    ctypedef struct cell_args:
        idx N, T, D, H, t0, t1
        idx offset[4]
        const void *x
        const void *h0
        const void *c0
        const void *Wx
        const void *Wh
        const void *b
        const void *packed_Wx
        const void *packed_Wh
        void *h
        void *c
        void *gates
        const void *dh
        idx dgates_T
        void *dgates
        void *dx
        void *dh_carry
        void *dc_carry

    ctypedef struct weight_grad_args:
        idx N, T, D, H, columns, t0, t1, dgates_T
        int first
        const void *x
        const void *h0
        const void *h
        const void *dgates
        void *blocks
        void *panels
        void *dWx
        void *dWh
        void *db

    ctypedef struct softmax_args:
        idx classes
        double scale
        const void *x
        const void *weight
        const idx *y
        double *losses
        void *dx

    ctypedef struct embedding_args:
        idx words, vocabulary, W
        const idx *x
        const void *input "in"
        void *out

    ctypedef struct peak_args:
        idx iterations
        double *sink

    const kernel_table *const *fastrnn_tables(int is_double, int *count)


ctypedef fused real:
    float
    double

openmp = bool(HAS_OPENMP)

# The tables in use, float32 and float64; use_isa sets both.
cdef const kernel_table *tables[2]

cdef enum:
    ALIGNMENT = 64
    # (batch row, step) pairs up to which reading the weights as they lie beats packing them first.
    UNPACKED_ROWS = 6
    # Backward works through chunks of time: as many rows as keep the products at full depth, or
    # more while their gate gradients, inputs and states stay in cache.
    CHUNK_ROWS = 256
    CHUNK_BYTES = 1 << 20
    # Rows of x and dout that one pass of matmul_grad transposes.
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


cdef void run(kernel *f, const void *args, idx items, int threads) noexcept nogil:
    """The items of one kernel in equal shares; without OpenMP's overhead where there is one."""
    cdef idx i, n = min(threads, items)
    if n <= 1:
        f(args, 0, items)
        return
    for i in prange(n, num_threads=n, schedule="static", chunksize=1):
        f(args, items * i // n, items * (i + 1) // n)


cdef class Scratch:
    """Aligned memory handed out piece by piece, given back together."""
    cdef void *memory
    cdef char *next

    def __cinit__(self, size_t size):
        self.memory = malloc(size)
        if self.memory == NULL:
            raise MemoryError(f"{size} bytes of scratch memory")
        self.next = <char *>self.memory

    def __dealloc__(self):
        free(self.memory)

    cdef void *take(self, size_t size) noexcept:
        cdef uintptr_t at = <uintptr_t>self.next
        at = (at + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT
        self.next = <char *>at + size
        return <void *>at


cdef size_t packed_bytes(const kernel_table *k, size_t real_size, idx K, idx gates, idx columns):
    cdef idx width = k.panel if gates == 1 else k.lanes
    return ceil_div(columns, width) * K * (width * gates) * real_size + ALIGNMENT


cdef const void *pack(const kernel_table *k, size_t real_size, const void *source, idx K, idx ld,
                      idx columns, bint transposed, const idx *offset, idx gates,
                      Scratch scratch, int threads):
    cdef pack_args p
    memset(&p, 0, sizeof(p))
    p.K, p.ld, p.columns, p.gates = K, ld, columns, gates
    p.transposed = transposed
    p.source = source
    p.packed = scratch.take(packed_bytes(k, real_size, K, gates, columns) - ALIGNMENT)
    for g in range(gates):
        p.offset[g] = offset[g] if offset != NULL else 0
    cdef idx panels = ceil_div(columns, k.panel if gates == 1 else k.lanes)
    with nogil:
        run(k.pack, &p, panels, threads)
    return p.packed


# ---- recurrent cells ----------------------------------------------------------------------------

cdef void set_cell(cell_args *s, tuple places, idx N, idx T, idx D, idx H):
    """places: where the kernels' i, f, o, g (rnn: the one gate) stand among the user's gates."""
    memset(s, 0, sizeof(cell_args))
    s.N, s.T, s.D, s.H, s.t1 = N, T, D, H, T
    for g, place in enumerate(places):
        s.offset[g] = <idx>place * H


cdef forward(const kernel_table *k, size_t real_size, cell_args *s, idx gates, int threads):
    cdef kernel *f = k.rnn_forward if gates == 1 else k.lstm_forward
    cdef idx D = s.D, H = s.H
    cdef Scratch scratch
    if s.N * s.T > UNPACKED_ROWS:
        scratch = Scratch(packed_bytes(k, real_size, D, gates, H)
                          + packed_bytes(k, real_size, H, gates, H))
        s.packed_Wx = pack(k, real_size, s.Wx, D, gates * H, H, False, s.offset, gates, scratch,
                           threads)
        s.packed_Wh = pack(k, real_size, s.Wh, H, gates * H, H, False, s.offset, gates, scratch,
                           threads)
    with nogil:
        run(f, s, s.N, threads)


def cell_forward(tuple places,
                 const real[:, :, ::1] x,      # IN  (N, T, D)
                 const real[:, ::1] h0,        # IN  (N, H)
                 const real[:, ::1] Wx,        # IN  (D, G*H)
                 const real[:, ::1] Wh,        # IN  (H, G*H)
                 const real[::1] b,            # IN  (G*H,)
                 int threads,
                 real[:, :, ::1] h,            # OUT (N, T, H)
                 real[:, :, ::1] c=None,       # OUT (N, T, H)    lstm only
                 real[:, :, ::1] gates=None):  # OUT (N, T, G*H)  lstm only
    cdef cell_args s
    set_cell(&s, places, x.shape[0], x.shape[1], x.shape[2], h0.shape[1])
    s.x, s.h0, s.Wx, s.Wh, s.b = &x[0, 0, 0], &h0[0, 0], &Wx[0, 0], &Wh[0, 0], &b[0]
    s.h = s.gates = &h[0, 0, 0]
    if c is not None:
        s.c, s.gates = &c[0, 0, 0], &gates[0, 0, 0]
    forward(tables[sizeof(real) == 8], sizeof(real), &s, len(places), threads)


def cell_step_forward(tuple places,
                      const real[:, ::1] x,        # IN  (N, D)
                      const real[:, ::1] prev_h,   # IN  (N, H)
                      const real[:, ::1] prev_c,   # IN  (N, H)    None for rnn
                      const real[:, ::1] Wx,       # IN  (D, G*H)
                      const real[:, ::1] Wh,       # IN  (H, G*H)
                      const real[::1] b,           # IN  (G*H,)
                      int threads,
                      real[:, ::1] h,              # OUT (N, H)
                      real[:, ::1] c=None,         # OUT (N, H)    lstm only
                      real[:, ::1] gates=None):    # OUT (N, G*H)  lstm only
    cdef cell_args s
    set_cell(&s, places, x.shape[0], 1, x.shape[1], prev_h.shape[1])
    s.x, s.h0, s.Wx, s.Wh, s.b = &x[0, 0], &prev_h[0, 0], &Wx[0, 0], &Wh[0, 0], &b[0]
    s.h = s.gates = &h[0, 0]
    if c is not None:
        s.c0, s.c, s.gates = &prev_c[0, 0], &c[0, 0], &gates[0, 0]
    forward(tables[sizeof(real) == 8], sizeof(real), &s, len(places), threads)


def cell_backward(tuple places,
                  const real[:, :, ::1] dh,     # IN  (N, T, H)
                  const real[:, :, ::1] x,      # IN  (N, T, D)
                  const real[:, ::1] h0,        # IN  (N, H)
                  const real[:, ::1] c0,        # IN  (N, H)       None: zeros
                  const real[:, ::1] Wx,        # IN  (D, G*H)
                  const real[:, ::1] Wh,        # IN  (H, G*H)
                  const real[:, :, ::1] h,      # IN  (N, T, H)
                  const real[:, :, ::1] c,      # IN  (N, T, H)    None for rnn
                  const real[:, :, ::1] gates,  # IN  (N, T, G*H)  None for rnn
                  int threads,
                  real[:, :, ::1] dx,           # OUT (N, T, D)
                  real[:, ::1] dh0,             # OUT (N, H)
                  real[:, ::1] dWx,             # OUT (D, G*H)
                  real[:, ::1] dWh,             # OUT (H, G*H)
                  real[::1] db,                 # OUT (G*H,)
                  real[:, ::1] dc=None):        # IN  gradient of the last c, OUT of c0 (N, H)
    cdef const kernel_table *k = tables[sizeof(real) == 8]
    cdef idx N = x.shape[0], T = x.shape[1], D = x.shape[2], H = h0.shape[1], G = len(places)
    cdef idx rows = max(<idx>CHUNK_ROWS, CHUNK_BYTES // ((G * H + D + H) * <idx>sizeof(real)))
    cdef idx steps = min(T, max(1, rows // N))
    cdef idx blocks = ceil_div(D, k.feature_block) + ceil_div(H, k.feature_block)
    cdef idx panels = ceil_div(G * H, k.panel)
    cdef size_t dgates_bytes = N * steps * G * H * sizeof(real)
    cdef size_t blocks_bytes = blocks * N * steps * k.feature_block * sizeof(real)
    cdef size_t panels_bytes = panels * MAX_DEPTH * k.panel * sizeof(real)
    cdef Scratch scratch = Scratch(packed_bytes(k, sizeof(real), G * H, 1, D)
                                   + packed_bytes(k, sizeof(real), G * H, 1, H)
                                   + dgates_bytes + blocks_bytes + panels_bytes + 3 * ALIGNMENT)
    cdef cell_args s
    cdef weight_grad_args w
    cdef kernel *f = k.rnn_backward if G == 1 else k.lstm_backward
    set_cell(&s, places, N, T, D, H)
    s.packed_Wx = pack(k, sizeof(real), &Wx[0, 0], G * H, G * H, D, True, NULL, 1, scratch, threads)
    s.packed_Wh = pack(k, sizeof(real), &Wh[0, 0], G * H, G * H, H, True, NULL, 1, scratch, threads)
    s.x, s.h0, s.dh = &x[0, 0, 0], &h0[0, 0], &dh[0, 0, 0]
    s.h = s.gates = <void *>&h[0, 0, 0]
    if c is not None:
        s.c, s.gates, s.dc_carry = <void *>&c[0, 0, 0], <void *>&gates[0, 0, 0], &dc[0, 0]
    if c0 is not None:
        s.c0 = &c0[0, 0]
    s.dgates_T = steps
    s.dgates, s.dx, s.dh_carry = scratch.take(dgates_bytes), &dx[0, 0, 0], &dh0[0, 0]

    memset(&w, 0, sizeof(w))
    w.N, w.T, w.D, w.H, w.columns, w.dgates_T = N, T, D, H, G * H, steps
    w.x, w.h0, w.h, w.dgates = s.x, s.h0, s.h, s.dgates
    w.blocks, w.panels = scratch.take(blocks_bytes), scratch.take(panels_bytes)
    w.dWx, w.dWh, w.db, w.first = &dWx[0, 0], &dWh[0, 0], &db[0], True
    with nogil:
        while s.t1 > 0:
            s.t0 = max(0, s.t1 - steps)
            run(f, &s, N, threads)
            w.t0, w.t1 = s.t0, s.t1
            run(k.transpose_rows, &w, blocks, threads)
            run(k.weight_grad, &w, panels, threads)
            w.first = False
            s.t1 = s.t0


# ---- dense layers --------------------------------------------------------------------------------

def matmul(const real[:, ::1] A,    # IN  (M, K)
           const real[:, ::1] B,    # IN  (K, columns), with transposed (columns, K)
           const real[::1] bias,    # IN  (columns,) or None
           bint transposed,
           int threads,
           real[:, ::1] C):         # OUT (M, columns) = A B + bias
    cdef const kernel_table *k = tables[sizeof(real) == 8]
    cdef matmul_args p
    cdef Scratch scratch = Scratch(packed_bytes(k, sizeof(real), A.shape[1], 1, C.shape[1]))
    p.K, p.columns = A.shape[1], C.shape[1]
    p.packed = pack(k, sizeof(real), &B[0, 0], p.K, B.shape[1], p.columns, transposed, NULL, 1,
                    scratch, threads)
    p.A, p.C = &A[0, 0], &C[0, 0]
    p.bias = NULL if bias is None else &bias[0]
    with nogil:
        run(k.matmul, &p, A.shape[0], threads)


def matmul_grad(const real[:, ::1] A,   # IN  (M, K)
                const real[:, ::1] dC,  # IN  (M, columns)
                int threads,
                real[:, ::1] dB,        # OUT (K, columns) = A^T dC
                real[::1] dbias):       # OUT (columns,) = sum of the rows of dC
    cdef const kernel_table *k = tables[sizeof(real) == 8]
    cdef idx M = A.shape[0], K = A.shape[1], columns = dC.shape[1], row = 0
    cdef idx chunk = min(M, <idx>GRAD_ROWS)
    cdef idx blocks = ceil_div(K, k.feature_block), panels = ceil_div(columns, k.panel)
    cdef size_t blocks_bytes = blocks * chunk * k.feature_block * sizeof(real)
    cdef size_t panels_bytes = panels * MAX_DEPTH * k.panel * sizeof(real)
    cdef Scratch scratch = Scratch(blocks_bytes + panels_bytes + 2 * ALIGNMENT)
    cdef weight_grad_args w
    memset(&w, 0, sizeof(w))
    w.T = w.t1 = w.dgates_T = 1
    w.D, w.columns = K, columns
    w.blocks, w.panels = scratch.take(blocks_bytes), scratch.take(panels_bytes)
    w.dWx, w.db, w.first = &dB[0, 0], &dbias[0], True
    with nogil:
        while w.first or row < M:
            w.N = min(chunk, M - row)
            w.x, w.dgates = &A[row, 0], &dC[row, 0]
            run(k.transpose_rows, &w, blocks, threads)
            run(k.weight_grad, &w, panels, threads)
            w.first = False
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
    p.classes, p.scale = x.shape[1], scale
    p.x, p.y, p.losses, p.dx = &x[0, 0], &y[0], &losses[0], &dx[0, 0]
    p.weight = NULL if weight is None else &weight[0]
    with nogil:
        run(k.softmax, &p, x.shape[0], threads)


def embedding(const idx[::1] x,      # IN  (words,)
              const real[:, ::1] W,  # IN  (V, W)
              int threads,
              real[:, ::1] out):     # OUT (words, W)
    cdef embedding_args p
    p.words, p.vocabulary, p.W = x.shape[0], W.shape[0], W.shape[1]
    p.x, p.input, p.out = &x[0], &W[0, 0], &out[0, 0]
    with nogil:
        run(tables[sizeof(real) == 8].embedding, &p, p.words, threads)


def embedding_grad(const idx[::1] x,         # IN  (words,)
                   const real[:, ::1] dout,  # IN  (words, W)
                   int threads,
                   real[:, ::1] dW):         # OUT (V, W)
    cdef embedding_args p
    p.words, p.vocabulary, p.W = x.shape[0], dW.shape[0], dW.shape[1]
    p.x, p.input, p.out = &x[0], &dout[0, 0], &dW[0, 0]
    with nogil:
        run(tables[sizeof(real) == 8].embedding_grad, &p, p.W, threads)


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
        run(k.fma_peak, &p, threads, threads)
    return 2.0 * PEAK_FMAS * k.lanes * iterations * threads


use_isa(isas()[0])
