/* Checkpoints: what is saved comes back, what is damaged is not taken, what does not fit is
 * refused. */
#include "tests/engine/checkpoint_fixture.h"

#include "engine/checkpoint_files.h"
#include "proto/format/manifest.h"
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

static const char *const FILES[] = {CHECKPOINT_MODEL_FILE, CHECKPOINT_STATE_FILE,
                                    CHECKPOINT_TRAIN_FILE};

static void save(struct fixture *f)
{
    struct err err = {0};
    uint64_t bytes = 0;
    if (checkpoint_save(f->trainer, f->folder, &bytes, &err) != 0)
        fail_msg("%s", err.text);
    assert_true(bytes > f->trainer->model->count * 3 * sizeof(real));
}

/* Resumes a fresh trainer of the same configuration from f's folder. */
static struct trainer *resume(struct fixture *f, bool *found, struct err *warning,
                              struct err *err, int *rc)
{
    struct trainer *fresh;
    assert_int_equal(
        trainer_create(&fresh, &f->trainer->config, f->dev, &f->rank.comm, NULL, err), 0);
    *rc = checkpoint_resume(fresh, f->folder, found, warning, err);
    return fresh;
}

static void round_trip(const char *method, unsigned n, unsigned m, bool tied)
{
    struct fixture f;
    struct trainer_config config = fixture_config(method, n, m);
    struct err warning = {0}, err = {0};
    bool found = false;
    int rc;
    config.shape.tie_embeddings = tied;
    fixture_open(&f, &config);
    fixture_fill(&f, 1);
    save(&f);
    struct trainer *fresh = resume(&f, &found, &warning, &err, &rc);
    if (rc != 0)
        fail_msg("%s", err.text);
    assert_true(found);
    assert_int_equal(warning.code, 0);
    assert_same_state(f.trainer, fresh);
    trainer_destroy(fresh);
    fixture_release(&f);
}

static void resume_gives_back_the_saved_state(void **state)
{
    (void)state;
    round_trip("chts24", 1, 4, false);
    round_trip("chts24", 2, 4, true);
    round_trip("set", 3, 8, false);
    round_trip("static", 1, 4, false);
    round_trip("dense", 1, 1, false);
}

/* The whole file. The caller frees. */
static char *slurp(const char *path, size_t *size)
{
    struct buf buf;
    buf_init(&buf, 1 << 24);
    assert_int_equal(fsx_read(&buf, path, NULL), 0);
    *size = buf.len;
    return buf_detach(&buf);
}

static void equal_states_give_equal_bytes(void **state)
{
    (void)state;
    struct fixture a, b;
    struct trainer_config config = fixture_config("chts24", 1, 4);
    static const char *const names[] = {"model.safetensors", "state.safetensors", "train.json",
                                        "manifest.json"};
    fixture_open(&a, &config);
    config.micro_batch = 2; /* how a step is cut is no part of the state */
    fixture_open(&b, &config);
    fixture_fill(&a, 3);
    fixture_fill(&b, 3);
    save(&a);
    save(&b);
    for (size_t i = 0; i < 4; i++) {
        char name[64];
        size_t left_size, right_size;
        snprintf(name, sizeof name, "step-00000011/%s", names[i]);
        char *left = slurp(fixture_path(&a, name), &left_size);
        char *right = slurp(fixture_path(&b, name), &right_size);
        assert_int_equal(left_size, right_size);
        assert_memory_equal(left, right, left_size);
        free(left);
        free(right);
    }
    fixture_release(&a);
    fixture_release(&b);
}

static void an_empty_or_missing_folder_has_nothing_to_resume(void **state)
{
    (void)state;
    struct fixture f;
    struct trainer_config config = fixture_config("chts24", 1, 4);
    struct err err = {0};
    bool found = true;
    fixture_open(&f, &config);
    assert_int_equal(checkpoint_resume(f.trainer, f.folder, &found, NULL, &err), 0);
    assert_false(found);
    found = true;
    assert_int_equal(checkpoint_resume(f.trainer, fixture_path(&f, "none"), &found, NULL, &err),
                     0);
    assert_false(found);
    fixture_release(&f);
}

