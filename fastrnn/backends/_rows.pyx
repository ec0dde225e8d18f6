# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, nonecheck=False, embedsignature=True
# cython: freethreading_compatible=True
"""The front of what has no time: dense layers, the softmax loss, word embeddings, update rules.

Arguments are C-contiguous arrays of one dtype whose shapes the layers have checked; outputs come
last and are written in full. The number of threads changes the speed only, never a bit.
"""

from libc.string cimport memset

from fastrnn.backends._kernels cimport (
    attention_args, check_interrupt, drop_args, embedding_args, grad_bytes, idx, kernel_table, matmul_args, packed_right,
    run_grad, run_matmul, run_parts, softmax_args, table_in_use, UNPACKED_ROWS, update_args,
    weight_grad_args,
)
from fastrnn.backends._memory cimport Block, take_block

ctypedef fused real:
    float
    double


# ---- dense layers --------------------------------------------------------------------------------

def matmul(const real[:, ::1] A,    # IN  (M, K)
           const real[:, ::1] B,    # IN  (K, columns), with transposed (columns, K)
           const real[::1] bias,    # IN  (columns,) or None
           bint transposed,
           int threads,
           real[:, ::1] C):         # OUT (M, columns) = A B + bias
    cdef const kernel_table *k = table_in_use(sizeof(real) == 8)
    cdef matmul_args m
    cdef Block panels
    cdef int interrupted
    memset(&m, 0, sizeof(m))
    m.rows, m.K, m.a_row, m.columns = A.shape[0], A.shape[1], A.shape[1], C.shape[1]
    m.A, m.B, m.C = &A[0, 0], &B[0, 0], &C[0, 0]
    if bias is not None:
        m.bias = &bias[0]
    if transposed or m.rows > UNPACKED_ROWS:
        panels = packed_right(k, &m, B.shape[1], transposed, threads)
    with nogil:
        interrupted = run_matmul(k, &m, threads)
    check_interrupt(interrupted)


def matmul_grad(const real[:, ::1] A,   # IN  (M, K)
                const real[:, ::1] dC,  # IN  (M, columns)
                int threads,
                real[:, ::1] dB,        # OUT (K, columns) = A^T dC
                real[::1] dbias):       # OUT (columns,) = sum of the rows of dC
    cdef const kernel_table *k = table_in_use(sizeof(real) == 8)
    cdef weight_grad_args w
    cdef Block space
    cdef int interrupted
    memset(&w, 0, sizeof(w))
    w.rows, w.K, w.columns = A.shape[0], A.shape[1], dC.shape[1]
    w.a_row, w.b_row, w.c_row = w.K, w.columns, w.columns
    w.A, w.B, w.C, w.dbias = &A[0, 0], &dC[0, 0], &dB[0, 0], &dbias[0]
    space = take_block(grad_bytes(k, &w, threads))
    with nogil:
        interrupted = run_grad(k, &w, threads, space.memory)
    check_interrupt(interrupted)


def softmax(const real[:, ::1] x,   # IN  (M, V) scores
            const idx[::1] y,       # IN  (M,) labels
            const real[::1] weight, # IN  (M,) or None: 1
            double scale,           # of the gradient
            int threads,
            double[::1] losses,     # OUT (M,)
            real[:, ::1] dx):       # OUT (M, V)
    cdef const kernel_table *k = table_in_use(sizeof(real) == 8)
    cdef softmax_args p
    p.rows, p.classes, p.scale = x.shape[0], x.shape[1], scale
    p.x, p.y, p.losses, p.dx = &x[0, 0], &y[0], &losses[0], &dx[0, 0]
    p.weight = NULL
    if weight is not None:
        p.weight = &weight[0]
    with nogil:
        run_parts(k.softmax, &p, threads)


cdef embedding_args bags_of(const idx[::1] x, const idx[::1] offsets, bint mean, idx V, idx W):
    cdef embedding_args p
    p.bags, p.offsets, p.order = x.shape[0], NULL, NULL
    if offsets is not None:
        p.bags, p.offsets = offsets.shape[0] - 1, &offsets[0]
    p.x, p.mean, p.accumulate, p.vocabulary, p.W = &x[0], mean, False, V, W
    return p


def embedding(const idx[::1] x,      # IN  (words,)
              const idx[::1] offsets,  # IN  (bags + 1,) or None: every word is a bag
              bint mean,             # of a bag, not the sum
              const real[:, ::1] W,  # IN  (V, W)
              int threads,
              real[:, ::1] out):     # OUT (bags, W)
    cdef embedding_args p = bags_of(x, offsets, mean, W.shape[0], W.shape[1])
    p.input, p.out = &W[0, 0], &out[0, 0]
    with nogil:
        run_parts(table_in_use(sizeof(real) == 8).embedding, &p, threads)


def embedding_grad(const idx[::1] x,         # IN  (words,)
                   const idx[::1] offsets,     # IN  (bags + 1,) or None
                   bint mean,
                   const real[:, ::1] dout,  # IN  (bags, W)
                   int threads,
                   real[:, ::1] dW):         # OUT (V, W)
    cdef embedding_args p = bags_of(x, offsets, mean, dW.shape[0], dW.shape[1])
    p.input, p.out = &dout[0, 0], &dW[0, 0]
    with nogil:
        run_parts(table_in_use(sizeof(real) == 8).embedding_grad, &p, threads)


