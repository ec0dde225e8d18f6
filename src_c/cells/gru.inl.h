/* gru            r, z = sigmoid(x Wx + b + h_prev Wh + bh), u_n = h_prev Wh_n + bh_n,
                  n = tanh(x Wx_n + b_n + r u_n), h = (1 - z) n + z h_prev
   gru_original   the same but for u_n = (r h_prev) Wh_n + bh_n, n = tanh(x Wx_n + b_n + u_n)
   With options, either: what dropout leaves of h_prev before Wh, n dropped out, h after zoneout. */

INLINE V FN(gru_h)(const FN(block) *b, idx rank, idx u, V z, V n)
{
    return (1 - z) * n + z * FN(h_prev)(b, rank, u);
}

INLINE void FN(gru_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V r = FN(sigmoid)(FN(gate)(b, k, 0)), z = FN(sigmoid)(FN(gate)(b, k, 1));
        const V u_n = FN(gate)(b, k, 2), x_n = FN(gate_x)(b, k, 2);
        FN(save_gate)(b, rank, 0, u, r, n);
        FN(save_gate)(b, rank, 1, u, z, n);
        FN(save_extra)(b, rank, u, u_n, n);
        const V candidate = FN(tanh)(x_n + r * u_n);
        FN(save_gate)(b, rank, 2, u, candidate, n);
        FN(finish)(b, rank, u, FN(gru_h)(b, rank, u, z, candidate), n);
    }
}
EPILOGUE(gru_activate)

/* dh to the gradients of z, of n and of h_prev by way of z h_prev; both forms. */
INLINE V FN(gru_differentiate_h)(const FN(block) *b, idx rank, idx u, V dh, V h_prev,
                                 const idx n)
{
    const V z = FN(saved_gate)(b, rank, 1, u, n), candidate = FN(saved_gate)(b, rank, 2, u, n);
    const V dn = dh * (1 - z) * (1 - candidate * candidate);
    FN(store_dgate)(b, rank, 1, u, dh * (h_prev - candidate) * (z * (1 - z)), n);
    FN(store_dgate)(b, rank, 2, u, dn, n);
    FN(store)(FN(dstate)(b, 0, rank, u), dh * z);
    return dn;
}

INLINE void FN(gru_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), r = FN(saved_gate)(b, rank, 0, u, n);
        const V h_prev = FN(state_before)(b, 0, rank, u, n);
        const V dn = FN(gru_differentiate_h)(b, rank, u, dh, h_prev, n);
        const V u_n = FN(saved_extra)(b, rank, u, n);
        FN(store_dgate)(b, rank, 0, u, dn * u_n * (r * (1 - r)), n);
        FN(store_dblock)(b, rank, 3, u, dn * r, n);
    }
}
EPILOGUE(gru_differentiate)

static const cell_spec FN(gru) = {
    .name = "gru",
    .gates = 3,
    .states = 1,
    .saves_gates = 1,
    .saves_extra = 1,     /* u_n */
    .gradient_blocks = 4, /* the last: of u_n */
    .phases = 1,
    .forward = {{.gates = 3, .continued = 2, .activate = FN(gru_activate)}},
    .backward = {{.piece = {{.gates = 2}, {.block = 3, .gate = 2, .gates = 1}},
                  .differentiate = FN(gru_differentiate)}},
    .weights = {{.gates = 2}, {.block = 3, .gate = 2, .gates = 1}},
};

/* r of every unit is needed before n of any: z waits in scratch[1]. */
INLINE void FN(gru_reset_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V r = FN(sigmoid)(FN(gate)(b, k, 0)), z = FN(sigmoid)(FN(gate)(b, k, 1));
        FN(save_gate)(b, rank, 0, u, r, n);
        FN(save_gate)(b, rank, 1, u, z, n);
        FN(store)(FN(scratch)(b, 0, rank, u), r * FN(h_prev)(b, rank, u));
        FN(store)(FN(scratch)(b, 1, rank, u), z);
    }
}
EPILOGUE(gru_reset)

