/* A sweep's file to its runs, and its runs to a table. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/cli/sweep.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define BASE "\"base\":{\"data\":{\"train\":[\"a.txt\"]},\"train\":{\"steps\":10,\"warmup\":1}}"

static struct sweep_plan make(const char *text)
{
    struct sweep_plan plan;
    struct sweep_faults faults = {0};
    struct err err = {0};
    if (sweep_plan_make(&plan, text, strlen(text), &faults, &err) != 0) {
        sweep_faults_print(&faults, "sweep");
        fail_msg("%s", err.text);
    }
    assert_int_equal(faults.count, 0);
    return plan;
}

/* A number or string at "/section/key" of a run's job as text. */
static const char *value_of(const struct sweep_run *run, const char *section, const char *key)
{
    static char out[64];
    cJSON *tree;
    assert_int_equal(json_parse(&tree, run->body, strlen(run->body), NULL), 0);
    const cJSON *object = *section ? json_object(tree, section) : tree;
    const cJSON *value = cJSON_GetObjectItemCaseSensitive(object, key);
    if (cJSON_IsNumber(value)) {
        snprintf(out, sizeof(out), "%g", value->valuedouble);
    } else {
        snprintf(out, sizeof(out), "%s", cJSON_IsString(value) ? value->valuestring : "none");
    }
    cJSON_Delete(tree);
    return out;
}

static void grid_is_multiplied_out_with_the_last_field_fastest(void **state)
{
    (void)state;
    struct sweep_plan plan =
        make("{\"name\":\"s\"," BASE ",\"grid\":{\"/sparsity/method\":[\"static\",\"set\"],"
             "\"/optimizer/lr\":[0.001,0.01,0.1]},\"seeds\":[\"5\",\"3\"]}");
    static const char *const names[] = {"method=static, lr=0.001", "method=static, lr=0.01",
                                        "method=static, lr=0.1",   "method=set, lr=0.001",
                                        "method=set, lr=0.01",     "method=set, lr=0.1"};
    assert_int_equal(plan.arm_count, 6);
    assert_int_equal(plan.run_count, 12);
    for (size_t i = 0; i < plan.run_count; i++) {
        const struct sweep_run *run = &plan.runs[i];
        assert_int_equal(run->arm, i % 6);
        assert_string_equal(plan.arms[run->arm].name, names[i % 6]);
        assert_string_equal(value_of(run, "train", "seed"), i < 6 ? "5" : "3");
        assert_string_equal(value_of(run, "sparsity", "method"), i % 6 < 3 ? "static" : "set");
        assert_string_equal(value_of(run, "optimizer", "lr"),
                            i % 3 == 0 ? "0.001" : (i % 3 == 1 ? "0.01" : "0.1"));
        assert_string_equal(value_of(run, "train", "steps"), "10");
    }
    assert_string_equal(value_of(&plan.runs[7], "", "name"), "s/method=static, lr=0.01/3");
    sweep_plan_release(&plan);
}

static void arms_have_values_and_grids_of_their_own(void **state)
{
    (void)state;
    struct sweep_plan plan = make(
        "{\"name\":\"s\"," BASE ",\"arms\":[{\"name\":\"dense\",\"set\":{\"/sparsity/method\":"
        "\"dense\"}},{\"name\":\"sparse\",\"set\":{\"/sparsity/method\":\"set\"},\"grid\":"
        "{\"/sparsity/n\":[1,2]}}],\"grid\":{\"/train/batch\":[4,8]}}");
    static const char *const names[] = {"dense, batch=4",       "dense, batch=8",
                                        "sparse, n=1, batch=4", "sparse, n=1, batch=8",
                                        "sparse, n=2, batch=4", "sparse, n=2, batch=8"};
    assert_int_equal(plan.run_count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_string_equal(plan.arms[i].name, names[i]);
        assert_string_equal(plan.runs[i].seed, "1");
    }
    assert_string_equal(value_of(&plan.runs[0], "sparsity", "n"), "none");
    assert_string_equal(value_of(&plan.runs[5], "sparsity", "n"), "2");
    assert_string_equal(value_of(&plan.runs[4], "train", "batch"), "4");
    sweep_plan_release(&plan);

    plan = make("{\"name\":\"s\"," BASE ",\"grid\":{\"/model/context\":[64],\"/train/context\":"
                "[32]}}"); /* two fields of one name: both in full */
    assert_string_equal(plan.arms[0].name, "model/context=64, train/context=32");
    sweep_plan_release(&plan);
    plan = make("{\"name\":\"s\"," BASE "}");
    assert_string_equal(plan.arms[0].name, "base");
    sweep_plan_release(&plan);
}

