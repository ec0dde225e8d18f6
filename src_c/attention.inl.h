/* Soft attention: softmax over places of w . tanh(key + query), or of key . query / sqrt(A), and the
   mean of the values. Places are few and queries short, so that what a query works with stays in L1
   and keys and values pass once. */

INLINE REAL FN(dot)(const REAL *a, const REAL *b, idx n)
{
    V even = {0}, odd = {0};
    idx j = 0;
    for (; j + 2 * LANES <= n; j += 2 * LANES) {
        even += FN(load)(a + j) * FN(load)(b + j);
        odd += FN(load)(a + j + LANES) * FN(load)(b + j + LANES);
    }
    for (; j < n; j += LANES)
        even += FN(load_n)(a + j, n - j) * FN(load_n)(b + j, n - j);
    return FN(sum)(even + odd);
}

/* to += factor from, n elements. */
INLINE void FN(add_scaled)(REAL *to, REAL factor, const REAL *from, idx n)
{
    for (idx j = 0; j < n; j += LANES)
        FN(store_n)(to + j, FN(load_n)(to + j, n - j) + FN(load_n)(from + j, n - j) * factor, n - j);
}

INLINE REAL FN(additive_score)(const REAL *w, const REAL *key, const REAL *query, idx n)
{
    V sums = {0};
    for (idx j = 0; j < n; j += LANES)
        sums += FN(load_n)(w + j, n - j)
            * FN(tanh)(FN(load_n)(key + j, n - j) + FN(load_n)(query + j, n - j));
    return FN(sum)(sums);
}

INLINE REAL FN(dot_scale)(const attention_args *p)
{
    return 1 / SQRT((REAL)p->A);
}

static void FN(attention)(const void *args, idx part, idx parts)
{
    const attention_args *const p = args;
    const idx A = p->A, D = p->D, L = p->places;
    for (idx i = p->queries * part / parts; i < p->queries * (part + 1) / parts; i++) {
        const idx at = p->index ? p->index[i] : i;
        const REAL *const query = (const REAL *)p->query + i * A, *const w = p->w;
        const REAL *const keys = (const REAL *)p->keys + at * L * A;
        const REAL *const values = (const REAL *)p->values + at * L * D;
        REAL *const weights = (REAL *)p->weights + i * L, *const context = (REAL *)p->context + i * D;
        for (idx l = 0; l < L; l++)
            weights[l] = w ? FN(additive_score)(w, keys + l * A, query, A)
                           : FN(dot)(keys + l * A, query, A) * FN(dot_scale)(p);
        const REAL best = FN(row_max)(weights, L);
        V sums = {0};
        for (idx l = 0; l < L; l += LANES) {
            const V e = FN(exp_nonpositive)(FN(load_n)(weights + l, L - l) - best);
            FN(store_n)(weights + l, e, L - l);
            sums += FN(load_n)(weights + l, L - l); /* lanes past the end read as 0 */
        }
        const REAL sum = FN(sum)(sums);
        memset(context, 0, D * sizeof(REAL));
        for (idx l = 0; l < L; l++) {
            weights[l] /= sum;
            FN(add_scaled)(context, weights[l], values + l * D, D);
        }
    }
}

/* Of what key l and a query of dscore add to the gradients. */
INLINE void FN(additive_grad)(const attention_args *p, REAL dscore, const REAL *key, const REAL *query,
                              REAL *dkey, REAL *dquery, REAL *dw)
{
    const REAL *const w = p->w;
    for (idx j = 0; j < p->A; j += LANES) {
        const idx n = p->A - j;
        const V t = FN(tanh)(FN(load_n)(key + j, n) + FN(load_n)(query + j, n));
        const V da = dscore * FN(load_n)(w + j, n) * (1 - t * t);
        FN(store_n)(dkey + j, FN(load_n)(dkey + j, n) + da, n);
        FN(store_n)(dquery + j, FN(load_n)(dquery + j, n) + da, n);
        FN(store_n)(dw + j, FN(load_n)(dw + j, n) + dscore * t, n);
    }
}

/* What is looked at, not queries, is split between threads: several queries may share it. */
static void FN(attention_grad)(const void *args, idx part, idx parts)
{
    const attention_args *const p = args;
    const idx A = p->A, D = p->D, L = p->places;
    for (idx at = p->looked_at * part / parts; at < p->looked_at * (part + 1) / parts; at++)
        for (idx k = p->first[at]; k < p->first[at + 1]; k++) {
            const idx i = p->order[k];
            const REAL *const query = (const REAL *)p->query + i * A;
            const REAL *const keys = (const REAL *)p->keys + at * L * A;
            const REAL *const values = (const REAL *)p->values + at * L * D;
            const REAL *const weights = (const REAL *)p->weights + i * L;
            const REAL *const dcontext = (const REAL *)p->dcontext + i * D;
            const REAL *const dweights = p->dweights ? (const REAL *)p->dweights + i * L : 0;
            REAL *const dkeys = (REAL *)p->dkeys + at * L * A;
            REAL *const dvalues = p->dvalues ? (REAL *)p->dvalues + at * L * D : 0;
            REAL *const dquery = (REAL *)p->dquery + i * A;
            REAL *const dw = p->w ? (REAL *)p->dw + i * A : 0;
            REAL *const dscores = (REAL *)p->dscores + i * L;
            for (idx l = 0; l < L; l++)
                dscores[l] = FN(dot)(dcontext, values + l * D, D) + (dweights ? dweights[l] : 0);
            const REAL mean = FN(dot)(weights, dscores, L);
            memset(dquery, 0, A * sizeof(REAL));
            if (dw)
                memset(dw, 0, A * sizeof(REAL));
            for (idx l = 0; l < L; l++) {
                const REAL dscore = weights[l] * (dscores[l] - mean);
                if (dvalues)
                    FN(add_scaled)(dvalues + l * D, weights[l], dcontext, D);
                if (dw) {
                    FN(additive_grad)(p, dscore, keys + l * A, query, dkeys + l * A, dquery, dw);
                    continue;
                }
                FN(add_scaled)(dquery, dscore * FN(dot_scale)(p), keys + l * A, A);
                FN(add_scaled)(dkeys + l * A, dscore * FN(dot_scale)(p), query, A);
            }
        }
}
