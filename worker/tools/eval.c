/* hebb eval: mean loss and perplexity of a model over all windows of some data, in file order;
 * or its answers to questions. */
#include "proto/base/buf.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include "worker/tools/eval_score.h"
#include "worker/tools/options.h"
#include "worker/tools/tool_model.h"
#include "worker/tools/tools.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

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

/* Prints and frees root. */
static void print_object(cJSON *root)
{
    struct buf text;
    buf_init(&text, JSON_MAX);
    json_print(root, &text);
    puts(text.data ? text.data : "");
    cJSON_Delete(root);
    buf_release(&text);
}

static void print_json(const struct evaluation *result, const char *path)
{
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", path);
    cJSON_AddNumberToObject(root, "loss", result->loss);
    cJSON_AddNumberToObject(root, "perplexity", exp(result->loss));
    cJSON_AddNumberToObject(root, "tokens", (double)result->tokens);
    cJSON_AddNumberToObject(root, "context", (double)result->context);
    print_object(root);
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

/* --- questions --- */

static void show_progress(void *context, size_t done, size_t all)
{
    size_t *shown = context; /* per cent */
    size_t share = done * 100 / all;
    if (share != *shown || done == all) {
        *shown = share;
        fprintf(stderr, "\r\033[K%zu of %zu questions%s", done, all, done == all ? "\n" : "");
    }
}

/* Standard error of a share of `count` questions. */
static double share_error(double share, size_t count)
{
    return count > 1 ? sqrt(share * (1 - share) / (double)(count - 1)) : 0;
}

static void print_answers_json(const struct eval_answers *answers, enum eval_kind kind,
                               const char *model, const char *file)
{
    double count = (double)answers->questions, accuracy = (double)answers->right / count;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", model);
    cJSON_AddStringToObject(root, "task", kind == EVAL_CHOICES ? "choices" : "last-word");
    cJSON_AddStringToObject(root, "file", file);
    cJSON_AddNumberToObject(root, "questions", count);
    cJSON_AddNumberToObject(root, "truncated", (double)answers->truncated);
    cJSON_AddNumberToObject(root, "tokens", (double)answers->tokens);
    cJSON_AddNumberToObject(root, "accuracy", accuracy);
    cJSON_AddNumberToObject(root, "accuracy_error", share_error(accuracy, answers->questions));
    if (kind == EVAL_CHOICES) {
        double norm = (double)answers->right_norm / count;
        cJSON_AddNumberToObject(root, "accuracy_norm", norm);
        cJSON_AddNumberToObject(root, "accuracy_norm_error",
                                share_error(norm, answers->questions));
        cJSON_AddNumberToObject(root, "chance", answers->chance);
    } else {
        cJSON_AddNumberToObject(root, "word_perplexity", exp(-answers->log_likelihood / count));
        cJSON_AddNumberToObject(root, "token_perplexity",
                                exp(-answers->log_likelihood / (double)answers->tokens));
    }
    print_object(root);
}

static void print_answers_text(const struct eval_answers *answers, enum eval_kind kind,
                               const char *model, const char *file)
{
    double count = (double)answers->questions, accuracy = (double)answers->right / count;
    printf("%s on %s: accuracy %.4f +- %.4f", model, file, accuracy,
           share_error(accuracy, answers->questions));
    if (kind == EVAL_CHOICES) {
        double norm = (double)answers->right_norm / count;
        printf(", per token %.4f +- %.4f (chance %.4f)", norm,
               share_error(norm, answers->questions), answers->chance);
    } else {
        printf(", perplexity %.4f a word, %.4f a token", exp(-answers->log_likelihood / count),
               exp(-answers->log_likelihood / (double)answers->tokens));
    }
    printf(", %zu questions, %zu of them cut\n", answers->questions, answers->truncated);
}

static int answer_questions(struct eval_answers *out, const struct tool_place *place,
                            const char *file, enum eval_kind kind, const char *delimiter,
                            size_t context, size_t threads, struct err *err)
{
    struct eval_items items = {0};
    struct tool_model tool = {0};
    struct text_scorer scorer = {0};
    size_t shown = SIZE_MAX;
    context = context ? context : place->shape.context;
    if (strcmp(place->tokenizer, "bytes") != 0) {
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: tokenizer is \"%s\"; texts can be scored with \"bytes\" only",
                       place->path, place->tokenizer);
    }
    int rc = eval_items_read(&items, file, kind, delimiter, err);
    if (rc == 0) {
        rc = tool_model_open(&tool, place, 1, context, threads, err);
    }
    if (rc == 0) {
        rc = text_scorer_init(&scorer, tool.model, context, err);
    }
    if (rc == 0) {
        rc = eval_answer(out, &scorer, &items, kind, file,
                         isatty(STDERR_FILENO) == 1 ? show_progress : NULL, &shown, err);
    }
    text_scorer_release(&scorer);
    tool_model_close(&tool);
    eval_items_release(&items);
    return rc;
}

