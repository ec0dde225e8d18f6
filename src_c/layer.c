#include "layer.h"
#include "barrier.h"
#include "layout.h"
#include "order.h"
#include "plan.h"
#include "team.h"
#include <string.h>

/* ---- specs ----------------------------------------------------------------------------------- */

static int within(idx first, idx count, idx end)
{
    return first >= 0 && count > 0 && first + count <= end;
}

const char *fastrnn_spec_error(const cell_spec *c)
{
    idx covered = 0;
    if (!within(0, c->gates, MAX_GATES) || !within(0, c->states, MAX_STATES)
        || !within(0, c->phases, MAX_PHASES) || c->scratch > MAX_SCRATCH)
        return "more gates, states, scratch or phases than there are, or none";
    if (c->gradient_blocks < c->gates)
        return "gradient_blocks: fewer than gates";
    for (idx i = 0; i < c->phases; i++) {
        const forward_phase *const f = &c->forward[i];
        const backward_phase *const b = &c->backward[i];
        if (!within(f->gate, f->gates, c->gates) || !f->activate || !b->differentiate)
            return "a phase without its gates or formulas";
        if (f->continued && (i > 0 || f->continued > f->gates || (f->gates == 1 && c->gates > 1)))
            return "continued: gates that cannot go on from x Wx + b";
        if (f->left == SCRATCH && !c->scratch)
            return "a phase that multiplies no scratch";
        for (idx j = 0; j < MAX_PIECES && b->piece[j].gates; j++)
            if (!within(b->piece[j].block, b->piece[j].gates, c->gradient_blocks)
                || !within(b->piece[j].gate, b->piece[j].gates, c->gates))
                return "a piece of gates that there are not";
    }
    for (idx i = 0; i < MAX_PIECES && c->weights[i].gates; i++) {
        const weight_block *const w = &c->weights[i];
        if (w->gate != covered || !within(w->block, w->gates, c->gradient_blocks)
            || (w->left == SCRATCH && !c->operand))
            return "weights: not all gates, one after the other";
        covered += w->gates;
    }
    return covered == c->gates ? NULL : "weights: not all gates, one after the other";
}

/* ---- weights as panels ----------------------------------------------------------------------- */

static void add_pack(pack_list *list, pack_args p)
{
    list->job[list->jobs++] = p;
}

/* Where the panels of forward's products lie, and how they are filled. */
static void place_forward_panels(arena *a, const kernel_table *k, layer *l, pack_list *list)
{
    const problem *const p = &l->problem;
    const cell_spec *const cell = p->cell;
    const weights *const w = &l->weights;
    pack_args job = {.columns = p->H, .transposed = w->transposed};
    l->panels.Wx = take_panels(a, k, p->D, cell->gates, p->H);
    /* The gates that x Wx and h Wh reach together have one bias, their sum. */
    job.K = p->D, job.gates = cell->gates, job.source = w->Wx, job.bias = w->b;
    job.second_bias = w->bh, job.second_bias_gates = cell->forward[0].continued;
    job.ld = w->transposed ? p->D : cell->gates * p->H;
    memcpy(job.offsets, p->offsets, sizeof job.offsets);
    job.packed = (void *)l->panels.Wx;
    add_pack(list, job);
    job.K = p->H, job.source = w->Wh, job.bias = w->bh, job.second_bias = 0;
    job.ld = w->transposed ? p->H : cell->gates * p->H;
    for (idx i = 0; i < cell->phases; i++) {
        job.gates = cell->forward[i].gates;
        for (idx g = 0; g < job.gates; g++)
            job.offsets[g] = p->offsets[cell->forward[i].gate + g];
        job.packed = take_panels(a, k, p->H, job.gates, p->H);
        l->panels.Wh[i] = job.packed;
        add_pack(list, job);
    }
}

/* The same of backward's, which are of the transposes: [GH, D] and [GH, H]. */
static void place_backward_panels(arena *a, const kernel_table *k, layer *l, pack_list *list)
{
    const idx columns[] = {l->problem.D, l->problem.H}, K = l->problem.cell->gates * l->problem.H;
    const void *const sources[] = {l->weights.Wx, l->weights.Wh};
    const void **const places[] = {&l->panels.Wx_T, &l->panels.Wh_T};
    for (int i = 0; i < 2; i++) {
        void *const packed = take_panels(a, k, K, 1, columns[i]);
        *places[i] = packed;
        add_pack(list, (pack_args){.K = K, .columns = columns[i], .gates = 1, .source = sources[i],
                                   .transposed = !l->weights.transposed,
                                   .ld = l->weights.transposed ? columns[i] : K, .packed = packed});
    }
}

static void run_packs(const kernel_table *k, const pack_list *list, int threads)
{
    if (list->jobs)
        team_run(k->pack, list, threads, 0);
}

static void place_panels(arena *a, const kernel_table *k, layer *l, int training, pack_list *list)
{
    place_forward_panels(a, k, l, list);
    if (training)
        place_backward_panels(a, k, l, list);
}

