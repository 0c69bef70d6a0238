/* Latent weights: legality, threads, resume, export. The formulas are checked by
 * test_methods_golden_f64. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/checkpoint.h"
#include "engine/sparse/latent.h"
#include "proto/base/fsx.h"
#include "tests/engine/comms.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { CONTEXT = 16, STEPS = 24, RESUMED = 13 /* between two masks of cast */ };

static const struct {
    const char *method;
    unsigned n, m;
    enum nm_layout layout;
    enum adapter_kind adapter;
} CASES[] = {{"ste", 2, 4, NM_LAYOUT_ROW, ADAPTER_NONE},
             {"srste", 1, 4, NM_LAYOUT_BLOCK, ADAPTER_NONE},
             {"cast", 2, 4, NM_LAYOUT_BLOCK, ADAPTER_NONE},
             {"cast", 1, 8, NM_LAYOUT_ROW, ADAPTER_COMOLORA}};
enum { CASE_COUNT = sizeof CASES / sizeof CASES[0] };

struct world {
    struct comms_world comms;
    struct comms_rank comm;
    struct pool *pool;
    struct device *dev;
    struct dataset *data;
    struct trainer *trainer;
};

static struct trainer_config config_of(size_t i)
{
    return (struct trainer_config){
        .shape = {.hidden = 32,
                  .intermediate = 56,
                  .layers = 2,
                  .heads = 4,
                  .kv_heads = 2,
                  .vocab = DATA_BYTES_VOCAB,
                  .context = CONTEXT,
                  .rope_theta = 10000,
                  .norm_eps = 1e-6,
                  .n = CASES[i].n,
                  .m = CASES[i].m,
                  .layout = CASES[i].layout,
                  .latent = method_find(CASES[i].method)->latent,
                  .adapter = {.kind = CASES[i].adapter,
                              .rank = 2,
                              .hidden = 2,
                              .gamma = 0.5,
                              .alpha = 2}},
        .method = {.name = CASES[i].method, .steps = STEPS, .penalty = 1e-3},
        .steps = STEPS,
        .warmup = 2,
        .batch = 4,
        .micro_batch = 2,
        .context = CONTEXT,
        .seed = 1,
        .lr = 0.01,
        .min_lr_ratio = 0.1,
        .beta1 = 0.9,
        .beta2 = 0.999,
        .eps = 1e-8,
        .grad_clip = 1,
    };
}

static void setup(struct world *w, const struct trainer_config *config, unsigned threads)
{
    char text[] = "/tmp/test_latent_XXXXXX";
    const char *path = text;
    struct err err = {0};
    int fd = mkstemp(text);
    assert_true(fd >= 0);
    for (int i = 0; i < 60; i++)
        assert_int_equal(write(fd, "the quick brown fox jumps over the lazy dog; ", 45), 45);
    close(fd);
    const struct dataset_config data = {.train = &path,
                                        .train_count = 1,
                                        .validation_fraction = 0.2,
                                        .format = "text",
                                        .context = CONTEXT,
                                        .vocab = DATA_BYTES_VOCAB,
                                        .seed = 1};
    comms_init(&w->comms, &w->comm, 1);
    assert_int_equal(pool_create(&w->pool, threads, NULL), 0);
    assert_int_equal(device_create(&w->dev, "cpu", w->pool, NULL), 0);
    assert_int_equal(dataset_open(&w->data, &data, 0, 1, NULL), 0);
    unlink(text);
    if (trainer_create(&w->trainer, config, w->dev, &w->comm.comm, w->data, &err) != 0)
        fail_msg("%s", err.text);
}

static void teardown(struct world *w)
{
    trainer_destroy(w->trainer);
    dataset_close(w->data);
    device_destroy(w->dev);
    pool_destroy(w->pool);
    comms_release(&w->comms);
}

static void train_until(struct world *w, size_t step)
{
    struct step_result result;
    while (w->trainer->step < step)
        assert_int_equal(trainer_step(w->trainer, NULL, &result, NULL), 0);
}

