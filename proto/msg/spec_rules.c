/* Presets, computed defaults, and the rules over more than one field. */
#include "proto/msg/spec_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

static bool spec_is(const char *value, const char *name) { return strcmp(value, name) == 0; }

/* The methods that have motif pattern revisitation. */
static bool revisits(const struct job_spec *spec)
{
    return spec_is(spec->sparsity.method, "chtsnm") ||
           spec_is(spec->sparsity.method, "retrain");
}

/* Cannistraci-Hebb training in any form. */
static bool chts(const struct job_spec *spec)
{
    return spec_is(spec->sparsity.method, "chts24") || revisits(spec);
}

static bool block(const struct job_spec *spec)
{
    return spec_is(spec->sparsity.layout, "block");
}

double spec_density(const struct job_spec *spec)
{
    return spec_is(spec->sparsity.method, "dense")
               ? 1.0
               : (double)spec->sparsity.n / (double)spec->sparsity.m;
}

bool spec_latent(const struct job_spec *spec)
{
    return spec_is(spec->sparsity.method, "ste") || spec_is(spec->sparsity.method, "srste") ||
           spec_is(spec->sparsity.method, "cast");
}

bool spec_refreshes(const struct job_spec *spec)
{
    return spec_is(spec->sparsity.method, "set") || spec_is(spec->sparsity.method, "rigl") ||
           chts(spec);
}

/* --- defaults --- */

static void complete_shape(struct spec_draft *draft)
{
    struct job_spec *spec = draft->spec;
    const struct {
        const char *path;
        int64_t *value;
    } shape[] = {
        {"/model/hidden", &spec->model.hidden},
        {"/model/intermediate", &spec->model.intermediate},
        {"/model/layers", &spec->model.layers},
        {"/model/heads", &spec->model.heads},
    };
    enum { SHAPE = sizeof(shape) / sizeof(shape[0]) };
    bool any = false;
    for (size_t i = 0; i < SHAPE; i++) {
        any = any || spec_given(draft, shape[i].path);
    }
    if (!spec_given(draft, "/model/preset")) {
        snprintf(spec->model.preset, sizeof(spec->model.preset), any ? "none" : "llama-60m");
    }
    size_t count;
    const struct spec_preset *preset = NULL, *presets = spec_presets(&count);
    for (size_t i = 0; i < count; i++) {
        if (spec_is(spec->model.preset, presets[i].name)) {
            preset = &presets[i];
        }
    }
    const int64_t from[SHAPE] = {preset ? preset->hidden : 0, preset ? preset->intermediate : 0,
                                 preset ? preset->layers : 0, preset ? preset->heads : 0};
    bool known = spec_sound(draft, (const char *const[]){"/model/preset", NULL});
    for (size_t i = 0; i < SHAPE; i++) {
        if (spec_given(draft, shape[i].path)) {
            continue;
        }
        *shape[i].value = from[i];
        if (!preset && known) {
            spec_fault(draft, shape[i].path, "required when model.preset is none");
        } else if (!preset) {
            draft->faulty[spec_row(shape[i].path)] = true; /* rules over it would mislead */
        }
    }
    if (!spec_given(draft, "/model/kv_heads")) {
        spec->model.kv_heads = spec->model.heads;
    }
}

/* The largest divisor of count with at most SPEC_MICRO_TOKENS tokens, at least 1. */
static int64_t choose_micro_batch(int64_t count, int64_t context)
{
    int64_t best = 1;
    for (int64_t d = 1; d <= count && d * context <= SPEC_MICRO_TOKENS; d++) {
        if (count % d == 0) {
            best = d;
        }
    }
    return best;
}

