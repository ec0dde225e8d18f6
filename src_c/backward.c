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

/* Where the gradients of some columns of a matrix [.., row] go, and of their bias, if it is wanted. */
typedef struct {
    void *W;
    idx row, column;
    void *bias;
} right_side;

/* What the chunks of time work with beside the layer. */
typedef struct {
    idx capacity; /* rows of a chunk */
    const void **x_rows, **h_rows, **c_rows; /* in the order of the sums; c: where it is wanted */
    idx *table_rows, *order;       /* and where the gates' gradients of these rows are */
    idx *places;                   /* and what the caller's arrays have of them, where it is wanted */
    idx *ranks;                    /* of the step at hand by row of the batch */
    void *dtable, *zeros; /* gates' gradients by row of the table [table, dgates_stride]; [H] */
    weight_grad_list grads, of_table; /* of a chunk; of the table, which comes last */
    vector_grad_list vectors;
} chunks;

static char *columns(const kernel_table *k, void *a, idx column)
{
    return a ? (char *)a + column * k->real_size : 0; /* NULL in a dry run */
}

/* Adds C = left^T dgates of `count` columns to the list, and to.bias = the sum of dgates, where it is
   wanted; with transposed weights C^T, and the sum as a product with a side of ones. Returns C's
   place. same: the place of a product that has transposed its left side, or more of it, already; or
   -1. */
static int add_grad(arena *a, const kernel_table *k, const layer *l, weight_grad_list *list, idx rows,
                    const idx *order, left_side left, const void *dgates, idx count, right_side to,
                    int same)
{
    static const float one_f32 = 1;
    static const double one_f64 = 1;
    const idx stride = l->backward.dgates_stride;
    weight_grad_args job = {.rows = rows, .order = order, .accumulate = l->gradients.accumulate,
                            .same_blocks = same >= 0};
    if (l->weights.transposed && to.bias)
        list->job[list->jobs++] = (weight_grad_args){
            .rows = rows, .K = 1, .columns = count, .b_row = stride, .B = dgates, .C = to.bias,
            .A = k->real_size == sizeof one_f64 ? (const void *)&one_f64 : &one_f32,
            .c_row = count, .order = order, .accumulate = l->gradients.accumulate,
            .blocks = take_blocks(a, k, 1, rows)};
    if (l->weights.transposed) {
        job.K = count, job.A = dgates, job.a_row = stride;
        job.columns = left.features, job.B = left.first, job.b_row = left.row, job.b_rows = left.rows;
        job.C = columns(k, to.W, to.column * left.features), job.c_row = left.features;
    } else {
        job.K = left.features, job.A = left.first, job.a_row = left.row, job.a_rows = left.rows;
        job.columns = count, job.B = dgates, job.b_row = stride, job.dbias = to.bias;
        job.C = columns(k, to.W, to.column), job.c_row = to.row;
    }
    job.blocks = same >= 0 ? list->job[same].blocks : take_blocks(a, k, job.K, rows);
    list->job[list->jobs] = job;
    return list->jobs++;
}

/* An operand, or, where it is not wanted, h before the steps. */
static left_side side_of(const layer *l, const chunks *c, int operand)
{
    const void *const rows = l->backward.operands[operand];
    const idx units = operand == DROPPED_H ? l->problem.P : l->problem.H;
    return (left_side){.features = units, .row = l->backward.operand_stride, .first = rows,
                       .rows = rows ? 0 : c->h_rows};
}

/* Adds C = the sum of A's rows in `columns` columns, times B's where B says so; C == NULL: not wanted. */
static void add_sum(const layer *l, chunks *c, const void *A, idx columns, void *C, vector_grad_args B)
{
    B.columns = columns, B.A = A, B.a_row = l->backward.dgates_stride, B.C = C;
    B.order = c->order, B.accumulate = l->gradients.accumulate;
    if (C)
        c->vectors.job[c->vectors.jobs++] = B;
}

