/* The recurrent cells: pre-activations x Wx + b for a chunk of steps, then step by step h_prev Wh
   by tiles and the gates of each finished tile while it is in L1.

   rnn    h = tanh(a)
   lstm   i, f, o = sigmoid(a_i, a_f, a_o), g = tanh(a_g), c = f c_prev + i g, h = o tanh(c)
   gru    r, z = sigmoid(a_r, a_z), n = tanh(x Wn + bn + r (h_prev Un + bhn)),
          h = (1 - z) n + z h_prev
   with   a = x Wx + b + h_prev Wh + bh; gru with reset_before:
          n = tanh(x Wn + bn + (r h_prev) Un + bhn) */

/* ---- which rows and units a part computes ---------------------------------------------------- */

/* The ranks rank, rank + stride, ... and the units u0..u1. Ranks are dealt in turn, since the
   longest rows come first. */
typedef struct {
    idx part, parts, rank, stride, u0, u1;
    int round; /* of meetings so far */
} FN(share);

static FN(share) FN(share_of)(const cell_args *s, idx part, idx parts)
{
    const idx blocks = CEIL_DIV(s->H, 2 * LANES);
    if (!s->by_units)
        return (FN(share)){part, parts, part, parts, 0, s->H, 0};
    return (FN(share)){part, parts, 0, 1, MIN(s->H, blocks * part / parts * 2 * LANES),
                       MIN(s->H, blocks * (part + 1) / parts * 2 * LANES), 0};
}

INLINE idx FN(active)(const cell_args *s, idx t)
{
    return t < 0 ? s->N : t < s->steps ? s->first[t + 1] - s->first[t] : 0;
}

/* How many of the ranks below n are in the share. */
INLINE idx FN(own)(const FN(share) *sh, idx n)
{
    return n > sh->rank ? CEIL_DIV(n - sh->rank, sh->stride) : 0;
}

INLINE void FN(meet)(const cell_args *s, FN(share) *sh)
{
    if (s->by_units && sh->parts > 1)
        meet(s->flags, sh->part, sh->parts, ++sh->round);
}

/* to[rank] = from[order[rank]], or 0, in the share. */
static void FN(enter)(const cell_args *s, const FN(share) *sh, const REAL *from, REAL *to)
{
    for (idx rank = sh->rank; rank < s->N; rank += sh->stride) {
        REAL *const row = to + rank * s->state_row + sh->u0;
        if (from)
            memcpy(row, from + s->order[rank] * s->H + sh->u0, (sh->u1 - sh->u0) * sizeof(REAL));
        else
            memset(row, 0, (sh->u1 - sh->u0) * sizeof(REAL));
    }
}

/* m rows of one step, from rank on every stride-th, whose product lies in z. */
typedef struct {
    idx rank, stride, m;
    const idx *rows, *previous; /* of this step and of the one before by rank; NULL: it has none */
    const REAL *z, *x;          /* gate g of row i: + i * z_row + gate[g]; x: x Wx + b alone, of */
    const idx *x_rows;          /* row i: + x_rows[i] * x_row + gate[g] */
    idx z_row, x_row;
    const idx *gate;
    idx last; /* of z alone in a phase of one gate, in place of gate[2] */
    const REAL *state; /* h_prev */
    REAL *next;        /* h */
    REAL *dgates;
} FN(block);

/* Row i of the block in an array of states, where the one before the first step is first. */
INLINE const REAL *FN(previous)(const cell_args *s, const FN(block) *b, idx rank,
                                const void *states, const void *first)
{
    if (b->previous)
        return (const REAL *)states + b->previous[rank] * s->H;
    return first ? (const REAL *)first + s->order[rank] * s->H : 0;
}

INLINE V FN(load_or_zero)(const REAL *p, idx u, idx n)
{
    return p ? FN(load_n)(p + u, n) : (V){0};
}

/* ---- gates: the units u..u+n of a block of rows, n at most LANES ------------------------------ */

INLINE void FN(rnn_activate_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx i = 0, rank = b->rank; i < b->m; i++, rank += b->stride) {
        const V h = FN(tanh)(FN(load)(b->z + i * b->z_row));
        FN(store)(b->next + rank * s->state_row + u, h);
        FN(store_n)((REAL *)s->h + b->rows[rank] * s->H + u, h, n);
    }
}

