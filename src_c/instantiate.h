/* Compiles every body for float, then for double, and fills the two tables of one ISA. */
#include "kernels.h"
#include <math.h>
#include <stdint.h>
#include <string.h>

#define INLINE static inline __attribute__((always_inline))
#define JOIN_(a, b) a##_##b
#define JOIN(a, b) JOIN_(a, b)
#define STRING_(a) #a
#define STRING(a) STRING_(a)
#define FN(name) JOIN(name, SUFFIX)
#define MIN(a, b) ((a) < (b) ? (a) : (b))
#define MAX(a, b) ((a) > (b) ? (a) : (b))

enum {
    MAX_VECTORS = 4,                /* a tile is that wide at most */
    B_BLOCK_BYTES = 512 * 1024,     /* of packed B that stay in L2 while rows pass */
    PROJECTION_BYTES = 1024 * 1024, /* of pre-activations still in cache for the recurrence */
};

#if MAX_ROWS_2V == 12
#define HEIGHTS_2V(X) X(1) X(2) X(3) X(4) X(5) X(6) X(7) X(8) X(9) X(10) X(11) X(12)
#elif MAX_ROWS_2V == 6
#define HEIGHTS_2V(X) X(1) X(2) X(3) X(4) X(5) X(6)
#endif
#if MAX_ROWS_4V == 6
#define HEIGHTS_4V(X) X(1) X(2) X(3) X(4) X(5) X(6)
#elif MAX_ROWS_4V == 3
#define HEIGHTS_4V(X) X(1) X(2) X(3)
#endif

#define REAL float
#define INT int32_t
#define SUFFIX f32
#define MANTISSA_BITS 23
#define ROUND_MAGIC 0x1.8p23
#define LOG2_E 0x1.715476p0
#define LN2_HIGH 0x1.63p-1
#define LN2_LOW -0x1.bd0106p-13
#define EXP_MIN -87.3
#define EXP_MAX 89.0 /* e^89 overflows; n stays at most 128 */
#define TANH_MAX 20.0
#define EXP_TAYLOR {1.f / 2, 1.f / 6, 1.f / 24, 1.f / 120, 1.f / 720, 1.f / 5040}
#include "bodies.h"

#define REAL double
#define INT int64_t
#define SUFFIX f64
#define MANTISSA_BITS 52
#define ROUND_MAGIC 0x1.8p52
#define LOG2_E 0x1.71547652b82fep0
#define LN2_HIGH 0x1.62e42feep-1
#define LN2_LOW 0x1.a39ef35793c76p-33
#define EXP_MIN -708.0
#define EXP_MAX 710.0
#define TANH_MAX 40.0
#define EXP_TAYLOR                                                                         \
    {1. / 2, 1. / 6, 1. / 24, 1. / 120, 1. / 720, 1. / 5040, 1. / 40320, 1. / 362880,      \
     1. / 3628800, 1. / 39916800, 1. / 479001600, 1. / 6227020800.}
#include "bodies.h"
