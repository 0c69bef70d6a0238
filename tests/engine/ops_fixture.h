/* Shared by the tests of ops: random numbers, N:M matrices that own their memory. */
#ifndef HEBB_TESTS_ENGINE_OPS_FIXTURE_H
#define HEBB_TESTS_ENGINE_OPS_FIXTURE_H

#include "engine/ops.h"
#include "engine/philox.h"
#include "proto/base/mem.h"
#include <stdlib.h>
#include <string.h>

enum { FIXTURE_PURPOSE = 77 }; /* no purpose of the product */

/* Standard normal numbers; another stream, other numbers. The caller frees with
 * mem_aligned_free. */
static inline real *fixture_normal(size_t count, uint32_t stream)
{
    struct philox key = {.seed = 20261123, .purpose = FIXTURE_PURPOSE, .stream = stream};
    real *out = mem_aligned(count, sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < count; i++)
        out[i] = (real)philox_normal(&key, i);
    return out;
}

/* Integers in [0, limit). The caller frees with free. */
static inline int32_t *fixture_tokens(size_t count, size_t limit, uint32_t stream)
{
    struct philox key = {.seed = 11, .purpose = FIXTURE_PURPOSE, .stream = stream};
    int32_t *out = malloc(count * sizeof *out);
    assert_non_null(out);
    for (size_t i = 0; i < count; i++)
        out[i] = (int32_t)(philox_u32(&key, i) % limit);
    return out;
}

/* A random N:M matrix of normal values in dev's memory, packed for it. */
static inline struct nm fixture_nm(struct device *dev, size_t dout, size_t din, unsigned n,
                                   unsigned m, uint32_t stream)
{
    struct pattern_table *patterns = NULL;
    assert_int_equal(pattern_table_create(&patterns, n, m, NULL), 0);
    struct nm w = {.dout = dout, .din = din, .n = n, .m = m, .patterns = patterns};
    struct philox key = {.seed = 5, .purpose = FIXTURE_PURPOSE, .stream = stream};
    real *values = fixture_normal(nm_count(&w), stream + 1000);
    w.values = device_alloc(dev, nm_count(&w), sizeof *values);
    w.codes = device_alloc(dev, dout * nm_groups(&w), sizeof *w.codes);
    assert_non_null(w.values);
    assert_non_null(w.codes);
    memcpy(w.values, values, nm_count(&w) * sizeof *values);
    device_push(dev, w.values, nm_count(&w) * sizeof *values);
    mem_aligned_free(values);
    for (size_t i = 0; i < dout * nm_groups(&w); i++)
        w.codes[i] = (uint16_t)(philox_u32(&key, i) % patterns->count);
    w.pack = device_alloc(dev, dev->ops->nm_pack_size(&w) + 1, 1);
    dev->ops->nm_repack(dev, &w);
    return w;
}

static inline void fixture_nm_free(struct device *dev, struct nm *w)
{
    pattern_table_destroy((struct pattern_table *)(uintptr_t)w->patterns);
    device_free(dev, w->values);
    device_free(dev, w->pack);
    device_free(dev, w->codes);
}

/* The same of a device that works on the host's memory. */
static inline void fixture_nm_release(struct nm *w)
{
    pattern_table_destroy((struct pattern_table *)(uintptr_t)w->patterns);
    mem_aligned_free(w->values);
    mem_aligned_free(w->pack);
    mem_aligned_free(w->codes);
}

#endif
