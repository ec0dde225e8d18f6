/* min_gru    z = sigmoid(a_z), n = g(a_n), h = (1 - z) h_prev + z n with a = x Wx + b
   min_lstm   f, i = sigmoid(a_f, a_i), n = g(a_n), h = (f h_prev + i n) / (f + i)
   with g(a) = a; or, *_positive, a + 1/2 where a >= 0, else sigmoid(a) */

INLINE V FN(candidate)(V a, const int positive)
{
    return positive ? FN(select)((IV)(a >= 0), a + (REAL)0.5, FN(sigmoid)(a)) : a;
}

/* The derivative, by the candidate itself. */
INLINE V FN(candidate_slope)(V n, const int positive)
{
    const V one = FN(splat)(1);
    return positive ? FN(select)((IV)(n >= (REAL)0.5), one, n * (1 - n)) : one;
}

INLINE void FN(min_gru_step)(const FN(block) *b, idx u, const idx n, const int positive)
{
    for (EACH_ROW(b)) {
        const V z = FN(sigmoid)(FN(gate_x)(b, k, 0));
        const V candidate = FN(candidate)(FN(gate_x)(b, k, 1), positive);
        FN(save_gate)(b, rank, 0, u, z, n);
        FN(save_gate)(b, rank, 1, u, candidate, n);
        FN(finish)(b, rank, u, (1 - z) * FN(h_prev)(b, rank, u) + z * candidate, n);
    }
}

INLINE void FN(min_gru_step_back)(const FN(block) *b, idx u, const idx n, const int positive)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), h_prev = FN(state_before)(b, 0, rank, u, n);
        const V z = FN(saved_gate)(b, rank, 0, u, n), candidate = FN(saved_gate)(b, rank, 1, u, n);
        FN(store_dgate)(b, rank, 0, u, dh * (candidate - h_prev) * (z * (1 - z)), n);
        FN(store_dgate)(b, rank, 1, u, dh * z * FN(candidate_slope)(candidate, positive), n);
        FN(store)(FN(dstate)(b, 0, rank, u), dh * (1 - z));
    }
}

/* f / (f + i); one half where both are 0. */
INLINE V FN(part_of_sum)(V f, V i)
{
    const REAL least = (REAL)SMALLEST_NORMAL;
    return (f + least) / (f + i + 2 * least);
}

INLINE void FN(min_lstm_step)(const FN(block) *b, idx u, const idx n, const int positive)
{
    for (EACH_ROW(b)) {
        const V f = FN(sigmoid)(FN(gate_x)(b, k, 0)), i = FN(sigmoid)(FN(gate_x)(b, k, 1));
        const V candidate = FN(candidate)(FN(gate_x)(b, k, 2), positive);
        const V old = FN(part_of_sum)(f, i) * FN(h_prev)(b, rank, u);
        FN(save_gate)(b, rank, 0, u, f, n);
        FN(save_gate)(b, rank, 1, u, i, n);
        FN(save_gate)(b, rank, 2, u, candidate, n);
        FN(finish)(b, rank, u, old + FN(part_of_sum)(i, f) * candidate, n);
    }
}

INLINE void FN(min_lstm_step_back)(const FN(block) *b, idx u, const idx n, const int positive)
{
    for (EACH_ROW(b)) {
        const V dh = FN(dh)(b, k, rank, u, n), h_prev = FN(state_before)(b, 0, rank, u, n);
        const V f = FN(saved_gate)(b, rank, 0, u, n), i = FN(saved_gate)(b, rank, 1, u, n);
        const V candidate = FN(saved_gate)(b, rank, 2, u, n);
        const V old = FN(part_of_sum)(f, i), new = FN(part_of_sum)(i, f);
        const V d = dh * (h_prev - candidate) * (old * new);
        FN(store_dgate)(b, rank, 0, u, d * (1 - f), n);
        FN(store_dgate)(b, rank, 1, u, -d * (1 - i), n);
        FN(store_dgate)(b, rank, 2, u, dh * new * FN(candidate_slope)(candidate, positive), n);
        FN(store)(FN(dstate)(b, 0, rank, u), dh * old);
    }
}

#define MINIMAL(cell, base, count, positive)                                                      \
    INLINE void FN(cell##_activate_n)(const FN(block) *b, idx u, const idx n)                     \
    {                                                                                             \
        FN(base##_step)(b, u, n, positive);                                                       \
    }                                                                                             \
    EPILOGUE(cell##_activate)                                                                     \
    INLINE void FN(cell##_differentiate_n)(const FN(block) *b, idx u, const idx n)                \
    {                                                                                             \
        FN(base##_step_back)(b, u, n, positive);                                                  \
    }                                                                                             \
    EPILOGUE(cell##_differentiate)                                                                \
    static const cell_spec FN(cell) = {                                                           \
        .name = #cell,                                                                            \
        .gates = count,                                                                           \
        .states = 1,                                                                              \
        .saves_gates = 1,                                                                         \
        .gradient_blocks = count,                                                                 \
        .phases = 1,                                                                              \
        .forward = {{.activate = FN(cell##_activate)}},                                           \
        .backward = {{.differentiate = FN(cell##_differentiate)}},                                \
    };

MINIMAL(min_gru, min_gru, 2, 0)
MINIMAL(min_gru_positive, min_gru, 2, 1)
MINIMAL(min_lstm, min_lstm, 3, 0)
MINIMAL(min_lstm_positive, min_lstm, 3, 1)
