/* Starting from dense weights: checkpoints and model folders, masks of largest magnitude. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/checkpoint.h"
#include "proto/base/fsx.h"
#include "tests/engine/comms.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { POSITIONS_MAX = 16 };

/* kv is 2 * 12 / 4 = 6 rows: not whole chunks of four in the row layout. */
static struct model_shape shape_of(unsigned n, unsigned m, enum nm_layout layout)
{
    return (struct model_shape){.hidden = 24,
                                .intermediate = 40,
                                .layers = 2,
                                .heads = layout == NM_LAYOUT_BLOCK ? 2 : 4,
                                .kv_heads = 1,
                                .vocab = 11,
                                .context = 8,
                                .rope_theta = 10000,
                                .norm_eps = 1e-6,
                                .n = n,
                                .m = m,
                                .layout = layout};
}

struct fixture {
    char folder[32], checkpoint[FSX_PATH_MAX], model[FSX_PATH_MAX];
    struct device *dev;
    struct comms_world comms;
    struct comms_rank comm;
    struct trainer *trainer; /* dense */
};

/* A dense trainer of the layout's shape, saved as a checkpoint and as a model folder. */
static void setup(struct fixture *f, enum nm_layout layout)
{
    uint64_t bytes;
    const struct trainer_config config = {.shape = shape_of(1, 1, NM_LAYOUT_ROW),
                                          .method = {.name = "dense"},
                                          .steps = 10,
                                          .batch = 1,
                                          .micro_batch = 1,
                                          .context = 8,
                                          .seed = 5};
    struct trainer_config dense = config;
    dense.shape.heads = shape_of(1, 1, layout).heads;
    strcpy(f->folder, "/tmp/test_start_XXXXXX");
    assert_non_null(mkdtemp(f->folder));
    comms_init(&f->comms, &f->comm, 1);
    assert_int_equal(device_create(&f->dev, "cpu", NULL, NULL), 0);
    assert_int_equal(trainer_create(&f->trainer, &dense, f->dev, &f->comm.comm, NULL, NULL), 0);
    assert_int_equal(checkpoint_save(f->trainer, f->folder, &bytes, NULL), 0);
    fsx_path(f->checkpoint, NULL, "%s/step-00000000", f->folder);
    fsx_path(f->model, NULL, "%s/model", f->folder);
    assert_int_equal(model_export(f->trainer->model, f->model, "dense", "none", NULL), 0);
}

static void teardown(struct fixture *f)
{
    trainer_destroy(f->trainer);
    device_destroy(f->dev);
    comms_release(&f->comms);
    assert_int_equal(fsx_remove_tree(f->folder, NULL), 0);
}

static bool legal(unsigned mask, const struct nm *w)
{
    if (w->layout == NM_LAYOUT_ROW)
        return (unsigned)__builtin_popcount(mask) == w->n;
    for (unsigned i = 0; i < NM_BLOCK; i++)
        if ((unsigned)__builtin_popcount(mask & 15U << NM_BLOCK * i) != w->n ||
            (unsigned)__builtin_popcount(mask & 0x1111U << i) != w->n)
            return false;
    return true;
}

/* No legal mask of the unit at row o, group g has a larger sum of magnitudes. */
static void expect_largest(const struct nm *w, const real *dense, size_t o, size_t g)
{
    const size_t rows = w->layout == NM_LAYOUT_BLOCK ? NM_BLOCK : 1, count = rows * w->m;
    double magnitude[POSITIONS_MAX], most = 0, is = 0;
    unsigned mask =
        rows == 1 ? w->patterns->mask[w->codes[o * nm_groups(w) + g]] : nm_block_mask(w, o, g);
    for (size_t i = 0; i < count; i++) {
        magnitude[i] = fabs((double)dense[(o + i / w->m) * w->din + g * w->m + i % w->m]);
        is += mask >> i & 1 ? magnitude[i] : 0;
    }
    for (unsigned other = 0; other < 1U << count; other++) {
        double sum = 0;
        if (!legal(other, w))
            continue;
        for (size_t i = 0; i < count; i++)
            sum += other >> i & 1 ? magnitude[i] : 0;
        most = fmax(most, sum);
    }
    assert_true(legal(mask, w) && is == most);
}

