#include "engine/model_config.h"

#include "engine/data.h"
#include "engine/method_rules.h"
#include "proto/base/fsx.h"
#include "proto/json/json.h"

#include <string.h>

#define ORIGIN_FORMAT "hebb-model-1"

static int json_publish(const cJSON *root, const char *folder, const char *name,
                        struct err *err)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    buf_init(&text, MODEL_CONFIG_BYTES_MAX);
    json_print(root, &text);
    buf_puts(&text, "\n");
    int rc = fsx_path(path, err, "%s/%s", folder, name);
    if (rc == 0) {
        rc = text.failed ? err_set(err, ERR_NO_MEMORY, "no memory to write %s", path)
                         : fsx_publish(path, text.data, text.len, 0644, err);
    }
    buf_release(&text);
    return rc;
}

int model_config_write(const struct model_shape *shape, const char *folder,
                       const char *tokenizer, struct err *err)
{
    const struct {
        const char *name;
        double value;
    } numbers[] = {
        {"hidden_size", (double)shape->hidden},
        {"intermediate_size", (double)shape->intermediate},
        {"num_hidden_layers", (double)shape->layers},
        {"num_attention_heads", (double)shape->heads},
        {"num_key_value_heads", (double)shape->kv_heads},
        {"head_dim", (double)(shape->hidden / shape->heads)},
        {"vocab_size", (double)shape->vocab},
        {"max_position_embeddings", (double)shape->context},
        {"rms_norm_eps", shape->norm_eps},
        {"rope_theta", shape->rope_theta},
        {"initializer_range", 0.02},
    };
    cJSON *root = cJSON_CreateObject();
    cJSON *list = cJSON_AddArrayToObject(root, "architectures");
    cJSON_AddItemToArray(list, cJSON_CreateString("LlamaForCausalLM"));
    cJSON_AddStringToObject(root, "model_type", "llama");
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++) {
        cJSON_AddNumberToObject(root, numbers[i].name, numbers[i].value);
    }
    cJSON *rope = cJSON_AddObjectToObject(root, "rope_parameters");
    cJSON_AddStringToObject(rope, "rope_type", "default");
    cJSON_AddNumberToObject(rope, "rope_theta", shape->rope_theta);
    cJSON_AddStringToObject(root, "hidden_act", "silu");
    cJSON_AddBoolToObject(root, "attention_bias", false);
    cJSON_AddBoolToObject(root, "mlp_bias", false);
    cJSON_AddBoolToObject(root, "tie_word_embeddings", shape->tie_embeddings);
    /* transformers renamed torch_dtype to dtype; each reads its own. */
    cJSON_AddStringToObject(root, "torch_dtype", "float32");
    cJSON_AddStringToObject(root, "dtype", "float32");
    if (strcmp(tokenizer, "bytes") == 0) {
        cJSON_AddNumberToObject(root, "bos_token_id", DATA_SEPARATOR);
        cJSON_AddNumberToObject(root, "eos_token_id", DATA_SEPARATOR);
    } else { /* transformers' defaults of 1 and 2 would mean nothing here */
        cJSON_AddNullToObject(root, "bos_token_id");
        cJSON_AddNullToObject(root, "eos_token_id");
    }
    if (shape->adapter.kind != ADAPTER_NONE) {
        cJSON_AddStringToObject(root, "hebb_adapter",
                                "not the whole model: hebb.json and " MODEL_ADAPTER_FILE
                                " hold a branch that is added to every projection");
    }
    int rc = root && rope
                 ? json_publish(root, folder, MODEL_CONFIG_FILE, err)
                 : err_set(err, ERR_NO_MEMORY, "no memory to write %s", MODEL_CONFIG_FILE);
    cJSON_Delete(root);
    return rc;
}

static void adapter_add(cJSON *root, const struct adapter_shape *adapter)
{
    cJSON *object = cJSON_AddObjectToObject(root, "adapter");
    cJSON_AddStringToObject(object, "name", adapter_names[adapter->kind]);
    cJSON_AddNumberToObject(object, "rank", (double)adapter->rank);
    cJSON_AddNumberToObject(object, "hidden", (double)adapter->hidden);
    cJSON_AddNumberToObject(object, "gamma", adapter->gamma);
    cJSON_AddNumberToObject(object, "alpha", adapter->alpha);
    cJSON_AddStringToObject(object, "file", MODEL_ADAPTER_FILE);
}

