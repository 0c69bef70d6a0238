/* The job spec: defaults, every rule, all faults at once, and the round trip. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "proto/json/json.h"
#include "proto/msg/spec.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define COUNT(array) (sizeof(array) / sizeof((array)[0]))

static struct spec_faults faults; /* too large for a stack frame */

static void parse(struct job_spec *spec, const char *json)
{
    struct err err = {0};
    if (spec_parse(spec, json, strlen(json), &faults, &err) != 0) {
        fail_msg("%s\n  %s (%zu faults)", json, err.text, faults.count);
    }
    assert_int_equal(faults.count, 0);
}

/* The faults of a text as "field: reason\n" lines. */
static char *parse_faults(const char *json)
{
    struct job_spec spec;
    struct err err = {0};
    struct buf all;
    buf_init(&all, 1 << 20);
    assert_int_equal(spec_parse(&spec, json, strlen(json), &faults, &err), ERR_INVALID);
    assert_true(faults.count > 0);
    for (size_t i = 0; i < faults.count && i < SPEC_FAULTS_MAX; i++) {
        buf_printf(&all, "%s: %s\n", faults.items[i].field, faults.items[i].reason);
    }
    assert_null(spec.data.train.items);
    return buf_detach(&all);
}

static char *print(const struct job_spec *spec)
{
    struct buf out;
    buf_init(&out, 1 << 20);
    spec_print(spec, &out);
    return buf_detach(&out);
}

static void smallest_job_gets_every_default(void **state)
{
    (void)state;
    struct job_spec spec;
    parse(&spec, "{\"data\":{\"train\":[\"a.txt\"]}}");
    assert_string_equal(spec.name, "job");
    assert_string_equal(spec.model.preset, "llama-60m");
    assert_int_equal(spec.model.hidden, 512);
    assert_int_equal(spec.model.intermediate, 1376);
    assert_int_equal(spec.model.layers, 8);
    assert_int_equal(spec.model.heads, 8);
    assert_int_equal(spec.model.kv_heads, 8);
    assert_int_equal(spec.model.vocab, 257);
    assert_int_equal(spec.data.train.count, 1);
    assert_string_equal(spec.data.train.items[0], "a.txt");
    assert_int_equal(spec.data.validation.count, 0);
    assert_string_equal(spec.sparsity.method, "chts24");
    assert_true(spec.sparsity.soft);
    assert_string_equal(spec.sparsity.score, "ch2-l3n");
    assert_int_equal(spec.train.warmup, 1000);
    assert_int_equal(spec.train.micro_batch, 16);
    assert_int_equal(spec.train.context, 256);
    assert_true(spec.train.seed == 1);
    assert_true(spec.optimizer.eps == 1e-8);
    assert_true(spec_density(&spec) == 0.25);
    assert_true(spec_refreshes(&spec));
    spec_release(&spec);
}

static void presets_have_the_shapes_of_the_paper_and_yield_to_given_fields(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int64_t hidden, intermediate, layers, heads;
    } presets[] = {{"llama-60m", 512, 1376, 8, 8},
                   {"llama-130m", 768, 2048, 12, 12},
                   {"llama-350m", 1024, 2736, 24, 16},
                   {"llama-1b", 2048, 5504, 24, 32}};
    struct job_spec spec;
    for (size_t i = 0; i < COUNT(presets); i++) {
        char json[256];
        snprintf(json, sizeof(json),
                 "{\"model\":{\"preset\":\"%s\"},\"data\":{\"train\":[\"a\"]}}",
                 presets[i].name);
        parse(&spec, json);
        assert_int_equal(spec.model.hidden, presets[i].hidden);
        assert_int_equal(spec.model.intermediate, presets[i].intermediate);
        assert_int_equal(spec.model.layers, presets[i].layers);
        assert_int_equal(spec.model.heads, presets[i].heads);
        spec_release(&spec);
    }
    parse(&spec, "{\"model\":{\"preset\":\"llama-60m\",\"layers\":2,\"heads\":4},\"data\":{"
                 "\"train\":[\"a\"]}}");
    assert_int_equal(spec.model.hidden, 512);
    assert_int_equal(spec.model.layers, 2);
    assert_int_equal(spec.model.kv_heads, 4);
    spec_release(&spec);
    parse(&spec, "{\"model\":{\"hidden\":64,\"intermediate\":96,\"layers\":2,\"heads\":4,\"kv_"
                 "heads\":2},"
                 "\"data\":{\"train\":[\"a\"]}}");
    assert_string_equal(spec.model.preset, "none");
    assert_int_equal(spec.model.kv_heads, 2);
    spec_release(&spec);
}

