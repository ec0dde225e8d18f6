/* All parts of one kernel meet: a flag a part, each on a cache line of its own. At each stage a part
   waits for the one that is so far before it, twice as far each time: after log2(parts) stages, of 0.2
   us where all run, it has heard of all. Who waits long gives its CPU away, for others may need it. */
#ifndef FASTRNN_BARRIER_H
#define FASTRNN_BARRIER_H
#include "clock.h"
#include "kernels.h"
#if defined(_WIN32)
#include <windows.h>
#define GIVE_WAY() SwitchToThread()
#else
#include <sched.h>
#define GIVE_WAY() sched_yield()
#endif

enum {
    SPINS = 2000,
    FLAG_STRIDE = 16, /* ints between the flags: one cache line each */
    /* What a part says at its flag: the stage it has come to, at how many meetings it waited long, and
       for how many microseconds. */
    STAGE = 0,
    LONG_WAITS,
    WAITED,
};

static inline void relax(void)
{
#if defined(__x86_64__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

/* Returns how long it waited for a flag, in microseconds; 0: not long. */
static inline int await_stage(const int *flag, int stage)
{
    for (int spins = 0; spins < SPINS; spins++) {
        if (__atomic_load_n(flag, __ATOMIC_ACQUIRE) >= stage)
            return 0;
        relax();
    }
    const long long begin = nanoseconds();
    while (__atomic_load_n(flag, __ATOMIC_ACQUIRE) < stage)
        GIVE_WAY();
    return 1 + (int)((nanoseconds() - begin) / 1000);
}

/* stage: 0 at the first meeting, and then left alone. Long waits of the first meeting do not count: a
   sleeping thread may have had to be woken. */
static inline void meet(int *flags, idx part, idx parts, int *stage)
{
    int *const own = flags + part * FLAG_STRIDE;
    const int first = *stage == 0;
    int waited = 0;
    for (idx distance = 1; distance < parts; distance *= 2) {
        const idx other = part - distance + (part < distance ? parts : 0);
        __atomic_store_n(&own[STAGE], ++*stage, __ATOMIC_RELEASE);
        waited += await_stage(flags + other * FLAG_STRIDE, *stage);
    }
    if (waited && !first) {
        own[LONG_WAITS]++;
        own[WAITED] += waited;
    }
}

#endif
