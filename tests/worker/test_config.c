/* From a job to the engine's configurations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/method_rules.h"
#include "worker/config.h"
#include <string.h>

static void parse(struct job_spec *spec, const char *json)
{
    struct err err = {0};
    spec_init(spec);
    if (spec_parse(spec, json, strlen(json), NULL, &err) != 0)
        fail_msg("%s", err.text);
}

static const char FULL[] =
    "{\"model\": {\"hidden\": 64, \"intermediate\": 96, \"layers\": 3, \"heads\": 8, "
    "\"kv_heads\": 2,"
    " \"context\": 128, \"rope_theta\": 5000, \"norm_eps\": 1e-5, \"tie_embeddings\": true},"
    " \"data\": {\"train\": [\"a\", \"b\"], \"validation\": [\"c\"]},"
    " \"sparsity\": {\"method\": \"chts24\", \"n\": 2, \"m\": 4, \"refresh_interval\": 7, "
    "\"zeta\": 0.2,"
    " \"removal\": \"ri\", \"score\": \"ch3-l3n\", \"state_repair\": \"all\", \"soft\": false},"
    " \"optimizer\": {\"lr\": 0.5, \"beta1\": 0.8, \"grad_clip\": 0, \"weight_decay\": 0.01},"
    " \"train\": {\"steps\": 90, \"warmup\": 9, \"batch\": 12, \"micro_batch\": 6, "
    "\"context\": 32,"
    " \"seed\": \"18446744073709551615\"},"
    " \"adapter\": {\"name\": \"comolora\", \"rank\": 3, \"hidden\": 4, \"gamma\": 0.25, "
    "\"alpha\": 6}}";

static void every_field_reaches_the_engine(void **state)
{
    (void)state;
    struct job_spec spec;
    struct trainer_config c;
    struct dataset_config d;
    parse(&spec, FULL);
    assert_int_equal(config_trainer(&spec, 1, &c, NULL), 0);
    config_dataset(&spec, &d);
    assert_int_equal(c.shape.hidden, 64);
    assert_int_equal(c.shape.intermediate, 96);
    assert_int_equal(c.shape.layers, 3);
    assert_int_equal(c.shape.heads, 8);
    assert_int_equal(c.shape.kv_heads, 2);
    assert_int_equal(c.shape.vocab, 257);
    assert_int_equal(c.shape.context, 128);
    assert_true(c.shape.rope_theta == 5000 && c.shape.norm_eps == 1e-5 &&
                c.shape.tie_embeddings);
    assert_int_equal(c.shape.n, 2);
    assert_int_equal(c.shape.m, 4);
    assert_int_equal(c.shape.adapter.kind, ADAPTER_COMOLORA);
    assert_int_equal(c.shape.adapter.rank, 3);
    assert_int_equal(c.shape.adapter.hidden, 4);
    assert_true(c.shape.adapter.gamma == 0.25 && c.shape.adapter.alpha == 6);
    assert_string_equal(c.method.name, "chts24");
    assert_int_equal(c.method.interval, 7);
    assert_int_equal(c.method.steps, 90);
    assert_true(c.method.zeta == 0.2 && c.method.until == 0.75 && !c.method.soft);
    assert_int_equal(c.method.removal, REMOVAL_RI);
    assert_int_equal(c.method.score, SCORE_CH3_L3N);
    assert_int_equal(c.method.repair, REPAIR_ALL);
    assert_true(c.method.seed == UINT64_MAX && c.seed == UINT64_MAX);
    assert_int_equal(c.steps, 90);
    assert_int_equal(c.warmup, 9);
    assert_int_equal(c.batch, 12);
    assert_int_equal(c.micro_batch, 6);
    assert_int_equal(c.context, 32);
    assert_true(c.lr == 0.5 && c.beta1 == 0.8 && c.beta2 == 0.999 && c.eps == 1e-8);
    assert_true(c.grad_clip == 0 && c.weight_decay == 0.01 && c.min_lr_ratio == 0.1);
    assert_string_equal(c.optimizer, "adamw");
    assert_int_equal(d.train_count, 2);
    assert_string_equal(d.validation[0], "c");
    assert_string_equal(d.format, "auto");
    assert_int_equal(d.context, 32);
    assert_int_equal(d.vocab, 257);
    assert_true(d.seed == UINT64_MAX);
    assert_string_equal(config_device(&spec), "cpu");
    spec_release(&spec);
}

static void options_of_the_optimizers_reach_the_engine(void **state)
{
    (void)state;
    struct job_spec spec;
    struct trainer_config c;
    parse(&spec,
          "{\"data\": {\"train\": [\"a\"]}, \"optimizer\": {\"name\": \"tans\", \"gamma_ns\": "
          "0.25,"
          " \"ramp\": 3, \"rms\": \"pre-mask\", \"age_correction\": true, \"adam_eps\": 1e-7,"
          " \"adam_lr_ratio\": 0.5}}");
    assert_int_equal(config_trainer(&spec, 1, &c, NULL), 0);
    assert_string_equal(c.optimizer, "tans");
    assert_true(c.eps == 1e-5 && c.optim.gamma_ns == 0.25 && c.optim.adam_eps == 1e-7);
    assert_int_equal(c.optim.ramp, 3);
    assert_int_equal(c.optim.rms, RMS_PRE_MASK);
    assert_true(c.optim.age_correction && c.optim.adam_lr_ratio == 0.5);
    spec_release(&spec);
    parse(&spec, "{\"data\": {\"train\": [\"a\"]}, \"optimizer\": {\"name\": \"muon\", "
                 "\"momentum\": 0.9,"
                 " \"scale\": \"spectral\"}}");
    assert_int_equal(config_trainer(&spec, 1, &c, NULL), 0);
    assert_true(c.eps == 1e-8 && c.optim.momentum == 0.9 && c.optim.adam_lr_ratio == 1);
    assert_int_equal(c.optim.scale, SCALE_SPECTRAL);
    spec_release(&spec);
}

static void every_word_of_the_job_is_in_the_engine(void **state)
{
    (void)state;
    size_t count;
    const struct opt *rows = spec_options(&count);
    int seen = 0;
    for (size_t i = 0; i < count; i++) {
        const bool name = strcmp(rows[i].path, "/optimizer/name") == 0;
        const char *const *rules = strcmp(rows[i].path, "/optimizer/rms") == 0 ? rms_rule_names
                                   : strcmp(rows[i].path, "/optimizer/scale") == 0
                                       ? scale_rule_names
                                       : NULL;
        for (size_t k = 0; (name || rules) && rows[i].choices[k]; k++, seen++)
            assert_true(name ? optimizer_find(rows[i].choices[k]) != NULL
                             : rule_find(rules, rows[i].choices[k]) >= 0);
    }
    assert_int_equal(seen, 3 + 3 + 2);
}

static void a_dense_job_has_no_pattern(void **state)
{
    (void)state;
    struct job_spec spec;
    struct trainer_config c;
    parse(&spec, "{\"data\": {\"train\": [\"a\"]}, \"model\": {\"preset\": \"llama-60m\"},"
                 " \"sparsity\": {\"method\": \"dense\"}}");
    assert_int_equal(config_trainer(&spec, 1, &c, NULL), 0);
    assert_int_equal(c.shape.n, 1);
    assert_int_equal(c.shape.m, 1);
    assert_int_equal(c.shape.hidden, 512);
    spec_release(&spec);
}

static void without_a_tokenizer_no_file_is_text(void **state)
{
    (void)state;
    struct job_spec spec;
    struct dataset_config d;
    parse(&spec, "{\"data\": {\"train\": [\"a\"], \"tokenizer\": \"none\"}}");
    config_dataset(&spec, &d);
    assert_string_equal(d.format, "shards");
    spec_release(&spec);
    parse(&spec,
          "{\"data\": {\"train\": [\"a\"], \"tokenizer\": \"none\", \"format\": \"llmc\"}}");
    config_dataset(&spec, &d);
    assert_string_equal(d.format, "llmc");
    spec_release(&spec);
}

static void lora_has_no_gate(void **state)
{
    (void)state;
    struct job_spec spec;
    struct trainer_config c;
    parse(&spec, "{\"data\": {\"train\": [\"a\"]}, \"adapter\": {\"name\": \"lora\"}}");
    assert_int_equal(config_trainer(&spec, 1, &c, NULL), 0);
    assert_int_equal(c.shape.adapter.kind, ADAPTER_LORA);
    assert_int_equal(c.shape.adapter.rank, 7);
    assert_int_equal(c.shape.adapter.hidden, 0);
    assert_true(c.shape.adapter.gamma == 0 && c.shape.adapter.alpha == 7);
    spec_release(&spec);
    parse(&spec, "{\"data\": {\"train\": [\"a\"]}}");
    assert_int_equal(config_trainer(&spec, 1, &c, NULL), 0);
    assert_int_equal(c.shape.adapter.kind, ADAPTER_NONE);
    assert_int_equal(c.shape.adapter.rank, 0); /* as a checkpoint without an adapter has it */
    assert_true(c.shape.adapter.alpha == 0);
    strcpy(spec.adapter.name, "other");
    assert_int_equal(config_trainer(&spec, 1, &c, NULL), ERR_UNSUPPORTED);
    spec_release(&spec);
}