static void computed_defaults_follow_what_is_given(void **state)
{
    (void)state;
    struct job_spec spec;
    parse(&spec,
          "{\"model\":{\"context\":128},\"data\":{\"train\":[\"a\"],\"tokenizer\":\"none\"},"
          "\"sparsity\":{\"method\":\"set\",\"n\":2},\"train\":{\"steps\":200,\"batch\":96},"
          "\"resources\":{\"ranks\":2}}");
    assert_int_equal(spec.model.vocab, 32000);
    assert_int_equal(spec.train.context, 128);
    assert_int_equal(spec.train.warmup, 20);
    assert_int_equal(spec.train.micro_batch, 24); /* 48 a rank; 32 is no divisor of it */
    assert_false(spec.sparsity.soft);
    assert_string_equal(spec.sparsity.score, "random");
    assert_true(spec_density(&spec) == 0.5);
    spec_release(&spec);
    parse(
        &spec,
        "{\"model\":{\"context\":8192},\"data\":{\"train\":[\"a\"]},\"train\":{\"batch\":6}}");
    assert_int_equal(spec.train.micro_batch, 1);
    spec_release(&spec);
    parse(&spec, "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"dense\"}}");
    assert_true(spec_density(&spec) == 1.0);
    assert_false(spec_refreshes(&spec));
    spec_release(&spec);
    parse(&spec, "{\"data\":{\"train\":[\"a\"]},\"adapter\":{\"name\":\"lora\",\"rank\":4}}");
    assert_int_equal(spec.adapter.rank, 4);
    assert_true(spec.adapter.alpha == 4); /* alpha / rank = 1 */
    spec_release(&spec);
    parse(&spec,
          "{\"data\":{\"train\":[\"a\"]},\"adapter\":{\"name\":\"comolora\",\"alpha\":2}}");
    assert_int_equal(spec.adapter.rank, 7);
    assert_int_equal(spec.adapter.hidden, 2);
    assert_true(spec.adapter.gamma == 0.5 && spec.adapter.alpha == 2);
    spec_release(&spec);
}

static void chtsnm_revisits_patterns_as_the_paper_does_by_default(void **state)
{
    (void)state;
    static const struct {
        const char *sparsity;
        double mpr;
    } rows[] = {{"\"n\":1,\"m\":4", 0.5},  {"\"n\":2,\"m\":4,\"layout\":\"block\"", 0},
                {"\"n\":2,\"m\":4", 0.75}, {"\"n\":1,\"m\":3", 0.75},
                {"\"n\":2,\"m\":8", 0.5},  {"\"n\":1,\"m\":4,\"mpr\":0.125", 0.125}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct job_spec spec;
        char json[256];
        snprintf(json, sizeof(json),
                 "{\"data\":{\"train\":[\"a\"]},\"model\":{\"hidden\":48,\"intermediate\":48,"
                 "\"layers\":1,\"heads\":2},\"sparsity\":{\"method\":\"chtsnm\",%s}}",
                 rows[i].sparsity);
        parse(&spec, json);
        assert_true(spec.sparsity.mpr == rows[i].mpr);
        assert_true(spec.sparsity.soft);
        assert_string_equal(spec.sparsity.score, "ch2-l3n");
        assert_true(spec_refreshes(&spec));
        spec_release(&spec);
    }
}

static void penalties_have_the_papers_values_by_default(void **state)
{
    (void)state;
    static const struct {
        const char *method;
        double penalty;
    } rows[] = {{"srste", 1e-4}, {"cast", 2e-4}, {"ste", 0}, {"chts24", 0}};
    for (size_t i = 0; i < COUNT(rows); i++) {
        struct job_spec spec;
        char json[128];
        snprintf(json, sizeof(json),
                 "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"%s\"}}",
                 rows[i].method);
        parse(&spec, json);
        assert_true(spec.sparsity.penalty == rows[i].penalty);
        assert_true(spec_latent(&spec) == (i < 3));
        assert_false(i < 3 && spec_refreshes(&spec));
        assert_true(spec_density(&spec) == 0.25);
        spec_release(&spec);
    }
}

