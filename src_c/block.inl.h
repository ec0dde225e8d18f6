/* What a cell's formulas see: a block of rows at one step, and of it the pre-activations, saved
   values and states of one vector of hidden units, from unit u on, of which n exist.

   An epilogue walks over the rows of its block:

       for (EACH_ROW(b))
           FN(finish)(b, rank, u, FN(tanh)(FN(gate)(b, k, 0)), n); */

typedef struct FN(norm_state) FN(norm); /* norm.inl.h */

/* m rows, the ranks rank, rank + stride, ...; their product lies in z. Work space lies by rank, what
   users see by row of their arrays. */
typedef struct {
    idx rank, stride, m, H;
    idx P, units; /* of h, and of the phase */
    const idx *rows, *previous_rows; /* of this step and of the one before by rank; NULL: it has none */
    REAL *z;                         /* the product */
    const REAL *x;                   /* x Wx + b, of row k: + x_rows[k] * x_stride */
    idx z_stride, x_stride;
    idx z_unit, x_unit[2]; /* to the next vector of units; of x after an even and an odd one */
    const idx *x_rows;
    idx z_offsets[MAX_GATES]; /* of the gates of the phase in a row of z */
    idx x_offsets[MAX_GATES]; /* of the gates of the cell in a row of x */
    idx offsets[MAX_GATES];   /* and in a row of saved gates, of their gradients */
    const options *options;
    FN(norm) *norm; /* of a cell with layer normalisation */
    const REAL *scales_h; /* what h is multiplied with before Wh; NULL: nothing is dropped */
    idx scales_stride;
    const idx *sorted_indices;
    idx step;
    /* Forward */
    const REAL *h_prev, *dropped_prev; /* what of h reaches Wh, h itself where nothing is dropped */
    REAL *h_next, *dropped_next, *states[MAX_STATES], *scratch[MAX_SCRATCH];
    idx state_stride;
    /* What forward saves for backward */
    REAL *saved_states[MAX_STATES], *saved_gates, *saved_extra;
    idx gates_stride;
    const REAL *diagonal; /* Wh of one number a unit */
    /* Backward */
    const unsigned char *reset;
    int reset_to_initial;
    const REAL *initial[MAX_STATES], *dh;
    REAL *dstates[MAX_STATES], *dgates, *operands[OPERANDS];
    idx dstate_stride, dgates_stride, operand_stride;
} FN(block);

#define EACH_ROW(b)                                                   \
    idx k = 0, rank = (b)->rank; k < (b)->m; k++, rank += (b)->stride

INLINE idx FN(width)(const FN(block) *b, idx s)
{
    return s ? b->H : b->P;
}

/* An epilogue over `count` vectors of units from the body name_n(b, u, n), which is made twice: for
   whole vectors there is no call in it that GCC would have to save vectors for. The block is copied,
   so that it cannot be what the stores write to. */
#define EPILOGUE(name)                                                \
    static void FN(name)(const void *block, idx u, idx count)         \
    {                                                                 \
        FN(block) b = *(const FN(block) *)block;                      \
        EACH_UNIT(name)                                               \
    }

/* From two bodies, the second for all units after the first. */
#define EPILOGUE_OF_TWO(name, first, second)                          \
    static void FN(name)(const void *block, idx u, idx count)         \
    {                                                                 \
        FN(block) b = *(const FN(block) *)block;                      \
        EACH_UNIT(first)                                              \
        EACH_UNIT(second)                                             \
    }

