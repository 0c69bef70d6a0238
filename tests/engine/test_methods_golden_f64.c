/* Whole training runs of the methods against tests/reference/make_golden_methods.py (PyTorch
 * and double precision): every loss and gradient norm, the masks bit for bit, the weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/sparse/latent.h"
#include "engine/trainer.h"
#include "tests/engine/comms.h"
#include "tests/engine/golden.h"
#include <unistd.h>

#define METHODS_PATH HEBB_SOURCE_DIR "/tests/golden/methods.safetensors"

/* Both sides compute in double; sums in another order differ by some 1e-16 a step, which Adam
 * amplifies where a gradient is near zero. */
static const double LOSS_TOLERANCE = 1e-9;
/* The golden weights are stored as float. */
static const double WEIGHT_TOLERANCE = 1e-6;

struct golden_case {
    char name[32], method[16], layout[16];
    unsigned n, m;
    double penalty, zeta, share;
    size_t interval;
};

static void read_case(struct golden_case *c, const struct st_file *file, const char *name)
{
    snprintf(c->name, sizeof c->name, "%s", name);
    const char *text = st_metadata(file, name);
    assert_non_null(text);
    assert_int_equal(sscanf(text, "%15s %u %u %15s %lf %lf %zu %lf", c->method, &c->n, &c->m,
                            c->layout, &c->penalty, &c->zeta, &c->interval, &c->share),
                     8);
}

static struct trainer_config config_of(const struct golden_case *c, const struct st_file *file,
                                       const struct st_file *base, size_t micro_batch)
{
    struct trainer_config config = {.shape = golden_shape(base, c->n, c->m),
                                    .method = {.name = c->method,
                                               .interval = c->interval,
                                               .until = golden_number(file, "until"),
                                               .zeta = c->zeta,
                                               .penalty = c->penalty,
                                               .branch_share = c->share},
                                    .steps = golden_size(file, "steps"),
                                    .warmup = golden_size(file, "warmup"),
                                    .batch = 4,
                                    .micro_batch = micro_batch,
                                    .context = golden_size(base, "context"),
                                    .optimizer = "adamw",
                                    .lr = golden_number(file, "lr"),
                                    .min_lr_ratio = golden_number(file, "min_lr_ratio"),
                                    .beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .eps = 1e-8,
                                    .weight_decay = golden_number(file, "weight_decay"),
                                    .grad_clip = golden_number(file, "grad_clip")};
    config.method.steps = config.steps;
    config.shape.latent = method_find(c->method)->latent;
    config.shape.layout = strcmp(c->layout, "block") == 0 ? NM_LAYOUT_BLOCK : NM_LAYOUT_ROW;
    if (method_find(c->method)->late_branch)
        config.shape.adapter =
            (struct adapter_shape){.kind = ADAPTER_LORA,
                                   .rank = golden_size(file, "branch_rank"),
                                   .alpha = golden_number(file, "branch_alpha")};
    return config;
}

/* ---- one run ---- */

/* The golden weights; of an N:M target those under the mask of largest magnitude. */
static void load(const struct model *model, const struct st_file *base)
{
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        const size_t count = param->rows * param->cols;
        struct nm *w = param->nm;
        size_t bytes = 0, k = 0;
        if (param->folded || param->adapter)
            continue; /* a scale starts at 1, a branch as load_branches says */
        float *golden = golden_data(base, &bytes, "", param->name);
        real *dense = calloc(count, sizeof *dense);
        assert_true(dense && bytes == count * sizeof *golden);
        for (size_t p = 0; p < count; p++)
            dense[p] = golden[p];
        if (w)
            magnitude_mask(w, dense, 0, w->dout);
        for (size_t p = 0; p < count; p++)
            if (!w || nm_active(w, p))
                model->weights[param->offset + k++] = dense[p];
        assert_int_equal(k, param->count);
        free(dense);
        free(golden);
    }
}

