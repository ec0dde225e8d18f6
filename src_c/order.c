#include "order.h"
#include <string.h>

/* Without rows there is none, and T may be any number: arrays of no rows need no memory. */
static idx most_steps(const problem *p)
{
    return p->N ? p->T : 0;
}

schedule take_schedule(arena *a, const problem *p)
{
    return (schedule){.rows = take(a, p->N * p->T, sizeof(idx)),
                      .offsets = take(a, most_steps(p) + 2, sizeof(idx)),
                      .sorted_indices = take(a, p->N, sizeof(idx))};
}

/* The row of arrays in which a step of row n lies; offsets: see schedule. */
static idx row_at(const problem *p, const idx *offsets, idx n, idx time)
{
    return p->layout == PACKED ? offsets[time] + n
        : p->layout == TIME_FIRST ? time * p->N + n
                                  : n * p->T + time;
}

void sort_batch(const problem *p, schedule *time)
{
    const idx N = p->N, T = most_steps(p);
    idx *const rows = time->rows, *const offsets = time->offsets;
    idx *const indices = time->sorted_indices;
    idx steps = 0, rank = 0, i = 0;
    /* offsets[length] counts the rows of a length, then is the next rank of that length. */
    memset(offsets, 0, (T + 2) * sizeof(idx));
    for (idx n = 0; n < N; n++) {
        offsets[length_of(p, n)]++;
        steps = MAX(steps, length_of(p, n));
    }
    /* By falling length, else as they come. */
    for (idx t = T; t >= 0; t--) {
        const idx count = offsets[t];
        offsets[t] = rank;
        rank += count;
    }
    for (idx n = 0; n < N; n++)
        indices[offsets[length_of(p, n)]++] = n;
    /* Now offsets[length] is the number of rows at least that long. */
    for (idx t = 0; t < steps; t++) {
        const idx active = offsets[t + 1];
        offsets[t] = i;
        i += active;
    }
    offsets[steps] = i;
    for (idx t = 0; t < steps; t++)
        for (i = offsets[t]; i < offsets[t + 1]; i++) {
            const idx n = indices[i - offsets[t]];
            rows[i] = row_at(p, offsets, n, p->reverse ? length_of(p, n) - 1 - t : t);
        }
    time->steps = steps;
}

void clear_past_lengths(const problem *p, void *a, size_t row_bytes)
{
    if (!a || !p->lengths || p->layout == PACKED)
        return;
    if (p->layout == BATCH_FIRST) {
        for (idx n = 0; n < p->N; n++)
            memset((char *)a + (n * p->T + p->lengths[n]) * row_bytes, 0,
                   (p->T - p->lengths[n]) * row_bytes);
        return;
    }
    for (idx t = 0; t < p->T; t++)
        for (idx n = 0; n < p->N; n++)
            if (t >= p->lengths[n])
                memset((char *)a + (t * p->N + n) * row_bytes, 0, row_bytes);
}