static void expect_equal(const struct model *a, const struct model *b)
{
    assert_memory_equal(a->weights, b->weights, a->count * sizeof(real));
    assert_memory_equal(a->moment1, b->moment1, a->count * sizeof(real));
    assert_memory_equal(a->moment2, b->moment2, a->count * sizeof(real));
    assert_memory_equal(a->codes, b->codes, a->code_count * sizeof *a->codes);
    for (size_t i = 0; i < a->param_count; i++)
        if (a->params[i].effective)
            assert_memory_equal(a->params[i].effective, b->params[i].effective,
                                a->params[i].count * sizeof(real));
}

/* Entries that a product sees outside the masks. */
static size_t outside(const struct model *model)
{
    size_t count = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        const struct nm *mask = param->latent;
        if (!param->target)
            continue;
        assert_non_null(mask);
        assert_null(param->nm);
        assert_int_equal(nm_check(mask, NULL), 0);
        for (size_t k = 0; k < param->count; k++)
            count += param->effective[k] != 0 && !nm_active(mask, k);
    }
    return count;
}

static void masked_weights_are_legal_always_and_scaled_ones_at_the_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASE_COUNT; i++) {
        struct world w;
        const struct trainer_config config = config_of(i);
        const bool cast = config.shape.latent == MODEL_LATENT_SCALED;
        setup(&w, &config, 1);
        assert_true((outside(w.trainer->model) > 0) == cast);
        train_until(&w, STEPS - 1);
        assert_true((outside(w.trainer->model) > 0) == cast);
        train_until(&w, STEPS);
        assert_int_equal(outside(w.trainer->model), 0);
        double loss;
        size_t tokens;
        assert_int_equal(trainer_evaluate(w.trainer, 0, &loss, &tokens, NULL), 0);
        assert_true(loss < 4); /* log(257) = 5.5 at the start */
        teardown(&w);
    }
}

static void threads_do_not_change_a_bit(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASE_COUNT; i++) {
        struct world one, three;
        const struct trainer_config config = config_of(i);
        setup(&one, &config, 1);
        setup(&three, &config, 3);
        train_until(&one, RESUMED);
        train_until(&three, RESUMED);
        expect_equal(one.trainer->model, three.trainer->model);
        teardown(&one);
        teardown(&three);
    }
}

static double loss_of(struct model *model)
{
    int32_t tokens[CONTEXT], targets[CONTEXT];
    real loss[CONTEXT];
    double sum = 0;
    for (int k = 0; k < CONTEXT; k++) {
        tokens[k] = "the lazy fox jumps"[k];
        targets[k] = "the lazy fox jumps"[k + 1];
    }
    model_loss(model, tokens, targets, loss, 1, CONTEXT);
    for (int k = 0; k < CONTEXT; k++)
        sum += (double)loss[k];
    return sum / CONTEXT;
}

static void a_resumed_run_equals_the_uninterrupted_one(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASE_COUNT; i++) {
        char folder[] = "/tmp/test_latent_XXXXXX";
        struct world through, resumed;
        const struct trainer_config config = config_of(i);
        uint64_t bytes;
        bool found = false;
        struct err err = {0};
        assert_non_null(mkdtemp(folder));
        setup(&through, &config, 1);
        train_until(&through, RESUMED);
        assert_int_equal(checkpoint_save(through.trainer, folder, &bytes, NULL), 0);
        train_until(&through, STEPS);
        setup(&resumed, &config, 2);
        if (checkpoint_resume(resumed.trainer, folder, &found, NULL, &err) != 0)
            fail_msg("%s", err.text);
        assert_true(found && resumed.trainer->step == RESUMED);
        train_until(&resumed, STEPS);
        expect_equal(through.trainer->model, resumed.trainer->model);
        assert_int_equal(fsx_remove_tree(folder, NULL), 0);
        teardown(&through);
        teardown(&resumed);
    }
}

