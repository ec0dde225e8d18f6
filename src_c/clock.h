/* Time that only goes forward. */
#ifndef FASTRNN_CLOCK_H
#define FASTRNN_CLOCK_H
#include <time.h>

static inline long long nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1000000000LL * t.tv_sec + t.tv_nsec;
}

#endif
