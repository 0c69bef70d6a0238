#include "engine/model_private.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <string.h>

static size_t packs_size(const struct ops *ops, const struct model_shape *shape)
{
    if (!model_sparse(shape))
        return 0;
    size_t hidden = shape->hidden, kv = model_kv_dim(shape), wide = shape->intermediate;
    size_t layer = 2 * model_pack_size(ops, hidden, hidden, shape->n, shape->m) +
                   2 * model_pack_size(ops, kv, hidden, shape->n, shape->m) +
                   2 * model_pack_size(ops, wide, hidden, shape->n, shape->m) +
                   model_pack_size(ops, hidden, wide, shape->n, shape->m);
    return layer * shape->layers;
}

void model_sizes(struct model_bytes *out, const char *device, unsigned threads,
                 const struct model_shape *shape, size_t batch, size_t context, bool training)
{
    const struct ops *ops = device_ops(device);
    struct layer_saved scratch;
    struct work work;
    struct device_limits limits;
    size_t count = 0, codes = 0, activations = 0;
    assert(ops && model_shape_check(shape, NULL) == 0);
    bool fits = model_params_fill(NULL, shape, &count, &codes) &&
                model_layout(NULL, &scratch, &work, NULL, ops, shape, batch, context, training,
                             &activations);
    assert(fits);
    model_limits(&limits, shape, batch, context);
    size_t latent = 0;
    if (shape->latent != MODEL_LATENT_NONE) { /* the targets' entries as they are stored */
        size_t hidden = shape->hidden, kv = model_kv_dim(shape), wide = shape->intermediate;
        latent = 2 * size_round_up(hidden * hidden, MODEL_PARAM_ALIGN) +
                 2 * size_round_up(kv * hidden, MODEL_PARAM_ALIGN) +
                 3 * size_round_up(wide * hidden, MODEL_PARAM_ALIGN);
        latent *= shape->layers * sizeof(real);
    }
    *out = (struct model_bytes){
        .latent = latent,
        .weights = count * sizeof(real),
        .codes = codes * sizeof(uint16_t),
        .packs = packs_size(ops, shape),
        .gradients = training ? count * sizeof(real) : 0,
        .optimizer = training ? 2 * count * sizeof(real) : 0,
        .activations = activations * sizeof(real),
        .scratch = device_scratch_bytes(device, &limits, threads),
    };
}
