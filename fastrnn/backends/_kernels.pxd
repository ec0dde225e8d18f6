# The C side as Cython sees it: kernels.h.

cdef extern from "kernels.h" nogil:
    ctypedef Py_ssize_t idx
    ctypedef void kernel(const void *args, idx part, idx parts) noexcept nogil
    const int MAX_GATES, MAX_DEPTH, GRAD_PANELS, FLAG_STRIDE, PEAK_FMAS
    const int SGD, SGD_MOMENTUM, RMSPROP, ADAM

    ctypedef struct kernel_table:
        const char *isa
        idx lanes, feature_block
        kernel *pack
        kernel *matmul
        kernel *transpose_rows
        kernel *weight_grad
        kernel *project
        kernel *rnn_forward
        kernel *rnn_backward
        kernel *lstm_forward
        kernel *lstm_backward
        kernel *gru_forward
        kernel *gru_backward
        kernel *softmax
        kernel *embedding
        kernel *embedding_grad
        kernel *update
        kernel *fma_peak

    ctypedef struct pack_args:
        idx K, columns, ld, gates
        idx offset[MAX_GATES]
        int transposed
        const void *source
        const void *bias
        const void *more_bias
        idx more_gates
        void *packed

    ctypedef struct matmul_args:
        idx rows, K, columns, a_row
        const void *A
        const void *packed
        const void *B
        const void *bias
        void *C
        const idx *out_rows

    ctypedef struct cell_args:
        idx N, D, H, steps, G
        idx offset[MAX_GATES]
        int by_units, reset_before
        const idx *rows
        const idx *first
        const idx *order
        const void *x
        const void *h0
        const void *c0
        const idx *index
        idx table
        const void *Wx
        const void *Wh
        const void *b
        const void *bh
        const void *packed_Wx
        const void *packed_Wh
        const void *packed_Un
        void *h
        void *c
        void *gates
        void *candidate
        idx state_row, pre_rows
        void *state
        void *cell_state
        void *reset_state
        void *pre
        const void **row_list
        int *flags
        idx t0, t1, dgates_row
        const void *dh
        const void *dhT
        const void *dcT
        void *dgates
        void *dgates_next
        void *dh_carry
        void *dc_carry
        void *dh0
        void *dc0

    ctypedef struct weight_grad_args:
        idx rows, K, columns, a_row, b_row, c_row
        int first
        const void *A
        const void *const *a_rows
        const void *B
        void *blocks
        void *C
        void *dbias

    ctypedef struct weight_grad_list:
        idx jobs
        weight_grad_args job[3]
        void *room

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
        int mean, fresh
        const idx *x
        const idx *first
        const void *input "in"
        void *out

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
