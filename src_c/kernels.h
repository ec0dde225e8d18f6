/* The kernels of fastrnn: one list, one table a (instruction set, dtype), one calling convention.

   A kernel computes the items begin..end of its output and touches nothing else, so any split of
   the items between threads gives the same bits. It never allocates, checks or fails. Pointers in
   an argument struct point to REAL (float or double, as the table) unless a type says otherwise;
   arrays are C-contiguous with the shapes in brackets.

   N batch, T time steps, D input, H hidden, G gates a cell (1 rnn, 4 lstm).
   Every product is one chain of multiply-adds an output element, in the order of the summed index;
   blocking only cuts the chain, so it never changes a bit either. */
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H
#include <stddef.h>

typedef ptrdiff_t idx;
typedef void kernel(const void *args, idx begin, idx end);

/* name, argument struct, what one item is */
#define FASTRNN_KERNELS(X)                                  \
    X(pack, pack_args, panel)                               \
    X(matmul, matmul_args, row)                             \
    X(transpose_rows, weight_grad_args, block of features)  \
    X(weight_grad, weight_grad_args, panel)                 \
    X(rnn_forward, cell_args, batch row)                    \
    X(rnn_backward, cell_args, batch row)                   \
    X(lstm_forward, cell_args, batch row)                   \
    X(lstm_backward, cell_args, batch row)                  \
    X(softmax, softmax_args, row)                           \
    X(embedding, embedding_args, word)                      \
    X(embedding_grad, embedding_args, column)               \
    X(fma_peak, peak_args, slot of sink)

typedef struct {
    const char *isa;
    idx lanes;         /* REALs a vector */
    idx panel;         /* columns of one plain panel: 2 vectors */
    idx feature_block; /* rows of one block of transpose_rows */
#define X(name, args, item) kernel *name;
    FASTRNN_KERNELS(X)
#undef X
} kernel_table;

enum { MAX_GATES = 4 };

/* Columns of B regrouped into panels that a micro-kernel reads front to back. B is [K, ld], or with
   transposed its transpose lies at source. With gates == 1 a panel is 2 vectors of neighbouring
   columns; else it is one vector of the same hidden units from each gate, gate g at column
   offset[g]. Columns past the end are zero. */
typedef struct {
    idx K, columns, ld; /* columns: of one gate */
    idx gates, offset[MAX_GATES];
    int transposed;
    const void *source;
    void *packed; /* [panels, K, vectors * lanes] */
} pack_args;

/* C[i, j] = (bias[j] or 0) + sum_k A[i, k] B[k, j] */
typedef struct {
    idx K, columns;
    const void *A, *packed, *bias; /* [rows, K], pack_args.packed, [columns] or NULL */
    void *C;                       /* [rows, columns] */
} matmul_args;

/* A recurrent layer over the time steps t0..t1. gates holds the activated gates, which are the
   cache of the backward pass; they overwrite the pre-activations. The gate in place g of the
   kernels (lstm: i f o g) lies at column offset[g] of gates, b, dgates. rnn: h is its own gate,
   gates == h. packed_Wx, packed_Wh == NULL: the forward pass reads Wx, Wh as they are. */
typedef struct {
    idx N, T, D, H, t0, t1;
    idx offset[MAX_GATES];
    const void *x, *h0, *c0, *Wx, *Wh, *b; /* [N,T,D] [N,H] [N,H] [D,GH] [H,GH] [GH] */
    const void *packed_Wx, *packed_Wh;     /* backward: of the transposes */
    void *h, *c, *gates;                   /* [N,T,H] [N,T,H] [N,T,GH] */
    /* backward. dh_carry and dc_carry hold the gradients that arrive from step t1 and leave with
       those of step t0 - 1. dgates is a buffer of dgates_T steps whose first is t0. */
    const void *dh; /* [N,T,H] */
    idx dgates_T;
    void *dgates, *dx, *dh_carry, *dc_carry; /* [N,dgates_T,GH] [N,T,D] [N,H] [N,H] */
} cell_args;

/* dWx += x^T dgates, dWh += h_prev^T dgates, db += sum dgates over the rows (n, t), t in t0..t1, or
   = where first. The rows of [x | h_prev] are transposed into blocks of features before. H == 0:
   there is no recurrent part. */
typedef struct {
    idx N, T, D, H, columns, t0, t1;
    idx dgates_T;
    int first;
    const void *x, *h0, *h, *dgates;
    void *blocks;      /* [blocks of D, then of H][N * (t1 - t0)][feature_block] */
    void *panels;      /* room for every panel: [panels][MAX_DEPTH][panel] */
    void *dWx, *dWh, *db; /* [D,columns] [H,columns] [columns] */
} weight_grad_args;

enum { MAX_DEPTH = 512 };

/* losses[i] = -weight[i] log softmax(x[i])[y[i]], dx its gradient times scale. Rows of weight 0 are
   0 whatever x holds. */
typedef struct {
    idx classes;
    double scale;
    const void *x, *weight; /* [rows, classes] [rows] or NULL: 1 */
    const idx *y;
    double *losses;
    void *dx;
} softmax_args;

typedef struct {
    idx words, vocabulary, W;
    const idx *x;    /* [words] */
    const void *in;  /* embedding: weights [vocabulary, W]; embedding_grad: dout [words, W] */
    void *out;       /* embedding: [words, W]; embedding_grad: dweights [vocabulary, W] */
} embedding_args;

typedef struct {
    idx iterations; /* of fma_peak: each is PEAK_FMAS multiply-adds a lane */
    double *sink;   /* start in, result out */
} peak_args;

enum { PEAK_CHAINS = 12, PEAK_FMAS = 4 * PEAK_CHAINS };

/* The tables this CPU runs, best first; *count receives their number. */
const kernel_table *const *fastrnn_tables(int is_double, int *count);

#endif
