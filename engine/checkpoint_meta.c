/* train.json: {"format", "step", "refresh", "tokens", "validation_loss", "guard": {...},
 * "shape":
 * {...}, "method": {...}, "run": {...}, "data": {...}}. Each of shape, method and run is a
 * table of fields, from which it is written, read and compared. */
#include "engine/checkpoint_files.h"
#include "engine/method_rules.h"
#include "proto/json/json.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define META_FORMAT "hebb-checkpoint-1"

enum meta_type {
    META_SIZE,
    META_UNSIGNED,
    META_REAL,
    META_BOOL,
    META_STRING,
    META_RULE,
    META_SEED
};

struct meta_field {
    const char *name;
    enum meta_type type;
    size_t offset;            /* in struct trainer_config */
    const char *const *rules; /* META_RULE: the names of the enum's values */
};

#define FIELD(field) offsetof(struct trainer_config, field)

static const struct meta_field shape_fields[] = {
    {"hidden", META_SIZE, FIELD(shape.hidden), NULL},
    {"intermediate", META_SIZE, FIELD(shape.intermediate), NULL},
    {"layers", META_SIZE, FIELD(shape.layers), NULL},
    {"heads", META_SIZE, FIELD(shape.heads), NULL},
    {"kv_heads", META_SIZE, FIELD(shape.kv_heads), NULL},
    {"vocab", META_SIZE, FIELD(shape.vocab), NULL},
    {"context", META_SIZE, FIELD(shape.context), NULL},
    {"rope_theta", META_REAL, FIELD(shape.rope_theta), NULL},
    {"norm_eps", META_REAL, FIELD(shape.norm_eps), NULL},
    {"tie_embeddings", META_BOOL, FIELD(shape.tie_embeddings), NULL},
    {"n", META_UNSIGNED, FIELD(shape.n), NULL},
    {"m", META_UNSIGNED, FIELD(shape.m), NULL},
    {"adapter", META_RULE, FIELD(shape.adapter.kind), adapter_names},
    {"adapter_rank", META_SIZE, FIELD(shape.adapter.rank), NULL},
    {"adapter_hidden", META_SIZE, FIELD(shape.adapter.hidden), NULL},
    {"adapter_gamma", META_REAL, FIELD(shape.adapter.gamma), NULL},
    {"adapter_alpha", META_REAL, FIELD(shape.adapter.alpha), NULL},
    {"layout", META_RULE, FIELD(shape.layout), nm_layout_names},
    {"latent", META_RULE, FIELD(shape.latent), model_latent_names},
    {0},
};

static const struct meta_field method_fields[] = {
    {"name", META_STRING, FIELD(method.name), NULL},
    {"interval", META_SIZE, FIELD(method.interval), NULL},
    {"until", META_REAL, FIELD(method.until), NULL},
    {"zeta", META_REAL, FIELD(method.zeta), NULL},
    {"removal", META_RULE, FIELD(method.removal), removal_rule_names},
    {"soft", META_BOOL, FIELD(method.soft), NULL},
    {"temperature_start", META_REAL, FIELD(method.temperature_start), NULL},
    {"temperature_end", META_REAL, FIELD(method.temperature_end), NULL},
    {"score", META_RULE, FIELD(method.score), score_rule_names},
    {"repair", META_RULE, FIELD(method.repair), repair_rule_names},
    {"mpr", META_REAL, FIELD(method.mpr), NULL},
    {"penalty", META_REAL, FIELD(method.penalty), NULL},
    {"branch_share", META_REAL, FIELD(method.branch_share), NULL},
    {0},
};

/* What the course of the run depends on. micro_batch, ranks and threads may change between
 * attempts. */