size_t fastrnn_panel_bytes(const kernel_table *k, const layer *l, int training)
{
    layer dry = *l;
    arena a = {0};
    pack_list list = {0};
    place_panels(&a, k, &dry, training, &list);
    return arena_bytes(&a);
}

void fastrnn_pack(const kernel_table *k, layer *l, int training, void *memory)
{
    const problem *const p = &l->problem;
    arena a = {.memory = memory};
    pack_list list = {0};
    place_panels(&a, k, l, training, &list);
    run_packs(k, &list, team_threads_for((double)(p->D + p->H) * p->cell->gates * p->H));
}

/* ---- forward --------------------------------------------------------------------------------- */

static void run_layer(kernel *f, const layer *l, int *flags)
{
    if (l->plan.by_units)
        team_run_meeting(f, l, l->plan.threads, flags);
    else
        team_run(f, l, (int)MIN(l->plan.threads, MAX(1, l->problem.N)), 0);
}

static idx gates_x_rows(const kernel_table *k, const layer *l, idx shares, idx width)
{
    const problem *const p = &l->problem;
    const idx rows = l->plan.by_units ? p->N : CEIL_DIV(p->N, l->plan.threads);
    const idx bytes = l->plan.threads / shares * fastrnn_caches.chunk_bytes;
    if (p->index)
        return p->table;
    return MIN(MAX(rows, bytes / (width * (idx)k->real_size)), rows * p->T);
}

static void place_forward(arena *a, const kernel_table *k, layer *l)
{
    const problem *const p = &l->problem;
    const cell_spec *const cell = p->cell;
    forward_space *const space = &l->forward;
    const idx threads = l->plan.threads, units = k->lanes * UNIT_VECTORS(cell->gates);
    const idx width = CEIL_DIV(p->H, units) * units * cell->gates;
    const idx shares = l->plan.by_units || p->index ? 1 : threads;
    l->time = take_schedule(a, p);
    space->stride = padded_stride(k, p->H);
    for (idx s = 0; s < cell->states; s++)
        space->states[s] = take(a, (s ? 1 : 2) * p->N, space->stride * k->real_size);
    for (idx i = 0; i < cell->scratch; i++)
        space->scratch[i] = take(a, p->N, space->stride * k->real_size);
    space->gates_x_rows = l->plan.packed ? gates_x_rows(k, l, shares, width) : 0;
    space->gates_x = l->plan.packed
        ? take(a, shares * space->gates_x_rows, width * k->real_size)
        : take(a, p->N, 2 * (cell->gates * p->H + k->lanes) * k->real_size);
    space->x_rows = take(a, p->index ? 0 : threads * space->gates_x_rows, sizeof(void *));
    space->flags = take(a, threads * FLAG_STRIDE, sizeof(int));
}

/* Panels that the call packs itself lie before its work space. */
static void place_call(arena *a, const kernel_table *k, layer *l, pack_list *list)
{
    if (l->plan.packed && !l->panels.Wx)
        place_forward_panels(a, k, l, list);
    place_forward(a, k, l);
}

size_t fastrnn_plan_forward(const kernel_table *k, layer *l, int lasting)
{
    arena a = {0};
    pack_list list = {0};
    l->plan = fastrnn_plan_of_forward(k, l, lasting);
    layer dry = *l;
    place_call(&a, k, &dry, &list);
    return arena_bytes(&a);
}

void fastrnn_forward_setup(const kernel_table *k, layer *l, void *memory)
{
    arena a = {.memory = memory};
    pack_list list = {0};
    place_call(&a, k, l, &list);
    run_packs(k, &list, l->plan.threads);
    sort_batch(&l->problem, &l->time);
}

/* The state of every row after its last step: of h the one written last. */
static void copy_last_states(const kernel_table *k, const layer *l)
{
    const problem *const p = &l->problem;
    const size_t row = p->H * k->real_size, stride = l->forward.stride * k->real_size;
    for (idx s = 0; s < p->cell->states; s++)
        for (idx rank = 0; l->kept.last[s] && rank < p->N; rank++) {
            const idx n = l->time.sorted_indices[rank];
            const idx at = rank + (s ? 0 : (length_of(p, n) & 1) * p->N);
            memcpy((char *)l->kept.last[s] + n * row,
                   (const char *)l->forward.states[s] + at * stride, row);
        }
}

void fastrnn_forward_run(const kernel_table *k, layer *l)
{
    if (l->problem.index && l->plan.packed)
        team_run(k->project_table, l, l->plan.threads, 0);
    run_layer(k->forward, l, l->forward.flags);
    copy_last_states(k, l);
}

