#include "engine/nm.h"
#include "engine/philox.h"
#include "proto/format/topology.h"
#include <assert.h>
#include <string.h>

const char *const nm_layout_names[] = {
    [NM_LAYOUT_ROW] = "row", [NM_LAYOUT_BLOCK] = "block", NULL};

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

unsigned nm_block_mask(const struct nm *w, size_t o, size_t g)
{
    unsigned mask = 0;
    for (unsigned r = 0; r < NM_BLOCK; r++)
        mask |= (unsigned)w->patterns->mask[w->codes[(o + r) * nm_groups(w) + g]]
                << NM_BLOCK * r;
    return mask;
}

static int check_blocks(const struct nm *w, struct err *err)
{
    const unsigned column = 0x1111; /* of a block's mask */
    assert(w->m == NM_BLOCK && w->dout % NM_BLOCK == 0);
    for (size_t o = 0; o < w->dout; o += NM_BLOCK)
        for (size_t g = 0; g < nm_groups(w); g++)
            for (unsigned c = 0; c < NM_BLOCK; c++) {
                const unsigned links =
                    (unsigned)__builtin_popcount(nm_block_mask(w, o, g) & column << c);
                if (links != w->n)
                    return err_set(err, ERR_CORRUPT,
                                   "block at row %zu group %zu: %u links in column %u, not %u",
                                   o, g, links, c, w->n);
            }
    return 0;
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
    return w->layout == NM_LAYOUT_BLOCK ? check_blocks(w, err) : 0;
}

/* Lemire, "Fast random integer generation in an interval", 2019: the high half of word * count
 * is uniform once words whose low half falls in the first 2^32 mod count values are drawn
 * again. */
static uint16_t draw_below(struct philox key, uint64_t index, uint32_t count)
{
    const uint32_t reject = (0U - count) % count;
    for (key.round = 0;; key.round++) {
        uint64_t product = (uint64_t)philox_u32(&key, index) * count;
        if ((uint32_t)product >= reject)
            return (uint16_t)(product >> 32);
    }
}

static void init_blocks(struct nm *w, const struct philox *key, size_t first, size_t end)
{
    const struct block_table *blocks = w->patterns->blocks;
    const size_t groups = nm_groups(w);
    assert(blocks && first % NM_BLOCK == 0 && end % NM_BLOCK == 0);
    for (size_t o = first; o < end; o += NM_BLOCK)
        for (size_t g = 0; g < groups; g++) {
            const uint64_t index = o / NM_BLOCK * groups + g;
            const uint16_t *code =
                blocks->code[draw_below(*key, index, (uint32_t)blocks->count)];
            for (size_t r = 0; r < NM_BLOCK; r++)
                w->codes[(o + r) * groups + g] = code[r];
        }
}

void nm_init_mask_rows(struct nm *w, uint64_t seed, uint32_t stream, size_t first, size_t end)
{
    const struct philox key = {.seed = seed, .purpose = PHILOX_INIT_MASK, .stream = stream};
    const size_t groups = nm_groups(w);
    if (w->layout == NM_LAYOUT_BLOCK)
        init_blocks(w, &key, first, end);
    else
        for (size_t i = first * groups; i < end * groups; i++)
            w->codes[i] = draw_below(key, i, (uint32_t)w->patterns->count);
}

void nm_init_mask(struct nm *w, uint64_t seed, uint32_t stream)
{
    nm_init_mask_rows(w, seed, stream, 0, w->dout);
}