INLINE void FN(gru_candidate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V candidate = FN(tanh)(FN(gate_x)(b, k, 2) + FN(gate)(b, k, 0));
        const V z = FN(load)(FN(scratch)(b, 1, rank, u));
        FN(save_gate)(b, rank, 2, u, candidate, n);
        FN(finish)(b, rank, u, FN(gru_h)(b, rank, u, z, candidate), n);
    }
}
EPILOGUE(gru_candidate)

INLINE void FN(gru_original_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), r = FN(saved_gate)(b, rank, 0, u, n);
        const V h_prev = FN(state_before)(b, 0, rank, u, n);
        FN(gru_differentiate_h)(b, rank, u, dh, h_prev, n);
        FN(store_operand)(b, OF_SCRATCH, rank, u, r * h_prev, n);
    }
}
EPILOGUE(gru_original_differentiate)

/* The gradient of r h_prev to those of r and h_prev. */
INLINE void FN(gru_reset_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V d = FN(arriving)(b, k), r = FN(saved_gate)(b, rank, 0, u, n);
        const V h_prev = FN(state_before)(b, 0, rank, u, n);
        REAL *const dstate = FN(dstate)(b, 0, rank, u);
        FN(store_dgate)(b, rank, 0, u, d * h_prev * (r * (1 - r)), n);
        FN(store)(dstate, FN(load)(dstate) + d * r);
    }
}
EPILOGUE(gru_reset_differentiate)

static const cell_spec FN(gru_original) = {
    .name = "gru_original",
    .gates = 3,
    .states = 1,
    .scratch = 2,
    .saves_gates = 1,
    .gradient_blocks = 3,
    .operand = 1, /* r h_prev */
    .phases = 2,
    .forward = {{.gates = 2, .continued = 2, .activate = FN(gru_reset)},
                {.left = SCRATCH, .gate = 2, .gates = 1, .activate = FN(gru_candidate)}},
    .backward = {{.piece = {{.gates = 2}}, .differentiate = FN(gru_original_differentiate)},
                 {.within_step = 1, .piece = {{.block = 2, .gate = 2, .gates = 1}},
                  .differentiate = FN(gru_reset_differentiate)}},
    .weights = {{.gates = 2}, {.left = SCRATCH, .block = 2, .gate = 2, .gates = 1}},
};

/* ---- with options ---------------------------------------------------------------------------- */

INLINE V FN(gru_options_h)(const FN(block) *b, idx rank, idx u, V z, V candidate)
{
    return FN(gru_h)(b, rank, u, z, FN(scaled)(candidate, FN(candidate_scale)(b, rank, u)));
}

INLINE void FN(gru_options_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V r = FN(gate_of)(b, FN(gate)(b, k, 0)), z = FN(gate_of)(b, FN(gate)(b, k, 1));
        const V u_n = FN(gate)(b, k, 2);
        const V candidate = FN(candidate_of)(b, FN(gate_x)(b, k, 2) + r * u_n);
        FN(save_gate)(b, rank, 0, u, r, n);
        FN(save_gate)(b, rank, 1, u, z, n);
        FN(save_gate)(b, rank, 2, u, candidate, n);
        FN(save_extra)(b, rank, u, u_n, n);
        FN(finish_dropped)(b, rank, u, FN(gru_options_h)(b, rank, u, z, candidate), n);
    }
}
EPILOGUE(gru_options_activate)

/* As gru_differentiate_h. */
INLINE V FN(gru_options_differentiate_h)(const FN(block) *b, idx k, idx rank, idx u, V h_prev,
                                         const idx n)
{
    const V z = FN(saved_gate)(b, rank, 1, u, n), candidate = FN(saved_gate)(b, rank, 2, u, n);
    const V scale = FN(candidate_scale)(b, rank, u);
    V dh_prev;
    const V dh = FN(zoneout_gradient)(b, 0, rank, u, FN(dh)(b, k, rank, u, n), &dh_prev);
    const V dz = dh * (h_prev - FN(scaled)(candidate, scale));
    const V d = FN(scaled)(dh * (1 - z), scale);
    const V dn = FN(candidate_gradient)(b, d, candidate);
    FN(store_dgate)(b, rank, 1, u, FN(gate_gradient)(b, dz, z), n);
    FN(store_dgate)(b, rank, 2, u, dn, n);
    FN(store)(FN(dstate)(b, 0, rank, u), dh_prev + dh * z);
    FN(store_dropped)(b, rank, u, n);
    return dn;
}

