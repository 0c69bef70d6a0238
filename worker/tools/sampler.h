/* The choice of the next token from a model's logits. */
#ifndef HEBB_TOOLS_SAMPLER_H
#define HEBB_TOOLS_SAMPLER_H

#include "engine/real.h"
#include "proto/base/err.h"

#include <stddef.h>
#include <stdint.h>

enum { SAMPLER_RECENT = 64 }; /* tokens that repeat_penalty looks back at */

/* Applied in this order. The likeliest token always stays. */
struct sampler_options {
    double repeat_penalty; /* of recent tokens a positive logit is divided by it, a negative one
                              multiplied; 1: off (Keskar et al. 2019) */
    double temperature; /* logits are divided by it; 0: the likeliest token, lowest on a tie */
    size_t top_k;       /* only the k likeliest stay; 0: all */
    double top_p;       /* only the fewest that have this probability together; 1: all
                           (Holtzman et al. 2020) */
    double min_p;       /* only those with this share of the likeliest's probability; 0: all */
    uint64_t seed;
};

struct sampler_candidate {
    double weight;
    uint32_t token;
};

struct sampler {
    struct sampler_options options;
    size_t vocab;
    struct sampler_candidate *candidates; /* (vocab) */
};

int sampler_init(struct sampler *out, const struct sampler_options *options, size_t vocab,
                 struct err *err);
void sampler_release(struct sampler *sampler);

/* A pure function of its arguments. logits (vocab) are changed. recent: the text's tokens so
 * far, oldest first. text, position: number of the text, and of the token in it. */
int32_t sampler_next(struct sampler *sampler, real *logits, const int32_t *recent,
                     size_t recent_count, uint32_t text, uint64_t position);

#endif
