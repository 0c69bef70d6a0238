/* Which windows belong to which split, and in which order they are drawn: pure functions
 * without state. */
#ifndef HEBB_ENGINE_DATA_ORDER_H
#define HEBB_ENGINE_DATA_ORDER_H

#include "engine/data.h"
#include <stdbool.h>
#include <stdint.h>

enum { DATA_BLOCK_WINDOWS = 16 };
#define DATA_EPOCHS_MAX ((uint64_t)1 << 24) /* philox.round */

/* The place of `position` (below size) in the permutation of [0, size) that (seed, stream,
 * epoch) names: an alternating Feistel network of 8 Philox rounds over the next power of two,
 * walked until it falls below size (Black & Rogaway 2002, "Ciphers with arbitrary finite
 * domains", cycle walking). size in [1, 2^53]. */
uint64_t data_permute(uint64_t seed, uint32_t stream, uint64_t epoch, uint64_t position,
                      uint64_t size);

/* Windows held out for validation: block b of `block` consecutive windows is held out if
 * floor((b + 1) * fraction) > floor(b * fraction), which spreads them evenly and needs no seed.
 */
struct data_holdout {
    uint64_t windows; /* of both splits */
    uint64_t block;   /* DATA_BLOCK_WINDOWS; fewer if that would hold nothing out */
    double fraction;
    uint64_t held_blocks, held_windows;
};

/* fraction in [0, 0.5]. With fraction > 0 at least one window is held out: in smaller blocks if
 * need be, at last the last window alone. False if that is impossible: fewer than 2 windows. */
bool data_holdout_init(struct data_holdout *out, uint64_t windows, double fraction);

uint64_t data_holdout_count(const struct data_holdout *holdout, enum dataset_split split);
/* Number of the split's window `index`, in file order, among all windows. */
uint64_t data_holdout_window(const struct data_holdout *holdout, enum dataset_split split,
                             uint64_t index);

#endif
