/* Model folders: export and import, and folders of others (several files, half precision). */
#include "tests/engine/checkpoint_fixture.h"

#include "engine/model_config.h"
#include "engine/model_source.h"
#include "proto/format/safetensors.h"
#include <unistd.h>

static void exported(struct fixture *f, const struct trainer_config *config, const char *method)
{
    struct err err = {0};
    fixture_open(f, config);
    fixture_fill(f, 5);
    if (model_export(f->trainer->model, fixture_path(f, "model"), method, "bytes", &err) != 0)
        fail_msg("%s", err.text);
}

static struct model *import(struct fixture *f, const char *name)
{
    struct err err = {0};
    struct model *model = NULL;
    char path[FSX_PATH_MAX];
    strcpy(path, fixture_path(f, name));
    if (model_import(&model, f->dev, path, 1, 0, &err) != 0)
        fail_msg("%s", err.text);
    return model;
}

static void export_and_import_give_back_the_model(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        unsigned n, m;
        bool tied;
    } cases[] = {{"chts24", 1, 4, false}, {"static", 3, 8, true}, {"dense", 1, 1, false}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        struct trainer_config config = fixture_config(cases[i].method, cases[i].n, cases[i].m);
        config.shape.tie_embeddings = cases[i].tied;
        exported(&f, &config, cases[i].method);
        struct model *model = import(&f, "model");
        const struct model *was = f.trainer->model;
        assert_int_equal(model->count, was->count);
        for (size_t k = 0; k < model->count; k++)
            assert_true((float)model->weights[k] == (float)was->weights[k]);
        if (was->code_count > 0)
            assert_memory_equal(model->codes, was->codes, was->code_count * sizeof(uint16_t));
        assert_true(model->shape.tie_embeddings == cases[i].tied);
        assert_true(model->shape.rope_theta == config.shape.rope_theta);
        assert_true(model->shape.norm_eps == config.shape.norm_eps);
        model_destroy(model);
        fixture_release(&f);
    }
}

static void the_exported_matrices_are_zero_outside_the_mask(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct model_source source;
    struct trainer_config config = fixture_config("chts24", 1, 4);
    exported(&f, &config, "chts24");
    assert_int_equal(model_source_open(&source, fixture_path(&f, "model"), &err), 0);
    size_t checked = 0;
    for (size_t i = 0; i < f.trainer->model->param_count; i++) {
        const struct param *param = &f.trainer->model->params[i];
        const struct st_file *file;
        const struct st_tensor *tensor = model_source_find(&source, param->name, &file);
        assert_non_null(tensor);
        assert_int_equal(tensor->type, ST_F32);
        if (!param->nm)
            continue;
        for (size_t g = 0; g < param->rows * param->cols / 4; g++) {
            unsigned links = 0;
            for (size_t j = 0; j < 4; j++)
                links += model_source_entry(st_data(file, tensor), ST_F32, 4 * g + j) != 0;
            assert_int_equal(links, 1);
            checked++;
        }
    }
    assert_true(checked > 0);
    model_source_release(&source);
    fixture_release(&f);
}

static void an_existing_folder_is_not_overwritten(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct trainer_config config = fixture_config("chts24", 1, 4);
    exported(&f, &config, "chts24");
    assert_int_equal(
        model_export(f.trainer->model, fixture_path(&f, "model"), "chts24", "bytes", &err),
        ERR_CONFLICT);
    fixture_release(&f);
}

static void a_weight_outside_the_mask_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct model *model = NULL;
    struct trainer_config config = fixture_config("chts24", 1, 4);
    exported(&f, &config, "chts24");
    /* Another code in patterns.safetensors: the weight under the old one is now outside. */
    fixture_damage(fixture_path(&f, "model/patterns.safetensors"), -2, 1);
    assert_int_equal(model_import(&model, f.dev, fixture_path(&f, "model"), 1, 0, &err),
                     ERR_CORRUPT);
    assert_non_null(strstr(err.text, "outside the mask"));
    fixture_release(&f);
}

/* --- folders of others --- */

static uint16_t bf16_of(float x)
{
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    return (uint16_t)(word >> 16);
}

