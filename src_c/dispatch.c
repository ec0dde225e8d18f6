#include "kernels.h"

extern const kernel_table fastrnn_baseline_f32, fastrnn_baseline_f64;

#if defined(__x86_64__)
extern const kernel_table fastrnn_avx2_f32, fastrnn_avx2_f64;
extern const kernel_table fastrnn_avx512_f32, fastrnn_avx512_f64;

static int runs_avx2(void)
{
    return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
}

static int runs_avx512(void)
{
    return runs_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512dq")
        && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl");
}
#endif

const kernel_table *const *fastrnn_tables(int is_double, int *count)
{
    static const kernel_table *tables[2][3];
    static int counts[2];
    int n = 0;
    if ((*count = counts[is_double]))
        return tables[is_double];
#if defined(__x86_64__)
    __builtin_cpu_init();
    if (runs_avx512())
        tables[is_double][n++] = is_double ? &fastrnn_avx512_f64 : &fastrnn_avx512_f32;
    if (runs_avx2())
        tables[is_double][n++] = is_double ? &fastrnn_avx2_f64 : &fastrnn_avx2_f32;
#endif
    tables[is_double][n++] = is_double ? &fastrnn_baseline_f64 : &fastrnn_baseline_f32;
    *count = counts[is_double] = n;
    return tables[is_double];
}
