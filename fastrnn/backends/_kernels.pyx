# cython: language_level=3, boundscheck=False, wraparound=False, cdivision=True
# cython: initializedcheck=False, nonecheck=False, embedsignature=True
# cython: freethreading_compatible=True
"""Arrays in, kernels' arguments out: no checks, no GIL while a kernel runs.

Arguments are C-contiguous arrays of one dtype whose shapes the layers have checked; outputs that
are passed in come last and are written in full. The number of threads changes the speed only, never
a bit of the result.
"""

from cpython.object cimport PyObject, PyTypeObject
from cpython.ref cimport Py_INCREF
from cpython.tuple cimport PyTuple_GET_SIZE, PyTuple_New, PyTuple_SET_ITEM
from libc.stdint cimport uintptr_t
from libc.string cimport memset
from numpy cimport (
    NPY_DOUBLE, PyArray_DATA, PyArray_DIMS, PyArray_ISCARRAY, PyArray_ISCARRAY_RO, PyArray_NBYTES,
    PyArray_NDIM, PyArray_TYPE, import_array, ndarray, npy_intp,
)

from fastrnn.backends._memory cimport Block, empty, take_block

from fastrnn.options import limit

cdef extern from "Python.h":
    int PyErr_CheckSignals() noexcept  # leaves its exception where check_interrupt finds it


import_array()
fastrnn_read_caches()


cdef int ask_for_signals() noexcept with gil:
    """Runs Python's handlers where this is the main thread; an exception of theirs stays set."""
    return PyErr_CheckSignals()


fastrnn_interrupt = &ask_for_signals


cdef int check_interrupt(int interrupted) except -1:
    """Raises what ask_for_signals left."""
    return -1 if interrupted else 0


# The tables in use, float32 and float64; use_isa sets both.
cdef const kernel_table *tables[2]


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


use_isa(isas()[0])


# What _rows runs kernels with: the C library is linked once, here.

cdef const kernel_table *table_in_use(bint is_double) noexcept nogil:
    return tables[is_double]


cdef void run_parts(kernel *f, const void *args, int parts) noexcept nogil:
    team_run(f, args, parts, False)


cdef size_t grad_bytes(const kernel_table *k, const weight_grad_args *w, int parts) noexcept nogil:
    return fastrnn_matmul_grad_bytes(k, w, parts)


cdef int run_grad(const kernel_table *k, const weight_grad_args *w, int parts,
                  void *memory) noexcept nogil:
    return fastrnn_matmul_grad(k, w, parts, memory)


cdef int run_matmul(const kernel_table *k, const matmul_args *m, int parts) noexcept nogil:
    return fastrnn_matmul(k, m, parts)


cdef Block packed_right(const kernel_table *k, matmul_args *m, idx ld, bint transposed, int threads):
    """The panels of B [K, ld], or of its transpose, and of the bias, which m then reads."""
    cdef pack_list list
    cdef pack_args *p = &list.job[0]
    cdef Block panels = take_block(fastrnn_packed_bytes(k, m.K, m.columns))
    memset(&list, 0, sizeof(list))
    list.jobs = 1
    p.K, p.ld, p.columns, p.gates, p.transposed = m.K, ld, m.columns, 1, transposed
    p.source, p.bias, p.packed = m.B, m.bias, panels.memory
    m.packed = panels.memory
    with nogil:
        team_run(k.pack, &list, threads, False)
    return panels


def update_rules() -> dict[str, int]:
    """The rules' numbers by name."""
    numbers = {}
    while fastrnn_update_rule(len(numbers)) != NULL:
        numbers[fastrnn_update_rule(len(numbers)).decode()] = len(numbers)
    return numbers


# Names of the cells' specs, each at its place in FASTRNN_CELLS.
cells = [tables[0].cells[i].name.decode() for i in range(CELLS)]
for i in range(CELLS):
    if fastrnn_spec_error(tables[0].cells[i]) != NULL:
        raise ImportError(f"{cells[i]}: {fastrnn_spec_error(tables[0].cells[i]).decode()}")


def specs() -> dict[str, dict[str, int]]:
    """What records of cells have to agree with, by the name of the spec."""
    return {
        name: {
            "gates": tables[0].cells[i].gates,
            "states": tables[0].cells[i].states,
            "saves_gates": tables[0].cells[i].saves_gates,
            "saves_extra": tables[0].cells[i].saves_extra,
            "vectors": tables[0].cells[i].vectors,
            "projection": is_projected(tables[0].cells[i]),
            "norm": tables[0].cells[i].norm.of_x > 0,
        }
        for i, name in enumerate(cells)
    }


# ---- threads -------------------------------------------------------------------------------------

