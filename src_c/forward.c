#include "barrier.h"
#include "interrupt.h"
#include "layout.h"
#include "order.h"
#include "panels.h"
#include "plan.h"
#include "team.h"
#include <string.h>

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
    forward_workspace *const space = &l->forward;
    const idx threads = l->plan.threads, units = k->lanes * UNIT_VECTORS(cell->gates);
    const idx width = CEIL_DIV(p->H, units) * units * cell->gates;
    const idx shares = l->plan.by_units || p->index ? 1 : threads;
    l->time = take_schedule(a, p);
    space->stride = padded_stride(k, p->H);
    for (idx s = 0; s < cell->states; s++)
        space->states[s] = take(a, (s ? 1 : 2) * p->N, space->stride * k->real_size);
    if (drops(p, DROPOUT_H)) {
        space->dropped_h = take(a, 2 * p->N, space->stride * k->real_size);
        space->scales_h = take(a, p->N, space->stride * k->real_size);
    }
    for (idx i = 0; i < cell->scratch; i++)
        space->scratch[i] = take(a, p->N, space->stride * k->real_size);
    space->gates_x_rows = l->plan.packed ? gates_x_rows(k, l, shares, width) : 0;
    space->gates_x = l->plan.packed
        ? take(a, shares * space->gates_x_rows, width * k->real_size)
        : take(a, p->N, 2 * (cell->gates * p->H + k->lanes) * k->real_size);
    space->z_stride = width + k->lanes;
    space->z = take(a, l->plan.packed && is_normalised(cell) ? p->N : 0, space->z_stride * k->real_size);
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
    pack_list list;
    list.jobs = 0;
    l->plan = fastrnn_plan_of_forward(k, l, lasting);
    place_call(&a, k, l, &list);
    return arena_bytes(&a);
}

void fastrnn_forward_setup(const kernel_table *k, layer *l, void *memory)
{
    arena a = {.memory = memory};
    pack_list list;
    list.jobs = 0;
    place_call(&a, k, l, &list);
    run_packs(k, &list, l->plan.threads);
    sort_batch(&l->problem, &l->time);
}

/* The state of every row after its last step: of h the one written last. */
static void copy_last_states(const kernel_table *k, const layer *l)
{
    const problem *const p = &l->problem;
    const size_t stride = l->forward.stride * k->real_size;
    for (idx s = 0; s < p->cell->states; s++) {
        const size_t row = units_of_state(p, s) * k->real_size;
        for (idx rank = 0; l->kept.last[s] && rank < p->N; rank++) {
            const idx n = l->time.sorted_indices[rank];
            const idx at = rank + (s ? 0 : (length_of(p, n) & 1) * p->N);
            memcpy((char *)l->kept.last[s] + n * row,
                   (const char *)l->forward.states[s] + at * stride, row);
        }
    }
}

static double step_flops(const problem *p)
{
    return 2. * p->N * ((p->index ? 0. : p->D) * p->cell->gates * p->H + recurrent_work(p));
}

int fastrnn_forward_run(const kernel_table *k, layer *l)
{
    forward_workspace *const space = &l->forward;
    const idx steps = l->time.steps;
    const idx at_once = steps > 1 ? undisturbed(step_flops(&l->problem)) : 1;
    long long due = 0;
    if (l->problem.index && l->plan.packed)
        team_run(k->project_table, l, l->plan.threads, 0);
    for (space->t0 = 0;; space->t0 = space->t1) {
        space->t1 = MIN(steps, space->t0 + at_once);
        run_by_plan(k->forward, l, space->flags);
        if (space->t1 == steps)
            break;
        if (is_interrupted(&due))
            return -1;
    }
    copy_last_states(k, l);
    return 0;
}

int fastrnn_forward(const kernel_table *k, layer *l, void *memory)
{
    const problem *const p = &l->problem;
    const size_t row = p->H * k->real_size;
    fastrnn_forward_setup(k, l, memory);
    for (idx s = 0; s < p->cell->states; s++)
        clear_past_lengths(p, l->kept.states[s], units_of_state(p, s) * k->real_size);
    clear_past_lengths(p, l->kept.gates, p->cell->gates * row);
    clear_past_lengths(p, l->kept.extra, row);
    for (int i = 0; i < 2; i++)
        clear_past_lengths(p, l->kept.products[i], p->cell->gates * row);
    return fastrnn_forward_run(k, l);
}