static void slope_has_a_lora_branch_by_default_and_others_have_none(void **state)
{
    (void)state;
    struct job_spec spec;
    parse(&spec, "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"slope\"}}");
    assert_string_equal(spec.adapter.name, "lora");
    assert_int_equal(spec.adapter.rank, 7);
    assert_true(spec.adapter.alpha == 7);
    assert_true(spec.sparsity.branch_share == 0.01);
    assert_false(spec_refreshes(&spec) || spec_latent(&spec));
    spec_release(&spec);
    parse(&spec, "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"slope\","
                 "\"branch_share\":0.25},\"adapter\":{\"rank\":3}}");
    assert_int_equal(spec.adapter.rank, 3);
    assert_true(spec.sparsity.branch_share == 0.25);
    spec_release(&spec);
    parse(&spec, "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"static\"}}");
    assert_string_equal(spec.adapter.name, "none");
    spec_release(&spec);
}

static void printing_and_parsing_again_gives_the_same_bytes(void **state)
{
    (void)state;
    static const char *const jobs[] = {
        "{\"data\":{\"train\":[\"a\"]}}",
        "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"dense\"}}",
        "{\"data\":{\"train\":[\"a\"]},\"adapter\":{\"name\":\"lora\",\"rank\":3}}",
        "{\"data\":{\"train\":[\"a\"]},\"adapter\":{\"name\":\"comolora\",\"gamma\":0.25,"
        "\"hidden\":5}}",
        "{\"data\":{\"train\":[\"a\"]},\"optimizer\":{\"name\":\"tans\",\"rms\":\"none\","
        "\"ramp\":0}}",
        "{\"data\":{\"train\":[\"a\"]},\"optimizer\":{\"name\":\"muon\",\"scale\":\"spectral\"}"
        "}",
        "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"static\",\"n\":3,\"m\":8}}",
        "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"slope\",\"n\":2}}",
        "{\"data\":{\"train\":[\"a\"]},\"model\":{\"widen\":\"lora\",\"widen_rank\":3}}",
        "{\"data\":{\"train\":[\"a\"]},\"model\":{\"widen\":\"comolora\"}}",
        "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"set\",\"zeta\":0.3,\"soft\":"
        "true}}",
        "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"chtsnm\",\"mpr\":0.25}}",
        "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"retrain\",\"n\":2},\"model\":"
        "{"
        "\"init_from\":[\"dense/model\"]}}",
        "{\"name\":\"n "
        "\\\"\xc3\xa9\\\\\",\"priority\":-3,\"model\":{\"hidden\":60,\"intermediate\":36,"
        "\"layers\":1,\"heads\":6,"
        "\"kv_heads\":3,\"vocab\":300,\"context\":7,\"rope_theta\":1e6,\"norm_eps\":1e-5,\"tie_"
        "embeddings\":true},"
        "\"data\":{\"train\":[\"a\",\"b/*.txt\"],\"validation\":[\"v\"],\"format\":\"text\"},"
        "\"sparsity\":{\"n\":5,\"m\":12,\"removal\":\"ri\",\"score\":\"ch3-l3n\",\"state_"
        "repair\":\"none\"},"
        "\"optimizer\":{\"lr\":0.00037,\"beta2\":0.95},\"train\":{\"seed\":"
        "\"18446744073709551615\",\"batch\":12,"
        "\"micro_batch\":3,\"context\":5,\"warmup\":0},\"resources\":{\"device\":\"cpu\","
        "\"ranks\":4,\"threads\":2},"
        "\"restart\":{\"max\":0,\"backoff_s\":0.25}}",
    };
    for (size_t i = 0; i < COUNT(jobs); i++) {
        struct job_spec spec;
        parse(&spec, jobs[i]);
        char *first = print(&spec);
        spec_release(&spec);
        parse(&spec, first);
        char *second = print(&spec);
        spec_release(&spec);
        assert_string_equal(first, second);
        assert_true(strlen(first) <= SPEC_BODY_MAX);
        free(first);
        free(second);
    }
}

/* True if the job of these method, optimizer and adapter has this option. */
static bool row_applies(const struct opt *row, const char *const names[3])
{
    if (strncmp(row->path, "/model/widen_", 13) == 0) /* of no widened job */
        return false;
    for (const char *const *name = row->owners; name && *name; name++)
        for (size_t i = 0; i < 3; i++)
            if (strcmp(*name, names[i]) == 0)
                return true;
    return !row->owners;
}