/* Saves salts 1 and 2 and damages the second; the resume must take the first and say so. */
static void damaged(void (*damage)(const struct fixture *f, const char *newest))
{
    struct fixture f;
    struct trainer_config config = fixture_config("chts24", 1, 4);
    struct err warning = {0}, err = {0};
    bool found = false;
    int rc;
    fixture_open(&f, &config);
    fixture_fill(&f, 2);
    save(&f);
    fixture_fill(&f, 1);
    save(&f);
    damage(&f, "step-00000010");
    struct trainer *fresh = resume(&f, &found, &warning, &err, &rc);
    if (rc != 0)
        fail_msg("%s", err.text);
    assert_true(found);
    assert_same_state(f.trainer, fresh);
    assert_non_null(strstr(warning.text, "step-00000010"));
    trainer_destroy(fresh);
    fixture_release(&f);
}

static void flip_every_file(const struct fixture *f, const char *newest)
{
    char name[128];
    static size_t which;
    snprintf(name, sizeof name, "%s/%s", newest, FILES[which++ % 3]);
    fixture_damage(fixture_path(f, name), -3, 1);
}

static void cut_a_file(const struct fixture *f, const char *newest)
{
    char name[128];
    snprintf(name, sizeof name, "%s/state.safetensors", newest);
    assert_int_equal(truncate(fixture_path(f, name), 1000), 0);
}

static void remove_the_manifest(const struct fixture *f, const char *newest)
{
    char name[128];
    snprintf(name, sizeof name, "%s/manifest.json", newest);
    assert_int_equal(unlink(fixture_path(f, name)), 0);
}

static void a_damaged_checkpoint_is_skipped_and_named(void **state)
{
    (void)state;
    for (int i = 0; i < 3; i++)
        damaged(flip_every_file);
    damaged(cut_a_file);
    damaged(remove_the_manifest);
}

static void a_checkpoint_of_another_run_is_refused_by_field(void **state)
{
    (void)state;
    static const struct {
        const char *words;
        size_t offset, size;
    } changes[] = {
        {"shape.hidden", offsetof(struct trainer_config, shape.hidden), sizeof(size_t)},
        {"run.seed", offsetof(struct trainer_config, seed), sizeof(uint64_t)},
        {"run.batch", offsetof(struct trainer_config, batch), sizeof(size_t)},
        {"run.lr", offsetof(struct trainer_config, lr), sizeof(double)},
        {"method.interval", offsetof(struct trainer_config, method.interval), sizeof(size_t)},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct fixture f;
        struct err err = {0};
        bool found = false;
        struct trainer_config config = fixture_config("chts24", 1, 4);
        fixture_open(&f, &config);
        fixture_fill(&f, 1);
        save(&f);
        char *at = (char *)&f.trainer->config + changes[i].offset;
        if (changes[i].size == sizeof(double) && strstr(changes[i].words, "lr"))
            *(double *)at *= 1.5;
        else
            *(size_t *)at += 16;
        assert_int_equal(checkpoint_resume(f.trainer, f.folder, &found, NULL, &err),
                         ERR_INVALID);
        assert_false(found);
        if (!strstr(err.text, changes[i].words))
            fail_msg("%s: %s", changes[i].words, err.text);
        fixture_release(&f);
    }
}

static void reseal(const struct fixture *f, const char *name);

/* The first checkpoint's train.json with `from` put in place of `to` under a manifest that
 * holds. */
