/* Kernels that walk over rows: softmax loss, word embedding, the measured peak. */

/* ---- softmax loss ---------------------------------------------------------------------------- */

/* NaN: the comparison is false, so it may lose the maximum, but then it enters the sum. */
static REAL FN(row_max)(const REAL *x, idx n)
{
    REAL best = x[0];
    for (idx i = 1; i < n; i++)
        best = x[i] > best ? x[i] : best;
    return best;
}

static void FN(softmax)(const void *args, idx begin, idx end)
{
    const softmax_args *const p = args;
    for (idx row = begin; row < end; row++) {
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

static void FN(embedding)(const void *args, idx begin, idx end)
{
    const embedding_args *const p = args;
    for (idx i = begin; i < end; i++)
        memcpy((REAL *)p->out + i * p->W, (const REAL *)p->in + p->x[i] * p->W,
               p->W * sizeof(REAL));
}

/* Columns, not words, are split between threads: a word may occur anywhere in x. */
static void FN(embedding_grad)(const void *args, idx begin, idx end)
{
    const embedding_args *const p = args;
    REAL *const dW = p->out;
    for (idx v = 0; v < p->vocabulary; v++)
        memset(dW + v * p->W + begin, 0, (end - begin) * sizeof(REAL));
    for (idx i = 0; i < p->words; i++) {
        const REAL *const from = (const REAL *)p->in + i * p->W;
        REAL *const to = dW + p->x[i] * p->W;
        for (idx j = begin; j < end; j++)
            to[j] += from[j];
    }
}

/* ---- the peak -------------------------------------------------------------------------------- */

/* 12 independent chains, more than latency times width needs, and with their two constants no more
   than 16 registers. They start from memory, so that the compiler can fold none away. */
static void FN(fma_peak)(const void *args, idx begin, idx end)
{
    const peak_args *const p = args;
    V acc[PEAK_CHAINS];
    const V a = FN(splat)((REAL)0.999), b = FN(splat)((REAL)0.001);
    (void)end;
#pragma GCC unroll 12
    for (int i = 0; i < PEAK_CHAINS; i++)
        acc[i] = FN(splat)((REAL)(p->sink[begin] + i));
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
    p->sink[begin] = FN(sum)(sum);
}
