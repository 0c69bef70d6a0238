/* hebb eval: mean loss and perplexity of a model over all windows of some data, in file order.
 */
#include "proto/base/buf.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include "worker/tools/options.h"
#include "worker/tools/tool_model.h"
#include "worker/tools/tools.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

enum { BATCH = 8, JSON_MAX = 64 * 1024 };

struct evaluation {
    double loss;
    uint64_t tokens;
    size_t context;
};

/* Mean over all targets of the data's validation split. */
static int evaluate(struct evaluation *out, struct model *model, const struct dataset *data,
                    size_t context, struct err *err)
{
    size_t windows = dataset_windows(data, SPLIT_VALIDATION);
    int32_t *inputs = mem_zeroed(BATCH * context, sizeof *inputs);
    int32_t *targets = mem_zeroed(BATCH * context, sizeof *targets);
    real *losses = mem_zeroed(BATCH * context, sizeof *losses);
    int rc =
        inputs && targets && losses ? 0 : err_set(err, ERR_NO_MEMORY, "no memory to evaluate");
    double sum = 0;
    out->tokens = 0;
    out->context = context;
    for (size_t first = 0; rc == 0 && first < windows; first += BATCH) {
        size_t count = windows - first < BATCH ? windows - first : BATCH;
        for (size_t i = 0; rc == 0 && i < count; i++) {
            rc = dataset_window(data, SPLIT_VALIDATION, first + i, inputs + i * context,
                                targets + i * context, err);
        }
        if (rc == 0) {
            model_loss(model, inputs, targets, losses, count, context);
        }
        for (size_t i = 0; rc == 0 && i < count * context; i++) {
            sum += (double)losses[i];
        }
        out->tokens += count * context;
    }
    out->loss = sum / (double)out->tokens;
    free(inputs);
    free(targets);
    free(losses);
    return rc;
}

static void print_json(const struct evaluation *result, const char *path)
{
    struct buf text;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", path);
    cJSON_AddNumberToObject(root, "loss", result->loss);
    cJSON_AddNumberToObject(root, "perplexity", exp(result->loss));
    cJSON_AddNumberToObject(root, "tokens", (double)result->tokens);
    cJSON_AddNumberToObject(root, "context", (double)result->context);
    buf_init(&text, JSON_MAX);
    json_print(root, &text);
    puts(text.data);
    cJSON_Delete(root);
    buf_release(&text);
}

static void print_text(const struct evaluation *result, const char *path)
{
    printf("%s: loss %.6f, perplexity %.4f over %" PRIu64 " tokens (context %zu)\n", path,
           result->loss, exp(result->loss), result->tokens, result->context);
}

/* Opens place and data and evaluates. context 0: the model's own. */
static int evaluate_place(struct evaluation *out, const struct tool_place *place,
                          const struct option_list *paths, const char *format, size_t context,
                          size_t threads, struct err *err)
{
    struct tool_model tool = {0};
    struct dataset *data = NULL;
    context = context ? context : place->shape.context;
    struct dataset_config config = {.train = paths->items,
                                    .train_count = paths->count,
                                    .validation = paths->items,
                                    .validation_count = paths->count,
                                    .format = format,
                                    .context = context,
                                    .vocab = place->shape.vocab};
    int rc = dataset_open(&data, &config, 0, 1, err);
    if (rc == 0) {
        rc = tool_model_open(&tool, place, BATCH, context, threads, err);
    }
    if (rc == 0) {
        rc = evaluate(out, tool.model, data, context, err);
    }
    tool_model_close(&tool);
    dataset_close(data);
    return rc;
}

int tool_eval(int argc, char **argv)
{
    struct option_list paths = {0}, rest;
    const char *format = "auto";
    uint64_t context = 0, threads = 1;
    bool json = false;
    const struct option_row options[] = {
        {"data", OPTION_LIST, &paths, 0, 0},
        {"format", OPTION_TEXT, &format, 0, 0},
        {"context", OPTION_COUNT, &context, 1, 1 << 20},
        {"threads", OPTION_COUNT, &threads, 1, POOL_THREADS_MAX},
        {"json", OPTION_FLAG, &json, 0, 0},
        {0},
    };
    int code = options_parse(argc, argv, options, &rest);
    if (code != EXIT_DONE) {
        return code;
    }
    for (size_t i = 1; i < rest.count; i++) { /* --data A B C */
        if (paths.count == OPTION_LIST_MAX) {
            return tool_usage(argv[0], "more than %d data paths", OPTION_LIST_MAX);
        }
        paths.items[paths.count++] = rest.items[i];
    }
    if (rest.count < 1 || paths.count == 0) {
        return tool_usage(argv[0], "a model and --data PATH... are needed");
    }
    struct err err = {0};
    struct tool_place place;
    struct evaluation result = {0};
    int rc = tool_place_find(&place, rest.items[0], &err);
    if (rc != 0) {
        return tool_fail(&err);
    }
    rc =
        evaluate_place(&result, &place, &paths, format, (size_t)context, (size_t)threads, &err);
    if (rc == 0) {
        (json ? print_json : print_text)(&result, place.path);
    }
    tool_place_release(&place);
    return rc == 0 ? EXIT_DONE : tool_fail(&err);
}