static void rewrite(const struct fixture *f, const char *from, const char *to)
{
    size_t size;
    struct buf out;
    char *path = strdup(fixture_path(f, "step-00000009/train.json"));
    char *text = slurp(path, &size);
    char *at = memmem(text, size, from, strlen(from));
    if (!at)
        fail_msg("no %s in %.*s", from, (int)size, text);
    buf_init(&out, 1 << 20);
    buf_add(&out, text, (size_t)(at - text));
    buf_puts(&out, to);
    buf_add(&out, at + strlen(from), size - (size_t)(at - text) - strlen(from));
    assert_int_equal(fsx_publish(path, out.data, out.len, 0644, NULL), 0);
    buf_release(&out);
    free(text);
    free(path);
    reseal(f, "step-00000009");
}

static void a_wrong_guard_is_refused(void **state)
{
    (void)state;
    static const char *const changes[][2] = {
        {"\"guard\":", "\"card\":"},
        {"\"skipped\":4", "\"skipped\":-1"},
        {"\"skipped\":4", "\"skipped\":1e300"},
        {"\"streak\":1", "\"streak\":1.5"},
        {"\"rollbacks\":2,\"losses\"", "\"losses\""},
        {"\"losses\":[", "\"losses\":[null,"},
        {"\"losses\":[", "\"losses\":[1,"}, /* more than the window has */
        {"\"losses\":[", "\"losses\":[[],"},
        {"\"validation_loss\":null", "\"validation_loss\":\"1\""},
        {"\"validation_loss\":null,", ""},
    };
    for (size_t i = 0; i < sizeof changes / sizeof *changes; i++) {
        struct fixture f;
        struct err err = {0};
        bool found = false;
        struct trainer_config config = fixture_config("static", 1, 4);
        fixture_open(&f, &config);
        fixture_fill(&f, 1);
        save(&f);
        rewrite(&f, changes[i][0], changes[i][1]);
        if (checkpoint_resume(f.trainer, f.folder, &found, NULL, &err) != ERR_CORRUPT)
            fail_msg("%s: %s", changes[i][1], err.text);
        assert_false(found);
        fixture_release(&f);
    }
}

/* A data set of raw files with these numbers of tokens. */
static struct dataset *open_data(const struct fixture *f, const size_t *tokens, size_t count)
{
    static const uint16_t zeros[64];
    char paths[4][FSX_PATH_MAX];
    const char *train[4];
    struct dataset_config config = {.train = train,
                                    .train_count = count,
                                    .format = "raw-uint16",
                                    .context = 8,
                                    .vocab = 33};
    struct dataset *data;
    struct err err = {0};
    for (size_t i = 0; i < count; i++) {
        assert_int_equal(fsx_path(paths[i], NULL, "%s/.data-%zu", f->folder, i), 0);
        assert_int_equal(fsx_publish(paths[i], zeros, tokens[i] * sizeof(uint16_t), 0600, NULL),
                         0);
        train[i] = paths[i];
    }
    if (dataset_open(&data, &config, 0, 1, &err) != 0)
        fail_msg("%s", err.text);
    return data;
}

static void files_of_other_lengths_are_refused(void **state)
{
    (void)state;
    static const struct {
        size_t tokens[2];
        int rc;
    } cases[] = {{{40, 20}, 0}, {{40, 21}, ERR_CORRUPT}, {{20, 40}, ERR_CORRUPT}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        struct err err = {0};
        bool found = false;
        struct trainer_config config = fixture_config("chts24", 1, 4);
        fixture_open(&f, &config);
        fixture_fill(&f, 1);
        struct dataset *saved = open_data(&f, (const size_t[]){40, 20}, 2);
        f.trainer->data = saved;
        save(&f);
        struct dataset *now = open_data(&f, cases[i].tokens, 2);
        f.trainer->data = now;
        assert_int_equal(checkpoint_resume(f.trainer, f.folder, &found, NULL, &err),
                         cases[i].rc);
        assert_int_equal(found, cases[i].rc == 0);
        assert_int_equal(strstr(err.text, "had 60 tokens") != NULL, cases[i].rc != 0);
        dataset_close(saved);
        dataset_close(now);
        fixture_release(&f);
    }
}