def set_threads(n, bint bounded) -> None:
    """At most n threads a call from now on; bounded: and no more than the CPUs that the calling
    thread may use at the time."""
    team_set_threads(min(n, MOST_THREADS), bounded)


def bound_threads(n) -> int:
    """At most n threads a call of the calling thread from now on, whatever else is set; 0: as many as
    are set. Returns the bound before."""
    return team_bound_own(min(n, MOST_THREADS))


def borrow_threads(uintptr_t thread, uintptr_t parallel, uintptr_t number, uintptr_t count) -> None:
    """Calls of a thread (its threading.get_ident) run from now on, while it bounds its calls, on the
    threads of the OpenMP library whose GOMP_parallel, omp_get_thread_num and omp_get_num_threads are
    at these addresses; not in a process that is forked from this one."""
    cdef openmp library
    library.parallel = <openmp_region *>parallel
    library.number, library.count = <openmp_question *>number, <openmp_question *>count
    team_borrow(library, thread)


def set_cpus(cpus) -> None:
    """The threads use these CPUs from now on, whatever the calling thread may use."""
    for cpu in cpus:
        team_add_cpu(cpu)


def set_flops_per_thread(double flops=FLOPS_PER_THREAD) -> None:
    """A call gets a thread for so many operations."""
    team_set_work(flops)


def threads_for(double flops) -> int:
    """Threads worth using for that many floating-point operations."""
    return team_threads_for(flops)


def most_parts() -> int:
    """In how many parts, computed at once, a kernel ran at most since this was last asked."""
    return team_most_parts()


def oversubscribe() -> None:
    """Behave as beside a busy process for a moment."""
    team_oversubscribe()


# ---- recurrent layers ----------------------------------------------------------------------------

cdef inline void *data(ndarray a) noexcept:
    return NULL if a is None else PyArray_DATA(a)


cdef void set_weights(layer *l, const kernel_table *k, Spec spec, ndarray Wx, ndarray Wh, ndarray b,
                      ndarray bh, ndarray Whr, bint transposed) noexcept:
    cdef int g
    memset(l, 0, sizeof(layer))
    l.problem.cell = k.cells[spec.cell]
    l.problem.D = PyArray_DIMS(Wx)[transposed]
    l.problem.H = PyArray_DIMS(Wx)[not transposed] // l.problem.cell.gates
    l.problem.P = l.problem.H if Whr is None else PyArray_DIMS(Wh)[transposed]
    for g in range(l.problem.cell.gates):
        l.problem.offsets[g] = spec.gate_order[g] * l.problem.H
    l.weights.Wx, l.weights.Wh, l.weights.b, l.weights.bh = data(Wx), data(Wh), data(b), data(bh)
    l.weights.Whr = data(Whr)
    l.weights.transposed = transposed


cdef int set_steps(problem *p, ndarray x, ndarray index, ndarray lengths, bint reverse, ndarray reset,
                   object reset_to, object layout, npy_intp *shape) except -1:
    """x of any layout, or (N, D): one step, or with index (U, D). shape receives the axes of arrays of
    steps, without the last one; returns how many these are."""
    cdef npy_intp *given = PyArray_DIMS(x if index is None else index)
    cdef int axes = PyArray_NDIM(x) - 1 if index is None else 2
    shape[0], shape[1] = given[0], given[1]
    p.layout = BATCH_FIRST if layout is usual else LAYOUTS[layout]
    if p.layout == PACKED:
        p.N = PyArray_DIMS(lengths)[0]
        p.T = (<idx *>PyArray_DATA(lengths))[0] if p.N else 0
    elif p.layout == TIME_FIRST:
        p.N, p.T = given[1], given[0]
    else:
        p.N, p.T = given[0], given[1] if axes == 2 else 1
    p.x, p.table = data(x), PyArray_DIMS(x)[0]
    p.lengths, p.index = <idx *>data(lengths), <idx *>data(index)
    p.reset = <const unsigned char *>data(reset)
    p.reset_to_initial = reset is not None and reset_to == "initial"
    p.reverse = reverse
    return axes


cdef int set_norm(problem *p, norm) except -1:
    """norm: a LayerNorm, or None."""
    cdef int i
    if norm is not None:
        for i in range(NORM_PARAMETERS):
            p.norm[i] = data(<ndarray>norm[i])
        p.epsilon = norm.eps
    return 0


cdef inline void put(PyObject **to, tuple values) noexcept:
    for i in range(PyTuple_GET_SIZE(values)):
        to[i] = <PyObject *>values[i]


