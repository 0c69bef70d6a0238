/* Adapters: PyTorch's numbers, the start, what must be equal bit for bit, and the model's
 * folder. Finite differences are in test_ops_f64.c and test_model_f64.c, training and resuming
 * in test_adapter_train.c. */
#include "tests/engine/checkpoint_fixture.h"

#include "engine/model_config.h"
#include "engine/model_private.h"
#include "tests/engine/golden.h"

#define ADAPTER_GOLDEN HEBB_SOURCE_DIR "/tests/golden/adapter.safetensors"

/* As in test_model_golden.c: single precision over sums of at most 64 terms and two layers errs
 * by some 1e-6 of a tensor's norm. */
static const double TOLERANCE = 1e-5;

enum { BATCH = 5, CONTEXT = 40, ROWS = BATCH * CONTEXT, VOCAB = 19 }; /* 4 panels of tokens */

static const char *const DEVICES[] = {"ref", "cpu"};
enum { DEVICE_COUNT = sizeof DEVICES / sizeof DEVICES[0] };

static struct model_shape shape_of(unsigned n, unsigned m, enum adapter_kind kind, double gamma)
{
    struct model_shape shape = {.hidden = 32,
                                .intermediate = 48,
                                .layers = 2,
                                .heads = 4,
                                .kv_heads = 2,
                                .vocab = VOCAB,
                                .context = CONTEXT,
                                .rope_theta = 10000,
                                .norm_eps = 1e-6,
                                .n = n,
                                .m = m};
    if (kind != ADAPTER_NONE)
        shape.adapter = (struct adapter_shape){.kind = kind,
                                               .rank = 3,
                                               .hidden = kind == ADAPTER_COMOLORA ? 2 : 0,
                                               .gamma = gamma,
                                               .alpha = 1.5};
    return shape;
}

struct pass {
    struct pool *pool;
    struct device *dev;
    struct model *model;
    int32_t tokens[ROWS], targets[ROWS];
    real loss[ROWS];
};

static void pass_open(struct pass *p, const char *device, struct model_shape shape,
                      unsigned threads)
{
    assert_int_equal(pool_create(&p->pool, threads, NULL), 0);
    assert_int_equal(device_create(&p->dev, device, p->pool, NULL), 0);
    assert_int_equal(model_create(&p->model, p->dev, &shape, BATCH, CONTEXT, true, NULL), 0);
    model_init(p->model, 4);
    for (size_t i = 0; i < ROWS; i++) {
        p->tokens[i] = (int32_t)(i * i % VOCAB);
        p->targets[i] = (int32_t)(i * 5 % VOCAB);
    }
}

static void pass_close(struct pass *p)
{
    model_destroy(p->model);
    device_destroy(p->dev);
    pool_destroy(p->pool);
}

/* Numbers for the adapter's parts that start at 0, the same ones for every part of a name. */
static void stir(struct model *model)
{
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        struct philox key = {.seed = 3, .purpose = PHILOX_GENERATE};
        for (const char *c = param->name; *c; c++)
            key.stream = (key.stream * 31 + (unsigned char)*c) % 65521;
        for (size_t k = 0; param->adapter && k < param->count; k++)
            model->weights[param->offset + k] = (real)(0.3 * philox_normal(&key, k));
    }
}

static void run(struct pass *p)
{
    memset(p->model->grads, 0, p->model->count * sizeof *p->model->grads);
    model_forward_backward(p->model, p->tokens, p->targets, p->loss, REAL(1.0) / ROWS, BATCH,
                           CONTEXT);
}

/* ---- PyTorch ---- */

/* One part of the golden branches in the slab's order: B transposed. */
static float *golden_part(const struct st_file *file, const char *prefix,
                          const struct param *param)
{
    char name[ST_NAME_MAX];
    size_t bytes = 0;
    snprintf(name, sizeof name, "%s", param->name);
    char *bt = strstr(name, "lora_BT");
    if (bt)
        strcpy(bt, "lora_B.weight");
    float *data = golden_data(file, &bytes, prefix, name);
    assert_int_equal(bytes, param->count * sizeof *data);
    if (!bt)
        return data;
    float *turned = malloc(bytes);
    assert_non_null(turned);
    for (size_t o = 0; o < param->cols; o++)
        for (size_t k = 0; k < param->rows; k++)
            turned[k * param->cols + o] = data[o * param->rows + k];
    free(data);
    return turned;
}