/* Writes the manifest anew, so that the damage is one that checksums do not see. */
static void reseal(const struct fixture *f, const char *step)
{
    char folder[FSX_PATH_MAX];
    assert_int_equal(fsx_path(folder, NULL, "%s/%s", f->folder, step), 0);
    assert_int_equal(manifest_write(folder, FILES, 3, NULL, NULL), 0);
}

static void a_code_without_a_pattern_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    bool found = false;
    struct trainer_config config = fixture_config("chts24", 1, 4);
    fixture_open(&f, &config);
    fixture_fill(&f, 1);
    f.trainer->model->codes[5] = 4; /* 1:4 has the patterns 0 to 3 */
    save(&f);
    reseal(&f, "step-00000009");
    assert_int_equal(checkpoint_resume(f.trainer, f.folder, &found, NULL, &err), ERR_CORRUPT);
    assert_false(found);
    fixture_release(&f);
}

static void another_header_under_a_valid_manifest_is_refused(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    bool found = false;
    struct trainer_config config = fixture_config("chts24", 1, 4);
    fixture_open(&f, &config);
    fixture_fill(&f, 1);
    save(&f);
    /* One letter of a tensor's name. */
    char *path = strdup(fixture_path(&f, "step-00000009/model.safetensors"));
    size_t size;
    char *bytes = slurp(path, &size);
    const char *at = memmem(bytes, size, "embed_tokens", 12);
    assert_non_null(at);
    fixture_damage(path, (long)(at - bytes), 1);
    reseal(&f, "step-00000009");
    assert_int_equal(checkpoint_resume(f.trainer, f.folder, &found, NULL, &err), ERR_CORRUPT);
    free(bytes);
    free(path);
    fixture_release(&f);
}

static void prune_keeps_the_newest_and_clears_what_a_killed_writer_left(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct trainer_config config = fixture_config("static", 1, 4);
    fixture_open(&f, &config);
    for (uint64_t salt = 1; salt <= 4; salt++) {
        fixture_fill(&f, salt);
        save(&f);
    }
    assert_int_equal(fsx_mkdirs(fixture_path(&f, ".step-00000099.tmp/deep"), 0755, &err), 0);
    assert_int_equal(fsx_mkdirs(fixture_path(&f, "step-notes"), 0755, &err), 0);
    struct checkpoint_keep keep = {.last = 2};
    assert_int_equal(checkpoint_prune(f.folder, &keep, &err), 0);
    assert_false(fsx_exists(fixture_path(&f, "step-00000009")));
    assert_false(fsx_exists(fixture_path(&f, "step-00000010")));
    assert_true(fsx_exists(fixture_path(&f, "step-00000011/manifest.json")));
    assert_true(fsx_exists(fixture_path(&f, "step-00000012/manifest.json")));
    assert_false(fsx_exists(fixture_path(&f, ".step-00000099.tmp")));
    assert_true(fsx_exists(fixture_path(&f, "step-notes")));
    keep.last = 0; /* one is the least */
    assert_int_equal(checkpoint_prune(f.folder, &keep, &err), 0);
    assert_false(fsx_exists(fixture_path(&f, "step-00000011")));
    assert_true(fsx_exists(fixture_path(&f, "step-00000012/manifest.json")));
    fixture_release(&f);
}

/* Checkpoints of steps 1 .. 8 with these validation losses (NaN: not evaluated). */
static void save_series(struct fixture *f, const double losses[8])
{
    for (size_t i = 0; i < 8; i++) {
        fixture_fill(f, 1);
        f->trainer->step = i + 1;
        f->trainer->validation_loss = losses[i];
        f->trainer->validation_step = isnan(losses[i]) ? i : i + 1;
        save(f);
    }
}

