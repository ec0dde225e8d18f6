#if defined(__x86_64__)
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
#define MAX_ROWS_2V 12
#define MAX_ROWS_4V 6
#include "instantiate.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int no_avx512_on_this_platform;
#endif
