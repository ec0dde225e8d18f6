/* Products with a packed B: packing, the register tile, and the plain and transposed GEMM over it.

   A tile is M rows x NV vectors of accumulators; M and NV are constants after inlining, so they
   live in registers. Every M up to the maximum exists, and rows are cut into blocks of nearly
   equal height (25 = 9 + 8 + 8, not 12 + 12 + 1), since a low last block would run at a fraction of
   the speed. */

/* ---- packing ------------------------------------------------------------------------------- */

static void FN(pack_panel)(const pack_args *p, idx panel, REAL *to)
{
    const REAL *const source = p->source;
    const idx units = p->gates == 1 ? 2 : 1, vectors = p->gates * units;
    for (idx v = 0; v < vectors; v++) {
        const idx gate = v / units, unit = (panel * units + v % units) * LANES;
        const idx column = p->offset[gate] + unit;
        const idx n = MAX(0, MIN(LANES, p->columns - unit));
        REAL *out = to + v * LANES;
        if (!p->transposed) {
            for (idx k = 0; k < p->K; k++)
                FN(store)(out + k * vectors * LANES, FN(load_n)(source + k * p->ld + column, n));
            continue;
        }
        for (idx j = 0; j < LANES; j++) {
            const REAL *const row = source + (column + j) * p->ld;
            for (idx k = 0; k < p->K; k++)
                out[k * vectors * LANES + j] = j < n ? row[k] : 0;
        }
    }
}

static void FN(pack)(const void *args, idx begin, idx end)
{
    const pack_args *const p = args;
    const idx size = p->K * p->gates * (p->gates == 1 ? 2 : 1) * LANES;
    for (idx panel = begin; panel < end; panel++)
        FN(pack_panel)(p, panel, (REAL *)p->packed + panel * size);
}

/* ---- the register tile --------------------------------------------------------------------- */

/* acc[i][v] += sum_k a[i * row + k * depth] b[k][v] */
INLINE void FN(accumulate)(const int M, const int NV, V acc[MAX_ROWS_2V][MAX_VECTORS], idx K,
                           const REAL *a, idx row, idx depth, const REAL *b)
{
    for (idx k = 0; k < K; k++, a += depth, b += NV * LANES) {
        V bv[MAX_VECTORS];
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            bv[v] = FN(load)(b + v * LANES);
#pragma GCC unroll 12
        for (int i = 0; i < M; i++) {
            const V ai = FN(splat)(a[i * row]);
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                acc[i][v] += ai * bv[v];
        }
    }
}

/* out[i][v] = start[i][v] + sum_k a[i][k] b[k][v] for one panel. Vector v begins at column[v] of
   start and of out and has n[v] columns. */
typedef struct {
    idx K, a_row, start_row, out_row; /* start_row 0: a bias */
    const REAL *a, *b, *start;        /* start NULL: 0 */
    REAL *out;
    idx column[MAX_VECTORS], n[MAX_VECTORS];
} FN(tile);

INLINE void FN(tile_body)(const int M, const int NV, const FN(tile) *t, idx row, idx depth)
{
    V acc[MAX_ROWS_2V][MAX_VECTORS];
#pragma GCC unroll 12
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++) {
            const REAL *const start = t->start + i * t->start_row + t->column[v];
            acc[i][v] = t->start ? FN(load_n)(start, t->n[v]) : (V){0};
            __builtin_prefetch(t->out + i * t->out_row + t->column[v], 1);
        }
    FN(accumulate)(M, NV, acc, t->K, t->a, row, depth, t->b);
#pragma GCC unroll 12
    for (int i = 0; i < M; i++)
#pragma GCC unroll 4
        for (int v = 0; v < NV; v++)
            FN(store_n)(t->out + i * t->out_row + t->column[v], acc[i][v], t->n[v]);
}