void spec_complete(struct spec_draft *draft)
{
    struct job_spec *spec = draft->spec;
    complete_shape(draft);
    if (!spec_given(draft, "/model/vocab")) {
        spec->model.vocab =
            spec_is(spec->data.tokenizer, "bytes") ? SPEC_VOCAB_BYTES : SPEC_VOCAB_TOKENS;
    }
    if (!spec_given(draft, "/sparsity/soft")) {
        spec->sparsity.soft = chts(spec);
    }
    if (!spec_given(draft, "/sparsity/score")) {
        snprintf(spec->sparsity.score, sizeof(spec->sparsity.score),
                 spec_is(spec->sparsity.method, "set")    ? "random"
                 : spec_is(spec->sparsity.method, "rigl") ? "gradient"
                                                          : "ch2-l3n");
    }
    if (!spec_given(draft, "/adapter/name") ||
        draft->faulty[spec_row("/adapter/name")]) { /* the default, so that rules can run */
        snprintf(spec->adapter.name, sizeof(spec->adapter.name),
                 spec_is(spec->sparsity.method, "slope") ? "lora" : "none");
    }
    if (!spec_given(draft, "/adapter/alpha")) {
        spec->adapter.alpha = (double)spec->adapter.rank;
    }
    if (!spec_given(draft, "/optimizer/eps")) {
        spec->optimizer.eps = spec_is(spec->optimizer.name, "tans") ? 1e-5 : 1e-8;
    }
    if (!spec_given(draft, "/sparsity/mpr") && revisits(spec)) {
        /* rho of preprint 202605.0851, appendix E */
        spec->sparsity.mpr = block(spec)                                ? 0
                             : 4 * spec->sparsity.n <= spec->sparsity.m ? 0.5
                                                                        : 0.75;
    }
    if (!spec_given(draft, "/sparsity/penalty")) {
        spec->sparsity.penalty = spec_is(spec->sparsity.method, "srste")  ? 1e-4
                                 : spec_is(spec->sparsity.method, "cast") ? 2e-4
                                                                          : 0;
    }
    if (!spec_given(draft, "/train/warmup")) {
        int64_t tenth = spec->train.steps / 10;
        spec->train.warmup = tenth < 1000 ? tenth : 1000;
    }
    if (!spec_given(draft, "/train/context")) {
        spec->train.context = spec->model.context;
    }
    if (!spec_given(draft, "/slurm/ranks_per_node")) {
        spec->slurm.ranks_per_node = spec->resources.ranks / spec->slurm.nodes;
    }
    if (!spec_given(draft, "/slurm/gpus_per_rank")) {
        spec->slurm.gpus_per_rank = spec_is(spec->resources.device, "cuda") ? 1 : 0;
    }
    if (spec->train.micro_batch == 0 && spec->train.batch % spec->resources.ranks == 0) {
        spec->train.micro_batch =
            choose_micro_batch(spec->train.batch / spec->resources.ranks, spec->train.context);
    }
}

/* --- rules --- */

#define SOUND(draft, ...) spec_sound(draft, (const char *const[]){__VA_ARGS__, NULL})

/* A fault at the first of the two rows that the user gave, at b if none. */
static const char *blame(const struct spec_draft *draft, const char *a, const char *b)
{
    return spec_given(draft, a) || !spec_given(draft, b) ? a : b;
}

static double count_parameters(const struct job_spec *spec)
{
    double hidden = (double)spec->model.hidden;
    double kv = hidden / (double)spec->model.heads * (double)spec->model.kv_heads;
    double block = 2 * hidden * hidden + 2 * hidden * kv +
                   3 * hidden * (double)spec_intermediate(spec) + 2 * hidden;
    double tables = (double)spec->model.vocab * hidden * (spec->model.tie_embeddings ? 1 : 2);
    return tables + (double)spec->model.layers * block + hidden;
}

