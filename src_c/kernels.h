/* The kernels of fastrnn: one list, one table a (instruction set, dtype), one calling convention.

   A kernel computes its part of `parts` equal shares of its output and touches nothing else, so any
   number of threads gives the same bits. It never allocates, checks or fails. Pointers in an
   argument struct point to REAL (float or double, as the table) unless a type says otherwise;
   arrays are C-contiguous with the shapes in brackets.

   N batch, T time steps, D input, H hidden, G gates a cell (1 rnn, 4 lstm, 3 gru).
   Every product is one chain of multiply-adds an output element, in the order of the summed index;
   blocking only cuts the chain, so it never changes a bit either. */
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H
#include <stddef.h>

typedef ptrdiff_t idx;
typedef void kernel(const void *args, idx part, idx parts);

/* name, argument struct, what is split */
#define FASTRNN_KERNELS(X)                                   \
    X(pack, pack_args, panels)                               \
    X(matmul, matmul_args, columns or rows)                  \
    X(transpose_rows, weight_grad_list, blocks of features)  \
    X(weight_grad, weight_grad_list, panels)                 \
    X(project, cell_args, panels)                            \
    X(rnn_forward, cell_args, batch rows or units)           \
    X(rnn_backward, cell_args, batch rows or units)          \
    X(lstm_forward, cell_args, batch rows or units)          \
    X(lstm_backward, cell_args, batch rows or units)         \
    X(gru_forward, cell_args, batch rows or units)           \
    X(gru_backward, cell_args, batch rows or units)          \
    X(softmax, softmax_args, rows)                           \
    X(embedding, embedding_args, bags)                       \
    X(embedding_grad, embedding_args, columns)               \
    X(update, update_args, elements or rows)                 \
    X(fma_peak, peak_args, slots of sink)

typedef struct {
    const char *isa;
    idx lanes;         /* REALs a vector */
    idx feature_block; /* rows of one block of transpose_rows */
#define X(name, args, split) kernel *name;
    FASTRNN_KERNELS(X)
#undef X
} kernel_table;

enum {
    MAX_GATES = 4,
    MAX_DEPTH = 512,   /* rows of a panel that one tile reads */
    GRAD_PANELS = 4,   /* panels of weight_grad that share a pass over a block of features */
    FLAG_STRIDE = 16,  /* ints between the barrier's flags: one cache line each */
};

/* Columns of B regrouped into panels that a micro-kernel reads front to back; the first row of a
   panel is the bias, or 0. B is [K, ld], or with transposed its transpose lies at source. With
   gates == 1 a panel is 2 vectors of neighbouring columns; else it is one vector of the same hidden
   units from each gate, gate g at column offset[g]. Columns past the end are zero. */
typedef struct {
    idx K, columns, ld; /* columns: of one gate */
    idx gates, offset[MAX_GATES];
    int transposed;
    const void *source, *bias;
    const void *more_bias; /* added to bias in the first more_gates gates; NULL: nothing */
    idx more_gates;
    void *packed; /* [panels, 1 + K, vectors * lanes] */
} pack_args;

/* C[row, j] = bias[j] + sum_k A[i, k] B[k, j] for row = i, or out_rows[i]. */
typedef struct {
    idx rows, K, columns, a_row;
    const void *A, *packed; /* [rows, K] at every a_row, pack_args.packed */
    const void *B, *bias;   /* where packed == NULL: [K, columns], [columns] or NULL */
    void *C;                /* [rows, columns] */
    const idx *out_rows;    /* [rows] or NULL */
} matmul_args;

/* A recurrent layer. A batch row's rank is its place when the longest come first; step t processes
   the ranks below first[t + 1] - first[t], and rank i of it is row n * T + time of the arrays:
   rows[first[t] + i], where n = order[i].

   gates holds the activated gates, which are the cache of the backward pass (rnn: h is its own
   gate). The gate in place g of the kernels (lstm: i f o g, gru: r z n) lies at column offset[g] of
   gates, b, dgates. With index, x is a table, and row n * T + time reads its row index[n * T +
   time]; where weights are packed, project then makes x Wx + b of the table before the forward
   kernel. Shares are of batch rows, or, by_units, of hidden units; then the parts meet
   after every step, and all must run at once. */
