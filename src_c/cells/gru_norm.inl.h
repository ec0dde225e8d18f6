/* gru_norm   gru_options with LN(x Wx) gain_x + b in place of x Wx + b and LN(h_prev Wh) gain_h + bh
              in place of h_prev Wh + bh, each LN over all the numbers of a row */

INLINE void FN(gru_norm_activate_n)(const FN(block) *b, idx u, const idx n)
{
    for (EACH_ROW(b)) {
        V x[3], h[3];
#pragma GCC unroll 3
        for (idx g = 0; g < 3; g++) {
            x[g] = FN(gained)(b, OF_X, k, rank, g, u, n) + FN(bias)(b, OF_X, g, u, n);
            h[g] = FN(gained)(b, OF_H, k, rank, g, u, n) + FN(bias)(b, OF_H, g, u, n);
        }
        const V r = FN(gate_of)(b, x[0] + h[0]), z = FN(gate_of)(b, x[1] + h[1]);
        const V candidate = FN(candidate_of)(b, x[2] + r * h[2]);
        FN(save_gate)(b, rank, 0, u, r, n);
        FN(save_gate)(b, rank, 1, u, z, n);
        FN(save_gate)(b, rank, 2, u, candidate, n);
        FN(save_extra)(b, rank, u, h[2], n);
        FN(finish_dropped)(b, rank, u, FN(gru_options_h)(b, rank, u, z, candidate), n);
    }
}

static void FN(gru_norm_activate)(const void *block, idx u, idx count)
{
    FN(block) b = *(const FN(block) *)block;
    FN(measure_products)(&b, 3);
    EACH_UNIT(gru_norm_activate)
}

INLINE void FN(gru_norm_gates_n)(const FN(block) *b, idx u, const idx n)
{
    FN(expect_rows)(b, 3, u);
    for (EACH_ROW(b)) {
        const V r = FN(saved_gate)(b, rank, 0, u, n), u_n = FN(saved_extra)(b, rank, u, n);
        const V h_prev = FN(state_before)(b, 0, rank, u, n);
        const V dn = FN(gru_options_differentiate_h)(b, k, rank, u, h_prev, n);
        const V x[] = {FN(gate_gradient)(b, dn * u_n, r), FN(stored_dgate)(b, rank, 1, u, n), dn};
        const V h[] = {x[0], x[1], dn * r};
        FN(store_dgate)(b, rank, 0, u, x[0], n);
#pragma GCC unroll 3
        for (idx g = 0; g < 3; g++) {
            FN(store_du)(b, rank, g, u, h[g], n);
            FN(add_gate_gradient)(b, OF_X, k, rank, g, u, x[g], n);
            FN(add_gate_gradient)(b, OF_H, k, rank, g, u, h[g], n);
        }
    }
}

INLINE void FN(gru_norm_products_n)(const FN(block) *b, idx u, const idx n)
{
    FN(store_product_gradients)(b, 3, u, n);
}

static void FN(gru_norm_differentiate)(const void *block, idx u, idx count)
{
    FN(block) b = *(const FN(block) *)block;
    FN(measure_kept)(&b, 3);
    EACH_UNIT(gru_norm_gates)
    FN(average)(&b, OF_X, 3);
    FN(average)(&b, OF_H, 3);
    EACH_UNIT(gru_norm_products)
}

static const cell_spec FN(gru_norm) = {
    .name = "gru_norm",
    .gates = 3,
    .states = 1,
    .saves_gates = 1,
    .saves_extra = 1, /* LN(h Wh_n) gain_h + bh_n */
    .gradient_blocks = 12,
    .phases = 1,
    .forward = {{.gates = 3, .activate = FN(gru_norm_activate)}},
    .backward = {{.piece = {{.block = 6, .gates = 3}},
                  .differentiate = FN(gru_norm_differentiate)}},
    .weights = {{.block = 6, .gates = 3}},
    .norm = {.of_u = 3, .of_h = 6, .of_x = 9},
};
