/* Everything that depends on REAL, in order; then the table. */
#include "vec.h"

#include "gemm.inl.h"

#include "cells.inl.h"

#include "rows.inl.h"

const kernel_table FN(JOIN(fastrnn, ISA)) = {
    .isa = STRING(ISA),
    .lanes = LANES,
    .panel = 2 * LANES,
    .feature_block = MAX_ROWS_2V,
#define X(name, args, item) .name = FN(name),
    FASTRNN_KERNELS(X)
#undef X
};

#undef V
#undef IV
#undef LANES
#undef REAL
#undef INT
#undef SUFFIX
#undef MANTISSA_BITS
#undef ROUND_MAGIC
#undef LOG2_E
#undef LN2_HIGH
#undef LN2_LOW
#undef EXP_MIN
#undef EXP_MAX
#undef TANH_MAX
#undef EXP_TAYLOR
