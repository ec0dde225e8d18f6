/* Work space: a function takes piece by piece what it needs, first dry, for the size, and then from
   memory of that size. So a size or an offset is never written twice. */
#ifndef FASTRNN_LAYOUT_H
#define FASTRNN_LAYOUT_H
#include "kernels.h"
#include <stdint.h>
#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/asan_interface.h>
/* Under the sanitizer no piece may be left for its neighbour; and no work space lies on the stack,
   where the marks would stay. */
enum { GAP = 2 * ALIGNMENT, LEAST_BYTES = 64 << 10 };
#define FORBID(from, bytes) __asan_poison_memory_region(from, bytes)
#else
enum { GAP = 0, LEAST_BYTES = 1 };
#define FORBID(from, bytes) (void)(from)
#endif

typedef struct {
    char *memory; /* NULL: dry */
    size_t used;  /* SIZE_MAX: more than can be counted */
} arena;

/* count things of a size, aligned; NULL while dry. */
static inline void *take(arena *a, size_t count, size_t size)
{
    size_t bytes, used;
    const size_t at = a->used + (ALIGNMENT - 1) - (a->used + ALIGNMENT - 1) % ALIGNMENT;
    if (at < a->used || __builtin_mul_overflow(count, size, &bytes)
        || __builtin_add_overflow(at, bytes, &used) || used > PTRDIFF_MAX - GAP) {
        a->used = SIZE_MAX;
        return 0;
    }
    a->used = used + GAP;
    if (!a->memory)
        return 0;
    FORBID(a->memory + used, GAP);
    return a->memory + at;
}

/* What memory the dry run asks for: more than taken, since 0 stands for too much. */
static inline size_t arena_bytes(const arena *a)
{
    return a->used == SIZE_MAX ? 0 : a->used + LEAST_BYTES;
}

/* Panels of two vectors enough for n elements, and one vector more: rows an even number apart share
   few sets of the cache. */
static inline idx padded_stride(const kernel_table *k, idx n)
{
    return (2 * CEIL_DIV(n, 2 * k->lanes) + 1) * k->lanes;
}

/* The panels of a packed B: K rows and the bias, of each gate so many columns. */
static inline void *take_panels(arena *a, const kernel_table *k, idx K, idx gates, idx columns)
{
    const idx units = k->lanes * UNIT_VECTORS(gates);
    return take(a, CEIL_DIV(columns, units), PANEL_SIZE(K, units * gates) * k->real_size);
}

/* The transposed blocks of the left side of a gradient of weights, and the panels of its right. */
static inline void *take_blocks(arena *a, const kernel_table *k, idx features, idx rows)
{
    return take(a, CEIL_DIV(features, k->feature_block), rows * k->feature_block * k->real_size);
}

static inline void *take_grad_panels(arena *a, const kernel_table *k, int threads)
{
    return take(a, threads * GRAD_PANELS, PANEL_SIZE(MAX_DEPTH, 2 * k->lanes) * k->real_size);
}

#endif
