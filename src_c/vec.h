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

/* a[0] b[0] a[1] b[1] ...: of the lower and of the upper halves of a and b. */
#if VEC_BYTES / REAL_BYTES == 2
#define LOW_LANES 0, 2
#define HIGH_LANES 1, 3
#elif VEC_BYTES / REAL_BYTES == 4
#define LOW_LANES 0, 4, 1, 5
#define HIGH_LANES 2, 6, 3, 7
#elif VEC_BYTES / REAL_BYTES == 8
#define LOW_LANES 0, 8, 1, 9, 2, 10, 3, 11
#define HIGH_LANES 4, 12, 5, 13, 6, 14, 7, 15
#elif VEC_BYTES / REAL_BYTES == 16
#define LOW_LANES 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23
#define HIGH_LANES 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31
#endif

INLINE V FN(zip_low)(V a, V b)
{
    return SHUFFLE(a, b, LOW_LANES);
}

INLINE V FN(zip_high)(V a, V b)
{
    return SHUFFLE(a, b, HIGH_LANES);
}

INLINE V FN(select)(IV mask, V yes, V no)
{
    return (V)((mask & (IV)yes) | (~mask & (IV)no));
}

/* NaN passes: every comparison with it is false, and the instructions return their second operand. */
INLINE V FN(at_most)(V x, REAL high)
{
#ifdef VECTOR_MIN
    return (V)VECTOR_MIN(FN(splat)(high), x);
#else
    return FN(select)((IV)(x > high), FN(splat)(high), x);
#endif
}

INLINE V FN(larger)(V a, V b)
{
#ifdef VECTOR_MAX
    return (V)VECTOR_MAX(a, b);
#else
    return FN(select)((IV)(b < a), a, b);
#endif
}

INLINE V FN(at_least)(V x, REAL low)
{
    return FN(larger)(FN(splat)(low), x);
}

/* scale e^x = s + s q with s = scale 2^n, q = e^r - 1, x = n ln 2 + r, |r| <= ln 2 / 2. ln 2 is split
   so that n times its high part is exact; (q - r) / r^2 is 1/2 and the polynomial of least error,
   which leaves a quarter of an ulp of q (double: nothing). Its even and odd powers are two chains,
   for those who have nothing else to wait with. */
typedef struct {
    V s, q;
} FN(exp_parts);

INLINE FN(exp_parts) FN(split_exp)(V x, REAL scale)
{
    static const REAL c[] = EXP_POLYNOMIAL;
    const int n_c = sizeof c / sizeof *c, last_even = (n_c - 1) & ~1, last_odd = (n_c - 2) | 1;
    const V shifted = x * (REAL)LOG2_E + (REAL)ROUND_MAGIC; /* low bits: the integer n */
    const V n = shifted - (REAL)ROUND_MAGIC;
    const V high = x - n * (REAL)LN2_HIGH, r = high - n * (REAL)LN2_LOW, r2 = r * r;
    V even = FN(splat)(c[last_even]), odd = FN(splat)(c[last_odd]);
#pragma GCC unroll 8
    for (int i = last_even - 2; i >= 0; i -= 2)
        even = even * r2 + c[i];
#pragma GCC unroll 8
    for (int i = last_odd - 2; i >= 0; i -= 2)
        odd = odd * r2 + c[i];
    const IV bits = ((IV)shifted << MANTISSA_BITS) + (IV)FN(splat)(scale);
    V rest = r2 * (odd * r + even);
    if (COMPENSATED)
        rest += (high - r) - n * (REAL)LN2_LOW;
    return (FN(exp_parts)){(V)bits, r + rest};
}

/* 1.5 ulp for x <= 0, which is all that softmax needs; 0 where the result would be subnormal. */
INLINE V FN(exp_nonpositive)(V x)
{
    const FN(exp_parts) e = FN(split_exp)(FN(at_least)(x, (REAL)EXP_MIN), 1);
    return FN(select)((IV)(x < (REAL)EXP_MIN), (V){0}, e.s + e.s * e.q);
}

/* What a + b and a * b + c lose in rounding; c is 0 or the larger one. */
INLINE V FN(lost_in_sum)(V sum, V a, V b)
{
    const V b_seen = sum - a;
    return (a - (sum - b_seen)) + (b - b_seen);
}

INLINE V FN(lost_in_fma)(V result, V a, V b, V c)
{
    return a * b - (result - c);
}

/* 1 / (1 + e^-x), at most 2.5 ulp (double: 2). Scaled, so that neither e^-x overflows nor its
   reciprocal is a subnormal before the last product. */
INLINE V FN(sigmoid)(V x)
{
    const V one = FN(splat)((REAL)SIGMOID_SCALE);
    const V within = FN(at_least)(FN(at_most)(x, (REAL)SIGMOID_MAX), (REAL)SIGMOID_MIN);
    const FN(exp_parts) e = FN(split_exp)(-within, (REAL)SIGMOID_SCALE);
    const V power = e.s + e.s * e.q, d = one + power;
    V y = 1 / d;
    if (COMPENSATED)
        y -= y * (y * (FN(lost_in_sum)(d, one, power) + FN(lost_in_fma)(power, e.s, e.q, e.s)));
    return y * (REAL)SIGMOID_SCALE;
}

/* m / (m + 2) with m = e^2|x| - 1, at most 2.5 ulp (double: 2); the sign is put back last, so -0
   stays -0. */
INLINE V FN(tanh)(V x)
{
    const IV sign = (IV)x & (IV)FN(splat)((REAL)-0.0);
    const V a = (V)((IV)x ^ sign), two = FN(splat)(2);
    const FN(exp_parts) e = FN(split_exp)(FN(at_most)(a + a, (REAL)TANH_MAX), 1);
    const V m = e.s * e.q + (e.s - 1), d = m + two;
    V y = m / d;
    if (COMPENSATED) {
        const V lost = FN(lost_in_fma)(m, e.s, e.q, e.s - 1);
        V rest = lost - y * (FN(lost_in_sum)(d, two, m) + lost);
#ifdef FUSED
        rest += m - d * y;
#endif
        y += rest / d;
    }
    return (V)((IV)y | sign);
}