cdef class Panels:
    """The weights of a cell as one table's kernels read them, and which arrays they were."""
    cdef const kernel_table *k
    cdef const cell_spec *cell
    cdef panels panels
    cdef Block memory
    cdef ndarray Wx, Wh, b, bh, Whr
    cdef bint transposed

    cpdef bint are_of(self, Wx, Wh, b, bh, Whr, bint transposed):
        """Whether they were made of these arrays. Biases count forward: backward there is no b."""
        return (self.Wx is Wx and self.Wh is Wh and self.Whr is Whr and self.transposed == transposed
                and (b is None or (self.b is b and self.bh is bh)))

    def __reduce__(self):
        return _no_panels, ()


def _no_panels() -> None:
    """What a pickled or copied Panels becomes: its arrays are others."""


cdef const kernel_table *set_call(layer *l, Spec spec, ndarray Wx, ndarray Wh, ndarray b, ndarray bh,
                                  ndarray Whr, bint transposed, packed):
    """The weights, and their panels unless these are of other arrays; the table to run with."""
    cdef bint own = (type(packed) is Panels and (<Panels>packed).k != NULL
                     and (<Panels>packed).k.cells[spec.plain] == (<Panels>packed).cell
                     and (<Panels>packed).are_of(Wx, Wh, b, bh, Whr, transposed))
    cdef const kernel_table *k = (
        (<Panels>packed).k if own else tables[PyArray_TYPE(Wx) == NPY_DOUBLE])
    set_weights(l, k, spec, Wx, Wh, b, bh, Whr, transposed)
    if own:
        l.panels = (<Panels>packed).panels
    return k


cdef tuple outputs(int n, int ndim, const npy_intp *shape, int kind, void **data_of):
    """n new arrays, and where they lie."""
    cdef tuple made = PyTuple_New(n)
    cdef ndarray a
    cdef int i
    for i in range(n):
        a = empty(ndim, shape, kind)
        data_of[i] = PyArray_DATA(a)
        Py_INCREF(a)
        PyTuple_SET_ITEM(made, i, a)
    return made


cdef tuple state_arrays(const problem *p, int ndim, npy_intp *shape, int kind, void **data_of):
    """The same for the states, each of its width in the last axis."""
    cdef int n = p.cell.states, alike = n if p.P == p.H else 1
    cdef tuple made
    shape[ndim - 1] = p.P
    made = outputs(alike, ndim, shape, kind, data_of)
    shape[ndim - 1] = p.H
    return made if alike == n else made + outputs(n - alike, ndim, shape, kind, data_of + alike)


cdef object usual = "batch_first"
LAYOUTS = {usual: BATCH_FIRST, "time_first": TIME_FIRST, "packed": PACKED}

cdef enum:
    # Bytes of work space that lie on the stack: a step would feel their allocation. Not where threads
    # share it: beside what the calling one writes there it is slower by up to a third.
    SMALL = 16 << 10
    # Elements of a gate's weights, times N, below which a step keeps the interpreter.
    BRIEF = 5000
    # What a cache is made of, each at its place among the sources of Spec.cache_of; of states and
    # what is saved beside them, as many as layer.h has.
    ARGS = 0       # x, the states before, Wx, Wh, b, bh, vectors, projection
    REST = 9       # gates, transposed, packed, options
    KEPT = 13
    LAST = 19
    STEPS = 21
    BIAS = 27
    CONSTANT = 28
    NOTHING = 29
    SOURCES = 30
    MAX_FIELDS = 32


