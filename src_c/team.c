#define _GNU_SOURCE /* affinity */
#include "team.h"
#include "barrier.h"
#include "clock.h"
#include "interrupt.h"
#include "thread.h"
#include <stdlib.h>
#include <string.h>
#if defined(__linux__)
#include <sched.h>
#endif

/* Threads that share units wait for each other at every step; beside a busy process that is up to a
   time slice a step, and for a moment one thread does all. */
enum {
    OVERSUBSCRIBED_NANOSECONDS = 100000000, /* twice as long each time, up to */
    LONGEST_NANOSECONDS = 1600000000,
    /* Of more threads a meeting itself takes what one thread alone would not need. */
    MOST_GAIN = 4,
    SPIN_NANOSECONDS = 50000,
    YIELD_NANOSECONDS = 1000000,
    SPINS_A_LOOK = 64,
};

#if defined(__linux__)
typedef cpu_set_t cpu_mask;
#else
typedef char cpu_mask;
#endif

/* A thread, and the parts first, first + step, ... that it is to run. busy and waiting are all that
   is touched by two threads at once: who sets busy owns the rest until it is 0 again. */
typedef struct worker {
    struct worker *next;
    pthread_t thread;
    cpu_mask cpus;
    kernel *f;
    const void *args;
    int first, step, parts;
    int busy, waiting;
    pthread_mutex_t lock;
    pthread_cond_t changed;
} worker;

static struct {
    int threads, bounded, most_parts;
    double flops_per_thread;
    cpu_mask cpus; /* empty: those of the calling thread */
    long long oversubscribed_until, oversubscribed_for;
    pthread_mutex_t lock; /* of what follows */
    worker *idle;         /* the one that was idle last first: its caches are the warmest */
    int started;
    openmp borrowed; /* parallel == NULL: none */
    uintptr_t borrower;
} team = {.threads = 1, .flops_per_thread = FLOPS_PER_THREAD, .lock = PTHREAD_MUTEX_INITIALIZER};

#if defined(__linux__)
/* The CPUs that this thread may use, when it last asked; workers that it takes get the same. */
static _Thread_local cpu_mask own_cpus;
#endif

/* What the calling thread bounds its own calls by. */
static _Thread_local int own_bound;

void team_set_threads(int threads, int bounded)
{
    team.threads = threads;
    team.bounded = bounded;
}

int team_bound_own(int threads)
{
    const int before = own_bound;
    own_bound = threads;
    return before;
}

void team_borrow(openmp library, uintptr_t thread)
{
    team.borrower = thread;
    team.borrowed = library;
}

void team_set_work(double flops_per_thread)
{
    team.flops_per_thread = flops_per_thread;
}

void team_add_cpu(int cpu)
{
#if defined(__linux__)
    CPU_SET(cpu, &team.cpus);
#else
    (void)cpu;
#endif
}

static int count_own_cpus(void)
{
#if defined(__linux__)
    if (CPU_COUNT(&team.cpus)) {
        own_cpus = team.cpus;
        return CPU_COUNT(&own_cpus);
    }
    if (!sched_getaffinity(0, sizeof own_cpus, &own_cpus))
        return CPU_COUNT(&own_cpus);
    CPU_ZERO(&own_cpus); /* more than the mask holds */
#endif
    return MOST_THREADS;
}

int team_threads_for(double flops)
{
    const double worth = flops / team.flops_per_thread;
    const int set = own_bound ? MIN(own_bound, team.threads) : team.threads;
    if (worth < 2 || set == 1)
        return 1;
    const int cpus = count_own_cpus(), most = team.bounded ? MIN(cpus, set) : set;
    return worth < most ? (int)worth : most;
}

int (*fastrnn_interrupt)(void);
int team_generation = 1;

/* ---- workers ------------------------------------------------------------------------------------- */

/* Until busy has the value, first in a loop that then gives way to whoever wants the CPU: on a virtual
   machine it takes a tenth of a millisecond to be woken, and whoever wakes 15 takes longer. By the
   clock, for a pause takes 10 ns on one CPU and 40 on the next. */