static void slope_has_a_lora_branch_and_its_share(void **state)
{
    (void)state;
    struct job_spec spec;
    struct trainer_config c;
    parse(&spec, "{\"data\": {\"train\": [\"a\"]}, \"sparsity\": {\"method\": \"slope\","
                 " \"branch_share\": 0.125}}");
    assert_int_equal(config_trainer(&spec, 1, &c, NULL), 0);
    assert_int_equal(c.shape.adapter.kind, ADAPTER_LORA);
    assert_int_equal(c.shape.adapter.rank, 7);
    assert_true(c.method.branch_share == 0.125);
    spec_release(&spec);
}

static void passes_fit_the_world_that_runs(void **state)
{
    (void)state;
    struct job_spec spec;
    struct trainer_config c;
    struct err err = {0};
    static const struct {
        size_t ranks, micro;
    } cases[] = {{1, 6}, {2, 6}, {3, 4}, {4, 3}, {6, 2}, {12, 1}};
    parse(&spec, FULL);
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        assert_int_equal(config_trainer(&spec, cases[i].ranks, &c, &err), 0);
        assert_int_equal(c.micro_batch, cases[i].micro);
    }
    assert_int_equal(config_trainer(&spec, 5, &c, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "5 ranks"));
    spec_release(&spec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_field_reaches_the_engine),
        cmocka_unit_test(options_of_the_optimizers_reach_the_engine),
        cmocka_unit_test(every_word_of_the_job_is_in_the_engine),
        cmocka_unit_test(a_dense_job_has_no_pattern),
        cmocka_unit_test(without_a_tokenizer_no_file_is_text),
        cmocka_unit_test(lora_has_no_gate),
        cmocka_unit_test(slope_has_a_lora_branch_and_its_share),
        cmocka_unit_test(passes_fit_the_world_that_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
