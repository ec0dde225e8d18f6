/* h = tanh(a) with a = x Wx + b + h_prev Wh + bh */

INLINE void FN(rnn_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b))
        FN(finish)(b, rank, u, FN(tanh)(FN(gate)(b, k, 0)), n);
}
EPILOGUE(rnn_activate)

INLINE void FN(rnn_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), h = FN(saved_state)(b, 0, rank, u, n);
        FN(store_dgate)(b, rank, 0, u, dh * (1 - h * h), n);
        FN(store)(FN(dstate)(b, 0, rank, u), (V){0});
    }
}
EPILOGUE(rnn_differentiate)

static const cell_spec FN(rnn) = {
    .name = "rnn",
    .gates = 1,
    .states = 1,
    .gradient_blocks = 1,
    .phases = 1,
    .forward = {{.gates = 1, .continued = 1, .activate = FN(rnn_activate)}},
    .backward = {{.piece = {{.gates = 1}}, .differentiate = FN(rnn_differentiate)}},
    .weights = {{.gates = 1}},
};