/* The gradients of biases and of the parameters of layer normalisation. */
static void list_norm(const kernel_table *k, const layer *l, chunks *c)
{
    const gradients *const d = &l->gradients;
    const backward_workspace *const space = &l->backward;
    const norm_blocks at = l->problem.cell->norm;
    const idx H = l->problem.H, GH = l->problem.cell->gates * H;
    const vector_grad_args alone = {0};
    for (int which = OF_X; which <= OF_H; which++) {
        const void *const A = columns(k, space->dgates, which == OF_H ? at.of_u * H : 0);
        const vector_grad_args normalised = {
            .B = l->kept.products[which], .b_row = GH, .b_order = c->places,
            .moments = columns(k, space->moments, 2 * which), .moments_row = 4};
        add_sum(l, c, A, GH, which == OF_H ? d->dbh : d->db, alone);
        add_sum(l, c, A, GH, d->norm[which == OF_H ? GAIN_H : GAIN_X], normalised);
    }
    if (at.of_c) {
        const void *const A = columns(k, space->dgates, at.of_c * H);
        add_sum(l, c, A, H, d->norm[GAIN_C],
                (vector_grad_args){.B = space->operands[NEW_C], .b_row = space->operand_stride});
        add_sum(l, c, A, H, d->norm[SHIFT_C], alone);
    }
}

static void list_vectors(const kernel_table *k, const layer *l, chunks *c)
{
    const cell_spec *const cell = l->problem.cell;
    const idx H = l->problem.H, *const offsets = l->problem.offsets;
    char *const dgates = l->backward.dgates, *const to = l->gradients.vectors;
    const vector_grad_args c_before = {.b_rows = c->c_rows}, h_before = {.b_rows = c->h_rows};
    const vector_grad_args new_c = {.B = l->backward.operands[NEW_C],
                                    .b_row = l->backward.operand_stride};
    c->vectors.jobs = 0;
    for (idx i = 0; to && i < cell->vectors; i++)
        add_sum(l, c, columns(k, dgates, offsets[cell->vector[i].gate]), H,
                columns(k, to, l->problem.options->places[i] * H),
                cell->vector[i].factor == C_BEFORE ? c_before : new_c);
    if (cell->diagonal)
        add_sum(l, c, columns(k, dgates, offsets[0]), H, l->gradients.dWh, h_before);
}

static void place_grads(arena *a, const kernel_table *k, const layer *l, chunks *c)
{
    const problem *const p = &l->problem;
    const gradients *const d = &l->gradients;
    const idx G = p->cell->gates, H = p->H, table = p->index ? p->table : 0;
    const left_side x = {.features = p->D, .row = p->D, .first = table ? p->x : 0,
                         .rows = table ? 0 : c->x_rows};
    const left_side h = side_of(l, c, DROPPED_H), scratch = side_of(l, c, OF_SCRATCH);
    c->grads = c->of_table = (weight_grad_list){.panels = take_grad_panels(a, k, l->plan.threads)};
    const int normalised = is_normalised(p->cell); /* biases are then list_norm's */
    const void *const dx = columns(k, table ? c->dtable : l->backward.dgates, p->cell->norm.of_x * H);
    int before = add_grad(a, k, l, table ? &c->of_table : &c->grads, table ? table : c->capacity,
                          table ? 0 : c->order, x, dx, G * H,
                          (right_side){d->dWx, G * H, 0, normalised ? 0 : d->db}, -1);
    /* Transposed, the left sides are columns of dgates, and Wx's has them all. */
    for (const weight_block *w = p->cell->weights; w < p->cell->weights + MAX_PIECES && w->gates; w++) {
        const idx to = first_column(l, w->gate, w->gates);
        const idx from = block_column(l, w->block, w->gates);
        const int first = w == p->cell->weights;
        const int same = l->weights.transposed ? first && !table && from == 0
                                               : !first && w->left == w[-1].left;
        before = add_grad(a, k, l, &c->grads, c->capacity, c->order,
                          w->left == SCRATCH ? scratch : h, columns(k, l->backward.dgates, from),
                          w->gates * H,
                          (right_side){d->dWh, G * H, to,
                                       d->dbh && !normalised ? columns(k, d->dbh, to) : 0},
                          same ? before : -1);
    }
    if (is_projected(p->cell))
        add_grad(a, k, l, &c->grads, c->capacity, c->order, scratch,
                 columns(k, l->backward.dgates, block_column(l, G, 1)), p->P,
                 (right_side){d->dWhr, p->P, 0, 0}, -1);
}

