#include "worker/tools/bench.h"

#include "engine/decoder.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include "worker/config.h"

#include <stdlib.h>

enum { ROUNDS = 7, PROMPT = 16, TOKENS = 64, SEED = 1 };

/* A model with random weights and its decoder. */
struct speaker {
    struct model *model;
    struct decoder *decoder;
    real *logits; /* (vocab) */
    double seconds[ROUNDS];
};

static int speaker_open(struct speaker *out, struct device *dev,
                        const struct model_shape *shape, struct err *err)
{
    int rc = model_create(&out->model, dev, shape, 1, shape->context, false, err);
    if (rc == 0) {
        model_init(out->model, SEED);
        model_repack(out->model);
        rc = decoder_create(&out->decoder, out->model, 1, shape->context, err);
    }
    if (rc == 0) {
        out->logits = mem_zeroed(shape->vocab, sizeof *out->logits);
        rc = out->logits ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for a token's logits");
    }
    return rc;
}

static void speaker_close(struct speaker *speaker)
{
    free(speaker->logits);
    decoder_destroy(speaker->decoder);
    model_destroy(speaker->model);
}

static int32_t likeliest(const struct speaker *speaker)
{
    size_t best = 0;
    for (size_t v = 1; v < speaker->model->shape.vocab; v++) {
        best = speaker->logits[v] > speaker->logits[best] ? v : best;
    }
    return (int32_t)best;
}

/* Seconds of `tokens` tokens, one after the other, behind a prompt that is not counted. */
static double speak(struct speaker *speaker, size_t prompt, size_t tokens)
{
    int32_t token = 0;
    decoder_rewind(speaker->decoder, 0, 0);
    for (size_t i = 0; i < prompt; i++) {
        decoder_read(speaker->decoder, 0, &token, 1, speaker->logits, 1);
        token = likeliest(speaker);
    }
    double began = clock_monotonic_s();
    for (size_t i = 0; i < tokens; i++) {
        decoder_read(speaker->decoder, 0, &token, 1, speaker->logits, 1);
        token = likeliest(speaker);
    }
    return clock_monotonic_s() - began;
}

/* The job's own matrices, then dense, 2:4 and 1:4 where they are something else. */
static size_t variants(struct model_shape out[BENCH_GENERATE_ROWS],
                       const struct model_shape *shape)
{
    static const unsigned patterns[][2] = {{1, 1}, {2, 4}, {1, 4}};
    size_t count = 1;
    out[0] = *shape;
    out[0].latent = MODEL_LATENT_NONE; /* what is exported */
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        unsigned n = patterns[i][0], m = patterns[i][1];
        bool own = shape->n == n && shape->m == m && shape->layout == NM_LAYOUT_ROW;
        if (own || shape->hidden % m != 0 || shape->intermediate % m != 0) {
            continue;
        }
        out[count] = out[0];
        out[count].n = n;
        out[count].m = m;
        out[count++].layout = NM_LAYOUT_ROW;
    }
    return count;
}

static void fill_row(struct bench_generate_row *row, struct speaker *speaker, size_t prompt,
                     size_t tokens, const struct bench_machine *machine)
{
    const struct model_shape *shape = &speaker->model->shape;
    size_t kv = shape->hidden / shape->heads * shape->kv_heads;
    double seconds = bench_median(speaker->seconds, ROUNDS) / (double)tokens;
    double places = (double)prompt + (double)tokens / 2;
    row->n = shape->n;
    row->m = shape->m;
    row->layout = nm_layout_names[shape->layout];
    row->tokens_per_s = 1 / seconds;
    row->weight_bytes = (double)decoder_token_bytes(speaker->decoder);
    row->cache_bytes = places * (double)(2 * shape->layers * kv * sizeof(real));
    double bytes = row->weight_bytes + row->cache_bytes;
    row->gb_s = bytes / seconds / 1e9;
    /* Two operations a stored weight: values are 4 bytes of at most 4.5. */
    row->bound = bench_bound(machine, row->weight_bytes / 2, bytes, seconds);
}

int bench_generate(struct bench_generate *out, const struct job_spec *spec, struct device *dev,
                   const struct bench_machine *machine, struct err *err)
{
    struct model_shape own, shapes[BENCH_GENERATE_ROWS];
    struct speaker speakers[BENCH_GENERATE_ROWS] = {{0}};
    config_shape(spec, &own);
    size_t prompt = own.context > PROMPT + TOKENS ? PROMPT : own.context / 4;
    size_t tokens = own.context - prompt < TOKENS ? own.context - prompt : TOKENS;
    int rc = 0;
    *out = (struct bench_generate){
        .count = variants(shapes, &own), .prompt = prompt, .tokens = tokens};
    for (size_t i = 0; rc == 0 && i < out->count; i++) {
        rc = speaker_open(&speakers[i], dev, &shapes[i], err);
    }
    for (int round = -1; rc == 0 && round < ROUNDS; round++) { /* -1 only warms up */
        for (size_t i = 0; i < out->count; i++) {
            double seconds = speak(&speakers[i], prompt, tokens);
            speakers[i].seconds[round < 0 ? 0 : round] = seconds;
        }
    }
    for (size_t i = 0; rc == 0 && i < out->count; i++) {
        fill_row(&out->rows[i], &speakers[i], prompt, tokens, machine);
    }
    for (size_t i = 0; i < BENCH_GENERATE_ROWS; i++) {
        speaker_close(&speakers[i]);
    }
    return rc;
}