static void await(worker *w, int busy)
{
    long long begin = 0;
    for (int spins = 1;; spins++) {
        if (__atomic_load_n(&w->busy, __ATOMIC_ACQUIRE) == busy)
            return;
        relax();
        if (spins % SPINS_A_LOOK)
            continue;
        const long long now = nanoseconds();
        if (!begin)
            begin = now;
        if (now - begin > YIELD_NANOSECONDS)
            break;
        if (now - begin > SPIN_NANOSECONDS)
            GIVE_WAY();
    }
    pthread_mutex_lock(&w->lock);
    __atomic_fetch_add(&w->waiting, 1, __ATOMIC_SEQ_CST);
    while (__atomic_load_n(&w->busy, __ATOMIC_SEQ_CST) != busy)
        pthread_cond_wait(&w->changed, &w->lock);
    __atomic_fetch_sub(&w->waiting, 1, __ATOMIC_RELAXED);
    pthread_mutex_unlock(&w->lock);
}

/* Either this sees that the other side waits, or that side sees busy before it sleeps. Both may be
   waiting: a worker that has not woken yet, and already who waits for it to be done. */
static void set_busy(worker *w, int busy)
{
    __atomic_store_n(&w->busy, busy, __ATOMIC_SEQ_CST);
    if (__atomic_load_n(&w->waiting, __ATOMIC_SEQ_CST)) {
        pthread_mutex_lock(&w->lock);
        pthread_cond_broadcast(&w->changed);
        pthread_mutex_unlock(&w->lock);
    }
}

static void run_parts(kernel *f, const void *args, int first, int step, int parts)
{
    for (int part = first; part < parts; part += step)
        f(args, part, parts);
}

static void *work(void *given)
{
    worker *const w = given;
    for (;;) {
        await(w, 1);
        run_parts(w->f, w->args, w->first, w->step, w->parts);
        set_busy(w, 0);
    }
    return 0;
}

/* NULL where the system has no thread left. */
static worker *start_worker(void)
{
    worker *const w = calloc(1, sizeof *w);
    if (!w)
        return 0;
    pthread_mutex_init(&w->lock, 0);
    pthread_cond_init(&w->changed, 0);
    if (start_thread(&w->thread, work, w)) {
        free(w);
        return 0;
    }
    return w;
}

/* Up to n workers as a list; *count receives how many. */
static worker *take_workers(int n, int *count)
{
    worker *first = 0;
    *count = 0;
    pthread_mutex_lock(&team.lock);
    for (worker *w; *count < n; ++*count) {
        if ((w = team.idle))
            team.idle = w->next;
        else if (team.started < n && (w = start_worker()))
            team.started++;
        else
            break;
        w->next = first;
        first = w;
    }
    pthread_mutex_unlock(&team.lock);
    return first;
}

static void give_workers(worker *first)
{
    pthread_mutex_lock(&team.lock);
    for (worker *w = first, *next; w; w = next) {
        next = w->next;
        w->next = team.idle;
        team.idle = w;
    }
    pthread_mutex_unlock(&team.lock);
}

/* The CPUs of this thread may have changed since the worker was started. */
static void move_worker(worker *w)
{
#if defined(__linux__)
    if (!CPU_EQUAL(&w->cpus, &own_cpus) && CPU_COUNT(&own_cpus)) {
        pthread_setaffinity_np(w->thread, sizeof own_cpus, &own_cpus);
        w->cpus = own_cpus;
    }
#else
    (void)w;
#endif
}

static void note_parts(int parts)
{
    if (parts > __atomic_load_n(&team.most_parts, __ATOMIC_RELAXED))
        __atomic_store_n(&team.most_parts, parts, __ATOMIC_RELAXED);
}

