/* f = sigmoid(x Wx_f + b_f + h_prev Wh_f), n = tanh(x Wx_n + b_n + (f h_prev) Wh_n),
   h = (1 - f) h_prev + f n */

/* f of every unit is needed before n of any: it waits in scratch[1]. */
INLINE void FN(mgu_forget_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V f = FN(sigmoid)(FN(gate_x)(b, k, 0) + FN(gate)(b, k, 0));
        FN(save_gate)(b, rank, 0, u, f, n);
        FN(store)(FN(scratch)(b, 0, rank, u), f * FN(h_prev)(b, rank, u));
        FN(store)(FN(scratch)(b, 1, rank, u), f);
    }
}
EPILOGUE(mgu_forget)

INLINE void FN(mgu_candidate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V candidate = FN(tanh)(FN(gate_x)(b, k, 1) + FN(gate)(b, k, 0));
        const V f = FN(load)(FN(scratch)(b, 1, rank, u));
        FN(save_gate)(b, rank, 1, u, candidate, n);
        FN(finish)(b, rank, u, (1 - f) * FN(h_prev)(b, rank, u) + f * candidate, n);
    }
}
EPILOGUE(mgu_candidate)

/* All but what reaches f, and h_prev, by way of f h_prev. */
INLINE void FN(mgu_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), h_prev = FN(state_before)(b, 0, rank, u, n);
        const V f = FN(saved_gate)(b, rank, 0, u, n), candidate = FN(saved_gate)(b, rank, 1, u, n);
        FN(store_dgate)(b, rank, 0, u, dh * (candidate - h_prev), n);
        FN(store_dgate)(b, rank, 1, u, dh * f * (1 - candidate * candidate), n);
        FN(store_operand)(b, OF_SCRATCH, rank, u, f * h_prev, n);
        FN(store)(FN(dstate)(b, 0, rank, u), dh * (1 - f));
    }
}
EPILOGUE(mgu_differentiate)

INLINE void FN(mgu_forget_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V d = FN(arriving)(b, k), f = FN(saved_gate)(b, rank, 0, u, n);
        const V df = FN(stored_dgate)(b, rank, 0, u, n) + d * FN(state_before)(b, 0, rank, u, n);
        REAL *const dstate = FN(dstate)(b, 0, rank, u);
        FN(store_dgate)(b, rank, 0, u, df * (f * (1 - f)), n);
        FN(store)(dstate, FN(load)(dstate) + d * f);
    }
}
EPILOGUE(mgu_forget_differentiate)

static const cell_spec FN(mgu) = {
    .name = "mgu",
    .gates = 2,
    .states = 1,
    .scratch = 2,
    .saves_gates = 1,
    .gradient_blocks = 2,
    .operand = 1, /* f h_prev */
    .phases = 2,
    .forward = {{.gates = 1, .activate = FN(mgu_forget)},
                {.left = SCRATCH, .gate = 1, .gates = 1, .activate = FN(mgu_candidate)}},
    .backward = {{.piece = {{.gates = 1}}, .differentiate = FN(mgu_differentiate)},
                 {.within_step = 1, .piece = {{.block = 1, .gate = 1, .gates = 1}},
                  .differentiate = FN(mgu_forget_differentiate)}},
    .weights = {{.gates = 1}, {.left = SCRATCH, .block = 1, .gate = 1, .gates = 1}},
};
