/* rnn        h = tanh(a) with a = x Wx + b + h_prev Wh + bh
   rnn_relu   h = max(a, 0), NaN where a is */

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

#define RNN(cell)                                                                                 \
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
    };

RNN(rnn)
RNN(rnn_relu)
