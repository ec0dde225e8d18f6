/* Layer normalisation (Ba, Kiros and Hinton 2016): numbers of a row less their mean, by the root of
   their variance and epsilon. Of a cell whose spec asks for it the products x Wx and h Wh, without
   biases, are finished for whole rows before any formula is computed, and formulas get whole rows, a
   few at once: a row's sums are one thread's, and the same for any number of threads. */

typedef struct {
    REAL mean, scale;
} FN(moments);

/* What the formulas of such a cell see beside their block of rows. */
struct FN(norm_state) {
    norm_blocks blocks;               /* of gradients */
    const REAL *gains[2], *biases[2]; /* of x Wx and of h Wh [GH]; biases[OF_H] may be NULL: 0 */
    const REAL *gain_c, *shift_c;     /* [H] */
    REAL *products[2];                /* as forward keeps them [N,T,GH]; or NULL */
    double epsilon;
    FN(moments) of_products[2][NORM_ROWS], of_c[NORM_ROWS], *kept; /* kept: by rank, of x and of h */
    idx next[NORM_ROWS]; /* backward: rows of users' arrays that come next; -1: none */
    /* Backward: of a row the sums, then the means, of the gradients of normalised numbers and of their
       products with these; of x Wx, of h Wh, of c. */
    V sums[3][NORM_ROWS][2][SUM_LANES / (VEC_BYTES / REAL_BYTES)];
    REAL means[3][NORM_ROWS][2];
};

INLINE V FN(first_n)(V v, idx n)
{
    REAL lanes[VEC_BYTES / sizeof(REAL)];
    if (n >= LANES)
        return v;
    FN(store)(lanes, v);
    return FN(load_part)(lanes, n);
}

/* Sums of rows are SUM_LANES chains, whatever the width of a vector, and then one of these. */
enum { FN(SUM_VECTORS) = SUM_LANES / (VEC_BYTES / REAL_BYTES) };

INLINE REAL FN(sum_lanes)(const V *sum)
{
    REAL lanes[SUM_LANES], all = 0;
    memcpy(lanes, sum, sizeof lanes);
    for (int i = 0; i < SUM_LANES; i++)
        all += lanes[i];
    return all;
}

INLINE void FN(add_row)(const REAL *row, const idx *offsets, idx gates, REAL mean, const int squared,
                        V sum[][FN(SUM_VECTORS)], int chains, const idx n)
{
    for (idx g = 0; g < gates; g++) {
        V v = FN(load_n)(row + offsets[g], n);
        if (squared) {
            v = FN(first_n)(v - mean, n);
            v *= v;
        }
        sum[g][chains] += v;
    }
}

/* The sum of a row of `gates` vectors of units, which lie `unit` apart, or of the squares of what they
   are more than the mean. */
INLINE REAL FN(sum_row)(const REAL *row, idx unit, const idx *offsets, const idx gates, idx H,
                        REAL mean, const int squared)
{
    V sum[MAX_GATES][FN(SUM_VECTORS)] = {{{0}}};
    idx u = 0;
    for (; u + SUM_LANES <= H; u += SUM_LANES)
#pragma GCC unroll 8
        for (int i = 0; i < FN(SUM_VECTORS); i++, row += unit)
            FN(add_row)(row, offsets, gates, mean, squared, sum, i, LANES);
    for (int i = 0; u < H; u += LANES, i++, row += unit)
        FN(add_row)(row, offsets, gates, mean, squared, sum, i, H - u);
    for (idx g = 1; g < gates; g++)
        for (int i = 0; i < FN(SUM_VECTORS); i++)
            sum[0][i] += sum[g][i];
    return FN(sum_lanes)(sum[0]);
}

/* In two passes: rows may have a mean that is far larger than what they deviate from it. */
INLINE FN(moments) FN(moments_of)(const REAL *row, idx unit, const idx *offsets, const idx gates, idx H,
                                  double epsilon)
{
    const REAL count = (REAL)(gates * H);
    const REAL mean = FN(sum_row)(row, unit, offsets, gates, H, 0, 0) / count;
    const REAL variance = FN(sum_row)(row, unit, offsets, gates, H, mean, 1) / count;
    return (FN(moments)){mean, 1 / SQRT(variance + (REAL)epsilon)};
}

