/* hebb generate: texts from a model with the byte tokenizer. */
#include "proto/base/buf.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include "worker/tools/generate_texts.h"
#include "worker/tools/options.h"
#include "worker/tools/tool_model.h"
#include "worker/tools/tools.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TOKENS_DEFAULT = 200, TOKENS_MAX = 1000000, PROMPT_MAX = 1 << 20, JSON_MAX = 1 << 28 };

struct wish {
    struct texts_options texts;
    struct option_list rest, prompts, stops;
    const char *prompt_file, *when_full;
    uint64_t tokens, samples, top_k, threads;
    bool json;
    char *file_text; /* owned; of prompt_file */
};

/* A terminal gets no control characters but line feeds and tabs: bytes of a model are no
 * commands. */
static void put_bytes(const unsigned char *bytes, size_t count, bool terminal)
{
    for (size_t i = 0; i < count; i++) {
        bool control =
            (bytes[i] < ' ' && bytes[i] != '\n' && bytes[i] != '\t') || bytes[i] == 0x7f;
        putchar(terminal && control ? '?' : bytes[i]);
    }
}

/* The bytes as JSON's text: a NUL becomes U+FFFD here, what is no UTF-8 in json_print. */
static cJSON *json_bytes(const unsigned char *bytes, size_t count)
{
    static const char unknown[] = "\xef\xbf\xbd";
    char *text = mem_zeroed(3 * count + 1, 1), *end = text;
    for (size_t i = 0; text && i < count; i++) {
        if (bytes[i] == 0) {
            memcpy(end, unknown, 3);
            end += 3;
        } else {
            *end++ = (char)bytes[i];
        }
    }
    cJSON *out = cJSON_CreateString(text ? text : "");
    free(text);
    return out;
}

static void print_json(const struct texts *texts, const char *path)
{
    struct buf out;
    size_t read = 0;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddStringToObject(root, "model", path);
    cJSON *list = cJSON_AddArrayToObject(root, "texts");
    for (size_t i = 0; i < texts->count; i++) {
        const struct text *text = &texts->items[i];
        cJSON *item = cJSON_CreateObject(), *tokens = cJSON_CreateArray();
        cJSON_AddStringToObject(item, "prompt", text->prompt);
        cJSON_AddItemToObject(item, "text", json_bytes(text->bytes, text->byte_count));
        cJSON_AddStringToObject(item, "finish", text_finish_names[text->finish]);
        for (size_t k = text->prompt_count; k < text->count; k++) {
            cJSON_AddItemToArray(tokens, cJSON_CreateNumber(text->tokens[k]));
        }
        cJSON_AddItemToObject(item, "tokens", tokens);
        cJSON_AddItemToArray(list, item);
        read += i % texts->options.samples == 0 ? text->prompt_count : 0;
    }
    cJSON_AddNumberToObject(root, "prompt_tokens", (double)read);
    cJSON_AddNumberToObject(root, "prompt_seconds", texts->seconds[0]);
    cJSON_AddNumberToObject(root, "new_tokens", (double)texts->generated);
    cJSON_AddNumberToObject(root, "seconds", texts->seconds[1]);
    buf_init(&out, JSON_MAX);
    json_print(root, &out);
    puts(out.data ? out.data : "");
    cJSON_Delete(root);
    buf_release(&out);
}

/* One text comes as it is made; several one after the other at the end, "---" between them. */
static void write_texts(struct texts *texts, bool stream, bool terminal)
{
    size_t shown = 0;
    bool running = true;
    if (stream) {
        fputs(texts->items[0].prompt, stdout);
        fflush(stdout);
    }
    while (running && !ferror(stdout)) {
        running = texts_step(texts);
        size_t settled = text_settled(texts, &texts->items[0]);
        if (stream && settled > shown) {
            put_bytes(texts->items[0].bytes + shown, settled - shown, terminal);
            fflush(stdout);
            shown = settled;
        }
    }
    if (stream) {
        putchar('\n');
    }
}