static void expect_rows(const char *text, const char *const names[3])
{
    cJSON *tree;
    assert_int_equal(json_parse(&tree, text, strlen(text), NULL), 0);
    size_t count;
    const struct opt *rows = spec_options(&count);
    for (size_t i = 0; i < count; i++) {
        char path[OPT_STRING_MAX];
        snprintf(path, sizeof(path), "%s", rows[i].path + 1);
        char *slash = strchr(path, '/');
        const cJSON *section = tree;
        if (slash) {
            *slash = '\0';
            section = json_object(tree, path);
        }
        bool there = cJSON_HasObjectItem(section, slash ? slash + 1 : path);
        if (there != row_applies(&rows[i], names))
            fail_msg("%s, %s: %s is %s", names[1], names[2], rows[i].path,
                     there ? "there" : "missing");
    }
    cJSON_Delete(tree);
}

static void printed_job_has_every_row_that_applies_and_its_value(void **state)
{
    (void)state;
    static const char *const names[][3] = {{"chts24", "adamw", "none"},
                                           {"chts24", "muon", "lora"},
                                           {"set", "tans", "comolora"},
                                           {"dense", "tans", "none"}};
    for (size_t i = 0; i < COUNT(names); i++) {
        struct job_spec spec;
        char job[512];
        snprintf(job, sizeof(job),
                 "{\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"%s\"},"
                 "\"optimizer\":{\"name\":\"%s\"},\"adapter\":{\"name\":\"%s\"},"
                 "\"train\":{\"seed\":\"18446744073709551615\"}}",
                 names[i][0], names[i][1], names[i][2]);
        parse(&spec, job);
        char *text = print(&spec);
        expect_rows(text, names[i]);
        spec_release(&spec);
        assert_non_null(strstr(text, "\"18446744073709551615\""));
        free(text);
    }
}

static void options_of_the_optimizers_have_their_own_defaults(void **state)
{
    (void)state;
    struct job_spec spec;
    parse(&spec, "{\"data\":{\"train\":[\"a\"]},\"optimizer\":{\"name\":\"tans\"}}");
    assert_true(spec.optimizer.eps == 1e-5 && spec.optimizer.adam_eps == 1e-8);
    assert_true(spec.optimizer.gamma_ns == 0.5 && spec.optimizer.ramp == 8);
    assert_string_equal(spec.optimizer.rms, "post-mask");
    assert_false(spec.optimizer.age_correction);
    spec_release(&spec);
    parse(&spec, "{\"data\":{\"train\":[\"a\"]},\"optimizer\":{\"name\":\"muon\"}}");
    assert_true(spec.optimizer.eps == 1e-8 && spec.optimizer.momentum == 0.95);
    assert_string_equal(spec.optimizer.scale, "rms");
    spec_release(&spec);
    parse(&spec,
          "{\"data\":{\"train\":[\"a\"]},\"optimizer\":{\"name\":\"tans\",\"eps\":1e-7}}");
    assert_true(spec.optimizer.eps == 1e-7);
    spec_release(&spec);
}

static void text_that_is_not_a_job_has_one_fault_at_the_root(void **state)
{
    (void)state;
    static const char *const texts[] = {"",  "{",    "[]",
                                        "7", "null", "{\"data\":{\"train\":[\"a\"]}} x"};
    for (size_t i = 0; i < COUNT(texts); i++) {
        char *all = parse_faults(texts[i]);
        assert_int_equal(faults.count, 1);
        assert_string_equal(faults.items[0].field, "");
        free(all);
    }
    char *large = malloc(SPEC_BODY_MAX + 2);
    assert_non_null(large);
    memset(large, ' ', SPEC_BODY_MAX + 1);
    struct job_spec spec;
    struct err err = {0};
    assert_int_equal(spec_parse(&spec, large, SPEC_BODY_MAX + 1, &faults, &err), ERR_LIMIT);
    assert_int_equal(faults.count, 1);
    free(large);
}

