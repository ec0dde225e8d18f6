#include "kernels.h"

#define X(isa, runs) extern const kernel_table fastrnn_##isa##_f32, fastrnn_##isa##_f64;
FASTRNN_ISAS(X)
#undef X

enum {
#define X(isa, runs) ISA_##isa,
    FASTRNN_ISAS(X)
#undef X
    ISAS
};

const kernel_table *const *fastrnn_tables(int is_double, int *count)
{
    static const kernel_table *tables[2][ISAS];
    int n = 0;
#if defined(__x86_64__)
    __builtin_cpu_init();
#endif
#define X(isa, runs)                                                                        \
    if (runs)                                                                               \
        tables[is_double][n++] = is_double ? &fastrnn_##isa##_f64 : &fastrnn_##isa##_f32;
    FASTRNN_ISAS(X)
#undef X
    *count = n;
    return tables[is_double];
}

const char *fastrnn_update_rule(int rule)
{
    static const char *const names[] = {
#define X(name, ...) #name,
        FASTRNN_UPDATE_RULES(X)
#undef X
    };
    return rule < (int)(sizeof names / sizeof *names) ? names[rule] : NULL;
}