def distinct(const idx[::1] x,   # IN  (words,)
             idx[::1] found,     # OUT (words,), of which as many as are returned: by first occurrence
             idx[::1] places):   # OUT (words,): x[i] = found[places[i]]
    """How many different words there are. A hash table of the words, not a table of the vocabulary,
    which may be a thousand times as large."""
    cdef idx n = x.shape[0], count = 0, size = 2, i, slot
    while size < 2 * n:
        size *= 2
    cdef Block block = take_block(size * sizeof(idx))
    cdef idx *table = <idx *>block.memory
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


# ---- attention -----------------------------------------------------------------------------------

cdef attention_args looking(const real[:, ::1] query, const real[:, :, ::1] keys,
                            const real[:, :, ::1] values, const real[::1] w):
    cdef attention_args p
    memset(&p, 0, sizeof(p))
    p.queries, p.looked_at, p.places = query.shape[0], keys.shape[0], keys.shape[1]
    p.A, p.D = query.shape[1], values.shape[2]
    p.query, p.keys, p.values = &query[0, 0], &keys[0, 0, 0], &values[0, 0, 0]
    if w is not None:
        p.w = &w[0]
    return p


def attention(const real[:, ::1] query,      # IN  (N, A)
              const real[:, :, ::1] keys,    # IN  (U, L, A)
              const real[:, :, ::1] values,  # IN  (U, L, D)
              const real[::1] w,             # IN  (A,) or None: dot products
              const idx[::1] index,          # IN  (N,) or None: 0, 1, ...
              int threads,
              real[:, ::1] weights,          # OUT (N, L)
              real[:, ::1] context):         # OUT (N, D)
    cdef attention_args p = looking(query, keys, values, w)
    p.weights, p.context = &weights[0, 0], &context[0, 0]
    if index is not None:
        p.index = &index[0]
    with nogil:
        run_parts(table_in_use(sizeof(real) == 8).attention, &p, threads)


def attention_grad(const real[:, ::1] dcontext,   # IN  (N, D)
                   const real[:, ::1] dweights,   # IN  (N, L) or None: 0
                   const real[:, ::1] query,      # IN  (N, A)
                   const real[:, :, ::1] keys,    # IN  (U, L, A)
                   const real[:, :, ::1] values,  # IN  (U, L, D)
                   const real[::1] w,             # IN  (A,) or None
                   const idx[::1] order,          # IN  (N,): the queries, by what they look at
                   const idx[::1] first,          # IN  (U + 1,): where those of each begin
                   const real[:, ::1] weights,    # IN  (N, L)
                   int threads,
                   real[:, :, ::1] dkeys,         # INOUT (U, L, A)
                   real[:, :, ::1] dvalues,       # INOUT (U, L, D) or None: not wanted
                   real[:, ::1] dscores,          # OUT (N, L), work space
                   real[:, ::1] dquery,           # OUT (N, A)
                   real[:, ::1] dw):              # OUT (N, A), of each query, or None like w
    cdef attention_args p = looking(query, keys, values, w)
    p.order, p.first, p.weights = &order[0], &first[0], <real *>&weights[0, 0]
    p.dcontext = &dcontext[0, 0]
    p.dkeys, p.dscores, p.dquery = &dkeys[0, 0, 0], &dscores[0, 0], &dquery[0, 0]
    if dweights is not None:
        p.dweights = &dweights[0, 0]
    if dvalues is not None:
        p.dvalues = &dvalues[0, 0, 0]
    if dw is not None:
        p.dw = &dw[0, 0]
    with nogil:
        run_parts(table_in_use(sizeof(real) == 8).attention_grad, &p, threads)


# ---- update rules --------------------------------------------------------------------------------

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
           double decay_m=0,
           double gain_m=0,
           double decay_v=0,
           double gain_v=0,
           double correct_v=0,
           double epsilon=0):
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
        run_parts(table_in_use(sizeof(real) == 8).update, &p, threads)


# ---- dropout -------------------------------------------------------------------------------------

def drop(const real[:, :, :] a,  # IN  (rows, repeats, columns), of any strides
         seed,
         int kind,
         idx first_row,
         unsigned below,
         double scale,
         int threads,
         real[:, :, :] out):  # OUT (rows, repeats, columns) = a scaled, or 0
    cdef const kernel_table *k = table_in_use(sizeof(real) == 8)
    cdef drop_args d
    cdef int axis
    d.rows, d.repeats, d.columns, d.first_row = a.shape[0], a.shape[1], a.shape[2], first_row
    for axis in range(3):
        d.in_strides[axis] = a.strides[axis] // <idx>sizeof(real)
        d.out_strides[axis] = out.strides[axis] // <idx>sizeof(real)
    d.seed, d.kind, d.below, d.scale = seed, kind, below, scale
    d.input, d.out = &a[0, 0, 0], &out[0, 0, 0]
    with nogil:
        run_parts(k.drop, &d, threads)