static void compare(const struct st_file *file, const char *prefix, const struct param *param,
                    const real *actual)
{
    size_t bytes = 0;
    float *expected = param->adapter ? golden_part(file, prefix, param)
                                     : golden_data(file, &bytes, prefix, param->name);
    double error = golden_error(actual, expected, param->count);
    if (!(error <= TOLERANCE))
        fail_msg("%s%s: relative error %g", prefix, param->name, error);
    free(expected);
}

static void compare_output(const struct st_file *file, const char *prefix, const char *name,
                           const real *actual, size_t count)
{
    size_t bytes = 0;
    float *expected = golden_data(file, &bytes, prefix, name);
    assert_int_equal(bytes, count * sizeof *expected);
    double error = golden_error(actual, expected, count);
    if (!(error <= TOLERANCE))
        fail_msg("%s%s: relative error %g", prefix, name, error);
    free(expected);
}

static void check_golden(const char *device, unsigned m, enum adapter_kind kind,
                         const char *prefix)
{
    struct st_file *base = NULL, *file = NULL;
    struct device *dev = NULL;
    struct model *model = NULL;
    char gradients[24];
    size_t bytes = 0;
    assert_int_equal(st_open(&base, GOLDEN_PATH, NULL), 0);
    assert_int_equal(st_open(&file, ADAPTER_GOLDEN, NULL), 0);
    struct model_shape shape = golden_shape(base, 1, m);
    bool gate = kind == ADAPTER_COMOLORA;
    shape.adapter = (struct adapter_shape){.kind = kind,
                                           .rank = golden_size(file, "rank"),
                                           .hidden = gate ? golden_size(file, "hidden") : 0,
                                           .gamma = gate ? golden_number(file, "gamma") : 0,
                                           .alpha = golden_number(file, "alpha")};
    size_t batch = golden_size(base, "batch"), rows = batch * shape.context;
    int32_t *tokens = golden_data(base, &bytes, "", "tokens");
    int32_t *targets = golden_data(base, &bytes, "", "targets");
    assert_int_equal(device_create(&dev, device, NULL, NULL), 0);
    assert_int_equal(model_create(&model, dev, &shape, batch, shape.context, true, NULL), 0);
    golden_load(model, base);
    for (size_t i = model_base_count(&shape); i < model->param_count; i++) {
        float *part = golden_part(file, "", &model->params[i]);
        for (size_t k = 0; k < model->params[i].count; k++)
            model->weights[model->params[i].offset + k] = part[k];
        free(part);
    }
    real *loss = calloc(rows, sizeof *loss),
         *logits = calloc(rows * shape.vocab, sizeof *logits);
    model_loss(model, tokens, targets, loss, batch, shape.context);
    compare_output(file, prefix, "losses", loss, rows);
    model_logits(model, tokens, logits, batch, shape.context, 0, rows);
    compare_output(file, prefix, "logits", logits, rows * shape.vocab);
    model_forward_backward(model, tokens, targets, loss, REAL(1.0) / (real)rows, batch,
                           shape.context);
    compare_output(file, prefix, "losses", loss, rows);
    snprintf(gradients, sizeof gradients, "%sgrad.", prefix);
    for (size_t i = 0; i < model->param_count; i++)
        compare(file, gradients, &model->params[i], model->grads + model->params[i].offset);
    free(loss);
    free(logits);
    free(tokens);
    free(targets);
    model_destroy(model);
    device_destroy(dev);
    st_close(base);
    st_close(file);
}

static void branches_agree_with_pytorch(void **state)
{
    (void)state;
    for (size_t i = 0; i < DEVICE_COUNT; i++) {
        check_golden(DEVICES[i], 1, ADAPTER_LORA, "dense.lora.");
        check_golden(DEVICES[i], 4, ADAPTER_COMOLORA, "nm14.comolora.");
    }
}

/* ---- the start ---- */

/* The model's own parameters are where they are without an adapter, and the output is the same.
 */