static void run_on_workers(kernel *f, const void *args, int parts, int at_once)
{
    int workers = 0, first = 1;
    worker *const crew = parts > 1 ? take_workers(MIN(parts, MOST_THREADS) - 1, &workers) : 0;
    if (at_once)
        parts = workers + 1;
    note_parts(parts);
    for (worker *w = crew; w; w = w->next) {
        move_worker(w);
        w->f = f, w->args = args, w->first = first++, w->step = workers + 1, w->parts = parts;
        set_busy(w, 1);
    }
    run_parts(f, args, 0, workers + 1, parts);
    for (worker *w = crew; w; w = w->next)
        await(w, 0);
    if (crew)
        give_workers(crew);
}

/* ---- borrowed threads ---------------------------------------------------------------------------- */

typedef struct {
    kernel *f;
    const void *args;
    int parts, at_once;
} region;

/* What each thread of a region does: there may be fewer than were asked for. */
static void run_region(void *given)
{
    const region *const r = given;
    const int number = team.borrowed.number(), count = team.borrowed.count();
    const int parts = r->at_once ? MIN(r->parts, count) : r->parts;
    if (number == 0)
        note_parts(parts);
    run_parts(r->f, r->args, number, count, parts);
}

static int may_borrow(void)
{
    return own_bound && team.borrowed.parallel && (uintptr_t)pthread_self() == team.borrower;
}

void team_run(kernel *f, const void *args, int parts, int at_once)
{
    region r = {f, args, parts, at_once};
    if (parts > 1 && may_borrow())
        /* All of them, also for fewer parts: the library ends those that a region leaves out. */
        team.borrowed.parallel(run_region, &r, own_bound, 0);
    else
        run_on_workers(f, args, parts, at_once);
}

int team_most_parts(void)
{
    return __atomic_exchange_n(&team.most_parts, 0, __ATOMIC_RELAXED);
}

/* ---- busy neighbours ----------------------------------------------------------------------------- */

void team_oversubscribe(void)
{
    const long long last = __atomic_load_n(&team.oversubscribed_for, __ATOMIC_RELAXED);
    const long long now = MIN(MAX(2 * last, OVERSUBSCRIBED_NANOSECONDS), LONGEST_NANOSECONDS);
    __atomic_store_n(&team.oversubscribed_for, now, __ATOMIC_RELAXED);
    __atomic_store_n(&team.oversubscribed_until, nanoseconds() + now, __ATOMIC_RELAXED);
}

int team_is_oversubscribed(void)
{
    const long long until = __atomic_load_n(&team.oversubscribed_until, __ATOMIC_RELAXED);
    return until && nanoseconds() < until;
}

/* Whether one thread alone would have been faster than these, which met, at a guess: while one of them
   does not run all others wait for it. A single wait may have had any reason. */
static int would_be_faster_alone(const int *flags, int parts, double nanoseconds)
{
    int met = 0, long_waits = 0;
    double waited = 0;
    for (const int *flag = flags; flag < flags + parts * FLAG_STRIDE; flag += FLAG_STRIDE) {
        met += flag[STAGE] > 0;
        long_waits = MAX(long_waits, flag[LONG_WAITS]);
        waited += 1e3 * flag[WAITED];
    }
    const double running = nanoseconds - waited / (met - 1);
    return long_waits > 1 && MIN(met, MOST_GAIN) * running < nanoseconds;
}

void team_run_meeting(kernel *f, const void *args, int parts, int *flags)
{
    memset(flags, 0, parts * FLAG_STRIDE * sizeof(int));
    const long long begin = nanoseconds();
    team_run(f, args, parts, 1);
    if (parts == 1)
        return;
    if (would_be_faster_alone(flags, parts, nanoseconds() - begin))
        team_oversubscribe();
    else
        __atomic_store_n(&team.oversubscribed_for, 0, __ATOMIC_RELAXED);
}

/* ---- forks --------------------------------------------------------------------------------------- */

#if !defined(_WIN32)
/* The child has none of the threads, and a lock may have been held by one of them. */
static void start_anew(void)
{
    pthread_mutex_init(&team.lock, 0);
    team.idle = 0;
    team.started = 0;
    team.borrowed.parallel = 0;
    team_generation++;
}

__attribute__((constructor)) static void know_of_forks(void)
{
    pthread_atfork(0, 0, start_anew);
}
#endif
