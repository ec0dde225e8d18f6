/* i, f, o = sigmoid(a_i, a_f, a_o), g = tanh(a_g), c = f c_prev + i g, h = o tanh(c)
   with a = x Wx + b + h_prev Wh + bh

   lstm_options: h_prev Wh of what dropout leaves of h_prev, p c_prev or, in a_o, p c added to a, g
   dropped out, and c and h after zoneout, h of the c before it */

/* In two bodies: one chain of gates, c and tanh(c) is too long for the CPU to find the next row's
   work behind it. */
INLINE void FN(lstm_gates_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V i = FN(sigmoid)(FN(gate)(b, k, 0)), f = FN(sigmoid)(FN(gate)(b, k, 1));
        const V o = FN(sigmoid)(FN(gate)(b, k, 2)), g = FN(tanh)(FN(gate)(b, k, 3));
        REAL *const state = FN(state)(b, 1, rank, u);
        const V c = f * FN(load)(state) + i * g;
        FN(store)(state, c);
        FN(keep)(b, k, 2, o, n);
        FN(save_state)(b, 1, rank, u, c, n);
        FN(save_gate)(b, rank, 0, u, i, n);
        FN(save_gate)(b, rank, 1, u, f, n);
        FN(save_gate)(b, rank, 2, u, o, n);
        FN(save_gate)(b, rank, 3, u, g, n);
    }
}

INLINE void FN(lstm_h_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V tanh_c = FN(tanh)(FN(load)(FN(state)(b, 1, rank, u)));
        FN(finish)(b, rank, u, FN(gate)(b, k, 2) * tanh_c, n);
    }
}
EPILOGUE_OF_TWO(lstm_activate, lstm_gates, lstm_h)

INLINE void FN(lstm_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V i = FN(saved_gate)(b, rank, 0, u, n), f = FN(saved_gate)(b, rank, 1, u, n);
        const V o = FN(saved_gate)(b, rank, 2, u, n), g = FN(saved_gate)(b, rank, 3, u, n);
        const V tanh_c = FN(tanh)(FN(saved_state)(b, 1, rank, u, n));
        const V dh = FN(dh)(b, k, rank, u, n);
        REAL *const dstate = FN(dstate)(b, 1, rank, u);
        const V dc = FN(load)(dstate) + dh * o * (1 - tanh_c * tanh_c);
        FN(store_dgate)(b, rank, 0, u, dc * g * (i * (1 - i)), n);
        FN(store_dgate)(b, rank, 1, u, dc * FN(state_before)(b, 1, rank, u, n) * (f * (1 - f)), n);
        FN(store_dgate)(b, rank, 2, u, dh * tanh_c * (o * (1 - o)), n);
        FN(store_dgate)(b, rank, 3, u, dc * i * (1 - g * g), n);
        FN(store)(dstate, dc * f);
        FN(store)(FN(dstate)(b, 0, rank, u), (V){0});
    }
}
EPILOGUE(lstm_differentiate)

static const cell_spec FN(lstm) = {
    .name = "lstm",
    .gates = 4,
    .states = 2,
    .saves_gates = 1,
    .gradient_blocks = 4,
    .phases = 1,
    .forward = {{.gates = 4, .continued = 4, .activate = FN(lstm_activate)}},
    .backward = {{.piece = {{.gates = 4}}, .differentiate = FN(lstm_differentiate)}},
    .weights = {{.gates = 4}},
};

INLINE void FN(lstm_options_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        REAL *const state = FN(state)(b, 1, rank, u);
        const V c_prev = FN(load)(state);
        const V i = FN(gate_of)(b, FN(gate)(b, k, 0) + FN(times_vector)(b, 0, u, c_prev, n));
        const V f = FN(gate_of)(b, FN(gate)(b, k, 1) + FN(times_vector)(b, 1, u, c_prev, n));
        const V g = FN(candidate_of)(b, FN(gate)(b, k, 3));
        const V c = f * c_prev + i * FN(scaled)(g, FN(candidate_scale)(b, rank, u));
        const V o = FN(gate_of)(b, FN(gate)(b, k, 2) + FN(times_vector)(b, 2, u, c, n));
        const V kept_c = FN(zoneout)(b, 1, rank, u, c_prev, c);
        FN(store)(state, kept_c);
        FN(save_state)(b, 1, rank, u, kept_c, n);
        FN(save_gate)(b, rank, 0, u, i, n);
        FN(save_gate)(b, rank, 1, u, f, n);
        FN(save_gate)(b, rank, 2, u, o, n);
        FN(save_gate)(b, rank, 3, u, g, n);
        FN(finish_dropped)(b, rank, u, o * FN(tanh)(c), n);
    }
}
EPILOGUE(lstm_options_activate)

INLINE void FN(lstm_options_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V i = FN(saved_gate)(b, rank, 0, u, n), f = FN(saved_gate)(b, rank, 1, u, n);
        const V o = FN(saved_gate)(b, rank, 2, u, n), g = FN(saved_gate)(b, rank, 3, u, n);
        const V c_prev = FN(state_before)(b, 1, rank, u, n);
        const V scale = FN(candidate_scale)(b, rank, u);
        const V used_g = FN(scaled)(g, scale), c = f * c_prev + i * used_g, tanh_c = FN(tanh)(c);
        REAL *const dstate = FN(dstate)(b, 1, rank, u);
        V dh_prev, dc_prev;
        const V dh = FN(zoneout_gradient)(b, 0, rank, u, FN(dh)(b, k, rank, u, n), &dh_prev);
        const V do_ = FN(gate_gradient)(b, dh * tanh_c, o);
        const V dc = FN(zoneout_gradient)(b, 1, rank, u, FN(load)(dstate), &dc_prev)
            + dh * o * (1 - tanh_c * tanh_c) + FN(times_vector)(b, 2, u, do_, n);
        const V di = FN(gate_gradient)(b, dc * used_g, i);
        const V df = FN(gate_gradient)(b, dc * c_prev, f);
        const V dg = FN(scaled)(dc * i, scale);
        FN(store_dgate)(b, rank, 0, u, di, n);
        FN(store_dgate)(b, rank, 1, u, df, n);
        FN(store_dgate)(b, rank, 2, u, do_, n);
        FN(store_dgate)(b, rank, 3, u, FN(candidate_gradient)(b, dg, g), n);
        FN(store)(dstate, dc_prev + dc * f + FN(times_vector)(b, 0, u, di, n)
                  + FN(times_vector)(b, 1, u, df, n));
        FN(store)(FN(dstate)(b, 0, rank, u), dh_prev);
        FN(store_operand)(b, NEW_C, rank, u, c, n);
        FN(store_dropped)(b, rank, u, n);
    }
}
EPILOGUE(lstm_options_differentiate)

static const cell_spec FN(lstm_options) = {
    .name = "lstm_options",
    .gates = 4,
    .states = 2,
    .saves_gates = 1,
    .gradient_blocks = 4,
    .phases = 1,
    .forward = {{.gates = 4, .continued = 4, .activate = FN(lstm_options_activate)}},
    .backward = {{.piece = {{.gates = 4}}, .differentiate = FN(lstm_options_differentiate)}},
    .weights = {{.gates = 4}},
    .vectors = 3,
    .vector = {{0, C_BEFORE}, {1, C_BEFORE}, {2, BY_NEW_C}},
};