static void at_the_start_the_branch_adds_nothing(void **state)
{
    (void)state;
    static const enum adapter_kind kinds[] = {ADAPTER_LORA, ADAPTER_COMOLORA};
    for (size_t i = 0; i < DEVICE_COUNT; i++) {
        for (size_t k = 0; k < 2; k++) {
            struct pass plain, with;
            pass_open(&plain, DEVICES[i], shape_of(1, 4, ADAPTER_NONE, 0), 1);
            pass_open(&with, DEVICES[i], shape_of(1, 4, kinds[k], 0.5), 1);
            const struct model *a = plain.model, *b = with.model;
            for (size_t j = 0; j < a->param_count; j++) {
                assert_string_equal(a->params[j].name, b->params[j].name);
                assert_int_equal(a->params[j].offset, b->params[j].offset);
            }
            assert_memory_equal(a->weights, b->weights, a->count * sizeof *a->weights);
            assert_memory_equal(a->codes, b->codes, a->code_count * sizeof *a->codes);
            run(&plain);
            run(&with);
            assert_memory_equal(plain.loss, with.loss, sizeof plain.loss);
            assert_memory_equal(a->grads, b->grads, a->count * sizeof *a->grads);
            pass_close(&plain);
            pass_close(&with);
        }
    }
}

static void at_the_start_the_gate_is_one(void **state)
{
    (void)state;
    struct pass p;
    pass_open(&p, "cpu", shape_of(1, 4, ADAPTER_COMOLORA, 0.5), 1);
    struct model *model = p.model;
    for (size_t i = model_base_count(&model->shape); i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        double sum = 0;
        for (size_t k = 0; k < param->count; k++)
            sum += pow((double)model->weights[param->offset + k], 2);
        bool random = strstr(param->name, "lora_A") || strstr(param->name, "como.W1");
        assert_true(random ? sum > 0 : sum == 0);
        /* Variance 1 / din: z and a have the variance of x. 10 sigma of a mean of >= 64. */
        if (random)
            assert_true(fabs(sum / (double)param->rows - 1) <
                        10 * sqrt(2 / (double)param->count));
    }
    /* B alone is stirred: with m = 1 the model is that of lora with the same A and B. */
    struct pass lora;
    pass_open(&lora, "cpu", shape_of(1, 4, ADAPTER_LORA, 0), 1);
    for (size_t layer = 0; layer < 2; layer++) {
        for (size_t kind = 0; kind < MODEL_TARGETS_PER_LAYER; kind++) {
            struct param *a = model_adapter_param(model, layer, kind, ADAPTER_BT);
            struct param *b = model_adapter_param(lora.model, layer, kind, ADAPTER_BT);
            assert_string_equal(a->name, b->name);
            for (size_t k = 0; k < a->count; k++)
                model->weights[a->offset + k] = lora.model->weights[b->offset + k] =
                    (real)k / (real)a->count - REAL(0.5);
        }
    }
    run(&p);
    run(&lora);
    assert_memory_equal(p.loss, lora.loss, sizeof p.loss);
    pass_close(&p);
    pass_close(&lora);
}

/* ---- bit for bit ---- */

/* gamma 0: m = 1 + 0 tanh(u) = 1 exactly, and what flows back through the gate is 0. */
static void comolora_without_gamma_is_lora(void **state)
{
    (void)state;
    for (size_t i = 0; i < DEVICE_COUNT; i++) {
        struct pass lora, como;
        pass_open(&lora, DEVICES[i], shape_of(2, 4, ADAPTER_LORA, 0), 1);
        pass_open(&como, DEVICES[i], shape_of(2, 4, ADAPTER_COMOLORA, 0), 1);
        stir(lora.model);
        stir(como.model);
        run(&lora);
        run(&como);
        assert_memory_equal(lora.loss, como.loss, sizeof lora.loss);
        for (size_t k = 0; k < lora.model->param_count; k++) {
            const struct param *a = &lora.model->params[k];
            const struct param *b = model_param(como.model, a->name);
            assert_non_null(b);
            for (size_t j = 0; j < a->count; j++) /* -0 is 0 */
                assert_true(lora.model->grads[a->offset + j] ==
                            como.model->grads[b->offset + j]);
        }
        pass_close(&lora);
        pass_close(&como);
    }
}

static void the_gate_matters(void **state)
{
    (void)state;
    struct pass lora, como;
    pass_open(&lora, "cpu", shape_of(2, 4, ADAPTER_LORA, 0), 1);
    pass_open(&como, "cpu", shape_of(2, 4, ADAPTER_COMOLORA, 0.5), 1);
    stir(lora.model);
    stir(como.model);
    run(&lora);
    run(&como);
    assert_memory_not_equal(lora.loss, como.loss, sizeof lora.loss);
    pass_close(&lora);
    pass_close(&como);
}

