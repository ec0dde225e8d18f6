#define ISA baseline
#define VEC_BYTES 16 /* SSE2 or NEON: what the platform guarantees */
#if defined(__aarch64__) || defined(__FMA__)
#define FUSED
#endif
#define ACCUMULATORS 12
#include "instantiate.h"