cdef inline char *aligned(char *memory) noexcept:
    return <char *>((<uintptr_t>memory + ALIGNMENT - 1) // ALIGNMENT * ALIGNMENT)


cdef inline object new_cache(type cache, tuple values):
    cdef tuple args = (values,)
    return (<PyTypeObject *>tuple).tp_new(cache, <PyObject *>args, NULL)


cdef class Spec:
    """A cell's kernels for one gate order, and how its caches are made.

    plain: the cell whose panels these kernels read; gate_order: where the gates of the cell's spec
    stand among the user's, and vector_order those that have vectors; record: of fastrnn.cells;
    all_steps: its Steps by default.
    """
    cdef int cell, plain, states
    cdef bint projected
    cdef idx gate_order[MAX_GATES]
    cdef idx vector_order[MAX_VECTORS]
    cdef type cache
    cdef object constant, record
    cdef tuple all_steps
    cdef int fields
    cdef int source[MAX_FIELDS]  # of each field of the cache
    cdef int place[SOURCES]      # of each source among the fields; -1: it is none

    def __init__(self, int cell, int plain, tuple gate_order, tuple vector_order, record, all_steps):
        if (len(gate_order) > MAX_GATES or len(record.cache._fields) > MAX_FIELDS
                or len(vector_order) > MAX_VECTORS or len(record.constants) > 1):
            raise ValueError(f"{record.kernel}: too many gates, vectors, fields or constants")
        self.cell, self.plain, self.all_steps = cell, plain, tuple(all_steps)
        for i, place in enumerate(vector_order):
            self.vector_order[i] = place
        for i, place in enumerate(gate_order):
            self.gate_order[i] = place
        sources = {"bias": BIAS}
        args = ("x", *record.initial_fields, "Wx", record.recurrent)
        for names, first in ((args, ARGS), (record.beside, ARGS + len(args) + 2),
                             (("gates", "transposed", "packed", "options"), REST),
                             (record.kept_fields, KEPT), (record.last_fields, LAST),
                             (all_steps._fields, STEPS), (tuple(record.constants), CONSTANT)):
            sources.update(zip(names, range(first, first + len(names))))
        self.record, self.states, self.projected = record, len(record.states), record.projection
        self.cache, self.constant = record.cache, next(iter(record.constants.values()), None)
        self.fields = len(self.cache._fields)
        for i in range(SOURCES):
            self.place[i] = -1
        for i, name in enumerate(self.cache._fields):
            self.source[i] = sources.get(name, NOTHING)
            self.place[self.source[i]] = i

    cdef object cache_of(self, tuple args, tuple rest, tuple states, tuple saved, tuple last,
                         tuple steps):
        """The cache, whose constructor would take three times as long: a step would feel it."""
        cdef PyObject *found[SOURCES]
        cdef tuple values = PyTuple_New(self.fields)
        cdef object two_biases = args[self.states + 4] is not None
        cdef int i
        for i in range(SOURCES):
            found[i] = <PyObject *>None
        put(&found[ARGS], args)
        put(&found[REST], rest)
        put(&found[KEPT], states)
        put(&found[KEPT + PyTuple_GET_SIZE(states)], saved)
        put(&found[LAST], last)
        put(&found[STEPS], steps)
        found[BIAS], found[CONSTANT] = <PyObject *>two_biases, <PyObject *>self.constant
        for i in range(self.fields):
            Py_INCREF(<object>found[self.source[i]])
            PyTuple_SET_ITEM(values, i, <object>found[self.source[i]])
        return new_cache(self.cache, values)

    cdef object only_last(self, tuple last):
        """The cache of a sequence of which nothing else is kept."""
        cdef tuple others = <tuple>self.record.nothing_kept
        cdef tuple values = PyTuple_New(self.fields)
        cdef object value
        cdef int i
        for i in range(self.fields):
            value = last[self.source[i] - LAST] if LAST <= self.source[i] < STEPS else others[i]
            Py_INCREF(value)
            PyTuple_SET_ITEM(values, i, value)
        return new_cache(self.cache, values)

    cdef tuple run(self, tuple args, tuple rest, ndarray x, ndarray index, tuple steps, bint training,
                   bint return_sequence):
        """(states, saved, last): tuples of new arrays. x and the rest as set_steps has them. A step
        has all states and no last ones. Without training nothing is saved, of a sequence's states h
        alone is kept, and without return_sequence not that."""
        cdef int kind = PyArray_TYPE(x), s, axes
        cdef bint step
        cdef int n = 1 + self.states
        cdef layer l
        cdef const kernel_table *k = set_call(
            &l, self, <ndarray>args[n], <ndarray>args[n + 1], <ndarray>args[n + 2],
            <ndarray>args[n + 3], self.projection_of(args, n + 5), rest[1], rest[2])
        cdef const cell_spec *cell = l.problem.cell
        cdef options how
        cdef npy_intp shape[3]
        cdef tuple saved = (), last = (), kept
        cdef char small[SMALL]
        cdef char *memory = aligned(small)
        cdef size_t size
        cdef Block space
        cdef int interrupted
        axes = set_steps(&l.problem, x, index, steps[0], steps[1], steps[3], steps[4], steps[5], shape)
        step = axes == 1 and l.problem.layout == BATCH_FIRST
        for s in range(cell.states):
            l.problem.initial[s] = data(<ndarray>args[1 + s])
        if rest[3] is not None:
            self.set_options(&how, rest[3], args[n + 4] if cell.vectors else None, training)
            l.problem.options = &how
            set_norm(&l.problem, args[n + 4] if cell.norm.of_x else None)

        if training or step:
            kept = state_arrays(&l.problem, axes + 1, shape, kind, l.kept.states)
        else:
            shape[axes] = l.problem.P
            kept = outputs(return_sequence, axes + 1, shape, kind, l.kept.states)
        shape[axes] = l.problem.H
        if training and cell.saves_extra:
            saved = outputs(1, axes + 1, shape, kind, &l.kept.extra)
        if training and cell.saves_gates:
            shape[axes] *= cell.gates
            saved = outputs(1, axes + 1, shape, kind, &l.kept.gates) + saved
            if cell.norm.of_x:
                saved += outputs(2, axes + 1, shape, kind, l.kept.products)
        if not step:
            shape[0] = l.problem.N
            last = state_arrays(&l.problem, 2, shape, kind, l.kept.last)
        size = fastrnn_plan_forward(k, &l, False)
        if l.plan.threads > 1 or not 0 < size <= <size_t>(SMALL - ALIGNMENT):
            space = take_block(size)
            memory = space.memory
        with nogil:
            interrupted = fastrnn_forward(k, &l, memory)
        check_interrupt(interrupted)
        return kept, saved, last

    def step_forward(self, tuple args, tuple rest, bint training) -> tuple:
        """The states (N, H) after one step, and the cache. args: x (N, D), the states before, Wx,
        Wh, b, bh; rest: of Weights."""
        cdef tuple after, saved, last
        after, saved, last = self.run(args, rest, args[0], None, self.all_steps, training, True)
        if not training:
            return after + (self.record.nothing_kept,)
        return after + (self.cache_of(args, rest, after, saved, last, self.all_steps),)

    def forward(self, tuple args, tuple rest, ndarray x, ndarray index, steps, bint training,
                bint return_sequence) -> tuple:
        """h (N, T, H), or the last one, and the cache. x and index: args' and steps', or the rows of
        them that are read."""
        cdef tuple kept, saved, last
        # A tuple with names is one, too.
        kept, saved, last = self.run(args, rest, x, index, <tuple>steps, training, return_sequence)
        h = kept[0] if return_sequence else last[0]
        if not training:
            return h, self.only_last(last)
        return h, self.cache_of(args, rest, kept, saved, last, <tuple>steps)

    cdef inline ndarray projection_of(self, tuple args, int place):
        return args[place] if self.projected else None

    cdef int set_options(self, options *to, given, ndarray vectors, bint training) except -1:
        cdef double[MASKS] p
        cdef int i
        p[ZONEOUT_H], p[ZONEOUT_C] = given.zoneout_h, given.zoneout_c
        p[DROPOUT_H], p[DROPOUT_CANDIDATE] = given.dropout_h, given.dropout_candidate
        memset(to, 0, sizeof(options))
        for i in range(MASKS):
            to.below[i] = limit(p[i])
        to.zoneout[0], to.zoneout[1] = p[ZONEOUT_H], p[ZONEOUT_C]
        to.dropout_h, to.dropout_candidate = p[DROPOUT_H], p[DROPOUT_CANDIDATE]
        to.clip, to.clip_gradient = given.clip or 0, given.clip_gradient or 0
        to.slope, to.cap = given.hard_sigmoid or 0, given.cap or 0
        to.relu, to.random = self.constant == "relu", training
        to.seed, to.first_step = given.seed, given.first_step
        to.vectors = data(vectors)
        for i in range(MAX_VECTORS):
            to.places[i] = self.vector_order[i]
        return 0

    cdef inline object of_cache(self, cache, int source):
        """The field of a cache that is made of this source, or None."""
        return (<tuple>cache)[self.place[source]] if self.place[source] >= 0 else None

    def backward(self, cache, ndarray dh, tuple dlast, ndarray x, ndarray index, bint dbh_wanted,
                 tuple onto) -> tuple:
        """New arrays dx, dinitial (a tuple), dWx, dWh or None, db, and dbh, dvectors and dWhr or None.
        dh (N, T, P), or (N, P) of a step, and dlast each may be None, for zeros; x and index: the
        cache's, or the rows of them that are read; onto: None, or the last six, which go on from what
        they hold."""
        cdef int kind = PyArray_TYPE(x), s, n = 1 + self.states
        cdef layer l
        cdef ndarray Wx = self.of_cache(cache, ARGS + n), Wh = self.of_cache(cache, ARGS + n + 1)
        cdef ndarray Whr = self.of_cache(cache, ARGS + n + 5) if self.projected else None
        cdef const kernel_table *k = set_call(
            &l, self, Wx, Wh, None, None, Whr, self.of_cache(cache, REST + 1),
            self.of_cache(cache, REST + 2))
        cdef const cell_spec *cell = l.problem.cell
        cdef npy_intp shape[2]
        cdef options how
        cdef ndarray dx, dWx, dWh = None, db, dbh = None, vectors = None, dWhr = None
        cdef object norm = None, dvectors = None
        cdef tuple dinitial
        cdef Block space
        cdef int interrupted
        set_steps(&l.problem, x, index, self.of_cache(cache, STEPS), self.of_cache(cache, STEPS + 1),
                  self.of_cache(cache, STEPS + 3), self.of_cache(cache, STEPS + 4),
                  self.of_cache(cache, STEPS + 5), shape)
        for s in range(cell.states):
            l.problem.initial[s] = data(self.of_cache(cache, ARGS + 1 + s))
            l.kept.states[s] = data(self.of_cache(cache, KEPT + s))
            l.gradients.dlast[s] = data(dlast[s])
        if cell.saves_gates:
            l.kept.gates = data(self.of_cache(cache, KEPT + self.states))
        if cell.saves_extra:
            l.kept.extra = data(self.of_cache(cache, KEPT + self.states + 1))
        if cell.norm.of_x:
            for s in range(2):
                l.kept.products[s] = data(
                    self.of_cache(cache, KEPT + self.states + 1 + cell.saves_extra + s))
        l.gradients.dh = data(dh)
        if self.of_cache(cache, REST + 3) is not None:
            vectors = self.of_cache(cache, ARGS + n + 4) if cell.vectors else None
            self.set_options(&how, self.of_cache(cache, REST + 3), vectors, True)
            l.problem.options = &how
        if cell.norm.of_x:
            norm = self.of_cache(cache, ARGS + n + 4)
            set_norm(&l.problem, norm)

        dx = empty(PyArray_NDIM(x), PyArray_DIMS(x), kind)
        if onto is None:
            dWx = empty(2, PyArray_DIMS(Wx), kind)
            if Wh is not None:
                dWh = empty(PyArray_NDIM(Wh), PyArray_DIMS(Wh), kind)
            shape[0] = cell.gates * l.problem.H
            db = empty(1, shape, kind)
            if dbh_wanted:
                dbh = empty(1, shape, kind)
            if vectors is not None:
                dvectors = empty(1, PyArray_DIMS(vectors), kind)
            elif norm is not None:
                dvectors = tuple([empty(1, PyArray_DIMS(<ndarray>a), kind)
                                  for a in norm[:NORM_PARAMETERS] if a is not None])
            if Whr is not None:
                dWhr = empty(2, PyArray_DIMS(Whr), kind)
        else:
            dWx, dWh, db, dbh, dvectors, dWhr = onto
            l.gradients.accumulate = True
        shape[0] = l.problem.N
        dinitial = state_arrays(&l.problem, 2, shape, kind, l.gradients.dinitial)
        l.gradients.dx, l.gradients.dWx, l.gradients.dWh = data(dx), data(dWx), data(dWh)
        l.gradients.db, l.gradients.dbh = data(db), data(dbh)
        l.gradients.dWhr = data(dWhr)
        if norm is None:
            l.gradients.vectors = data(<ndarray>dvectors)
        else:
            for s in range(len(dvectors)):
                l.gradients.norm[s] = data(dvectors[s])
        space = take_block(fastrnn_plan_backward(k, &l))
        with nogil:
            interrupted = fastrnn_backward(k, &l, space.memory)
        check_interrupt(interrupted)
        return dx, dinitial, dWx, dWh, db, dbh, dvectors, dWhr

    def pack(self, ndarray Wx, ndarray Wh, ndarray b, ndarray bh, ndarray Whr, bint transposed,
             bint training) -> Panels:
        """Panels of the kernels in use now; with training, those of backward too."""
        cdef Panels p = Panels.__new__(Panels)
        cdef layer l
        p.k = tables[PyArray_TYPE(Wx) == NPY_DOUBLE]
        set_weights(&l, p.k, self, Wx, Wh, b, bh, Whr, transposed)
        p.memory = take_block(fastrnn_panel_bytes(p.k, &l, training))
        with nogil:
            fastrnn_pack(p.k, &l, training, p.memory.memory)
        p.cell, p.panels, p.transposed = l.problem.cell, l.panels, transposed
        p.Wx, p.Wh, p.b, p.bh, p.Whr = Wx, Wh, b, bh, Whr
        return p


cdef inline bint overlap(ndarray a, ndarray b) noexcept:
    """Whether contiguous arrays share memory: threads and later steps would read what is written."""
    cdef uintptr_t begin = <uintptr_t>PyArray_DATA(a), other = <uintptr_t>PyArray_DATA(b)
    return begin < other + PyArray_NBYTES(b) and other < begin + PyArray_NBYTES(a)


ctypedef struct link:
    # A layer that takes steps, and where it leaves h to the next one; NULL: to the caller.
    const kernel_table *k
    layer *l
    int *busy
    void *h


cdef class Stepper:
    """Layers that take steps, the h of each being the x of the next: arguments and work space set
    up once. Stream and Chain make them."""
    cdef link *links
    cdef int count
    cdef const kernel_table *k
    cdef matmul_args head  # of the last h; K is 0 where there is none
    cdef int head_threads
    cdef tuple states      # of all layers, (N, H)
    cdef object checked
    cdef npy_intp shape[2]  # of the result
    cdef int kind
    cdef bint brief  # a step takes hardly longer than to let go of the interpreter and get it back

    cdef bint fits(self, given, idx steps, idx width, bint written) noexcept:
        """Whether it is an array (N, width), or of so many steps (T, N, width)."""
        cdef ndarray a
        cdef npy_intp *shape
        if type(given) is not ndarray:
            return False
        a = <ndarray>given
        if PyArray_NDIM(a) != 2 + (steps >= 0):
            return False
        shape = PyArray_DIMS(a)
        if steps >= 0:
            if shape[0] != steps:
                return False
            shape += 1
        return (PyArray_TYPE(a) == self.kind and shape[0] == self.shape[0] and shape[1] == width
                and (PyArray_ISCARRAY(a) if written else PyArray_ISCARRAY_RO(a)))

    def step(self, x, out=None):
        """As fastrnn.Stream.step has it."""
        cdef ndarray h
        if not self.fits(x, -1, self.links.l.problem.D, False) or not (
                out is None or self.fits(out, -1, self.shape[1], True)):
            x, out, _ = self.checked(x, out, None, False)
        h = empty(2, self.shape, self.kind) if out is None else <ndarray>out
        if overlap(<ndarray>x, h):
            x = x.copy()
        self.take()
        if self.brief:
            self.run(PyArray_DATA(<ndarray>x), PyArray_DATA(h))
        else:
            with nogil:
                self.run(PyArray_DATA(<ndarray>x), PyArray_DATA(h))
        self.give(self.count)
        return h

    cdef void run(self, const void *x, void *out) noexcept nogil:
        cdef link *at = self.links
        cdef link *end = at + self.count
        while at < end:
            at.l.problem.x = x
            at.l.kept.states[0] = out if at.h == NULL else at.h
            fastrnn_forward_run(at.k, at.l)
            x = at.h
            at += 1
        if self.head.K:
            self.head.A, self.head.C = x, out
            team_run(self.k.matmul, &self.head, self.head_threads, False)

    def steps(self, x, out=None, *, reset=None):
        """As fastrnn.Stream.steps has it."""
        cdef ndarray h
        cdef npy_intp shape[3]
        cdef idx T = PyArray_DIMS(x)[0] if type(x) is ndarray and PyArray_NDIM(x) == 3 else -1
        if reset is not None or T < 0 or not self.fits(x, T, self.links.l.problem.D, False) or not (
                out is None or self.fits(out, T, self.shape[1], True)):
            x, out, reset = self.checked(x, out, reset, True)
            T = PyArray_DIMS(x)[0]
        shape[0], shape[1], shape[2] = T, self.shape[0], self.shape[1]
        h = empty(3, shape, self.kind) if out is None else out
        if overlap(x, h):
            x = x.copy()
        self.take()
        try:
            self.run_steps(x, h, reset)
        finally:
            self.give(self.count)
        return h

    cdef int run_steps(self, ndarray x, ndarray out, ndarray reset) except -1:
        """All steps by one layer after the other. One layer that is interrupted keeps its states;
        of several all get theirs back."""
        cdef list before = [state.copy() for state in self.states] if self.count > 1 else None
        cdef npy_intp shape[3]
        cdef matmul_args head = self.head
        cdef ndarray h
        cdef int i, interrupted
        shape[0], shape[1] = PyArray_DIMS(x)[0], self.shape[0]
        try:
            for i in range(self.count):
                shape[2] = self.links[i].l.problem.P
                h = out if self.links[i].h == NULL else empty(3, shape, self.kind)
                run_steps_of(&self.links[i], x, h, reset)
                x = h
            if head.K:
                head.rows, head.A, head.C = shape[0] * shape[1], PyArray_DATA(x), PyArray_DATA(out)
                with nogil:
                    interrupted = fastrnn_matmul(self.k, &head, self.head_threads)
                check_interrupt(interrupted)
        except BaseException:
            for state, kept in zip(self.states, before or ()):
                state[...] = kept
            raise
        return 0

    cdef int take(self) except -1:
        cdef int i
        for i in range(self.count):
            if not take_flag(self.links[i].busy):
                self.give(i)
                raise RuntimeError("step: another thread takes a step of this stream")
        return 0

    cdef void give(self, int count) noexcept:
        cdef int i
        for i in range(count):
            give_flag(self.links[i].busy)


cdef int run_steps_of(const link *to, ndarray x, ndarray h, ndarray reset) except -1:
    cdef layer l = to.l[0]
    cdef Block space
    cdef int interrupted
    l.problem.T, l.problem.layout = PyArray_DIMS(x)[0], TIME_FIRST
    l.problem.x, l.kept.states[0] = PyArray_DATA(x), PyArray_DATA(h)
    l.problem.reset = <const unsigned char *>data(reset)
    space = take_block(fastrnn_plan_forward(to.k, &l, False))
    with nogil:
        interrupted = fastrnn_forward(to.k, &l, space.memory)
    return check_interrupt(interrupted)


cdef class Stream(Stepper):
    """The states (N, H) of a cell."""
    cdef link own
    cdef layer l
    cdef int busy
    cdef options how
    cdef object vectors
    cdef Panels packed
    cdef Block space

    def __init__(self, Spec spec, Panels packed, tuple states, checked, given, vectors):
        """checked(x, out, reset, many): these as they have to be, of one step or of many; given:
        Options or None; vectors: an array, a LayerNorm or None."""
        cdef ndarray h = states[0], state
        self.vectors = vectors
        self.packed, self.states, self.checked = packed, states, checked
        self.kind, self.k = PyArray_TYPE(h), packed.k
        set_weights(&self.l, self.k, spec, packed.Wx, packed.Wh, packed.b, packed.bh, packed.Whr,
                    packed.transposed)
        self.shape[0], self.shape[1] = PyArray_DIMS(h)[0], PyArray_DIMS(h)[1]
        self.l.problem.N, self.l.problem.T = self.shape[0], 1
        self.l.panels = packed.panels
        if given is not None:
            normalised = self.l.problem.cell.norm.of_x > 0
            spec.set_options(&self.how, given, None if normalised else vectors, False)
            set_norm(&self.l.problem, vectors if normalised else None)
            self.l.problem.options = &self.how
        for s, state in enumerate(states):
            self.l.problem.initial[s] = self.l.kept.last[s] = PyArray_DATA(state)
        self.space = take_block(fastrnn_plan_forward(self.k, &self.l, True))
        self.brief = self.l.plan.threads == 1 and (
            self.shape[0] * (self.l.problem.D + self.shape[1]) * self.l.problem.H < BRIEF)
        fastrnn_forward_setup(self.k, &self.l, self.space.memory)
        self.own.k, self.own.l, self.own.busy, self.own.h = self.k, &self.l, &self.busy, NULL
        self.links, self.count, self.head.K = &self.own, 1, 0


cdef class Chain(Stepper):
    """Streams one after the other, and what a dense head makes of the last h."""
    cdef tuple streams
    cdef Block memory, panels
    cdef ndarray w, b
    cdef list between  # what they leave to the next

    def __init__(self, tuple streams, ndarray w, ndarray b, checked):
        """w (H, C), b (C,), or both None; checked: as Stream's."""
        cdef Stream stream = streams[len(streams) - 1]
        cdef int i
        self.streams, self.checked, self.between = streams, checked, []
        self.w, self.b = w, b
        self.states = sum([(<Stream>each).states for each in streams], ())
        self.kind, self.k, self.count = stream.kind, stream.k, len(streams)
        self.shape[0], self.shape[1] = stream.shape[0], stream.shape[1]
        memset(&self.head, 0, sizeof(self.head))
        self.brief = w is None or self.set_head()
        self.memory = take_block(self.count * sizeof(link))
        self.links = <link *>self.memory.memory
        for i, stream in enumerate(streams):
            self.links[i] = stream.own
            if i < self.count - 1 or w is not None:
                self.between.append(empty(2, stream.shape, self.kind))
                self.links[i].h = PyArray_DATA(<ndarray>self.between[i])
            self.brief &= stream.brief

    cdef bint set_head(self) except -1:
        """The head's shape, threads and panels; returns whether it is brief."""
        cdef idx rows = self.shape[0], K = PyArray_DIMS(self.w)[0], columns = PyArray_DIMS(self.w)[1]
        self.shape[1] = columns
        self.head.rows, self.head.K, self.head.a_row, self.head.columns = rows, K, K, columns
        self.head.B, self.head.bias = PyArray_DATA(self.w), PyArray_DATA(self.b)
        self.head_threads = team_threads_for(2. * rows * K * columns)
        self.panels = packed_right(self.k, &self.head, columns, False, self.head_threads)
        return self.head_threads == 1 and rows * K * columns < BRIEF


# ---- the machine ---------------------------------------------------------------------------------

def fma_peak(ndarray like, idx iterations, int threads) -> float:
    """Run ``iterations`` of the peak loop on each thread in the dtype of ``like``; return how many
    floating-point operations that was."""
    cdef const kernel_table *k = tables[PyArray_TYPE(like) == NPY_DOUBLE]
    cdef peak_args p
    cdef double sink[256]
    memset(sink, 0, sizeof(sink))
    p.iterations, p.sink = iterations, sink
    threads = min(threads, 256)
    with nogil:
        team_run(k.fma_peak, &p, threads, False)
    return 2.0 * PEAK_FMAS * k.lanes * iterations * threads
