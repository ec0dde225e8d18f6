/* lstm_norm   lstm_options with a = LN(x Wx) gain_x + LN(h_prev Wh) gain_h + b and
               h = o tanh(LN(c) gain_c + shift_c), each LN over all the numbers of a row */

INLINE V FN(lstm_norm_a)(const FN(block) *b, idx k, idx rank, idx g, idx u, const idx n)
{
    return FN(gained)(b, OF_X, k, rank, g, u, n) + FN(gained)(b, OF_H, k, rank, g, u, n)
        + FN(bias)(b, OF_X, g, u, n);
}

/* c waits in scratch[0], o in its place of h Wh. */
INLINE void FN(lstm_norm_gates_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        REAL *const state = FN(state)(b, 1, rank, u);
        const V c_prev = FN(load)(state);
        const V i = FN(gate_of)(b, FN(lstm_norm_a)(b, k, rank, 0, u, n));
        const V f = FN(gate_of)(b, FN(lstm_norm_a)(b, k, rank, 1, u, n));
        const V o = FN(gate_of)(b, FN(lstm_norm_a)(b, k, rank, 2, u, n));
        const V g = FN(candidate_of)(b, FN(lstm_norm_a)(b, k, rank, 3, u, n));
        const V c = f * c_prev + i * FN(scaled)(g, FN(candidate_scale)(b, rank, u));
        const V kept_c = FN(zoneout)(b, 1, rank, u, c_prev, c);
        FN(store)(FN(scratch)(b, 0, rank, u), c);
        FN(store)(state, kept_c);
        FN(keep)(b, k, 2, o, n);
        FN(save_state)(b, 1, rank, u, kept_c, n);
        FN(save_gate)(b, rank, 0, u, i, n);
        FN(save_gate)(b, rank, 1, u, f, n);
        FN(save_gate)(b, rank, 2, u, o, n);
        FN(save_gate)(b, rank, 3, u, g, n);
    }
}

INLINE void FN(lstm_norm_h_n)(const FN(block) *b, idx u, const idx n)
{
    const V gain = FN(load_n)(b->norm->gain_c + u, n), shift = FN(load_n)(b->norm->shift_c + u, n);
    for (EACH_ROW(b)) {
        const V c = FN(normalised)(FN(load)(FN(scratch)(b, 0, rank, u)), b->norm->of_c[k]);
        FN(finish_dropped)(b, rank, u, FN(gate)(b, k, 2) * FN(tanh)(gain * c + shift), n);
    }
}

static void FN(lstm_norm_activate)(const void *block, idx u, idx count)
{
    FN(block) b = *(const FN(block) *)block;
    FN(measure_products)(&b, 4);
    EACH_UNIT(lstm_norm_gates)
    FN(measure_c)(&b, b.scratch[0], b.state_stride);
    EACH_UNIT(lstm_norm_h)
}

INLINE void FN(lstm_norm_new_c_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V i = FN(saved_gate)(b, rank, 0, u, n), f = FN(saved_gate)(b, rank, 1, u, n);
        const V g = FN(scaled)(FN(saved_gate)(b, rank, 3, u, n), FN(candidate_scale)(b, rank, u));
        const V c = f * FN(state_before)(b, 1, rank, u, n) + i * g;
        FN(store_operand)(b, NEW_C, rank, u, c, n);
    }
}

/* The gradient of h to those of o, of LN(c) gain_c + shift_c, and of LN(c), which waits in i's place:
   as it is summed, rounded, or of a single unit its mean would not take all of it away. LN(c)
   replaces c. */
