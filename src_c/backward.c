#include "barrier.h"
#include "interrupt.h"
#include "layout.h"
#include "order.h"
#include "panels.h"
#include "plan.h"
#include "team.h"
#include <string.h>

/* The sides of the gradients of weights, beside the gates' gradients: rows that lie somewhere, or one
   after the other. */
typedef struct {
    idx features, row;
    const void *first;
    const void *const *rows;
} left_side;

/* What the chunks of time work with beside the layer. */
typedef struct {
    idx capacity; /* rows of a chunk */
    const void **x_rows, **h_rows;
    idx *table_rows;
    void *dtable, *zeros; /* gates' gradients by row of the table [table, dgates_stride]; [H] */
    weight_grad_list grads, of_table; /* of a chunk; of the table, which comes last */
} chunks;

static char *columns(const kernel_table *k, void *a, idx column)
{
    return a ? (char *)a + column * k->real_size : 0; /* NULL in a dry run */
}

/* Adds C = left^T dgates of `count` columns to the list, and dbias = the sum of dgates, where it is
   wanted; with transposed weights C^T, and the sum as a product with a side of ones. same_blocks:
   the product before has transposed its left side, or more of it, already. */
static void add_grad(arena *a, const kernel_table *k, const layer *l, weight_grad_list *list, idx rows,
                     left_side left, const void *dgates, idx count, void *dW, idx column, void *dbias,
                     int same_blocks)
{
    static const float one_f32 = 1;
    static const double one_f64 = 1;
    const idx G = l->problem.cell->gates, stride = l->backward.dgates_stride;
    weight_grad_args job = {.rows = rows, .same_blocks = same_blocks};
    if (l->weights.transposed && dbias)
        list->job[list->jobs++] = (weight_grad_args){
            .rows = rows, .K = 1, .columns = count, .b_row = stride, .B = dgates, .C = dbias,
            .A = k->real_size == sizeof one_f64 ? (const void *)&one_f64 : &one_f32,
            .c_row = count, .blocks = take_blocks(a, k, 1, rows)};
    if (l->weights.transposed) {
        job.K = count, job.A = dgates, job.a_row = stride;
        job.columns = left.features, job.B = left.first, job.b_row = left.row, job.b_rows = left.rows;
        job.C = columns(k, dW, column * left.features), job.c_row = left.features;
    } else {
        job.K = left.features, job.A = left.first, job.a_row = left.row, job.a_rows = left.rows;
        job.columns = count, job.B = dgates, job.b_row = stride, job.dbias = dbias;
        job.C = columns(k, dW, column), job.c_row = G * l->problem.H;
    }
    job.blocks = same_blocks ? list->job[list->jobs - 1].blocks : take_blocks(a, k, job.K, rows);
    list->job[list->jobs++] = job;
}

static void place_grads(arena *a, const kernel_table *k, const layer *l, chunks *c)
{
    const problem *const p = &l->problem;
    const gradients *const d = &l->gradients;
    const idx G = p->cell->gates, H = p->H, table = p->index ? p->table : 0;
    const left_side x = {.features = p->D, .row = p->D, .first = table ? p->x : 0,
                         .rows = table ? 0 : c->x_rows};
    const left_side h = {.features = H, .rows = c->h_rows};
    const left_side operand = {.features = H, .row = l->backward.operand_stride,
                               .first = l->backward.operand};
    c->grads = c->of_table = (weight_grad_list){.panels = take_grad_panels(a, k, l->plan.threads)};
    add_grad(a, k, l, table ? &c->of_table : &c->grads, table ? table : c->capacity, x,
             table ? c->dtable : l->backward.dgates, G * H, d->dWx, 0, d->db, 0);
    /* Transposed, the left sides are columns of dgates, and Wx's has them all. */
    for (const weight_block *w = p->cell->weights; w < p->cell->weights + MAX_PIECES && w->gates; w++) {
        const idx to = first_column(l, w->gate, w->gates);
        const idx from = block_column(l, w->block, w->gates);
        const int first = w == p->cell->weights;
        const int same = l->weights.transposed ? first && !table && from == 0
                                               : !first && w->left == w[-1].left;
        add_grad(a, k, l, &c->grads, c->capacity, w->left == SCRATCH ? operand : h,
                 columns(k, l->backward.dgates, from), w->gates * H, d->dWh, to,
                 d->dbh && from != to ? columns(k, d->dbh, to) : 0, same);
    }
}