static void check_model(struct spec_draft *draft)
{
    const struct job_spec *spec = draft->spec;
    int64_t hidden = spec->model.hidden, heads = spec->model.heads;
    if (SOUND(draft, "/model/hidden", "/model/heads")) {
        if (hidden % heads != 0) {
            spec_fault(draft, blame(draft, "/model/heads", "/model/hidden"),
                       "hidden %" PRId64 " is not a multiple of heads %" PRId64, hidden, heads);
        } else if (hidden / heads % 2 != 0) {
            spec_fault(draft, blame(draft, "/model/heads", "/model/hidden"),
                       "hidden %" PRId64 " / heads %" PRId64 " = %" PRId64
                       " is odd; the rotary embedding turns pairs",
                       hidden, heads, hidden / heads);
        }
    }
    if (SOUND(draft, "/model/heads", "/model/kv_heads") && heads % spec->model.kv_heads != 0) {
        spec_fault(draft, "/model/kv_heads",
                   "heads %" PRId64 " is not a multiple of kv_heads %" PRId64, heads,
                   spec->model.kv_heads);
    }
    if (SOUND(draft, "/model/widen", "/model/widen_rank", "/model/widen_hidden",
              "/model/hidden", "/model/intermediate", "/model/heads", "/model/kv_heads",
              "/sparsity/n", "/sparsity/m") &&
        spec_intermediate(spec) > SPEC_INTERMEDIATE_MAX) {
        spec_fault(draft, blame(draft, "/model/widen_rank", "/model/widen"),
                   "intermediate would grow to %" PRId64 "; the limit is %d",
                   spec_intermediate(spec), SPEC_INTERMEDIATE_MAX);
    }
    if (SOUND(draft, "/model/vocab", "/data/tokenizer") &&
        spec_is(spec->data.tokenizer, "bytes") && spec->model.vocab < SPEC_VOCAB_BYTES) {
        spec_fault(draft, "/model/vocab",
                   "must be at least %d for the tokenizer bytes, got %" PRId64,
                   SPEC_VOCAB_BYTES, spec->model.vocab);
    }
    if (SOUND(draft, "/model/hidden", "/model/intermediate", "/model/layers", "/model/heads",
              "/model/kv_heads", "/model/vocab", "/model/widen", "/model/widen_rank",
              "/model/widen_hidden", "/sparsity/n", "/sparsity/m") &&
        count_parameters(spec) > SPEC_PARAMETERS_MAX) {
        spec_fault(draft, "/model", "%.3g parameters; the limit is %.3g",
                   count_parameters(spec), SPEC_PARAMETERS_MAX);
    }
}

static void check_data(struct spec_draft *draft)
{
    const struct job_spec *spec = draft->spec;
    const char *format = spec->data.format;
    if (!SOUND(draft, "/data/tokenizer", "/data/format") || spec_is(format, "auto")) {
        return;
    }
    bool bytes = spec_is(spec->data.tokenizer, "bytes");
    if (bytes && !spec_is(format, "text")) {
        spec_fault(draft, "/data/format",
                   "%s holds tokens, but the tokenizer bytes reads text; use tokenizer none",
                   format);
    } else if (!bytes && spec_is(format, "text")) {
        spec_fault(draft, "/data/format",
                   "text needs a tokenizer; use tokenizer bytes, or one of the shard formats");
    }
}

/* Options that the chosen method, optimizer or adapter does not have. */
static void check_owners(struct spec_draft *draft)
{
    size_t count;
    const struct opt *rows = spec_options(&count);
    for (size_t i = 0; i < count; i++) {
        const char *owner = spec_owner(draft->spec, &rows[i]);
        bool method = strncmp(rows[i].path, "/sparsity/", 10) == 0;
        const char *selector =
            method                                          ? "/sparsity/method"
            : strncmp(rows[i].path, "/model/", 7) == 0      ? "/model/widen"
            : strncmp(rows[i].path, "/slurm/", 7) == 0      ? "/resources/launcher"
            : strncmp(rows[i].path, "/optimizer/", 11) == 0 ? "/optimizer/name"
                                                            : "/adapter/name";
        if (!draft->given[i] || spec_row_applies(draft->spec, &rows[i]) ||
            !SOUND(draft, selector)) {
            continue;
        }
        char owners[OPT_STRING_MAX] = "";
        for (const char *const *name = rows[i].owners; *name; name++) {
            size_t used = strlen(owners);
            snprintf(owners + used, sizeof(owners) - used, "%s%s", used > 0 ? ", " : "", *name);
        }
        spec_fault(draft, rows[i].path, "%s has no such option; it belongs to %s", owner,
                   owners);
    }
}