/* In two passes over the rows: one chain of gates, c and tanh(c) is too long for the CPU to find the
   next row's work behind it. Between them next holds o. */
INLINE void FN(lstm_activate_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const REAL *const z = b->z + k * b->z_row;
        const idx row = b->rows[rank], state = rank * s->state_row + u;
        const V i = FN(sigmoid)(FN(load)(z + b->gate[0])), f = FN(sigmoid)(FN(load)(z + b->gate[1]));
        const V o = FN(sigmoid)(FN(load)(z + b->gate[2])), g = FN(tanh)(FN(load)(z + b->gate[3]));
        const V c = f * FN(load)((REAL *)s->cell_state + state) + i * g;
        FN(store)((REAL *)s->cell_state + state, c);
        FN(store)(b->next + state, o);
        if (s->c)
            FN(store_n)((REAL *)s->c + row * s->H + u, c, n);
        if (s->gates) {
            REAL *const gates = (REAL *)s->gates + row * 4 * s->H + u;
            FN(store_n)(gates + s->offset[0], i, n);
            FN(store_n)(gates + s->offset[1], f, n);
            FN(store_n)(gates + s->offset[2], o, n);
            FN(store_n)(gates + s->offset[3], g, n);
        }
    }
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const idx state = rank * s->state_row + u;
        const V c = FN(load)((REAL *)s->cell_state + state);
        const V h = FN(load)(b->next + state) * FN(tanh)(c);
        FN(store)(b->next + state, h);
        FN(store_n)((REAL *)s->h + b->rows[rank] * s->H + u, h, n);
    }
}

INLINE void FN(gru_store)(const cell_args *s, idx row, idx gate, idx u, V v, const idx n)
{
    if (s->gates)
        FN(store_n)((REAL *)s->gates + row * 3 * s->H + s->offset[gate] + u, v, n);
}

INLINE void FN(gru_finish)(const cell_args *s, const FN(block) *b, idx rank, idx u, V z, V y,
                           const idx n)
{
    const idx state = rank * s->state_row + u;
    const V h = (1 - z) * y + z * FN(load)(b->state + state);
    FN(gru_store)(s, b->rows[rank], 2, u, y, n);
    FN(store)(b->next + state, h);
    FN(store_n)((REAL *)s->h + b->rows[rank] * s->H + u, h, n);
}

INLINE void FN(gru_activate_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const REAL *const a = b->z + k * b->z_row;
        const idx row = b->rows[rank];
        const V r = FN(sigmoid)(FN(load)(a + b->gate[0])), z = FN(sigmoid)(FN(load)(a + b->gate[1]));
        const V candidate = FN(load)(a + b->gate[2]);
        const V xn = FN(load)(b->x + b->x_rows[k] * b->x_row + b->gate[2]);
        FN(gru_store)(s, row, 0, u, r, n);
        FN(gru_store)(s, row, 1, u, z, n);
        if (s->candidate)
            FN(store_n)((REAL *)s->candidate + row * s->H + u, candidate, n);
        FN(gru_finish)(s, b, rank, u, z, FN(tanh)(xn + r * candidate), n);
    }
}

/* reset_before needs r of every unit before n of any: r h_prev, and z, wait in the work space. */
INLINE void FN(gru_reset_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const REAL *const a = b->z + k * b->z_row;
        const idx state = rank * s->state_row + u;
        const V r = FN(sigmoid)(FN(load)(a + b->gate[0])), z = FN(sigmoid)(FN(load)(a + b->gate[1]));
        FN(gru_store)(s, b->rows[rank], 0, u, r, n);
        FN(gru_store)(s, b->rows[rank], 1, u, z, n);
        FN(store)((REAL *)s->reset_state + state, r * FN(load)(b->state + state));
        FN(store)((REAL *)s->cell_state + state, z);
    }
}

INLINE void FN(gru_candidate_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const V xn = FN(load)(b->x + b->x_rows[k] * b->x_row + b->gate[2]);
        const V z = FN(load)((REAL *)s->cell_state + rank * s->state_row + u);
        FN(gru_finish)(s, b, rank, u, z, FN(tanh)(xn + FN(load)(b->z + k * b->z_row + b->last)), n);
    }
}

/* ---- gradients of the gates ------------------------------------------------------------------- */

