/* rnn        h = tanh(a) with a = x Wx + b + h_prev Wh + bh
   rnn_relu   h = max(a, 0), NaN where a is
   rnn_options: either, a clipped, relu up to a cap, h_prev dropped out before Wh, h after zoneout */

INLINE void FN(rnn_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b))
        FN(finish)(b, rank, u, FN(tanh)(FN(gate)(b, k, 0)), n);
}

INLINE void FN(rnn_relu_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b))
        FN(finish)(b, rank, u, FN(at_least)(FN(gate)(b, k, 0), 0), n);
}

/* The gradient of a, by way of which all of dh goes back. */
INLINE void FN(rnn_store)(const FN(block) *b, idx rank, idx u, V da, const idx n)
{
    FN(store_dgate)(b, rank, 0, u, da, n);
    FN(store)(FN(dstate)(b, 0, rank, u), (V){0});
}

INLINE void FN(rnn_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), h = FN(saved_state)(b, 0, rank, u, n);
        FN(rnn_store)(b, rank, u, dh * (1 - h * h), n);
    }
}

INLINE void FN(rnn_relu_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), h = FN(saved_state)(b, 0, rank, u, n);
        FN(rnn_store)(b, rank, u, FN(select)((IV)(h <= 0), (V){0}, dh), n);
    }
}

INLINE V FN(rnn_options_h)(const FN(block) *b, V a)
{
    const options *const o = b->options;
    if (!o->relu)
        return FN(candidate_of)(b, a);
    a = FN(at_least)(FN(within)(a, o->clip), 0);
    return o->cap == 0 ? a : FN(at_most)(a, o->cap);
}

INLINE void FN(rnn_options_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V y = FN(rnn_options_h)(b, FN(gate)(b, k, 0));
        FN(save_gate)(b, rank, 0, u, y, n);
        FN(finish_dropped)(b, rank, u, y, n);
    }
}

INLINE void FN(rnn_options_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    const options *const o = b->options;
    for (EACH_ROW(b)) {
        const V y = FN(saved_gate)(b, rank, 0, u, n);
        V dh_prev, da;
        const V d = FN(zoneout_gradient)(b, 0, rank, u, FN(dh)(b, k, rank, u, n), &dh_prev);
        if (o->relu) {
            const IV capped = (IV)(y >= FN(rnn_options_h)(b, FN(splat)(INFINITY)));
            da = FN(within)(FN(select)((IV)(y <= 0) | capped, (V){0}, d), o->clip_gradient);
        } else {
            da = FN(candidate_gradient)(b, d, y);
        }
        FN(store_dgate)(b, rank, 0, u, da, n);
        FN(store)(FN(dstate)(b, 0, rank, u), dh_prev);
        FN(store_dropped)(b, rank, u, n);
    }
}

#define RNN(cell, ...)                                                                            \
    EPILOGUE(cell##_activate)                                                                     \
    EPILOGUE(cell##_differentiate)                                                                \
    static const cell_spec FN(cell) = {                                                           \
        .name = #cell,                                                                            \
        .gates = 1,                                                                               \
        .states = 1,                                                                              \
        .gradient_blocks = 1,                                                                     \
        .phases = 1,                                                                              \
        .forward = {{.gates = 1, .continued = 1, .activate = FN(cell##_activate)}},               \
        .backward = {{.piece = {{.gates = 1}}, .differentiate = FN(cell##_differentiate)}},       \
        .weights = {{.gates = 1}},                                                                \
        __VA_ARGS__                                                                               \
    };

RNN(rnn, .saves_gates = 0)
RNN(rnn_relu, .saves_gates = 0)
RNN(rnn_options, .saves_gates = 1)