static void bits_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    struct pass one, three;
    pass_open(&one, "cpu", shape_of(1, 4, ADAPTER_COMOLORA, 0.5), 1);
    pass_open(&three, "cpu", shape_of(1, 4, ADAPTER_COMOLORA, 0.5), 3);
    assert_memory_equal(one.model->weights, three.model->weights,
                        one.model->count * sizeof *one.model->weights);
    stir(one.model);
    stir(three.model);
    run(&one);
    run(&three);
    assert_memory_equal(one.loss, three.loss, sizeof one.loss);
    assert_memory_equal(one.model->grads, three.model->grads,
                        one.model->count * sizeof *one.model->grads);
    pass_close(&one);
    pass_close(&three);
}

/* ---- shapes ---- */

static void expect_fault(struct adapter_shape adapter, const char *text)
{
    struct model_shape shape = shape_of(1, 4, ADAPTER_NONE, 0);
    struct err err = {0};
    shape.adapter = adapter;
    assert_int_equal(model_shape_check(&shape, &err), ERR_INVALID);
    if (!strstr(err.text, text))
        fail_msg("\"%s\" does not say %s", err.text, text);
}

static void wrong_adapters_are_refused_by_name(void **state)
{
    (void)state;
    const struct adapter_shape good = shape_of(1, 4, ADAPTER_COMOLORA, 0.5).adapter;
    struct adapter_shape a = good;
    assert_int_equal(adapter_check(&a, NULL), 0);
    a.rank = 0, expect_fault(a, "adapter.rank is 0"), a = good;
    a.rank = 5000, expect_fault(a, "adapter.rank is 5000"), a = good;
    a.hidden = 0, expect_fault(a, "adapter.hidden is 0"), a = good;
    a.alpha = 0, expect_fault(a, "adapter.alpha is 0"), a = good;
    a.gamma = NAN, expect_fault(a, "adapter.gamma is nan"), a = good;
    a.kind = ADAPTER_LORA, expect_fault(a, "\"lora\" has no gate");
}

static void sizes_are_what_the_model_takes(void **state)
{
    (void)state;
    for (size_t i = 0; i < DEVICE_COUNT; i++) {
        for (int training = 0; training < 2; training++) {
            struct model_shape shape = shape_of(1, 4, ADAPTER_COMOLORA, 0.5);
            struct model_bytes bytes;
            struct device *dev = NULL;
            struct model *model = NULL;
            assert_int_equal(device_create(&dev, DEVICES[i], NULL, NULL), 0);
            assert_int_equal(model_create(&model, dev, &shape, 3, 30, training, NULL), 0);
            model_sizes(&bytes, DEVICES[i], 1, &shape, 3, 30, training);
            assert_int_equal(bytes.weights, model->count * sizeof(real));
            assert_int_equal(bytes.activations,
                             model->private_data->activation_count * sizeof(real));
            model_destroy(model);
            device_destroy(dev);
        }
    }
}

/* ---- the model's folder ---- */

static void adapter_fixture(struct fixture *f, enum adapter_kind kind, unsigned n, unsigned m)
{
    struct trainer_config config = fixture_config(n == m ? "dense" : "chts24", n, m);
    config.shape.adapter = shape_of(1, 4, kind, 0.5).adapter;
    fixture_open(f, &config);
    fixture_fill(f, 5);
    assert_int_equal(
        model_export(f->trainer->model, fixture_path(f, "model"), "chts24", "bytes", NULL), 0);
}

static int import(struct model **out, struct fixture *f, struct err *err)
{
    char path[FSX_PATH_MAX];
    strcpy(path, fixture_path(f, "model"));
    return model_import(out, f->dev, path, 1, 0, err);
}

