#include "worker/tools/sampler.h"

#include "engine/philox.h"
#include "proto/base/mem.h"

#include <math.h>
#include <stdlib.h>

int sampler_init(struct sampler *out, const struct sampler_options *options, size_t vocab,
                 struct err *err)
{
    *out = (struct sampler){.options = *options, .vocab = vocab};
    out->candidates = mem_zeroed(vocab, sizeof *out->candidates);
    return out->candidates ? 0
                           : err_set(err, ERR_NO_MEMORY, "no memory for %zu candidates", vocab);
}

void sampler_release(struct sampler *sampler)
{
    free(sampler->candidates);
    *sampler = (struct sampler){0};
}

static void penalize(real *logits, double penalty, const int32_t *recent, size_t count)
{
    size_t first = count > SAMPLER_RECENT ? count - SAMPLER_RECENT : 0;
    for (size_t i = first; i < count; i++) {
        bool seen = false;
        for (size_t j = first; j < i; j++) {
            seen = seen || recent[j] == recent[i];
        }
        real *logit = &logits[recent[i]];
        if (!seen) {
            *logit = (real)(*logit > 0 ? (double)*logit / penalty : (double)*logit * penalty);
        }
    }
}

static size_t likeliest(const real *logits, size_t vocab)
{
    size_t best = 0;
    for (size_t i = 1; i < vocab; i++) {
        best = logits[i] > logits[best] ? i : best;
    }
    return best;
}

/* The likeliest first, the lower token on a tie. */
static int by_weight(const void *a, const void *b)
{
    const struct sampler_candidate *x = a, *y = b;
    if (x->weight != y->weight) { /* NaN cannot be: the trainer refuses such models */
        return x->weight < y->weight ? 1 : -1;
    }
    return (x->token > y->token) - (x->token < y->token);
}

/* How many of the sorted candidates stay. */
static size_t cut(const struct sampler *sampler, size_t count)
{
    const struct sampler_options *options = &sampler->options;
    const struct sampler_candidate *sorted = sampler->candidates;
    double all = 0, sum = 0;
    size_t kept = 0;
    if (options->top_k > 0 && options->top_k < count) {
        count = options->top_k;
    }
    for (size_t i = 0; i < count; i++) {
        all += sorted[i].weight;
    }
    while (kept < count && (kept == 0 || sum < options->top_p * all)) {
        sum += sorted[kept++].weight;
    }
    while (kept > 1 && sorted[kept - 1].weight < options->min_p * sorted[0].weight) {
        kept--;
    }
    return kept;
}

int32_t sampler_next(struct sampler *sampler, real *logits, const int32_t *recent,
                     size_t recent_count, uint32_t text, uint64_t position)
{
    const struct sampler_options *options = &sampler->options;
    const struct philox key = {
        .seed = options->seed, .purpose = PHILOX_GENERATE, .stream = text};
    size_t count = sampler->vocab;
    if (options->repeat_penalty > 1 || options->repeat_penalty < 1) {
        penalize(logits, options->repeat_penalty, recent, recent_count);
    }
    size_t best = likeliest(logits, count);
    if (options->temperature <= 0) {
        return (int32_t)best;
    }
    double sum = 0;
    for (size_t i = 0; i < count; i++) {
        double below = ((double)logits[i] - (double)logits[best]) / options->temperature;
        sampler->candidates[i] =
            (struct sampler_candidate){.weight = exp(below), .token = (uint32_t)i};
    }
    if (options->top_k > 0 || options->top_p < 1 || options->min_p > 0) {
        qsort(sampler->candidates, count, sizeof *sampler->candidates, by_weight);
        count = cut(sampler, count);
    }
    for (size_t i = 0; i < count; i++) {
        sum += sampler->candidates[i].weight;
    }
    double at = philox_uniform(&key, position) * sum;
    for (size_t i = 0; i < count; i++) {
        at -= sampler->candidates[i].weight;
        if (at < 0) {
            return (int32_t)sampler->candidates[i].token;
        }
    }
    return (int32_t)best; /* rounding */
}