/* Exact for the values of the test: multiples of 1/8 below 2^8, and a subnormal. */
static uint16_t f16_of(float x)
{
    uint32_t word;
    memcpy(&word, &x, sizeof word);
    uint16_t sign = (uint16_t)(word >> 16 & 0x8000u);
    if (x == 0)
        return sign;
    if (x == 0x1p-24f)
        return 1;
    uint32_t exponent = (word >> 23 & 255u) - 112, mantissa = word >> 13 & 1023u;
    return (uint16_t)(sign | exponent << 10 | mantissa);
}

static float value_of(size_t param, size_t i)
{
    return i == 1 ? 0x1p-24f : (float)((param * 7 + i * 3) % 61) / 8 - 3.5f;
}

/* One file with the params [first, last) of the model's list in a half type. */
static void write_half(const struct fixture *f, const char *name, size_t first, size_t last,
                       enum st_type type)
{
    const struct model *model = f->trainer->model;
    struct st_tensor tensors[64] = {0};
    struct st_writer *writer;
    struct err err = {0};
    for (size_t i = first; i < last; i++) {
        const struct param *param = &model->params[i];
        struct st_tensor *tensor = &tensors[i - first];
        strcpy(tensor->name, param->name);
        tensor->type = type;
        tensor->rank = param->rows == 1 ? 1 : 2;
        tensor->shape[0] = param->rows == 1 ? param->cols : param->rows;
        tensor->shape[1] = param->rows == 1 ? 0 : param->cols;
    }
    assert_int_equal(
        st_writer_open(&writer, fixture_path(f, name), tensors, last - first, NULL, &err), 0);
    for (size_t i = first; i < last; i++)
        for (size_t k = 0; k < model->params[i].count; k++) {
            uint16_t half = type == ST_F16 ? f16_of(value_of(i, k)) : bf16_of(value_of(i, k));
            assert_int_equal(st_writer_data(writer, &half, sizeof half, &err), 0);
        }
    assert_int_equal(st_writer_finish(writer, &err), 0);
}

static void write_text(const struct fixture *f, const char *name, const char *text)
{
    assert_int_equal(fsx_publish(fixture_path(f, name), text, strlen(text), 0644, NULL), 0);
}

static const char CONFIG[] =
    "{\"model_type\": \"llama\", \"hidden_size\": 16, \"intermediate_size\": 24, "
    "\"num_hidden_layers\": 2, \"num_attention_heads\": 4, \"num_key_value_heads\": 2, "
    "\"vocab_size\": 33, \"max_position_embeddings\": 8, \"rms_norm_eps\": 1e-6, "
    "\"rope_theta\": 500000.0, \"rope_scaling\": null, \"tie_word_embeddings\": false%s}";

static void write_config(const struct fixture *f, const char *more)
{
    char text[1024];
    snprintf(text, sizeof text, CONFIG, more);
    write_text(f, "other/config.json", text);
}

static void a_folder_of_several_half_precision_files_is_imported(void **state)
{
    (void)state;
    struct fixture f;
    struct trainer_config config = fixture_config("dense", 1, 1);
    struct buf index;
    fixture_open(&f, &config);
    const struct model *model = f.trainer->model;
    assert_int_equal(fsx_mkdirs(fixture_path(&f, "other"), 0755, NULL), 0);
    write_config(&f, "");
    write_half(&f, "other/part-1.safetensors", 0, 5, ST_F16);
    write_half(&f, "other/part-2.safetensors", 5, model->param_count, ST_BF16);
    buf_init(&index, 1 << 16);
    buf_puts(&index, "{\"weight_map\": {");
    for (size_t i = 0; i < model->param_count; i++)
        buf_printf(&index, "%s\"%s\": \"part-%d.safetensors\"", i ? ", " : "",
                   model->params[i].name, i < 5 ? 1 : 2);
    buf_puts(&index, "}}");
    write_text(&f, "other/model.safetensors.index.json", index.data);
    buf_release(&index);

    struct model *other = import(&f, "other");
    assert_true(other->shape.rope_theta == 500000.0);
    for (size_t i = 0; i < other->param_count; i++) {
        const struct param *param = &other->params[i];
        for (size_t k = 0; k < param->count; k++) {
            float want = value_of(i, k);
            if (i >= 5) { /* bf16 cuts */
                uint32_t word = (uint32_t)bf16_of(want) << 16;
                memcpy(&want, &word, sizeof want);
            }
            if ((float)other->weights[param->offset + k] != want)
                fail_msg("%s[%zu]: %g, not %g", param->name, k,
                         (double)other->weights[param->offset + k], (double)want);
        }
    }
    model_destroy(other);
    fixture_release(&f);
}