/* A chunk has so many rows that the products of the gradients are deep; all of a step stay together.
   The width of a vector has no part in it, so that every instruction set cuts the sums alike. */
static idx chunk_rows(const kernel_table *k, const problem *p)
{
    const idx blocks = p->cell->gradient_blocks + p->cell->operand;
    const idx row = blocks * p->H * k->real_size;
    return MIN(p->N * p->T, MAX(p->N, MAX((idx)CHUNK_ROWS, CHUNK_BYTES / row)));
}

static void place_backward(arena *a, const kernel_table *k, layer *l, chunks *c, pack_list *list)
{
    const problem *const p = &l->problem;
    backward_workspace *const space = &l->backward;
    const idx table = p->index ? p->table : 0;
    const size_t real = k->real_size;
    if (l->plan.packed && !l->panels.Wh_T)
        place_backward_panels(a, k, l, list);
    l->time = take_schedule(a, p);
    c->capacity = chunk_rows(k, p);
    space->stride = padded_stride(k, p->H);
    space->dgates_stride = padded_stride(k, p->cell->gradient_blocks * p->H);
    space->operand_stride = padded_stride(k, p->H);
    for (idx s = 0; s < p->cell->states; s++)
        space->dstates[s] = take(a, p->N, space->stride * real);
    space->dgates = take(a, c->capacity, space->dgates_stride * real);
    space->dgates_next = take(a, p->N, space->dgates_stride * real);
    space->operand = p->cell->operand ? take(a, c->capacity, space->operand_stride * real) : 0;
    space->z = l->plan.packed ? 0 : take(a, l->plan.threads, space->stride * real);
    space->flags = take(a, l->plan.threads * FLAG_STRIDE, sizeof(int));
    c->dtable = take(a, table, space->dgates_stride * real);
    c->zeros = take(a, p->H, real);
    c->x_rows = take(a, table ? 0 : c->capacity, sizeof(void *));
    c->table_rows = take(a, table ? c->capacity : 0, sizeof(idx));
    c->h_rows = take(a, c->capacity, sizeof(void *));
    place_grads(a, k, l, c);
}

size_t fastrnn_plan_backward(const kernel_table *k, layer *l)
{
    arena a = {0};
    pack_list list;
    chunks c;
    list.jobs = 0;
    l->plan = fastrnn_plan_of_backward(k, l);
    place_backward(&a, k, l, &c, &list);
    return arena_bytes(&a);
}

/* Where x, or its row of the table, and h before the step lie, of the rows of the steps t0..t1. */
static void list_rows(const kernel_table *k, const layer *l, const chunks *c)
{
    const problem *const p = &l->problem;
    const size_t x_row = p->D * k->real_size, h_row = p->H * k->real_size;
    idx i = 0;
    for (idx t = l->backward.t0; t < l->backward.t1; t++)
        for (idx rank = 0; rank < batch_size(l, t); rank++, i++) {
            const idx row = row_of(l, t, rank);
            const int reset = p->reset && p->reset[row];
            if (p->index)
                c->table_rows[i] = p->index[row];
            else
                c->x_rows[i] = (const char *)p->x + row * x_row;
            if (t > 0 && !reset)
                c->h_rows[i] = (const char *)l->kept.states[0] + row_of(l, t - 1, rank) * h_row;
            else if (p->initial[0] && (!reset || p->reset_to_initial))
                c->h_rows[i] = (const char *)p->initial[0] + l->time.sorted_indices[rank] * h_row;
            else
                c->h_rows[i] = c->zeros;
        }
}

