/* Everything that depends on REAL, in order; then the table. */
#include "vec.h"

#include "gemm.inl.h"

#include "block.inl.h"
#include "options.inl.h"
#include "norm.inl.h"
#include "cells/all.h"

#include "recurrence.inl.h"

#include "rows.inl.h"

#include "attention.inl.h"

const kernel_table FN(JOIN(fastrnn, ISA)) = {
    .isa = STRING(ISA),
    .real_size = sizeof(REAL),
    .lanes = LANES,
    .feature_block = MAX_ROWS(2),
#define X(name) .cells[CELL_##name] = &FN(name),
    FASTRNN_CELLS(X)
#undef X
#define X(name, args, split) .name = FN(name),
    FASTRNN_KERNELS(X)
#undef X
};

#undef V
#undef IV
#undef LANES
#undef REAL
#undef REAL_BYTES
#undef LOW_LANES
#undef HIGH_LANES
#undef INT
#undef SQRT
#undef VECTOR_MIN
#undef VECTOR_MAX
#undef SUFFIX
#undef MANTISSA_BITS
#undef COMPENSATED
#undef ROUND_MAGIC
#undef LOG2_E
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_MIN
#undef SIGMOID_MIN
#undef SIGMOID_MAX
#undef SIGMOID_SCALE
#undef TANH_MAX
#undef SMALLEST_NORMAL
#undef EXP_POLYNOMIAL
