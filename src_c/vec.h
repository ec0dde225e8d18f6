/* One SIMD vector of REAL as a compiler vector type: + - * / and comparisons work on it and the
   compiler chooses the registers of the ISA it compiles for. Included once a dtype. */
#include <stdint.h>
#include <string.h>

#define LANES ((idx)(VEC_BYTES / sizeof(REAL)))

typedef REAL FN(vec) __attribute__((vector_size(VEC_BYTES)));
typedef REAL FN(vec_unaligned)
    __attribute__((vector_size(VEC_BYTES), aligned(sizeof(REAL)), may_alias));
typedef INT FN(ivec) __attribute__((vector_size(VEC_BYTES)));
#define V FN(vec)
#define IV FN(ivec)

INLINE V FN(load)(const REAL *p)
{
    return *(const FN(vec_unaligned) *)p;
}

INLINE void FN(store)(REAL *p, V v)
{
    *(FN(vec_unaligned) *)p = v;
}

/* The first n of LANES elements; the others read as 0 and are not written. */
static __attribute__((noinline)) V FN(load_part)(const REAL *p, idx n)
{
    REAL lanes[VEC_BYTES / sizeof(REAL)] = {0};
    for (idx i = 0; i < n; i++)
        lanes[i] = p[i];
    return FN(load)(lanes);
}

static __attribute__((noinline)) void FN(store_part)(REAL *p, V v, idx n)
{
    REAL lanes[VEC_BYTES / sizeof(REAL)];
    FN(store)(lanes, v);
    for (idx i = 0; i < n; i++)
        p[i] = lanes[i];
}

INLINE V FN(load_n)(const REAL *p, idx n)
{
    return n >= LANES ? FN(load)(p) : FN(load_part)(p, n);
}

INLINE void FN(store_n)(REAL *p, V v, idx n)
{
    if (n >= LANES)
        FN(store)(p, v);
    else
        FN(store_part)(p, v, n);
}

/* Not 0 + x: that turns -0 into +0. */
INLINE V FN(splat)(REAL x)
{
    return x - (V){0};
}

INLINE REAL FN(sum)(V v)
{
    REAL lanes[VEC_BYTES / sizeof(REAL)], s = 0;
    FN(store)(lanes, v);
    for (idx i = 0; i < LANES; i++)
        s += lanes[i];
    return s;
}

INLINE V FN(select)(IV mask, V yes, V no)
{
    return (V)((mask & (IV)yes) | (~mask & (IV)no));
}

/* NaN passes: every comparison with it is false. */
INLINE V FN(at_most)(V x, REAL high)
{
    return FN(select)((IV)(x > high), FN(splat)(high), x);
}

INLINE V FN(at_least)(V x, REAL low)
{
    return FN(select)((IV)(x < low), FN(splat)(low), x);
}

/* e^x = s + s q with s = 2^n, q = e^r - 1, x = n ln 2 + r, |r| <= ln 2 / 2. ln 2 is split so that n
   times its high part is exact; the Taylor polynomial of q ends below an eighth of an ulp. */
typedef struct {
    V s, q;
} FN(exp_parts);

INLINE FN(exp_parts) FN(split_exp)(V x)
{
    static const REAL inverse_factorial[] = EXP_TAYLOR;
    const int degree = sizeof inverse_factorial / sizeof *inverse_factorial;
    const V shifted = x * (REAL)LOG2_E + (REAL)ROUND_MAGIC; /* low bits: the integer n */
    const V n = shifted - (REAL)ROUND_MAGIC;
    const V r = (x - n * (REAL)LN2_HIGH) - n * (REAL)LN2_LOW;
    V p = FN(splat)(inverse_factorial[degree - 1]);
#pragma GCC unroll 16
    for (int i = degree - 2; i >= 0; i--)
        p = p * r + inverse_factorial[i];
    const IV bits = ((IV)shifted << MANTISSA_BITS) + (IV)FN(splat)(1);
    return (FN(exp_parts)){(V)bits, r + r * r * p};
}

/* 1.5 ulp for x <= 0, which is all that softmax needs; 0 where the result would be subnormal. */
INLINE V FN(exp_nonpositive)(V x)
{
    const FN(exp_parts) e = FN(split_exp)(FN(at_least)(x, (REAL)EXP_MIN));
    return FN(select)((IV)(x < (REAL)EXP_MIN), (V){0}, e.s + e.s * e.q);
}

/* 1 / (1 + e^-x), at most 2.5 ulp, 0 where e^-x overflows. e^(-x - ln 2) is computed and doubled,
   so that it overflows to infinity, not through a broken exponent. */
INLINE V FN(sigmoid)(V x)
{
    const V z = FN(at_least)(FN(at_most)(-x, (REAL)(EXP_MAX)), (REAL)EXP_MIN);
    const FN(exp_parts) e = FN(split_exp)(z);
    const V half_s = (V)((IV)e.s - ((INT)1 << MANTISSA_BITS));
    const V half = half_s + half_s * e.q;
    return 1 / (1 + (half + half));
}

/* m / (m + 2) with m = e^2|x| - 1, at most 2.5 ulp (double: 2.6); the sign is put back last, so -0
   stays -0. */
INLINE V FN(tanh)(V x)
{
    const IV sign = (IV)x & (IV)FN(splat)((REAL)-0.0);
    const V a = (V)((IV)x ^ sign);
    const FN(exp_parts) e = FN(split_exp)(FN(at_most)(a + a, (REAL)TANH_MAX));
    const V m = e.s * e.q + (e.s - 1);
    return (V)((IV)(m / (m + 2)) | sign);
}