/* z holds what reaches h from later steps; with dh, the gradient from outside, it is whole. What
   goes on to h_prev other than through the product is left in dh_carry, which was 0 or is in z. */

INLINE V FN(arriving)(const cell_args *s, const FN(block) *b, idx k, idx row, idx u, const idx n)
{
    const V later = FN(load)(b->z + k * b->z_row);
    return s->dh ? later + FN(load_n)((const REAL *)s->dh + row * s->H + u, n) : later;
}

INLINE void FN(rnn_gradients_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const idx row = b->rows[rank];
        const V dh = FN(arriving)(s, b, k, row, u, n);
        const V h = FN(load_n)((const REAL *)s->h + row * s->H + u, n);
        FN(store_n)(b->dgates + rank * s->dgates_row + u, dh * (1 - h * h), n);
        FN(store)((REAL *)s->dh_carry + rank * s->state_row + u, (V){0});
    }
}

INLINE void FN(lstm_gradients_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const idx row = b->rows[rank], state = rank * s->state_row + u;
        const REAL *const gates = (const REAL *)s->gates + row * 4 * s->H + u;
        const REAL *const c_prev = FN(previous)(s, b, rank, s->c, s->c0);
        REAL *const da = b->dgates + rank * s->dgates_row + u;
        REAL *const dc_carry = (REAL *)s->dc_carry + state;
        const V i = FN(load_n)(gates + s->offset[0], n), f = FN(load_n)(gates + s->offset[1], n);
        const V o = FN(load_n)(gates + s->offset[2], n), g = FN(load_n)(gates + s->offset[3], n);
        const V tanh_c = FN(tanh)(FN(load_n)((const REAL *)s->c + row * s->H + u, n));
        const V dh = FN(arriving)(s, b, k, row, u, n);
        const V dc = FN(load)(dc_carry) + dh * o * (1 - tanh_c * tanh_c);
        FN(store_n)(da + s->offset[0], dc * g * (i * (1 - i)), n);
        FN(store_n)(da + s->offset[1], dc * FN(load_or_zero)(c_prev, u, n) * (f * (1 - f)), n);
        FN(store_n)(da + s->offset[2], dh * tanh_c * (o * (1 - o)), n);
        FN(store_n)(da + s->offset[3], dc * i * (1 - g * g), n);
        FN(store)(dc_carry, dc * f);
        FN(store)((REAL *)s->dh_carry + state, (V){0});
    }
}

/* Both forms: dh to the gradients of z and n, and n's own. */
INLINE void FN(gru_gradients_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    const idx H = s->H;
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const idx row = b->rows[rank];
        const REAL *const gates = (const REAL *)s->gates + row * 3 * H + u;
        const REAL *const h_prev = FN(previous)(s, b, rank, s->h, s->h0);
        REAL *const da = b->dgates + rank * s->dgates_row + u;
        const V r = FN(load_n)(gates + s->offset[0], n), z = FN(load_n)(gates + s->offset[1], n);
        const V y = FN(load_n)(gates + s->offset[2], n), dh = FN(arriving)(s, b, k, row, u, n);
        const V hp = FN(load_or_zero)(h_prev, u, n), dn = dh * (1 - z) * (1 - y * y);
        FN(store_n)(da + s->offset[1], dh * (hp - y) * (z * (1 - z)), n);
        FN(store_n)(da + s->offset[2], dn, n);
        FN(store)((REAL *)s->dh_carry + rank * s->state_row + u, dh * z);
        if (s->reset_before) {
            FN(store_n)(da + 3 * H, r * hp, n);
        } else {
            const V candidate = FN(load_n)((const REAL *)s->candidate + row * H + u, n);
            FN(store_n)(da + s->offset[0], dn * candidate * (r * (1 - r)), n);
            FN(store_n)(da + 3 * H, dn * r, n);
        }
    }
}

/* z holds the gradient of r h_prev. */
INLINE void FN(gru_reset_gradients_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const REAL *const h_prev = FN(previous)(s, b, rank, s->h, s->h0);
        REAL *const carry = (REAL *)s->dh_carry + rank * s->state_row + u;
        const V r = FN(load_n)((const REAL *)s->gates + b->rows[rank] * 3 * s->H + s->offset[0] + u, n);
        const V d = FN(load)(b->z + k * b->z_row);
        FN(store_n)(b->dgates + rank * s->dgates_row + s->offset[0] + u,
                    d * FN(load_or_zero)(h_prev, u, n) * (r * (1 - r)), n);
        FN(store)(carry, FN(load)(carry) + d * r);
    }
}

