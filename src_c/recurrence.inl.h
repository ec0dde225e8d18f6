/* The loops over time of any cell: x Wx + b for a chunk of steps, then step by step h_prev Wh by
   tiles and the cell's formulas on each finished tile while it is in L1; and the way back. */

/* Where part i of n things begins, and in how many parts things of a size are cut; mostly it is one,
   and a division takes as long as a vector of gates' sums. */
INLINE idx FN(cut)(idx n, idx part, idx parts)
{
    return parts == 1 ? part * n : n * part / parts;
}

INLINE idx FN(cuts)(idx n, idx size)
{
    return n == 0 ? 0 : n <= size ? 1 : CEIL_DIV(n, size);
}

/* ---- which rows and units a part computes ---------------------------------------------------- */

/* The ranks rank, rank + stride, ... and the units u0..u1 of all. Ranks are dealt in turn, since the
   longest rows come first. */
typedef struct {
    idx part, parts, rank, stride, u0, u1, units;
    int stage; /* of meetings, see barrier.h */
    int *flags;
    FN(block) block; /* the one at hand */
} FN(share);

static FN(share) FN(share_of)(const layer *l, int *flags, idx part, idx parts)
{
    FN(share) sh = {.part = part, .parts = parts, .rank = part, .stride = parts};
    if (l->plan.by_units) {
        sh.rank = 0;
        sh.stride = 1;
        sh.flags = has_product(l->problem.cell) ? flags : 0;
    }
    return sh;
}

/* Shares so many units, of a state or of a phase. */
INLINE void FN(share_units)(const layer *l, FN(share) *sh, idx units)
{
    const idx blocks = CEIL_DIV(units, 2 * LANES);
    sh->units = sh->block.units = sh->u1 = units;
    sh->u0 = 0;
    if (l->plan.by_units) {
        sh->u0 = MIN(units, blocks * sh->part / sh->parts * 2 * LANES);
        sh->u1 = MIN(units, blocks * (sh->part + 1) / sh->parts * 2 * LANES);
    }
}

/* How many of the ranks below n are in the share. */
INLINE idx FN(own)(const FN(share) *sh, idx n)
{
    return n > sh->rank ? FN(cuts)(n - sh->rank, sh->stride) : 0;
}

INLINE void FN(meet)(FN(share) *sh)
{
    if (sh->flags && sh->parts > 1)
        meet(sh->flags, sh->part, sh->parts, &sh->stage);
}

/* to[rank] = from[n], or 0, in the share; but 0 before a first step that begins with a reset. The
   units past the last one are computed with it: what lay there could be subnormal, and slow. */
static void FN(load_states)(const layer *l, const FN(share) *sh, const REAL *from, int heed_reset,
                            REAL *to, idx stride)
{
    const idx units = sh->units;
    const idx end = sh->u1 == units ? CEIL_DIV(units, 2 * LANES) * 2 * LANES : sh->u1;
    const int zero = heed_reset && l->problem.reset && !l->problem.reset_to_initial;
    for (idx rank = sh->rank; rank < l->problem.N; rank += sh->stride) {
        const REAL *const row = from ? from + l->time.sorted_indices[rank] * units : 0;
        const idx given = row && !(zero && is_reset(l, 0, rank)) ? units : 0;
        for (idx u = sh->u0; u < end; u += LANES)
            FN(store)(to + rank * stride + u, u < given ? FN(load_n)(row + u, given - u) : (V){0});
    }
}

/* What the blocks of all rows and steps share. */
static void FN(start_block)(const layer *l, FN(share) *sh)
{
    const problem *const p = &l->problem;
    FN(block) *const b = &sh->block;
    *b = (FN(block)){.stride = sh->stride, .H = p->H, .P = p->P, .saved_gates = l->kept.gates,
                     .saved_extra = l->kept.extra, .gates_stride = p->cell->gates * p->H,
                     .diagonal = p->cell->diagonal ? l->weights.Wh : 0,
                     .reset = p->reset, .reset_to_initial = p->reset_to_initial,
                     .dh = l->gradients.dh, .sorted_indices = l->time.sorted_indices,
                     .options = p->options,
                     .state_stride = l->forward.stride, .dstate_stride = l->backward.stride,
                     .dgates_stride = l->backward.dgates_stride,
                     .operand_stride = l->backward.operand_stride};
    for (idx g = 0; g < MAX_GATES; g++) {
        b->offsets[g] = p->offsets[g];
        b->z_offsets[g] = b->x_offsets[g] = g * LANES; /* in panels */
    }
    for (idx s = 0; s < MAX_STATES; s++) {
        b->saved_states[s] = l->kept.states[s];
        b->initial[s] = p->initial[s];
        b->states[s] = l->forward.states[s];
        b->dstates[s] = l->backward.dstates[s];
    }
    for (idx i = 0; i < MAX_SCRATCH; i++)
        b->scratch[i] = l->forward.scratch[i];
}

/* What formulas of whole rows see beside their block. */
static void FN(start_norm)(const layer *l, FN(block) *b, FN(norm) *norm)
{
    const problem *const p = &l->problem;
    if (!is_normalised(p->cell))
        return;
    b->norm = norm;
    norm->blocks = p->cell->norm;
    norm->gain_c = p->norm[GAIN_C];
    norm->shift_c = p->norm[SHIFT_C];
    norm->epsilon = p->epsilon;
    norm->biases[OF_X] = l->weights.b;
    norm->biases[OF_H] = l->weights.bh;
    for (int which = OF_X; which <= OF_H; which++) {
        norm->gains[which] = p->norm[which == OF_X ? GAIN_X : GAIN_H];
        norm->products[which] = l->kept.products[which];
    }
}