static void keys_are_of_sweep_arm_and_seed_only(void **state)
{
    (void)state;
    static const char *const texts[] = {
        "{\"name\":\"s\"," BASE ",\"arms\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"seeds\":"
        "[\"1\",\"2\"]}",
        "{\"seeds\":[\"2\",\"1\"],\"arms\":[{\"name\":\"b\"},{\"name\":\"a\",\"set\":"
        "{\"/train/steps\":20}}],\"name\":\"s\"," BASE "}",
        "{\"name\":\"t\"," BASE ",\"arms\":[{\"name\":\"a\"},{\"name\":\"b\"}],\"seeds\":"
        "[\"1\",\"2\"]}"};
    struct sweep_plan plans[3];
    for (size_t i = 0; i < 3; i++) {
        plans[i] = make(texts[i]);
        assert_int_equal(plans[i].run_count, 4);
        for (size_t a = 0; a < 4; a++) {
            for (size_t b = 0; b < a; b++) {
                assert_string_not_equal(plans[i].runs[a].key, plans[i].runs[b].key);
            }
        }
    }
    for (size_t i = 0; i < 4; i++) {
        assert_string_equal(plans[0].runs[i].key, plans[1].runs[3 - i].key);
        assert_string_not_equal(plans[0].runs[i].key, plans[2].runs[i].key);
    }
    for (size_t i = 0; i < 3; i++) {
        sweep_plan_release(&plans[i]);
    }
}

static void long_names_are_cut_between_characters(void **state)
{
    (void)state;
    char text[1024], arm[301] = "";
    for (size_t i = 0; i < 150; i++) {
        strcat(arm, "\xc3\xa9");
    }
    snprintf(text, sizeof(text),
             "{\"name\":\"s\"," BASE ",\"arms\":[{\"name\":\"%s\"},{\"name\":\"x%s\"}]}", arm,
             arm);
    struct sweep_plan plan = make(text); /* a cut character would be a fault of the job */
    assert_string_equal(plan.arms[0].name, arm);
    sweep_plan_release(&plan);
}

