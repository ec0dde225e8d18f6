#if defined(__x86_64__)
#include <stdint.h>
#include <string.h>
#if defined(__clang__)
#pragma clang attribute push(__attribute__((target( \
    "avx2,fma"))), apply_to = function)
#else
#pragma GCC target("avx2,fma")
#endif
#define ISA avx2
#define VEC_BYTES 32
#define MAX_ROWS_2V 6
#define MAX_ROWS_4V 3
#include "instantiate.h"
#if defined(__clang__)
#pragma clang attribute pop
#endif
#else
typedef int no_avx2_on_this_platform;
#endif
