/* Kernels that walk over rows or elements: softmax loss, word embedding, update rules, the peak. */

/* ---- softmax loss ---------------------------------------------------------------------------- */

/* NaN: it may lose the maximum, but then it enters the sum. */
static REAL FN(row_max)(const REAL *x, idx n)
{
    REAL lanes[VEC_BYTES / sizeof(REAL)], best = x[0];
    V largest = FN(splat)(best);
    idx i = 0;
    for (; i + LANES <= n; i += LANES)
        largest = FN(larger)(largest, FN(load)(x + i));
    for (; i < n; i++)
        best = x[i] > best ? x[i] : best;
    FN(store)(lanes, largest);
    for (i = 0; i < LANES; i++)
        best = lanes[i] > best ? lanes[i] : best;
    return best;
}

static void FN(softmax)(const void *args, idx part, idx parts)
{
    const softmax_args *const p = args;
    for (idx row = p->rows * part / parts; row < p->rows * (part + 1) / parts; row++) {
        const REAL *const x = (const REAL *)p->x + row * p->classes;
        REAL *const dx = (REAL *)p->dx + row * p->classes;
        const REAL weight = p->weight ? ((const REAL *)p->weight)[row] : 1;
        if (weight == 0) {
            memset(dx, 0, p->classes * sizeof(REAL));
            p->losses[row] = 0;
            continue;
        }
        const REAL best = FN(row_max)(x, p->classes), at_label = x[p->y[row]];
        V sums = {0};
        for (idx j = 0; j < p->classes; j += LANES) {
            const idx n = p->classes - j;
            const V e = FN(exp_nonpositive)(FN(load_n)(x + j, n) - best);
            FN(store_n)(dx + j, e, n);
            sums += FN(load_n)(dx + j, n); /* lanes past the end read as 0 */
        }
        const REAL sum = FN(sum)(sums), scale = (REAL)p->scale * weight;
        for (idx j = 0; j < p->classes; j += LANES)
            FN(store_n)(dx + j, FN(load_n)(dx + j, p->classes - j) * (scale / sum), p->classes - j);
        dx[p->y[row]] -= scale;
        p->losses[row] = (double)weight * (log((double)sum) - ((double)at_label - (double)best));
    }
}

/* ---- word embedding -------------------------------------------------------------------------- */

/* The words begin..end of bag i, and what each counts. */
typedef struct {
    idx begin, end;
    REAL weight;
} FN(bag);

INLINE FN(bag) FN(bag_of)(const embedding_args *p, idx i)
{
    const idx begin = p->offsets ? p->offsets[i] : i, end = p->offsets ? p->offsets[i + 1] : i + 1;
    return (FN(bag)){begin, end, p->mean && end > begin ? 1 / (REAL)(end - begin) : 1};
}

static void FN(embedding)(const void *args, idx part, idx parts)
{
    const embedding_args *const p = args;
    for (idx i = p->bags * part / parts; i < p->bags * (part + 1) / parts; i++) {
        const FN(bag) bag = FN(bag_of)(p, i);
        REAL *const to = (REAL *)p->out + i * p->W;
        if (bag.begin == bag.end)
            memset(to, 0, p->W * sizeof(REAL));
        else
            memcpy(to, (const REAL *)p->in + p->x[bag.begin] * p->W, p->W * sizeof(REAL));
        for (idx k = bag.begin + 1; k < bag.end; k++) {
            const REAL *const from = (const REAL *)p->in + p->x[k] * p->W;
            for (idx j = 0; j < p->W; j++)
                to[j] += from[j];
        }
        for (idx j = 0; j < p->W && bag.weight != 1; j++)
            to[j] *= bag.weight;
    }
}

/* Columns, not words, are split between threads: a word may occur anywhere in x. */
static void FN(embedding_grad)(const void *args, idx part, idx parts)
{
    const embedding_args *const p = args;
    const idx begin = p->W * part / parts, end = p->W * (part + 1) / parts;
    REAL *const dW = p->out;
    for (idx v = 0; !p->accumulate && v < p->vocabulary; v++)
        memset(dW + v * p->W + begin, 0, (end - begin) * sizeof(REAL));
    for (idx i = 0; i < p->bags; i++) {
        const FN(bag) bag = FN(bag_of)(p, i);
        const REAL *const from = (const REAL *)p->in + (p->order ? p->order[i] : i) * p->W;
        for (idx k = bag.begin; k < bag.end; k++) {
            REAL *const to = dW + p->x[k] * p->W;
            for (idx j = begin; j < end; j++)
                to[j] += bag.weight * from[j];
        }
    }
}

/* ---- update rules ---------------------------------------------------------------------------- */

