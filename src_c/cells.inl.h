/* The recurrent cells over their rows begin..end and steps t0..t1: h_prev Wh by tiles, then the
   gates of each finished block of rows while it is in L1.

   rnn    h = tanh(a)
   lstm   i, f, o = sigmoid(a_i, a_f, a_o), g = tanh(a_g), c = f c_prev + i g, h = o tanh(c)
   with   a = x Wx + b + h_prev Wh */

/* ---- gates of one block of rows: m rows from row (n, t), units j.. --------------------------- */

/* The state (h or c) of the step before; NULL, of c alone, stands for zeros. */
INLINE const REAL *FN(previous)(const REAL *states, const REAL *first, const cell_args *s, idx n,
                                idx t)
{
    return t ? states + (n * s->T + t - 1) * s->H : first ? first + n * s->H : 0;
}

static void FN(rnn_activate)(const cell_args *s, idx n0, idx m, idx t, idx j, idx j_end)
{
    for (idx n = n0; n < n0 + m; n++) {
        REAL *const h = (REAL *)s->h + (n * s->T + t) * s->H;
        for (idx u = j; u < j_end; u += LANES)
            FN(store_n)(h + u, FN(tanh)(FN(load_n)(h + u, j_end - u)), j_end - u);
    }
}

static void FN(lstm_activate)(const cell_args *s, idx n0, idx m, idx t, idx j, idx j_end)
{
    for (idx n = n0; n < n0 + m; n++) {
        const idx row = n * s->T + t;
        REAL *const gates = (REAL *)s->gates + row * 4 * s->H;
        REAL *const I = gates + s->offset[0], *const F = gates + s->offset[1];
        REAL *const O = gates + s->offset[2], *const G = gates + s->offset[3];
        const REAL *const c_prev = FN(previous)(s->c, s->c0, s, n, t);
        for (idx u = j; u < j_end; u += LANES) {
            const idx k = j_end - u;
            const V i = FN(sigmoid)(FN(load_n)(I + u, k)), f = FN(sigmoid)(FN(load_n)(F + u, k));
            const V o = FN(sigmoid)(FN(load_n)(O + u, k)), g = FN(tanh)(FN(load_n)(G + u, k));
            const V c = f * (c_prev ? FN(load_n)(c_prev + u, k) : (V){0}) + i * g;
            FN(store_n)(I + u, i, k);
            FN(store_n)(F + u, f, k);
            FN(store_n)(O + u, o, k);
            FN(store_n)(G + u, g, k);
            FN(store_n)((REAL *)s->c + row * s->H + u, c, k);
            FN(store_n)((REAL *)s->h + row * s->H + u, o * FN(tanh)(c), k);
        }
    }
}

/* dh: the gradient of h at (n0.., t), units j..j_end: rows of 2 LANES. */
static void FN(rnn_gradients)(const cell_args *s, idx n0, idx m, idx t, const REAL *dh, idx j,
                              idx j_end)
{
    for (idx n = n0; n < n0 + m; n++, dh += 2 * LANES) {
        const REAL *const h = (const REAL *)s->h + (n * s->T + t) * s->H;
        REAL *const da = (REAL *)s->dgates + (n * s->dgates_T + t - s->t0) * s->H;
        for (idx u = j; u < j_end; u += LANES) {
            const V y = FN(load_n)(h + u, j_end - u);
            FN(store_n)(da + u, FN(load)(dh + u - j) * (1 - y * y), j_end - u);
        }
    }
}