/* The exported model multiplies scales into its weights: single rounding of a product. */
static const double FOLDED = 1e-5;

static void export_is_the_sparse_model_of_the_end(void **state)
{
    (void)state;
    for (size_t i = 0; i < CASE_COUNT; i++) {
        char folder[] = "/tmp/test_latent_XXXXXX", path[FSX_PATH_MAX], out[FSX_PATH_MAX];
        struct world w;
        struct model *loaded, *imported;
        const struct trainer_config config = config_of(i);
        uint64_t bytes;
        struct err err = {0};
        assert_non_null(mkdtemp(folder));
        setup(&w, &config, 1);
        train_until(&w, STEPS);
        const double loss = loss_of(w.trainer->model);
        assert_int_equal(checkpoint_save(w.trainer, folder, &bytes, NULL), 0);
        assert_int_equal(fsx_path(path, NULL, "%s/step-%08d", folder, STEPS), 0);
        if (checkpoint_load_model(&loaded, w.dev, path, 1, 0, &err) != 0)
            fail_msg("%s", err.text);
        assert_true(loss_of(loaded) == loss);
        assert_int_equal(fsx_path(out, NULL, "%s/model", folder), 0);
        assert_int_equal(model_export(loaded, out, CASES[i].method, "bytes", NULL), 0);
        if (model_import(&imported, w.dev, out, 1, 0, &err) != 0)
            fail_msg("%s", err.text);
        assert_true(imported->shape.latent == MODEL_LATENT_NONE);
        assert_int_equal(imported->shape.n, CASES[i].n);
        assert_int_equal(imported->shape.layout, CASES[i].layout);
        assert_true(fabs(loss_of(imported) - loss) <= FOLDED * loss);
        for (size_t k = 0; k < imported->param_count; k++) { /* same masks, no scales */
            const struct param *param = &imported->params[k];
            assert_false(param->folded);
            if (param->nm)
                assert_true(nm_mask_hash(param->nm) ==
                            nm_mask_hash(model_param(loaded, param->name)->latent));
        }
        model_destroy(imported);
        model_destroy(loaded);
        assert_int_equal(fsx_remove_tree(folder, NULL), 0);
        teardown(&w);
    }
}

static void expect_refused(const struct trainer_config *config, const char *text)
{
    struct trainer *trainer;
    struct device *dev;
    struct comms_world comms;
    struct comms_rank comm;
    struct err err = {0};
    comms_init(&comms, &comm, 1);
    assert_int_equal(device_create(&dev, "cpu", NULL, NULL), 0);
    assert_int_equal(trainer_create(&trainer, config, dev, &comm.comm, NULL, &err),
                     ERR_INVALID);
    assert_string_equal(err.text, text);
    device_destroy(dev);
    comms_release(&comms);
}

static void wrong_configurations_are_refused_by_name(void **state)
{
    (void)state;
    struct trainer_config config = config_of(0);
    config.shape.latent = MODEL_LATENT_NONE;
    expect_refused(&config, "sparsity.method is \"ste\": needs latent weights \"masked\", not "
                            "\"none\"");
    config = config_of(2);
    config.optimizer = "muon";
    expect_refused(&config,
                   "optimizer.name is \"muon\": cast scales its decay by adamw's second "
                   "moment");
    config = config_of(0);
    config.shape.n = config.shape.m = 1;
    config.method.name = "dense";
    expect_refused(&config, "sparsity.method is \"dense\": needs latent weights \"none\", not "
                            "\"masked\"");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(masked_weights_are_legal_always_and_scaled_ones_at_the_end),
        cmocka_unit_test(threads_do_not_change_a_bit),
        cmocka_unit_test(a_resumed_run_equals_the_uninterrupted_one),
        cmocka_unit_test(export_is_the_sparse_model_of_the_end),
        cmocka_unit_test(wrong_configurations_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
