# The C side as Cython sees it.

from libc.stdint cimport uint32_t, uint64_t, uintptr_t

from fastrnn.backends._memory cimport Block

cdef extern from "kernels.h" nogil:
    ctypedef Py_ssize_t idx
    ctypedef void kernel(const void *args, idx part, idx parts) noexcept nogil
    const int ALIGNMENT, CELLS, MAX_GATES, MAX_VECTORS, PEAK_FMAS

    ctypedef struct kernel_table:
        const char *isa
        idx lanes
        const cell_spec *const cells[1]
        kernel *pack
        kernel *matmul
        kernel *softmax
        kernel *embedding
        kernel *embedding_grad
        kernel *drop
        kernel *attention
        kernel *attention_grad
        kernel *update
        kernel *fma_peak

    ctypedef struct pack_args:
        idx K, columns, ld, gates
        int transposed
        const void *source
        const void *bias
        void *packed

    ctypedef struct pack_list:
        idx jobs
        pack_args job[1]

    ctypedef struct matmul_args:
        idx rows, K, columns, a_row
        const void *A
        const void *packed
        const void *B
        const void *bias
        void *C

    ctypedef struct weight_grad_args:
        idx rows, K, columns, a_row, b_row, c_row
        const void *A
        const void *B
        void *C
        void *dbias

    ctypedef struct softmax_args:
        idx rows, classes
        double scale
        const void *x
        const void *weight
        const idx *y
        double *losses
        void *dx

    ctypedef struct embedding_args:
        idx bags, vocabulary, W
        int mean, accumulate
        const idx *x
        const idx *offsets
        const idx *order
        const void *input "in"
        void *out

    ctypedef struct drop_args:
        idx rows, repeats, columns, first_row
        idx in_strides[3]
        idx out_strides[3]
        uint64_t seed
        int kind
        unsigned below
        double scale
        const void *input "in"
        void *out

    ctypedef struct attention_args:
        idx queries, looked_at, places, A, D
        const idx *index
        const void *query
        const void *keys
        const void *values
        const void *w
        void *weights
        void *context
        const idx *order
        const idx *first
        const void *dcontext
        const void *dweights
        void *dquery
        void *dkeys
        void *dvalues
        void *dw
        void *dscores

    ctypedef struct update_args:
        idx n, width
        const idx *rows
        int rule
        double rate, keep, decay_m, gain_m, decay_v, gain_v, correct_v, epsilon
        const void *w
        const void *dw
        void *out
        void *m
        void *v

    ctypedef struct peak_args:
        idx iterations
        double *sink

    const kernel_table *const *fastrnn_tables(int is_double, int *count)
    const char *fastrnn_update_rule(int rule)


cdef extern from "layer.h" nogil:
    const int BATCH_FIRST, TIME_FIRST, PACKED

    const int ZONEOUT_H, ZONEOUT_C, DROPOUT_H, DROPOUT_CANDIDATE, MASKS

    const int NORM_PARAMETERS

    ctypedef struct norm_blocks:
        idx of_x

    ctypedef struct cell_spec:
        const char *name
        idx gates, states, vectors
        int saves_gates, saves_extra
        norm_blocks norm

    ctypedef struct options:
        const void *vectors
        idx places[1]
        double zoneout[1]
        double dropout_h, dropout_candidate, clip, clip_gradient, slope, cap
        int relu, random
        uint64_t seed, first_step
        uint32_t below[1]

    ctypedef struct problem:
        const cell_spec *cell
        idx N, T, D, H, table, P
        idx offsets[1]
        const void *x
        const void *initial[1]
        const idx *lengths
        const idx *index
        const unsigned char *reset
        int reverse, layout, reset_to_initial
        const options *options
        const void *norm[1]
        double epsilon

    ctypedef struct weights:
        const void *Wx
        const void *Wh
        const void *Whr
        const void *b
        const void *bh
        int transposed

    ctypedef struct panels:
        const void *Wx

    ctypedef struct activations:
        void *states[1]
        void *gates
        void *extra
        void *products[1]
        void *last[1]

    ctypedef struct gradients:
        const void *dh
        const void *dlast[1]
        void *dx
        void *dinitial[1]
        void *dWx
        void *dWh
        void *dWhr
        void *db
        void *dbh
        void *vectors
        void *norm[1]
        int accumulate

    ctypedef struct plan:
        int threads, by_units, packed

    ctypedef struct layer:
        problem problem
        weights weights
        panels panels
        activations kept
        gradients gradients
        plan plan

    bint is_projected(const cell_spec *)

    const char *fastrnn_spec_error(const cell_spec *)
    size_t fastrnn_panel_bytes(const kernel_table *, const layer *, int training)
    void fastrnn_pack(const kernel_table *, layer *, int training, void *memory)
    size_t fastrnn_plan_forward(const kernel_table *, layer *, int lasting)
    int fastrnn_forward(const kernel_table *, layer *, void *memory)
    void fastrnn_forward_setup(const kernel_table *, layer *, void *memory)
    int fastrnn_forward_run(const kernel_table *, layer *)
    size_t fastrnn_plan_backward(const kernel_table *, layer *)
    int fastrnn_backward(const kernel_table *, layer *, void *memory)
    size_t fastrnn_packed_bytes(const kernel_table *, idx K, idx columns)
    size_t fastrnn_matmul_grad_bytes(const kernel_table *, const weight_grad_args *, int threads)
    int fastrnn_matmul_grad(const kernel_table *, const weight_grad_args *, int threads, void *)
    int fastrnn_matmul(const kernel_table *, const matmul_args *, int threads)


cdef extern from "interrupt.h" nogil:
    int (*fastrnn_interrupt)() noexcept nogil


cdef extern from "plan.h" nogil:
    const int UNPACKED_ROWS
    void fastrnn_read_caches()


cdef extern from "team.h" nogil:
    const int FLOPS_PER_THREAD, MOST_THREADS
    void team_set_threads(int threads, bint bounded)
    int team_bound_own(int threads)

    ctypedef struct openmp_region:
        pass

    ctypedef struct openmp_question:
        pass

    ctypedef struct openmp:
        openmp_region *parallel
        openmp_question *number
        openmp_question *count

    void team_borrow(openmp, uintptr_t thread)
    void team_add_cpu(int cpu)
    void team_set_work(double flops_per_thread)
    int team_threads_for(double flops)
    void team_run(kernel *, const void *args, int parts, int at_once)
    void team_oversubscribe()
    int team_most_parts()
    bint take_flag(int *flag)
    void give_flag(int *flag)


cdef const kernel_table *table_in_use(bint is_double) noexcept nogil
cdef void run_parts(kernel *, const void *args, int parts) noexcept nogil
cdef size_t grad_bytes(const kernel_table *, const weight_grad_args *, int parts) noexcept nogil
cdef int run_grad(const kernel_table *, const weight_grad_args *, int parts,
                  void *memory) noexcept nogil
cdef Block packed_right(const kernel_table *, matmul_args *, idx ld, bint transposed, int threads)
cdef int run_matmul(const kernel_table *, const matmul_args *, int parts) noexcept nogil
cdef int check_interrupt(int interrupted) except -1