/* n elements from `at` on. */
static void FN(update_range)(const update_args *p, idx at, const REAL *dw, idx n)
{
    const REAL *const w = (const REAL *)p->w + at;
    REAL *const out = (REAL *)p->out + at;
    REAL *const m = p->m ? (REAL *)p->m + at : 0, *const v = p->v ? (REAL *)p->v + at : 0;
    const REAL rate = (REAL)p->rate, keep = (REAL)p->keep, decay_m = (REAL)p->decay_m, decay_v = (REAL)p->decay_v;
    const REAL gain_m = (REAL)p->gain_m, gain_v = (REAL)p->gain_v, epsilon = (REAL)p->epsilon;
    const REAL correct_v = (REAL)p->correct_v;
    switch (p->rule) {
/* One pass over the elements; GCC makes vectors of it. */
#define X(name, ...)                         \
    case UPDATE_##name:                      \
        for (idx i = 0; i < n; i++) {        \
            const REAL g = dw[i];            \
            __VA_ARGS__;                     \
        }                                    \
        break;
        FASTRNN_UPDATE_RULES(X)
#undef X
    }
}

static void FN(update)(const void *args, idx part, idx parts)
{
    const update_args *const p = args;
    const idx begin = p->n * part / parts, end = p->n * (part + 1) / parts;
    const REAL *const dw = p->dw;
    if (!p->rows)
        FN(update_range)(p, begin, dw + begin, end - begin);
    for (idx r = begin; p->rows && r < end; r++)
        FN(update_range)(p, p->rows[r] * p->width, dw + r * p->width, p->width);
}

/* ---- dropout --------------------------------------------------------------------------------- */

/* One line of a mask: where its bits are below the limit 0, else in times scale. */
INLINE void FN(drop_line)(const drop_args *p, const uint16_t *bits, idx n, const REAL *in, idx in_step,
                          REAL *out, idx out_step)
{
    const uint16_t below = (uint16_t)p->below;
    const REAL scale = (REAL)p->scale;
    for (idx j = 0; j < n; j++)
        out[j * out_step] = bits[j] < below ? 0 : in[j * in_step] * scale;
}

/* The bits of one block, step apart. */
INLINE void FN(drop_bits)(const drop_args *p, idx row, idx column, uint16_t *bits, idx step)
{
    uint64_t words[4];
    uint16_t found[PHILOX_UNITS];
    philox(words, p->seed, 1 + column / PHILOX_UNITS, 0, p->first_row + row, p->kind);
    memcpy(found, words, sizeof found);
    for (idx j = 0; j < PHILOX_UNITS; j++)
        bits[j * step] = found[j];
}

/* Tile by tile; a line of a tile runs along the axis in which the elements are adjacent. */
static void FN(drop)(const void *args, idx part, idx parts)
{
    enum { BITS = 4096 };
    const drop_args *const p = args;
    const idx begin = p->rows * part / parts, end = p->rows * (part + 1) / parts;
    const int by_rows = p->in_strides[0] == 1 && p->in_strides[2] != 1;
    const int line = by_rows ? 0 : 2, across = 2 - line;
    const idx columns = by_rows ? PHILOX_UNITS : BITS, rows = BITS / columns;
    for (idx row = begin; row < end; row += rows)
        for (idx column = 0; column < p->columns; column += columns) {
            const idx R = MIN(rows, end - row), C = MIN(columns, p->columns - column);
            uint16_t bits[BITS];
            for (idx r = 0; r < R; r++)
                for (idx c = 0; c < C; c += PHILOX_UNITS)
                    FN(drop_bits)(p, row + r, column + c, bits + (by_rows ? r : c), by_rows ? rows : 1);
            const idx *const from = p->in_strides, *const to = p->out_strides, n = by_rows ? R : C;
            const REAL *const in = (const REAL *)p->in + row * from[0] + column * from[2];
            REAL *const out = (REAL *)p->out + row * to[0] + column * to[2];
            for (idx l = 0; l < (by_rows ? C : R); l++)
                for (idx i = 0; i < p->repeats; i++) {
                    const REAL *const a = in + l * from[across] + i * from[1];
                    REAL *const b = out + l * to[across] + i * to[1];
                    if (from[line] == 1 && to[line] == 1)
                        FN(drop_line)(p, bits + l * rows, n, a, 1, b, 1);
                    else
                        FN(drop_line)(p, bits + l * rows, n, a, from[line], b, to[line]);
                }
        }
}

/* ---- the peak -------------------------------------------------------------------------------- */

/* 12 independent chains, more than latency times width needs, and with their two constants no more
   than 16 registers. They start from memory, so that the compiler can fold none away. */
static void FN(fma_peak)(const void *args, idx part, idx parts)
{
    const peak_args *const p = args;
    V acc[PEAK_CHAINS];
    const V a = FN(splat)((REAL)0.999), b = FN(splat)((REAL)0.001);
    (void)parts;
#pragma GCC unroll 12
    for (int i = 0; i < PEAK_CHAINS; i++)
        acc[i] = FN(splat)((REAL)(p->sink[part] + i));
    for (idx k = 0; k < p->iterations; k++)
#pragma GCC unroll 4
        for (int r = 0; r < PEAK_FMAS / PEAK_CHAINS; r++)
#pragma GCC unroll 12
            for (int i = 0; i < PEAK_CHAINS; i++)
                acc[i] = acc[i] * a + b;
    V sum = {0};
#pragma GCC unroll 12
    for (int i = 0; i < PEAK_CHAINS; i++)
        sum += acc[i];
    p->sink[part] = FN(sum)(sum);
}
