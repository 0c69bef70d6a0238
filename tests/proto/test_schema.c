/* The JSON Schema and docs/jobspec.md are what the option table says. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/base/fsx.h"
#include "proto/json/json.h"
#include "proto/msg/schema.h"
#include "proto/msg/spec.h"
#include <stdio.h>
#include <string.h>

static cJSON *schema_tree(void)
{
    struct buf text;
    struct err err = {0};
    cJSON *tree = NULL;
    buf_init(&text, 1 << 20);
    spec_schema(&text);
    assert_false(text.failed);
    if (json_parse(&tree, text.data, text.len, &err) != 0) {
        fail_msg("%s", err.text);
    }
    buf_release(&text);
    return tree;
}

static void schema_has_every_row_with_default_and_bounds(void **state)
{
    (void)state;
    cJSON *tree = schema_tree();
    size_t count;
    const struct opt *rows = spec_options(&count);
    for (size_t i = 0; i < count; i++) {
        char path[OPT_STRING_MAX];
        snprintf(path, sizeof(path), "%s", rows[i].path + 1);
        char *slash = strchr(path, '/');
        const cJSON *object = tree;
        if (slash) {
            *slash = '\0';
            object = json_object(json_object(tree, "properties"), path);
        }
        const cJSON *row =
            json_object(json_object(object, "properties"), slash ? slash + 1 : path);
        if (!row) {
            fail_msg("%s is missing", rows[i].path);
        }
        assert_string_equal(json_string(row, "description"), rows[i].help);
        bool has_default = rows[i].def && rows[i].def[0];
        assert_int_equal(cJSON_HasObjectItem(row, "default"), has_default);
        assert_true((rows[i].choices != NULL) == (json_array(row, "enum") != NULL));
        assert_true((rows[i].owners != NULL) == (json_array(row, "x-owners") != NULL));
        double least;
        if (rows[i].type == OPT_INT || rows[i].type == OPT_REAL) {
            assert_true(json_real(&least, row, "minimum") && least == rows[i].min);
        }
    }
    cJSON_Delete(tree);
}

static void schema_requires_the_training_data_only(void **state)
{
    (void)state;
    cJSON *tree = schema_tree();
    const cJSON *top = json_array(tree, "required");
    const cJSON *data = json_object(json_object(tree, "properties"), "data");
    assert_int_equal(cJSON_GetArraySize(top), 1);
    assert_string_equal(top->child->valuestring, "data");
    assert_int_equal(cJSON_GetArraySize(json_array(data, "required")), 1);
    assert_string_equal(json_array(data, "required")->child->valuestring, "train");
    assert_int_equal(cJSON_GetArraySize(json_object(tree, "x-presets")), 4);
    cJSON_Delete(tree);
}

static void jobspec_document_is_what_the_table_prints(void **state)
{
    (void)state;
    struct buf printed, file;
    buf_init(&printed, 1 << 20);
    buf_init(&file, 1 << 20);
    spec_markdown(&printed);
    assert_int_equal(fsx_read(&file, HEBB_SOURCE_DIR "/docs/jobspec.md", NULL), 0);
    if (strcmp(printed.data, file.data) != 0) {
        fail_msg("docs/jobspec.md is old: run `hebb spec --markdown > docs/jobspec.md`");
    }
    buf_release(&printed);
    buf_release(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(schema_has_every_row_with_default_and_bounds),
        cmocka_unit_test(schema_requires_the_training_data_only),
        cmocka_unit_test(jobspec_document_is_what_the_table_prints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