static const struct meta_field run_fields[] = {
    {"steps", META_SIZE, FIELD(steps), NULL},
    {"warmup", META_SIZE, FIELD(warmup), NULL},
    {"batch", META_SIZE, FIELD(batch), NULL},
    {"context", META_SIZE, FIELD(context), NULL},
    {"seed", META_SEED, FIELD(seed), NULL},
    {"optimizer", META_STRING, FIELD(optimizer), NULL},
    {"lr", META_REAL, FIELD(lr), NULL},
    {"min_lr_ratio", META_REAL, FIELD(min_lr_ratio), NULL},
    {"beta1", META_REAL, FIELD(beta1), NULL},
    {"beta2", META_REAL, FIELD(beta2), NULL},
    {"eps", META_REAL, FIELD(eps), NULL},
    {"weight_decay", META_REAL, FIELD(weight_decay), NULL},
    {"grad_clip", META_REAL, FIELD(grad_clip), NULL},
    {"adam_lr_ratio", META_REAL, FIELD(optim.adam_lr_ratio), NULL},
    {"adam_eps", META_REAL, FIELD(optim.adam_eps), NULL},
    {"momentum", META_REAL, FIELD(optim.momentum), NULL},
    {"scale", META_RULE, FIELD(optim.scale), scale_rule_names},
    {"gamma_ns", META_REAL, FIELD(optim.gamma_ns), NULL},
    {"ramp", META_SIZE, FIELD(optim.ramp), NULL},
    {"rms", META_RULE, FIELD(optim.rms), rms_rule_names},
    {"age_correction", META_BOOL, FIELD(optim.age_correction), NULL},
    {"spike_window", META_SIZE, FIELD(guard.window), NULL},
    {"spike_factor", META_REAL, FIELD(guard.factor), NULL},
    {"spike_rise", META_REAL, FIELD(guard.rise), NULL},
    {"skips", META_SIZE, FIELD(guard.skips), NULL},
    {"rollbacks", META_SIZE, FIELD(guard.rollbacks), NULL},
    {0},
};

static const struct meta_section {
    const char *name;
    const struct meta_field *fields;
} sections[] = {{"shape", shape_fields}, {"method", method_fields}, {"run", run_fields}};

enum { SECTION_COUNT = sizeof sections / sizeof *sections };

/* The field's value as a new cJSON item, NULL without memory. */
static cJSON *field_print(const struct meta_field *field, const struct trainer_config *config)
{
    const char *at = (const char *)config + field->offset;
    char digits[24];
    switch (field->type) {
    case META_SIZE:
        return cJSON_CreateNumber((double)*(const size_t *)at);
    case META_UNSIGNED:
        return cJSON_CreateNumber((double)*(const unsigned *)at);
    case META_REAL:
        return cJSON_CreateNumber(*(const double *)at);
    case META_BOOL:
        return cJSON_CreateBool(*(const bool *)at);
    case META_STRING:
        return *(const char *const *)at ? cJSON_CreateString(*(const char *const *)at)
                                        : cJSON_CreateNull();
    case META_RULE:
        return cJSON_CreateString(field->rules[*(const unsigned *)at]);
    case META_SEED:
        snprintf(digits, sizeof digits, "%" PRIu64, *(const uint64_t *)at);
        return cJSON_CreateString(digits);
    }
    return NULL;
}

/* Adds item to object; false (item freed) without memory. */
static bool object_add(cJSON *object, const char *key, cJSON *item)
{
    if (item && cJSON_AddItemToObject(object, key, item)) {
        return true;
    }
    cJSON_Delete(item);
    return false;
}

static bool section_print(cJSON *root, const struct meta_section *section,
                          const struct trainer_config *config)
{
    cJSON *object = cJSON_AddObjectToObject(root, section->name);
    bool ok = object != NULL;
    for (const struct meta_field *field = section->fields; ok && field->name; field++) {
        ok = object_add(object, field->name, field_print(field, config));
    }
    return ok;
}

