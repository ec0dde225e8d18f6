#define ISA baseline
#define VEC_BYTES 16 /* SSE2 or NEON: what the platform guarantees */
#define MAX_ROWS_2V 6
#define MAX_ROWS_4V 3
#include "instantiate.h"
