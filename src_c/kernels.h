/* The kernels of fastrnn: one list, one table a (instruction set, dtype), one calling convention.

   A kernel computes its part of `parts` equal shares of its output and touches nothing else, so any
   number of threads gives the same bits. It never allocates, checks or fails. Pointers in an
   argument struct point to REAL (float or double, as the table) unless a type says otherwise;
   arrays are C-contiguous with the shapes in brackets.

   N batch, T time steps, D input, H hidden, G gates a cell.
   Every product is one chain of multiply-adds an output element, in the order of the summed index;
   blocking only cuts the chain, so it never changes a bit either. */
#ifndef FASTRNN_KERNELS_H
#define FASTRNN_KERNELS_H
#include "cells/all.h"
#include "rules.h"
#include <stddef.h>

#if __BYTE_ORDER__ != __ORDER_LITTLE_ENDIAN__
#error "fastrnn: no kernels for big-endian CPUs; FASTRNN_NO_EXTENSION=1 installs NumPy's backend"
#endif

typedef ptrdiff_t idx;
typedef void kernel(const void *args, idx part, idx parts);

#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))
#define CEIL_DIV(a, b) (((a) + (b) - 1) / (b))

/* name, argument struct, what is split */
#define FASTRNN_KERNELS(X)                                   \
    X(pack, pack_list, panels)                               \
    X(matmul, matmul_args, columns or rows)                  \
    X(transpose_rows, weight_grad_list, blocks of features)  \
    X(weight_grad, weight_grad_list, panels)                 \
    X(vector_grad, vector_grad_list, columns)                \
    X(project_table, layer, panels)                          \
    X(forward, layer, batch rows or units)                   \
    X(backward, layer, batch rows or units)                  \
    X(softmax, softmax_args, rows)                           \
    X(embedding, embedding_args, bags)                       \
    X(embedding_grad, embedding_args, columns)               \
    X(drop, drop_args, rows)                                 \
    X(attention, attention_args, queries)                    \
    X(attention_grad, attention_args, what is looked at)     \
    X(update, update_args, elements or rows)                 \
    X(fma_peak, peak_args, slots of sink)

/* name, what the CPU must have: best first. Each is src_c/isa_NAME.c. */
#if defined(__x86_64__)
#define CPU_HAS(feature) __builtin_cpu_supports(feature)
#define FASTRNN_ISAS(X)                                                                   \
    X(avx512, CPU_HAS("avx512f") && CPU_HAS("avx512dq") && CPU_HAS("avx512bw")            \
                  && CPU_HAS("avx512vl") && CPU_HAS("avx2") && CPU_HAS("fma"))            \
    X(avx2, CPU_HAS("avx2") && CPU_HAS("fma"))                                            \
    X(baseline, 1)
#else
#define FASTRNN_ISAS(X) X(baseline, 1)
#endif

enum {
#define X(name) CELL_##name,
    FASTRNN_CELLS(X)
#undef X
    CELLS
};

typedef struct cell_spec cell_spec; /* layer.h */

typedef struct {
    const char *isa;
    size_t real_size;  /* bytes of a REAL */
    idx lanes;         /* REALs a vector */
    idx feature_block; /* rows of one block of transpose_rows */
    const cell_spec *cells[CELLS];
#define X(name, args, split) kernel *name;
    FASTRNN_KERNELS(X)
#undef X
} kernel_table;

/* The tables this CPU runs, best first; *count receives their number. */
const kernel_table *const *fastrnn_tables(int is_double, int *count);

/* Name of an update rule; NULL past the last one. */
const char *fastrnn_update_rule(int rule);

enum {
    ALIGNMENT = 64,    /* of work space and panels: a cache line */
    MAX_GATES = 4,
    MAX_DEPTH = 512,   /* rows of a panel that one tile reads */
    GRAD_PANELS = 4,   /* panels of weight_grad that share a pass over a block of features */
    MAX_PACKS = 6,     /* products of one call whose B is packed */
    MAX_GRADS = 6,     /* gradients of weights of one call */
    MAX_VECTORS = 3,   /* parameters of one number a unit */
    MAX_VECTOR_GRADS = 6,
};

/* Vectors of neighbouring units that a panel holds of each gate; elements of a panel of K rows so
   many wide, and of the row before them. */
#define UNIT_VECTORS(gates) ((gates) == 1 ? 2 : 1)
#define PANEL_SIZE(K, width) (((K) + 1) * (width))

/* Columns of B regrouped into panels that a micro-kernel reads front to back; the first row of a
   panel is the bias, or 0. B is [K, ld], or with transposed its transpose lies at source. With
   gates == 1 a panel is 2 vectors of neighbouring columns; else it is one vector of the same hidden
   units from each gate, gate g at column offsets[g]. Columns past the end are zero. */
typedef struct {
    idx K, columns, ld; /* columns: of one gate */
    idx gates, offsets[MAX_GATES];
    int transposed;
    const void *source, *bias;
    const void *second_bias; /* added to bias in the first second_bias_gates gates; NULL: nothing */
    idx second_bias_gates;
    void *packed; /* [panels, 1 + K, vectors * lanes] */
} pack_args;

