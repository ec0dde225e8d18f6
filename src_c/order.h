/* The batch sorted by length, step by step; and where rows end. */
#ifndef FASTRNN_ORDER_H
#define FASTRNN_ORDER_H
#include "layer.h"
#include "layout.h"

/* Its place, then filled. */
schedule take_schedule(arena *, const problem *);
void sort_batch(const problem *, schedule *);

static inline idx length_of(const problem *p, idx n)
{
    return p->lengths ? p->lengths[n] : p->T;
}

/* Zeros in an array of steps past the length of each row; a may be NULL. */
void clear_past_lengths(const problem *, void *a, size_t row_bytes);

#endif
