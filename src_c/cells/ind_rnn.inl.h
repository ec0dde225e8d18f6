/* ind_rnn        h = max(a, 0) with a = x Wx + b + w h_prev, w of one number a unit; NaN where a is
   ind_rnn_tanh   h = tanh(a) */

INLINE V FN(ind_rnn_sum)(const FN(block) *b, idx k, idx rank, idx u, const idx n)
{
    return FN(gate_x)(b, k, 0) + FN(diagonal)(b, u, n) * FN(h_prev)(b, rank, u);
}

INLINE void FN(ind_rnn_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b))
        FN(finish)(b, rank, u, FN(at_least)(FN(ind_rnn_sum)(b, k, rank, u, n), 0), n);
}

INLINE void FN(ind_rnn_tanh_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b))
        FN(finish)(b, rank, u, FN(tanh)(FN(ind_rnn_sum)(b, k, rank, u, n)), n);
}

INLINE void FN(ind_rnn_store)(const FN(block) *b, idx rank, idx u, V da, const idx n)
{
    FN(store_dgate)(b, rank, 0, u, da, n);
    FN(store)(FN(dstate)(b, 0, rank, u), da * FN(diagonal)(b, u, n));
}

INLINE void FN(ind_rnn_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), h = FN(saved_state)(b, 0, rank, u, n);
        FN(ind_rnn_store)(b, rank, u, FN(select)((IV)(h <= 0), (V){0}, dh), n);
    }
}

INLINE void FN(ind_rnn_tanh_differentiate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), h = FN(saved_state)(b, 0, rank, u, n);
        FN(ind_rnn_store)(b, rank, u, dh * (1 - h * h), n);
    }
}

#define IND_RNN(cell)                                                                             \
    EPILOGUE(cell##_activate)                                                                     \
    EPILOGUE(cell##_differentiate)                                                                \
    static const cell_spec FN(cell) = {                                                           \
        .name = #cell,                                                                            \
        .gates = 1,                                                                               \
        .states = 1,                                                                              \
        .gradient_blocks = 1,                                                                     \
        .phases = 1,                                                                              \
        .forward = {{.activate = FN(cell##_activate)}},                                           \
        .backward = {{.differentiate = FN(cell##_differentiate)}},                                \
        .diagonal = 1,                                                                            \
    };

IND_RNN(ind_rnn)
IND_RNN(ind_rnn_tanh)