static void all_faults_are_reported_at_once(void **state)
{
    (void)state;
    char *all = parse_faults("{\"nmae\":\"x\",\"model\":{\"hiden\":3,\"heads\":7,\"heads\":8,"
                             "\"vocab\":1e9},\"optimizer\":[],"
                             "\"data\":{\"train\":[\"a\",\"\"],\"format\":\"hebb\"},\"train\":{"
                             "\"seed\":1,\"steps\":1.5,\"batch\":7},"
                             "\"resources\":{\"ranks\":2,\"device\":\"gpu\"},\"sparsity\":{"
                             "\"zeta\":null,\"soft\":1,\"n\":4}}");
    static const char *const wanted[] = {
        "/model/heads: given more than once\n",
        "/nmae: unknown field; did you mean /name?\n",
        "/model/hiden: unknown field; did you mean /model/hidden?\n",
        "/model/vocab: must be from 2 to 16777216, got 1000000000\n",
        "/model/hidden: required when model.preset is none\n",
        "/optimizer: must be an object, got []\n",
        "/data/train/1: must be a string of 1 to 4095 bytes",
        "/data/format: hebb holds tokens",
        "/train/seed: must be a string of decimal digits below 2^64, such as \"1\", got 1\n",
        "/train/steps: must be a whole number, got 1.5\n",
        "/train/batch: batch 7 is not a multiple of resources.ranks 2\n",
        "/resources/device: must be one of auto, cpu, cuda, got \"gpu\"\n",
        "/sparsity/zeta: must be a number, got null\n",
        "/sparsity/soft: must be true or false, got 1\n",
        "/sparsity/n: n 4 must be below m 4\n",
    };
    for (size_t i = 0; i < COUNT(wanted); i++) {
        if (!strstr(all, wanted[i])) {
            fail_msg("missing: %s\n%s", wanted[i], all);
        }
    }
    free(all);
}

