/* What a cell's formulas do otherwise where they know of options: see layer.h. A block's options are
   then there. */

/* ---- masks ----------------------------------------------------------------------------------- */

typedef uint16_t FN(bits) __attribute__((vector_size(VEC_BYTES / REAL_BYTES * 2)));

/* All ones where the bits of a unit are below the limit of this kind of mask. */
static IV FN(below)(const FN(block) *b, int kind, idx rank, idx u)
{
    const options *const o = b->options;
    const uint64_t step = kind == DROPOUT_H ? 0 : o->first_step + (uint64_t)b->step;
    uint64_t words[4];
    FN(bits) found;
    philox(words, o->seed, 1 + u / PHILOX_UNITS, step, b->sorted_indices[rank], kind);
    memcpy(&found, (const char *)words + u % PHILOX_UNITS * 2, sizeof found);
    return (IV)(__builtin_convertvector(found, IV) < ((IV){0} + o->below[kind]));
}

/* What values are multiplied with that may be dropped: 0, or as much above 1 as others are dropped. */
INLINE V FN(scale)(const FN(block) *b, int kind, double p, idx rank, idx u)
{
    if (!b->options->random || !b->options->below[kind])
        return FN(splat)(1);
    return FN(select)(FN(below)(b, kind, rank, u), (V){0}, FN(splat)(1 / (1 - p)));
}

/* Not v * 0: that is NaN for some v. */
INLINE V FN(scaled)(V v, V scale)
{
    return FN(select)((IV)(scale == 0), (V){0}, v * scale);
}

INLINE V FN(candidate_scale)(const FN(block) *b, idx rank, idx u)
{
    return FN(scale)(b, DROPOUT_CANDIDATE, b->options->dropout_candidate, rank, u);
}

/* What of h reaches Wh; backward, what of its gradient comes back. */
INLINE V FN(dropped_h)(const FN(block) *b, idx rank, idx u, V h)
{
    return b->scales_h ? FN(scaled)(h, FN(load)(b->scales_h + rank * b->scales_stride + u)) : h;
}

/* State s after the step, which may stay what it was. */
INLINE V FN(zoneout)(const FN(block) *b, int s, idx rank, idx u, V before, V after)
{
    const options *const o = b->options;
    if (o->zoneout[s] == 0)
        return after;
    if (o->random)
        return FN(select)(FN(below)(b, ZONEOUT_H + s, rank, u), before, after);
    return FN(splat)(o->zoneout[s]) * before + FN(splat)(1 - o->zoneout[s]) * after;
}

/* The gradient of a state: returns that of what formulas made, *before receives what goes past them. */
INLINE V FN(zoneout_gradient)(const FN(block) *b, int s, idx rank, idx u, V d, V *before)
{
    const IV stays = b->options->below[ZONEOUT_H + s] ? FN(below)(b, ZONEOUT_H + s, rank, u) : (IV){0};
    *before = FN(select)(stays, d, (V){0});
    return FN(select)(stays, (V){0}, d);
}

/* h after the step, with zoneout, for the next step and for backward. */
INLINE void FN(finish_dropped)(const FN(block) *b, idx rank, idx u, V h, idx n)
{
    h = FN(zoneout)(b, 0, rank, u, FN(h_prev)(b, rank, u), h);
    FN(finish)(b, rank, u, h, n);
    if (b->dropped_next)
        FN(store)(b->dropped_next + rank * b->state_stride + u, FN(dropped_h)(b, rank, u, h));
}

INLINE V FN(dropped_prev)(const FN(block) *b, idx rank, idx u)
{
    return FN(load)(b->dropped_prev + rank * b->state_stride + u);
}

/* What of h reached Wh, for the gradient of Wh, where it is not h. */
INLINE void FN(store_dropped)(const FN(block) *b, idx rank, idx u, idx n)
{
    if (b->operands[DROPPED_H]) {
        const V h_prev = FN(state_before)(b, 0, rank, u, n);
        FN(store_operand)(b, DROPPED_H, rank, u, FN(dropped_h)(b, rank, u, h_prev), n);
    }
}

/* ---- activations ----------------------------------------------------------------------------- */

INLINE V FN(within)(V a, double limit)
{
    return limit == 0 ? a : FN(at_least)(FN(at_most)(a, limit), -limit);
}

INLINE V FN(gate_of)(const FN(block) *b, V a)
{
    const options *const o = b->options;
    a = FN(within)(a, o->clip);
    if (o->slope == 0)
        return FN(sigmoid)(a);
    return FN(at_least)(FN(at_most)(FN(splat)(o->slope) * a + (REAL).5, 1), 0);
}

INLINE V FN(candidate_of)(const FN(block) *b, V a)
{
    return FN(tanh)(FN(within)(a, b->options->clip));
}

/* d but where y, the value of an activation, is one of those at the clips. What backward reads may be
   another backend's, with other roundings. */
INLINE V FN(unclipped)(V d, V y, V low, V high)
{
    const REAL rounding = 8 * (REAL_BYTES == 4 ? 0x1p-23 : 0x1p-52);
    return FN(select)((IV)(y <= low + rounding) | (IV)(y >= high - rounding), (V){0}, d);
}

/* The gradient of what an activation got, from that of its value y. */

INLINE V FN(gate_gradient)(const FN(block) *b, V d, V y)
{
    const options *const o = b->options;
    const V clip = FN(splat)(o->clip);
    V slope = y * (1 - y);
    if (o->slope != 0)
        slope = FN(select)((IV)(y > 0) & (IV)(y < 1), FN(splat)(o->slope), (V){0});
    d *= slope;
    if (o->clip != 0)
        d = FN(unclipped)(d, y, FN(gate_of)(b, -clip), FN(gate_of)(b, clip));
    return FN(within)(d, o->clip_gradient);
}

INLINE V FN(candidate_gradient)(const FN(block) *b, V d, V y)
{
    const options *const o = b->options;
    const V high = o->clip == 0 ? (V){0} : FN(tanh)(FN(splat)(o->clip));
    d *= 1 - y * y;
    return FN(within)(o->clip == 0 ? d : FN(unclipped)(d, y, -high, high), o->clip_gradient);
}

/* ---- parameters of one number a unit --------------------------------------------------------- */

/* Number i of the spec's vectors times v; 0 where there are none. */
INLINE V FN(times_vector)(const FN(block) *b, idx i, idx u, V v, idx n)
{
    const options *const o = b->options;
    if (!o->vectors)
        return (V){0};
    return FN(load_n)((const REAL *)o->vectors + o->places[i] * b->H + u, n) * v;
}