typedef struct {
    idx jobs;
    pack_args job[MAX_PACKS];
} pack_list;

/* C[row, j] = bias[j] + sum_k A[i, k] B[k, j] for row = i, or out_rows[i]. */
typedef struct {
    idx rows, K, columns, a_row;
    const void *A, *packed; /* [rows, K] at every a_row, pack_args.packed */
    const void *B, *bias;   /* where packed == NULL: [K, columns] or its transpose, [columns] or NULL */
    int transposed;
    void *C;                /* [rows, columns] */
    const idx *out_rows;    /* [rows] or NULL */
} matmul_args;

/* C = A^T B, dbias = the sum of B's rows, or with accumulate added to what is there. Row r of A lies
   at a_rows[r], or at A + order[r] * a_row; of B likewise. */
typedef struct {
    idx rows, K, columns, a_row, b_row, c_row;
    int accumulate;
    int same_blocks; /* blocks are those of a job before, which has the same A */
    const void *A, *B;
    const void *const *a_rows, *const *b_rows;
    const idx *order; /* [rows]; NULL: 0, 1, ... */
    void *blocks;    /* [blocks of K, rows, feature_block] */
    void *C, *dbias; /* [K, columns] at every c_row, [columns] or NULL */
} weight_grad_args;

typedef struct {
    idx jobs;
    weight_grad_args job[MAX_GRADS];
    void *panels; /* [parts, GRAD_PANELS, 1 + MAX_DEPTH, 2 * lanes] */
} weight_grad_list;

/* C[j] = the sum of A[r, j] B[r, j], the rows as weight_grad_args has them, or with accumulate added to
   what is there. Row r of B may lie at B + b_order[r] * b_row, too; less the mean and times the scale
   that lie at moments + order[r] * moments_row; B == NULL: 1. */
typedef struct {
    idx rows, columns, a_row, b_row, moments_row;
    int accumulate;
    const void *A, *B, *moments;
    const void *const *b_rows;
    const idx *order, *b_order;
    void *C;
} vector_grad_args;

typedef struct {
    idx jobs;
    vector_grad_args job[MAX_VECTOR_GRADS];
} vector_grad_list;

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

/* A bag holds the words x[offsets[i]..offsets[i + 1]], or with offsets == NULL word x[i] alone; its
   vector is their sum, or, with mean, their mean (0 without words). The gradient is out, or with
   accumulate is added to what out holds; dout of bag i then is row order[i]. */
typedef struct {
    idx bags, vocabulary, W;
    int mean, accumulate;
    const idx *x, *offsets; /* [words] [bags + 1] */
    const idx *order;       /* [bags]; NULL: 0, 1, ... */
    const void *in;  /* embedding: weights [vocabulary, W]; embedding_grad: dout [bags, W] */
    void *out;       /* embedding: [bags, W]; embedding_grad: dweights [vocabulary, W] */
} embedding_args;

/* out = in times scale but 0 where the bits of philox.h for (kind, first_row + row, step 0, column) are
   below the limit. Both [rows, repeats, columns], their strides in elements; all repeats alike. */
typedef struct {
    idx rows, repeats, columns, first_row;
    idx in_strides[3], out_strides[3];
    unsigned long long seed;
    int kind;
    unsigned below;
    double scale;
    const void *in;
    void *out;
} drop_args;

/* Query i looks at the places of number index[i]: weights[i] is the softmax of w . tanh(key + query[i])
   or, with w == NULL, of key . query[i] / sqrt(A), context[i] the sum of weights[i] times values.
   Backward the queries of number u are order[first[u]..first[u + 1]]; dkeys and dvalues are added to. */
typedef struct {
    idx queries, looked_at, places, A, D;
    const idx *index;                        /* [queries]; NULL: 0, 1, ... */
    const void *query, *keys, *values, *w;   /* [queries, A] [looked_at, places, A or D] [A] */
    void *weights, *context;                 /* [queries, places] [queries, D] */
    const idx *order, *first;                /* [queries] [looked_at + 1] */
    const void *dcontext, *dweights;         /* like those; dweights == NULL: 0 */
    void *dquery, *dkeys, *dvalues, *dw;     /* dvalues == NULL: not wanted; dw [queries, A] */
    void *dscores;                           /* [queries, places], work space */
} attention_args;

/* out = keep w, updated by dw; m and v, the moving averages of the gradient and of its square, in
   place. out may be w. With rows, all but dw [n, width] are arrays of rows of which these n, each
   once, are updated. */
enum {
#define X(name, ...) UPDATE_##name,
    FASTRNN_UPDATE_RULES(X)
#undef X
};

typedef struct {
    idx n, width;
    const idx *rows; /* [n] or NULL */
    int rule;        /* UPDATE_name */
    double rate, keep, decay_m, gain_m, decay_v, gain_v, correct_v, epsilon;
    const void *w, *dw;
    void *out, *m, *v;
} update_args;

typedef struct {
    idx iterations; /* of fma_peak: each is PEAK_FMAS multiply-adds a lane */
    double *sink;   /* start in, result out */
} peak_args;

enum { PEAK_CHAINS = 12, PEAK_FMAS = 4 * PEAK_CHAINS };

#endif
