/* Philox4x32-10 (Salmon et al. 2011): random numbers as a pure function of (seed, purpose, stream,
 * round, index), so that every rank and every resumed run draws the same ones. */
#ifndef HEBB_ENGINE_PHILOX_H
#define HEBB_ENGINE_PHILOX_H

#include <stddef.h>
#include <stdint.h>

enum philox_purpose { /* never renumber: old runs resume with these */
    PHILOX_INIT_WEIGHT = 1, /* stream: parameter; index: element */
    PHILOX_INIT_MASK = 2,   /* stream: matrix; round: attempt of the rejection; index: group */
    PHILOX_REMOVAL = 3,     /* stream: matrix; round: refresh; index: link (row * din + column) */
    PHILOX_REGROWTH = 4,    /* the same */
    PHILOX_MPR = 5,         /* stream: matrix; round: refresh; index: group */
    PHILOX_DATA_ORDER = 6,  /* stream: split; round: epoch; index: Feistel round and half */
    PHILOX_GENERATE = 7,    /* index: position */
};

struct philox {
    uint64_t seed;
    uint32_t purpose; /* philox_purpose */
    uint32_t stream;  /* below 2^24 */
    uint64_t round;   /* below 2^32 */
};

/* The bare function: ten rounds over a 128-bit counter and a 64-bit key, low words first. */
void philox_raw(const uint32_t counter[4], const uint32_t key[2], uint32_t out[4]);

/* Counter words: index low, index high, stream | purpose << 24, round; key: seed. */
void philox_block(const struct philox *key, uint64_t index, uint32_t out[4]);

/* Word (index % 4) of block (index / 4). */
uint32_t philox_u32(const struct philox *key, uint64_t index);

/* Uniform in the open interval (0, 1): (u32 + 0.5) / 2^32, exact in double. */
double philox_uniform(const struct philox *key, uint64_t index);

/* Standard normal by Box-Muller from the words u, v of the pair (2k, 2k + 1) that index is in:
 * sqrt(-2 ln u) times cos(2 pi v) for the even index, sin(2 pi v) for the odd one. */
double philox_normal(const struct philox *key, uint64_t index);

/* Fill for ranges [first, first + count). */
void philox_uniform_fill(const struct philox *key, uint64_t first, size_t count, double *out);

#endif
