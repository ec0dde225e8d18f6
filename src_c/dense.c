#include "interrupt.h"
#include "layer.h"
#include "layout.h"
#include "plan.h"
#include "team.h"

size_t fastrnn_packed_bytes(const kernel_table *k, idx K, idx columns)
{
    arena a = {0};
    take_panels(&a, k, K, 1, columns);
    return arena_bytes(&a);
}

static weight_grad_list place(arena *a, const kernel_table *k, const weight_grad_args *job, int threads)
{
    weight_grad_list list = {.jobs = 1, .job = {*job}};
    list.panels = take_grad_panels(a, k, threads);
    list.job[0].blocks = take_blocks(a, k, job->K, MIN(job->rows, GRAD_ROWS));
    return list;
}

size_t fastrnn_matmul_grad_bytes(const kernel_table *k, const weight_grad_args *job, int threads)
{
    arena a = {0};
    place(&a, k, job, threads);
    return arena_bytes(&a);
}

int fastrnn_matmul_grad(const kernel_table *k, const weight_grad_args *job, int threads, void *memory)
{
    arena a = {.memory = memory};
    weight_grad_list list = place(&a, k, job, threads);
    weight_grad_args *const part = &list.job[0];
    long long due = 0;
    idx row = 0;
    do {
        if (is_interrupted(&due))
            return -1;
        part->rows = MIN(GRAD_ROWS, job->rows - row);
        part->A = (const char *)job->A + row * job->a_row * k->real_size;
        part->B = (const char *)job->B + row * job->b_row * k->real_size;
        team_run(k->transpose_rows, &list, threads, 0);
        team_run(k->weight_grad, &list, threads, 0);
        part->accumulate = 1;
        row += part->rows;
    } while (row < job->rows);
    return 0;
}

int fastrnn_matmul(const kernel_table *k, const matmul_args *job, int threads)
{
    const idx at_once = MAX((idx)GRAD_ROWS, undisturbed(2. * job->K * job->columns));
    matmul_args part = *job;
    long long due = 0;
    for (idx row = 0; row < job->rows; row += part.rows) {
        if (is_interrupted(&due))
            return -1;
        part.rows = MIN(at_once, job->rows - row);
        part.A = (const char *)job->A + row * job->a_row * k->real_size;
        part.C = (char *)job->C + row * job->columns * k->real_size;
        team_run(k->matmul, &part, threads, 0);
    }
    return 0;
}
