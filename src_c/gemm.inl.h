/* Products with a packed B: packing, the register tile, and the plain and transposed GEMM over it.

   A tile is M rows x NV vectors x P panels of accumulators; all three are constants after inlining,
   so they live in registers. Every M up to the maximum exists, and rows are cut into blocks of
   nearly equal height (25 = 9 + 8 + 8, not 12 + 12 + 1), since a low last block would run at a
   fraction of the speed. Few rows take several panels at once for the same reason; many take a panel
   of four vectors in halves, so that it passes once for twice as many rows. */

/* ---- packing ------------------------------------------------------------------------------- */

/* LANES rows of LANES columns, in registers: each round interleaves the rows of the two halves. */
INLINE void FN(transpose)(V rows[VEC_BYTES / sizeof(REAL)])
{
#pragma GCC unroll 4
    for (idx round = 1; round < LANES; round *= 2) {
        V next[VEC_BYTES / sizeof(REAL)];
#pragma GCC unroll 8
        for (idx i = 0; i < LANES / 2; i++) {
            next[2 * i] = FN(zip_low)(rows[i], rows[i + LANES / 2]);
            next[2 * i + 1] = FN(zip_high)(rows[i], rows[i + LANES / 2]);
        }
        memcpy(rows, next, sizeof next);
    }
}

/* A square of the transpose: of n rows source, source + ld, ... (at most LANES) the first m elements.
   Row i holds element i of each. */
INLINE void FN(load_transposed)(const REAL *source, idx ld, idx n, idx m,
                                V rows[VEC_BYTES / sizeof(REAL)])
{
    for (idx j = 0; j < LANES; j++)
        rows[j] = j < n ? FN(load_n)(source + j * ld, m) : (V){0};
    FN(transpose)(rows);
}

/* n columns, at most LANES, of the transpose: rows source, source + ld, ... of K elements. */
static void FN(pack_transposed)(const REAL *source, idx ld, idx n, idx K, REAL *out, idx out_row)
{
    for (idx k = 0; k < K; k += LANES) {
        const idx m = MIN(LANES, K - k);
        V rows[VEC_BYTES / sizeof(REAL)];
        FN(load_transposed)(source + k, ld, n, m, rows);
        for (idx i = 0; i < m; i++)
            FN(store)(out + (k + i) * out_row, rows[i]);
    }
}

/* Vector v of a panel: where its columns begin, and how many there are. */
typedef struct {
    idx column, n;
} FN(columns);

INLINE FN(columns) FN(columns_of)(const pack_args *p, idx panel, idx v)
{
    const idx units = UNIT_VECTORS(p->gates), unit = (panel * units + v % units) * LANES;
    return (FN(columns)){p->offsets[v / units] + unit, MAX(0, MIN(LANES, p->columns - unit))};
}

INLINE V FN(bias_of)(const pack_args *p, FN(columns) c, idx gate)
{
    V bias = {0};
    if (p->bias)
        bias = FN(load_n)((const REAL *)p->bias + c.column, c.n);
    if (p->second_bias && gate < p->second_bias_gates)
        bias += FN(load_n)((const REAL *)p->second_bias + c.column, c.n);
    return bias;
}

/* Row by row through several panels: a row of B lies on one page or two, a panel's rows each on
   another. */
static void FN(pack_rows)(const pack_args *p, idx begin, idx end)
{
    const idx NV = p->gates * UNIT_VECTORS(p->gates), size = PANEL_SIZE(p->K, NV * LANES);
    REAL *const out = (REAL *)p->packed + begin * size + NV * LANES;
    const int whole = FN(columns_of)(p, end - 1, NV - 1).n == LANES;
    for (idx k = 0; k < p->K; k++) {
        const REAL *const row = (const REAL *)p->source + k * p->ld;
        for (idx v = 0; v < NV; v++)
            for (idx panel = begin; panel < end; panel++) {
                const FN(columns) c = FN(columns_of)(p, panel, v);
                REAL *const to = out + (panel - begin) * size + (k * NV + v) * LANES;
                FN(store)(to, whole ? FN(load)(row + c.column) : FN(load_n)(row + c.column, c.n));
            }
    }
}

