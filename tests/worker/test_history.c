/* The history of masks and the events of a refresh: what the engine observed can be rebuilt. */
#include "tests/engine/checkpoint_fixture.h"

#include "proto/json/json.h"
#include "worker/report.h"
#include <math.h>
#include <unistd.h>

/* Changes some codes of every matrix as a refresh would and tells the observer. */
static void fake_refresh(struct fixture *f, struct history *history, uint64_t salt)
{
    struct refresh_observer observer = history_observer(history);
    const struct philox key = {.seed = salt, .purpose = PHILOX_REMOVAL};
    const struct model *model = f->trainer->model;
    size_t target = 0;
    struct err err = {0};
    for (size_t i = 0; i < model->param_count; i++) {
        struct nm *w = model->params[i].nm;
        if (!w)
            continue;
        size_t groups = w->dout * nm_groups(w);
        uint16_t *before = malloc(groups * sizeof *before);
        memcpy(before, w->codes, groups * sizeof *before);
        for (size_t g = 0; g < groups; g++)
            if (philox_u32(&key, g) % 3 == 0)
                w->codes[g] = (uint16_t)(philox_u32(&key, g + groups) % w->patterns->count);
        struct refresh_stats stats = {.name = "unused",
                                      .density = 0.25,
                                      .removed = target,
                                      .pattern_count = 4,
                                      .patterns = {1, 2, 3, 4},
                                      .hash = nm_mask_hash(w)};
        assert_int_equal(observer.matrix(observer.context, target++, w, before, &stats, &err),
                         0);
        free(before);
    }
}

static void assert_rebuilt(struct fixture *f, uint32_t refresh, const uint16_t *all)
{
    const struct model *model = f->trainer->model;
    char folder[FSX_PATH_MAX];
    strcpy(folder, fixture_path(f, "topology"));
    for (size_t i = 0; i < model->param_count; i++) {
        const struct nm *w = model->params[i].nm;
        if (!w)
            continue;
        char name[MODEL_NAME_MAX];
        struct err err = {0};
        size_t groups = w->dout * nm_groups(w);
        uint16_t *codes = malloc(groups * sizeof *codes);
        snprintf(name, sizeof name, "%.*s",
                 (int)(strlen(model->params[i].name) - strlen(".weight")),
                 model->params[i].name);
        if (topology_rebuild(folder, name, refresh, codes, groups, &err) != 0)
            fail_msg("%s", err.text);
        assert_memory_equal(codes, all + (w->codes - model->codes), groups * sizeof *codes);
        free(codes);
    }
}

static uint16_t *copy_codes(const struct model *model)
{
    uint16_t *copy = malloc(model->code_count * sizeof *copy);
    memcpy(copy, model->codes, model->code_count * sizeof *copy);
    return copy;
}

static void every_mask_of_the_past_can_be_rebuilt(void **state)
{
    (void)state;
    enum { REFRESHES = 3 };
    struct fixture f;
    struct history *history;
    struct err err = {0};
    uint16_t *codes[REFRESHES + 1];
    struct trainer_config config = fixture_config("chts24", 1, 4);
    fixture_open(&f, &config);
    assert_int_equal(history_create(&history, f.folder, f.trainer->model, &err), 0);
    assert_int_equal(history_start(history, &err), 0);
    codes[0] = copy_codes(f.trainer->model);
    for (size_t r = 1; r <= REFRESHES; r++) {
        fake_refresh(&f, history, r);
        assert_int_equal(history_publish(history, r, 10 * r, &err), 0);
        codes[r] = copy_codes(f.trainer->model);
        assert_memory_not_equal(codes[r], codes[r - 1],
                                f.trainer->model->code_count * sizeof(uint16_t));
    }
    for (size_t r = 0; r <= REFRESHES; r++) {
        assert_rebuilt(&f, (uint32_t)r, codes[r]);
        free(codes[r]);
    }
    history_destroy(history);
    fixture_release(&f);
}

