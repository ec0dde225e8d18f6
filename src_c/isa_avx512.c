#if defined(__x86_64__)
#include "barrier.h"
#include <immintrin.h>
#include <math.h>
#include <stdint.h>
#include <string.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target( \
    "avx512f,avx512dq,avx512bw,avx512vl,avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx512f,avx512dq,avx512bw,avx512vl,avx2,fma")
#endif
#define ISA avx512
#define VEC_BYTES 64
#define FUSED /* multiply-add rounds once */
#define ACCUMULATORS 24
#define MIN_f32 _mm512_min_ps
#define MAX_f32 _mm512_max_ps
#define MIN_f64 _mm512_min_pd
#define MAX_f64 _mm512_max_pd
#include "instantiate.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int no_avx512_on_this_platform;
#endif