/* --- the command --- */

struct eval_options {
    struct option_list paths, rest;
    const char *format, *choices, *last_word, *delimiter;
    uint64_t context, threads;
    bool json;
};

static int parse_options(int argc, char **argv, struct eval_options *out)
{
    *out = (struct eval_options){.format = "auto", .threads = 1};
    const struct option_row options[] = {
        {"data", OPTION_LIST, &out->paths, 0, 0},
        {"choices", OPTION_TEXT, &out->choices, 0, 0},
        {"last-word", OPTION_TEXT, &out->last_word, 0, 0},
        {"delimiter", OPTION_TEXT, &out->delimiter, 0, 0},
        {"format", OPTION_TEXT, &out->format, 0, 0},
        {"context", OPTION_COUNT, &out->context, 1, 1 << 20},
        {"threads", OPTION_COUNT, &out->threads, 1, POOL_THREADS_MAX},
        {"json", OPTION_FLAG, &out->json, 0, 0},
        {0},
    };
    int code = options_parse(argc, argv, options, &out->rest);
    if (code != EXIT_DONE) {
        return code;
    }
    int kinds = (out->paths.count > 0) + (out->choices != NULL) + (out->last_word != NULL);
    if (out->rest.count < 1 || kinds != 1) {
        return tool_usage(
            argv[0], "a model and one of --data PATH..., --choices FILE, --last-word FILE");
    }
    if (out->paths.count == 0 && out->rest.count > 1) {
        return tool_usage(argv[0], "unexpected %s", out->rest.items[1]);
    }
    for (size_t i = 1; i < out->rest.count; i++) { /* --data A B C */
        if (out->paths.count == OPTION_LIST_MAX) {
            return tool_usage(argv[0], "more than %d data paths", OPTION_LIST_MAX);
        }
        out->paths.items[out->paths.count++] = out->rest.items[i];
    }
    return EXIT_DONE;
}

static int eval_data(const struct eval_options *options, const struct tool_place *place,
                     struct err *err)
{
    struct evaluation result = {0};
    int rc = evaluate_place(&result, place, &options->paths, options->format,
                            (size_t)options->context, (size_t)options->threads, err);
    if (rc == 0) {
        (options->json ? print_json : print_text)(&result, place->path);
    }
    return rc;
}

static int eval_questions(const struct eval_options *options, const struct tool_place *place,
                          struct err *err)
{
    struct eval_answers answers;
    enum eval_kind kind = options->choices ? EVAL_CHOICES : EVAL_LAST_WORD;
    const char *file = options->choices ? options->choices : options->last_word;
    int rc = answer_questions(&answers, place, file, kind, options->delimiter,
                              (size_t)options->context, (size_t)options->threads, err);
    if (rc == 0) {
        (options->json ? print_answers_json : print_answers_text)(&answers, kind, place->path,
                                                                  file);
    }
    return rc;
}

int tool_eval(int argc, char **argv)
{
    struct eval_options options;
    struct tool_place place;
    struct err err = {0};
    int code = parse_options(argc, argv, &options);
    if (code != EXIT_DONE) {
        return code;
    }
    int rc = tool_place_find(&place, options.rest.items[0], &err);
    if (rc != 0) {
        return tool_fail(&err);
    }
    rc = (options.paths.count > 0 ? eval_data : eval_questions)(&options, &place, &err);
    tool_place_release(&place);
    return rc == 0 ? EXIT_DONE : tool_fail(&err);
}