/* "data": the extent of the trainer's files; a trainer without data has no such section. */
static cJSON *data_print(const struct dataset *data)
{
    struct dataset_extent extent;
    char digits[24];
    dataset_measure(data, &extent);
    snprintf(digits, sizeof digits, "%016" PRIx64, extent.files);
    cJSON *object = cJSON_CreateObject();
    if (object && object_add(object, "tokens", cJSON_CreateNumber((double)extent.tokens)) &&
        object_add(object, "files", cJSON_CreateString(digits))) {
        return object;
    }
    cJSON_Delete(object);
    return NULL;
}

/* "guard": the losses from the oldest to the newest. */
static cJSON *guard_print(const struct guard *guard, size_t window)
{
    cJSON *object = cJSON_CreateObject(), *losses = cJSON_CreateArray();
    const size_t oldest = guard->count < window ? 0 : guard->next;
    bool ok = object && losses &&
              object_add(object, "skipped", cJSON_CreateNumber((double)guard->skipped)) &&
              object_add(object, "streak", cJSON_CreateNumber((double)guard->streak)) &&
              object_add(object, "rollbacks", cJSON_CreateNumber((double)guard->rollbacks));
    for (size_t i = 0; ok && i < guard->count; i++) {
        cJSON *item = cJSON_CreateNumber(guard->losses[(oldest + i) % window]);
        ok = item && cJSON_AddItemToArray(losses, item);
    }
    if (!ok) {
        cJSON_Delete(losses);
        cJSON_Delete(object);
        return NULL;
    }
    if (!object_add(object, "losses", losses)) {
        cJSON_Delete(object);
        return NULL;
    }
    return object;
}

/* null unless the state was evaluated as it is. */
static cJSON *validation_print(const struct trainer *trainer)
{
    const bool known =
        trainer->validation_step == trainer->step && isfinite(trainer->validation_loss);
    return known ? cJSON_CreateNumber(trainer->validation_loss) : cJSON_CreateNull();
}

int checkpoint_meta_write(const struct trainer *trainer, const char *path, struct err *err)
{
    struct buf text;
    buf_init(&text, CHECKPOINT_TRAIN_BYTES_MAX);
    cJSON *root = cJSON_CreateObject();
    bool ok =
        root && object_add(root, "format", cJSON_CreateString(META_FORMAT)) &&
        object_add(root, "step", cJSON_CreateNumber((double)trainer->step)) &&
        object_add(root, "refresh", cJSON_CreateNumber((double)trainer->refresh)) &&
        object_add(root, "tokens", cJSON_CreateNumber((double)trainer->tokens)) &&
        object_add(root, "validation_loss", validation_print(trainer)) &&
        object_add(root, "guard", guard_print(&trainer->guard, trainer->config.guard.window));
    for (size_t i = 0; ok && i < SECTION_COUNT; i++) {
        ok = section_print(root, &sections[i], &trainer->config);
    }
    ok = ok && (!trainer->data || object_add(root, "data", data_print(trainer->data)));
    if (ok) {
        json_print(root, &text);
        buf_puts(&text, "\n");
    }
    int rc = ok && !text.failed ? fsx_publish(path, text.data, text.len, 0644, err)
                                : err_set(err, ERR_NO_MEMORY, "no memory to write %s", path);
    cJSON_Delete(root);
    buf_release(&text);
    return rc;
}

/* The text of a field for a message; out is cleared first. */
static const char *item_text(const cJSON *item, struct buf *out)
{
    buf_clear(out);
    json_print(item, out);
    return out->data && !out->failed ? out->data : "?";
}