static void every_fault_is_told_once(void **state)
{
    (void)state;
    static const struct {
        const char *text, *where, *words;
        size_t runs;
    } cases[] = {
        {"{" BASE "}", "name", "must be a text", 1},
        {"{\"name\":\"s\"}", "base", "must be an object", 1},
        {"{\"name\":\"s\"," BASE ",\"gird\":{}}", "", "\"gird\": unknown field", 1},
        {"{\"name\":\"s\"," BASE ",\"grid\":{\"/optimizer/lr\":[]}}", "", "must be an array",
         1},
        {"{\"name\":\"s\"," BASE ",\"grid\":{\"lr\":[1]}}", "", "\"lr\" is no JSON pointer", 1},
        {"{\"name\":\"s\"," BASE ",\"grid\":{\"/train/~2\":[1]}}", "", "no JSON pointer", 1},
        {"{\"name\":\"s\"," BASE ",\"grid\":{\"/train/seed\":[\"1\"]}}", "",
         "/train/seed is set by the sweep", 1},
        {"{\"name\":\"s\"," BASE ",\"arms\":[]}", "arms", "must be an array of 1", 1},
        {"{\"name\":\"s\"," BASE ",\"arms\":[{\"set\":{}}]}", "arms/0", "\"name\": must be", 1},
        {"{\"name\":\"s\"," BASE ",\"arms\":[{\"name\":\"a\",\"sets\":{}}]}", "a",
         "\"sets\": unknown field", 1},
        {"{\"name\":\"s\"," BASE ",\"arms\":[{\"name\":\"a\"},{\"name\":\"a\"}]}", "arms",
         "two are called \"a\"", 1},
        {"{\"name\":\"s\"," BASE ",\"arms\":[{\"name\":\"a\",\"set\":{\"/train/batch\":8}}],"
         "\"grid\":{\"/train/batch\":[8]}}",
         "a", "/train/batch is in \"set\" and in a grid", 1},
        {"{\"name\":\"s\"," BASE ",\"seeds\":[1]}", "seeds", "must be strings of digits", 1},
        {"{\"name\":\"s\"," BASE ",\"seeds\":[\"1\",\"1\"]}", "seeds", "listed twice", 1},
        {"{\"name\":\"s\"," BASE ",\"seeds\":[\"x\"]}", "base, seed x", "/train/seed: ", 1},
        {"{\"name\":\"s\"," BASE ",\"grid\":{\"/train/steps\":[0]},\"seeds\":[\"1\",\"2\"]}",
         "steps=0, seed 1", "/train/steps: must be from 1", 2},
        {"{\"name\":\"s\"," BASE ",\"grid\":{\"/train/stps\":[1]}}", "stps=1, seed 1",
         "did you mean /train/steps?", 1},
        {"{\"name\":\"s\"," BASE ",\"grid\":{\"/train/steps/x\":[1]}}", "x=1, seed 1",
         "what it is inside of is no object", 1},
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct sweep_plan plan;
        struct sweep_faults faults = {0};
        struct err err = {0};
        assert_int_equal(
            sweep_plan_make(&plan, cases[i].text, strlen(cases[i].text), &faults, &err),
            ERR_INVALID);
        assert_null(plan.runs);
        const struct sweep_fault *fault = &faults.items[0];
        if (faults.count != 1 || strcmp(fault->where, cases[i].where) != 0 ||
            !strstr(fault->text, cases[i].words) || fault->runs != cases[i].runs) {
            fail_msg("%s: %zu faults, %s: %s in %zu", cases[i].text, faults.count,
                     faults.count ? fault->where : "", faults.count ? fault->text : "",
                     faults.count ? fault->runs : 0);
        }
        sweep_faults_release(&faults);
    }
}

/* --- the table --- */

static void end_run(struct sweep_run *run, const char *how, double final, double best)
{
    snprintf(run->state, sizeof(run->state), "%s", how);
    snprintf(run->record.state, sizeof(run->record.state), "%s", how);
    summary_init(&run->record.summary);
    run->record.summary.final_loss = final;
    run->record.summary.best_loss = best;
    run->record.summary.tokens_per_s = 1000;
    run->record.summary.active_parameters = 500;
    run->recorded = true;
}

/* Arms a and b with two seeds; one run of b failed. */
static struct sweep_plan ended(void)
{
    struct sweep_plan plan =
        make("{\"name\":\"s\"," BASE ",\"arms\":[{\"name\":\"a, \\\"q\\\"\"},{\"name\":\"b\","
             "\"set\":{\"/sparsity/n\":2}}],\"seeds\":[\"1\",\"2\"]}");
    static const char estimate[] =
        "{\"active_parameters\":499,\"flops_per_token\":3000,\"flops_per_token_dense\":12000,"
        "\"tokens\":1e6,\"memory_total_bytes\":1}";
    cJSON *tree;
    assert_int_equal(json_parse(&tree, estimate, strlen(estimate), NULL), 0);
    sweep_price(&plan.arms[0], tree);
    sweep_price(&plan.arms[1], tree);
    cJSON_Delete(tree);
    end_run(&plan.runs[0], "succeeded", 1.5, 1.25); /* a 1 */
    end_run(&plan.runs[1], "failed", 9, 9);         /* b 1 */
    end_run(&plan.runs[2], "succeeded", 2.0, 1.75); /* a 2 */
    end_run(&plan.runs[3], "succeeded", 3.0, 3.0);  /* b 2 */
    return plan;
}