INLINE void FN(lstm_norm_from_h_n)(const FN(block) *b, idx u, const idx n)
{
    const V gain = FN(load_n)(b->norm->gain_c + u, n), shift = FN(load_n)(b->norm->shift_c + u, n);
    for (EACH_ROW(b)) {
        const V o = FN(saved_gate)(b, rank, 2, u, n);
        const V c = FN(normalised)(FN(stored_operand)(b, NEW_C, rank, u, n), b->norm->of_c[k]);
        const V tanh_c = FN(tanh)(gain * c + shift);
        V dh_prev;
        const V dh = FN(zoneout_gradient)(b, 0, rank, u, FN(dh)(b, k, rank, u, n), &dh_prev);
        const V d = dh * o * (1 - tanh_c * tanh_c);
        FN(store_dgate)(b, rank, 2, u, FN(gate_gradient)(b, dh * tanh_c, o), n);
        FN(store_dgate)(b, rank, 0, u, d * gain, n);
        FN(store_dblock)(b, rank, b->norm->blocks.of_c, u, d, n);
        FN(store_operand)(b, NEW_C, rank, u, c, n);
        FN(store)(FN(dstate)(b, 0, rank, u), dh_prev);
        FN(store_dropped)(b, rank, u, n);
        FN(add_gradient)(b->norm, OF_C, k, u, d * gain, c, n);
    }
}

INLINE void FN(lstm_norm_from_c_n)(const FN(block) *b, idx u, const idx n)
{
    FN(expect_rows)(b, 4, u);
    for (EACH_ROW(b)) {
        const V i = FN(saved_gate)(b, rank, 0, u, n), f = FN(saved_gate)(b, rank, 1, u, n);
        const V g = FN(saved_gate)(b, rank, 3, u, n), c_prev = FN(state_before)(b, 1, rank, u, n);
        REAL *const dstate = FN(dstate)(b, 1, rank, u);
        V dc_prev;
        const V dc = FN(zoneout_gradient)(b, 1, rank, u, FN(load)(dstate), &dc_prev)
            + FN(through_norm)(b->norm, OF_C, k, FN(stored_dgate)(b, rank, 0, u, n),
                               FN(stored_operand)(b, NEW_C, rank, u, n), b->norm->of_c[k].scale);
        const V scale = FN(candidate_scale)(b, rank, u), dg = FN(scaled)(dc * i, scale);
        const V d[] = {FN(gate_gradient)(b, dc * FN(scaled)(g, scale), i),
                       FN(gate_gradient)(b, dc * c_prev, f), FN(stored_dgate)(b, rank, 2, u, n),
                       FN(candidate_gradient)(b, dg, g)};
        FN(store)(dstate, dc_prev + dc * f);
#pragma GCC unroll 4
        for (idx gate = 0; gate < 4; gate++) {
            FN(store_dgate)(b, rank, gate, u, d[gate], n);
            FN(add_gate_gradient)(b, OF_X, k, rank, gate, u, d[gate], n);
            FN(add_gate_gradient)(b, OF_H, k, rank, gate, u, d[gate], n);
        }
    }
}

INLINE void FN(lstm_norm_products_n)(const FN(block) *b, idx u, const idx n)
{
    FN(store_product_gradients)(b, 4, u, n);
}

static void FN(lstm_norm_differentiate)(const void *block, idx u, idx count)
{
    FN(block) b = *(const FN(block) *)block;
    FN(measure_kept)(&b, 4);
    EACH_UNIT(lstm_norm_new_c)
    FN(measure_c)(&b, b.operands[NEW_C], b.operand_stride);
    EACH_UNIT(lstm_norm_from_h)
    FN(average)(&b, OF_C, 1);
    EACH_UNIT(lstm_norm_from_c)
    FN(average)(&b, OF_X, 4);
    FN(average)(&b, OF_H, 4);
    EACH_UNIT(lstm_norm_products)
}

static const cell_spec FN(lstm_norm) = {
    .name = "lstm_norm",
    .gates = 4,
    .states = 2,
    .scratch = 1,
    .saves_gates = 1,
    .gradient_blocks = 13,
    .phases = 1,
    .forward = {{.gates = 4, .activate = FN(lstm_norm_activate)}},
    .backward = {{.piece = {{.block = 5, .gates = 4}},
                  .differentiate = FN(lstm_norm_differentiate)}},
    .weights = {{.block = 5, .gates = 4}},
    .norm = {.of_c = 4, .of_h = 5, .of_x = 9},
};