#define EACH_UNIT(name)                                               \
    for (idx i = 0, at = u; i < count; i++, at += LANES) {            \
        FN(move_to_unit)(&b, block, i);                               \
        if (b.units - at >= LANES)                                    \
            FN(name##_n)(&b, at, LANES);                              \
        else                                                          \
            FN(name##_n)(&b, at, b.units - at);                       \
    }

INLINE void FN(move_to_unit)(FN(block) *b, const FN(block) *first, idx i)
{
    b->z = first->z + i * b->z_unit;
    b->x = first->x + (i >> 1) * (b->x_unit[0] + b->x_unit[1]) + (i & 1) * b->x_unit[0];
}

/* What multiplies h before the step unit by unit. */
INLINE V FN(diagonal)(const FN(block) *b, idx u, idx n)
{
    return FN(load_n)(b->diagonal + u, n);
}

/* ---- forward --------------------------------------------------------------------------------- */

/* Gate i of the phase: what continues x Wx + b has it, the others are h Wh + bh alone. */
INLINE V FN(gate)(const FN(block) *b, idx k, idx i)
{
    return FN(load)(b->z + k * b->z_stride + b->z_offsets[i]);
}

/* In place of gate i of the phase, for a second body. */
INLINE void FN(keep)(const FN(block) *b, idx k, idx i, V v, idx n)
{
    FN(store_n)(b->z + k * b->z_stride + b->z_offsets[i], v, n);
}

/* x Wx + b of gate g of the cell. */
INLINE V FN(gate_x)(const FN(block) *b, idx k, idx g)
{
    return FN(load)(b->x + b->x_rows[k] * b->x_stride + b->x_offsets[g]);
}

INLINE V FN(h_prev)(const FN(block) *b, idx rank, idx u)
{
    return FN(load)(b->h_prev + rank * b->state_stride + u);
}

/* State s >= 1: before the step, and, once it has been written, after it. */
INLINE REAL *FN(state)(const FN(block) *b, idx s, idx rank, idx u)
{
    return b->states[s] + rank * b->state_stride + u;
}

INLINE REAL *FN(scratch)(const FN(block) *b, idx i, idx rank, idx u)
{
    return b->scratch[i] + rank * b->state_stride + u;
}

INLINE void FN(save_gate)(const FN(block) *b, idx rank, idx g, idx u, V v, idx n)
{
    if (b->saved_gates)
        FN(store_n)(b->saved_gates + b->rows[rank] * b->gates_stride + b->offsets[g] + u, v, n);
}

INLINE void FN(save_extra)(const FN(block) *b, idx rank, idx u, V v, idx n)
{
    if (b->saved_extra)
        FN(store_n)(b->saved_extra + b->rows[rank] * b->H + u, v, n);
}

/* State s after the step. */
INLINE void FN(save_state)(const FN(block) *b, idx s, idx rank, idx u, V v, idx n)
{
    if (b->saved_states[s])
        FN(store_n)(b->saved_states[s] + b->rows[rank] * FN(width)(b, s) + u, v, n);
}

/* h after the step, for the next step and for backward. */
INLINE void FN(finish)(const FN(block) *b, idx rank, idx u, V h, idx n)
{
    FN(store)(b->h_next + rank * b->state_stride + u, h);
    FN(save_state)(b, 0, rank, u, h, n);
}

/* ---- backward -------------------------------------------------------------------------------- */

INLINE V FN(saved_gate)(const FN(block) *b, idx rank, idx g, idx u, idx n)
{
    return FN(load_n)(b->saved_gates + b->rows[rank] * b->gates_stride + b->offsets[g] + u, n);
}

INLINE V FN(saved_extra)(const FN(block) *b, idx rank, idx u, idx n)
{
    return FN(load_n)(b->saved_extra + b->rows[rank] * b->H + u, n);
}

INLINE V FN(saved_state)(const FN(block) *b, idx s, idx rank, idx u, idx n)
{
    return FN(load_n)(b->saved_states[s] + b->rows[rank] * FN(width)(b, s) + u, n);
}

/* State s from which the step started. */
INLINE V FN(state_before)(const FN(block) *b, idx s, idx rank, idx u, idx n)
{
    const int reset = b->reset && b->reset[b->rows[rank]];
    if (b->previous_rows && !reset)
        return FN(load_n)(b->saved_states[s] + b->previous_rows[rank] * FN(width)(b, s) + u, n);
    if (!b->initial[s] || (reset && !b->reset_to_initial))
        return (V){0};
    return FN(load_n)(b->initial[s] + b->sorted_indices[rank] * FN(width)(b, s) + u, n);
}

/* What a product has left: the gradient of h from later steps, or, in a phase within the step, of
   the scratch it multiplied. */
INLINE V FN(arriving)(const FN(block) *b, idx k)
{
    return FN(load)(b->z + k * b->z_stride);
}

/* The whole gradient of h: from later steps, and from outside. */
INLINE V FN(dh)(const FN(block) *b, idx k, idx rank, idx u, idx n)
{
    const V later = FN(arriving)(b, k);
    return b->dh ? later + FN(load_n)(b->dh + b->rows[rank] * b->P + u, n) : later;
}

/* The gradient of state s but for what a product makes of the gates': of s >= 1 first that of the
   state after the step, which an epilogue replaces by that of the state before; of h the latter. */
INLINE REAL *FN(dstate)(const FN(block) *b, idx s, idx rank, idx u)
{
    return b->dstates[s] + rank * b->dstate_stride + u;
}

INLINE void FN(store_dgate)(const FN(block) *b, idx rank, idx g, idx u, V v, idx n)
{
    FN(store_n)(b->dgates + rank * b->dgates_stride + b->offsets[g] + u, v, n);
}

/* What an earlier phase has stored there. */
INLINE V FN(stored_dgate)(const FN(block) *b, idx rank, idx g, idx u, idx n)
{
    return FN(load_n)(b->dgates + rank * b->dgates_stride + b->offsets[g] + u, n);
}

/* Block i >= gates of the gates' gradients. */
INLINE void FN(store_dblock)(const FN(block) *b, idx rank, idx i, idx u, V v, idx n)
{
    FN(store_n)(b->dgates + rank * b->dgates_stride + i * b->H + u, v, n);
}

INLINE void FN(store_operand)(const FN(block) *b, int i, idx rank, idx u, V v, idx n)
{
    if (b->operands[i])
        FN(store_n)(b->operands[i] + rank * b->operand_stride + u, v, n);
}

INLINE V FN(stored_operand)(const FN(block) *b, int i, idx rank, idx u, idx n)
{
    return FN(load_n)(b->operands[i] + rank * b->operand_stride + u, n);
}
