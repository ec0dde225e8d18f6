/* A long call asks now and then whether it is to end before it is done. */
#ifndef FASTRNN_INTERRUPT_H
#define FASTRNN_INTERRUPT_H
#include "clock.h"
#include <stddef.h>

enum {
    ASK_NANOSECONDS = 50000000,
    /* Work between two looks at the clock: some milliseconds, on a slow machine some tens of them. */
    UNDISTURBED_FLOPS = 200000000,
};

/* Who is asked, on the calling thread; nonzero: end. NULL: nobody. */
extern int (*fastrnn_interrupt)(void);

/* How many things of so much work there are between two looks. */
static inline ptrdiff_t undisturbed(double flops)
{
    return flops < UNDISTURBED_FLOPS ? (ptrdiff_t)(UNDISTURBED_FLOPS / (flops + 1)) : 1;
}

/* due: when to ask next; 0 at first. */
static inline int is_interrupted(long long *due)
{
    const long long now = nanoseconds();
    if (*due == 0)
        *due = now + ASK_NANOSECONDS;
    if (now < *due || !fastrnn_interrupt)
        return 0;
    *due = now + ASK_NANOSECONDS;
    return fastrnn_interrupt();
}

#endif