/* present: a digit per step that must be there. */
static void expect_present(const struct fixture *f, const char *present)
{
    for (int step = 1; step <= 8; step++) {
        char name[32];
        snprintf(name, sizeof name, "step-%08d", step);
        if (fsx_exists(fixture_path(f, name)) != (strchr(present, '0' + step) != NULL))
            fail_msg("%s: expected of 1 to 8: %s", name, present);
    }
}

static void prune_keeps_the_best_and_the_last_that_was_due(void **state)
{
    (void)state;
    static const double losses[8] = {4, 2, 1.5, 3, 1.5, (double)NAN, 2.5, 2.25};
    static const struct {
        struct checkpoint_keep keep;
        const char *present;
    } cases[] = {
        {{.last = 2}, "78"},
        {{.last = 1, .best = 1}, "38"}, /* of two equal ones the older */
        {{.last = 1, .best = 2}, "358"},
        {{.last = 3, .best = 3}, "235678"},
        {{.last = 1, .best = 1, .every = 4}, "38"},
        {{.last = 1, .best = 1, .every = 7}, "378"},
        {{.last = 1, .best = 100}, "1234578"}, /* 6 has no loss */
        {{.last = 100}, "12345678"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        struct err err = {0};
        struct trainer_config config = fixture_config("static", 1, 4);
        fixture_open(&f, &config);
        save_series(&f, losses);
        if (checkpoint_prune(f.folder, &cases[i].keep, &err) != 0)
            fail_msg("%s", err.text);
        expect_present(&f, cases[i].present);
        fixture_release(&f);
    }
}

static void nothing_is_pruned_while_the_newest_is_damaged(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    const struct checkpoint_keep keep = {.last = 1};
    struct trainer_config config = fixture_config("static", 1, 4);
    fixture_open(&f, &config);
    save_series(&f, (const double[8]){1, 1, 1, 1, 1, 1, 1, 1});
    fixture_damage(fixture_path(&f, "step-00000008/state.safetensors"), -5, 4);
    assert_int_equal(checkpoint_prune(f.folder, &keep, &err), ERR_CORRUPT);
    expect_present(&f, "12345678");
    fixture_release(&f);
}

/* ---- roll back ---- */

static void a_roll_back_takes_the_last_good_one_that_was_due(void **state)
{
    (void)state;
    static const struct {
        size_t from, every, to; /* 0: none */
        int damaged;            /* this step's checkpoint; 0: none */
        const char *present;
    } cases[] = {
        {8, 2, 6, 0, "123456"}, /* 8 is not known to be good: nothing was accepted after it */
        {7, 2, 6, 0, "123456"},   {8, 2, 4, 6, "1234"},     {8, 3, 6, 0, "123456"},
        {5, 0, 4, 0, "1234"},     {3, 4, 0, 0, "12345678"}, {2, 2, 0, 0, "12345678"},
        {8, 5, 0, 5, "12345678"},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        struct fixture f;
        struct err warning = {0}, err = {0};
        bool found;
        struct trainer_config config = fixture_config("static", 1, 4);
        fixture_open(&f, &config);
        save_series(&f, (const double[8]){1, 1, 1, 1, 1, 1, 1, 1});
        char name[64];
        snprintf(name, sizeof name, "step-%08d/state.safetensors", cases[i].damaged);
        if (cases[i].damaged)
            fixture_damage(fixture_path(&f, name), -5, 4);
        f.trainer->step = cases[i].from;
        f.trainer->guard.skipped = 40;
        f.trainer->guard.rollbacks = 5;
        if (checkpoint_roll_back(f.trainer, f.folder, cases[i].every, &found, &warning, &err))
            fail_msg("%s", err.text);
        assert_int_equal(found, cases[i].to > 0);
        assert_int_equal(f.trainer->step, found ? cases[i].to : cases[i].from);
        /* the next batch is the one that would have been next */
        assert_int_equal(f.trainer->step + f.trainer->guard.skipped, cases[i].from + 40);
        assert_int_equal(f.trainer->guard.rollbacks, found ? 6 : 5);
        assert_int_equal(warning.code != 0, cases[i].damaged != 0);
        expect_present(&f, cases[i].present);
        fixture_release(&f);
    }
}

static void a_model_is_loaded_from_a_checkpoint_alone(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct model *model = NULL;
    char *newest = NULL;
    struct checkpoint_info info;
    struct trainer_config config = fixture_config("chts24", 2, 4);
    fixture_open(&f, &config);
    fixture_fill(&f, 1);
    save(&f);
    assert_int_equal(checkpoint_newest(&newest, f.folder, &err), 0);
    assert_int_equal(checkpoint_describe(&info, newest, &err), 0);
    assert_int_equal(info.step, 9);
    assert_int_equal(info.shape.hidden, 16);
    assert_string_equal(info.method, "chts24");
    if (checkpoint_load_model(&model, f.dev, newest, 1, 0, &err) != 0)
        fail_msg("%s", err.text);
    assert_null(model->grads);
    assert_memory_equal(model->weights, f.trainer->model->weights, model->count * sizeof(real));
    assert_memory_equal(model->codes, f.trainer->model->codes,
                        model->code_count * sizeof(uint16_t));
    model_destroy(model);
    free(newest);
    fixture_release(&f);
}

static void a_shape_that_its_file_cannot_hold_takes_no_memory(void **state)
{
    (void)state;
    static const char *const changes[][2] = {
        {"\"vocab\":33", "\"vocab\":16000000"},
        {"\"layers\":2", "\"layers\":500"},
        {"\"intermediate\":24", "\"intermediate\":65536"},
    };
    for (size_t i = 0; i < 3; i++) {
        struct fixture f;
        struct err err = {0};
        struct model *model = NULL;
        struct trainer_config config = fixture_config("chts24", 1, 4);
        fixture_open(&f, &config);
        fixture_fill(&f, 1);
        save(&f);
        rewrite(&f, changes[i][0], changes[i][1]);
        assert_int_equal(checkpoint_load_model(&model, f.dev, fixture_path(&f, "step-00000009"),
                                               1, 0, &err),
                         ERR_CORRUPT);
        assert_non_null(strstr(err.text, "too few for the shape"));
        fixture_release(&f);
    }
}

static void saving_where_nothing_can_be_written_is_an_error(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    uint64_t bytes;
    struct trainer_config config = fixture_config("static", 1, 4);
    fixture_open(&f, &config);
    assert_int_equal(checkpoint_save(f.trainer, "/dev/null/here", &bytes, &err), ERR_IO);
    assert_true(strlen(err.text) > 0);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resume_gives_back_the_saved_state),
        cmocka_unit_test(equal_states_give_equal_bytes),
        cmocka_unit_test(an_empty_or_missing_folder_has_nothing_to_resume),
        cmocka_unit_test(a_damaged_checkpoint_is_skipped_and_named),
        cmocka_unit_test(a_checkpoint_of_another_run_is_refused_by_field),
        cmocka_unit_test(files_of_other_lengths_are_refused),
        cmocka_unit_test(a_code_without_a_pattern_is_refused),
        cmocka_unit_test(another_header_under_a_valid_manifest_is_refused),
        cmocka_unit_test(prune_keeps_the_newest_and_clears_what_a_killed_writer_left),
        cmocka_unit_test(prune_keeps_the_best_and_the_last_that_was_due),
        cmocka_unit_test(nothing_is_pruned_while_the_newest_is_damaged),
        cmocka_unit_test(a_roll_back_takes_the_last_good_one_that_was_due),
        cmocka_unit_test(a_wrong_guard_is_refused),
        cmocka_unit_test(a_model_is_loaded_from_a_checkpoint_alone),
        cmocka_unit_test(a_shape_that_its_file_cannot_hold_takes_no_memory),
        cmocka_unit_test(saving_where_nothing_can_be_written_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
