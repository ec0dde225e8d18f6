/* The engine without Python: every cell, forward and backward, and softmax, over generated inputs.
   A line a case with a hash of the bits of each result, so that two machines, instruction sets or
   numbers of threads are compared by diff: .ci/aarch64, .ci/cross.
   bits ISA THREADS; without arguments the names of the instruction sets of this CPU. */
#include "layer.h"
#include "plan.h"
#include "team.h"
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REVERSE = 1, LENGTHS = 2, INDEX = 4, RESET = 8, INITIAL = 16, TRANSPOSED = 32, BH = 64 };
enum { ALL_OPTIONS = 128, TABLE = 5 };

typedef struct {
    idx N, T, D, H;
} shape;

/* Weights as they lie and packed, shared rows and shared units; then several chunks of time, of
   depth and of columns, which are slow to emulate: one choice of options in 32. */
static const shape small[] = {{1, 1, 1, 1}, {2, 3, 7, 33}, {7, 5, 16, 20}, {33, 4, 3, 7}};
static const shape large[] = {{4, 600, 3, 64}, {9, 2, 600, 70}};

static _Alignas(ALIGNMENT) char heap[256 << 20];
static size_t used;
static uint64_t seed;

/* All bits set: what is read before it is written becomes NaN, and shows. */
static void *block(size_t bytes)
{
    void *const at = heap + used;
    used += CEIL_DIV(bytes, ALIGNMENT) * ALIGNMENT;
    if (used > sizeof heap)
        abort();
    return memset(at, 0xff, bytes);
}

static uint64_t draw(void)
{
    seed = seed * 6364136223846793005u + 1442695040888963407u;
    return seed >> 11;
}

/* In [-1, 1), over the root of about so many terms: a power of two, so that nothing is rounded here
   but to float. */
static void *reals(const kernel_table *k, idx count, idx terms)
{
    void *const a = block(count * k->real_size);
    double scale = 0x1p-52;
    for (; terms >= 4; terms /= 4)
        scale /= 2;
    for (idx i = 0; i < count; i++) {
        const double x = scale * ((int64_t)draw() - (INT64_C(1) << 52));
        if (k->real_size == sizeof x)
            ((double *)a)[i] = x;
        else
            ((float *)a)[i] = (float)x;
    }
    return a;
}

static idx *indices(idx count, idx below)
{
    idx *const a = block(count * sizeof *a);
    for (idx i = 0; i < count; i++)
        a[i] = draw() % below;
    return a;
}

static void print(const char *name, const void *a, size_t bytes)
{
    uint64_t hash = 14695981039346656037u;
    for (size_t i = 0; a && i < bytes; i++)
        hash = (hash ^ ((const unsigned char *)a)[i]) * 1099511628211u;
    if (a)
        printf(" %s %016llx", name, (unsigned long long)hash);
}

static const options plain; /* of cells that ask for them */

static problem draw_problem(const kernel_table *k, const cell_spec *cell, shape s, int options)
{
    const idx steps = s.N * s.T;
    problem p = {.options = &plain, .cell = cell, .N = s.N, .T = s.T, .D = s.D, .H = s.H,
                 .P = is_projected(cell) ? CEIL_DIV(s.H, 2) : s.H,
                 .table = options & INDEX ? TABLE : s.N, .reverse = !!(options & REVERSE),
                 .reset_to_initial = !!(options & INITIAL)};
    for (idx g = 0; g < cell->gates; g++)
        p.offsets[g] = g * s.H;
    p.x = reals(k, (options & INDEX ? TABLE : steps) * s.D, 1);
    for (idx i = 0; i < cell->states; i++)
        p.initial[i] = reals(k, s.N * units_of_state(&p, i), 1);
    const idx widths[NORM_PARAMETERS] = {cell->gates, cell->gates, 1, 1};
    for (int i = 0; is_normalised(cell) && i < NORM_PARAMETERS; i++)
        p.norm[i] = reals(k, widths[i] * s.H, 1);
    p.epsilon = 0x1p-10;
    if (options & INDEX)
        p.index = indices(steps, TABLE);
    if (options & LENGTHS)
        p.lengths = indices(s.N, s.T + 1);
    if (options & RESET) {
        unsigned char *const reset = block(steps);
        for (idx i = 0; i < steps; i++)
            reset[i] = draw() % 4 == 0;
        p.reset = reset;
    }
    return p;
}

static layer forward(const kernel_table *k, const problem *p, const weights *w)
{
    const idx outer = p->N * p->T, H = p->H, real = k->real_size;
    layer l = {.problem = *p, .weights = *w};
    for (idx s = 0; s < p->cell->states; s++) {
        l.kept.states[s] = block(outer * units_of_state(p, s) * real);
        l.kept.last[s] = block(p->N * units_of_state(p, s) * real);
    }
    if (p->cell->saves_gates)
        l.kept.gates = block(outer * p->cell->gates * H * real);
    if (p->cell->saves_extra)
        l.kept.extra = block(outer * H * real);
    for (int i = 0; is_normalised(p->cell) && i < 2; i++)
        l.kept.products[i] = block(outer * p->cell->gates * H * real);
    const size_t space = fastrnn_plan_forward(k, &l, 0);
    fastrnn_forward(k, &l, block(space));
    return l;
}