static void rewinding_removes_the_refreshes_after_the_checkpoint(void **state)
{
    (void)state;
    struct fixture f;
    struct history *history;
    struct err err = {0};
    struct trainer_config config = fixture_config("chts24", 1, 4);
    fixture_open(&f, &config);
    assert_int_equal(history_create(&history, f.folder, f.trainer->model, &err), 0);
    assert_int_equal(history_start(history, &err), 0);
    for (size_t r = 1; r <= 3; r++) {
        fake_refresh(&f, history, r);
        assert_int_equal(history_publish(history, r, 10 * r, &err), 0);
    }
    assert_int_equal(history_rewind(history, 1, &err), 0);
    assert_true(fsx_exists(fixture_path(&f, "topology/refresh-000001.hbt")));
    assert_false(fsx_exists(fixture_path(&f, "topology/refresh-000002.hbt")));
    assert_false(fsx_exists(fixture_path(&f, "topology/refresh-000003.hbt")));
    history_destroy(history);
    fixture_release(&f);
}

/* The last line of the events file. */
static cJSON *last_event(struct fixture *f)
{
    struct buf text;
    cJSON *event;
    struct err err = {0};
    buf_init(&text, 1 << 20);
    assert_int_equal(fsx_read(&text, fixture_path(f, "events.jsonl"), &err), 0);
    assert_int_equal(text.data[text.len - 1], '\n');
    text.data[--text.len] = '\0';
    const char *line = strrchr(text.data, '\n') ? strrchr(text.data, '\n') + 1 : text.data;
    if (json_parse(&event, line, strlen(line), &err) != 0)
        fail_msg("%s", err.text);
    buf_release(&text);
    return event;
}

static double number(const cJSON *event, const char *key)
{
    double value;
    if (!json_real(&value, event, key))
        fail_msg("no number %s", key);
    return value;
}

static void a_refresh_event_names_every_matrix(void **state)
{
    (void)state;
    struct fixture f;
    struct history *history;
    struct event_log *log;
    struct err err = {0};
    struct step_result result = {
        .step = 10, .refreshed = true, .refresh = 1, .zeta = 0.25, .refresh_ms = 2};
    struct trainer_config config = fixture_config("chts24", 1, 4);
    fixture_open(&f, &config);
    assert_int_equal(history_create(&history, f.folder, f.trainer->model, &err), 0);
    assert_int_equal(event_log_open(&log, fixture_path(&f, "events.jsonl"), &err), 0);
    fake_refresh(&f, history, 1);
    assert_int_equal(history_publish(history, 1, 10, &err), 0);
    assert_int_equal(report_refresh(log, history, &result, &err), 0);
    cJSON *event = last_event(&f);
    const cJSON *layers = json_array(event, "layers");
    assert_string_equal(json_string(event, "type"), "refresh");
    assert_true(number(event, "zeta") == 0.25 && number(event, "ms") == 2);
    assert_int_equal(cJSON_GetArraySize(layers), 14);
    const cJSON *first = cJSON_GetArrayItem(layers, 0), *last = cJSON_GetArrayItem(layers, 13);
    assert_string_equal(json_string(first, "name"), "model.layers.0.self_attn.q_proj");
    assert_string_equal(json_string(last, "name"), "model.layers.1.mlp.down_proj");
    assert_true(number(last, "removed") == 13);
    assert_int_equal(cJSON_GetArraySize(json_array(last, "patterns")), 4);
    assert_int_equal(strlen(json_string(last, "hash")), 16);
    cJSON_Delete(event);
    event_log_close(log);
    history_destroy(history);
    fixture_release(&f);
}

static void a_loss_that_is_not_finite_is_null_and_said_so(void **state)
{
    (void)state;
    struct fixture f;
    struct event_log *log;
    struct err err = {0};
    struct trainer_config config = fixture_config("static", 1, 4);
    fixture_open(&f, &config);
    assert_int_equal(event_log_open(&log, fixture_path(&f, "events.jsonl"), &err), 0);
    assert_int_equal(report_checkpoint(log, 7, 100, 1.5, (double)NAN, &err), 0);
    cJSON *event = last_event(&f);
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(event, "loss")));
    assert_string_equal(json_string(event, "nonfinite"), "nan");
    assert_string_equal(json_string(event, "path"), "checkpoints/step-00000007");
    cJSON_Delete(event);
    event_log_close(log);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_mask_of_the_past_can_be_rebuilt),
        cmocka_unit_test(rewinding_removes_the_refreshes_after_the_checkpoint),
        cmocka_unit_test(a_refresh_event_names_every_matrix),
        cmocka_unit_test(a_loss_that_is_not_finite_is_null_and_said_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