static void load_branches(const struct model *model, const struct golden_case *c,
                          const struct st_file *file)
{
    char prefix[64];
    snprintf(prefix, sizeof prefix, "%s.start.", c->name);
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        size_t bytes = 0;
        if (!param->adapter)
            continue;
        float *start = golden_data(file, &bytes, prefix, param->name);
        assert_int_equal(bytes, param->count * sizeof *start);
        for (size_t k = 0; k < param->count; k++)
            model->weights[param->offset + k] = start[k];
        free(start);
    }
}

struct world {
    struct comms_world comms;
    struct comms_rank comm;
    struct device *dev;
    struct dataset *data;
    struct trainer *trainer;
};

static void world_open(struct world *w, const struct trainer_config *config,
                       const struct st_file *base)
{
    char text[] = "/tmp/test_methods_XXXXXX";
    size_t bytes = 0;
    struct err err = {0};
    int32_t *tokens = golden_data(base, &bytes, "", "curve.tokens");
    int fd = mkstemp(text);
    assert_true(fd >= 0);
    for (size_t i = 0; i < bytes / sizeof *tokens; i++) {
        uint16_t token = (uint16_t)tokens[i];
        assert_int_equal(write(fd, &token, sizeof token), sizeof token);
    }
    close(fd);
    free(tokens);
    const char *path = text;
    const struct dataset_config data = {.train = &path,
                                        .train_count = 1,
                                        .format = "raw-uint16",
                                        .context = config->context,
                                        .vocab = config->shape.vocab};
    comms_init(&w->comms, &w->comm, 1);
    assert_int_equal(device_create(&w->dev, "ref", NULL, NULL), 0);
    assert_int_equal(dataset_open(&w->data, &data, 0, 1, NULL), 0);
    unlink(text);
    if (trainer_create(&w->trainer, config, w->dev, &w->comm.comm, w->data, &err) != 0)
        fail_msg("%s", err.text);
    load(w->trainer->model, base);
    latent_select(w->trainer->model);
    model_repack(w->trainer->model);
}

static void world_close(struct world *w)
{
    trainer_destroy(w->trainer);
    dataset_close(w->data);
    device_destroy(w->dev);
    comms_release(&w->comms);
}

/* ---- comparisons ---- */

static void *data_of(const struct st_file *file, const struct golden_case *c, const char *kind,
                     const char *name, size_t bytes)
{
    char prefix[64];
    size_t length = 0;
    snprintf(prefix, sizeof prefix, "%s.%s", c->name, kind);
    void *data = golden_data(file, &length, prefix, name);
    assert_int_equal(length, bytes);
    return data;
}

static void expect_close(const struct golden_case *c, const char *what, size_t step,
                         double actual, double expected)
{
    if (!(fabs(actual - expected) <= LOSS_TOLERANCE * fabs(expected)))
        fail_msg("%s: %s %.12g at step %zu, PyTorch %.12g", c->name, what, actual, step,
                 expected);
}

static void expect_mask(const struct golden_case *c, const struct st_file *file,
                        const struct param *param)
{
    const struct nm *mask = param->nm ? param->nm : param->latent;
    uint8_t *expected = data_of(file, c, "mask.", param->name, param->rows * param->cols);
    for (size_t i = 0; i < param->rows * param->cols; i++)
        if (nm_active(mask, i) != (expected[i] != 0))
            fail_msg("%s: mask of %s differs at %zu", c->name, param->name, i);
    assert_int_equal(nm_check(mask, NULL), 0);
    free(expected);
}

