#include "plan.h"
#include "team.h"
#if defined(__APPLE__)
#include <sys/sysctl.h>
#elif defined(__unix__)
#include <unistd.h>
#endif

enum {
    /* Where the system does not say: most CPUs of today have as much or more. */
    ASSUMED_L2 = 1 << 20,
    SMALLEST_L2 = 256 << 10,
    LARGEST_L2 = 4 << 20,
    /* With few rows memory is the limit: an operation takes as long as so many with many rows, and
       two caches hold weights that one does not. */
    VECTOR_COST = 6,
    /* To pack a weight counts as so many operations. It takes as long as a hundred; but where it is all
       that a call does, that is a step of 50 us, beside a busy process a second thread costs more. */
    PACK_COST = 12,
    /* Below so many rows a thread it may pay to share the units. */
    UNITS_ROWS = 64,
    /* A stage of a meeting (barrier.h) takes as long as so many vectors of Wh: a quarter of a
       microsecond where cores are far apart. */
    STAGE_VECTORS = 900,
};

cache_sizes fastrnn_caches;

static long system_l2(void)
{
#if defined(__APPLE__)
    long size = 0;
    size_t length = sizeof size;
    return sysctlbyname("hw.l2cachesize", &size, &length, 0, 0) ? 0 : size;
#elif defined(_SC_LEVEL2_CACHE_SIZE)
    return sysconf(_SC_LEVEL2_CACHE_SIZE);
#else
    return 0;
#endif
}

void fastrnn_read_caches(void)
{
    const long said = system_l2();
    const size_t l2 = said <= 0 ? ASSUMED_L2 : MIN(MAX(said, SMALLEST_L2), LARGEST_L2);
    fastrnn_caches = (cache_sizes){
        .block_bytes = l2 * 3 / 8, .chunk_bytes = l2 / 2, .units_bytes = l2 / 2};
}

/* Vectors of Wh for some rows: the first pays for the loads. */
static double step_cost(idx rows, double vectors)
{
    return rows ? vectors * (1 + .6 * (rows - 1)) : 0;
}

/* Likewise. */
static double meeting_cost(int threads)
{
    int stages = 0;
    while (1 << stages < threads)
        stages++;
    return stages * STAGE_VECTORS;
}

/* Sharing the units, each thread reads its part of Wh alone, which then fits its cache or nearly so;
   but all meet after every step, which beside a busy process takes up to a time slice each. A single
   step reads Wx like Wh. */
static int prefers_units(const kernel_table *k, const problem *p, int threads, int lasting)
{
    const size_t rows = p->H + (p->T == 1 ? p->D : 0);
    const size_t bytes = rows * p->cell->gates * p->H * k->real_size;
    const double vectors = (double)bytes / (k->lanes * k->real_size);
    if (!has_product(p->cell)) /* nobody meets */
        return p->N < 2 * threads && CEIL_DIV(p->H, 2 * k->lanes) >= MIN(p->N, threads);
    if (threads == 1 || (!lasting && team_is_oversubscribed()))
        return 0;
    if (bytes >= fastrnn_caches.units_bytes && p->N < UNITS_ROWS * threads)
        return 1;
    return p->N < 2 * threads
        && step_cost(p->N, vectors) / threads + meeting_cost(threads)
            < step_cost(CEIL_DIV(p->N, threads), vectors);
}

static plan plan_of(const kernel_table *k, const problem *p, int packed, int lasting, double flops)
{
    const int threads = team_threads_for(flops);
    const int by_units = prefers_units(k, p, threads, lasting);
    /* One row that nobody shares leaves nothing to others that were worth waking them. */
    return (plan){.threads = by_units || p->N > 1 ? threads : 1, .by_units = by_units,
                  .packed = packed};
}

/* Operations: the two products over all steps, so many times, and packing the weights. */
static double work(const problem *p, int times, int packs)
{
    const double weights = (double)(p->D + recurrent_rows(p)) * p->cell->gates * p->H;
    return (2. * times * p->N * p->T + packs * PACK_COST) * weights;
}

plan fastrnn_plan_of_forward(const kernel_table *k, const layer *l, int lasting)
{
    const problem *const p = &l->problem;
    const int few = p->N * p->T <= UNPACKED_ROWS, packs = !few && !l->panels.Wx;
    return plan_of(k, p, packs || l->panels.Wx, lasting, work(p, few ? VECTOR_COST : 1, packs));
}

plan fastrnn_plan_of_backward(const kernel_table *k, const layer *l)
{
    const problem *const p = &l->problem;
    const int packs = p->N * p->T > UNPACKED_ROWS_BACKWARD && !l->panels.Wx_T;
    return plan_of(k, p, packs || l->panels.Wx_T, 0, work(p, 2, packs));
}

void run_by_plan(kernel *f, const layer *l, int *flags)
{
    /* The work space of threads that share units serves any number of them. */
    if (l->plan.by_units && !has_product(l->problem.cell))
        team_run(f, l, l->plan.threads, 0);
    else if (l->plan.by_units)
        team_run_meeting(f, l, team_is_oversubscribed() ? 1 : l->plan.threads, flags);
    else
        team_run(f, l, (int)MIN(l->plan.threads, MAX(1, l->problem.N)), 0);
}
