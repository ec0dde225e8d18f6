/* The threads: all parts of a kernel at work, one team of steady size. */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H
#include "kernels.h"

extern const int team_has_openmp;

/* A call gets a thread for so many operations: fewer cost more to wake it than they save (a parallel
   region costs 0.5 us hot, 60 us after an idle spell). */
enum { FLOPS_PER_THREAD = 2000000 };

/* At most so many threads a call from now on, and one for every flops_per_thread operations. */
void team_set_threads(int threads);
void team_set_work(double flops_per_thread);
int team_threads_for(double flops);

/* All parts of a kernel. at_once: its parts meet, so there may be fewer of them than asked for. */
void team_run(kernel *, const void *args, int parts, int at_once);

/* The same where the parts meet at flags [parts, FLAG_STRIDE], and wait long for each other beside a
   busy process: then the team is oversubscribed for a moment. */
void team_run_meeting(kernel *, const void *args, int parts, int *flags);
int team_is_oversubscribed(void);
void team_oversubscribe(void);

/* After a fork, in the child: it has no threads but one. */
void team_forget(void);

/* Most parts a kernel has run in since the last time this was asked. */
int team_most_parts(void);

/* A lock that is never waited for: 1 where it was free. */
static inline int take_flag(int *flag)
{
    return !__atomic_exchange_n(flag, 1, __ATOMIC_ACQUIRE);
}

static inline void give_flag(int *flag)
{
    __atomic_store_n(flag, 0, __ATOMIC_RELEASE);
}

#endif
