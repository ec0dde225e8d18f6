/* Compiles every body for float, then for double, and fills the two tables of one ISA. */
#include "barrier.h"
#include "layer.h"
#include "philox.h"
#include "plan.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)
#define FN(name) JOIN(name, SUFFIX)
/* Of a tile over panels of so many vectors. */
#define MAX_ROWS(vectors) (ACCUMULATORS / ((vectors) == 4 ? TILE_4V : (vectors)))
/* Of constant lanes: clang and GCC each have their own, GCC both from 12 on. */
#if defined(__clang__)
#define SHUFFLE(a, b, ...) __builtin_shufflevector(a, b, __VA_ARGS__)
#else
#define SHUFFLE(a, b, ...) __builtin_shuffle(a, b, (IV){__VA_ARGS__})
#endif

enum {
    TRANSPOSED_ROWS = 32,          /* that transpose_rows reads several times */
    SHARED_SETS = 2048,            /* bytes between rows that share few sets of L1 */
    PACK_PANELS = 8,               /* that packing fills side by side */
    AHEAD = 32,                    /* rows of a panel that a tile prefetches */
    MIN_PREFETCH_ROWS = 4,
    NORM_ROWS = 4,                 /* that the formulas of a cell with layer normalisation get */
    SUM_LANES = 16,                /* chains of a row's sum: lanes of the widest vector */
    SUMS_AT_ONCE = 4,              /* vectors of columns, of each row a cache line or two */
    Z_VECTORS = 4 * ACCUMULATORS,  /* of finished tiles that wait for the formulas */
    STRIPE = ACCUMULATORS * 2 / 3, /* vectors of a row that a product with one vector adds to */
};

/* Accumulators and what a tile reads must fit the registers: 32, or 16. With 16 many rows take a
   panel of four vectors in halves, of TILE_4V: 3 rows would read it too often. */
#if ACCUMULATORS == 24
#define HEIGHTS_2V(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#define HEIGHTS_3V(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8)
#define HEIGHTS_4V(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define HALF_HEIGHTS_4V(X)
#define TILE_4V 4
#elif ACCUMULATORS == 12
#define HEIGHTS_2V(X) X(1) X(2) X(3) X(4) X(5) X(6)
#define HEIGHTS_3V(X) X(1) X(2) X(3) X(4)
#define HEIGHTS_4V(X) X(1) X(2) X(3)
#define HALF_HEIGHTS_4V(X) X(4) X(5) X(6)
#define TILE_4V 2
#endif

#define REAL float
#define REAL_BYTES 4
#define INT uint32_t /* the bits of a REAL: what overflows in them wraps */
#define SQRT sqrtf
#define SUFFIX f32
#ifdef MIN_f32
#define VECTOR_MIN MIN_f32
#define VECTOR_MAX MAX_f32
#endif
#define MANTISSA_BITS 23
#define COMPENSATED 0 /* double needs it to stay within 2 ulp */
#define ROUND_MAGIC 0x1.8p23
#define LOG2_E 0x1.715476p0
#define LN2_HIGH 0x1.63p-1
#define LN2_LOW -0x1.bd0106p-13
#define EXP_MIN -87.3
#define SIGMOID_MIN -104.0 /* below, the result is 0; above SIGMOID_MAX, 1 */
#define SIGMOID_MAX 40.0
#define SIGMOID_SCALE 0x1p-32
#define TANH_MAX 20.0
#define SMALLEST_NORMAL 0x1p-126
#define EXP_POLYNOMIAL {0.5f, 0x1.5554b6p-3f, 0x1.5555bap-5f, 0x1.122372p-7f, 0x1.6c557ap-10f}
#include "bodies.h"

#define REAL double
#define REAL_BYTES 8
#define INT uint64_t
#define SQRT sqrt
#define SUFFIX f64
#ifdef MIN_f64
#define VECTOR_MIN MIN_f64
#define VECTOR_MAX MAX_f64
#endif
#define MANTISSA_BITS 52
#define COMPENSATED 1
#define ROUND_MAGIC 0x1.8p52
#define LOG2_E 0x1.71547652b82fep0
#define LN2_HIGH 0x1.62e42feep-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#define EXP_MIN -708.0
#define SIGMOID_MIN -746.0
#define SIGMOID_MAX 60.0
#define SIGMOID_SCALE 0x1p-64
#define TANH_MAX 40.0
#define SMALLEST_NORMAL 0x1p-1022
#define EXP_POLYNOMIAL                                                                            \
    {0.5,                   0x1.5555555555559p-3,  0x1.5555555555549p-5,  0x1.111111110f7e7p-7,   \
     0x1.6c16c16c1ccf5p-10, 0x1.a01a01af782b3p-13, 0x1.a01a01830305cp-16, 0x1.71ddf94cb558ap-19,  \
     0x1.27e52b2d0cbe6p-22, 0x1.af5d2dd977b85p-26, 0x1.1ef52b7664467p-29}
#include "bodies.h"