void fastrnn_forward(const kernel_table *k, layer *l, void *memory)
{
    const problem *const p = &l->problem;
    const size_t row = p->H * k->real_size;
    fastrnn_forward_setup(k, l, memory);
    for (idx s = 0; s < p->cell->states; s++)
        clear_past_lengths(p, l->kept.states[s], row);
    clear_past_lengths(p, l->kept.gates, p->cell->gates * row);
    clear_past_lengths(p, l->kept.extra, row);
    fastrnn_forward_run(k, l);
}

/* ---- backward -------------------------------------------------------------------------------- */

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
        const idx from = w->block < G ? to : w->block * H;
        const int first = w == p->cell->weights;
        const int same = l->weights.transposed ? first && !table && from == 0
                                               : !first && w->left == w[-1].left;
        add_grad(a, k, l, &c->grads, c->capacity, w->left == SCRATCH ? operand : h,
                 columns(k, l->backward.dgates, from), w->gates * H, d->dWh, to,
                 d->dbh && from != to ? columns(k, d->dbh, to) : 0, same);
    }
}

/* A chunk has so many rows that the products of the gradients are deep; all of a step stay together. */
static idx chunk_rows(const kernel_table *k, const problem *p)
{
    const idx blocks = p->cell->gradient_blocks + p->cell->operand;
    const idx row = padded_stride(k, blocks * p->H) * k->real_size;
    return MIN(p->N * p->T, MAX(p->N, MAX((idx)CHUNK_ROWS, CHUNK_BYTES / row)));
}

static void place_backward(arena *a, const kernel_table *k, layer *l, chunks *c, pack_list *list)
{
    const problem *const p = &l->problem;
    backward_space *const space = &l->backward;
    const idx table = p->index ? p->table : 0;
    const size_t real = k->real_size;
    if (!l->panels.Wh_T)
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
    pack_list list = {0};
    chunks c;
    l->plan = fastrnn_plan_of_backward(k, l);
    layer dry = *l;
    place_backward(&a, k, &dry, &c, &list);
    return arena_bytes(&a);
}

/* Where x, or its row of the table, and h before the step lie, of the rows of the steps t0..t1. */
static void list_rows(const kernel_table *k, const layer *l, const chunks *c)
{
    const problem *const p = &l->problem;
    const schedule *const time = &l->time;
    const size_t x_row = p->D * k->real_size, h_row = p->H * k->real_size;
    idx i = 0;
    for (idx t = l->backward.t0; t < l->backward.t1; t++)
        for (idx rank = 0; rank < batch_size(l, t); rank++, i++) {
            const idx row = time->rows[time->offsets[t] + rank];
            const int reset = p->reset && p->reset[row];
            if (p->index)
                c->table_rows[i] = p->index[row];
            else
                c->x_rows[i] = (const char *)p->x + row * x_row;
            if (t > 0 && !reset)
                c->h_rows[i] = (const char *)l->kept.states[0]
                    + time->rows[time->offsets[t - 1] + rank] * h_row;
            else if (p->initial[0] && (!reset || p->reset_to_initial))
                c->h_rows[i] = (const char *)p->initial[0] + time->sorted_indices[rank] * h_row;
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

static void run_chunks(const kernel_table *k, layer *l, chunks *c)
{
    const problem *const p = &l->problem;
    const int threads = l->plan.threads;
    backward_space *const space = &l->backward;
    matmul_args dx = {.K = p->cell->gates * p->H, .columns = p->D, .a_row = space->dgates_stride,
                      .A = space->dgates, .packed = l->panels.Wx_T, .C = l->gradients.dx};
    embedding_args by_table = {.vocabulary = p->table, .W = space->dgates_stride, .x = c->table_rows,
                               .in = space->dgates, .out = c->dtable};
    space->t0 = l->time.steps;
    do {
        space->t1 = space->t0;
        space->t0 = next_chunk(l, space->t1, c->capacity);
        run_layer(k->backward, l, space->flags);
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
}

void fastrnn_backward(const kernel_table *k, layer *l, void *memory)
{
    const problem *const p = &l->problem;
    const gradients *const d = &l->gradients;
    const size_t row = p->H * k->real_size;
    arena a = {.memory = memory};
    pack_list list = {0};
    chunks c;
    place_backward(&a, k, l, &c, &list);
    run_packs(k, &list, l->plan.threads);
    sort_batch(p, &l->time);
    memset(c.zeros, 0, row);
    if (!p->index)
        clear_past_lengths(p, d->dx, p->D * k->real_size);
    for (idx s = 0; p->reset && p->reset_to_initial && s < p->cell->states; s++)
        if (d->dinitial[s])
            memset(d->dinitial[s], 0, p->N * row);
    run_chunks(k, l, &c);
    /* Of the gates that x Wx and h Wh reach together both biases have the same gradient. */
    for (const weight_block *w = p->cell->weights; w < p->cell->weights + MAX_PIECES && w->gates; w++) {
        const idx to = first_column(l, w->gate, w->gates);
        if (d->dbh && w->block < p->cell->gates)
            memcpy(columns(k, d->dbh, to), columns(k, d->db, to), w->gates * row);
    }
}