INLINE void FN(gru_options_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V r = FN(saved_gate)(b, rank, 0, u, n), u_n = FN(saved_extra)(b, rank, u, n);
        const V h_prev = FN(state_before)(b, 0, rank, u, n);
        const V dn = FN(gru_options_differentiate_h)(b, k, rank, u, h_prev, n);
        FN(store_dgate)(b, rank, 0, u, FN(gate_gradient)(b, dn * u_n, r), n);
        FN(store_dblock)(b, rank, 3, u, dn * r, n);
    }
}
EPILOGUE(gru_options_differentiate)

static const cell_spec FN(gru_options) = {
    .name = "gru_options",
    .gates = 3,
    .states = 1,
    .saves_gates = 1,
    .saves_extra = 1,
    .gradient_blocks = 4,
    .phases = 1,
    .forward = {{.gates = 3, .continued = 2, .activate = FN(gru_options_activate)}},
    .backward = {{.piece = {{.gates = 2}, {.block = 3, .gate = 2, .gates = 1}},
                  .differentiate = FN(gru_options_differentiate)}},
    .weights = {{.gates = 2}, {.block = 3, .gate = 2, .gates = 1}},
};

INLINE void FN(gru_options_reset_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V r = FN(gate_of)(b, FN(gate)(b, k, 0)), z = FN(gate_of)(b, FN(gate)(b, k, 1));
        FN(save_gate)(b, rank, 0, u, r, n);
        FN(save_gate)(b, rank, 1, u, z, n);
        FN(store)(FN(scratch)(b, 0, rank, u), r * FN(dropped_prev)(b, rank, u));
        FN(store)(FN(scratch)(b, 1, rank, u), z);
    }
}
EPILOGUE(gru_options_reset)

INLINE void FN(gru_options_candidate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V candidate = FN(candidate_of)(b, FN(gate_x)(b, k, 2) + FN(gate)(b, k, 0));
        const V z = FN(load)(FN(scratch)(b, 1, rank, u));
        FN(save_gate)(b, rank, 2, u, candidate, n);
        FN(finish_dropped)(b, rank, u, FN(gru_options_h)(b, rank, u, z, candidate), n);
    }
}
EPILOGUE(gru_options_candidate)

INLINE void FN(gru_original_options_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V r = FN(saved_gate)(b, rank, 0, u, n);
        const V h_prev = FN(state_before)(b, 0, rank, u, n);
        FN(gru_options_differentiate_h)(b, k, rank, u, h_prev, n);
        FN(store_operand)(b, OF_SCRATCH, rank, u, r * FN(dropped_h)(b, rank, u, h_prev), n);
    }
}
EPILOGUE(gru_original_options_differentiate)

INLINE void FN(gru_options_reset_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V d = FN(arriving)(b, k), r = FN(saved_gate)(b, rank, 0, u, n);
        const V h_prev = FN(dropped_h)(b, rank, u, FN(state_before)(b, 0, rank, u, n));
        REAL *const dstate = FN(dstate)(b, 0, rank, u);
        FN(store_dgate)(b, rank, 0, u, FN(gate_gradient)(b, d * h_prev, r), n);
        FN(store)(dstate, FN(load)(dstate) + FN(dropped_h)(b, rank, u, d * r));
    }
}
EPILOGUE(gru_options_reset_differentiate)

static const cell_spec FN(gru_original_options) = {
    .name = "gru_original_options",
    .gates = 3,
    .states = 1,
    .scratch = 2,
    .saves_gates = 1,
    .gradient_blocks = 3,
    .operand = 1,
    .phases = 2,
    .forward = {{.gates = 2, .continued = 2, .activate = FN(gru_options_reset)},
                {.left = SCRATCH, .gate = 2, .gates = 1, .activate = FN(gru_options_candidate)}},
    .backward = {{.piece = {{.gates = 2}}, .differentiate = FN(gru_original_options_differentiate)},
                 {.within_step = 1, .piece = {{.block = 2, .gate = 2, .gates = 1}},
                  .differentiate = FN(gru_options_reset_differentiate)}},
    .weights = {{.gates = 2}, {.left = SCRATCH, .block = 2, .gate = 2, .gates = 1}},
};