/* A chunk has so many rows that the products of the gradients are deep; all of a step stay together. */
static idx chunk_rows(const kernel_table *k, const problem *p)
{
    const idx blocks = p->cell->gradient_blocks + p->cell->operand;
    const idx row = blocks * p->H * k->real_size; /* whatever the options */
    return MIN(p->N * p->T, MAX(p->N, MAX((idx)CHUNK_ROWS, CHUNK_BYTES / row)));
}

static int wants_operand(const layer *l, int operand)
{
    return operand == OF_SCRATCH ? l->problem.cell->operand
        : operand == DROPPED_H   ? drops(&l->problem, DROPOUT_H)
                                 : l->gradients.vectors || l->problem.cell->norm.of_c;
}

static void place_backward(arena *a, const kernel_table *k, layer *l, chunks *c, pack_list *list)
{
    const problem *const p = &l->problem;
    backward_workspace *const space = &l->backward;
    const idx table = p->index ? p->table : 0;
    const size_t real = k->real_size;
    if (l->plan.packed && !l->panels.Wx_T)
        place_backward_panels(a, k, l, list);
    l->time = take_schedule(a, p);
    c->capacity = chunk_rows(k, p);
    space->stride = padded_stride(k, p->H);
    space->dgates_stride = padded_stride(k, gradient_columns(p));
    space->operand_stride = padded_stride(k, p->H);
    for (idx s = 0; s < p->cell->states; s++)
        space->dstates[s] = take(a, p->N, space->stride * real);
    space->dgates = take(a, c->capacity, space->dgates_stride * real);
    space->dgates_next = take(a, p->N, space->dgates_stride * real);
    for (int i = 0; i < OPERANDS; i++)
        space->operands[i] = wants_operand(l, i) ? take(a, c->capacity, space->operand_stride * real) : 0;
    if (drops(p, DROPOUT_H))
        space->scales_h = take(a, p->N, space->stride * real);
    space->z = take(a, is_normalised(p->cell) ? p->N : l->plan.packed ? 0 : l->plan.threads,
                    space->stride * real);
    space->moments = take(a, is_normalised(p->cell) ? c->capacity : 0, 4 * real);
    space->flags = take(a, l->plan.threads * FLAG_STRIDE, sizeof(int));
    c->dtable = take(a, table, space->dgates_stride * real);
    c->zeros = take(a, p->H, real);
    c->x_rows = take(a, table ? 0 : c->capacity, sizeof(void *));
    c->table_rows = take(a, table ? c->capacity : 0, sizeof(idx));
    c->h_rows = take(a, c->capacity, sizeof(void *));
    c->c_rows = take(a, l->gradients.vectors ? c->capacity : 0, sizeof(void *));
    c->places = take(a, is_normalised(p->cell) ? c->capacity : 0, sizeof(idx));
    c->order = take(a, c->capacity, sizeof(idx));
    c->ranks = take(a, p->N, sizeof(idx));
    place_grads(a, k, l, c);
    list_vectors(k, l, c);
    if (is_normalised(p->cell))
        list_norm(k, l, c);
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

/* The ranks of step t by row of the batch, from those of the step after it. */
static void merge_ranks(const layer *l, idx *ranks, idx t)
{
    const idx *const row = l->time.sorted_indices, after = batch_size(l, t + 1);
    idx old = after, added = batch_size(l, t), to = added;
    while (added > after) /* those of one length rise with their rows */
        ranks[--to] = old > 0 && row[ranks[old - 1]] > row[added - 1] ? ranks[--old] : --added;
}

/* Where the state of a rank from which step t starts lies. */
static const void *state_before(const kernel_table *k, const layer *l, const chunks *c, idx s, idx t,
                                idx rank)
{
    const problem *const p = &l->problem;
    const size_t size = units_of_state(p, s) * k->real_size;
    const int reset = p->reset && p->reset[row_of(l, t, rank)];
    if (t > 0 && !reset)
        return (const char *)l->kept.states[s] + row_of(l, t - 1, rank) * size;
    if (p->initial[s] && (!reset || p->reset_to_initial))
        return (const char *)p->initial[s] + l->time.sorted_indices[rank] * size;
    return c->zeros;
}

/* The order of the sums over the steps t0..t1: from the last step to the first, in each as the batch
   has its rows. Neither where chunks begin nor which rows end later changes a bit, and pieces of a
   sequence, one call each, give those of the whole. Also where x, or its row of the table, and h
   before the step lie. */
static void list_rows(const kernel_table *k, const layer *l, const chunks *c)
{
    const problem *const p = &l->problem;
    const size_t x_row = p->D * k->real_size;
    idx i = 0;
    for (idx t = l->backward.t1 - 1; t >= l->backward.t0; t--) {
        merge_ranks(l, c->ranks, t);
        for (idx at = 0; at < batch_size(l, t); at++, i++) {
            const idx rank = c->ranks[at], row = row_of(l, t, rank);
            c->order[i] = l->time.offsets[t] - l->time.offsets[l->backward.t0] + rank;
            if (is_normalised(p->cell))
                c->places[i] = row;
            if (p->index)
                c->table_rows[i] = p->index[row];
            else
                c->x_rows[i] = (const char *)p->x + row * x_row;
            for (idx s = 0; s < (l->gradients.vectors ? 2 : 1); s++)
                *(s ? &c->c_rows[i] : &c->h_rows[i]) = state_before(k, l, c, s, t, rank);
        }
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

static void add_vector_grads(const kernel_table *k, vector_grad_list *list, idx rows, int threads)
{
    for (idx job = 0; job < list->jobs; job++)
        list->job[job].rows = rows;
    if (list->jobs)
        team_run(k->vector_grad, list, threads, 0);
    for (idx job = 0; job < list->jobs; job++)
        list->job[job].accumulate = 1;
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
    const idx at_once = undisturbed(2. * p->N * recurrent_work(p));
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
                      .A = columns(k, space->dgates, p->cell->norm.of_x * p->H),
                      .packed = l->panels.Wx_T, .C = l->gradients.dx, .B = l->weights.Wx,
                      .transposed = !l->weights.transposed};
    embedding_args by_table = {.vocabulary = p->table, .W = space->dgates_stride, .x = c->table_rows,
                               .order = c->order, .in = space->dgates, .out = c->dtable};
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
        add_vector_grads(k, &c->vectors, rows, threads);
    } while (space->t0 > 0);
    if (p->index) {
        dx.A = columns(k, c->dtable, p->cell->norm.of_x * p->H);
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
    arena a = {.memory = memory};
    pack_list list;
    chunks c;
    list.jobs = 0;
    place_backward(&a, k, l, &c, &list);
    run_packs(k, &list, l->plan.threads);
    sort_batch(p, &l->time);
    memset(c.zeros, 0, p->H * k->real_size);
    if (!p->index)
        clear_past_lengths(p, d->dx, p->D * k->real_size);
    for (idx s = 0; p->reset && p->reset_to_initial && s < p->cell->states; s++)
        memset(d->dinitial[s], 0, p->N * units_of_state(p, s) * k->real_size);
    return run_chunks(k, l, &c);
}