static void expect_weights(const struct golden_case *c, const struct st_file *file,
                           const struct model *model, const struct param *param)
{
    const size_t count = param->rows * param->cols;
    float *expected = data_of(file, c, "final.", param->name, count * sizeof *expected);
    real *dense = calloc(count, sizeof *dense);
    assert_non_null(dense);
    if (param->nm)
        nm_to_dense(param->nm, dense);
    else
        memcpy(dense, param->effective, count * sizeof *dense);
    assert_true(golden_error(dense, expected, count) < WEIGHT_TOLERANCE);
    free(dense);
    free(expected);
    if (!param->scale)
        return;
    const struct param *scale = param->scale;
    float *scales = data_of(file, c, "scale.", param->name, scale->count * sizeof *scales);
    assert_true(golden_error(model->weights + scale->offset, scales, scale->count) <
                WEIGHT_TOLERANCE);
    free(scales);
}

static void expect_branch(const struct golden_case *c, const struct st_file *file,
                          const struct model *model, const struct param *param)
{
    float *expected = data_of(file, c, "final.", param->name, param->count * sizeof *expected);
    assert_true(golden_error(model->weights + param->offset, expected, param->count) <
                WEIGHT_TOLERANCE);
    free(expected);
}

static void check_case(const struct golden_case *c, const struct st_file *file,
                       const struct st_file *base, size_t micro_batch)
{
    struct world w;
    const struct trainer_config config = config_of(c, file, base, micro_batch);
    double *losses = data_of(file, c, "loss", "", config.steps * sizeof *losses);
    double *norms = data_of(file, c, "grad_norm", "", config.steps * sizeof *norms);
    world_open(&w, &config, base);
    load_branches(w.trainer->model, c, file);
    for (size_t i = 0; i < config.steps; i++) {
        struct step_result result;
        assert_int_equal(trainer_step(w.trainer, NULL, &result, NULL), 0);
        expect_close(c, "loss", i + 1, result.loss, losses[i]);
        expect_close(c, "gradient norm", i + 1, result.grad_norm, norms[i]);
    }
    const struct model *model = w.trainer->model;
    for (size_t i = 0; i < model->param_count; i++) {
        if (model->params[i].adapter && strstr(model->params[i].name, ".layers.0."))
            expect_branch(c, file, model, &model->params[i]);
        if (!model->params[i].target)
            continue;
        expect_mask(c, file, &model->params[i]);
        if (strstr(model->params[i].name, ".layers.0."))
            expect_weights(c, file, model, &model->params[i]);
    }
    world_close(&w);
    free(losses);
    free(norms);
}

/* Runs the cases of a method; their number. */
static size_t check_method(const char *method)
{
    struct st_file *file, *base;
    char names[512];
    size_t checked = 0;
    assert_int_equal(st_open(&file, METHODS_PATH, NULL), 0);
    assert_int_equal(st_open(&base, GOLDEN_PATH, NULL), 0);
    snprintf(names, sizeof names, "%s", st_metadata(file, "cases"));
    for (char *rest = names, *name; (name = strtok_r(rest, " ", &rest)) != NULL;) {
        struct golden_case c;
        read_case(&c, file, name);
        if (strcmp(c.method, method) != 0)
            continue;
        check_case(&c, file, base, method_find(method)->latent ? 2 : 4);
        checked++;
    }
    st_close(file);
    st_close(base);
    return checked;
}

static void ste_follows_pytorch(void **state)
{
    (void)state;
    assert_int_equal(check_method("ste"), 2);
}

static void srste_follows_pytorch(void **state)
{
    (void)state;
    assert_int_equal(check_method("srste"), 2);
}

static void cast_follows_pytorch(void **state)
{
    (void)state;
    assert_int_equal(check_method("cast"), 3);
}

static void rigl_follows_pytorch(void **state)
{
    (void)state;
    assert_int_equal(check_method("rigl"), 3);
}

static void slope_follows_pytorch(void **state)
{
    (void)state;
    assert_int_equal(check_method("slope"), 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ste_follows_pytorch),   cmocka_unit_test(srste_follows_pytorch),
        cmocka_unit_test(cast_follows_pytorch),  cmocka_unit_test(rigl_follows_pytorch),
        cmocka_unit_test(slope_follows_pytorch),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
