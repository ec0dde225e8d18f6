/* Blocks of memory that are used again: the kernel would have to clear every page of a fresh one,
   which takes a quarter of the time of a large layer. */
#ifndef FASTRNN_POOL_H
#define FASTRNN_POOL_H
#include <stddef.h>

enum {
    POOL_ALIGNMENT = 64,
    KEPT_FROM = 256 << 10, /* smaller blocks are left to malloc */
};

/* Memory of at least *size bytes, which becomes its real size; NULL where there is none. */
void *pool_take(size_t *size);

/* Keeps a block for the next call, and drops those that have waited longest. Where many megabytes
   wait, the system gets back what no call has wanted for some seconds. */
void pool_give(void *memory, size_t size);

/* Gives back all that waits; returns how many bytes that was. */
size_t pool_release(void);

#endif