/* Each of these has exactly one fault. %s stands for a sound data section. */
static const struct {
    const char *json, *fault;
} single_faults[] = {
    {"{}", "/data/train: required\n"},
    {"{\"data\":{}}", "/data/train: required\n"},
    {"{\"data\":{\"train\":[]}}", "/data/train: must have 1 to 64 items, got 0\n"},
    {"{\"data\":{\"train\":\"a\"}}", "/data/train: must be an array of strings, got \"a\"\n"},
    {"{\"data\":{\"train\":[1]}}",
     "/data/train/0: must be a string of 1 to 4095 bytes without control characters, got 1\n"},
    {"{\"data\":{\"train\":[\"a\\nb\"]}}", "/data/train/0: must be a string of 1 to 4095 bytes "
                                           "without control characters, got \"a\\nb\"\n"},
    {"{%s,\"dat\":1}", "/dat: unknown field; did you mean /data?\n"},
    {"{%s,\"zeta\":0.1}", "/zeta: unknown field; did you mean /sparsity/zeta?\n"},
    {"{%s,\"modl\":{}}", "/modl: unknown field; did you mean /model?\n"},
    {"{%s,\"xyzzy\":1}", "/xyzzy: unknown field\n"},
    {"{%s,\"a/b~c\":1}", "/a~1b~0c: unknown field\n"},
    {"{%s,\"Name\":\"x\"}", "/Name: unknown field; did you mean /name?\n"},
    {"{%s,\"train\":{\"lr\":1}}", "/train/lr: unknown field; did you mean /optimizer/lr?\n"},
    {"{%s,\"name\":\"\"}", "/name: must be 1 to 128 bytes long, got 0\n"},
    {"{%s,\"name\":7}", "/name: must be a string, got 7\n"},
    {"{%s,\"name\":\"a\\u001b[31m\"}",
     "/name: must not hold control characters, got \"a\\u001b[31m\"\n"},
    {"{%s,\"priority\":101}", "/priority: must be from -100 to 100, got 101\n"},
    {"{%s,\"train\":{\"steps\":0}}", "/train/steps: must be from 1 to 1000000000, got 0\n"},
    {"{%s,\"train\":{\"steps\":\"10\"}}", "/train/steps: must be a whole number, got \"10\"\n"},
    {"{%s,\"train\":{\"steps\":1e17}}", "/train/steps: must be a whole number, got 1e17\n"},
    {"{%s,\"train\":{\"seed\":\"\"}}",
     "/train/seed: must be a string of decimal digits below 2^64, such as \"1\", got \"\"\n"},
    {"{%s,\"train\":{\"seed\":\"-1\"}}",
     "/train/seed: must be a string of decimal digits below 2^64, such as \"1\", got \"-1\"\n"},
    {"{%s,\"train\":{\"seed\":\"18446744073709551616\"}}",
     "/train/seed: must be a string of decimal digits below 2^64, such as \"1\", got "
     "\"18446744073709551616\"\n"},
    {"{%s,\"optimizer\":{\"name\":\"sgd\"}}",
     "/optimizer/name: must be one of adamw, muon, tans, got \"sgd\"\n"},
    {"{%s,\"optimizer\":{\"momentum\":0.9}}",
     "/optimizer/momentum: adamw has no such option; it belongs to muon\n"},
    {"{%s,\"optimizer\":{\"name\":\"muon\",\"gamma_ns\":0.9}}",
     "/optimizer/gamma_ns: muon has no such option; it belongs to tans\n"},
    {"{%s,\"optimizer\":{\"name\":\"tans\",\"gamma_ns\":1.5}}",
     "/optimizer/gamma_ns: must be from 0 to 1, got 1.5\n"},
    {"{%s,\"optimizer\":{\"name\":\"tans\",\"age_correction\":true,\"beta2\":0.99995}}",
     "/optimizer/beta2: beta2 0.99995 is above 0.9999, the most that age_correction can count "
     "for\n"},
    {"{%s,\"sparsity\":{\"method\":\"cast\"},\"optimizer\":{\"name\":\"muon\"}}",
     "/optimizer/name: cast scales its decay by adamw's second moment; muon has none\n"},
    {"{%s,\"optimizer\":{\"min_lr_ratio\":1.1}}",
     "/optimizer/min_lr_ratio: must be from 0 to 1, got 1.1\n"},
    {"{%s,\"optimizer\":{\"lr\":-1e-3}}", "/optimizer/lr: must be from 0 to 10, got -0.001\n"},
    {"{%s,\"sparsity\":{\"layout\":\"blocks\"}}",
     "/sparsity/layout: must be one of row, block, got \"blocks\"\n"},
    {"{%s,\"sparsity\":{\"layout\":\"block\",\"m\":8}}",
     "/sparsity/m: the layout block has blocks of 4 x 4: m must be 4, got 8\n"},
    {"{%s,\"sparsity\":{\"layout\":\"block\"},\"model\":{\"hidden\":24,\"intermediate\":40,"
     "\"layers\":1,\"heads\":12,\"kv_heads\":1}}",
     "/model/kv_heads: kv_heads * hidden / heads = 2 is not a multiple of 4, which the layout "
     "block needs\n"},
    {"{%s,\"sparsity\":{\"method\":\"chtsnm\",\"layout\":\"block\",\"mpr\":0.5}}",
     "/sparsity/mpr: motif pattern revisitation is for the layout row; in the layout block it "
     "must be 0, got 0.5\n"},
    {"{%s,\"sparsity\":{\"m\":17}}", "/sparsity/m: must be from 2 to 16, got 17\n"},
    {"{%s,\"sparsity\":{\"n\":2,\"m\":2}}", "/sparsity/n: n 2 must be below m 2\n"},
    {"{%s,\"sparsity\":{\"method\":\"dense\",\"zeta\":0.1}}",
     "/sparsity/zeta: dense has no such option; it belongs to set, rigl, chts24, chtsnm, "
     "retrain\n"},
    {"{%s,\"sparsity\":{\"method\":\"chts24\",\"mpr\":0.5}}",
     "/sparsity/mpr: chts24 has no such option; it belongs to chtsnm, retrain\n"},
    {"{%s,\"sparsity\":{\"method\":\"retrain\"}}",
     "/model/init_from: required by the method retrain\n"},
    {"{%s,\"model\":{\"init_from\":[\"a\",\"b\"]}}",
     "/model/init_from: must have 0 to 1 items, got 2\n"},
    {"{%s,\"sparsity\":{\"method\":\"rigl\",\"score\":\"gradient\"}}",
     "/sparsity/score: rigl has no such option; it belongs to set, chts24, chtsnm, retrain\n"},
    {"{%s,\"sparsity\":{\"method\":\"set\",\"score\":\"gradient\"}}",
     "/sparsity/score: set regrows at random; gradient belongs to chts24, chtsnm and "
     "retrain\n"},
    {"{%s,\"sparsity\":{\"method\":\"ste\",\"penalty\":0.5}}",
     "/sparsity/penalty: ste has no such option; it belongs to srste, cast\n"},
    {"{%s,\"sparsity\":{\"method\":\"static\",\"score\":\"random\"}}",
     "/sparsity/score: static has no such option; it belongs to set, chts24, chtsnm, "
     "retrain\n"},
    {"{%s,\"sparsity\":{\"method\":\"set\",\"score\":\"ch2-l3n\"}}",
     "/sparsity/score: set regrows at random; ch2-l3n belongs to chts24, chtsnm and retrain\n"},
    {"{%s,\"model\":{\"preset\":\"llama-60m\",\"heads\":7}}",
     "/model/heads: hidden 512 is not a multiple of heads 7\n"},
    {"{%s,\"model\":{\"preset\":\"llama-60m\",\"heads\":512}}",
     "/model/heads: hidden 512 / heads 512 = 1 is odd; the rotary embedding turns pairs\n"},
    {"{%s,\"model\":{\"kv_heads\":3}}",
     "/model/kv_heads: heads 8 is not a multiple of kv_heads 3\n"},
    {"{%s,\"model\":{\"kv_heads\":16}}",
     "/model/kv_heads: heads 8 is not a multiple of kv_heads 16\n"},
    {"{%s,\"model\":{\"vocab\":256}}",
     "/model/vocab: must be at least 257 for the tokenizer bytes, got 256\n"},
    {"{%s,\"model\":{\"preset\":\"llama-60m\",\"hidden\":510,\"heads\":5}}",
     "/model/hidden: 510 is not a multiple of sparsity.m 4\n"},
    {"{%s,\"model\":{\"preset\":\"llama-60m\",\"intermediate\":1377}}",
     "/model/intermediate: 1377 is not a multiple of sparsity.m 4\n"},
    {"{%s,\"model\":{\"preset\":\"none\",\"hidden\":64,\"intermediate\":64,\"heads\":2}}",
     "/model/layers: required when model.preset is none\n"},
    {"{%s,\"model\":{\"hidden\":65536,\"intermediate\":262144,\"layers\":512,\"heads\":512}}",
     "/model: 3.52e+13 parameters; the limit is 1.1e+12\n"},
    {"{%s,\"model\":{\"widen_rank\":3}}",
     "/model/widen_rank: none has no such option; it belongs to lora, comolora\n"},
    {"{%s,\"adapter\":{\"name\":\"lora\"},\"model\":{\"widen_rank\":3}}",
     "/model/widen_rank: none has no such option; it belongs to lora, comolora\n"},
    {"{%s,\"model\":{\"widen\":\"lora\",\"widen_hidden\":3}}",
     "/model/widen_hidden: lora has no such option; it belongs to comolora\n"},
    {"{%s,\"model\":{\"preset\":\"llama-60m\",\"intermediate\":262144,\"widen\":\"lora\"}}",
     "/model/widen: intermediate would grow to 276584; the limit is 262144\n"},
    {"{%s,\"train\":{\"context\":300}}", "/train/context: 300 is above model.context 256\n"},
    {"{%s,\"train\":{\"warmup\":11,\"steps\":10}}",
     "/train/warmup: 11 is above train.steps 10\n"},
    {"{%s,\"train\":{\"micro_batch\":3}}",
     "/train/micro_batch: 3 does not divide batch / ranks = 256\n"},
    {"{%s,\"resources\":{\"ranks\":3}}",
     "/resources/ranks: batch 256 is not a multiple of resources.ranks 3\n"},
    {"{%s,\"train\":{\"steps\":1000000000,\"batch\":1048576}}",
     "/train: steps * batch * context = 2.68e+17 tokens; the limit is 9.01e+15\n"},
    {"{\"data\":{\"train\":[\"a\"],\"format\":\"llmc\"}}",
     "/data/format: llmc holds tokens, but the tokenizer bytes reads text; use tokenizer "
     "none\n"},
    {"{\"data\":{\"train\":[\"a\"],\"format\":\"text\",\"tokenizer\":\"none\"}}",
     "/data/format: text needs a tokenizer; use tokenizer bytes, or one of the shard "
     "formats\n"},
    {"{%s,\"restart\":{\"backoff_s\":301}}",
     "/restart/backoff_s: must be from 0 to 300, got 301\n"},
    {"{%s,\"sparsity\":{\"method\":\"slope\"},\"adapter\":{\"name\":\"comolora\"}}",
     "/adapter/name: slope trains a lora branch at the end; got comolora\n"},
    {"{%s,\"sparsity\":{\"method\":\"slope\"},\"adapter\":{\"name\":\"none\"}}",
     "/adapter/name: slope trains a lora branch at the end; got none\n"},
    {"{%s,\"sparsity\":{\"method\":\"slope\",\"branch_share\":0}}",
     "/sparsity/branch_share: must be from 0.0001 to 1, got 0\n"},
    {"{%s,\"sparsity\":{\"method\":\"static\",\"branch_share\":0.1}}",
     "/sparsity/branch_share: static has no such option; it belongs to slope\n"},
    {"{%s,\"adapter\":{\"rank\":7}}",
     "/adapter/rank: none has no such option; it belongs to lora, comolora\n"},
    {"{%s,\"adapter\":{\"name\":\"lora\",\"gamma\":0.5}}",
     "/adapter/gamma: lora has no such option; it belongs to comolora\n"},
    {"{%s,\"adapter\":{\"name\":\"comolora\",\"rank\":0}}",
     "/adapter/rank: must be from 1 to 4096, got 0\n"},
    {"{%s,\"adapter\":{\"name\":\"comolora\",\"alpha\":0}}",
     "/adapter/alpha: must be from 1e-6 to 1000000, got 0\n"},
};

