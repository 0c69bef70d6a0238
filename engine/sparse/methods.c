/* The registry of sparse methods: one row each. What a method fixes over the user's options is
 * its configure function; docs/adding.md walks through a new row. */
#include "engine/method.h"
#include <assert.h>
#include <string.h>

/* Mocanu et al. 2018: the smallest weights go, random ones come; here inside the legal
 * patterns. */
static void configure_set(struct method_config *config)
{
    config->removal = REMOVAL_MAGNITUDE;
    config->soft = false;
    config->score = SCORE_RANDOM;
    config->mpr = 0;
}

/* Evci et al. 2020: the smallest weights go, links of the largest gradient come; here inside
 * the legal patterns. */
static void configure_rigl(struct method_config *config)
{
    config->removal = REMOVAL_MAGNITUDE;
    config->soft = false;
    config->score = SCORE_GRADIENT;
    config->mpr = 0;
}

/* CPAL 2026, in the row layout: the refresh without motif pattern revisitation. */
static void configure_chts24(struct method_config *config) { config->mpr = 0; }

/* Bengio et al. 2013: the gradient of the masked weights as it is. */
static void configure_ste(struct method_config *config) { config->penalty = 0; }

static const struct method methods[] = {
    {.name = "dense"},
    {.name = "static", .sparse = true},
    {.name = "slope", .sparse = true, .late_branch = true},
    {.name = "set", .sparse = true, .refreshes = true, .configure = configure_set},
    {.name = "rigl", .sparse = true, .refreshes = true, .configure = configure_rigl},
    {.name = "chts24", .sparse = true, .refreshes = true, .configure = configure_chts24},
    {.name = "chtsnm", .sparse = true, .refreshes = true},
    {.name = "retrain",
     .sparse = true,
     .refreshes = true}, /* from given weights: model_start */
    {.name = "ste", .sparse = true, .latent = MODEL_LATENT_MASKED, .configure = configure_ste},
    {.name = "srste", .sparse = true, .latent = MODEL_LATENT_MASKED},
    {.name = "cast", .sparse = true, .latent = MODEL_LATENT_SCALED},
};

const struct method *method_table(size_t *count)
{
    *count = sizeof methods / sizeof methods[0];
    return methods;
}

const struct method *method_find(const char *name)
{
    for (size_t i = 0; i < sizeof methods / sizeof methods[0]; i++)
        if (strcmp(methods[i].name, name) == 0)
            return &methods[i];
    return NULL;
}

const struct method *method_settle(struct method_config *config)
{
    const struct method *method = method_find(config->name);
    assert(method);
    if (method->configure)
        method->configure(config);
    return method;
}