static void what_this_model_does_not_have_is_refused_by_name(void **state)
{
    (void)state;
    static const struct {
        const char *more, *word;
        int code;
    } cases[] = {
        {", \"attention_bias\": true", "attention_bias", ERR_UNSUPPORTED},
        {", \"hidden_act\": \"gelu\"", "gelu", ERR_UNSUPPORTED},
        {", \"head_dim\": 8", "head_dim", ERR_UNSUPPORTED},
        {", \"rope_parameters\": {\"rope_type\": \"llama3\", \"rope_theta\": 1e4}", "llama3",
         ERR_UNSUPPORTED},
        {", \"rope_parameters\": {\"rope_theta\": -1}", "rope_theta", ERR_CORRUPT},
    };
    struct fixture f;
    struct trainer_config config = fixture_config("dense", 1, 1);
    fixture_open(&f, &config);
    assert_int_equal(fsx_mkdirs(fixture_path(&f, "other"), 0755, NULL), 0);
    write_half(&f, "other/model.safetensors", 0, f.trainer->model->param_count, ST_BF16);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct model *model = NULL;
        struct err err = {0};
        write_config(&f, cases[i].more);
        assert_int_equal(model_import(&model, f.dev, fixture_path(&f, "other"), 1, 0, &err),
                         cases[i].code);
        if (!strstr(err.text, cases[i].word))
            fail_msg("%s: %s", cases[i].more, err.text);
    }
    fixture_release(&f);
}

static void an_index_that_leaves_the_folder_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct model *model = NULL;
    struct trainer_config config = fixture_config("dense", 1, 1);
    fixture_open(&f, &config);
    assert_int_equal(fsx_mkdirs(fixture_path(&f, "other"), 0755, NULL), 0);
    write_config(&f, "");
    write_text(&f, "other/model.safetensors.index.json",
               "{\"weight_map\": {\"lm_head.weight\": \"../secret.safetensors\"}}");
    assert_int_equal(model_import(&model, f.dev, fixture_path(&f, "other"), 1, 0, &err),
                     ERR_CORRUPT);
    assert_non_null(strstr(err.text, "../secret"));
    fixture_release(&f);
}

static void a_missing_tensor_and_a_wrong_shape_are_named(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct model *model = NULL;
    struct trainer_config config = fixture_config("dense", 1, 1);
    fixture_open(&f, &config);
    size_t count = f.trainer->model->param_count;
    assert_int_equal(fsx_mkdirs(fixture_path(&f, "other"), 0755, NULL), 0);
    write_config(&f, "");
    write_half(&f, "other/model.safetensors", 0, count - 1, ST_F16);
    assert_int_equal(model_import(&model, f.dev, fixture_path(&f, "other"), 1, 0, &err),
                     ERR_CORRUPT);
    assert_non_null(strstr(err.text, "lm_head.weight"));
    write_half(&f, "other/model.safetensors", 0, count, ST_F16);
    write_text(&f, "other/config.json",
               "{\"hidden_size\": 16, \"intermediate_size\": 28, \"num_hidden_layers\": 2, "
               "\"num_attention_heads\": 4, \"num_key_value_heads\": 2, \"vocab_size\": 33}");
    assert_int_equal(model_import(&model, f.dev, fixture_path(&f, "other"), 1, 8, &err),
                     ERR_CORRUPT);
    assert_non_null(strstr(err.text, "gate_proj"));
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(export_and_import_give_back_the_model),
        cmocka_unit_test(the_exported_matrices_are_zero_outside_the_mask),
        cmocka_unit_test(an_existing_folder_is_not_overwritten),
        cmocka_unit_test(a_weight_outside_the_mask_is_refused),
        cmocka_unit_test(a_folder_of_several_half_precision_files_is_imported),
        cmocka_unit_test(what_this_model_does_not_have_is_refused_by_name),
        cmocka_unit_test(an_index_that_leaves_the_folder_is_refused),
        cmocka_unit_test(a_missing_tensor_and_a_wrong_shape_are_named),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