/* From the last chunk to the first: the gates' gradients, then what follows from them. */
static idx next_chunk(const layer *l, idx t1, idx capacity)
{
    idx t0 = t1;
    while (t0 > 0 && l->time.offsets[t1] - l->time.offsets[t0 - 1] <= capacity)
        t0--;
    return t0;
}

static void add_grads(const kernel_table *k, weight_grad_list *list, idx rows, int threads)
{
    for (idx job = 0; job < list->jobs; job++)
        list->job[job].rows = rows;
    team_run(k->transpose_rows, list, threads, 0);
    team_run(k->weight_grad, list, threads, 0);
    for (idx job = 0; job < list->jobs; job++)
        list->job[job].accumulate = 1;
}

/* The gates' gradients of a chunk, the calls as long as forward's. */
static int run_chunk(const kernel_table *k, layer *l, long long *due)
{
    backward_workspace *const space = &l->backward;
    const problem *const p = &l->problem;
    const idx at_once = undisturbed(2. * p->N * p->H * p->cell->gates * p->H);
    space->from = space->t1;
    do {
        if (is_interrupted(due))
            return -1;
        space->to = space->from;
        space->from = MAX(space->t0, space->to - at_once);
        run_by_plan(k->backward, l, space->flags);
    } while (space->from > space->t0);
    return 0;
}

static int run_chunks(const kernel_table *k, layer *l, chunks *c)
{
    const problem *const p = &l->problem;
    const int threads = l->plan.threads;
    backward_workspace *const space = &l->backward;
    matmul_args dx = {.K = p->cell->gates * p->H, .columns = p->D, .a_row = space->dgates_stride,
                      .A = space->dgates, .packed = l->panels.Wx_T, .C = l->gradients.dx,
                      .B = l->weights.Wx, .transposed = !l->weights.transposed};
    embedding_args by_table = {.vocabulary = p->table, .W = space->dgates_stride, .x = c->table_rows,
                               .in = space->dgates, .out = c->dtable};
    long long due = 0;
    space->t0 = l->time.steps;
    do {
        space->t1 = space->t0;
        space->t0 = next_chunk(l, space->t1, c->capacity);
        if (run_chunk(k, l, &due))
            return -1;
        list_rows(k, l, c);
        const idx rows = l->time.offsets[space->t1] - l->time.offsets[space->t0];
        if (p->index) {
            by_table.bags = rows;
            team_run(k->embedding_grad, &by_table, threads, 0);
            by_table.accumulate = 1;
        } else {
            dx.rows = rows;
            dx.out_rows = l->time.rows + l->time.offsets[space->t0];
            team_run(k->matmul, &dx, threads, 0);
        }
        add_grads(k, &c->grads, rows, threads);
    } while (space->t0 > 0);
    if (p->index) {
        dx.A = c->dtable;
        dx.rows = p->table;
        team_run(k->matmul, &dx, threads, 0);
        add_grads(k, &c->of_table, p->table, threads);
    }
    return 0;
}

int fastrnn_backward(const kernel_table *k, layer *l, void *memory)
{
    const problem *const p = &l->problem;
    const gradients *const d = &l->gradients;
    const size_t row = p->H * k->real_size;
    arena a = {.memory = memory};
    pack_list list;
    chunks c;
    list.jobs = 0;
    place_backward(&a, k, l, &c, &list);
    run_packs(k, &list, l->plan.threads);
    sort_batch(p, &l->time);
    memset(c.zeros, 0, row);
    if (!p->index)
        clear_past_lengths(p, d->dx, p->D * k->real_size);
    for (idx s = 0; p->reset && p->reset_to_initial && s < p->cell->states; s++)
        memset(d->dinitial[s], 0, p->N * row);
    if (run_chunks(k, l, &c))
        return -1;
    /* Of the gates that x Wx and h Wh reach together both biases have the same gradient. */
    for (const weight_block *w = p->cell->weights; w < p->cell->weights + MAX_PIECES && w->gates; w++) {
        const idx to = first_column(l, w->gate, w->gates);
        if (d->dbh && w->block < p->cell->gates)
            memcpy(columns(k, d->dbh, to), columns(k, d->db, to), w->gates * row);
    }
    return 0;
}
