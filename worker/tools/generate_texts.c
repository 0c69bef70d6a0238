#include "worker/tools/generate_texts.h"

#include "engine/data.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"

#include <stdlib.h>
#include <string.h>

const char *const text_finish_names[] = {"running", "length", "end", "stop", "full"};

static int text_init(struct text *out, const char *prompt, size_t tokens, size_t vocab,
                     struct err *err)
{
    size_t length = strlen(prompt);
    *out = (struct text){.prompt = prompt};
    out->tokens = mem_zeroed(length + tokens + 1, sizeof *out->tokens);
    out->bytes = mem_zeroed(tokens + 1, 2);
    out->logits = mem_zeroed(vocab, sizeof *out->logits);
    if (!out->tokens || !out->bytes || !out->logits) {
        return err_set(err, ERR_NO_MEMORY, "no memory to generate %zu tokens", tokens);
    }
    out->tokens[out->count++] = DATA_SEPARATOR; /* the start of a document */
    for (size_t i = 0; i < length; i++) {
        out->tokens[out->count++] = (unsigned char)prompt[i];
    }
    out->prompt_count = out->count;
    return 0;
}

int texts_init(struct texts *out, struct model *model, const struct texts_options *options,
               struct err *err)
{
    size_t vocab = model->shape.vocab, count = options->prompt_count * options->samples;
    *out = (struct texts){.options = *options, .model = model, .vocab = vocab};
    if (vocab != DATA_BYTES_VOCAB) {
        return err_set(err, ERR_UNSUPPORTED,
                       "a vocabulary of %zu tokens; text can be generated with the byte "
                       "tokenizer (%d) only",
                       vocab, DATA_BYTES_VOCAB);
    }
    int rc = decoder_create(&out->decoder, model, count, model->shape.context, err);
    if (rc == 0) {
        rc = sampler_init(&out->sampler, &options->sampler, vocab, err);
    }
    if (rc == 0) {
        out->items = mem_zeroed(count, sizeof *out->items);
        out->logits = mem_zeroed(count * vocab, sizeof *out->logits);
        rc = out->items && out->logits
                 ? 0
                 : err_set(err, ERR_NO_MEMORY, "no memory for %zu texts", count);
    }
    for (; rc == 0 && out->count < count; out->count++) {
        rc = text_init(&out->items[out->count], options->prompts[out->count / options->samples],
                       options->tokens, vocab, err);
    }
    return rc;
}

void texts_release(struct texts *texts)
{
    for (size_t i = 0; i < texts->count; i++) {
        free(texts->items[i].tokens);
        free(texts->items[i].bytes);
        free(texts->items[i].logits);
    }
    free(texts->items);
    free(texts->logits);
    sampler_release(&texts->sampler);
    decoder_destroy(texts->decoder);
    *texts = (struct texts){0};
}

/* Makes the decoder's sequence the last `keep` tokens of the text. */
static void read_again(struct texts *texts, size_t i, size_t keep)
{
    struct text *text = &texts->items[i];
    decoder_rewind(texts->decoder, i, 0);
    decoder_read(texts->decoder, i, text->tokens + text->count - keep, keep, text->logits, 1);
}

void texts_begin(struct texts *texts)
{
    double began = clock_monotonic_s();
    size_t capacity = decoder_capacity(texts->decoder);
    for (size_t i = 0; i < texts->count; i++) {
        struct text *text = &texts->items[i];
        size_t first = i / texts->options.samples * texts->options.samples;
        if (i > first) {
            decoder_copy(texts->decoder, i, first);
            memcpy(text->logits, texts->items[first].logits, texts->vocab * sizeof(real));
            continue;
        }
        texts->cut += text->count > capacity;
        read_again(texts, i, text->count < capacity ? text->count : capacity);
    }
    texts->seconds[0] = clock_monotonic_s() - began;
}

/* Ends the text before the first stop text in its bytes; only the new ones can complete one. */
static void find_stop(const struct texts *texts, struct text *text, size_t before)
{
    for (size_t s = 0; s < texts->options.stop_count; s++) {
        const char *stop = texts->options.stops[s];
        size_t length = strlen(stop), at = before > length ? before - length : 0;
        for (; at + length <= text->byte_count; at++) {
            if (memcmp(text->bytes + at, stop, length) == 0) {
                text->byte_count = at;
                text->finish = TEXT_STOP;
            }
        }
    }
}

static void add_token(struct texts *texts, struct text *text, int32_t token)
{
    size_t before = text->byte_count;
    text->tokens[text->count++] = token;
    texts->generated++;
    if (token == DATA_SEPARATOR && !texts->options.ignore_end) {
        text->finish = TEXT_END;
        return;
    }
    if (token == DATA_SEPARATOR) {
        text->bytes[text->byte_count++] = '\n';
        token = '\n';
    }
    text->bytes[text->byte_count++] = (unsigned char)token;
    find_stop(texts, text, before);
    if (text->finish == TEXT_RUNNING &&
        text->count - text->prompt_count == texts->options.tokens) {
        text->finish = TEXT_LENGTH;
    }
}

bool texts_step(struct texts *texts)
{
    size_t sequences[TEXTS_MAX], count = 0, capacity = decoder_capacity(texts->decoder);
    int32_t tokens[TEXTS_MAX];
    double began = clock_monotonic_s();
    bool running = false;
    for (size_t i = 0; i < texts->count; i++) {
        struct text *text = &texts->items[i];
        if (text->finish != TEXT_RUNNING) {
            continue;
        }
        int32_t token = sampler_next(&texts->sampler, text->logits, text->tokens, text->count,
                                     (uint32_t)i, text->count - text->prompt_count);
        add_token(texts, text, token);
        bool full = decoder_length(texts->decoder, i) == capacity;
        if (text->finish == TEXT_RUNNING && full && !texts->options.slide) {
            text->finish = TEXT_FULL;
        } else if (text->finish == TEXT_RUNNING && full) {
            texts->slides++;
            read_again(texts, i, capacity > 1 ? capacity / 2 : 1);
        } else if (text->finish == TEXT_RUNNING) {
            sequences[count] = i;
            tokens[count++] = token;
        }
        running = running || text->finish == TEXT_RUNNING;
    }
    if (count > 0) {
        decoder_step(texts->decoder, sequences, tokens, count, texts->logits);
    }
    for (size_t k = 0; k < count; k++) {
        memcpy(texts->items[sequences[k]].logits, texts->logits + k * texts->vocab,
               texts->vocab * sizeof(real));
    }
    texts->seconds[1] += clock_monotonic_s() - began;
    return running;
}

size_t text_settled(const struct texts *texts, const struct text *text)
{
    size_t held = 0;
    for (size_t s = 0; s < texts->options.stop_count; s++) {
        size_t length = strlen(texts->options.stops[s]);
        held = length > held + 1 ? length - 1 : held;
    }
    if (text->finish != TEXT_RUNNING) {
        held = 0;
    }
    return text->byte_count > held ? text->byte_count - held : 0;
}