INLINE V FN(normalised)(V v, FN(moments) m)
{
    return (v - m.mean) * m.scale;
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Before the formulas: of both products of the rows of a block. */
INLINE void FN(measure_products)(const FN(block) *b, const idx gates)
{
    FN(norm) *const norm = b->norm;
    for (EACH_ROW(b)) {
        norm->of_products[OF_X][k] = FN(moments_of)(
            b->x + b->x_rows[k] * b->x_stride, b->x_unit[0], b->x_offsets, gates, b->H, norm->epsilon);
        norm->of_products[OF_H][k] = FN(moments_of)(b->z + k * b->z_stride, b->z_unit, b->z_offsets,
                                                    gates, b->H, norm->epsilon);
    }
}

/* Of a product's gate: normalised, times its gain; the product is kept for backward. */
INLINE V FN(gained)(const FN(block) *b, const int which, idx k, idx rank, idx g, idx u, const idx n)
{
    const FN(norm) *const norm = b->norm;
    const V v = which == OF_X ? FN(gate_x)(b, k, g) : FN(gate)(b, k, g);
    const idx column = b->offsets[g] + u;
    if (norm->products[which])
        FN(store_n)(norm->products[which] + b->rows[rank] * b->gates_stride + column, v, n);
    return FN(load_n)(norm->gains[which] + column, n) * FN(normalised)(v, norm->of_products[which][k]);
}

INLINE V FN(bias)(const FN(block) *b, const int which, idx g, idx u, const idx n)
{
    const REAL *const bias = b->norm->biases[which];
    return bias ? FN(load_n)(bias + b->offsets[g] + u, n) : (V){0};
}

/* Of c, which lies in rows `stride` apart. */
INLINE void FN(measure_c)(const FN(block) *b, const REAL *c, idx stride)
{
    static const idx offset;
    for (EACH_ROW(b))
        b->norm->of_c[k] = FN(moments_of)(c + rank * stride, LANES, &offset, 1, b->H, b->norm->epsilon);
}

/* ---- backward -------------------------------------------------------------------------------- */

INLINE const REAL *FN(kept_product)(const FN(block) *b, const int which, idx rank)
{
    return b->norm->products[which] + b->rows[rank] * b->gates_stride;
}

/* Before the formulas: of both products again, also for the gradients of the gains. */
INLINE void FN(measure_kept)(const FN(block) *b, const idx gates)
{
    FN(norm) *const norm = b->norm;
    memset(norm->sums, 0, sizeof norm->sums);
    for (EACH_ROW(b))
        for (int which = OF_X; which <= OF_H; which++)
            norm->kept[2 * rank + which] = norm->of_products[which][k] = FN(moments_of)(
                FN(kept_product)(b, which, rank), LANES, b->offsets, gates, b->H, norm->epsilon);
}

/* What forward kept of the rows that come next, for the vector of units from u on: whole rows take long
   to come, and the formulas long enough. */
INLINE void FN(expect_rows)(const FN(block) *b, const idx gates, idx u)
{
    const FN(norm) *const norm = b->norm;
    for (idx k = 0; k < b->m && norm->next[k] >= 0; k++) {
        const idx row = norm->next[k];
        for (idx g = 0; g < gates; g++) {
            const idx at = row * b->gates_stride + b->offsets[g] + u;
            __builtin_prefetch(b->saved_gates + at, 0, 2);
            __builtin_prefetch(norm->products[OF_X] + at, 0, 2);
            __builtin_prefetch(norm->products[OF_H] + at, 0, 2);
        }
        if (b->dh)
            __builtin_prefetch(b->dh + row * b->H + u, 0, 2);
    }
}

/* Adds to the sums of a row: d, the gradients of some numbers, and these normalised. */
INLINE void FN(add_gradient)(FN(norm) *norm, const int which, idx k, idx u, V d, V hat, const idx n)
{
    const idx chains = u / LANES % FN(SUM_VECTORS);
    d = FN(first_n)(d, n);
    norm->sums[which][k][0][chains] += d;
    norm->sums[which][k][1][chains] += d * FN(first_n)(hat, n);
}

/* The gradients d of a gate's two normalised products, which its gain has not met yet. */
INLINE void FN(add_gate_gradient)(const FN(block) *b, const int which, idx k, idx rank, idx g, idx u,
                                  V d, const idx n)
{
    FN(norm) *const norm = b->norm;
    const idx column = b->offsets[g] + u;
    const V v = FN(load_n)(FN(kept_product)(b, which, rank) + column, n);
    FN(add_gradient)(norm, which, k, u, d * FN(load_n)(norm->gains[which] + column, n),
                     FN(normalised)(v, norm->of_products[which][k]), n);
}

INLINE void FN(average)(const FN(block) *b, const int which, const idx gates)
{
    FN(norm) *const norm = b->norm;
    for (idx k = 0; k < b->m; k++)
        for (int i = 0; i < 2; i++)
            norm->means[which][k][i] = FN(sum_lanes)(norm->sums[which][k][i]) / (REAL)(gates * b->H);
}

/* The gradient of a number from d, that of the normalised one, and from this. */
INLINE V FN(through_norm)(const FN(norm) *norm, const int which, idx k, V d, V hat, REAL scale)
{
    const REAL *const mean = norm->means[which][k];
    return (d - mean[0] - hat * mean[1]) * scale;
}

/* That of a gate of LN(h Wh) gain_h + bh, where it is not the gate's own. */
INLINE void FN(store_du)(const FN(block) *b, idx rank, idx g, idx u, V v, idx n)
{
    FN(store_n)(b->dgates + rank * b->dgates_stride + b->norm->blocks.of_u * b->H + b->offsets[g] + u,
                v, n);
}

/* That of a product from the block `from` of gradients into the block `to`. */
INLINE void FN(store_product_gradient)(const FN(block) *b, const int which, idx gates, idx from, idx to,
                                       idx u, const idx n)
{
    const FN(norm) *const norm = b->norm;
    for (idx g = 0; g < gates; g++) {
        const idx column = b->offsets[g] + u;
        const V gain = FN(load_n)(norm->gains[which] + column, n);
        for (EACH_ROW(b)) {
            const FN(moments) m = norm->of_products[which][k];
            REAL *const row = b->dgates + rank * b->dgates_stride;
            const V hat = FN(normalised)(FN(load_n)(FN(kept_product)(b, which, rank) + column, n), m);
            const V d = FN(load_n)(row + from * b->H + column, n) * gain;
            FN(store_n)(row + to * b->H + column,
                        FN(through_norm)(norm, which, k, d, hat, m.scale), n);
        }
    }
}

INLINE void FN(store_product_gradients)(const FN(block) *b, idx gates, idx u, const idx n)
{
    const norm_blocks at = b->norm->blocks;
    FN(store_product_gradient)(b, OF_H, gates, at.of_u, at.of_h, u, n);
    FN(store_product_gradient)(b, OF_X, gates, 0, at.of_x, u, n);
}