static int section_compare(const cJSON *saved, const struct meta_section *section,
                           const struct trainer_config *config, const char *folder,
                           struct err *err)
{
    int rc = 0;
    struct buf was, is;
    buf_init(&was, ERR_TEXT_MAX);
    buf_init(&is, ERR_TEXT_MAX);
    for (const struct meta_field *field = section->fields; rc == 0 && field->name; field++) {
        cJSON *now = field_print(field, config);
        const cJSON *then = cJSON_GetObjectItemCaseSensitive(saved, field->name);
        if (!now) {
            rc = err_set(err, ERR_NO_MEMORY, "no memory to compare %s", folder);
        } else if (!then) {
            rc = err_set(err, ERR_CORRUPT, "%s: train.json has no %s.%s", folder, section->name,
                         field->name);
        } else if (!cJSON_Compare(then, now, true)) {
            rc = err_set(err, ERR_INVALID, "%s: %s.%s was %s when it was saved and is %s now",
                         folder, section->name, field->name, item_text(then, &was),
                         item_text(now, &is));
        }
        cJSON_Delete(now);
    }
    buf_release(&was);
    buf_release(&is);
    return rc;
}

/* The files must be cut into windows as they were, or the order of the samples is another. */
static int data_compare(const cJSON *root, const struct dataset *data, const char *folder,
                        struct err *err)
{
    const cJSON *then = json_object(root, "data");
    cJSON *now = data_print(data);
    int rc = 0;
    if (!now) {
        rc = err_set(err, ERR_NO_MEMORY, "no memory to compare %s", folder);
    } else if (!then) {
        rc = err_set(err, ERR_CORRUPT, "%s: train.json has no data", folder);
    } else if (!cJSON_Compare(then, now, true)) {
        rc = err_set(err, ERR_CORRUPT,
                     "%s: the data files changed: they had %.0f tokens when it was saved and "
                     "have %.0f now, or their order is another",
                     folder, cJSON_GetNumberValue(cJSON_GetObjectItem(then, "tokens")),
                     cJSON_GetNumberValue(cJSON_GetObjectItem(now, "tokens")));
    }
    cJSON_Delete(now);
    return rc;
}

/* Reads the fields of the shape (sizes, reals, bools, rules) into config. */
static int shape_parse(const cJSON *saved, struct trainer_config *config, const char *folder,
                       struct err *err)
{
    for (const struct meta_field *field = shape_fields; field->name; field++) {
        char *at = (char *)config + field->offset;
        int64_t whole = 0;
        bool ok;
        if (field->type == META_RULE) {
            const char *word = json_string(saved, field->name);
            int rule = word ? rule_find(field->rules, word) : -1;
            ok = rule >= 0;
            *(unsigned *)at = ok ? (unsigned)rule : 0;
        } else if (field->type == META_REAL) {
            ok = json_real((double *)at, saved, field->name);
        } else if (field->type == META_BOOL) {
            ok = json_bool((bool *)at, saved, field->name);
        } else {
            ok = json_int(&whole, saved, field->name) && whole >= 0 && whole <= UINT32_MAX;
            if (ok && field->type == META_SIZE) {
                *(size_t *)at = (size_t)whole;
            } else if (ok) {
                *(unsigned *)at = (unsigned)whole;
            }
        }
        if (!ok) {
            return err_set(err, ERR_CORRUPT, "%s: train.json: shape.%s is missing or wrong",
                           folder, field->name);
        }
    }
    return 0;
}

static int position_parse(struct checkpoint_info *out, const cJSON *root, const char *folder,
                          struct err *err)
{
    const char *format = json_string(root, "format");
    if (!format || strcmp(format, META_FORMAT) != 0) {
        return err_set(err, ERR_CORRUPT, "%s: train.json: format is %s, not %s", folder,
                       format ? format : "missing", META_FORMAT);
    }
    int64_t step, refresh, tokens;
    if (!json_int(&step, root, "step") || !json_int(&refresh, root, "refresh") ||
        !json_int(&tokens, root, "tokens") || step < 0 || refresh < 0 || tokens < 0) {
        return err_set(err, ERR_CORRUPT,
                       "%s: train.json: step, refresh or tokens is missing or wrong", folder);
    }
    out->step = (uint64_t)step;
    out->refresh = (uint64_t)refresh;
    out->tokens = (uint64_t)tokens;
    const cJSON *loss = cJSON_GetObjectItemCaseSensitive(root, "validation_loss");
    out->validation_loss = cJSON_IsNumber(loss) ? cJSON_GetNumberValue(loss) : (double)NAN;
    if (!cJSON_IsNumber(loss) && !cJSON_IsNull(loss)) {
        return err_set(err, ERR_CORRUPT,
                       "%s: train.json: validation_loss is missing or no number", folder);
    }
    return 0;
}