/* The rows of the share, or of those that share units with it a part, in all units. */
static FN(share) FN(whole_rows)(const layer *l, const FN(share) *sh)
{
    FN(share) rows = *sh;
    if (l->plan.by_units) {
        rows.rank = sh->part;
        rows.stride = rows.block.stride = sh->parts;
        rows.u0 = 0;
        rows.u1 = l->problem.H;
    }
    return rows;
}

/* Moves to step t; -1 is before the first one. */
INLINE void FN(move_block)(const layer *l, FN(block) *b, idx t)
{
    b->step = t;
    b->rows = t < 0 ? 0 : l->time.rows + l->time.offsets[t];
    b->previous_rows = t > 0 ? l->time.rows + l->time.offsets[t - 1] : 0;
}

/* The rows r..r+m of the share. */
INLINE FN(block) *FN(block_of)(FN(share) *sh, idx r, idx m)
{
    sh->block.rank = sh->rank + r * sh->stride;
    sh->block.m = m;
    return &sh->block;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* The scales of the share, drawn once. */
static void FN(draw_scales)(const layer *l, FN(share) *sh, REAL *to)
{
    const FN(block) *const b = FN(block_of)(sh, 0, FN(own)(sh, l->problem.N));
    for (EACH_ROW(b))
        for (idx u = sh->u0; u < sh->u1; u += LANES)
            FN(store)(to + rank * b->scales_stride + u,
                      FN(scale)(b, DROPOUT_H, b->options->dropout_h, rank, u));
}

/* What of the first state reaches Wh. */
static void FN(drop_initial)(const layer *l, FN(share) *sh, REAL *to)
{
    const FN(block) *const b = FN(block_of)(sh, 0, FN(own)(sh, l->problem.N));
    for (EACH_ROW(b))
        for (idx u = sh->u0; u < sh->u1; u += LANES) {
            const idx at = rank * b->state_stride + u;
            FN(store)(to + at, FN(dropped_h)(b, rank, u, FN(load)(b->states[0] + at)));
        }
}

/* The states first..end of the block, which a phase has written, start anew before the step after t
   where there is a reset. */
static void FN(reset_states)(const layer *l, const FN(block) *b, idx first, idx end, idx t, idx u)
{
    const problem *const p = &l->problem;
    const idx units = b->units;
    for (EACH_ROW(b)) {
        if (!is_reset(l, t + 1, rank))
            continue;
        for (idx s = first; s < end; s++) {
            const REAL *const from = p->reset_to_initial ? b->initial[s] : 0;
            const idx at = rank * b->state_stride + u;
            const V v = from ? FN(load_n)(from + b->sorted_indices[rank] * units + u, units - u) : (V){0};
            FN(store)((s ? b->states[s] : b->h_next) + at, v);
            if (s == 0 && b->dropped_next)
                FN(store)(b->dropped_next + at, FN(dropped_h)(b, rank, u, v));
        }
    }
}

/* The formulas of a phase for the units u..end. */
INLINE void FN(activate)(const layer *l, const forward_phase *phase, const FN(block) *b, idx t, idx u,
                         idx end)
{
    const cell_spec *const cell = l->problem.cell;
    const forward_phase *const last = &cell->forward[cell->phases - 1];
    phase->activate(b, u, CEIL_DIV(end - u, LANES));
    if (!l->problem.reset || phase < last - last->projects)
        return;
    const idx first_state = phase->projects || !last->projects ? 0 : 1;
    for (; u < end; u += LANES)
        FN(reset_states)(l, b, first_state, phase->projects ? 1 : cell->states, t, u);
}

/* Where x Wx + b of a share, or of the table, lies: [panels, gates_x_rows, x_row]. */
INLINE REAL *FN(gates_x_of)(const layer *l, const FN(share) *sh)
{
    const idx G = l->problem.cell->gates, width = UNIT_VECTORS(G) * LANES;
    const idx shared = l->plan.by_units || l->problem.index;
    const idx panel = shared ? sh->u0 / width : sh->part * CEIL_DIV(l->problem.H, width);
    return (REAL *)l->forward.gates_x + panel * l->forward.gates_x_rows * G * width;
}

/* Where products start that are normalised before biases are added; else NULL. */
INLINE const REAL *FN(start_of)(const cell_spec *cell)
{
    static const REAL zeros[MAX_GATES * (VEC_BYTES / sizeof(REAL))];
    return is_normalised(cell) ? zeros : 0;
}

/* x Wx + b of the table. */
static void FN(project_table)(const void *args, idx part, idx parts)
{
    const layer *const l = args;
    const problem *const p = &l->problem;
    const idx width = UNIT_VECTORS(p->cell->gates) * LANES, x_row = p->cell->gates * width;
    const idx panels = CEIL_DIV(p->H, width), p0 = panels * part / parts;
    const FN(product_args) product = {
        .rows = p->table, .K = p->D, .vectors = x_row / LANES, .p0 = p0,
        .p1 = panels * (part + 1) / parts, .a = p->x, .a_row = p->D, .packed = l->panels.Wx,
        .out = (REAL *)l->forward.gates_x + p0 * l->forward.gates_x_rows * x_row, .out_row = x_row,
        .out_panel = l->forward.gates_x_rows * x_row, .columns = panels * x_row,
        .start = FN(start_of)(p->cell)};
    FN(product)(&product);
}

/* x Wx + b of the steps t0..t1. */
static void FN(project_steps)(const layer *l, const FN(share) *sh, idx t0, idx t1)
{
    const problem *const p = &l->problem;
    const idx width = UNIT_VECTORS(p->cell->gates) * LANES, x_row = p->cell->gates * width;
    const REAL **const list = (const REAL **)l->forward.x_rows + sh->part * l->forward.gates_x_rows;
    idx rows = 0;
    for (idx t = t0; t < t1; t++)
        for (idx rank = sh->rank; rank < batch_size(l, t); rank += sh->stride)
            list[rows++] = (const REAL *)p->x + row_of(l, t, rank) * p->D;
    const FN(product_args) product = {
        .rows = rows, .K = p->D, .vectors = x_row / LANES, .p0 = sh->u0 / width,
        .p1 = CEIL_DIV(sh->u1, width), .a_rows = list, .packed = l->panels.Wx,
        .out = FN(gates_x_of)(l, sh), .out_row = x_row,
        .out_panel = l->forward.gates_x_rows * x_row, .columns = CEIL_DIV(p->H, width) * x_row,
        .start = FN(start_of)(p->cell)};
    if (rows)
        FN(product)(&product);
}

/* What the phase multiplies with Wh, by rank. */
INLINE const REAL *FN(left_of)(const forward_phase *phase, const FN(block) *b)
{
    return phase->left == SCRATCH ? b->scratch[0] : b->dropped_prev;
}

/* The rows r..r+m of the share, and where x Wx + b of its units lies: the rows from first on of
   gates_x, or those of the table. */
INLINE FN(block) *FN(block_with_x)(const layer *l, FN(share) *sh, idx first, idx r, idx m,
                                   idx *x_rows)
{
    const idx G = l->problem.cell->gates, *const index = l->problem.index;
    const idx x_row = G * UNIT_VECTORS(G) * LANES, panel = l->forward.gates_x_rows * x_row;
    FN(block) *const b = FN(block_of)(sh, r, m);
    for (EACH_ROW(b))
        x_rows[k] = index ? index[b->rows[rank]] : first + r + k;
    b->x = FN(gates_x_of)(l, sh);
    b->x_stride = x_row;
    b->x_rows = x_rows;
    b->x_unit[0] = UNIT_VECTORS(G) == 1 ? panel : LANES;
    b->x_unit[1] = UNIT_VECTORS(G) == 1 ? panel : panel - LANES;
    return b;
}

/* One phase of step t for panels q..end of the rows r..r+m of the share, whose x Wx + b are the
   rows from first on of gates_x. The formulas follow several tiles at once: with few rows the chain
   of one vector of units is all waiting. */
static void FN(recur_rows)(const layer *l, const forward_phase *phase, FN(share) *sh, idx t,
                           idx first, idx r, idx m, idx q, idx end)
{
    const idx G = l->problem.cell->gates, K = depth_forward(&l->problem, phase);
    const idx unit_vectors = UNIT_VECTORS(phase->gates), width = unit_vectors * LANES;
    const idx NV = phase->gates * unit_vectors, x_vectors = UNIT_VECTORS(G);
    const idx x_row = G * x_vectors * LANES, group = MAX(1, Z_VECTORS / (m * NV));
    idx x_rows[MAX_ROWS(2)];
    FN(block) *const b = FN(block_with_x)(l, sh, first, r, m, x_rows);
    const REAL *const x = b->x;
    REAL z[Z_VECTORS * (VEC_BYTES / sizeof(REAL))];
    FN(tile) tile = {.K = K, .a_row = sh->stride * b->state_stride,
                     .a = FN(left_of)(phase, b) + b->rank * b->state_stride,
                     .b_panel = PANEL_SIZE(K, NV * LANES), .started = phase->continued * unit_vectors,
                     .start_rows = x_rows, .start_row = x_row,
                     .start_panel = l->forward.gates_x_rows * x_row, .out_panel = NV * LANES};
    b->z = z;
    b->z_unit = NV * LANES / unit_vectors;
    for (idx begin = q; begin < end; begin += group) {
        const idx n = MIN(group, end - begin), unit = begin * width;
        tile.out_row = b->z_stride = n * NV * LANES;
        for (idx panel = begin, done; panel < begin + n; panel += done) {
            tile.b = (const REAL *)l->panels.Wh[phase - l->problem.cell->forward]
                + panel * tile.b_panel;
            tile.start = x + (panel - sh->u0 / width) * tile.start_panel;
            tile.out = z + (panel - begin) * tile.out_panel;
            done = FN(run_tile)(&tile, m, NV, begin + n - panel, Z_VECTORS * LANES);
        }
        b->x = x + (unit - sh->u0) / (x_vectors * LANES) * tile.start_panel;
        FN(activate)(l, phase, b, t, unit, MIN(sh->units, unit + n * width));
    }
}

/* The product alone, into z. */
static void FN(multiply_rows)(const layer *l, FN(share) *sh, idx r, idx m, idx q, idx end)
{
    const idx G = l->problem.cell->gates, H = l->problem.H, width = G * LANES;
    const FN(block) *const b = FN(block_of)(sh, r, m);
    FN(tile) tile = {.K = H, .a_row = sh->stride * b->state_stride,
                     .a = b->dropped_prev + b->rank * b->state_stride,
                     .b_panel = PANEL_SIZE(H, width), .started = G,
                     .start = FN(start_of)(l->problem.cell),
                     .out_row = sh->stride * l->forward.z_stride, .out_panel = width};
    for (idx panel = q, done; panel < end; panel += done) {
        tile.b = (const REAL *)l->panels.Wh[0] + panel * tile.b_panel;
        tile.out = (REAL *)l->forward.z + b->rank * l->forward.z_stride + panel * width;
        done = FN(run_tile)(&tile, m, G, end - panel, (end - panel) * width);
    }
}

/* Loops: blocks of Wh that stay in L2, blocks of rows. Every other step takes the blocks in reverse,
   so that a Wh that does not fit L2 is half there. */
static void FN(recur)(const layer *l, const forward_phase *phase, FN(share) *sh, idx t, idx first)
{
    const idx unit_vectors = UNIT_VECTORS(phase->gates), width = unit_vectors * LANES;
    const idx NV = phase->gates * unit_vectors, R = FN(own)(sh, batch_size(l, t));
    const idx blocks = FN(cuts)(R, MAX_ROWS(NV));
    const idx begin = sh->u0 / width, panels = CEIL_DIV(sh->u1, width) - begin;
    const idx K = depth_forward(&l->problem, phase);
    const idx count = FN(cuts)(panels * K * NV * VEC_BYTES, fastrnn_caches.block_bytes);
    for (idx i = 0; i < count; i++) {
        const idx at = t & 1 ? count - 1 - i : i;
        for (idx block = 0; block < blocks; block++) {
            const idx r = FN(cut)(R, block, blocks), m = FN(cut)(R, block + 1, blocks) - r;
            const idx q = begin + FN(cut)(panels, at, count);
            const idx end = begin + FN(cut)(panels, at + 1, count);
            if (is_normalised(l->problem.cell))
                FN(multiply_rows)(l, sh, r, m, q, end);
            else
                FN(recur_rows)(l, phase, sh, t, first, r, m, q, end);
        }
    }
}

/* A phase without a product. */
static void FN(recur_formulas)(const layer *l, const forward_phase *phase, FN(share) *sh, idx t,
                               idx first)
{
    const idx R = FN(own)(sh, batch_size(l, t)), blocks = FN(cuts)(R, MAX_ROWS(2));
    idx x_rows[MAX_ROWS(2)];
    for (idx block = 0; block < blocks; block++) {
        const idx r = FN(cut)(R, block, blocks), m = FN(cut)(R, block + 1, blocks) - r;
        FN(activate)(l, phase, FN(block_with_x)(l, sh, first, r, m, x_rows), t, sh->u0, sh->u1);
    }
}

/* z += a W in columns from `column` on, W [K, ld] as it lies, or transposed. */
INLINE void FN(add_columns)(const layer *l, idx column, idx columns, REAL *z, const REAL *a,
                            const REAL *W, idx K, idx ld)
{
    if (l->weights.transposed)
        FN(add_transposed_product)(z + column, a, W + column * K, K, K, columns);
    else
        FN(add_vector_product)(z + column, a, W + column, ld, K, columns);
}

/* The gates g..g+count in the share: those of whole gates lie together. */
static void FN(add_gates)(const layer *l, const FN(share) *sh, idx g, idx count, REAL *z,
                          const REAL *a, const REAL *W, idx K)
{
    const idx units = sh->u1 - sh->u0, ld = l->problem.cell->gates * l->problem.H;
    if (units == l->problem.H) {
        FN(add_columns)(l, first_column(l, g, count), count * units, z, a, W, K, ld);
        return;
    }
    for (idx i = g; i < g + count; i++)
        FN(add_columns)(l, l->problem.offsets[i] + sh->u0, units, z, a, W, K, ld);
}

/* Where h Wh of a row starts: from x Wx + b, or, of the gates that do not continue it, from bh. */
static void FN(start_unpacked)(const layer *l, const FN(share) *sh, const REAL *x, REAL *z)
{
    const REAL *const bh = l->weights.bh;
    const idx size = (sh->u1 - sh->u0) * sizeof(REAL);
    for (idx g = 0; g < l->problem.cell->gates; g++) {
        const idx column = l->problem.offsets[g] + sh->u0;
        if (g < l->problem.cell->forward[0].continued)
            memcpy(z + column, x + column, size);
        else if (bh && !is_normalised(l->problem.cell))
            memcpy(z + column, bh + column, size);
        else
            memset(z + column, 0, size);
    }
}

/* x Wx + b of one row. */
static void FN(project_unpacked)(const layer *l, const FN(share) *sh, const REAL *x, REAL *to)
{
    const REAL *const b = l->weights.b, *const bh = l->weights.bh;
    const idx units = sh->u1 - sh->u0, gates = l->problem.cell->gates;
    for (idx g = 0; g < gates; g++) {
        const idx column = l->problem.offsets[g] + sh->u0;
        if (is_normalised(l->problem.cell))
            memset(to + column, 0, units * sizeof(REAL));
        else
            memcpy(to + column, b + column, units * sizeof(REAL));
        for (idx u = 0; bh && g < l->problem.cell->forward[0].continued && u < units; u++)
            to[column + u] += bh[column + u];
    }
    FN(add_gates)(l, sh, 0, gates, to, x, l->weights.Wx, l->problem.D);
}

/* Too few rows to pay for packing: the same sums with Wx and Wh as they lie. Of each row gates_x
   holds x Wx + b and, where some gates do not continue it, h Wh, or what is projected:
   [2, G H + LANES]. */
static void FN(recur_unpacked)(const layer *l, const forward_phase *phase, FN(share) *sh, idx t)
{
    static const idx zero;
    const problem *const p = &l->problem;
    const int separate = has_product(p->cell) && p->cell->forward[0].continued < p->cell->gates;
    const idx size = p->cell->gates * p->H + LANES;
    FN(block) *const b = &sh->block;
    b->x_rows = &zero;
    b->z_unit = b->x_unit[0] = b->x_unit[1] = LANES;
    for (idx g = 0; g < p->cell->gates; g++)
        b->x_offsets[g] = p->offsets[g];
    for (idx i = 0; i < phase->gates; i++)
        b->z_offsets[i] = phase->projects ? 0 : p->offsets[phase->gate + i];
    for (idx r = 0; r < FN(own)(sh, batch_size(l, t)); r++) {
        FN(block_of)(sh, r, 1);
        REAL *const x = (REAL *)l->forward.gates_x + b->rank * 2 * size;
        REAL *const z = separate || phase->projects ? x + size : x;
        const REAL *const left = FN(left_of)(phase, b) + b->rank * b->state_stride;
        if (phase == p->cell->forward) {
            if (sh->u1 == p->H) { /* the last vector of units reads so far */
                memset(x + size - LANES, 0, LANES * sizeof(REAL));
                memset(z + size - LANES, 0, LANES * sizeof(REAL));
            }
            const idx row = b->rows[b->rank], at = p->index ? p->index[row] : row;
            FN(project_unpacked)(l, sh, (const REAL *)p->x + at * p->D, x);
            if (separate)
                FN(start_unpacked)(l, sh, x, z);
        }
        if (phase->projects) {
            memset(z + sh->u0, 0, CEIL_DIV(sh->u1 - sh->u0, LANES) * LANES * sizeof(REAL));
            FN(add_columns)(l, sh->u0, sh->u1 - sh->u0, z, left, l->weights.Whr, p->H, p->P);
        } else if (phase->gates) {
            FN(add_gates)(l, sh, phase->gate, phase->gates, z, left, l->weights.Wh,
                          depth_forward(p, phase));
        }
        if (is_normalised(p->cell))
            continue;
        b->z = z + sh->u0;
        b->x = x + sh->u0;
        FN(activate)(l, phase, b, t, sh->u0, sh->u1);
    }
}

/* The formulas of step t for whole rows, of which both products are there. */
static void FN(activate_rows)(const layer *l, const FN(share) *sh, idx t, idx first)
{
    const forward_workspace *const space = &l->forward;
    const idx G = l->problem.cell->gates, *const index = l->problem.index;
    const idx unpacked = G * l->problem.H + LANES, by_units = l->plan.by_units;
    FN(share) rows = FN(whole_rows)(l, sh);
    FN(block) *const b = &rows.block;
    const REAL *const x = l->plan.packed ? FN(gates_x_of)(l, &rows) : space->gates_x;
    REAL *const z = l->plan.packed ? space->z : (REAL *)space->gates_x + unpacked;
    const idx z_row = l->plan.packed ? space->z_stride : 2 * unpacked;
    const idx R = FN(own)(&rows, batch_size(l, t));
    idx x_rows[NORM_ROWS];
    b->x = x;
    b->x_rows = x_rows;
    b->z_unit = l->plan.packed ? G * LANES : LANES;
    b->x_unit[0] = b->x_unit[1] = l->plan.packed ? space->gates_x_rows * G * LANES : LANES;
    b->x_stride = l->plan.packed ? G * LANES : 2 * unpacked;
    b->z_stride = rows.stride * z_row;
    for (idx r = 0; r < R; r += NORM_ROWS) {
        FN(block_of)(&rows, r, MIN(NORM_ROWS, R - r));
        for (EACH_ROW(b))
            x_rows[k] = !l->plan.packed ? rank
                : index                 ? index[b->rows[rank]]
                                        : first + (by_units ? rank : r + k);
        b->z = z + b->rank * z_row;
        FN(activate)(l, l->problem.cell->forward, b, t, 0, l->problem.H);
    }
}

/* Steps from t on, before t1, whose rows fit into gates_x. */
static idx FN(chunk_end)(const layer *l, const FN(share) *sh, idx t)
{
    idx rows = 0;
    for (; t < l->forward.t1; t++)
        if ((rows += FN(own)(sh, batch_size(l, t))) > l->forward.gates_x_rows)
            break;
    return t;
}

/* The steps t0..t1. */
static void FN(forward)(const void *args, idx part, idx parts)
{
    const layer *const l = args;
    const cell_spec *const cell = l->problem.cell;
    const idx t0 = l->forward.t0, t1 = l->forward.t1;
    const int in_chunks = l->plan.packed && !l->problem.index;
    const idx size = l->problem.N * l->forward.stride;
    REAL *const dropped = l->forward.dropped_h;
    FN(share) sh = FN(share_of)(l, l->forward.flags, part, parts);
    FN(start_block)(l, &sh);
    FN(norm) norm;
    FN(start_norm)(l, &sh.block, &norm);
    sh.block.scales_h = l->forward.scales_h;
    sh.block.scales_stride = l->forward.stride;
    for (idx s = 0; s < cell->states && t0 == 0; s++) {
        FN(share_units)(l, &sh, units_of_state(&l->problem, s));
        FN(load_states)(l, &sh, l->problem.initial[s], 1, l->forward.states[s], l->forward.stride);
        if (s == 0 && dropped) {
            FN(draw_scales)(l, &sh, l->forward.scales_h);
            FN(drop_initial)(l, &sh, dropped);
        }
    }
    FN(meet)(&sh);
    for (idx t = t0, end = t0, first = 0; t < t1; t++) {
        FN(share_units)(l, &sh, l->problem.H);
        if (t == end) {
            end = in_chunks ? FN(chunk_end)(l, &sh, t) : t1;
            first = 0;
            if (in_chunks)
                FN(project_steps)(l, &sh, t, end);
        }
        FN(move_block)(l, &sh.block, t);
        sh.block.h_prev = sh.block.states[0] + (t & 1) * size;
        sh.block.h_next = sh.block.states[0] + (~t & 1) * size;
        sh.block.dropped_next = dropped ? dropped + (~t & 1) * size : 0;
        sh.block.dropped_prev = dropped ? dropped + (t & 1) * size : sh.block.h_prev;
        for (idx i = 0; i < cell->phases; i++) {
            FN(share_units)(l, &sh, units_forward(&l->problem, &cell->forward[i]));
            if (!l->plan.packed)
                FN(recur_unpacked)(l, &cell->forward[i], &sh, t);
            else if (cell->forward[i].gates)
                FN(recur)(l, &cell->forward[i], &sh, t, first);
            else
                FN(recur_formulas)(l, &cell->forward[i], &sh, t, first);
            if (is_normalised(cell)) {
                FN(meet)(&sh);
                FN(activate_rows)(l, &sh, t, first);
            }
            if (t + 1 < t1 || i + 1 < cell->phases)
                FN(meet)(&sh);
        }
        first += FN(own)(&sh, batch_size(l, t));
    }
}

/* ---- backward -------------------------------------------------------------------------------- */

/* Where the gates' gradients of step t begin. */
INLINE REAL *FN(dgates_of)(const layer *l, idx t)
{
    const backward_workspace *const space = &l->backward;
    return t < space->t1 ? (REAL *)space->dgates
               + (l->time.offsets[MAX(0, t)] - l->time.offsets[space->t0]) * space->dgates_stride
                         : (REAL *)space->dgates_next;
}

/* Where the step after t began anew, nothing goes back to t: what came in z and in the gradients of
   the other states, of the states first..end, is taken out, and is that of the initial states if these
   were the new ones. */
static void FN(cut_at_resets)(const layer *l, const FN(block) *b, idx first, idx end, idx t, REAL *z,
                              idx u)
{
    const idx n = b->units - u;
    for (EACH_ROW(b)) {
        if (!is_reset(l, t + 1, rank))
            continue;
        for (idx s = first; s < end; s++) {
            REAL *const from = s ? FN(dstate)(b, s, rank, u) : z + k * b->z_stride;
            REAL *const to = (REAL *)l->gradients.dinitial[s] + b->sorted_indices[rank] * b->units + u;
            if (l->problem.reset_to_initial)
                FN(store_n)(to, FN(load_n)(to, n) + FN(load)(from), n);
            FN(store)(from, (V){0});
        }
    }
}

/* Before the first step: the gradients of the initial states first..end. */
static void FN(leave)(const layer *l, const FN(block) *b, idx first, idx end, idx u)
{
    const int add = l->problem.reset && l->problem.reset_to_initial;
    const idx n = b->units - u;
    for (EACH_ROW(b))
        for (idx s = first; s < end; s++) {
            REAL *const to = (REAL *)l->gradients.dinitial[s] + b->sorted_indices[rank] * b->units + u;
            const V d = FN(load)(s ? FN(dstate)(b, s, rank, u) : b->z + k * b->z_stride);
            FN(store_n)(to, add ? FN(load_n)(to, n) + d : d, n);
        }
}

/* What the product has left is the gradient of what of h reached Wh. */
static void FN(drop_gradient)(const FN(block) *b, REAL *z, idx u)
{
    for (EACH_ROW(b)) {
        REAL *const at = z + k * b->z_stride;
        FN(store)(at, FN(dropped_h)(b, rank, u, FN(load)(at)) + FN(load)(FN(dstate)(b, 0, rank, u)));
    }
}

/* The formulas of a step, or what is before the first one, for the units u..end, whose vectors of z
   lie one after the other. */
INLINE void FN(differentiate)(const layer *l, const backward_phase *phase, FN(block) *b, idx t,
                              REAL *z, idx u, idx end)
{
    const cell_spec *const cell = l->problem.cell;
    const idx first = phase->projects ? 1 : 0, states = has_gates(cell, phase) ? cell->states : 1;
    const int cuts = l->problem.reset && (!phase->within_step || phase->projects);
    for (idx at = u; drops(&l->problem, DROPOUT_H) && !phase->within_step && at < end; at += LANES)
        FN(drop_gradient)(b, z + at - u, at);
    for (idx at = u; cuts && at < end; at += LANES)
        FN(cut_at_resets)(l, b, first, states, t, z + at - u, at);
    b->z = z;
    if (t >= 0)
        phase->differentiate(b, u, CEIL_DIV(end - u, LANES));
    for (idx at = u; t < 0 && at < end; at += LANES, b->z += LANES)
        FN(leave)(l, b, first, states, at);
}

/* The row of the arrays of steps that is own row r of R, or, past these, of the step before; or -1. */
INLINE idx FN(next_row)(const FN(block) *b, const FN(share) *rows, idx r, idx R)
{
    if (r < R)
        return b->rows[rows->rank + r * rows->stride];
    return b->previous_rows && r - R < MIN(R, NORM_ROWS)
        ? b->previous_rows[rows->rank + (r - R) * rows->stride] : -1;
}

/* The formulas of whole rows, of which the products are there. */
static void FN(differentiate_rows)(const layer *l, const FN(share) *sh, idx t)
{
    const idx stride = l->backward.stride;
    FN(share) rows = FN(whole_rows)(l, sh);
    const idx R = FN(own)(&rows, batch_size(l, t));
    FN(block) *const b = &rows.block;
    b->z_stride = rows.stride * stride;
    for (idx r = 0; r < R; r += NORM_ROWS) {
        FN(block_of)(&rows, r, MIN(NORM_ROWS, R - r));
        REAL *const z = (REAL *)l->backward.z + b->rank * stride;
        for (idx k = 0; k < b->m && t >= 0; k++)
            b->norm->next[k] = FN(next_row)(b, &rows, r + NORM_ROWS + k, R);
        FN(differentiate)(l, l->problem.cell->backward, b, t, z, 0, l->problem.H);
    }
}

/* What the formulas are going to read of what forward saved, for the units of a panel: each row's lies
   elsewhere, and a tile takes as long as it takes to come. */
INLINE void FN(expect)(const FN(block) *b, const cell_spec *cell, const backward_phase *phase, idx u)
{
    const idx lines = MIN(2 * LANES, b->units - u) * sizeof(REAL);
    const idx gates = has_gates(cell, phase) ? cell->gates : 0, first = phase->projects ? 1 : 0;
    for (EACH_ROW(b)) {
        const idx row = b->rows[rank];
        for (idx at = 0; at < lines; at += ALIGNMENT) {
            const idx unit = u + at / sizeof(REAL);
            for (idx g = 0; b->saved_gates && g < gates; g++)
                __builtin_prefetch(b->saved_gates + row * b->gates_stride + b->offsets[g] + unit);
            if (b->saved_extra)
                __builtin_prefetch(b->saved_extra + row * b->H + unit);
            if (b->dh && !phase->projects)
                __builtin_prefetch(b->dh + row * b->P + unit);
            for (idx s = first; b->previous_rows && gates && s < cell->states; s++)
                __builtin_prefetch(b->saved_states[s] + b->previous_rows[rank] * FN(width)(b, s) + unit);
        }
    }
}

/* Panels q..end of the rows r..r+m of the share. A: the gates' gradients that come back; NULL for
   rows that end at step t, to which none do. */
static void FN(step_rows)(const layer *l, const backward_phase *phase, FN(share) *sh, idx t,
                          const REAL *A, idx r, idx m, idx q, idx end)
{
    static const REAL zeros[2 * VEC_BYTES / sizeof(REAL)];
    const idx H = l->problem.H, K = depth_backward(&l->problem, phase);
    const idx stride = l->backward.stride;
    const REAL *const panels = phase->projects ? l->panels.Whr_T : l->panels.Wh_T;
    const int alone = phase->within_step || drops(&l->problem, DROPOUT_H);
    REAL z[ACCUMULATORS * (VEC_BYTES / sizeof(REAL))];
    FN(block) *const b = FN(block_of)(sh, r, m);
    b->z_stride = 2 * LANES;
    FN(tile) tile = {.a_row = sh->stride * b->dgates_stride, .b_panel = PANEL_SIZE(K, 2 * LANES),
                     .started = 2, .out = z, .out_row = 2 * LANES, .out_panel = m * 2 * LANES};
    const int whole = is_normalised(l->problem.cell);
    if (whole) {
        tile.out_row = sh->stride * stride;
        tile.out_panel = 2 * LANES;
    }
    for (idx panel = q, done = 1; panel < end; panel += done) {
        tile.start = alone ? zeros : b->dstates[0] + b->rank * stride + panel * 2 * LANES;
        tile.start_row = alone ? 0 : sh->stride * stride;
        tile.start_panel = alone ? 0 : 2 * LANES;
        if (whole)
            tile.out = (REAL *)l->backward.z + b->rank * stride + panel * 2 * LANES;
        else if (t >= 0)
            FN(expect)(b, l->problem.cell, phase, panel * 2 * LANES);
        for (idx i = 0; i < MAX_PIECES && phase->piece[i].gates; i++) {
            const idx gates = phase->piece[i].gates;
            const idx column = block_column(l, phase->piece[i].block, gates);
            const idx row = phase->projects ? 0 : first_column(l, phase->piece[i].gate, gates);
            tile.K = !A ? 0 : phase->projects ? K : gates * H;
            tile.a = A ? A + b->rank * b->dgates_stride + column : 0;
            tile.b = panels + panel * tile.b_panel + row * 2 * LANES;
            done = FN(run_tile)(&tile, m, 2, end - panel, ACCUMULATORS * LANES);
            tile.start = z;
            tile.start_row = tile.out_row;
            tile.start_panel = tile.out_panel;
        }
        for (idx i = 0; i < done && !whole; i++) {
            const idx u = (panel + i) * 2 * LANES;
            FN(differentiate)(l, phase, b, t, z + i * tile.out_panel, u, MIN(sh->units, u + 2 * LANES));
        }
    }
}

/* The same of one row with Wh as it lies, in the units of the share. */
static void FN(step_unpacked)(const layer *l, const backward_phase *phase, FN(share) *sh, idx t,
                              const REAL *A, idx r)
{
    const idx H = l->problem.H, ld = depth_backward(&l->problem, phase), units = sh->u1 - sh->u0;
    const idx end = sh->u1 == sh->units ? l->backward.stride : sh->u1;
    const int whole = is_normalised(l->problem.cell);
    const REAL *const W = phase->projects ? l->weights.Whr : l->weights.Wh;
    FN(block) *const b = FN(block_of)(sh, r, 1);
    REAL *const z = (REAL *)l->backward.z + (whole ? b->rank : sh->part) * l->backward.stride;
    memset(z + sh->u0, 0, (end - sh->u0) * sizeof(REAL));
    if (!phase->within_step && !drops(&l->problem, DROPOUT_H))
        memcpy(z + sh->u0, b->dstates[0] + b->rank * b->dstate_stride + sh->u0, units * sizeof(REAL));
    for (idx i = 0; A && i < MAX_PIECES && phase->piece[i].gates; i++) {
        const idx gates = phase->piece[i].gates, K = phase->projects ? ld : gates * H;
        const idx row = phase->projects ? 0 : first_column(l, phase->piece[i].gate, gates);
        const REAL *const a = A + b->rank * b->dgates_stride
            + block_column(l, phase->piece[i].block, gates);
        if (l->weights.transposed)
            FN(add_vector_product)(z + sh->u0, a, W + row * sh->units + sh->u0, sh->units, K, units);
        else
            FN(add_transposed_product)(z + sh->u0, a, W + sh->u0 * ld + row, ld, K, units);
    }
    if (!whole)
        FN(differentiate)(l, phase, b, t, z + sh->u0, sh->u0, sh->u1);
}

/* A phase without a product. */
static void FN(step_formulas)(const layer *l, const backward_phase *phase, FN(share) *sh, idx t)
{
    const idx R = FN(own)(sh, batch_size(l, t)), blocks = FN(cuts)(R, MAX_ROWS(2));
    for (idx block = 0; block < blocks; block++) {
        const idx r = FN(cut)(R, block, blocks), m = FN(cut)(R, block + 1, blocks) - r;
        FN(block) *const b = FN(block_of)(sh, r, m);
        b->z_stride = sh->stride * b->dstate_stride;
        FN(differentiate)(l, phase, b, t, FN(dstate)(b, 0, b->rank, sh->u0), sh->u0, sh->u1);
    }
}

/* One phase of step t; t == -1 stands for what is before the first step. */
static void FN(step_backward)(const layer *l, const backward_phase *phase, FN(share) *sh, idx t)
{
    const idx K = depth_backward(&l->problem, phase), end = CEIL_DIV(sh->u1, 2 * LANES);
    const idx begin = sh->u0 / (2 * LANES), panels = end - begin;
    const idx count = FN(cuts)(panels * K * 2 * VEC_BYTES, fastrnn_caches.block_bytes);
    const idx present = FN(own)(sh, batch_size(l, t));
    const idx continuing = phase->within_step ? present : FN(own)(sh, batch_size(l, t + 1));
    const REAL *const A = FN(dgates_of)(l, phase->within_step ? t : t + 1);
    if (!phase->piece[0].gates) {
        FN(step_formulas)(l, phase, sh, t);
        return;
    }
    for (idx row = 0; row < present && !l->plan.packed; row++)
        FN(step_unpacked)(l, phase, sh, t, row < continuing ? A : 0, row);
    for (idx i = 0; i < count && l->plan.packed; i++) {
        const idx at = t & 1 ? count - 1 - i : i;
        for (int ending = 0; ending < 2; ending++) {
            const idx r0 = ending ? continuing : 0, R = ending ? present - continuing : continuing;
            const idx blocks = FN(cuts)(R, MAX_ROWS(2));
            for (idx block = 0; block < blocks; block++) {
                const idx r = FN(cut)(R, block, blocks), m = FN(cut)(R, block + 1, blocks) - r;
                FN(step_rows)(l, phase, sh, t, ending ? 0 : A, r0 + r, m,
                              begin + FN(cut)(panels, at, count),
                              begin + FN(cut)(panels, at + 1, count));
            }
        }
    }
    if (is_normalised(l->problem.cell)) {
        FN(meet)(sh);
        FN(differentiate_rows)(l, sh, t);
    }
}

/* What is before the first step. Of the states that a phase that projects has, no product is left. */
static void FN(leave_all)(const layer *l, FN(share) *sh)
{
    const cell_spec *const cell = l->problem.cell;
    FN(move_block)(l, &sh->block, -1);
    FN(share_units)(l, sh, l->problem.P);
    FN(step_backward)(l, cell->backward, sh, -1);
    if (!is_projected(cell))
        return;
    FN(share_units)(l, sh, l->problem.H);
    FN(block) *const b = FN(block_of)(sh, 0, FN(own)(sh, l->problem.N));
    if (b->m)
        FN(differentiate)(l, &cell->backward[cell->phases - 1], b, -1,
                          FN(dstate)(b, 1, b->rank, sh->u0), sh->u0, sh->u1);
}

/* The steps from..to. */
static void FN(backward)(const void *args, idx part, idx parts)
{
    const layer *const l = args;
    const cell_spec *const cell = l->problem.cell;
    const backward_workspace *const space = &l->backward;
    FN(share) sh = FN(share_of)(l, space->flags, part, parts);
    FN(start_block)(l, &sh);
    FN(norm) norm;
    FN(start_norm)(l, &sh.block, &norm);
    sh.block.z_unit = LANES;
    sh.block.scales_h = space->scales_h;
    sh.block.scales_stride = space->stride;
    for (idx s = 0; s < cell->states && space->to == l->time.steps; s++) {
        FN(share_units)(l, &sh, units_of_state(&l->problem, s));
        FN(load_states)(l, &sh, l->gradients.dlast[s], 0, space->dstates[s], space->stride);
        if (s == 0 && space->scales_h)
            FN(draw_scales)(l, &sh, space->scales_h);
    }
    for (idx t = space->to - 1; t >= space->from; t--) {
        FN(move_block)(l, &sh.block, t);
        sh.block.dgates = FN(dgates_of)(l, t);
        for (int i = 0; i < OPERANDS; i++)
            sh.block.operands[i] = space->operands[i] ? (REAL *)space->operands[i]
                + (l->time.offsets[t] - l->time.offsets[space->t0]) * space->operand_stride : 0;
        norm.kept = (FN(moments) *)space->moments
            + 2 * (l->time.offsets[t] - l->time.offsets[space->t0]);
        for (idx i = 0; i < cell->phases; i++) {
            FN(share_units)(l, &sh, units_backward(&l->problem, &cell->backward[i]));
            FN(step_backward)(l, &cell->backward[i], &sh, t);
            FN(meet)(&sh);
        }
    }
    if (space->from == 0)
        FN(leave_all)(l, &sh);
    if (space->from == 0 || space->from > space->t0 || !has_product(cell))
        return;
    const REAL *const from = FN(dgates_of)(l, space->t0);
    for (idx rank = part; rank < batch_size(l, space->t0); rank += parts)
        memcpy((REAL *)space->dgates_next + rank * space->dgates_stride,
               from + rank * space->dgates_stride, space->dgates_stride * sizeof(REAL));
}