static void results_are_means_over_the_seeds_that_succeeded(void **state)
{
    (void)state;
    struct sweep_plan plan = ended();
    struct sweep_result a, b;
    sweep_result_of(&a, &plan, 0);
    sweep_result_of(&b, &plan, 1);
    assert_true(a.runs == 2 && a.succeeded == 2 && b.runs == 2 && b.succeeded == 1);
    assert_true(fabs(a.loss.mean - 1.75) < 1e-15);
    assert_true(fabs(a.loss.deviation - 0.5 / sqrt(2)) < 1e-15);
    assert_true(fabs(a.perplexity.mean - (exp(1.5) + exp(2)) / 2) < 1e-12);
    assert_true(fabs(a.best_loss.mean - 1.5) < 1e-15);
    assert_true(a.flops_share == 0.25 && a.train_flops == 3e9 && a.active_parameters == 500);
    assert_true(b.loss.mean == 3 && isnan(b.loss.deviation));
    const char *why;
    assert_true(sweep_run_complete(&plan.runs[0], &why));
    assert_false(sweep_run_complete(&plan.runs[1], &why));
    assert_string_equal(why, "failed");
    plan.runs[3].record.summary.final_loss = NAN;
    assert_false(sweep_run_complete(&plan.runs[3], &why));
    sweep_result_of(&b, &plan, 1);
    assert_true(isnan(b.loss.mean) && b.succeeded == 1);
    sweep_plan_release(&plan);
}

static void table_is_the_same_as_text_csv_and_json(void **state)
{
    (void)state;
    struct sweep_plan plan = ended();
    char *text = NULL;
    size_t len;
    FILE *out = open_memstream(&text, &len);
    sweep_print_text(&plan, out);
    fclose(out);
    assert_string_equal(
        text,
        "ARM     RUNS   VALIDATION LOSS      PERPLEXITY  STORED  FLOPS/TOKEN  OF DENSE  "
        "TOKENS/S\n"
        "a, \"q\"   2/2  1.7500 +- 0.3536  5.935 +- 2.056     500         3.0k    25.0 %      "
        "1.0k\n"
        "b        1/2            3.0000          20.086     500         3.0k    25.0 %      "
        "1.0k\n");
    free(text);
    out = open_memstream(&text, &len);
    assert_true(sweep_print_csv(&plan, out));
    fclose(out);
    const char *second = strchr(text, '\n') + 1, *third = strchr(second, '\n') + 1;
    assert_int_equal(strncmp(second, "\"a, \"\"q\"\"\",2,2,1.75,0.35355339059327", 36), 0);
    assert_string_equal(third,
                        "b,2,1,3,,20.085536923187668,,3,,500,3000,0.25,3000000000,1000,\n");
    free(text);
    cJSON *tree = sweep_json(&plan, NULL);
    const cJSON *arm = cJSON_GetArrayItem(json_array(tree, "arms"), 1), *loss;
    loss = json_object(arm, "loss");
    double mean;
    assert_true(json_real(&mean, loss, "mean") && mean == 3);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(loss, "sd")));
    assert_true(json_real(&mean, json_object(arm, "set"), "/sparsity/n") && mean == 2);
    assert_int_equal(cJSON_GetArraySize(json_array(tree, "runs")), 4);
    cJSON_Delete(tree);
    sweep_plan_release(&plan);
}

/* --- tuning --- */

#define TUNED                                                                                  \
    "{\"name\":\"s\"," BASE                                                                    \
    ",\"arms\":[{\"name\":\"a\"},{\"name\":\"b\",\"set\":{\"/sparsity/n\":2}}],"               \
    "\"seeds\":[\"1\",\"2\"],\"tune\":{\"grid\":{\"/optimizer/"                                \
    "lr\":[0.001,0.01,0.1]},\"seed\":"                                                         \
    "\"9\",\"set\":{\"/train/steps\":5}}}"