/* A function a height M: of rows of A as they lie, of blocks of transpose_rows, of gate panels. */
typedef void FN(tile_fn)(const FN(tile) *);
#define X(M)                                                    \
    static void FN(rows_tile_##M)(const FN(tile) *t)            \
    {                                                           \
        FN(tile_body)(M, 2, t, t->a_row, 1);                    \
    }                                                           \
    static void FN(features_tile_##M)(const FN(tile) *t)        \
    {                                                           \
        FN(tile_body)(M, 2, t, 1, MAX_ROWS_2V);                 \
    }
HEIGHTS_2V(X)
#undef X
#define X(M)                                                    \
    static void FN(gates_tile_##M)(const FN(tile) *t)           \
    {                                                           \
        FN(tile_body)(M, 4, t, t->a_row, 1);                    \
    }
HEIGHTS_4V(X)
#undef X

#define X(M) FN(rows_tile_##M),
static FN(tile_fn) *const FN(rows_tile)[] = {0, HEIGHTS_2V(X)};
#undef X
#define X(M) FN(features_tile_##M),
static FN(tile_fn) *const FN(features_tile)[] = {0, HEIGHTS_2V(X)};
#undef X
#define X(M) FN(gates_tile_##M),
static FN(tile_fn) *const FN(gates_tile)[] = {0, HEIGHTS_4V(X)};
#undef X

/* ---- a plain product ------------------------------------------------------------------------ */

INLINE void FN(plain_columns)(FN(tile) *t, idx panel, idx columns)
{
    for (idx v = 0; v < 2; v++) {
        t->column[v] = (2 * panel + v) * LANES;
        t->n[v] = MAX(0, MIN(LANES, columns - t->column[v]));
    }
}

/* out = start + A B over R rows. Loops: a block of B that stays in L2, a depth at which a block of
   A stays in L1, blocks of rows, panels. */
static void FN(product)(idx R, idx columns, FN(tile) t, idx K, const REAL *packed)
{
    const idx panels = (columns + 2 * LANES - 1) / (2 * LANES);
    const idx blocks = (R + MAX_ROWS_2V - 1) / MAX_ROWS_2V;
    const idx block_panels = MAX(1, B_BLOCK_BYTES / (2 * VEC_BYTES * MAX(1, MIN(K, MAX_DEPTH))));
    const REAL *const a = t.a, *const start = t.start;
    REAL *const out = t.out;
    const idx start_row = t.start_row;
    for (idx p0 = 0; p0 < panels; p0 += block_panels)
        for (idx k0 = 0; k0 < MAX(1, K); k0 += MAX_DEPTH) {
            t.K = MIN(MAX_DEPTH, K - k0);
            t.start_row = k0 ? t.out_row : start_row;
            for (idx block = 0; block < blocks; block++) {
                const idx r = R * block / blocks, m = R * (block + 1) / blocks - r;
                t.a = a + r * t.a_row + k0;
                t.out = out + r * t.out_row;
                t.start = k0 ? t.out : start ? start + r * start_row : 0;
                for (idx panel = p0; panel < MIN(panels, p0 + block_panels); panel++) {
                    FN(plain_columns)(&t, panel, columns);
                    t.b = packed + (panel * K + k0) * 2 * LANES;
                    FN(rows_tile)[m](&t);
                }
            }
        }
}

static void FN(matmul)(const void *args, idx begin, idx end)
{
    const matmul_args *const p = args;
    const FN(tile) t = {.a = (const REAL *)p->A + begin * p->K, .a_row = p->K, .start = p->bias,
                        .out = (REAL *)p->C + begin * p->columns, .out_row = p->columns};
    FN(product)(end - begin, p->columns, t, p->K, p->packed);
}

/* ---- the gradient of the weights: C += A^T B ------------------------------------------------- */

/* Features a..a+m of A's rows, laid so that a tile reads them front to back. */
static void FN(transpose_block)(const weight_grad_args *p, idx D, const REAL *x, const REAL *first,
                                idx feature, REAL *to)
{
    const idx m = MIN(MAX_ROWS_2V, D - feature);
    for (idx n = 0; n < p->N; n++)
        for (idx t = p->t0; t < p->t1; t++, to += MAX_ROWS_2V) {
            const REAL *const row = first == 0 ? x + (n * p->T + t) * D
                : t == 0 ? first + n * D : x + (n * p->T + t - 1) * D;
            for (idx i = 0; i < m; i++)
                to[i] = row[feature + i];
        }
}

static void FN(transpose_rows)(const void *args, idx begin, idx end)
{
    const weight_grad_args *const p = args;
    const idx rows = p->N * (p->t1 - p->t0);
    const idx x_blocks = (p->D + MAX_ROWS_2V - 1) / MAX_ROWS_2V;
    for (idx block = begin; block < end; block++) {
        REAL *const to = (REAL *)p->blocks + block * rows * MAX_ROWS_2V;
        if (block < x_blocks)
            FN(transpose_block)(p, p->D, p->x, 0, block * MAX_ROWS_2V, to);
        else
            FN(transpose_block)(p, p->H, p->h, p->h0, (block - x_blocks) * MAX_ROWS_2V, to);
    }
}

/* Rows r..r+K of columns of dgates as one panel, and their sum into db. */
static void FN(gradient_panel)(const weight_grad_args *p, const FN(tile) *t, idx r, idx K, REAL *to)
{
    const idx steps = p->t1 - p->t0;
    REAL *const db = p->db;
    V sum[2] = {{0}, {0}};
    for (idx v = 0; v < 2; v++)
        if (!p->first || r)
            sum[v] = FN(load_n)(db + t->column[v], t->n[v]);
    for (idx k = 0; k < K; k++) {
        const idx n = (r + k) / steps, step = (r + k) % steps;
        const REAL *const row = (const REAL *)p->dgates + (n * p->dgates_T + step) * p->columns;
        for (idx v = 0; v < 2; v++) {
            const V g = FN(load_n)(row + t->column[v], t->n[v]);
            FN(store)(to + (2 * k + v) * LANES, g);
            sum[v] += g;
        }
    }
    for (idx v = 0; v < 2; v++)
        FN(store_n)(db + t->column[v], sum[v], t->n[v]);
}

/* One panel of columns of dW [D, columns]: all blocks of features over rows r..r+t.K. */
static void FN(grad_rows)(const weight_grad_args *p, FN(tile) t, idx D, idx r, const REAL *blocks,
                          REAL *dW)
{
    const idx rows = p->N * (p->t1 - p->t0);
    t.start_row = t.out_row = p->columns;
    for (idx d = 0; d < D; d += MAX_ROWS_2V) {
        t.a = blocks + (d / MAX_ROWS_2V * rows + r) * MAX_ROWS_2V;
        t.out = dW + d * p->columns;
        t.start = p->first && r == 0 ? 0 : t.out;
        FN(features_tile)[MIN(MAX_ROWS_2V, D - d)](&t);
    }
}

static void FN(weight_grad)(const void *args, idx begin, idx end)
{
    const weight_grad_args *const p = args;
    const idx rows = p->N * (p->t1 - p->t0);
    const idx x_blocks = (p->D + MAX_ROWS_2V - 1) / MAX_ROWS_2V;
    REAL *const room = (REAL *)p->panels + begin * MAX_DEPTH * 2 * LANES;
    FN(tile) t = {.b = room};
    /* rows == 0 runs once too, with K = 0: the gradients are 0, not what np.empty held. */
    for (idx r = 0; r < MAX(1, rows); r += MAX_DEPTH) {
        t.K = MIN(MAX_DEPTH, rows - r);
        for (idx panel = begin; panel < end; panel++) {
            FN(plain_columns)(&t, panel, p->columns);
            FN(gradient_panel)(p, &t, r, t.K, room);
            FN(grad_rows)(p, t, p->D, r, p->blocks, p->dWx);
            FN(grad_rows)(p, t, p->H, r, (const REAL *)p->blocks + x_blocks * rows * MAX_ROWS_2V,
                          p->dWh);
        }
    }
}
