/* The engine's registries and the job's option table list the same names: a job can ask for all
 * that there is, and for nothing that is not there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/method.h"
#include "engine/optim/optim.h"
#include "proto/msg/spec.h"
#include <string.h>

static const char *const *choices_of(const char *path)
{
    size_t count;
    const struct opt *rows = spec_options(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(rows[i].path, path) == 0)
            return rows[i].choices;
    }
    fail_msg("no option %s", path);
    return NULL;
}

static size_t length_of(const char *const *choices)
{
    size_t length = 0;
    while (choices[length])
        length++;
    return length;
}

static void every_method_of_a_job_is_in_the_engine_and_the_other_way_round(void **state)
{
    (void)state;
    const char *const *choices = choices_of("/sparsity/method");
    size_t count;
    method_table(&count);
    assert_int_equal(length_of(choices), count);
    for (size_t i = 0; i < count; i++)
        assert_non_null(method_find(choices[i]));
}

static void every_optimizer_of_a_job_is_in_the_engine_and_the_other_way_round(void **state)
{
    (void)state;
    const char *const *choices = choices_of("/optimizer/name");
    size_t count;
    optimizer_table(&count);
    assert_int_equal(length_of(choices), count);
    for (size_t i = 0; i < count; i++)
        assert_non_null(optimizer_find(choices[i]));
}

static void every_adapter_of_a_job_is_in_the_engine_and_the_other_way_round(void **state)
{
    (void)state;
    const char *const *choices = choices_of("/adapter/name");
    assert_int_equal(length_of(choices), length_of(adapter_names));
    for (size_t i = 0; choices[i]; i++)
        assert_string_equal(choices[i], adapter_names[i]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_method_of_a_job_is_in_the_engine_and_the_other_way_round),
        cmocka_unit_test(every_optimizer_of_a_job_is_in_the_engine_and_the_other_way_round),
        cmocka_unit_test(every_adapter_of_a_job_is_in_the_engine_and_the_other_way_round),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
