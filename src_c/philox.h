/* Philox4x64-10 (Salmon et al. 2011): random bits that depend on a key and a counter alone, so that no
   thread, order or piece of a sequence changes any, and nothing need be kept. NumPy has the same:
   np.random.Philox(key=[seed, 0], counter=[0, step, row, kind]), from whose bits unit u takes the 16
   from bit 16 u on. */
#ifndef FASTRNN_PHILOX_H
#define FASTRNN_PHILOX_H
#include <stdint.h>

enum { PHILOX_UNITS = 16 }; /* of one block */

__extension__ typedef unsigned __int128 uint128;

static inline void philox(uint64_t block[4], uint64_t key, uint64_t c0, uint64_t c1, uint64_t c2,
                          uint64_t c3)
{
    uint64_t k0 = key, k1 = 0;
    for (int round = 0; round < 10; round++) {
        const uint128 a = (uint128)0xD2E7470EE14C6C93u * c0, b = (uint128)0xCA5A826395121157u * c2;
        c0 = (uint64_t)(b >> 64) ^ c1 ^ k0;
        c2 = (uint64_t)(a >> 64) ^ c3 ^ k1;
        c1 = (uint64_t)b;
        c3 = (uint64_t)a;
        k0 += 0x9E3779B97F4A7C15u;
        k1 += 0xBB67AE8584CAA73Bu;
    }
    block[0] = c0, block[1] = c1, block[2] = c2, block[3] = c3;
}

#endif