int model_origin_write(const struct model_origin *origin, const char *folder, struct err *err)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "format", ORIGIN_FORMAT);
    cJSON_AddStringToObject(root, "method", origin->method);
    cJSON_AddStringToObject(root, "layout", nm_layout_names[origin->layout]);
    cJSON_AddNumberToObject(root, "n", origin->n);
    cJSON_AddNumberToObject(root, "m", origin->m);
    cJSON_AddStringToObject(root, "tokenizer", origin->tokenizer);
    if (origin->n < origin->m) {
        cJSON_AddStringToObject(root, "patterns", MODEL_PATTERNS_FILE);
    }
    if (origin->adapter.kind != ADAPTER_NONE) {
        adapter_add(root, &origin->adapter);
    }
    int rc = root ? json_publish(root, folder, MODEL_HEBB_FILE, err)
                  : err_set(err, ERR_NO_MEMORY, "no memory to write %s", MODEL_HEBB_FILE);
    cJSON_Delete(root);
    return rc;
}

/* Reading. Each function takes one field; a field that is absent has the default that
 * transformers gives it. */

static int size_read(size_t *out, const cJSON *root, const char *key, size_t fallback,
                     const char *path, struct err *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, key);
    if ((!item || cJSON_IsNull(item)) && fallback != 0) {
        *out = fallback;
        return 0;
    }
    int64_t value;
    if (!json_int(&value, root, key) || value <= 0 || value > INT32_MAX) {
        return err_set(err, ERR_CORRUPT, "%s: %s is missing or not a positive whole number",
                       path, key);
    }
    *out = (size_t)value;
    return 0;
}

static int real_read(double *out, const cJSON *root, const char *key, double fallback,
                     const char *path, struct err *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, key);
    *out = fallback;
    if (item && !cJSON_IsNull(item) && (!json_real(out, root, key) || *out <= 0)) {
        return err_set(err, ERR_CORRUPT, "%s: %s is not a positive number", path, key);
    }
    return 0;
}

/* A word that must have one value if it is there. */
static int word_check(const cJSON *root, const char *key, const char *wanted, const char *path,
                      struct err *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, key);
    if (!item || cJSON_IsNull(item)) {
        return 0;
    }
    if (!cJSON_IsString(item) || strcmp(item->valuestring, wanted) != 0) {
        return err_set(err, ERR_UNSUPPORTED, "%s: %s is %s; only \"%s\" is supported", path,
                       key, cJSON_IsString(item) ? item->valuestring : "not a string", wanted);
    }
    return 0;
}

static int false_check(const cJSON *root, const char *key, const char *path, struct err *err)
{
    const cJSON *item = cJSON_GetObjectItemCaseSensitive(root, key);
    if (item && !cJSON_IsFalse(item) && !cJSON_IsNull(item)) {
        return err_set(err, ERR_UNSUPPORTED, "%s: %s is set; this model has no biases", path,
                       key);
    }
    return 0;
}

/* theta and kind of RoPE, in the old place or in the new one. */
static int rope_read(struct model_shape *out, const cJSON *root, const char *path,
                     struct err *err)
{
    int rc = real_read(&out->rope_theta, root, "rope_theta", 10000.0, path, err);
    const cJSON *rope = json_object(root, "rope_parameters");
    if (rc == 0 && rope) {
        rc = real_read(&out->rope_theta, rope, "rope_theta", out->rope_theta, path, err);
    }
    if (rc == 0 && rope) {
        rc = word_check(rope, "rope_type", "default", path, err);
    }
    const cJSON *scaling = json_object(root, "rope_scaling");
    if (rc == 0 && scaling) {
        rc = word_check(scaling, "rope_type", "default", path, err);
        if (rc == 0) {
            rc = word_check(scaling, "type", "default", path, err);
        }
    }
    return rc;
}

static int sizes_read(struct model_shape *out, const cJSON *root, const char *path,
                      struct err *err)
{
    size_t head_dim = 0;
    int rc = size_read(&out->hidden, root, "hidden_size", 0, path, err);
    if (rc == 0) {
        rc = size_read(&out->intermediate, root, "intermediate_size", 0, path, err);
    }
    if (rc == 0) {
        rc = size_read(&out->layers, root, "num_hidden_layers", 0, path, err);
    }
    if (rc == 0) {
        rc = size_read(&out->heads, root, "num_attention_heads", 0, path, err);
    }
    if (rc == 0) {
        rc = size_read(&out->kv_heads, root, "num_key_value_heads", out->heads, path, err);
    }
    if (rc == 0) {
        rc = size_read(&out->vocab, root, "vocab_size", 0, path, err);
    }
    if (rc == 0) {
        rc = size_read(&out->context, root, "max_position_embeddings", 2048, path, err);
    }
    if (rc == 0) {
        rc = size_read(&head_dim, root, "head_dim", out->hidden / out->heads, path, err);
    }
    if (rc == 0 && head_dim * out->heads != out->hidden) {
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: head_dim is %zu; only hidden_size / num_attention_heads (%zu / "
                       "%zu) is supported",
                       path, head_dim, out->hidden, out->heads);
    }
    return rc;
}