static void FN(pack_panels)(const pack_args *p, idx part, idx parts)
{
    const idx units = UNIT_VECTORS(p->gates), NV = p->gates * units;
    const idx panels = CEIL_DIV(p->columns, units * LANES), end = panels * (part + 1) / parts;
    for (idx panel = panels * part / parts; panel < end; panel++)
        for (idx v = 0; v < NV; v++) {
            const FN(columns) c = FN(columns_of)(p, panel, v);
            REAL *const out = (REAL *)p->packed + panel * PANEL_SIZE(p->K, NV * LANES) + v * LANES;
            FN(store)(out, FN(bias_of)(p, c, v / units));
            if (p->transposed)
                FN(pack_transposed)((const REAL *)p->source + c.column * p->ld, p->ld, c.n, p->K,
                                    out + NV * LANES, NV * LANES);
        }
    for (idx panel = panels * part / parts; panel < end && !p->transposed; panel += PACK_PANELS)
        FN(pack_rows)(p, panel, MIN(end, panel + PACK_PANELS));
}

static void FN(pack)(const void *args, idx part, idx parts)
{
    const pack_list *const list = args;
    for (idx job = 0; job < list->jobs; job++)
        FN(pack_panels)(&list->job[job], part, parts);
}

/* ---- the register tile --------------------------------------------------------------------- */

/* out[i][v] = start[i][v] + sum_k a[i][k] b[k][v] for P neighbouring panels. The vectors v >=
   started start from the first row of the panel instead, which holds the bias. There is no call in
   a tile, not even for the columns past the last whole vector: with one GCC keeps the accumulators
   in memory. */
typedef struct {
    idx K, a_row, b_panel, started;
    const REAL *a, *b;
    const REAL *start;
    REAL *out;
    idx start_row, start_panel, out_row, out_panel;
    const idx *out_rows;   /* row i lies at out_rows[i] of start and out; NULL: at i */
    const idx *start_rows; /* of start alone; NULL: as of out */
} FN(tile);

INLINE idx FN(out_place)(const FN(tile) *t, idx i)
{
    return t->out_rows ? t->out_rows[i] : i;
}

INLINE idx FN(start_place)(const FN(tile) *t, idx i)
{
    return t->start_rows ? t->start_rows[i] : FN(out_place)(t, i);
}

typedef void FN(tile_fn)(const FN(tile) *);

/* Of panels of W vectors, NV of them. */
INLINE void FN(tile_body)(const int M, const int NV, const int W, const int P, const FN(tile) *t,
                          idx row, idx depth)
{
    V acc[ACCUMULATORS];
#pragma GCC unroll 12
    for (int i = 0; i < M; i++) {
        const idx at = FN(out_place)(t, i), from = FN(start_place)(t, i);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) {
                acc[(i * P + p) * NV + v] = v < t->started
                    ? FN(load)(t->start + from * t->start_row + p * t->start_panel + v * LANES)
                    : FN(load)(t->b + p * t->b_panel + v * LANES);
                __builtin_prefetch(t->out + at * t->out_row + p * t->out_panel + v * LANES, 1);
            }
    }
    const REAL *a = t->a, *b = t->b + W * LANES;
    for (idx k = 0; k < t->K; k++, a += depth, b += W * LANES) {
        V bv[ACCUMULATORS];
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++) {
                bv[p * NV + v] = FN(load)(b + p * t->b_panel + v * LANES);
                /* Fewer rows are bound by the loads themselves. */
                if (M >= MIN_PREFETCH_ROWS && v * VEC_BYTES % ALIGNMENT == 0)
                    __builtin_prefetch(b + p * t->b_panel + (AHEAD * W + v) * LANES);
            }
#pragma GCC unroll 12
        for (int i = 0; i < M; i++) {
            const V ai = FN(splat)(a[i * row]);
#pragma GCC unroll 16
            for (int v = 0; v < P * NV; v++)
                acc[i * P * NV + v] += ai * bv[v];
        }
    }
#pragma GCC unroll 12
    for (int i = 0; i < M; i++) {
        const idx at = FN(out_place)(t, i);
#pragma GCC unroll 4
        for (int p = 0; p < P; p++)
#pragma GCC unroll 4
            for (int v = 0; v < NV; v++)
                FN(store)(t->out + at * t->out_row + p * t->out_panel + v * LANES,
                          acc[(i * P + p) * NV + v]);
    }
}

/* The most panels, up to `wanted`, that a tile of n accumulators a panel can take at once. */
#define WIDTH(n, wanted) \
    ((wanted) >= 4 && (n) * 4 <= ACCUMULATORS ? 4 : (wanted) >= 2 && (n) * 2 <= ACCUMULATORS ? 2 : 1)