/* Before the first step: the gradients of h0 and c0. */
INLINE void FN(leave_n)(const cell_args *s, const FN(block) *b, idx u, const idx n)
{
    for (idx k = 0, rank = b->rank; k < b->m; k++, rank += b->stride) {
        const idx to = s->order[rank] * s->H + u;
        FN(store_n)((REAL *)s->dh0 + to, FN(load)(b->z + k * b->z_row), n);
        if (s->dc0)
            FN(store_n)((REAL *)s->dc0 + to,
                        FN(load)((REAL *)s->dc_carry + rank * s->state_row + u), n);
    }
}

/* Each once for whole vectors, in which there is no call that GCC would have to save vectors for. */
#define X(name)                                                           \
    static void FN(name)(const cell_args *s, const FN(block) *b, idx u)   \
    {                                                                     \
        if (s->H - u >= LANES)                                            \
            FN(name##_n)(s, b, u, LANES);                                 \
        else                                                              \
            FN(name##_n)(s, b, u, s->H - u);                              \
    }
X(rnn_activate) X(lstm_activate) X(gru_activate) X(gru_reset) X(gru_candidate)
X(rnn_gradients) X(lstm_gradients) X(gru_gradients) X(gru_reset_gradients) X(leave)
#undef X

/* ---- what the loops below need to know of a cell --------------------------------------------- */

typedef void FN(epilogue)(const cell_args *, const FN(block) *, idx u);

/* A product of one step and what follows it. Forward: with the gates g0..g0+gates of Wh; the first
   `started` vectors of a panel start from x Wx + b, the others from bh. Backward: the columns
   of dgates (of the step after, or with here of this step) times rows of Wh^T, in blocks of H. */
typedef struct {
    idx g0, gates, started;
    FN(epilogue) *activate;
} FN(forward_phase);

typedef struct {
    int here;
    idx pieces, column[2], row[2], depth[2];
    FN(epilogue) *gradients;
} FN(backward_phase);

typedef struct {
    idx gates, phases;
    FN(forward_phase) forward[2];
    FN(backward_phase) backward[2];
} FN(cell);

static const FN(cell) FN(rnn) = {
    1, 1, {{0, 1, 2, FN(rnn_activate)}}, {{0, 1, {0}, {0}, {1}, FN(rnn_gradients)}}};
static const FN(cell) FN(lstm) = {
    4, 1, {{0, 4, 4, FN(lstm_activate)}}, {{0, 1, {0}, {0}, {4}, FN(lstm_gradients)}}};
static const FN(cell) FN(gru) = {
    3, 1, {{0, 3, 2, FN(gru_activate)}}, {{0, 2, {0, 3}, {0, 2}, {2, 1}, FN(gru_gradients)}}};
static const FN(cell) FN(gru_reset_before) = {
    3, 2,
    {{0, 2, 2, FN(gru_reset)}, {2, 1, 0, FN(gru_candidate)}},
    {{0, 1, {0}, {0}, {2}, FN(gru_gradients)}, {1, 1, {2}, {2}, {1}, FN(gru_reset_gradients)}}};

/* ---- forward --------------------------------------------------------------------------------- */

/* Where x Wx + b of a share, or of the table, lies: [panels, pre_rows, x_row]. */
INLINE REAL *FN(pre_of)(const FN(cell) *cell, const cell_args *s, const FN(share) *sh)
{
    const idx unit_vectors = UNIT_VECTORS(cell->gates), width = unit_vectors * LANES;
    const idx shared = s->by_units || s->index;
    const idx panel = shared ? sh->u0 / width : sh->part * CEIL_DIV(s->H, width);
    return (REAL *)s->pre + panel * s->pre_rows * cell->gates * width;
}

/* x Wx + b of the table. */
static void FN(project)(const void *args, idx part, idx parts)
{
    const cell_args *const s = args;
    const idx width = UNIT_VECTORS(s->G) * LANES, x_row = s->G * width;
    const idx panels = CEIL_DIV(s->H, width), p0 = panels * part / parts;
    const FN(product_args) product = {
        .rows = s->table, .K = s->D, .vectors = x_row / LANES, .p0 = p0,
        .p1 = panels * (part + 1) / parts, .a = s->x, .a_row = s->D, .packed = s->packed_Wx,
        .out = (REAL *)s->pre + p0 * s->pre_rows * x_row, .out_row = x_row,
        .out_panel = s->pre_rows * x_row, .columns = panels * x_row};
    FN(product)(&product);
}

/* x Wx + b of the steps t0..t1. */
static void FN(project_steps)(const FN(cell) *cell, const cell_args *s, const FN(share) *sh,
                              idx t0, idx t1)
{
    const idx width = UNIT_VECTORS(cell->gates) * LANES, x_row = cell->gates * width;
    const REAL **const list = (const REAL **)s->row_list + sh->part * s->pre_rows;
    idx rows = 0;
    for (idx t = t0; t < t1; t++)
        for (idx rank = sh->rank; rank < FN(active)(s, t); rank += sh->stride)
            list[rows++] = (const REAL *)s->x + s->rows[s->first[t] + rank] * s->D;
    const FN(product_args) product = {
        .rows = rows, .K = s->D, .vectors = x_row / LANES, .p0 = sh->u0 / width,
        .p1 = CEIL_DIV(sh->u1, width), .a_rows = list, .packed = s->packed_Wx,
        .out = FN(pre_of)(cell, s, sh), .out_row = x_row, .out_panel = s->pre_rows * x_row,
        .columns = CEIL_DIV(s->H, width) * x_row};
    if (rows)
        FN(product)(&product);
}

INLINE FN(block) FN(block_of)(const cell_args *s, const FN(share) *sh, idx t, idx r, idx m)
{
    const idx size = s->N * s->state_row;
    return (FN(block)){.rank = sh->rank + r * sh->stride, .stride = sh->stride, .m = m,
                       .rows = t < 0 ? 0 : s->rows + s->first[t],
                       .previous = t > 0 ? s->rows + s->first[t - 1] : 0,
                       .state = s->state ? (const REAL *)s->state + (t & 1) * size : 0,
                       .next = s->state ? (REAL *)s->state + (~t & 1) * size : 0};
}

/* One phase of step t for panels q..end of the rows r..r+m of the share, whose x Wx + b are the
   rows from l on of pre. */
static void FN(recur_rows)(const FN(cell) *cell, const FN(forward_phase) *phase, const cell_args *s,
                           const FN(share) *sh, idx t, idx l, idx r, idx m, idx q, idx end)
{
    const idx unit_vectors = UNIT_VECTORS(phase->gates), width = unit_vectors * LANES;
    const idx NV = phase->gates * unit_vectors, x_row = cell->gates * UNIT_VECTORS(cell->gates) * LANES;
    static const idx in_panel[MAX_GATES] = {0, VEC_BYTES / sizeof(REAL), 2 * VEC_BYTES / sizeof(REAL),
                                            3 * VEC_BYTES / sizeof(REAL)};
    const REAL *const x = FN(pre_of)(cell, s, sh);
    FN(block) b = FN(block_of)(s, sh, t, r, m);
    idx x_rows[MAX_ROWS(2)];
    for (idx i = 0, rank = b.rank; i < m; i++, rank += b.stride)
        x_rows[i] = s->index ? s->index[b.rows[rank]] : l + r + i;
    const REAL *const A = phase->g0 ? s->reset_state : b.state;
    const REAL *const B = phase->g0 ? s->packed_Un : s->packed_Wh;
    REAL z[ACCUMULATORS * (VEC_BYTES / sizeof(REAL))];
    FN(tile) tile = {.K = s->H, .a_row = sh->stride * s->state_row,
                     .a = A + b.rank * s->state_row, .b_panel = (s->H + 1) * NV * LANES,
                     .started = phase->started, .start_rows = x_rows, .start_row = x_row,
                     .start_panel = s->pre_rows * x_row, .out = z, .out_row = NV * LANES,
                     .out_panel = m * NV * LANES};
    b.z_row = NV * LANES;
    b.x_row = x_row;
    b.x_rows = x_rows;
    b.gate = in_panel;
    for (idx panel = q, done; panel < end; panel += done) {
        tile.b = B + panel * tile.b_panel;
        tile.start = x + (panel - sh->u0 / width) * tile.start_panel;
        done = FN(run_tile)(&tile, m, NV, end - panel, ACCUMULATORS * LANES);
        for (idx v = 0; v < done * unit_vectors; v++) {
            const idx unit = panel * width + v * LANES;
            if (unit >= s->H)
                break;
            b.z = z + v / unit_vectors * tile.out_panel + v % unit_vectors * LANES;
            b.x = x + (unit - sh->u0) / LANES * tile.start_panel;
            phase->activate(s, &b, unit);
        }
    }
}

/* Loops: blocks of Wh that stay in L2, blocks of rows. Every other step takes the blocks in reverse,
   so that a Wh that does not fit L2 is half there. */
static void FN(recur)(const FN(cell) *cell, const FN(forward_phase) *phase, const cell_args *s,
                      const FN(share) *sh, idx t, idx l)
{
    const idx unit_vectors = UNIT_VECTORS(phase->gates), width = unit_vectors * LANES;
    const idx NV = phase->gates * unit_vectors, R = FN(own)(sh, FN(active)(s, t));
    const idx blocks = CEIL_DIV(R, ACCUMULATORS / NV), end = CEIL_DIV(sh->u1, width);
    const idx begin = sh->u0 / width, panels = end - begin;
    const idx count = CEIL_DIV(panels * s->H * NV * VEC_BYTES, B_BLOCK_BYTES);
    for (idx i = 0; i < count; i++) {
        const idx at = t & 1 ? count - 1 - i : i;
        for (idx block = 0; block < blocks; block++) {
            const idx r = R * block / blocks, m = R * (block + 1) / blocks - r;
            FN(recur_rows)(cell, phase, s, sh, t, l, r, m, begin + panels * at / count,
                           begin + panels * (at + 1) / count);
        }
    }
}

/* z += a W in the columns of the gates g..g+count that the share has; those of whole gates lie
   together. */
static void FN(add_gates)(const FN(cell) *cell, const cell_args *s, const FN(share) *sh, idx g,
                          idx count, REAL *z, const REAL *a, const REAL *W, idx K)
{
    const idx ld = cell->gates * s->H, units = sh->u1 - sh->u0;
    if (units == s->H) {
        const idx first = count == cell->gates ? 0 : s->offset[g];
        FN(add_vector_product)(z + first, a, W + first, ld, K, count * units);
        return;
    }
    for (idx i = g; i < g + count; i++) {
        const idx column = s->offset[i] + sh->u0;
        FN(add_vector_product)(z + column, a, W + column, ld, K, units);
    }
}

/* Where z of a row starts: from x, or, of the gates that x Wx + b reaches apart, from bh. */
static void FN(start_unpacked)(const FN(cell) *cell, const cell_args *s, const FN(share) *sh,
                               const REAL *x, REAL *z)
{
    const idx started = cell->forward[0].started, size = (sh->u1 - sh->u0) * sizeof(REAL);
    for (idx g = 0; g < cell->gates; g++) {
        const idx column = s->offset[g] + sh->u0;
        if (g < started)
            memcpy(z + column, x + column, size);
        else if (s->bh)
            memcpy(z + column, (const REAL *)s->bh + column, size);
        else
            memset(z + column, 0, size);
    }
}

/* x Wx + b of one row. */
static void FN(project_unpacked)(const FN(cell) *cell, const cell_args *s, const FN(share) *sh,
                                 const REAL *x, REAL *to)
{
    const idx started = cell->forward[0].started, units = sh->u1 - sh->u0;
    for (idx g = 0; g < cell->gates; g++) {
        const idx column = s->offset[g] + sh->u0;
        memcpy(to + column, (const REAL *)s->b + column, units * sizeof(REAL));
        for (idx u = 0; s->bh && g < started && u < units; u++)
            to[column + u] += ((const REAL *)s->bh)[column + u];
    }
    FN(add_gates)(cell, s, sh, 0, cell->gates, to, x, s->Wx, s->D);
}

/* Too few rows to pay for packing: the same sums with Wx and Wh as they lie. Of each row pre holds
   x Wx + b and, where some gates do not continue it, z: [2, G H + LANES]. */
static void FN(recur_unpacked)(const FN(cell) *cell, const FN(forward_phase) *phase,
                               const cell_args *s, const FN(share) *sh, idx t)
{
    static const idx zero;
    const int apart = cell->forward[0].started < cell->gates;
    const idx size = cell->gates * s->H + LANES;
    for (idx r = 0; r < FN(own)(sh, FN(active)(s, t)); r++) {
        FN(block) b = FN(block_of)(s, sh, t, r, 1);
        REAL *const x = (REAL *)s->pre + b.rank * 2 * size, *const z = apart ? x + size : x;
        const REAL *const A = phase->g0 ? s->reset_state : b.state;
        if (!phase->g0) {
            const idx row = b.rows[b.rank], at = s->index ? s->index[row] : row;
            FN(project_unpacked)(cell, s, sh, (const REAL *)s->x + at * s->D, x);
            if (apart)
                FN(start_unpacked)(cell, s, sh, x, z);
        }
        FN(add_gates)(cell, s, sh, phase->g0, phase->gates, z, A + b.rank * s->state_row, s->Wh,
                      s->H);
        b.gate = s->offset;
        b.last = s->offset[2];
        b.x_rows = &zero;
        for (idx u = sh->u0; u < sh->u1; u += LANES) {
            b.z = z + u;
            b.x = x + u;
            phase->activate(s, &b, u);
        }
    }
}

/* Steps from t on whose rows fit into pre. */
static idx FN(chunk_end)(const cell_args *s, const FN(share) *sh, idx t)
{
    idx rows = 0;
    for (; t < s->steps; t++)
        if ((rows += FN(own)(sh, FN(active)(s, t))) > s->pre_rows)
            break;
    return t;
}

static void FN(forward)(const FN(cell) *cell, const cell_args *s, idx part, idx parts)
{
    FN(share) sh = FN(share_of)(s, part, parts);
    FN(enter)(s, &sh, s->h0, s->state);
    if (s->cell_state)
        FN(enter)(s, &sh, s->c0, s->cell_state);
    FN(meet)(s, &sh);
    for (idx t = 0, end = 0, l = 0; t < s->steps; t++) {
        if (t == end) {
            const int in_chunks = s->packed_Wx && !s->index;
            end = in_chunks ? FN(chunk_end)(s, &sh, t) : s->steps;
            l = 0;
            if (in_chunks)
                FN(project_steps)(cell, s, &sh, t, end);
        }
        for (idx i = 0; i < cell->phases; i++) {
            if (s->packed_Wx)
                FN(recur)(cell, &cell->forward[i], s, &sh, t, l);
            else
                FN(recur_unpacked)(cell, &cell->forward[i], s, &sh, t);
            if (t + 1 < s->steps || i + 1 < cell->phases)
                FN(meet)(s, &sh);
        }
        l += FN(own)(&sh, FN(active)(s, t));
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

INLINE REAL *FN(dgates_of)(const cell_args *s, idx t)
{
    return t < s->t1 ? (REAL *)s->dgates + (s->first[MAX(0, t)] - s->first[s->t0]) * s->dgates_row
                     : (REAL *)s->dgates_next;
}

/* Panels q..end of the rows r..r+m of the share; without A they are those that end at step t. */
static void FN(step_rows)(const FN(backward_phase) *phase, FN(epilogue) *epilogue,
                          const cell_args *s, const FN(share) *sh, idx t, const REAL *A, idx r,
                          idx m, idx q, idx end, idx K)
{
    static const REAL zeros[2 * VEC_BYTES / sizeof(REAL)];
    REAL scratch[ACCUMULATORS * (VEC_BYTES / sizeof(REAL))];
    FN(block) b = FN(block_of)(s, sh, t, r, m);
    FN(tile) tile = {.a_row = sh->stride * s->dgates_row, .b_panel = (K + 1) * 2 * LANES,
                     .started = 2, .out = scratch, .out_row = 2 * LANES,
                     .out_panel = m * 2 * LANES};
    b.z_row = 2 * LANES;
    b.dgates = t < 0 ? 0 : FN(dgates_of)(s, t);
    for (idx panel = q, done = 1; panel < end; panel += done) {
        tile.start = phase->here ? zeros
            : (const REAL *)s->dh_carry + b.rank * s->state_row + panel * 2 * LANES;
        tile.start_row = phase->here ? 0 : sh->stride * s->state_row;
        tile.start_panel = phase->here ? 0 : 2 * LANES;
        for (idx i = 0; i < phase->pieces; i++) {
            tile.K = A ? phase->depth[i] * s->H : 0;
            tile.a = A ? A + b.rank * s->dgates_row + phase->column[i] * s->H : 0;
            tile.b = (const REAL *)s->packed_Wh + panel * tile.b_panel
                + phase->row[i] * s->H * 2 * LANES;
            done = FN(run_tile)(&tile, m, 2, end - panel, ACCUMULATORS * LANES);
            tile.start = scratch;
            tile.start_row = tile.out_row;
            tile.start_panel = tile.out_panel;
        }
        for (idx v = 0; v < 2 * done && panel * 2 * LANES + v * LANES < s->H; v++) {
            b.z = scratch + v / 2 * tile.out_panel + v % 2 * LANES;
            epilogue(s, &b, panel * 2 * LANES + v * LANES);
        }
    }
}

/* One phase of step t; t == -1 stands for what is before the first step. */
static void FN(step_backward)(const FN(cell) *cell, const FN(backward_phase) *phase,
                              const cell_args *s, const FN(share) *sh, idx t)
{
    const idx K = cell->gates * s->H, end = CEIL_DIV(sh->u1, 2 * LANES);
    const idx begin = sh->u0 / (2 * LANES), panels = end - begin;
    const idx count = CEIL_DIV(panels * K * 2 * VEC_BYTES, B_BLOCK_BYTES);
    const idx here = FN(own)(sh, FN(active)(s, t));
    const idx going_on = phase->here ? here : FN(own)(sh, FN(active)(s, t + 1));
    const REAL *const A = FN(dgates_of)(s, phase->here ? t : t + 1);
    FN(epilogue) *const epilogue = t < 0 ? FN(leave) : phase->gradients;
    for (idx i = 0; i < count; i++) {
        const idx at = t & 1 ? count - 1 - i : i;
        for (int ending = 0; ending < 2; ending++) {
            const idx r0 = ending ? going_on : 0, R = ending ? here - going_on : going_on;
            const idx blocks = CEIL_DIV(R, MAX_ROWS(2));
            for (idx block = 0; block < blocks; block++) {
                const idx r = R * block / blocks, m = R * (block + 1) / blocks - r;
                FN(step_rows)(phase, epilogue, s, sh, t, ending ? 0 : A, r0 + r, m,
                              begin + panels * at / count, begin + panels * (at + 1) / count, K);
            }
        }
    }
}

static void FN(backward)(const FN(cell) *cell, const cell_args *s, idx part, idx parts)
{
    FN(share) sh = FN(share_of)(s, part, parts);
    if (s->t1 == s->steps) {
        FN(enter)(s, &sh, s->dhT, s->dh_carry);
        if (s->dc_carry)
            FN(enter)(s, &sh, s->dcT, s->dc_carry);
    }
    for (idx t = s->t1 - 1; t >= s->t0; t--)
        for (idx i = 0; i < cell->phases; i++) {
            FN(step_backward)(cell, &cell->backward[i], s, &sh, t);
            FN(meet)(s, &sh);
        }
    if (s->t0 == 0) {
        FN(step_backward)(cell, &cell->backward[0], s, &sh, -1);
        return;
    }
    const REAL *const from = FN(dgates_of)(s, s->t0);
    for (idx rank = part; rank < FN(active)(s, s->t0); rank += parts)
        memcpy((REAL *)s->dgates_next + rank * s->dgates_row, from + rank * s->dgates_row,
               s->dgates_row * sizeof(REAL));
}

/* ---- the kernels ----------------------------------------------------------------------------- */

#define CELL_KERNELS(name, cell)                                                            \
    static void FN(name##_forward)(const void *args, idx part, idx parts)                   \
    {                                                                                       \
        const cell_args *const s = args;                                                    \
        FN(forward)(cell, s, part, parts);                                                  \
    }                                                                                       \
    static void FN(name##_backward)(const void *args, idx part, idx parts)                  \
    {                                                                                       \
        const cell_args *const s = args;                                                    \
        FN(backward)(cell, s, part, parts);                                                 \
    }
CELL_KERNELS(rnn, &FN(rnn))
CELL_KERNELS(lstm, &FN(lstm))
CELL_KERNELS(gru, s->reset_before ? &FN(gru_reset_before) : &FN(gru))
#undef CELL_KERNELS