static void tuning_gives_every_arm_its_best_point(void **state)
{
    (void)state;
    struct sweep_plan plan = make(TUNED), tune;
    struct sweep_faults faults = {0};
    struct err err = {0};
    assert_int_equal(sweep_tune_plan(&tune, &plan, &faults, &err), 0);
    assert_int_equal(tune.run_count, 6);
    assert_string_equal(tune.arms[4].name, "tune b, lr=0.01");
    assert_string_equal(value_of(&tune.runs[4], "train", "steps"), "5");
    assert_string_equal(value_of(&tune.runs[4], "train", "seed"), "9");
    assert_string_equal(value_of(&tune.runs[4], "sparsity", "n"), "2");
    assert_string_equal(value_of(&tune.runs[4], "optimizer", "lr"), "0.01");
    assert_string_equal(value_of(&plan.runs[0], "optimizer", "lr"), "none");
    char key[SWEEP_KEY_MAX];
    strcpy(key, plan.runs[1].key);

    static const double losses[] = {3, 2, 2, NAN, 5, 4};
    for (size_t i = 0; i < 6; i++) {
        end_run(&tune.runs[i], i == 4 ? "failed" : "succeeded", losses[i], losses[i]);
    }
    assert_int_equal(sweep_tune_choose(&plan, &tune, &faults, &err), 0);
    char text[FORMAT_LINE_MAX];
    assert_string_equal(sweep_tuned_text(&plan.arms[0], text), "lr=0.01");
    assert_string_equal(sweep_tuned_text(&plan.arms[1], text), "lr=0.1");
    assert_true(!plan.arms[0].at_edge && plan.arms[1].at_edge);
    assert_int_equal(plan.run_count, 4);
    assert_string_equal(value_of(&plan.runs[2], "optimizer", "lr"), "0.01");
    assert_string_equal(value_of(&plan.runs[3], "optimizer", "lr"), "0.1");
    assert_string_equal(value_of(&plan.runs[3], "train", "steps"), "10");
    assert_string_equal(plan.runs[1].key, key);
    sweep_plan_release(&tune);
    sweep_plan_release(&plan);
}

static void an_arm_whose_runs_all_failed_cannot_be_tuned(void **state)
{
    (void)state;
    struct sweep_plan plan = make(TUNED), tune;
    struct sweep_faults faults = {0};
    struct err err = {0};
    assert_int_equal(sweep_tune_plan(&tune, &plan, &faults, &err), 0);
    for (size_t i = 0; i < 6; i++) {
        end_run(&tune.runs[i], i < 3 ? "succeeded" : "failed", 1, 1);
    }
    assert_int_equal(sweep_tune_choose(&plan, &tune, &faults, &err), ERR_CONFLICT);
    assert_non_null(strstr(err.text, "b cannot be tuned"));
    sweep_plan_release(&tune);
    sweep_plan_release(&plan);

    plan = make("{\"name\":\"s\"," BASE ",\"tune\":{\"seeds\":[\"1\"]}}");
    assert_int_equal(sweep_tune_plan(&tune, &plan, &faults, &err), ERR_INVALID);
    assert_int_equal(faults.count, 2); /* the field, and no grid */
    sweep_faults_release(&faults);
    sweep_plan_release(&plan);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(grid_is_multiplied_out_with_the_last_field_fastest),
        cmocka_unit_test(arms_have_values_and_grids_of_their_own),
        cmocka_unit_test(keys_are_of_sweep_arm_and_seed_only),
        cmocka_unit_test(long_names_are_cut_between_characters),
        cmocka_unit_test(every_fault_is_told_once),
        cmocka_unit_test(results_are_means_over_the_seeds_that_succeeded),
        cmocka_unit_test(tuning_gives_every_arm_its_best_point),
        cmocka_unit_test(an_arm_whose_runs_all_failed_cannot_be_tuned),
        cmocka_unit_test(table_is_the_same_as_text_csv_and_json),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