static void every_rule_has_one_fault_at_its_field(void **state)
{
    (void)state;
    for (size_t i = 0; i < COUNT(single_faults); i++) {
        struct buf json;
        buf_init(&json, SPEC_BODY_MAX);
        const char *mark = strstr(single_faults[i].json, "%s");
        if (mark) {
            buf_add(&json, single_faults[i].json, (size_t)(mark - single_faults[i].json));
            buf_puts(&json, "\"data\":{\"train\":[\"a\"]}");
            buf_puts(&json, mark + 2);
        } else {
            buf_puts(&json, single_faults[i].json);
        }
        char *all = parse_faults(json.data);
        assert_string_equal(all, single_faults[i].fault);
        free(all);
        buf_release(&json);
    }
}

static void dense_is_free_of_the_rules_of_groups(void **state)
{
    (void)state;
    struct job_spec spec;
    parse(&spec, "{\"model\":{\"hidden\":510,\"intermediate\":1377,\"layers\":1,\"heads\":5},"
                 "\"data\":{\"train\":[\"a\"]},\"sparsity\":{\"method\":\"dense\"}}");
    spec_release(&spec);
}

static void error_holds_the_first_fault(void **state)
{
    (void)state;
    struct job_spec spec;
    struct err err = {0};
    static const char json[] = "{\"data\":{\"train\":[\"a\"]},\"train\":{\"steps\":0}}";
    assert_int_equal(spec_parse(&spec, json, sizeof(json) - 1, NULL, &err), ERR_INVALID);
    assert_string_equal(err.text, "/train/steps: must be from 1 to 1000000000, got 0");
}