static void print_texts(const struct texts *texts, bool terminal)
{
    for (size_t i = 0; i < texts->count; i++) {
        fputs(i > 0 ? "---\n" : "", stdout);
        fputs(texts->items[i].prompt, stdout);
        put_bytes(texts->items[i].bytes, texts->items[i].byte_count, terminal);
        putchar('\n');
    }
}

static void report(const struct texts *texts)
{
    size_t read = 0, first = texts->options.samples;
    for (size_t i = 0; i < texts->count; i += first) {
        read += texts->items[i].prompt_count;
    }
    if (texts->cut > 0) {
        fprintf(stderr, "%zu of %zu prompts lost their beginning: the context has %zu tokens\n",
                texts->cut, texts->options.prompt_count, decoder_capacity(texts->decoder));
    }
    if (texts->slides > 0) {
        fprintf(stderr, "the context was full %zu times and lost its older half\n",
                texts->slides);
    }
    fprintf(stderr, "prompt: %zu tokens in %.3f s; %zu new tokens, %.1f tokens/s\n", read,
            texts->seconds[0], texts->generated,
            (double)texts->generated / (texts->seconds[1] > 0 ? texts->seconds[1] : 1));
}

static int generate(const struct tool_place *place, const struct wish *wish, struct err *err)
{
    struct tool_model tool = {0};
    struct texts texts = {0};
    bool terminal = isatty(STDOUT_FILENO) == 1;
    if (strcmp(place->tokenizer, "bytes") != 0) {
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: tokenizer is \"%s\"; text can be generated with \"bytes\" only",
                       place->path, place->tokenizer);
    }
    int rc = tool_model_open(&tool, place, 1, 0, (size_t)wish->threads, err);
    if (rc == 0) {
        rc = texts_init(&texts, tool.model, &wish->texts, err);
    }
    if (rc == 0) {
        bool stream = !wish->json && texts.count == 1;
        texts_begin(&texts);
        write_texts(&texts, stream, terminal);
        if (wish->json) {
            print_json(&texts, place->path);
        } else if (!stream) {
            print_texts(&texts, terminal);
        }
        if (fflush(stdout) != 0 || ferror(stdout)) {
            rc = err_set(err, ERR_IO, "write to standard output failed");
        }
        report(&texts);
    }
    texts_release(&texts);
    tool_model_close(&tool);
    return rc;
}

/* --- the command --- */

static int parse(int argc, char **argv, struct wish *out)
{
    struct sampler_options *sampler = &out->texts.sampler;
    long cores = sysconf(_SC_NPROCESSORS_ONLN);
    *out =
        (struct wish){.tokens = TOKENS_DEFAULT,
                      .samples = 1,
                      .when_full = "slide",
                      .threads = cores > 0 && cores <= POOL_THREADS_MAX ? (uint64_t)cores : 1};
    *sampler =
        (struct sampler_options){.repeat_penalty = 1, .temperature = 1, .top_p = 1, .seed = 1};
    const struct option_row options[] = {
        {"prompt", OPTION_LIST, &out->prompts, 0, 0},
        {"prompt-file", OPTION_TEXT, &out->prompt_file, 0, 0},
        {"tokens", OPTION_COUNT, &out->tokens, 1, TOKENS_MAX},
        {"samples", OPTION_COUNT, &out->samples, 1, TEXTS_MAX},
        {"temperature", OPTION_REAL, &sampler->temperature, 0, 100},
        {"top-k", OPTION_COUNT, &out->top_k, 0, 1 << 20},
        {"top-p", OPTION_REAL, &sampler->top_p, 0, 1},
        {"min-p", OPTION_REAL, &sampler->min_p, 0, 1},
        {"repeat-penalty", OPTION_REAL, &sampler->repeat_penalty, 0.01, 100},
        {"seed", OPTION_COUNT, &sampler->seed, 0, 0x1p64},
        {"stop", OPTION_LIST, &out->stops, 0, 0},
        {"ignore-end", OPTION_FLAG, &out->texts.ignore_end, 0, 0},
        {"when-full", OPTION_TEXT, &out->when_full, 0, 0},
        {"threads", OPTION_COUNT, &out->threads, 1, POOL_THREADS_MAX},
        {"json", OPTION_FLAG, &out->json, 0, 0},
        {0},
    };
    int code = options_parse(argc, argv, options, &out->rest);
    sampler->top_k = (size_t)out->top_k;
    return code;
}

