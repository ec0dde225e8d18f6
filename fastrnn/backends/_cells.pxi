# Recurrent cells: the order in which rows are processed, packed weights, work space, chunks of time.

cdef enum:
    # With few rows memory is the limit: an operation takes as long as so many with many rows, and
    # two caches hold weights that one does not.
    VECTOR_COST = 6
    # From which size of Wh, and below how many rows a thread, it pays to share the units.
    UNITS_BYTES = 1 << 20
    UNITS_ROWS = 64
    # Bytes of pre-activations a thread keeps in cache for the recurrence.
    PROJECTION_BYTES = 1 << 20
    # Backward works through chunks of time: as many rows as keep the products of the weights'
    # gradients deep, or more while their gate gradients stay in cache.
    CHUNK_ROWS = 1024
    CHUNK_BYTES = 4 << 20

cdef extern from *:
    """
    #include <time.h>
    static long long nanoseconds(void)
    {
        struct timespec t;
        clock_gettime(CLOCK_MONOTONIC, &t);
        return 1000000000LL * t.tv_sec + t.tv_nsec;
    }

    static long long crowded_until;
    static void remember_crowd(long long duration)
    {
        __atomic_store_n(&crowded_until, nanoseconds() + duration, __ATOMIC_RELAXED);
    }
    static int crowded(void)
    {
        return nanoseconds() < __atomic_load_n(&crowded_until, __ATOMIC_RELAXED);
    }

    static int take_flag(int *flag) { return !__atomic_exchange_n(flag, 1, __ATOMIC_ACQUIRE); }
    static void give_flag(int *flag) { __atomic_store_n(flag, 0, __ATOMIC_RELEASE); }
    """
    void remember_crowd(long long duration) noexcept nogil
    bint crowded() noexcept nogil
    bint take_flag(int *flag) noexcept nogil
    void give_flag(int *flag) noexcept nogil

# Threads that share units wait for each other at every step; beside a busy process that is up to a
# time slice a step, and for a moment they share rows instead: some milliseconds in each 0.1 s.
cdef enum:
    CROWDED_NANOSECONDS = 100000000


def pretend_crowd() -> None:
    """Behave as beside a busy process for a moment."""
    remember_crowd(CROWDED_NANOSECONDS)


cdef void run_cell(kernel *f, cell_args *s, int threads) noexcept nogil:
    """A cell's kernel by its partition."""
    cdef int part, waits = 0
    if not s.by_units:
        run(f, s, min(threads, max(1, s.N)), False)
        return
    memset(s.flags, 0, threads * FLAG_STRIDE * sizeof(int))
    run(f, s, threads, True)
    for part in range(threads):
        waits += s.flags[part * FLAG_STRIDE + 1]
    if waits > 1:
        remember_crowd(CROWDED_NANOSECONDS)


cdef bint prefers_units(const cell_args *s, size_t real_size, idx G, int threads) noexcept nogil:
    """Whether threads share the hidden units, and meet after every step, or the batch rows. With
    the units each thread reads its part of Wh alone, which then fits its cache or nearly so."""
    if threads == 1:
        return False
    return s.N < 2 * threads or (
        G * s.H * s.H * real_size >= UNITS_BYTES and s.N < UNITS_ROWS * threads)


# Operations below which for_work, a call to Python, need not be asked.
cdef double little_work = 1e6


def ask_for_threads_from(double flops) -> None:
    """Let calls of that many operations and more ask how many threads they get (default 1e6)."""
    global little_work
    little_work = flops


cdef int threads_for(const cell_args *s, idx G, idx T) except -1:
    """How many threads a forward pass is worth."""
    cdef double flops = 2. * s.N * T * (s.D + s.H) * G * s.H
    if s.N * T <= UNPACKED_ROWS:
        flops *= VECTOR_COST
    return 1 if flops < little_work else for_work(flops)


# ---- rows in the order of processing -------------------------------------------------------------