/* Every target's rows are whole blocks as well. */
static void check_block(struct spec_draft *draft)
{
    const struct job_spec *spec = draft->spec;
    if (!SOUND(draft, "/sparsity/layout") || !block(spec)) {
        return;
    }
    if (SOUND(draft, "/sparsity/m") && spec->sparsity.m != 4) {
        spec_fault(draft, blame(draft, "/sparsity/m", "/sparsity/layout"),
                   "the layout block has blocks of 4 x 4: m must be 4, got %" PRId64,
                   spec->sparsity.m);
    }
    int64_t heads = spec->model.heads, hidden = spec->model.hidden;
    if (SOUND(draft, "/model/hidden", "/model/heads", "/model/kv_heads") &&
        hidden / heads * spec->model.kv_heads % 4 != 0) {
        spec_fault(draft, blame(draft, "/model/kv_heads", "/model/heads"),
                   "kv_heads * hidden / heads = %" PRId64
                   " is not a multiple of 4, which the layout block needs",
                   hidden / heads * spec->model.kv_heads);
    }
    if (SOUND(draft, "/sparsity/mpr") && spec->sparsity.mpr > 0) {
        spec_fault(draft, "/sparsity/mpr",
                   "motif pattern revisitation is for the layout row; in the layout block it "
                   "must be 0, got %g",
                   spec->sparsity.mpr);
    }
}

static void check_sparsity(struct spec_draft *draft)
{
    const struct job_spec *spec = draft->spec;
    int64_t n = spec->sparsity.n, m = spec->sparsity.m;
    if (!SOUND(draft, "/sparsity/method") || spec_is(spec->sparsity.method, "dense")) {
        return;
    }
    if (SOUND(draft, "/sparsity/n", "/sparsity/m") && n >= m) {
        spec_fault(draft, blame(draft, "/sparsity/n", "/sparsity/m"),
                   "n %" PRId64 " must be below m %" PRId64, n, m);
    }
    if (SOUND(draft, "/sparsity/m", "/model/hidden") && spec->model.hidden % m != 0) {
        spec_fault(draft, "/model/hidden",
                   "%" PRId64 " is not a multiple of sparsity.m %" PRId64, spec->model.hidden,
                   m);
    }
    if (SOUND(draft, "/sparsity/m", "/model/intermediate") &&
        spec->model.intermediate % m != 0) {
        spec_fault(draft, "/model/intermediate",
                   "%" PRId64 " is not a multiple of sparsity.m %" PRId64,
                   spec->model.intermediate, m);
    }
    check_block(draft);
    if (SOUND(draft, "/model/init_from") && spec_is(spec->sparsity.method, "retrain") &&
        spec->model.init_from.count == 0) {
        spec_fault(draft, "/model/init_from", "required by the method retrain");
    }
    if (SOUND(draft, "/sparsity/score") && spec_is(spec->sparsity.method, "set") &&
        !spec_is(spec->sparsity.score, "random")) {
        spec_fault(draft, "/sparsity/score",
                   "set regrows at random; %s belongs to chts24, chtsnm and retrain",
                   spec->sparsity.score);
    }
}

static void check_adapter(struct spec_draft *draft)
{
    const struct job_spec *spec = draft->spec;
    if (SOUND(draft, "/sparsity/method", "/adapter/name") &&
        spec_is(spec->sparsity.method, "slope") && !spec_is(spec->adapter.name, "lora")) {
        spec_fault(draft, "/adapter/name", "slope trains a lora branch at the end; got %s",
                   spec->adapter.name);
    }
}

/* Ages are counted to 65535, where the correction must have faded: beta2^65535 = 0.0014. */
#define AGED_BETA2_MAX 0.9999