static void faults_beyond_the_limit_are_counted(void **state)
{
    (void)state;
    struct buf json;
    buf_init(&json, SPEC_BODY_MAX);
    buf_puts(&json, "{\"data\":{\"train\":[\"a\"]}");
    for (int i = 0; i < 200; i++) {
        buf_printf(&json, ",\"unknown-%d\":0", i);
    }
    buf_puts(&json, "}");
    char *all = parse_faults(json.data);
    assert_int_equal(faults.count, 200);
    free(all);
    buf_release(&json);
}

static void table_is_well_formed(void **state)
{
    (void)state;
    size_t count;
    const struct opt *rows = spec_options(&count);
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(rows[i].path[0], '/');
        assert_non_null(rows[i].unit);
        size_t len = strlen(rows[i].help);
        if (len < 8 || rows[i].help[len - 1] != '.') {
            fail_msg("%s: help is not a sentence", rows[i].path);
        }
        assert_true((rows[i].type == OPT_ENUM) == (rows[i].choices != NULL));
        for (size_t j = 0; j < i; j++) {
            assert_string_not_equal(rows[i].path, rows[j].path);
            assert_true(rows[i].offset != rows[j].offset);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(smallest_job_gets_every_default),
        cmocka_unit_test(presets_have_the_shapes_of_the_paper_and_yield_to_given_fields),
        cmocka_unit_test(computed_defaults_follow_what_is_given),
        cmocka_unit_test(chtsnm_revisits_patterns_as_the_paper_does_by_default),
        cmocka_unit_test(penalties_have_the_papers_values_by_default),
        cmocka_unit_test(slope_has_a_lora_branch_by_default_and_others_have_none),
        cmocka_unit_test(printing_and_parsing_again_gives_the_same_bytes),
        cmocka_unit_test(printed_job_has_every_row_that_applies_and_its_value),
        cmocka_unit_test(options_of_the_optimizers_have_their_own_defaults),
        cmocka_unit_test(text_that_is_not_a_job_has_one_fault_at_the_root),
        cmocka_unit_test(all_faults_are_reported_at_once),
        cmocka_unit_test(every_rule_has_one_fault_at_its_field),
        cmocka_unit_test(dense_is_free_of_the_rules_of_groups),
        cmocka_unit_test(error_holds_the_first_fault),
        cmocka_unit_test(faults_beyond_the_limit_are_counted),
        cmocka_unit_test(table_is_well_formed),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