cdef size_t order_bytes(idx N, idx T) noexcept nogil:
    return (N * T + (T + 2) + N) * sizeof(idx) + ALIGNMENT


cdef void put_in_order(cell_args *s, idx T, const idx *lengths, bint reverse,
                       idx *memory) noexcept nogil:
    """Fill rows, first and order (see kernels.h); lengths NULL: all T."""
    cdef idx N = s.N, n, t, i, rank, length
    cdef idx *rows = memory
    cdef idx *first = rows + N * T
    cdef idx *order = first + T + 2
    s.rows, s.first, s.order = rows, first, order
    # first[t + 1] counts the rows longer than t, then sums up.
    memset(first, 0, (T + 2) * sizeof(idx))
    s.steps = 0
    for n in range(N):
        length = T if lengths == NULL else lengths[n]
        first[length] += 1
        s.steps = max(s.steps, length)
    # By falling length, else as they come: first[length] is the next rank of that length.
    rank = 0
    for t in range(T, -1, -1):
        i = first[t]
        first[t] = rank
        rank += i
    for n in range(N):
        length = T if lengths == NULL else lengths[n]
        order[first[length]] = n
        first[length] += 1
    # Now first[length] is the number of rows at least that long.
    for t in range(s.steps):
        first[t] = first[t + 1]
    i = 0
    for t in range(s.steps):
        n = first[t]
        first[t] = i
        for rank in range(n):
            length = T if lengths == NULL else lengths[order[rank]]
            rows[i + rank] = order[rank] * T + (length - 1 - t if reverse else t)
        i += n
    first[s.steps] = i


cdef void last_states(const cell_args *s, size_t real_size, idx T, const idx *lengths, bint reverse,
                      const void *states, const void *initial, void *last) noexcept nogil:
    """Copy the state of every row at its last step, or the one before the first."""
    cdef idx n, length
    cdef size_t size = s.H * real_size
    for n in range(s.N):
        length = T if lengths == NULL else lengths[n]
        if length > 0:
            memcpy(<char *>last + n * size,
                   <const char *>states + (n * T + (0 if reverse else length - 1)) * size, size)
        elif initial != NULL:
            memcpy(<char *>last + n * size, <const char *>initial + n * size, size)
        else:
            memset(<char *>last + n * size, 0, size)


# ---- packed weights ------------------------------------------------------------------------------

cdef class PackedWeights:
    """Wx, Wh and biases as the forward kernels of one table read them."""
    cdef const kernel_table *k
    cdef Scratch memory
    cdef const void *Wx
    cdef const void *Wh
    cdef const void *Un
    cdef idx D, H, G
    cdef bint reset_before

    cdef bint fits(self, const cell_args *s, idx G) noexcept:
        return (self.D == s.D and self.H == s.H and self.G == G
                and self.reset_before == s.reset_before)

    cdef void put_into(self, cell_args *s) noexcept:
        s.packed_Wx, s.packed_Wh, s.packed_Un = self.Wx, self.Wh, self.Un


cdef PackedWeights pack_weights(const kernel_table *k, size_t real_size, const cell_args *s, idx G,
                                int threads):
    cdef idx D = s.D, H = s.H, reset_gates = 2 if s.reset_before else G
    cdef PackedWeights w = PackedWeights.__new__(PackedWeights)
    cdef pack_args p
    w.k = k
    w.D, w.H, w.G, w.reset_before = D, H, G, s.reset_before
    w.memory = Scratch(packed_bytes(k, real_size, D, G, H) + packed_bytes(k, real_size, H, G, H)
                       + packed_bytes(k, real_size, H, 1, H))
    memset(&p, 0, sizeof(p))
    p.ld, p.columns = G * H, H
    memcpy(p.offset, s.offset, sizeof(p.offset))
    # The gates that x Wx and h Wh reach together have one bias, their sum; gru's candidate has two.
    p.K, p.gates, p.source, p.bias = D, G, s.Wx, s.b
    p.more_bias, p.more_gates = s.bh, 2
    w.Wx = pack(k, real_size, &p, w.memory, threads)
    p.K, p.gates, p.source, p.bias, p.more_bias = H, reset_gates, s.Wh, s.bh, NULL
    w.Wh = pack(k, real_size, &p, w.memory, threads)
    w.Un = NULL
    if s.reset_before:
        p.gates, p.offset[0] = 1, s.offset[2]
        w.Un = pack(k, real_size, &p, w.memory, threads)
    return w


