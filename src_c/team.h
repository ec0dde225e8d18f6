/* The threads: all parts of a kernel at work. They are the engine's own: those of OpenMP's libraries
   are ended and started anew as teams change their size, are shared with whoever else in the process
   uses such a library, spin by its settings, and make a forked process wait for ever. Where one such
   library is at work between two calls, its threads are borrowed: its own size, and no others beside
   them. */
#ifndef FASTRNN_TEAM_H
#define FASTRNN_TEAM_H
#include "kernels.h"
#include <stdint.h>

enum {
    /* A call gets a thread for so many operations: fewer cost more to wake it than they save. */
    FLOPS_PER_THREAD = 2000000,
    MOST_THREADS = 1024,
};

/* At most so many threads a call from now on; bounded: and no more than the CPUs that the calling
   thread may use when it calls. */
void team_set_threads(int threads, int bounded);
/* At most so many threads a call of the calling thread from now on, whatever else is set; 0: as many
   as are set. Returns the bound before. */
int team_bound_own(int threads);
/* Entries of an OpenMP library: GOMP_parallel, omp_get_thread_num, omp_get_num_threads. */
typedef void openmp_region(void (*)(void *), void *, unsigned threads, unsigned flags);
typedef int openmp_question(void);
typedef struct {
    openmp_region *parallel;
    openmp_question *number, *count;
} openmp;

/* Calls of one thread (its pthread_self) run from now on on the library's threads, as many as it
   bounds its calls by. Not those of others: the library would start as many for each of them. Ends
   with a fork, for the child has none, and the library would wait for them. */
void team_borrow(openmp, uintptr_t thread);

/* This CPU and others that were named so from now on, whatever the calling thread may use. */
void team_add_cpu(int cpu);
/* One for every flops_per_thread operations. */
void team_set_work(double flops_per_thread);
int team_threads_for(double flops);

/* All parts of a kernel. at_once: its parts meet, so there may be fewer of them than asked for. Calls
   from several threads share the team: who finds it at work gets fewer threads, down to its own. */
void team_run(kernel *, const void *args, int parts, int at_once);

/* The same where the parts meet at flags [parts, FLAG_STRIDE]. Where they waited for each other so long
   that one alone would have been faster, beside a busy process, the team is oversubscribed for a
   moment. */
void team_run_meeting(kernel *, const void *args, int parts, int *flags);
int team_is_oversubscribed(void);
void team_oversubscribe(void);

/* Most parts a kernel has run in since the last time this was asked. */
int team_most_parts(void);

/* 1, and one more in a process that was forked from one that had the engine loaded. */
extern int team_generation;

/* A lock that is never waited for: 1 where it was free. What a thread held that was not forked with
   the process is free. */
static inline int take_flag(int *flag)
{
    return __atomic_exchange_n(flag, team_generation, __ATOMIC_ACQUIRE) != team_generation;
}

static inline void give_flag(int *flag)
{
    __atomic_store_n(flag, 0, __ATOMIC_RELEASE);
}

#endif
