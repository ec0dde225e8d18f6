#include "panels.h"
#include "plan.h"
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
    job.second_bias = 0;
    for (idx i = 0; i < cell->phases; i++) {
        const forward_phase *const phase = &cell->forward[i];
        const idx row = phase->projects ? p->P : cell->gates * p->H;
        if (!phase->gates)
            continue;
        job.gates = phase->gates, job.columns = units_forward(p, phase);
        for (idx g = 0; g < job.gates; g++)
            job.offsets[g] = phase->projects ? 0 : p->offsets[phase->gate + g];
        job.K = depth_forward(p, phase), job.ld = w->transposed ? job.K : row;
        job.source = phase->projects ? w->Whr : w->Wh, job.bias = phase->projects ? NULL : w->bh;
        job.packed = take_panels(a, k, job.K, job.gates, job.columns);
        l->panels.Wh[i] = job.packed;
        add_pack(list, job);
    }
}

void place_backward_panels(arena *a, const kernel_table *k, layer *l, pack_list *list)
{
    const problem *const p = &l->problem;
    const idx columns[] = {p->D, p->P, p->H}, gates = p->cell->gates * p->H;
    const idx depths[] = {gates, gates, p->P};
    const void *const sources[] = {l->weights.Wx, l->weights.Wh, l->weights.Whr};
    const void **const places[] = {&l->panels.Wx_T, &l->panels.Wh_T, &l->panels.Whr_T};
    for (int i = 0; i < 1 + has_product(p->cell) + is_projected(p->cell); i++) {
        const idx K = depths[i];
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
    run_packs(k, &list, team_threads_for((double)p->D * p->cell->gates * p->H + recurrent_work(p)));
}