static layer backward(const kernel_table *k, const layer *after, const void *dh,
                      void *const dlast[MAX_STATES])
{
    const problem *const p = &after->problem;
    const idx columns = p->cell->gates * p->H, rows = p->index ? p->table : p->N * p->T;
    const size_t real = k->real_size;
    layer l = {.problem = *p, .weights = after->weights, .kept = after->kept};
    l.gradients = (gradients){.dh = dh, .dx = block(rows * p->D * real),
                              .dWx = block(p->D * columns * real),
                              .dWh = block(p->P * columns * real), .db = block(columns * real),
                              .dWhr = is_projected(p->cell) ? block(p->H * p->P * real) : 0,
                              .dbh = after->weights.bh ? block(columns * real) : 0};
    for (idx s = 0; s < p->cell->states; s++) {
        l.gradients.dlast[s] = dlast[s];
        l.gradients.dinitial[s] = block(p->N * units_of_state(p, s) * real);
    }
    for (int i = 0; is_normalised(p->cell) && i < NORM_PARAMETERS; i++)
        l.gradients.norm[i] = block(columns * real);
    const size_t space = fastrnn_plan_backward(k, &l);
    fastrnn_backward(k, &l, block(space));
    return l;
}

static void run_cell(const kernel_table *k, const cell_spec *cell, shape s, int options)
{
    const idx columns = cell->gates * s.H, outer = s.N * s.T;
    const size_t real = k->real_size;
    used = 0;
    seed = 1 + options;
    const problem p = draw_problem(k, cell, s, options);
    const idx of_h = has_product(cell) ? p.P * columns : cell->diagonal ? s.H : 0;
    const idx projection = is_projected(cell) ? s.H * p.P : 0;
    const int two_biases = options & BH && has_product(cell);
    const weights w = {.Wx = reals(k, s.D * columns, s.D), .Wh = reals(k, of_h, p.P),
                       .Whr = reals(k, projection, s.H),
                       .b = reals(k, columns, 1), .bh = two_biases ? reals(k, columns, 1) : 0,
                       .transposed = !!(options & TRANSPOSED)};
    void *const dh = reals(k, outer * p.P, 1);
    void *const dlast[MAX_STATES] = {reals(k, s.N * p.P, 1), reals(k, s.N * s.H, 1)};
    const layer f = forward(k, &p, &w), b = backward(k, &f, dh, dlast);
    const gradients *const d = &b.gradients;
    printf("%s f%d (%d,%d,%d,%d) %d:", cell->name, (int)real * 8, (int)s.N, (int)s.T, (int)s.D,
           (int)s.H, options);
    print("h", f.kept.states[0], outer * p.P * real);
    print("c", f.kept.states[1], outer * s.H * real);
    print("gates", f.kept.gates, outer * columns * real);
    print("extra", f.kept.extra, outer * s.H * real);
    print("hT", f.kept.last[0], s.N * p.P * real);
    print("cT", f.kept.last[1], s.N * s.H * real);
    print("dx", d->dx, (p.index ? TABLE : outer) * s.D * real);
    print("dh0", d->dinitial[0], s.N * p.P * real);
    print("dc0", d->dinitial[1], s.N * s.H * real);
    print("dWx", d->dWx, s.D * columns * real);
    print("dWh", d->dWh, of_h * real);
    print("dWhr", d->dWhr, projection * real);
    print("db", d->db, columns * real);
    print("dbh", d->dbh, columns * real);
    for (int i = 0; i < NORM_PARAMETERS; i++)
        print("dnorm", d->norm[i], (i < GAIN_C ? columns : cell->norm.of_c ? s.H : 0) * real);
    printf("\n");
}

/* Its sum is as many as a vector has lanes. Not the losses, which take libm's log, and not the
   update rules, where a * b - c * d may be fused in two ways and compilers differ. */
static void run_softmax(const kernel_table *k)
{
    enum { ROWS = 13, CLASSES = 37 };
    const size_t bytes = ROWS * CLASSES * k->real_size;
    used = 0;
    seed = 1;
    softmax_args s = {.rows = ROWS, .classes = CLASSES, .scale = .125,
                      .x = reals(k, ROWS * CLASSES, 1), .y = indices(ROWS, CLASSES),
                      .losses = block(ROWS * sizeof(double)), .dx = block(bytes)};
    team_run(k->softmax, &s, 3, 0);
    printf("softmax f%d:", (int)k->real_size * 8);
    print("dx", s.dx, bytes);
    printf("\n");
}

static void run_table(const kernel_table *k)
{
    for (int cell = 0; cell < CELLS; cell++) {
        for (size_t i = 0; i < sizeof small / sizeof *small; i++)
            for (int options = 0; options < ALL_OPTIONS; options++)
                run_cell(k, k->cells[cell], small[i], options);
        for (size_t i = 0; i < sizeof large / sizeof *large; i++)
            for (int options = i; options < ALL_OPTIONS; options += 32 + 11)
                run_cell(k, k->cells[cell], large[i], options);
    }
    run_softmax(k);
}

int main(int argc, char **argv)
{
    fastrnn_read_caches();
    team_set_threads(argc == 3 ? atoi(argv[2]) : 1, 0);
    team_set_work(1);
    for (int is_double = 0; is_double < 2; is_double++) {
        int count = 0;
        const kernel_table *const *const tables = fastrnn_tables(is_double, &count);
        for (int i = 0; i < count; i++)
            if (argc != 3 && !is_double)
                printf("%s\n", tables[i]->isa);
            else if (argc == 3 && !strcmp(tables[i]->isa, argv[1]))
                run_table(tables[i]);
    }
    return 0;
}