static void expect_projected(const struct model *model, const struct model *dense)
{
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        const struct param *source = model_param(dense, param->name);
        const real *from = dense->weights + source->offset;
        const struct nm *w = param->nm;
        if (!w) {
            assert_memory_equal(model->weights + param->offset, from,
                                param->count * sizeof *from);
            continue;
        }
        assert_int_equal(nm_check(w, NULL), 0);
        real *back = calloc(w->dout * w->din, sizeof *back);
        assert_non_null(back);
        nm_to_dense(w, back);
        for (size_t k = 0; k < w->dout * w->din; k++)
            assert_true(back[k] == from[k] || back[k] == 0);
        free(back);
        /* The search over 2^16 masks is slow: a few blocks of every matrix. */
        const bool block = w->layout == NM_LAYOUT_BLOCK;
        for (size_t o = 0; o < w->dout; o += block ? 2 * NM_BLOCK : 1)
            for (size_t g = 0; g < nm_groups(w); g += block ? 5 : 1)
                expect_largest(w, from, o, g);
    }
}

static void sparse_models_start_with_the_masks_of_largest_magnitude(void **state)
{
    (void)state;
    static const struct {
        unsigned n, m;
        enum nm_layout layout;
    } CASES[] = {{1, 4, NM_LAYOUT_ROW}, {3, 8, NM_LAYOUT_ROW}, {2, 4, NM_LAYOUT_BLOCK}};
    for (size_t i = 0; i < sizeof CASES / sizeof CASES[0]; i++) {
        struct fixture f;
        setup(&f, CASES[i].layout);
        for (int folder = 0; folder < 2; folder++) {
            const struct model_shape shape = shape_of(CASES[i].n, CASES[i].m, CASES[i].layout);
            struct model *model;
            struct err err = {0};
            assert_int_equal(model_create(&model, f.dev, &shape, 1, 8, false, NULL), 0);
            model_init(model, 99);
            if (model_start(model, folder ? f.model : f.checkpoint, &err) != 0)
                fail_msg("%s", err.text);
            expect_projected(model, f.trainer->model);
            model_destroy(model);
        }
        teardown(&f);
    }
}

static void dense_and_latent_models_start_with_the_weights_themselves(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, NM_LAYOUT_ROW);
    for (int kind = 0; kind < 3; kind++) {
        struct model_shape shape = shape_of(2, 4, NM_LAYOUT_ROW);
        struct model *model;
        shape.latent = (enum model_latent)kind;
        if (kind == MODEL_LATENT_NONE)
            shape.n = shape.m = 1;
        assert_int_equal(model_create(&model, f.dev, &shape, 1, 8, false, NULL), 0);
        model_init(model, 99);
        assert_int_equal(model_start(model, f.model, NULL), 0);
        for (size_t i = 0; i < model->param_count; i++) {
            const struct param *param = &model->params[i];
            const real *weights = model->weights + param->offset;
            for (size_t k = 0; param->folded && k < param->count; k++)
                assert_true(weights[k] == 1);
            if (param->folded)
                continue;
            const struct param *source = model_param(f.trainer->model, param->name);
            const real *from = f.trainer->model->weights + source->offset;
            assert_memory_equal(weights, from, param->count * sizeof *from);
            if (param->latent) { /* the products see them already */
                size_t seen = 0;
                for (size_t k = 0; k < param->count; k++)
                    seen += param->effective[k] == from[k];
                assert_int_equal(seen,
                                 kind == MODEL_LATENT_MASKED ? param->count / 2 : param->count);
            }
        }
        model_destroy(model);
    }
    teardown(&f);
}

static void what_does_not_fit_is_refused_by_name(void **state)
{
    (void)state;
    struct fixture f;
    struct model *model;
    struct err err = {0};
    struct model_shape shape = shape_of(1, 4, NM_LAYOUT_ROW);
    setup(&f, NM_LAYOUT_ROW);
    shape.intermediate = 48;
    assert_int_equal(model_create(&model, f.dev, &shape, 1, 8, false, NULL), 0);
    assert_int_equal(model_start(model, f.checkpoint, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "model.intermediate is 40 there and 48 here"));
    assert_int_equal(model_start(model, "/tmp/no/such/folder", &err), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/tmp/no/such/folder"));
    model_destroy(model);
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sparse_models_start_with_the_masks_of_largest_magnitude),
        cmocka_unit_test(dense_and_latent_models_start_with_the_weights_themselves),
        cmocka_unit_test(what_does_not_fit_is_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
