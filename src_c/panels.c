#include "panels.h"
#include "team.h"
#include <string.h>

static void add_pack(pack_list *list, pack_args p)
{
    list->job[list->jobs++] = p;
}

void place_forward_panels(arena *a, const kernel_table *k, layer *l, pack_list *list)
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
        if (!job.gates)
            continue;
        for (idx g = 0; g < job.gates; g++)
            job.offsets[g] = p->offsets[cell->forward[i].gate + g];
        job.packed = take_panels(a, k, p->H, job.gates, p->H);
        l->panels.Wh[i] = job.packed;
        add_pack(list, job);
    }
}

void place_backward_panels(arena *a, const kernel_table *k, layer *l, pack_list *list)
{
    const idx columns[] = {l->problem.D, l->problem.H}, K = l->problem.cell->gates * l->problem.H;
    const void *const sources[] = {l->weights.Wx, l->weights.Wh};
    const void **const places[] = {&l->panels.Wx_T, &l->panels.Wh_T};
    for (int i = 0; i < 1 + has_product(l->problem.cell); i++) {
        void *const packed = take_panels(a, k, K, 1, columns[i]);
        *places[i] = packed;
        add_pack(list, (pack_args){.K = K, .columns = columns[i], .gates = 1, .source = sources[i],
                                   .transposed = !l->weights.transposed,
                                   .ld = l->weights.transposed ? columns[i] : K, .packed = packed});
    }
}

void run_packs(const kernel_table *k, const pack_list *list, int threads)
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
    pack_list list;
    list.jobs = 0;
    place_panels(&a, k, &dry, training, &list);
    return arena_bytes(&a);
}

void fastrnn_pack(const kernel_table *k, layer *l, int training, void *memory)
{
    const problem *const p = &l->problem;
    arena a = {.memory = memory};
    pack_list list;
    list.jobs = 0;
    place_panels(&a, k, l, training, &list);
    run_packs(k, &list, team_threads_for((double)(p->D + p->H) * p->cell->gates * p->H));
}
