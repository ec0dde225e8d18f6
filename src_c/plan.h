/* How a call is cut: into how many threads, by what they share, and into blocks for the caches. All
   cut points stand here and in plan.c, and nothing in them changes a bit of a result. */
#ifndef FASTRNN_PLAN_H
#define FASTRNN_PLAN_H
#include "layer.h"

/* By the caches of this CPU; read once, when the kernels are loaded. */
typedef struct {
    size_t block_bytes; /* of packed B that stay in L2 while rows pass */
    size_t chunk_bytes; /* of x Wx + b that a thread keeps in cache for the recurrence */
    size_t units_bytes; /* from this size of Wh on it pays to share the units */
} cache_sizes;
extern cache_sizes fastrnn_caches;
void fastrnn_read_caches(void);

enum {
    /* Rows (of one step or of all) up to which reading the weights as they lie beats packing them. */
    UNPACKED_ROWS = 6,
    /* The same backward, where each row would transpose them anew. */
    UNPACKED_ROWS_BACKWARD = 2,
    /* Rows of A that one pass of a gradient of weights transposes. */
    GRAD_ROWS = 2048,
    /* Backward works through chunks of time: as many rows as keep the products of the weights'
       gradients deep, or more while their gate gradients stay in cache. */
    CHUNK_ROWS = 1024,
    CHUNK_BYTES = 4 << 20,
    /* What the formulas of a gate take. */
    FORMULA_ROWS = 16,
};

/* Rows of Wh; or, without a product, of as much work as the formulas. */
static inline idx recurrent_rows(const problem *p)
{
    return has_product(p->cell) ? p->H : FORMULA_ROWS;
}

plan fastrnn_plan_of_forward(const kernel_table *, const layer *, int lasting);
plan fastrnn_plan_of_backward(const kernel_table *, const layer *);

/* A kernel over a layer in the parts that its plan says; flags [threads, FLAG_STRIDE]. */
void run_by_plan(kernel *, const layer *, int *flags);

#endif
