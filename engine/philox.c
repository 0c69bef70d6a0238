/* Philox4x32-10: Salmon, Moraes, Dror, Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC
 * 2011, section 4.2 and table 2. tests/engine/test_philox.c holds the authors' known answers.
 */
#include "engine/philox.h"
#include <assert.h>
#include <math.h>

enum { PHILOX_ROUNDS = 10, PHILOX_WORDS = 4 };

static const uint32_t philox_mul0 = 0xD2511F53U, philox_mul1 = 0xCD9E8D57U;
static const uint32_t philox_weyl0 = 0x9E3779B9U, philox_weyl1 = 0xBB67AE85U;

void philox_raw(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4])
{
    uint32_t c0 = counter[0], c1 = counter[1], c2 = counter[2], c3 = counter[3];
    uint32_t k0 = key[0], k1 = key[1];
    for (int round = 0; round < PHILOX_ROUNDS; round++) {
        uint64_t p0 = (uint64_t)philox_mul0 * c0;
        uint64_t p1 = (uint64_t)philox_mul1 * c2;
        c0 = (uint32_t)(p1 >> 32) ^ c1 ^ k0;
        c1 = (uint32_t)p1;
        c2 = (uint32_t)(p0 >> 32) ^ c3 ^ k1;
        c3 = (uint32_t)p0;
        k0 += philox_weyl0;
        k1 += philox_weyl1;
    }
    out[0] = c0;
    out[1] = c1;
    out[2] = c2;
    out[3] = c3;
}

void philox_block(const struct philox *key, uint64_t index, uint32_t out[4])
{
    assert(key->purpose < 1U << 8 && key->stream < 1U << 24 && key->round <= UINT32_MAX);
    const uint32_t counter[4] = {(uint32_t)index, (uint32_t)(index >> 32),
                                 key->stream | key->purpose << 24, (uint32_t)key->round};
    const uint32_t seed[2] = {(uint32_t)key->seed, (uint32_t)(key->seed >> 32)};
    philox_raw(counter, seed, out);
}

uint32_t philox_u32(const struct philox *key, uint64_t index)
{
    uint32_t block[PHILOX_WORDS];
    philox_block(key, index / PHILOX_WORDS, block);
    return block[index % PHILOX_WORDS];
}

/* 2^-32 and 2^-33 are powers of two and a word has 32 bits, so nothing is rounded. */
static double unit(uint32_t word) { return (double)word * 0x1p-32 + 0x1p-33; }

double philox_uniform(const struct philox *key, uint64_t index)
{
    return unit(philox_u32(key, index));
}

double philox_normal(const struct philox *key, uint64_t index)
{
    static const double two_pi = 6.28318530717958647692;
    uint32_t block[PHILOX_WORDS];
    philox_block(key, index / PHILOX_WORDS, block);
    const uint32_t *pair = block + (index % PHILOX_WORDS) / 2 * 2;
    double radius = sqrt(-2.0 * log(unit(pair[0])));
    double angle = two_pi * unit(pair[1]);
    return index % 2 == 0 ? radius * cos(angle) : radius * sin(angle);
}

void philox_uniform_fill(const struct philox *key, uint64_t first, size_t count, double *out)
{
    uint32_t block[PHILOX_WORDS];
    size_t done = 0;
    while (done < count) {
        uint64_t index = first + done;
        size_t word = (size_t)(index % PHILOX_WORDS);
        philox_block(key, index / PHILOX_WORDS, block);
        for (; word < PHILOX_WORDS && done < count; word++)
            out[done++] = unit(block[word]);
    }
}