static void FN(lstm_gradients)(const cell_args *s, idx n0, idx m, idx t, const REAL *dh, idx j,
                               idx j_end)
{
    for (idx n = n0; n < n0 + m; n++, dh += 2 * LANES) {
        const idx row = n * s->T + t;
        const REAL *const gates = (const REAL *)s->gates + row * 4 * s->H;
        const REAL *const c_prev = FN(previous)(s->c, s->c0, s, n, t);
        REAL *const da = (REAL *)s->dgates + (n * s->dgates_T + t - s->t0) * 4 * s->H;
        REAL *const dc_carry = (REAL *)s->dc_carry + n * s->H;
        for (idx u = j; u < j_end; u += LANES) {
            const idx k = j_end - u;
            const V i = FN(load_n)(gates + s->offset[0] + u, k);
            const V f = FN(load_n)(gates + s->offset[1] + u, k);
            const V o = FN(load_n)(gates + s->offset[2] + u, k);
            const V g = FN(load_n)(gates + s->offset[3] + u, k);
            const V tanh_c = FN(tanh)(FN(load_n)((const REAL *)s->c + row * s->H + u, k));
            const V dhu = FN(load)(dh + u - j);
            const V dc = FN(load_n)(dc_carry + u, k) + dhu * o * (1 - tanh_c * tanh_c);
            const V cp = c_prev ? FN(load_n)(c_prev + u, k) : (V){0};
            FN(store_n)(da + s->offset[0] + u, dc * g * (i * (1 - i)), k);
            FN(store_n)(da + s->offset[1] + u, dc * cp * (f * (1 - f)), k);
            FN(store_n)(da + s->offset[2] + u, dhu * tanh_c * (o * (1 - o)), k);
            FN(store_n)(da + s->offset[3] + u, dc * i * (1 - g * g), k);
            FN(store_n)(dc_carry + u, dc * f, k);
        }
    }
}

/* ---- what the loops below need to know of a cell --------------------------------------------- */

typedef struct {
    idx gates, vectors, max_rows; /* gates == 1: 2 vectors of units a panel, else one a gate */
    FN(tile_fn) *const *tile;
    void (*activate)(const cell_args *, idx n0, idx m, idx t, idx j, idx j_end);
    void (*gradients)(const cell_args *, idx n0, idx m, idx t, const REAL *dh, idx j, idx j_end);
} FN(cell);

static const FN(cell) FN(rnn) = {1, 2, MAX_ROWS_2V, FN(rows_tile), FN(rnn_activate),
                                 FN(rnn_gradients)};
static const FN(cell) FN(lstm) = {4, 4, MAX_ROWS_4V, FN(gates_tile), FN(lstm_activate),
                                  FN(lstm_gradients)};

/* ---- forward --------------------------------------------------------------------------------- */

/* out = start + A B in the panels of a cell; with time >= 0 the rows are batch rows n0.. at that
   step and each finished tile is activated. */
static void FN(gate_product)(const FN(cell) *cell, const cell_args *s, idx R, FN(tile) t,
                             const REAL *packed, idx n0, idx time)
{
    const idx width = cell->vectors / cell->gates * LANES, size = t.K * cell->vectors * LANES;
    const idx panels = (s->H + width - 1) / width;
    const idx blocks = (R + cell->max_rows - 1) / cell->max_rows;
    const idx block_panels = MAX(1, B_BLOCK_BYTES / MAX(1, size * (idx)sizeof(REAL)));
    const REAL *const a = t.a, *const start = t.start;
    REAL *const out = t.out;
    for (idx p0 = 0; p0 < panels; p0 += block_panels)
        for (idx block = 0; block < blocks; block++) {
            const idx r = R * block / blocks, m = R * (block + 1) / blocks - r;
            t.a = a + r * t.a_row;
            t.start = start + r * t.start_row;
            t.out = out + r * t.out_row;
            for (idx panel = p0; panel < MIN(panels, p0 + block_panels); panel++) {
                const idx j = panel * width, j_end = MIN(s->H, j + width);
                for (idx v = 0; v < cell->vectors; v++) {
                    const idx unit = cell->gates == 1 ? j + v * LANES : j;
                    t.column[v] = cell->gates == 1 ? unit : s->offset[v] + unit;
                    t.n[v] = MAX(0, MIN(LANES, j_end - unit));
                }
                t.b = packed + panel * size;
                cell->tile[m](&t);
                if (time >= 0)
                    cell->activate(s, n0 + r, m, time, j, j_end);
            }
        }
}

/* Pre-activations x Wx + b of rows begin..end, steps t0..t1: the longer of the two axes is the one
   that is cut into tiles. */