static void export_and_import_give_back_the_branches(void **state)
{
    (void)state;
    static const enum adapter_kind kinds[] = {ADAPTER_LORA, ADAPTER_COMOLORA};
    for (size_t i = 0; i < 4; i++) {
        struct fixture f;
        struct model *model = NULL;
        adapter_fixture(&f, kinds[i % 2], 1, i < 2 ? 4 : 1);
        const struct model *was = f.trainer->model;
        assert_int_equal(import(&model, &f, NULL), 0);
        assert_memory_equal(&model->shape.adapter, &was->shape.adapter,
                            sizeof model->shape.adapter);
        assert_int_equal(model->count, was->count);
        for (size_t k = 0; k < model->param_count; k++) { /* the fixture fills gaps too */
            const struct param *param = &model->params[k];
            assert_memory_equal(model->weights + param->offset, was->weights + param->offset,
                                param->count * sizeof(real));
        }
        int32_t tokens[8] = {1, 5, 32, 0, 7, 7, 2, 9};
        real a[33], b[33];
        model_logits(model, tokens, a, 1, 8, 7, 1);
        model_logits(f.trainer->model, tokens, b, 1, 8, 7, 1);
        assert_memory_equal(a, b, sizeof a);
        model_destroy(model);
        fixture_release(&f);
    }
}

/* Others find a plain LLaMA in model.safetensors, a note in config.json, and B as (dout, r). */
static void the_folder_keeps_the_branches_apart(void **state)
{
    (void)state;
    struct fixture f;
    struct st_file *file = NULL;
    char text[4096] = "";
    adapter_fixture(&f, ADAPTER_COMOLORA, 1, 4);
    assert_int_equal(st_open(&file, fixture_path(&f, "model/model.safetensors"), NULL), 0);
    assert_int_equal(st_count(file), model_base_count(&f.trainer->model->shape));
    st_close(file);
    assert_int_equal(st_open(&file, fixture_path(&f, "model/adapter.safetensors"), NULL), 0);
    assert_int_equal(st_count(file), 2 * MODEL_TARGETS_PER_LAYER * ADAPTER_PARTS);
    const struct st_tensor *b = st_find(file, "model.layers.1.mlp.down_proj.lora_B.weight");
    const struct param *bt =
        model_param(f.trainer->model, "model.layers.1.mlp.down_proj.lora_BT.weight");
    assert_non_null(b);
    assert_int_equal(b->shape[0], 16);
    assert_int_equal(b->shape[1], 3);
    float entry;
    memcpy(&entry, (const char *)st_data(file, b) + (5 * 3 + 2) * sizeof entry, sizeof entry);
    assert_true(entry == (float)f.trainer->model->weights[bt->offset + 2 * 16 + 5]);
    st_close(file);
    FILE *config = fopen(fixture_path(&f, "model/config.json"), "r");
    assert_non_null(config);
    assert_true(fread(text, 1, sizeof text - 1, config) > 0);
    fclose(config);
    assert_non_null(strstr(text, "\"hebb_adapter\""));
    fixture_release(&f);
}

static void a_damaged_adapter_file_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct model *model = NULL;
    struct err err = {0};
    adapter_fixture(&f, ADAPTER_LORA, 1, 4);
    fixture_damage(fixture_path(&f, "model/adapter.safetensors"), -1, 0); /* unchanged: loads */
    assert_int_equal(import(&model, &f, &err), 0);
    model_destroy(model);
    /* 'A' of the first lora_A in the header becomes another letter: the part is missing. */
    FILE *file = fopen(fixture_path(&f, "model/adapter.safetensors"), "rb");
    char header[2048] = "";
    assert_non_null(file);
    assert_true(fread(header, 1, sizeof header - 1, file) > 0);
    fclose(file);
    const char *at = strstr(header + 8, "lora_A");
    assert_non_null(at);
    fixture_damage(fixture_path(&f, "model/adapter.safetensors"), at - header + 5, 'A' ^ 'Q');
    assert_int_equal(import(&model, &f, &err), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "self_attn.q_proj.lora_A.weight"));
    assert_int_equal(remove(fixture_path(&f, "model/adapter.safetensors")), 0);
    assert_int_equal(import(&model, &f, &err), ERR_NOT_FOUND);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(branches_agree_with_pytorch),
        cmocka_unit_test(at_the_start_the_branch_adds_nothing),
        cmocka_unit_test(at_the_start_the_gate_is_one),
        cmocka_unit_test(comolora_without_gamma_is_lora),
        cmocka_unit_test(the_gate_matters),
        cmocka_unit_test(bits_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(wrong_adapters_are_refused_by_name),
        cmocka_unit_test(sizes_are_what_the_model_takes),
        cmocka_unit_test(export_and_import_give_back_the_branches),
        cmocka_unit_test(the_folder_keeps_the_branches_apart),
        cmocka_unit_test(a_damaged_adapter_file_is_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
