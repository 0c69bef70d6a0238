#include "engine/nm.h"
#include "engine/philox.h"
#include "proto/format/topology.h"
#include <string.h>

static const uint8_t *columns_of(const struct nm *w, uint16_t code)
{
    return w->patterns->column + (size_t)code * w->n;
}

void nm_to_dense(const struct nm *w, real *out)
{
    const size_t groups = nm_groups(w);
    memset(out, 0, w->dout * w->din * sizeof *out);
    for (size_t i = 0; i < w->dout * groups; i++) {
        const uint8_t *column = columns_of(w, w->codes[i]);
        for (unsigned k = 0; k < w->n; k++)
            out[i * w->m + column[k]] = w->values[i * w->n + k];
    }
}

void nm_to_mask(const struct nm *w, uint8_t *out)
{
    const size_t groups = nm_groups(w);
    memset(out, 0, w->dout * w->din);
    for (size_t i = 0; i < w->dout * groups; i++) {
        const uint8_t *column = columns_of(w, w->codes[i]);
        for (unsigned k = 0; k < w->n; k++)
            out[i * w->m + column[k]] = 1;
    }
}

uint64_t nm_mask_hash(const struct nm *w)
{
    return topology_mask_hash(w->dout, w->din, w->n, w->m, w->codes, w->dout * nm_groups(w));
}

int nm_check(const struct nm *w, struct err *err)
{
    const size_t groups = nm_groups(w);
    for (size_t i = 0; i < w->dout * groups; i++)
        if (w->codes[i] >= w->patterns->count)
            return err_set(err, ERR_CORRUPT,
                           "row %zu group %zu: code %u is not below %zu, the %u:%u patterns",
                           i / groups, i % groups, (unsigned)w->codes[i], w->patterns->count,
                           w->n, w->m);
    return 0;
}

/* Lemire, "Fast random integer generation in an interval", 2019: the high half of word * count
 * is uniform once words whose low half falls in the first 2^32 mod count values are drawn
 * again. */
static uint16_t draw_code(struct philox key, uint64_t group, uint32_t count)
{
    const uint32_t reject = (0U - count) % count;
    for (key.round = 0;; key.round++) {
        uint64_t product = (uint64_t)philox_u32(&key, group) * count;
        if ((uint32_t)product >= reject)
            return (uint16_t)(product >> 32);
    }
}

void nm_init_mask(struct nm *w, uint64_t seed, uint32_t stream)
{
    const struct philox key = {.seed = seed, .purpose = PHILOX_INIT_MASK, .stream = stream};
    const size_t groups = w->dout * nm_groups(w);
    for (size_t i = 0; i < groups; i++)
        w->codes[i] = draw_code(key, i, (uint32_t)w->patterns->count);
}
