/* The golden model of tests/reference/make_golden_model.py, for the tests that compare with it.
 */
#ifndef TESTS_ENGINE_GOLDEN_H
#define TESTS_ENGINE_GOLDEN_H

#include "engine/model.h"
#include "proto/format/safetensors.h"
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define GOLDEN_PATH HEBB_SOURCE_DIR "/tests/golden/model.safetensors"

static inline double golden_number(const struct st_file *file, const char *key)
{
    const char *text = st_metadata(file, key);
    assert_non_null(text);
    return strtod(text, NULL);
}

static inline size_t golden_size(const struct st_file *file, const char *key)
{
    return (size_t)golden_number(file, key);
}

static inline struct model_shape golden_shape(const struct st_file *file, unsigned n,
                                              unsigned m)
{
    return (struct model_shape){.hidden = golden_size(file, "hidden"),
                                .intermediate = golden_size(file, "intermediate"),
                                .layers = golden_size(file, "layers"),
                                .heads = golden_size(file, "heads"),
                                .kv_heads = golden_size(file, "kv_heads"),
                                .vocab = golden_size(file, "vocab"),
                                .context = golden_size(file, "context"),
                                .rope_theta = golden_number(file, "rope_theta"),
                                .norm_eps = golden_number(file, "norm_eps"),
                                .n = n,
                                .m = m};
}

/* A copy of the tensor's data, aligned; bytes gets its length. The caller frees. */
static inline void *golden_data(const struct st_file *file, size_t *bytes, const char *prefix,
                                const char *name)
{
    char full[2 * ST_NAME_MAX];
    snprintf(full, sizeof full, "%s%s", prefix, name);
    const struct st_tensor *tensor = st_find(file, full);
    if (!tensor)
        fail_msg("%s has no %s", GOLDEN_PATH, full);
    void *copy = malloc(tensor->bytes);
    assert_non_null(copy);
    memcpy(copy, st_data(file, tensor), tensor->bytes);
    *bytes = tensor->bytes;
    return copy;
}

/* Codes and values of one target from the golden dense weight and mask. */
static inline void golden_compress(struct nm *nm, const float *dense, const uint8_t *mask)
{
    for (size_t group = 0; group < nm->dout * nm_groups(nm); group++) {
        unsigned bits = 0, k = 0;
        for (unsigned j = 0; j < nm->m; j++)
            bits |= mask[group * nm->m + j] ? 1u << j : 0u;
        nm->codes[group] = nm->patterns->code_of[bits];
        assert_true(nm->codes[group] < nm->patterns->count);
        for (unsigned j = 0; j < nm->m; j++) {
            if (mask[group * nm->m + j])
                nm->values[group * nm->n + k++] = dense[group * nm->m + j];
        }
    }
}

/* Puts the golden weights (and masks, if the model is sparse) into model. */
static inline void golden_load(struct model *model, const struct st_file *file)
{
    for (size_t i = 0; i < model->param_count; i++) {
        struct param *param = &model->params[i];
        size_t bytes = 0, mask_bytes = 0;
        if (param->adapter) /* in a file of its own */
            continue;
        float *dense = golden_data(file, &bytes, "", param->name);
        assert_int_equal(bytes, param->rows * param->cols * sizeof *dense);
        if (param->nm) {
            uint8_t *mask = golden_data(file, &mask_bytes, "mask.", param->name);
            assert_int_equal(mask_bytes, param->rows * param->cols);
            golden_compress(param->nm, dense, mask);
            free(mask);
        } else {
            for (size_t k = 0; k < param->count; k++)
                model->weights[param->offset + k] = dense[k];
        }
        free(dense);
    }
    model_repack(model);
}

/* |actual - expected| / |expected|, Euclidean norms in double. */
static inline double golden_error(const real *actual, const float *expected, size_t count)
{
    double error = 0, norm = 0;
    for (size_t i = 0; i < count; i++) {
        double difference = (double)actual[i] - (double)expected[i];
        error += difference * difference;
        norm += (double)expected[i] * (double)expected[i];
    }
    return sqrt(error / norm);
}

#endif
