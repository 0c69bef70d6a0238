/* hebb generate: text from a model with the byte tokenizer. Every token is a whole pass over
 * the window; there is no key/value cache. */
#include "engine/philox.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include "worker/tools/options.h"
#include "worker/tools/tool_model.h"
#include "worker/tools/tools.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TOKENS_DEFAULT = 200, TOKENS_MAX = 1000000, PROMPT_MAX = 1 << 20 };

struct sampler {
    struct philox key;
    double temperature; /* 0: the likeliest token */
    size_t top_k;       /* 0: all */
    double *weights;    /* (vocab) */
    double *sorted;     /* (vocab) */
};

static int descending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x < y) - (x > y);
}

static size_t likeliest(const real *logits, size_t vocab)
{
    size_t best = 0;
    for (size_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* Draws token number `position` from softmax(logits / temperature) over the top_k likeliest
 * (ties with the last of them count too). */
static size_t sample(const struct sampler *sampler, const real *logits, size_t vocab,
                     uint64_t position)
{
    size_t best = likeliest(logits, vocab);
    if (sampler->temperature <= 0) {
        return best;
    }
    double sum = 0, cut = 0;
    for (size_t i = 0; i < vocab; i++) {
        sampler->weights[i] =
            exp(((double)logits[i] - (double)logits[best]) / sampler->temperature);
    }
    if (sampler->top_k > 0 && sampler->top_k < vocab) {
        memcpy(sampler->sorted, sampler->weights, vocab * sizeof *sampler->sorted);
        qsort(sampler->sorted, vocab, sizeof *sampler->sorted, descending);
        cut = sampler->sorted[sampler->top_k - 1];
    }
    for (size_t i = 0; i < vocab; i++) {
        sampler->weights[i] = sampler->weights[i] >= cut ? sampler->weights[i] : 0;
        sum += sampler->weights[i];
    }
    double at = philox_uniform(&sampler->key, position) * sum;
    for (size_t i = 0; i < vocab; i++) {
        at -= sampler->weights[i];
        if (at < 0) {
            return i;
        }
    }
    return best; /* rounding */
}

struct generation {
    struct model *model;
    struct sampler sampler;
    int32_t *tokens; /* (capacity) prompt and what follows */
    size_t count;    /* so far */
    size_t window;   /* tokens of a pass at most */
    real *logits;    /* (vocab) */
};

static int generation_init(struct generation *out, struct model *model, const char *prompt,
                           size_t tokens, struct err *err)
{
    size_t length = strlen(prompt), vocab = model->shape.vocab;
    *out = (struct generation){.model = model, .window = model->shape.context};
    out->tokens = mem_zeroed(length + tokens + 1, sizeof *out->tokens);
    out->logits = mem_zeroed(vocab, sizeof *out->logits);
    out->sampler.weights = mem_zeroed(vocab, sizeof(double));
    out->sampler.sorted = mem_zeroed(vocab, sizeof(double));
    if (!out->tokens || !out->logits || !out->sampler.weights || !out->sampler.sorted) {
        return err_set(err, ERR_NO_MEMORY, "no memory to generate %zu tokens", tokens);
    }
    out->tokens[out->count++] = DATA_SEPARATOR; /* the start of a document */
    for (size_t i = 0; i < length; i++) {
        out->tokens[out->count++] = (unsigned char)prompt[i];
    }
    return 0;
}

static void generation_release(struct generation *generation)
{
    free(generation->tokens);
    free(generation->logits);
    free(generation->sampler.weights);
    free(generation->sampler.sorted);
}

/* The next token, from the last `window` tokens. */
static int32_t generation_next(struct generation *g, uint64_t position)
{
    size_t length = g->count < g->window ? g->count : g->window;
    const int32_t *from = g->tokens + g->count - length;
    model_logits(g->model, from, g->logits, 1, length, length - 1, 1);
    int32_t token = (int32_t)sample(&g->sampler, g->logits, g->model->shape.vocab, position);
    g->tokens[g->count++] = token;
    return token;
}

/* The end of a document is shown as an empty line. */
static void token_print(int32_t token)
{
    if (token == DATA_SEPARATOR) {
        fputs("\n\n", stdout);
    } else {
        putchar(token);
    }
    fflush(stdout);
}

static int generate(const struct tool_place *place, const char *prompt, size_t tokens,
                    const struct sampler *wish, size_t threads, struct err *err)
{
    struct tool_model tool;
    struct generation g = {0};
    if (strcmp(place->tokenizer, "bytes") != 0 || place->shape.vocab != DATA_BYTES_VOCAB) {
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: tokenizer is \"%s\"; text can be generated with \"bytes\" only",
                       place->path, place->tokenizer);
    }
    int rc = tool_model_open(&tool, place, 1, 0, threads, err);
    if (rc == 0) {
        rc = generation_init(&g, tool.model, prompt, tokens, err);
    }
    if (rc == 0) {
        g.sampler.key = wish->key;
        g.sampler.temperature = wish->temperature;
        g.sampler.top_k = wish->top_k;
        fputs(prompt, stdout);
        double began = clock_monotonic_s();
        for (size_t i = 0; i < tokens && !ferror(stdout); i++) {
            token_print(generation_next(&g, i));
        }
        double seconds = clock_monotonic_s() - began;
        putchar('\n');
        if (fflush(stdout) != 0 || ferror(stdout)) {
            rc = err_set(err, ERR_IO, "write to standard output failed");
        }
        fprintf(stderr, "%zu tokens, %.1f tokens/s\n", tokens,
                (double)tokens / (seconds > 0 ? seconds : 1));
    }
    generation_release(&g);
    tool_model_close(&tool);
    return rc;
}

int tool_generate(int argc, char **argv)
{
    const char *prompt = "";
    uint64_t tokens = TOKENS_DEFAULT, top_k = 0, seed = 1, threads = 1;
    double temperature = 1;
    struct option_list rest;
    const struct option_row options[] = {
        {"prompt", OPTION_TEXT, &prompt, 0, 0},
        {"tokens", OPTION_COUNT, &tokens, 1, TOKENS_MAX},
        {"temperature", OPTION_REAL, &temperature, 0, 100},
        {"top-k", OPTION_COUNT, &top_k, 0, DATA_BYTES_VOCAB},
        {"seed", OPTION_COUNT, &seed, 0, 0x1p64},
        {"threads", OPTION_COUNT, &threads, 1, POOL_THREADS_MAX},
        {0},
    };
    int code = options_parse(argc, argv, options, &rest);
    if (code != EXIT_DONE) {
        return code;
    }
    if (rest.count != 1) {
        return tool_usage(argv[0], "one job folder, checkpoint or model is needed");
    }
    if (strlen(prompt) > PROMPT_MAX) {
        return tool_usage(argv[0], "--prompt has more than %d bytes", PROMPT_MAX);
    }
    struct err err = {0};
    struct tool_place place;
    const struct sampler wish = {.key = {.seed = seed, .purpose = PHILOX_GENERATE},
                                 .temperature = temperature,
                                 .top_k = (size_t)top_k};
    int rc = tool_place_find(&place, rest.items[0], &err);
    if (rc == 0) {
        rc = generate(&place, prompt, (size_t)tokens, &wish, (size_t)threads, &err);
        tool_place_release(&place);
    }
    return rc == 0 ? EXIT_DONE : tool_fail(&err);
}
