#include "team.h"
#include "barrier.h"
#include <string.h>
#include <time.h>
#ifdef _OPENMP
#include <omp.h>
const int team_has_openmp = 1;
#else
const int team_has_openmp = 0;
#endif

/* Threads that share units wait for each other at every step; beside a busy process that is up to a
   time slice a step, and for a moment they share rows instead: some milliseconds in each 0.1 s. */
enum {
    OVERSUBSCRIBED_NANOSECONDS = 100000000,
    MEETINGS_A_WAIT = 100, /* a long call may have more than one without it */
};

static struct {
    int threads, forked, most_parts;
    double flops_per_thread;
    long long oversubscribed_until;
} team = {.threads = 1, .flops_per_thread = FLOPS_PER_THREAD};

void team_set_threads(int threads)
{
    team.threads = threads;
}

void team_set_work(double flops_per_thread)
{
    team.flops_per_thread = flops_per_thread;
}

int team_threads_for(double flops)
{
    const double worth = flops / team.flops_per_thread;
    if (team.forked || worth < 2)
        return 1;
    return worth < team.threads ? (int)worth : team.threads;
}

/* The team always has all its threads, of which a call may leave some idle: OpenMP's libraries end
   the threads that a smaller team does not need, and start new ones for the next larger one. */
void team_run(kernel *f, const void *args, int parts, int at_once)
{
    if (parts > __atomic_load_n(&team.most_parts, __ATOMIC_RELAXED))
        __atomic_store_n(&team.most_parts, parts, __ATOMIC_RELAXED);
#ifdef _OPENMP
    if (!team.forked && parts > 1) {
#pragma omp parallel num_threads(MAX(parts, team.threads))
        {
            const int given = omp_get_num_threads(), n = at_once ? MIN(parts, given) : parts;
            for (int part = omp_get_thread_num(); part < n; part += given)
                f(args, part, n);
        }
        return;
    }
#endif
    const int n = at_once ? 1 : MAX(1, parts);
    for (int part = 0; part < n; part++)
        f(args, part, n);
}

static long long nanoseconds(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return 1000000000LL * t.tv_sec + t.tv_nsec;
}

void team_oversubscribe(void)
{
    __atomic_store_n(&team.oversubscribed_until, nanoseconds() + OVERSUBSCRIBED_NANOSECONDS,
                     __ATOMIC_RELAXED);
}

int team_is_oversubscribed(void)
{
    const long long until = __atomic_load_n(&team.oversubscribed_until, __ATOMIC_RELAXED);
    return until && nanoseconds() < until;
}

void team_run_meeting(kernel *f, const void *args, int parts, int *flags)
{
    int waits = 0;
    memset(flags, 0, parts * FLAG_STRIDE * sizeof(int));
    team_run(f, args, parts, 1);
    for (int part = 0; part < parts; part++)
        waits += flags[part * FLAG_STRIDE + 1];
    if (waits > 1 + flags[0] / MEETINGS_A_WAIT)
        team_oversubscribe();
}

void team_forget(void)
{
    team.forked = 1;
}

int team_most_parts(void)
{
    return __atomic_exchange_n(&team.most_parts, 0, __ATOMIC_RELAXED);
}