static void check_optimizer(struct spec_draft *draft)
{
    const struct job_spec *spec = draft->spec;
    if (SOUND(draft, "/optimizer/name", "/optimizer/age_correction", "/optimizer/beta2") &&
        spec_is(spec->optimizer.name, "tans") && spec->optimizer.age_correction &&
        spec->optimizer.beta2 > AGED_BETA2_MAX) {
        spec_fault(draft, blame(draft, "/optimizer/beta2", "/optimizer/age_correction"),
                   "beta2 %g is above %g, the most that age_correction can count for",
                   spec->optimizer.beta2, AGED_BETA2_MAX);
    }
    if (SOUND(draft, "/optimizer/name", "/sparsity/method") &&
        spec_is(spec->sparsity.method, "cast") && !spec_is(spec->optimizer.name, "adamw")) {
        spec_fault(draft, blame(draft, "/optimizer/name", "/sparsity/method"),
                   "cast scales its decay by adamw's second moment; %s has none",
                   spec->optimizer.name);
    }
}

static void check_train(struct spec_draft *draft)
{
    const struct job_spec *spec = draft->spec;
    int64_t batch = spec->train.batch, ranks = spec->resources.ranks;
    bool even = batch % ranks == 0;
    if (SOUND(draft, "/train/batch", "/resources/ranks") && !even) {
        spec_fault(draft, blame(draft, "/train/batch", "/resources/ranks"),
                   "batch %" PRId64 " is not a multiple of resources.ranks %" PRId64, batch,
                   ranks);
    }
    if (SOUND(draft, "/train/batch", "/resources/ranks", "/train/micro_batch") && even &&
        batch / ranks % spec->train.micro_batch != 0) {
        spec_fault(draft, "/train/micro_batch",
                   "%" PRId64 " does not divide batch / ranks = %" PRId64,
                   spec->train.micro_batch, batch / ranks);
    }
    if (SOUND(draft, "/train/context", "/model/context") &&
        spec->train.context > spec->model.context) {
        spec_fault(draft, "/train/context", "%" PRId64 " is above model.context %" PRId64,
                   spec->train.context, spec->model.context);
    }
    if (SOUND(draft, "/train/warmup", "/train/steps") &&
        spec->train.warmup > spec->train.steps) {
        spec_fault(draft, "/train/warmup", "%" PRId64 " is above train.steps %" PRId64,
                   spec->train.warmup, spec->train.steps);
    }
    double tokens = (double)spec->train.steps * (double)batch * (double)spec->train.context;
    if (SOUND(draft, "/train/steps", "/train/batch", "/train/context") &&
        tokens > SPEC_TOKENS_MAX) {
        spec_fault(draft, "/train", "steps * batch * context = %.3g tokens; the limit is %.3g",
                   tokens, SPEC_TOKENS_MAX);
    }
}

bool spec_label_good(const char *label)
{
    size_t len = strlen(label);
    if (len == 0 || len > SPEC_LABEL_MAX || label[0] == ' ' || label[len - 1] == ' ') {
        return false;
    }
    for (const char *c = label; *c; c++) {
        if (*c == ',' || (unsigned char)*c < 0x20 || *c == 0x7f) {
            return false;
        }
    }
    return true;
}

static void check_labels(struct spec_draft *draft)
{
    const struct str_list *labels = &draft->spec->labels;
    for (size_t i = 0; SOUND(draft, "/labels") && i < labels->count; i++) {
        char field[32];
        snprintf(field, sizeof(field), "/labels/%zu", i);
        if (!spec_label_good(labels->items[i])) {
            spec_fault(draft, field,
                       "a label has 1 to %d bytes without commas or spaces at its ends",
                       SPEC_LABEL_MAX);
        }
        for (size_t j = 0; j < i; j++) {
            if (strcmp(labels->items[i], labels->items[j]) == 0) {
                spec_fault(draft, field, "the same as /labels/%zu", j);
                break;
            }
        }
    }
}

void spec_check(struct spec_draft *draft)
{
    check_labels(draft);
    check_owners(draft);
    check_model(draft);
    check_data(draft);
    check_sparsity(draft);
    check_adapter(draft);
    check_optimizer(draft);
    check_train(draft);
    spec_check_slurm(draft);
}