# ---- forward -------------------------------------------------------------------------------------

cdef void set_cell(cell_args *s, tuple places, idx N, idx D, idx H) noexcept:
    """places: where the kernels' i f o g, or r z n, stand among the user's gates."""
    memset(s, 0, sizeof(cell_args))
    s.N, s.D, s.H, s.G = N, D, H, len(places)
    for g in range(len(places)):
        s.offset[g] = <idx>places[g] * H


cdef idx row_stride(const kernel_table *k, idx n) noexcept nogil:
    """Panels of two vectors enough for n elements, and one vector more: rows an even number apart
    share few sets of the cache."""
    return (2 * ceil_div(n, 2 * k.lanes) + 1) * k.lanes


cdef Scratch forward_space(const kernel_table *k, size_t real_size, cell_args *s, idx G, idx T,
                           bint packed, int threads):
    """Work space of a forward kernel; it holds the order of rows too, which is not filled."""
    cdef idx N = s.N, H = s.H, units = k.lanes * (2 if G == 1 else 1)
    cdef bint shared = s.by_units or s.index != NULL
    cdef idx width = ceil_div(H, units) * units * G, shares = 1 if shared else threads
    cdef idx rows = N if s.by_units else ceil_div(N, threads)
    s.state_row = row_stride(k, H)
    cdef size_t state_bytes = N * s.state_row * real_size + ALIGNMENT
    cdef size_t pre_bytes = N * 2 * (G * H + k.lanes) * real_size
    if packed:
        s.pre_rows = max(rows, threads // shares * PROJECTION_BYTES // (width * <idx>real_size))
        s.pre_rows = s.table if s.index != NULL else min(s.pre_rows, rows * T)
        pre_bytes = shares * s.pre_rows * width * real_size
    cdef size_t list_bytes = threads * s.pre_rows * sizeof(void *)
    cdef size_t flag_bytes = threads * FLAG_STRIDE * sizeof(int)
    cdef Scratch scratch = Scratch(order_bytes(N, T) + 4 * state_bytes + pre_bytes + list_bytes
                                   + flag_bytes + 3 * ALIGNMENT)
    s.rows = <idx *>scratch.take(order_bytes(N, T) - ALIGNMENT)
    s.state = scratch.take(2 * state_bytes - ALIGNMENT)
    if G == 4 or s.reset_before:
        s.cell_state = scratch.take(state_bytes - ALIGNMENT)
        s.reset_state = scratch.take(state_bytes - ALIGNMENT)
    s.pre = scratch.take(pre_bytes)
    s.row_list = <const void **>scratch.take(list_bytes)
    s.flags = <int *>scratch.take(flag_bytes)
    return scratch


cdef inline kernel *forward_kernel(const kernel_table *k, idx G) noexcept nogil:
    return k.rnn_forward if G == 1 else k.gru_forward if G == 3 else k.lstm_forward


cdef int forward(const kernel_table *k, size_t real_size, cell_args *s, idx G, idx T,
                 const idx *lengths, bint reverse, PackedWeights packed, int threads) except -1:
    cdef Scratch scratch
    s.by_units = prefers_units(s, real_size, G, threads) and not crowded()
    if packed is not None and not packed.fits(s, G):
        raise ValueError("Wx: expected prepared weights as prepare returned them")
    if packed is None and s.N * T > UNPACKED_ROWS:
        packed = pack_weights(k, real_size, s, G, threads)
    if packed is not None:
        packed.put_into(s)
    scratch = forward_space(k, real_size, s, G, T, packed is not None, threads)
    with nogil:
        put_in_order(s, T, lengths, reverse, <idx *>s.rows)
        if s.index != NULL and packed is not None:
            run(k.project, s, threads, False)
        run_cell(forward_kernel(k, G), s, threads)
    return 0


cdef inline void *data(ndarray a) noexcept:
    return NULL if a is None else PyArray_DATA(a)


cdef void clear_ends(void *a, idx N, idx T, size_t row_bytes, const idx *lengths) noexcept nogil:
    """Zeros in a (N, T, ...) past the length of each row."""
    cdef idx n
    for n in range(N):
        memset(<char *>a + (n * T + lengths[n]) * row_bytes, 0, (T - lengths[n]) * row_bytes)


cdef ndarray of_steps(npy_intp *x_shape, int ndim, npy_intp last, int kind, ndarray lengths):
    """A new array like x but for the last axis, of zeros where rows end early."""
    cdef npy_intp[3] shape = [x_shape[0], x_shape[1], last]
    cdef size_t size = sizeof(double) if kind == NPY_DOUBLE else sizeof(float)
    shape[ndim - 1] = last
    cdef ndarray array = empty(ndim, shape, kind)
    if lengths is not None:
        clear_ends(PyArray_DATA(array), shape[0], shape[1], last * size, <idx *>data(lengths))
    return array


def cell_forward(tuple places,
                 bint reset_before,
                 ndarray x,        # (N, T, D), or (N, D): one step, or with index (U, D)
                 ndarray h0,       # (N, H)
                 ndarray c0,       # (N, H)     None: zeros
                 ndarray Wx,       # (D, G*H)
                 ndarray Wh,       # (H, G*H)
                 ndarray b,        # (G*H,)
                 ndarray bh,       # (G*H,)     None: zeros
                 ndarray lengths,  # (N,) intp  None: T
                 bint reverse,
                 ndarray index,    # (N, T) intp  None: x as it is
                 PackedWeights packed) -> tuple:
    """New arrays h, c (lstm), gates (lstm, gru), candidate (gru), hT, cT (lstm), or None; a step has
    no hT and cT. Arrays, not memoryviews, of which eleven cost more than a small step."""
    cdef int ndim = PyArray_NDIM(x) if index is None else 3, kind = PyArray_TYPE(x)
    cdef npy_intp *shape = PyArray_DIMS(x if index is None else index)
    cdef npy_intp *state = PyArray_DIMS(h0)
    cdef idx G = len(places), H = state[1], T = shape[1] if ndim == 3 else 1
    cdef size_t size = sizeof(double) if kind == NPY_DOUBLE else sizeof(float)
    cdef const kernel_table *k = tables[kind == NPY_DOUBLE] if packed is None else packed.k
    cdef const idx *n = <const idx *>data(lengths)
    cdef ndarray h, c = None, gates = None, candidate = None, hT = None, cT = None
    cdef cell_args s
    h = of_steps(shape, ndim, H, kind, lengths)
    if G == 4:
        c = of_steps(shape, ndim, H, kind, lengths)
    if G > 1:
        gates = of_steps(shape, ndim, G * H, kind, lengths)
    if G == 3 and not reset_before:
        candidate = of_steps(shape, ndim, H, kind, lengths)
    set_cell(&s, places, shape[0], PyArray_DIMS(x)[PyArray_NDIM(x) - 1], H)
    s.reset_before = reset_before
    s.index, s.table = <const idx *>data(index), PyArray_DIMS(x)[0]
    s.x, s.h0, s.c0, s.Wx, s.Wh = data(x), data(h0), data(c0), data(Wx), data(Wh)
    s.b, s.bh, s.h, s.c, s.gates = data(b), data(bh), data(h), data(c), data(gates)
    s.candidate = data(candidate)
    forward(k, size, &s, G, T, n, reverse, packed, threads_for(&s, G, T))
    if ndim == 3:
        hT = empty(2, state, kind)
        last_states(&s, size, T, n, reverse, s.h, s.h0, data(hT))
        if G == 4:
            cT = empty(2, state, kind)
            last_states(&s, size, T, n, reverse, s.c, s.c0, data(cT))
    return h, c, gates, candidate, hT, cT


# ---- prepared weights and streams ----------------------------------------------------------------

def prepare(tuple places, bint reset_before, ndarray Wx, ndarray Wh, ndarray b, ndarray bh,
            int threads) -> PackedWeights:
    """The weights of one cell as the forward kernels in use now read them."""
    cdef bint is_double = PyArray_TYPE(Wx) == NPY_DOUBLE
    cdef cell_args s
    set_cell(&s, places, 1, PyArray_DIMS(Wx)[0], PyArray_DIMS(Wh)[0])
    s.reset_before = reset_before
    s.Wx, s.Wh, s.b, s.bh = data(Wx), data(Wh), data(b), data(bh)
    return pack_weights(tables[is_double], 8 if is_double else 4, &s, len(places), threads)


cdef class Stream:
    """The state h (N, H), and c of an lstm, step by step: arguments and work space set up once."""
    cdef cell_args s
    cdef kernel *f
    cdef PackedWeights packed
    cdef Scratch scratch
    cdef ndarray h
    cdef ndarray c
    cdef int threads, kind, busy
    cdef size_t bytes

    def __init__(self, tuple places, bint reset_before, PackedWeights packed, idx D, ndarray h,
                 ndarray c):
        cdef idx N = PyArray_DIMS(h)[0], H = PyArray_DIMS(h)[1]
        cdef size_t size
        self.packed, self.h, self.c = packed, h, c
        self.kind = PyArray_TYPE(h)
        size = 8 if self.kind == NPY_DOUBLE else 4
        self.bytes = N * H * size
        self.f = forward_kernel(packed.k, len(places))
        set_cell(&self.s, places, N, D, H)
        self.threads = threads_for(&self.s, len(places), 1)
        self.s.reset_before = reset_before
        self.s.h0 = self.s.h = data(h)
        self.s.c0 = self.s.c = data(c)
        self.s.by_units = prefers_units(&self.s, size, len(places), self.threads)
        packed.put_into(&self.s)
        self.scratch = forward_space(packed.k, size, &self.s, len(places), 1, True, self.threads)
        put_in_order(&self.s, 1, NULL, False, <idx *>self.s.rows)

    def step(self, x, out):
        """The new h, in out or a new array; None where x or out is not what it has to be."""
        cdef ndarray given, result
        if type(x) is not ndarray:
            return None
        given = x
        if not (PyArray_TYPE(given) == self.kind and PyArray_NDIM(given) == 2
                and PyArray_DIMS(given)[0] == self.s.N and PyArray_DIMS(given)[1] == self.s.D
                and PyArray_ISCARRAY_RO(given)):
            return None
        if out is None:
            result = empty(2, PyArray_DIMS(self.h), self.kind)
        elif type(out) is ndarray:
            result = out
            if not (PyArray_TYPE(result) == self.kind and PyArray_NDIM(result) == 2
                    and PyArray_DIMS(result)[0] == self.s.N and PyArray_DIMS(result)[1] == self.s.H
                    and PyArray_ISCARRAY(result)):
                return None
        else:
            return None
        if not take_flag(&self.busy):
            raise RuntimeError("step: another thread takes a step of this stream")
        self.s.x = data(given)
        with nogil:
            # The space of a stream that shares units serves any number of parts.
            run_cell(self.f, &self.s, 1 if self.s.by_units and crowded() else self.threads)
        memcpy(data(result), data(self.h), self.bytes)
        give_flag(&self.busy)
        return result


# ---- backward ------------------------------------------------------------------------------------

cdef void set_job(weight_grad_args *w, idx K, idx columns, void *blocks, const void *B, idx b_row,
                  void *C, idx c_row, void *dbias) noexcept nogil:
    memset(w, 0, sizeof(weight_grad_args))
    w.K, w.columns, w.b_row, w.c_row, w.first = K, columns, b_row, c_row, True
    w.blocks, w.B, w.C, w.dbias = blocks, B, C, dbias


cdef void list_rows(const cell_args *s, size_t real_size, const void **x_rows,
                    const void **h_rows, idx *table_rows) noexcept nogil:
    """Where x, or its row of the table, and h_prev of the rows of the steps t0..t1 lie."""
    cdef size_t x_size = s.D * real_size, h_size = s.H * real_size
    cdef idx t, rank, i = 0
    for t in range(s.t0, s.t1):
        for rank in range(s.first[t + 1] - s.first[t]):
            if s.index != NULL:
                table_rows[i] = s.index[s.rows[s.first[t] + rank]]
            else:
                x_rows[i] = <const char *>s.x + s.rows[s.first[t] + rank] * x_size
            if t > 0:
                h_rows[i] = <const char *>s.h + s.rows[s.first[t - 1] + rank] * h_size
            else:
                h_rows[i] = <const char *>s.h0 + s.order[rank] * h_size
            i += 1


cdef int backward(const kernel_table *k, size_t real_size, cell_args *s, idx G, idx T,
                  const idx *lengths, bint reverse, void *dx, void *dWx, void *dWh, void *db,
                  void *dbh, int threads) except -1:
    cdef kernel *f = k.rnn_backward if G == 1 else k.gru_backward if G == 3 else k.lstm_backward
    cdef idx N = s.N, D = s.D, H = s.H, blocks = k.feature_block, capacity, job, rows
    cdef idx x_capacity, table = s.table if s.index != NULL else 0
    cdef pack_args p
    cdef matmul_args m
    cdef weight_grad_list w
    cdef embedding_args e
    s.state_row = row_stride(k, H)
    s.dgates_row = row_stride(k, (4 if G == 3 else G) * H)
    capacity = max(<idx>CHUNK_ROWS, CHUNK_BYTES // (s.dgates_row * <idx>real_size))
    capacity = min(N * T, max(N, capacity))
    x_capacity = max(capacity, table)
    cdef size_t carry_bytes = N * s.state_row * real_size + ALIGNMENT
    cdef size_t dgates_bytes = capacity * s.dgates_row * real_size + ALIGNMENT
    cdef size_t next_bytes = N * s.dgates_row * real_size + ALIGNMENT
    cdef size_t table_bytes = table * s.dgates_row * real_size + ALIGNMENT
    cdef size_t h_bytes = ceil_div(H, blocks) * capacity * blocks * real_size + ALIGNMENT
    cdef size_t x_bytes = ceil_div(D, blocks) * x_capacity * blocks * real_size + ALIGNMENT
    cdef size_t room_bytes = threads * GRAD_PANELS * (MAX_DEPTH + 1) * 2 * k.lanes * real_size
    cdef size_t list_bytes = capacity * sizeof(void *) + ALIGNMENT
    cdef size_t flag_bytes = threads * FLAG_STRIDE * sizeof(int) + ALIGNMENT
    cdef Scratch scratch = Scratch(
        packed_bytes(k, real_size, G * H, 1, D) + packed_bytes(k, real_size, G * H, 1, H)
        + order_bytes(N, T) + 2 * carry_bytes + dgates_bytes + next_bytes + table_bytes + x_bytes
        + 2 * h_bytes + room_bytes + 2 * list_bytes + flag_bytes + ALIGNMENT)
    put_in_order(s, T, lengths, reverse, <idx *>scratch.take(order_bytes(N, T) - ALIGNMENT))
    s.by_units = prefers_units(s, real_size, G, threads) and not crowded()

    memset(&p, 0, sizeof(p))
    p.K, p.ld, p.gates, p.transposed = G * H, G * H, 1, True
    p.source, p.columns = s.Wx, D
    memset(&m, 0, sizeof(m))
    m.K, m.columns, m.a_row, m.C = G * H, D, s.dgates_row, dx
    m.packed = pack(k, real_size, &p, scratch, threads)
    p.source, p.columns = s.Wh, H
    s.packed_Wh = pack(k, real_size, &p, scratch, threads)
    s.dh_carry = scratch.take(carry_bytes - ALIGNMENT)
    s.dc_carry = scratch.take(carry_bytes - ALIGNMENT) if G == 4 else NULL
    s.dgates = scratch.take(dgates_bytes - ALIGNMENT)
    s.dgates_next = scratch.take(next_bytes - ALIGNMENT)
    s.flags = <int *>scratch.take(flag_bytes - ALIGNMENT)

    cdef void *dtable = scratch.take(table_bytes - ALIGNMENT)
    cdef const void **x_rows = <const void **>scratch.take(list_bytes - ALIGNMENT)
    cdef idx *table_rows = <idx *>x_rows  # of x there is one list or the other
    cdef const void **h_rows = <const void **>scratch.take(list_bytes - ALIGNMENT)
    cdef void *h_blocks = scratch.take(h_bytes - ALIGNMENT)
    cdef char *dgates = <char *>s.dgates
    cdef int x_job = 2 if G == 3 else 1
    w.room = scratch.take(room_bytes)
    set_job(&w.job[0], H, (2 if G == 3 else G) * H, h_blocks, dgates, s.dgates_row, dWh, G * H,
            NULL)
    w.job[0].a_rows = h_rows
    if s.reset_before:
        set_job(&w.job[1], H, H, scratch.take(h_bytes - ALIGNMENT),
                dgates + 2 * H * real_size, s.dgates_row, <char *>dWh + 2 * H * real_size, G * H,
                NULL)
        w.job[1].A, w.job[1].a_row = dgates + 3 * H * real_size, s.dgates_row
    elif G == 3:
        # The same h_prev as job 0, which transposes it.
        set_job(&w.job[1], H, H, h_blocks, dgates + 3 * H * real_size, s.dgates_row,
                <char *>dWh + 2 * H * real_size, G * H,
                NULL if dbh == NULL else <char *>dbh + 2 * H * real_size)
    set_job(&w.job[x_job], D, G * H, scratch.take(x_bytes - ALIGNMENT), dgates, s.dgates_row, dWx,
            G * H, db)
    if table:
        # The gradients of x Wx + b add up by row of the table; what follows from them comes last.
        m.A, m.rows = dtable, table
        w.job[x_job].rows, w.job[x_job].B = table, dtable
        w.job[x_job].A, w.job[x_job].a_row = s.x, D
        memset(&e, 0, sizeof(e))
        e.fresh, e.vocabulary, e.W = True, table, s.dgates_row
        e.x, e.input, e.out = table_rows, dgates, dtable
    else:
        m.A = s.dgates
        w.job[x_job].a_rows = x_rows
    with nogil:
        s.t1 = s.steps
        while True:
            s.t0 = s.t1
            while s.t0 > 0 and s.first[s.t1] - s.first[s.t0 - 1] <= capacity:
                s.t0 -= 1
            run_cell(f, s, threads)
            list_rows(s, real_size, x_rows, h_rows, table_rows)
            rows = s.first[s.t1] - s.first[s.t0]
            if table:
                e.bags = rows
                run(k.embedding_grad, &e, threads, False)
                e.fresh = False
            else:
                m.rows, m.out_rows = rows, s.rows + s.first[s.t0]
                run(k.matmul, &m, threads, False)
            w.jobs = x_job if table else x_job + 1
            for job in range(w.jobs):
                w.job[job].rows = rows
            run(k.transpose_rows, &w, threads, False)
            run(k.weight_grad, &w, threads, False)
            for job in range(w.jobs):
                w.job[job].first = False
            s.t1 = s.t0
            if s.t0 == 0:
                break
        if table:
            run(k.matmul, &m, threads, False)
            w.jobs, w.job[0] = 1, w.job[x_job]
            run(k.transpose_rows, &w, threads, False)
            run(k.weight_grad, &w, threads, False)
        if dbh != NULL:
            memcpy(dbh, db, (3 if s.reset_before else 2) * H * real_size)
    return 0


def cell_backward(tuple places,
                  bint reset_before,
                  const real[::1] x,            # IN  (N * T * D,), or with index (U * D,)
                  const real[:, :, ::1] dh,     # IN  (N, T, H)    None: zeros
                  const real[:, ::1] dhT,       # IN  (N, H)       None: zeros
                  const real[:, ::1] dcT,       # IN  (N, H)       None: zeros
                  const real[:, ::1] h0,        # IN  (N, H)
                  const real[:, ::1] c0,        # IN  (N, H)       None: zeros
                  const real[:, ::1] Wx,        # IN  (D, G*H)
                  const real[:, ::1] Wh,        # IN  (H, G*H)
                  const real[:, :, ::1] h,      # IN  (N, T, H)
                  const real[:, :, ::1] c,      # IN  (N, T, H)    None but for lstm
                  const real[:, :, ::1] gates,  # IN  (N, T, G*H)  None for rnn
                  const real[:, :, ::1] candidate,  # IN  (N, T, H)    None but for gru, reset after
                  const idx[::1] lengths,       # IN  (N,)         None: T
                  bint reverse,
                  const idx[:, ::1] index,      # IN  (N, T)       None: x as it is
                  int threads,
                  real[::1] dx,                 # OUT like x
                  real[:, ::1] dh0,             # OUT (N, H)
                  real[:, ::1] dWx,             # OUT (D, G*H)
                  real[:, ::1] dWh,             # OUT (H, G*H)
                  real[::1] db,                 # OUT (G*H,)
                  real[:, ::1] dc0=None,        # OUT (N, H)       lstm
                  real[::1] dbh=None):          # OUT (G*H,)       gru
    cdef const kernel_table *k = tables[sizeof(real) == 8]
    cdef const idx *n = NULL
    cdef cell_args s
    if lengths is not None:
        n = &lengths[0]
    cdef idx T = h.shape[1]
    set_cell(&s, places, h.shape[0], Wx.shape[0], h.shape[2])
    s.reset_before = reset_before
    if index is not None:
        s.index, s.table = &index[0, 0], x.shape[0] // s.D
    s.x, s.h0, s.Wx, s.Wh = &x[0], &h0[0, 0], &Wx[0, 0], &Wh[0, 0]
    s.h, s.dh0 = <void *>&h[0, 0, 0], &dh0[0, 0]
    if dh is not None:
        s.dh = &dh[0, 0, 0]
    if dhT is not None:
        s.dhT = &dhT[0, 0]
    if dcT is not None:
        s.dcT = &dcT[0, 0]
    if c0 is not None:
        s.c0 = &c0[0, 0]
    if c is not None:
        s.c = <void *>&c[0, 0, 0]
    if gates is not None:
        s.gates = <void *>&gates[0, 0, 0]
    if candidate is not None:
        s.candidate = <void *>&candidate[0, 0, 0]
    if dc0 is not None:
        s.dc0 = &dc0[0, 0]
    if n != NULL and index is None:
        clear_ends(&dx[0], s.N, T, s.D * sizeof(real), n)
    backward(k, sizeof(real), &s, len(places), T, n, reverse, &dx[0], &dWx[0, 0],
             &dWh[0, 0], &db[0], NULL if dbh is None else &dbh[0], threads)