static int check(const char *tool, struct wish *wish)
{
    if (wish->rest.count != 1) {
        return tool_usage(tool, "one job folder, checkpoint or model is needed");
    }
    if (strcmp(wish->when_full, "slide") != 0 && strcmp(wish->when_full, "stop") != 0) {
        return tool_usage(tool, "--when-full %s: must be slide or stop", wish->when_full);
    }
    if (wish->prompt_file && wish->prompts.count > 0) {
        return tool_usage(tool, "--prompt and --prompt-file exclude each other");
    }
    for (size_t i = 0; i < wish->stops.count; i++) {
        if (wish->stops.items[i][0] == '\0') {
            return tool_usage(tool, "--stop: a text of at least one byte is needed");
        }
    }
    for (size_t i = 0; i < wish->prompts.count; i++) {
        if (strlen(wish->prompts.items[i]) > PROMPT_MAX) {
            return tool_usage(tool, "--prompt has more than %d bytes", PROMPT_MAX);
        }
    }
    size_t prompts = wish->prompts.count > 0 ? wish->prompts.count : 1;
    if (prompts * (size_t)wish->samples > TEXTS_MAX) {
        return tool_usage(tool, "%zu prompts and %zu samples: at most %d texts", prompts,
                          (size_t)wish->samples, TEXTS_MAX);
    }
    return EXIT_DONE;
}

/* The whole file, or standard input for "-". */
static int read_prompt(struct wish *wish, struct err *err)
{
    bool input = strcmp(wish->prompt_file, "-") == 0;
    FILE *file = input ? stdin : fopen(wish->prompt_file, "re");
    if (!file) {
        return err_set(err, ERR_IO, "open %s: %s", wish->prompt_file, strerror(errno));
    }
    wish->file_text = mem_zeroed(PROMPT_MAX + 2, 1);
    size_t length = wish->file_text ? fread(wish->file_text, 1, PROMPT_MAX + 1, file) : 0;
    bool failed = ferror(file) != 0;
    if (!input) {
        fclose(file);
    }
    if (!wish->file_text) {
        return err_set(err, ERR_NO_MEMORY, "no memory for a prompt");
    }
    if (failed) {
        return err_set(err, ERR_IO, "read %s: failed", wish->prompt_file);
    }
    if (length > PROMPT_MAX || memchr(wish->file_text, 0, length)) {
        return err_set(err, ERR_INVALID, "%s: a prompt has at most %d bytes and no NUL",
                       wish->prompt_file, PROMPT_MAX);
    }
    return 0;
}

int tool_generate(int argc, char **argv)
{
    static const char *const nothing[] = {""};
    struct wish wish;
    struct err err = {0};
    struct tool_place place;
    int code = parse(argc, argv, &wish);
    if (code == EXIT_DONE) {
        code = check(argv[0], &wish);
    }
    if (code != EXIT_DONE) {
        return code;
    }
    int rc = wish.prompt_file ? read_prompt(&wish, &err) : 0;
    const char *file_prompt[] = {wish.file_text};
    struct texts_options *texts = &wish.texts;
    texts->prompts = wish.file_text           ? file_prompt
                     : wish.prompts.count > 0 ? wish.prompts.items
                                              : nothing;
    texts->prompt_count = !wish.file_text && wish.prompts.count > 0 ? wish.prompts.count : 1;
    texts->samples = (size_t)wish.samples;
    texts->tokens = (size_t)wish.tokens;
    texts->stops = wish.stops.items;
    texts->stop_count = wish.stops.count;
    texts->slide = strcmp(wish.when_full, "slide") == 0;
    if (rc == 0) {
        rc = tool_place_find(&place, wish.rest.items[0], &err);
    }
    if (rc == 0) {
        rc = generate(&place, &wish, &err);
        tool_place_release(&place);
    }
    free(wish.file_text);
    return rc == 0 ? EXIT_DONE : tool_fail(&err);
}
