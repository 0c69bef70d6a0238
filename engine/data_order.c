/* The order of windows and the validation split. */
#include "engine/data_order.h"
#include "engine/philox.h"
#include <assert.h>
#include <math.h>

enum { FEISTEL_ROUNDS = 8 };

/* One pass of the network over [0, 2^bits). The halves have bits / 2 and the other bits; rounds
 * change them in turn, so that every round, and with it the whole, can be undone. */
static uint64_t feistel(const struct philox *key, unsigned bits, uint64_t value)
{
    const unsigned low_bits = bits - bits / 2;
    const uint64_t low_mask = (UINT64_C(1) << low_bits) - 1;
    const uint64_t high_mask = (UINT64_C(1) << (bits / 2)) - 1;
    uint64_t low = value & low_mask, high = value >> low_bits;
    for (uint64_t round = 0; round < FEISTEL_ROUNDS; round++) {
        uint32_t words[4];
        philox_block(key, round << 32 | (round % 2 ? high : low), words);
        if (round % 2)
            low ^= words[0] & low_mask;
        else
            high ^= words[0] & high_mask;
    }
    return high << low_bits | low;
}

uint64_t data_permute(uint64_t seed, uint32_t stream, uint64_t epoch, uint64_t position,
                      uint64_t size)
{
    assert(size >= 1 && size <= UINT64_C(1) << 53 && position < size &&
           epoch < DATA_EPOCHS_MAX);
    const struct philox key = {
        .seed = seed, .purpose = PHILOX_DATA_ORDER, .stream = stream, .round = epoch};
    unsigned bits = 0;
    while (UINT64_C(1) << bits < size)
        bits++;
    uint64_t value = position;
    do /* the cycle that position lies on comes back below size: at position itself at the
          latest */
        value = feistel(&key, bits, value);
    while (value >= size);
    return value;
}

/* Blocks held out among the first `blocks`. */
static uint64_t held_before(const struct data_holdout *holdout, uint64_t blocks)
{
    return (uint64_t)((double)blocks * holdout->fraction);
}

static uint64_t block_count(const struct data_holdout *holdout)
{
    return holdout->windows / holdout->block + (holdout->windows % holdout->block != 0);
}

bool data_holdout_init(struct data_holdout *out, uint64_t windows, double fraction)
{
    assert(fraction >= 0 && fraction <= 0.5 && windows <= UINT64_C(1) << 53);
    *out = (struct data_holdout){
        .windows = windows, .block = DATA_BLOCK_WINDOWS, .fraction = fraction};
    if (fraction <= 0)
        return true;
    if (windows < 2)
        return false;
    while (out->block > 1 && held_before(out, block_count(out)) == 0)
        out->block /= 2;
    if (held_before(out, block_count(out)) == 0) /* the last window: just above 1 / windows */
        out->fraction = nextafter(1.0 / (double)windows, 1.0);
    const uint64_t blocks = block_count(out), held = held_before(out, blocks);
    out->held_blocks = held;
    out->held_windows = held * out->block;
    if (held > held_before(out, blocks - 1)) /* the last block may be a part of one */
        out->held_windows -= blocks * out->block - windows;
    assert(out->held_windows > 0 && out->held_windows < windows);
    return true;
}

uint64_t data_holdout_count(const struct data_holdout *holdout, enum dataset_split split)
{
    return split == SPLIT_VALIDATION ? holdout->held_windows
                                     : holdout->windows - holdout->held_windows;
}

uint64_t data_holdout_window(const struct data_holdout *holdout, enum dataset_split split,
                             uint64_t index)
{
    assert(index < data_holdout_count(holdout, split));
    const uint64_t place = index / holdout->block; /* among the split's blocks */
    /* the first block up to which, itself included, the split has more than `place` blocks */
    uint64_t low = 0, high = block_count(holdout) - 1;
    while (low < high) {
        uint64_t middle = low + (high - low) / 2, held = held_before(holdout, middle + 1);
        uint64_t mine = split == SPLIT_VALIDATION ? held : middle + 1 - held;
        if (mine > place)
            high = middle;
        else
            low = middle + 1;
    }
    return low * holdout->block + index % holdout->block;
}
