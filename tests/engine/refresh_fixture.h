/* A model of bare N:M matrices, for tests of the refresh: no forward pass, a device that counts its repacks. */
#ifndef HEBB_TESTS_ENGINE_REFRESH_FIXTURE_H
#define HEBB_TESTS_ENGINE_REFRESH_FIXTURE_H

#include "engine/method.h"
#include "engine/philox.h"
#include "engine/sparse/refresher.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { FIXTURE_MATRICES_MAX = 8 };

struct fixture {
    struct model model;
    struct device dev;
    struct ops ops;
    struct param params[FIXTURE_MATRICES_MAX + 1];
    struct nm nms[FIXTURE_MATRICES_MAX];
};

static _Atomic size_t fixture_repacks; /* since the test set it to 0 */

static inline void fixture_repack(struct device *dev, struct nm *w)
{
    (void)dev;
    (void)w;
    fixture_repacks++;
}

/* shapes (count, 2): dout, din. Masks from the seed; weights, moments 0. A dense parameter comes first, as in a model. */
static inline void fixture_init_layout(struct fixture *f, unsigned n, unsigned m, enum nm_layout layout,
                                       size_t (*shapes)[2], size_t count, unsigned threads, uint64_t seed)
{
    struct err err;
    memset(f, 0, sizeof *f);
    assert_true(count <= FIXTURE_MATRICES_MAX);
    f->ops.nm_repack = fixture_repack;
    f->dev.ops = &f->ops;
    if (threads > 1)
        assert_int_equal(pool_create(&f->dev.pool, threads, &err), 0);
    struct model *model = &f->model;
    model->dev = &f->dev;
    model->params = f->params;
    model->param_count = count + 1;
    assert_int_equal(pattern_table_create(&model->patterns, n, m, &err), 0);
    f->params[0] = (struct param){.name = "model.embed_tokens.weight", .rows = 3, .cols = 5, .count = 15};
    model->count = 15;
    for (size_t t = 0; t < count; t++) {
        struct nm *w = &f->nms[t];
        *w = (struct nm){.dout = shapes[t][0], .din = shapes[t][1], .n = n, .m = m, .layout = layout, .patterns = model->patterns};
        struct param *param = &f->params[t + 1];
        *param = (struct param){.rows = w->dout, .cols = w->din, .offset = model->count, .target = true};
        param->count = nm_count(w);
        param->nm = w;
        snprintf(param->name, sizeof param->name, "model.layers.0.matrix%zu.weight", t);
        model->count += param->count;
        model->code_count += w->dout * nm_groups(w);
    }
    model->weights = calloc(model->count, sizeof(real));
    model->moment1 = calloc(model->count, sizeof(real));
    model->moment2 = calloc(model->count, sizeof(real));
    model->codes = calloc(model->code_count, sizeof *model->codes);
    assert_true(model->weights && model->moment1 && model->moment2 && model->codes);
    uint16_t *codes = model->codes;
    for (size_t t = 0; t < count; t++) {
        f->nms[t].values = model->weights + f->params[t + 1].offset;
        f->nms[t].codes = codes;
        codes += f->nms[t].dout * nm_groups(&f->nms[t]);
        nm_init_mask(&f->nms[t], seed, (uint32_t)t);
    }
}

static inline void fixture_init(struct fixture *f, unsigned n, unsigned m, size_t (*shapes)[2],
                                size_t count, unsigned threads, uint64_t seed)
{
    fixture_init_layout(f, n, m, NM_LAYOUT_ROW, shapes, count, threads, seed);
}

static inline void fixture_release(struct fixture *f)
{
    free(f->model.weights);
    free(f->model.moment1);
    free(f->model.moment2);
    free(f->model.ages); /* of a test that gave it some */
    free(f->model.codes);
    pattern_table_destroy(f->model.patterns);
    pool_destroy(f->dev.pool);
}

/* The dense position of entry i of the values. */
static inline size_t fixture_position(const struct nm *w, size_t i)
{
    return i / w->n * w->m + w->patterns->column[(size_t)w->codes[i / w->n] * w->n + i % w->n];
}

static inline bool fixture_active(const struct nm *w, const uint16_t *codes, size_t position)
{
    return w->patterns->mask[codes[position / w->m]] >> position % w->m & 1;
}

/* Weights as tests/reference/refresh_reference.py draws them: a function of place and round alone. */
static inline real fixture_weight(uint64_t seed, size_t target, uint64_t round, unsigned bits, size_t position)
{
    const struct philox key = {.seed = seed, .purpose = PHILOX_INIT_WEIGHT, .stream = (uint32_t)target, .round = round};
    const int32_t half = (int32_t)1 << (bits - 1);
    const int32_t level = (int32_t)(philox_u32(&key, position) >> (32 - bits)) - half;
    return (real)level / (real)half;
}

static inline void fixture_draw(struct fixture *f, uint64_t seed, uint64_t round, unsigned bits)
{
    for (size_t t = 0; t + 1 < f->model.param_count; t++) {
        struct nm *w = &f->nms[t];
        const size_t offset = f->params[t + 1].offset;
        for (size_t i = 0; i < nm_count(w); i++) {
            const size_t position = fixture_position(w, i);
            w->values[i] = fixture_weight(seed, t, round, bits, position);
            f->model.moment1[offset + i] = (real)(position + 1);
            f->model.moment2[offset + i] = -(real)(position + 1);
        }
    }
}

#endif