static int config_parse(struct model_shape *out, const cJSON *root, const char *path,
                        struct err *err)
{
    int rc = word_check(root, "model_type", "llama", path, err);
    if (rc == 0) {
        rc = word_check(root, "hidden_act", "silu", path, err);
    }
    if (rc == 0) {
        rc = false_check(root, "attention_bias", path, err);
    }
    if (rc == 0) {
        rc = false_check(root, "mlp_bias", path, err);
    }
    if (rc == 0) {
        rc = sizes_read(out, root, path, err);
    }
    if (rc == 0) {
        rc = real_read(&out->norm_eps, root, "rms_norm_eps", 1e-6, path, err);
    }
    if (rc == 0) {
        rc = rope_read(out, root, path, err);
    }
    if (rc == 0) {
        out->tie_embeddings =
            cJSON_IsTrue(cJSON_GetObjectItemCaseSensitive(root, "tie_word_embeddings"));
        out->n = 1;
        out->m = 1;
    }
    return rc;
}

int model_config_read(struct model_shape *out, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    cJSON *root = NULL;
    *out = (struct model_shape){0};
    int rc = fsx_path(path, err, "%s/%s", folder, MODEL_CONFIG_FILE);
    if (rc == 0) {
        rc = json_read(&root, path, MODEL_CONFIG_BYTES_MAX, err);
    }
    if (rc == 0) {
        rc = config_parse(out, root, path, err);
    }
    cJSON_Delete(root);
    return rc;
}

static int origin_word(char out[MODEL_WORD_MAX], const cJSON *root, const char *key,
                       const char *path, struct err *err)
{
    const char *text = json_string(root, key);
    if (!text || strlen(text) >= MODEL_WORD_MAX) {
        return err_set(err, ERR_CORRUPT, "%s: %s is missing or too long", path, key);
    }
    strcpy(out, text);
    return 0;
}

/* The adapter of hebb.json, none if it names none; its numbers are checked with the shape. */
static int adapter_parse(struct adapter_shape *out, const cJSON *root, const char *path,
                         struct err *err)
{
    const cJSON *object = json_object(root, "adapter");
    int64_t rank, hidden;
    if (!object) {
        return 0;
    }
    const char *name = json_string(object, "name");
    int kind = name ? rule_find(adapter_names, name) : -1;
    if (kind < 0) {
        return err_set(err, ERR_UNSUPPORTED, "%s: adapter.name is %s: not in this build", path,
                       name ? name : "missing");
    }
    if (!json_int(&rank, object, "rank") || !json_int(&hidden, object, "hidden") || rank < 0 ||
        hidden < 0 || !json_real(&out->gamma, object, "gamma") ||
        !json_real(&out->alpha, object, "alpha")) {
        return err_set(err, ERR_CORRUPT,
                       "%s: adapter: rank, hidden, gamma or alpha is missing or wrong", path);
    }
    out->kind = (enum adapter_kind)kind;
    out->rank = (size_t)rank;
    out->hidden = (size_t)hidden;
    return word_check(object, "file", MODEL_ADAPTER_FILE, path, err);
}

static int origin_parse(struct model_origin *out, const cJSON *root, const char *path,
                        struct err *err)
{
    int64_t n, m;
    const char *format = json_string(root, "format");
    if (!format || strcmp(format, ORIGIN_FORMAT) != 0) {
        return err_set(err, ERR_CORRUPT, "%s: format is not %s", path, ORIGIN_FORMAT);
    }
    if (!json_int(&n, root, "n") || !json_int(&m, root, "m") || n < 1 || m < n ||
        m > NM_M_MAX) {
        return err_set(err, ERR_CORRUPT, "%s: n and m are missing or not 1 <= n <= m <= %d",
                       path, NM_M_MAX);
    }
    out->n = n < m ? (unsigned)n : 1;
    out->m = n < m ? (unsigned)m : 1;
    const char *layout = json_string(root, "layout");
    int rule = layout ? rule_find(nm_layout_names, layout) : -1;
    if (rule < 0) {
        return err_set(err, ERR_UNSUPPORTED, "%s: layout is %s; only row and block are known",
                       path, layout ? layout : "missing");
    }
    out->layout = (enum nm_layout)rule;
    int rc = adapter_parse(&out->adapter, root, path, err);
    if (rc == 0) {
        rc = origin_word(out->method, root, "method", path, err);
    }
    return rc == 0 ? origin_word(out->tokenizer, root, "tokenizer", path, err) : rc;
}

int model_origin_read(struct model_origin *out, const char *folder, struct err *err)
{
    char path[FSX_PATH_MAX];
    *out = (struct model_origin){.method = "dense", .n = 1, .m = 1};
    int rc = fsx_path(path, err, "%s/%s", folder, MODEL_HEBB_FILE);
    if (rc != 0 || !fsx_exists(path)) {
        return rc;
    }
    cJSON *root = NULL;
    rc = json_read(&root, path, MODEL_CONFIG_BYTES_MAX, err);
    if (rc == 0) {
        rc = origin_parse(out, root, path, err);
    }
    cJSON_Delete(root);
    return rc;
}