static void FN(project)(const FN(cell) *cell, const cell_args *s, idx begin, idx end, idx t0,
                        idx t1)
{
    const idx width = cell->gates * s->H;
    const int over_time = t1 - t0 >= end - begin;
    const idx rows = over_time ? t1 - t0 : end - begin, runs = over_time ? end - begin : t1 - t0;
    const idx row_step = over_time ? 1 : s->T, run_step = over_time ? s->T : 1;
    for (idx run = 0; run < runs; run++) {
        const idx row = begin * s->T + t0 + run * run_step;
        const FN(tile) t = {.K = s->D, .a = (const REAL *)s->x + row * s->D,
                            .a_row = row_step * s->D, .start = s->b,
                            .out = (REAL *)s->gates + row * width, .out_row = row_step * width};
        FN(gate_product)(cell, s, rows, t, s->packed_Wx, 0, -1);
    }
}

static void FN(recur)(const FN(cell) *cell, const cell_args *s, idx begin, idx end, idx t)
{
    const idx width = cell->gates * s->H;
    REAL *const out = (REAL *)s->gates + (begin * s->T + t) * width;
    const FN(tile) tile = {.K = s->H, .a = FN(previous)(s->h, s->h0, s, begin, t),
                           .a_row = (t ? s->T : 1) * s->H, .start = out, .start_row = s->T * width,
                           .out = out, .out_row = s->T * width};
    FN(gate_product)(cell, s, end - begin, tile, s->packed_Wh, begin, t);
}

/* z[j] += sum_k a[k] W[k, j]: four rows of W at a time, front to back. */
static void FN(add_vector_product)(REAL *z, const REAL *a, const REAL *W, idx K, idx columns)
{
    for (idx k = 0; k < K; k += 4) {
        const idx rows = MIN(4, K - k);
        const REAL *const w = W + k * columns;
        for (idx j = 0; j < columns; j += LANES) {
            const idx n = columns - j;
            V sum = FN(load_n)(z + j, n);
            if (rows == 4) {
                sum += FN(splat)(a[k]) * FN(load_n)(w + j, n);
                sum += FN(splat)(a[k + 1]) * FN(load_n)(w + columns + j, n);
                sum += FN(splat)(a[k + 2]) * FN(load_n)(w + 2 * columns + j, n);
                sum += FN(splat)(a[k + 3]) * FN(load_n)(w + 3 * columns + j, n);
            } else {
                for (idx r = 0; r < rows; r++)
                    sum += FN(splat)(a[k + r]) * FN(load_n)(w + r * columns + j, n);
            }
            FN(store_n)(z + j, sum, n);
        }
    }
}

/* Too few rows to pay for packing: the same sums with Wx and Wh as they lie. */
static void FN(forward_unpacked)(const FN(cell) *cell, const cell_args *s, idx begin, idx end)
{
    const idx width = cell->gates * s->H;
    for (idx n = begin; n < end; n++)
        for (idx t = s->t0; t < s->t1; t++) {
            const idx row = n * s->T + t;
            REAL *const z = (REAL *)s->gates + row * width;
            memcpy(z, s->b, width * sizeof(REAL));
            FN(add_vector_product)(z, (const REAL *)s->x + row * s->D, s->Wx, s->D, width);
            FN(add_vector_product)(z, FN(previous)(s->h, s->h0, s, n, t), s->Wh, s->H, width);
            cell->activate(s, n, 1, t, 0, s->H);
        }
}