#define TILE(name, M, NV, W, P, row, depth)                       \
    static void FN(name)(const FN(tile) *t)                       \
    {                                                             \
        FN(tile_body)(M, NV, W, P, t, row, depth);                \
    }
#define TILES(M, NV)                                              \
    TILE(tile_##NV##v_##M, M, NV, NV, 1, t->a_row, 1)             \
    TILE(pair_##NV##v_##M, M, NV, NV, WIDTH(M * NV, 2), t->a_row, 1) \
    TILE(wide_##NV##v_##M, M, NV, NV, WIDTH(M * NV, 4), t->a_row, 1)
#define X(M) TILES(M, 2)
HEIGHTS_2V(X)
#undef X
#define X(M) TILES(M, 3)
HEIGHTS_3V(X)
#undef X
#define X(M) TILES(M, 4)
HEIGHTS_4V(X)
#undef X
#define X(M) TILE(half_4v_##M, M, 2, 4, 1, t->a_row, 1)
HALF_HEIGHTS_4V(X)
#undef X
/* Over blocks of transpose_rows. */
#define X(M) TILE(features_##M, M, 2, 2, 1, 1, MAX_ROWS(2))
HEIGHTS_2V(X)
#undef X
#undef TILES
#undef TILE
#define X(M) FN(features_##M),
static FN(tile_fn) *const FN(features)[] = {0, HEIGHTS_2V(X)};
#undef X

/* By height, then by width: 1, 2 and 4 panels, or what fits. */
#define X(M) {FN(tile_2v_##M), FN(pair_2v_##M), FN(wide_2v_##M)},
static FN(tile_fn) *const FN(tiles_2v)[][3] = {{0}, HEIGHTS_2V(X)};
#undef X
#define X(M) {FN(tile_3v_##M), FN(pair_3v_##M), FN(wide_3v_##M)},
static FN(tile_fn) *const FN(tiles_3v)[][3] = {{0}, HEIGHTS_3V(X)};
#undef X
#define X(M) {FN(tile_4v_##M), FN(pair_4v_##M), FN(wide_4v_##M)},
#define HALF(M) {FN(half_4v_##M)},
static FN(tile_fn) *const FN(tiles_4v)[][3] = {{0}, HEIGHTS_4V(X) HALF_HEIGHTS_4V(HALF)};
#undef X
#undef HALF

/* A tile of m rows of one panel that only the first `columns` columns of start and out have. */
static void FN(run_partial)(FN(tile_fn) *run, const FN(tile) *t, idx m, idx NV, idx columns)
{
    REAL scratch[ACCUMULATORS * (VEC_BYTES / sizeof(REAL))];
    FN(tile) inside = *t;
    inside.start = inside.out = scratch;
    inside.start_row = inside.out_row = NV * LANES;
    inside.out_rows = inside.start_rows = 0;
    for (idx i = 0; i < m && t->started; i++)
        memcpy(scratch + i * NV * LANES, t->start + FN(start_place)(t, i) * t->start_row,
               columns * sizeof(REAL));
    run(&inside);
    for (idx i = 0; i < m; i++)
        memcpy(t->out + FN(out_place)(t, i) * t->out_row, scratch + i * NV * LANES,
               columns * sizeof(REAL));
}

/* Of more rows than all four vectors of a panel have accumulators for. */
static void FN(run_halves)(FN(tile_fn) *run, const FN(tile) *t)
{
    FN(tile) half = *t;
    run(&half);
    half.b += 2 * LANES;
    half.start += 2 * LANES;
    half.out += 2 * LANES;
    half.started -= 2;
    run(&half);
}

/* Computes up to `panels` panels of NV vectors, which have so many columns together (panels of four
   are whole); returns how many panels it was. */
INLINE idx FN(run_tile)(const FN(tile) *t, idx m, idx NV, idx panels, idx columns)
{
    FN(tile_fn) *const(*const tiles)[3] = NV == 2 ? FN(tiles_2v) : NV == 3 ? FN(tiles_3v)
                                                                           : FN(tiles_4v);
    const idx width = WIDTH(m * NV, MIN(panels, columns / (NV * LANES)));
    if (m * NV > ACCUMULATORS)
        FN(run_halves)(tiles[m][0], t);
    else if (columns >= NV * LANES)
        tiles[m][width / 2](t);
    else
        FN(run_partial)(tiles[m][0], t, m, NV, columns);
    return width;
}

/* ---- a product of many rows ------------------------------------------------------------------ */

/* Panels p0..p1 of out = bias + A B. */
typedef struct {
    idx rows, K, vectors, p0, p1;
    const REAL *a; /* row i: a + i * a_row, or a_rows[i] */
    idx a_row;
    const REAL *const *a_rows;
    const REAL *packed;
    REAL *out; /* row i of panel p: out + p * out_panel + i * out_row, or out_rows[i] * out_row */
    idx out_row, out_panel, columns;
    const idx *out_rows;
    const REAL *start; /* a row of every panel; NULL: the first one of the packed panel */
} FN(product_args);

/* Rows r..r+m of A, columns k..k+K, where a tile finds them: copied to lie together, if they lie
   anywhere or so far apart by a power of two that they would share few sets of the cache. */
static void FN(find_rows)(const FN(product_args) *p, FN(tile) *t, idx r, idx m, idx k, REAL *to)
{
    t->a = to;
    t->a_row = t->K;
    if (!p->a_rows && p->a_row * sizeof(REAL) % SHARED_SETS) {
        t->a = p->a + r * p->a_row + k;
        t->a_row = p->a_row;
        return;
    }
    for (idx i = r; i < r + m; i++, to += t->K)
        memcpy(to, (p->a_rows ? p->a_rows[i] : p->a + i * p->a_row) + k, t->K * sizeof(REAL));
}

/* Loops: a block of B that stays in L2, a depth at which a block of A stays in L1, blocks of rows,
   panels. */
static void FN(product)(const FN(product_args) *p)
{
    const idx NV = p->vectors, width = NV * LANES;
    const idx depth = MIN(MAX_DEPTH, p->K), blocks = CEIL_DIV(p->rows, MAX_ROWS(NV));
    const idx block_panels = MAX(4, (idx)fastrnn_caches.block_bytes / (NV * VEC_BYTES * depth));
    REAL a[MAX_ROWS(2) * MAX_DEPTH];
    for (idx q = p->p0; q < p->p1; q += block_panels)
        for (idx k = 0; k < p->K; k += depth)
            for (idx block = 0; block < blocks; block++) {
                const idx r = p->rows * block / blocks, m = p->rows * (block + 1) / blocks - r;
                const idx end = MIN(p->p1, q + block_panels);
                FN(tile) t = {.K = MIN(depth, p->K - k), .b_panel = PANEL_SIZE(p->K, width),
                              .started = k || p->start ? NV : 0,
                              .start_row = k || !p->start ? p->out_row : 0,
                              .start_panel = k || !p->start ? p->out_panel : 0,
                              .out_row = p->out_row, .out_panel = p->out_panel};
                FN(find_rows)(p, &t, r, m, k, a);
                t.out_rows = p->out_rows ? p->out_rows + r : 0;
                for (idx panel = q, done; panel < end; panel += done) {
                    t.b = p->packed + panel * t.b_panel + k * width;
                    t.out = p->out + (panel - p->p0) * p->out_panel
                        + (p->out_rows ? 0 : r * p->out_row);
                    t.start = k || !p->start ? t.out : p->start;
                    done = FN(run_tile)(&t, m, NV, end - panel, p->columns - panel * width);
                }
            }
}

/* ---- few rows: B as it lies ------------------------------------------------------------------ */

/* NV vectors of z += a W. */
INLINE void FN(add_stripe)(const int NV, REAL *z, const REAL *a, const REAL *W, idx ld, idx K)
{
    V sum[STRIPE];
#pragma GCC unroll 16
    for (int v = 0; v < NV; v++)
        sum[v] = FN(load)(z + v * LANES);
    for (idx k = 0; k < K; k++, W += ld) {
        const V ak = FN(splat)(a[k]);
#pragma GCC unroll 16
        for (int v = 0; v < NV; v++)
            sum[v] += ak * FN(load)(W + v * LANES);
    }
#pragma GCC unroll 16
    for (int v = 0; v < NV; v++)
        FN(store)(z + v * LANES, sum[v]);
}

static void FN(add_last_columns)(REAL *z, const REAL *a, const REAL *W, idx ld, idx K, idx columns)
{
    V sum = FN(load_n)(z, columns);
    for (idx k = 0; k < K; k++)
        sum += FN(splat)(a[k]) * FN(load_n)(W + k * ld, columns);
    FN(store_n)(z, sum, columns);
}

/* z += a W, in stripes of columns. */
static void FN(add_vector_product)(REAL *z, const REAL *a, const REAL *W, idx ld, idx K,
                                   idx columns)
{
    idx j = 0;
    for (; j + STRIPE * LANES <= columns; j += STRIPE * LANES)
        FN(add_stripe)(STRIPE, z + j, a, W + j, ld, K);
    for (; j + 4 * LANES <= columns; j += 4 * LANES)
        FN(add_stripe)(4, z + j, a, W + j, ld, K);
    for (; j + LANES <= columns; j += LANES)
        FN(add_stripe)(1, z + j, a, W + j, ld, K);
    if (j < columns)
        FN(add_last_columns)(z + j, a, W + j, ld, K, columns - j);
}

/* The same with the transpose of W as it lies, n rows of K elements, at most LANES of them: squares
   of it are transposed in registers. */
static void FN(add_transposed_rows)(REAL *z, const REAL *a, const REAL *W, idx ld, idx K, idx n)
{
    V sum = FN(load_n)(z, n);
    for (idx k = 0; k < K; k += LANES) {
        const idx m = MIN(LANES, K - k);
        V rows[VEC_BYTES / sizeof(REAL)];
        FN(load_transposed)(W + k, ld, n, m, rows);
        for (idx i = 0; i < m; i++)
            sum += FN(splat)(a[k + i]) * rows[i];
    }
    FN(store_n)(z, sum, n);
}

static void FN(add_transposed_product)(REAL *z, const REAL *a, const REAL *W, idx ld, idx K,
                                       idx columns)
{
    for (idx j = 0; j < columns; j += LANES)
        FN(add_transposed_rows)(z + j, a, W + j * ld, ld, K, MIN(LANES, columns - j));
}

/* ---- C = bias + A B --------------------------------------------------------------------------- */

/* Columns, not rows, are split. */
static void FN(matmul_unpacked)(const matmul_args *p, idx part, idx parts)
{
    const idx blocks = CEIL_DIV(p->columns, 2 * LANES), begin = blocks * part / parts * 2 * LANES;
    const idx columns = MIN(p->columns, blocks * (part + 1) / parts * 2 * LANES) - begin;
    for (idx i = 0; i < p->rows && columns > 0; i++) {
        REAL *const out = (REAL *)p->C + (p->out_rows ? p->out_rows[i] : i) * p->columns + begin;
        if (p->bias)
            memcpy(out, (const REAL *)p->bias + begin, columns * sizeof(REAL));
        else
            memset(out, 0, columns * sizeof(REAL));
        const REAL *const a = (const REAL *)p->A + i * p->a_row, *const B = p->B;
        if (p->transposed)
            FN(add_transposed_product)(out, a, B + begin * p->K, p->K, p->K, columns);
        else
            FN(add_vector_product)(out, a, B + begin, p->columns, p->K, columns);
    }
}

/* Columns are split where there are enough, so that each thread's part of B stays in its cache;
   else rows are. */
static void FN(matmul)(const void *args, idx part, idx parts)
{
    const matmul_args *const p = args;
    const idx panels = CEIL_DIV(p->columns, 2 * LANES);
    const int by_columns = panels >= 4 * parts;
    const idx begin = by_columns ? 0 : p->rows * part / parts;
    const idx end = by_columns ? p->rows : p->rows * (part + 1) / parts;
    const idx p0 = by_columns ? panels * part / parts : 0;
    if (!p->packed) {
        FN(matmul_unpacked)(p, part, parts);
        return;
    }
    const FN(product_args) product = {
        .rows = end - begin, .K = p->K, .vectors = 2, .p0 = p0,
        .p1 = by_columns ? panels * (part + 1) / parts : panels,
        .a = (const REAL *)p->A + begin * p->a_row, .a_row = p->a_row, .packed = p->packed,
        .out = (REAL *)p->C + p0 * 2 * LANES + (p->out_rows ? 0 : begin * p->columns),
        .out_row = p->columns, .out_panel = 2 * LANES, .columns = p->columns,
        .out_rows = p->out_rows ? p->out_rows + begin : 0};
    if (begin < end)
        FN(product)(&product);
}

/* ---- the gradient of the weights: C += A^T B ------------------------------------------------- */

/* Row r of one side of a gradient. */
INLINE const REAL *FN(side_row)(const weight_grad_args *p, const void *const *rows, const void *first,
                                idx stride, idx r)
{
    return rows ? rows[r] : (const REAL *)first + (p->order ? p->order[r] : r) * stride;
}

/* The features of `block` of the rows begin..end of A. */
static void FN(transpose_block)(const weight_grad_args *p, idx block, idx begin, idx end)
{
    const idx feature = block * MAX_ROWS(2), m = MIN(MAX_ROWS(2), p->K - feature);
    REAL *to = (REAL *)p->blocks + (block * p->rows + begin) * MAX_ROWS(2);
    for (idx r = begin; r < end; r++, to += MAX_ROWS(2)) {
        const REAL *const row = FN(side_row)(p, p->a_rows, p->A, p->a_row, r);
        if (m == MAX_ROWS(2))
            memcpy(to, row + feature, MAX_ROWS(2) * sizeof(REAL));
        else
            memcpy(to, row + feature, m * sizeof(REAL));
    }
}

/* Blocks of MAX_ROWS(2) features of the rows of A, laid so that a tile reads them front to back; of a
   few rows after the other, which stay in L1 meanwhile. */
static void FN(transpose_rows)(const void *args, idx part, idx parts)
{
    const weight_grad_list *const list = args;
    for (idx job = 0; job < list->jobs; job++) {
        const weight_grad_args *const p = &list->job[job];
        const idx blocks = CEIL_DIV(p->K, MAX_ROWS(2)), end = blocks * (part + 1) / parts;
        for (idx r = 0; r < p->rows && !p->same_blocks; r += TRANSPOSED_ROWS)
            for (idx block = blocks * part / parts; block < end; block++)
                FN(transpose_block)(p, block, r, MIN(r + TRANSPOSED_ROWS, p->rows));
    }
}

/* Rows r..r+K of a panel of columns of B, and their sum into bias. */
static void FN(gradient_panel)(const weight_grad_args *p, idx column, idx r, idx K, REAL *to)
{
    const idx n = p->columns - column;
    V sum[2] = {{0}, {0}};
    for (idx v = 0; v < 2; v++) {
        if (p->dbias && (p->accumulate || r))
            sum[v] = FN(load_n)((REAL *)p->dbias + column + v * LANES, n - v * LANES);
        FN(store)(to + v * LANES, (V){0});
    }
    for (idx k = 0; k < K; k++) {
        const REAL *const row = FN(side_row)(p, p->b_rows, p->B, p->b_row, r + k) + column;
        for (idx v = 0; v < 2; v++) {
            const V g = FN(load_n)(row + v * LANES, n - v * LANES);
            FN(store)(to + (2 * (k + 1) + v) * LANES, g);
            sum[v] += g;
        }
    }
    if (p->dbias)
        for (idx v = 0; v < 2; v++)
            FN(store_n)((REAL *)p->dbias + column + v * LANES, sum[v], n - v * LANES);
}

/* Panels of columns panel..panel+count of C over the rows r..r+K. */
static void FN(gradient_block)(const weight_grad_args *p, idx panel, idx count, idx r, idx K,
                               REAL *B)
{
    const idx size = PANEL_SIZE(MAX_DEPTH, 2 * LANES);
    for (idx i = 0; i < count; i++)
        FN(gradient_panel)(p, (panel + i) * 2 * LANES, r, K, B + i * size);
    for (idx feature = 0; feature < p->K; feature += MAX_ROWS(2)) {
        const idx m = MIN(MAX_ROWS(2), p->K - feature);
        FN(tile) t = {.K = K, .started = p->accumulate || r ? 2 : 0, .start_row = p->c_row,
                      .out_row = p->c_row};
        t.a = (const REAL *)p->blocks + feature * p->rows + r * MAX_ROWS(2);
        for (idx i = 0; i < count; i++) {
            t.b = B + i * size;
            t.start = t.out = (REAL *)p->C + feature * p->c_row + (panel + i) * 2 * LANES;
            if (p->columns >= (panel + i + 1) * 2 * LANES)
                FN(features)[m](&t);
            else
                FN(run_partial)(FN(features)[m], &t, m, 2, p->columns - (panel + i) * 2 * LANES);
        }
    }
}

static void FN(weight_grad)(const void *args, idx part, idx parts)
{
    const weight_grad_list *const list = args;
    REAL *const B = (REAL *)list->panels + part * GRAD_PANELS * PANEL_SIZE(MAX_DEPTH, 2 * LANES);
    for (idx job = 0; job < list->jobs; job++) {
        const weight_grad_args *const p = &list->job[job];
        const idx panels = CEIL_DIV(p->columns, 2 * LANES), end = panels * (part + 1) / parts;
        /* Without rows once too, with K = 0: the gradients are 0, not what the buffer held. */
        for (idx r = 0; r < MAX(1, p->rows); r += MAX_DEPTH)
            for (idx panel = panels * part / parts; panel < end; panel += GRAD_PANELS)
                FN(gradient_block)(p, panel, MIN(GRAD_PANELS, end - panel), r,
                                   MIN(MAX_DEPTH, p->rows - r), B);
    }
}

/* Row r of the right side of a sum of products. */
INLINE const REAL *FN(factor_row)(const vector_grad_args *p, idx r)
{
    return p->b_rows ? p->b_rows[r]
        : p->B ? (const REAL *)p->B + (p->b_order ? p->b_order : p->order)[r] * p->b_row
               : 0;
}

/* Adds row r, of which n elements are left from `column` on, to SUMS_AT_ONCE vectors of sums. Three
   loops: what is a multiply-add in one of them is none across a branch. */
INLINE void FN(add_product)(const vector_grad_args *p, idx r, idx column, idx n, V *sum)
{
    const REAL *const a = (const REAL *)p->A + p->order[r] * p->a_row + column;
    const REAL *const b = FN(factor_row)(p, r);
    if (!b) {
        for (idx v = 0; v < SUMS_AT_ONCE && n > v * LANES; v++)
            sum[v] += FN(load_n)(a + v * LANES, n - v * LANES);
    } else if (!p->moments) {
        for (idx v = 0; v < SUMS_AT_ONCE && n > v * LANES; v++)
            sum[v] += FN(load_n)(a + v * LANES, n - v * LANES)
                * FN(load_n)(b + column + v * LANES, n - v * LANES);
    } else {
        const REAL *const m = (const REAL *)p->moments + p->order[r] * p->moments_row;
        for (idx v = 0; v < SUMS_AT_ONCE && n > v * LANES; v++)
            sum[v] += FN(load_n)(a + v * LANES, n - v * LANES)
                * ((FN(load_n)(b + column + v * LANES, n - v * LANES) - m[0]) * m[1]);
    }
}

/* The rows r..end of a sum, in columns of several vectors at once. */
static void FN(add_products)(const vector_grad_args *p, idx r, idx end, idx part, idx parts)
{
    const idx blocks = CEIL_DIV(p->columns, SUMS_AT_ONCE * LANES), last = blocks * (part + 1) / parts;
    for (idx block = blocks * part / parts; block < last; block++) {
        const idx column = block * SUMS_AT_ONCE * LANES, n = p->columns - column;
        REAL *const to = (REAL *)p->C + column;
        V sum[SUMS_AT_ONCE];
        for (idx v = 0; v < SUMS_AT_ONCE; v++)
            sum[v] = (p->accumulate || r) && n > v * LANES ? FN(load_n)(to + v * LANES, n - v * LANES)
                                                           : (V){0};
        for (idx i = r; i < end && n >= SUMS_AT_ONCE * LANES; i++)
            FN(add_product)(p, i, column, SUMS_AT_ONCE * LANES, sum);
        for (idx i = r; i < end && n < SUMS_AT_ONCE * LANES; i++)
            FN(add_product)(p, i, column, n, sum);
        for (idx v = 0; v < SUMS_AT_ONCE && n > v * LANES; v++)
            FN(store_n)(to + v * LANES, sum[v], n - v * LANES);
    }
}

/* All sums over a few rows after the other, which several sums read. */
static void FN(vector_grad)(const void *args, idx part, idx parts)
{
    enum { ROWS = 16 };
    const vector_grad_list *const list = args;
    const idx rows = list->jobs ? list->job[0].rows : 0;
    for (idx r = 0; r < MAX(1, rows); r += ROWS)
        for (idx job = 0; job < list->jobs; job++)
            FN(add_products)(&list->job[job], r, MIN(rows, r + ROWS), part, parts);
}