static bool count_parse(size_t *out, const cJSON *object, const char *key)
{
    int64_t value;
    bool ok = json_int(&value, object, key) && value >= 0;
    *out = ok ? (size_t)value : 0;
    return ok;
}

/* window: of the run's configuration; the losses are at most as many. */
static int guard_parse(struct guard *out, const cJSON *root, size_t window, const char *folder,
                       struct err *err)
{
    const cJSON *saved = json_object(root, "guard"), *losses = json_array(saved, "losses"),
                *item;
    size_t skipped = 0;
    bool ok = losses && count_parse(&skipped, saved, "skipped") &&
              count_parse(&out->streak, saved, "streak") &&
              count_parse(&out->rollbacks, saved, "rollbacks");
    out->skipped = skipped;
    out->count = 0;
    cJSON_ArrayForEach(item, losses)
    {
        ok = ok && cJSON_IsNumber(item) && out->count < window;
        if (ok) {
            out->losses[out->count++] = cJSON_GetNumberValue(item);
        }
    }
    out->next = window > 0 ? out->count % window : 0;
    return ok ? 0
              : err_set(err, ERR_CORRUPT, "%s: train.json: guard is missing or wrong", folder);
}

/* Shape and method of the sections, which are there. */
static int model_parse(struct checkpoint_info *out, const cJSON *root, const char *folder,
                       struct err *err)
{
    struct trainer_config config = {0};
    const char *method = json_string(json_object(root, "method"), "name");
    if (!method || strlen(method) >= sizeof out->method) {
        return err_set(err, ERR_CORRUPT, "%s: train.json: method.name is missing or too long",
                       folder);
    }
    strcpy(out->method, method);
    int rc = shape_parse(json_object(root, "shape"), &config, folder, err);
    out->shape = config.shape;
    return rc;
}

int checkpoint_meta_read(struct checkpoint_info *out, const char *folder,
                         const struct trainer *trainer, struct err *err)
{
    char path[FSX_PATH_MAX];
    cJSON *root = NULL;
    int rc = fsx_path(path, err, "%s/%s", folder, CHECKPOINT_TRAIN_FILE);
    if (rc == 0) {
        rc = json_read(&root, path, CHECKPOINT_TRAIN_BYTES_MAX, err);
    }
    if (rc == 0) {
        rc = position_parse(out, root, folder, err);
    }
    for (size_t i = 0; rc == 0 && i < SECTION_COUNT; i++) {
        const cJSON *saved = json_object(root, sections[i].name);
        if (!saved) {
            rc =
                err_set(err, ERR_CORRUPT, "%s: train.json has no %s", folder, sections[i].name);
        } else if (trainer) {
            rc = section_compare(saved, &sections[i], &trainer->config, folder, err);
        }
    }
    if (rc == 0) {
        rc =
            guard_parse(&out->guard, root,
                        trainer ? trainer->config.guard.window : GUARD_WINDOW_MAX, folder, err);
    }
    if (rc == 0 && trainer && trainer->data) {
        rc = data_compare(root, trainer->data, folder, err);
    }
    if (rc == 0) {
        rc = model_parse(out, root, folder, err);
    }
    cJSON_Delete(root);
    return rc;
}

int checkpoint_describe(struct checkpoint_info *out, const char *path, struct err *err)
{
    return checkpoint_meta_read(out, path, NULL, err);
}