static void FN(forward)(const FN(cell) *cell, const cell_args *s, idx begin, idx end)
{
    if (begin == end)
        return;
    if (!s->packed_Wx) {
        FN(forward_unpacked)(cell, s, begin, end);
        return;
    }
    const idx step_bytes = (end - begin) * cell->gates * s->H * (idx)sizeof(REAL);
    const idx steps = MAX(1, PROJECTION_BYTES / step_bytes);
    for (idx t0 = s->t0; t0 < s->t1; t0 += steps) {
        const idx t1 = MIN(s->t1, t0 + steps);
        FN(project)(cell, s, begin, end, t0, t1);
        for (idx t = t0; t < t1; t++)
            FN(recur)(cell, s, begin, end, t);
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* The total gradient of h at step t, tile by tile, and from it dgates. */
static void FN(step_backward)(const FN(cell) *cell, const cell_args *s, idx begin, idx end, idx t)
{
    const idx width = cell->gates * s->H, R = end - begin;
    const idx panels = (s->H + 2 * LANES - 1) / (2 * LANES);
    const idx blocks = (R + MAX_ROWS_2V - 1) / MAX_ROWS_2V;
    const int last = t == s->t1 - 1, carried = last && s->t1 < s->T;
    const REAL *const dh = carried ? s->dh_carry : (const REAL *)s->dh + t * s->H;
    REAL scratch[MAX_ROWS_2V * 2 * (VEC_BYTES / sizeof(REAL))];
    FN(tile) tile = {.K = last ? 0 : width, .a_row = s->dgates_T * width,
                     .start_row = carried ? s->H : s->T * s->H, .out = scratch,
                     .out_row = 2 * LANES, .column = {0, LANES}};
    for (idx block = 0; block < blocks; block++) {
        const idx r = R * block / blocks, m = R * (block + 1) / blocks - r, n = begin + r;
        tile.a = last ? 0
            : (const REAL *)s->dgates + (n * s->dgates_T + t + 1 - s->t0) * width;
        for (idx panel = 0; panel < panels; panel++) {
            const idx j = panel * 2 * LANES, j_end = MIN(s->H, j + 2 * LANES);
            tile.n[0] = MIN(LANES, j_end - j);
            tile.n[1] = j_end - j - tile.n[0];
            tile.start = dh + n * tile.start_row + j;
            tile.b = (const REAL *)s->packed_Wh + panel * width * 2 * LANES;
            FN(rows_tile)[m](&tile);
            cell->gradients(s, n, m, t, scratch, j, j_end);
        }
    }
}

static void FN(backward)(const FN(cell) *cell, const cell_args *s, idx begin, idx end)
{
    if (begin == end)
        return;
    const idx width = cell->gates * s->H, steps = s->t1 - s->t0;
    for (idx t = s->t1 - 1; t >= s->t0; t--)
        FN(step_backward)(cell, s, begin, end, t);

    const REAL *const da = (const REAL *)s->dgates + begin * s->dgates_T * width;
    const FN(tile) carry = {.a = da, .a_row = s->dgates_T * width,
                            .start = s->t0 ? (const REAL *)s->dh + (begin * s->T + s->t0 - 1) * s->H
                                           : 0,
                            .start_row = s->T * s->H,
                            .out = (REAL *)s->dh_carry + begin * s->H, .out_row = s->H};
    FN(product)(end - begin, s->H, carry, width, s->packed_Wh);

    const int over_time = steps >= end - begin;
    const idx rows = over_time ? steps : end - begin, runs = over_time ? end - begin : steps;
    for (idx run = 0; run < runs; run++) {
        const idx n = over_time ? begin + run : begin, t = over_time ? 0 : run;
        const FN(tile) dx = {
            .a = (const REAL *)s->dgates + (n * s->dgates_T + t) * width,
            .a_row = (over_time ? 1 : s->dgates_T) * width,
            .out = (REAL *)s->dx + (n * s->T + s->t0 + t) * s->D,
            .out_row = (over_time ? 1 : s->T) * s->D};
        FN(product)(rows, s->D, dx, width, s->packed_Wx);
    }
}

/* ---- the kernels ----------------------------------------------------------------------------- */

static void FN(rnn_forward)(const void *args, idx begin, idx end)
{
    FN(forward)(&FN(rnn), args, begin, end);
}

static void FN(rnn_backward)(const void *args, idx begin, idx end)
{
    FN(backward)(&FN(rnn), args, begin, end);
}

static void FN(lstm_forward)(const void *args, idx begin, idx end)
{
    FN(forward)(&FN(lstm), args, begin, end);
}

static void FN(lstm_backward)(const void *args, idx begin, idx end)
{
    FN(backward)(&FN(lstm), args, begin, end);
}