typedef struct {
    idx N, D, H, steps, G;
    idx offset[MAX_GATES];
    int by_units, reset_before; /* gru: n = tanh(x Wn + bn + (r h) Un + bhn) */
    const idx *rows, *first, *order;   /* [sum of lengths] [steps + 1] [N] */
    const void *x, *h0, *c0;           /* [N,T,D] or [table,D], [N,H] [N,H]; NULL: 0 */
    const idx *index;                  /* [N,T] or NULL */
    idx table;
    const void *Wx, *Wh, *b, *bh;      /* read where packed_Wx == NULL [D,GH] [H,GH] [GH] [GH] */
    const void *packed_Wx, *packed_Wh; /* backward: of the transpose of Wh */
    const void *packed_Un;             /* reset_before: of Wh's third gate alone */
    void *h, *c, *gates, *candidate;   /* [N,T,H] [N,T,H] [N,T,GH] [N,T,H] or NULL: not wanted */
    /* Work space. States and carries are [N, state_row] by rank, state_row
       being at least H rounded up to two vectors; pre has room for pre_rows rows of
       pre-activations of a share of batch rows, or of all by_units, or of the table; row_list as
       many a part. */
    idx state_row, pre_rows;
    void *state, *cell_state, *reset_state, *pre; /* state: [2, N, state_row] */
    const void **row_list;
    int *flags; /* [parts, FLAG_STRIDE], 0: see barrier.h */
    /* Backward, over the steps t0..t1, which lie in dgates without gaps; dgates_next [N, dgates_row]
       receives those of step t0 for the next call. The carries hold the gradients of the last
       states at first, then what reaches a state other than through a product. gru's dgates have a
       fourth block of columns: the gradient of the candidate, or reset_before r h. */
    idx t0, t1, dgates_row;
    const void *dh, *dhT, *dcT; /* [N,T,H] [N,H] [N,H]; NULL: 0 */
    void *dgates, *dgates_next, *dh_carry, *dc_carry;
    void *dh0, *dc0; /* [N,H] [N,H] */
} cell_args;

/* C += A^T B, dbias += the sum of B's rows, or = where first. Row r of A lies at A + r * a_row, or
   at a_rows[r]. */
typedef struct {
    idx rows, K, columns, a_row, b_row, c_row;
    int first;
    const void *A;
    const void *const *a_rows;
    const void *B;
    void *blocks;    /* [blocks of K, rows, feature_block] */
    void *C, *dbias; /* [K, columns] at every c_row, [columns] or NULL */
} weight_grad_args;

typedef struct {
    idx jobs;
    weight_grad_args job[3];
    void *room; /* [parts, GRAD_PANELS, 1 + MAX_DEPTH, 2 * lanes] */
} weight_grad_list;

/* losses[i] = -weight[i] log softmax(x[i])[y[i]], dx its gradient times scale. Rows of weight 0 are
   0 whatever x holds. */
typedef struct {
    idx rows, classes;
    double scale;
    const void *x, *weight; /* [rows, classes] [rows] or NULL: 1 */
    const idx *y;
    double *losses;
    void *dx;
} softmax_args;

/* A bag holds the words x[first[i]..first[i + 1]], or with first == NULL word x[i] alone; its vector
   is their sum, or, with mean, their mean (0 without words). The gradient is added to what out
   holds, or, with fresh, to 0. */
typedef struct {
    idx bags, vocabulary, W;
    int mean, fresh;
    const idx *x, *first; /* [words] [bags + 1] */
    const void *in;  /* embedding: weights [vocabulary, W]; embedding_grad: dout [bags, W] */
    void *out;       /* embedding: [bags, W]; embedding_grad: dweights [vocabulary, W] */
} embedding_args;

/* out = keep w, updated by dw; m and v, the moving averages of the gradient and of its square, in
   place. out may be w. With rows, all but dw [n, width] are arrays of rows of which these n, each
   once, are updated. */
enum update_rule { SGD, SGD_MOMENTUM, RMSPROP, ADAM };

typedef struct {
    idx n, width;
    const idx *rows; /* [n] or NULL */
    int rule;
    double rate, keep, decay_m, gain_m, decay_v, gain_v, correct_v, epsilon;
    const void *w, *dw;
    void *out, *m, *v;
} update_args;

typedef struct {
    idx iterations; /* of fma_peak: each is PEAK_FMAS multiply-adds a lane */
    double *sink;   /* start in, result out */
} peak_args;

enum { PEAK_CHAINS = 12, PEAK_FMAS = 4 * PEAK_CHAINS };

/* The tables this CPU runs, best first; *count receives their number. */
const kernel_table *const *fastrnn_tables(int is_double, int *count);

#endif
