#include "engine/decoder.h"
#include "engine/model_private.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <stdlib.h>
#include <string.h>

/* Sequences and capacity stay far below what overflows sizes together with a model's. */
enum { DECODER_SEQUENCES_MAX = 1 << 16 };

struct decoder {
    struct model *model;
    size_t sequences, capacity;
    size_t *lengths;            /* (sequences) */
    struct decode_cache *cache; /* (layers) */
    real *cached;               /* all keys and values */
    unsigned char **packs;      /* (layers * MODEL_TARGETS_PER_LAYER), NULL for a dense model */
    unsigned char *pack_slab;
    size_t pack_bytes;
    /* (DECODER_ROWS, dim) of a decoding pass: */
    real *x, *norm, *q, *k, *v, *att, *gate, *up, *wide;
    real *z, *a, *g, *s; /* of an adapter's branch */
    real *rows;          /* the slab of all those */
};

size_t decoder_capacity(const struct decoder *decoder) { return decoder->capacity; }

size_t decoder_length(const struct decoder *decoder, size_t sequence)
{
    assert(sequence < decoder->sequences);
    return decoder->lengths[sequence];
}

void decoder_rewind(struct decoder *decoder, size_t sequence, size_t length)
{
    assert(sequence < decoder->sequences && length <= decoder->lengths[sequence]);
    decoder->lengths[sequence] = length;
}

/* --- life --- */

static int create_cache(struct decoder *d, struct err *err)
{
    const struct model_shape *shape = &d->model->shape;
    size_t part = 0, all = 0; /* keys of one block; everything */
    bool fits = size_mul(&part, d->sequences, d->capacity) &&
                size_mul(&part, part, model_kv_dim(shape)) &&
                size_mul(&all, part, 2 * shape->layers);
    d->lengths = mem_zeroed(d->sequences, sizeof *d->lengths);
    d->cache = mem_zeroed(shape->layers, sizeof *d->cache);
    d->cached = fits ? mem_aligned(all, sizeof *d->cached) : NULL;
    if (!d->lengths || !d->cache || !d->cached)
        return err_set(err, ERR_NO_MEMORY,
                       "no memory for the keys and values of %zu sequences of %zu tokens",
                       d->sequences, d->capacity);
    for (size_t layer = 0; layer < shape->layers; layer++)
        d->cache[layer] = (struct decode_cache){.keys = d->cached + 2 * layer * part,
                                                .values = d->cached + (2 * layer + 1) * part,
                                                .capacity = d->capacity,
                                                .heads = shape->heads,
                                                .kv_heads = shape->kv_heads,
                                                .head_dim = model_head_dim(shape)};
    return 0;
}

static int create_packs(struct decoder *d, struct err *err)
{
    const struct model *model = d->model;
    const struct ops *ops = model->dev->ops;
    const size_t targets = model->shape.layers * MODEL_TARGETS_PER_LAYER;
    if (!model_sparse(&model->shape))
        return 0;
    size_t bytes = 0;
    for (size_t i = 0; i < targets; i++)
        bytes += size_round_up(ops->decode_pack_size(&model->private_data->nms[i]), MEM_ALIGN);
    d->pack_bytes = bytes;
    d->packs = mem_zeroed(targets, sizeof *d->packs);
    d->pack_slab = mem_aligned(bytes, 1);
    if (!d->packs || !d->pack_slab)
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu bytes of masks", bytes);
    size_t at = 0;
    for (size_t layer = 0; layer < model->shape.layers; layer++)
        for (size_t kind = 0; kind < MODEL_TARGETS_PER_LAYER; kind++) {
            const struct nm *nm = model_layer_param(model, layer, (enum layer_param)kind)->nm;
            unsigned char *pack = d->pack_slab + at;
            d->packs[layer * MODEL_TARGETS_PER_LAYER + kind] = pack;
            ops->decode_pack(model->dev, pack, nm);
            at += size_round_up(ops->decode_pack_size(nm), MEM_ALIGN);
        }
    assert(at == bytes);
    return 0;
}

/* Sets the row buffers into base, which may be NULL; returns their floats. */
static size_t place_rows(struct decoder *d, real *base)
{
    const struct model_shape *shape = &d->model->shape;
    const size_t hidden = shape->hidden, kv = model_kv_dim(shape), wide = shape->intermediate;
    const size_t rank = shape->adapter.rank, gate = shape->adapter.hidden;
    const struct {
        real **out;
        size_t dim;
    } buffers[] = {{&d->x, hidden},  {&d->norm, hidden}, {&d->q, hidden},  {&d->k, kv},
                   {&d->v, kv},      {&d->att, hidden},  {&d->gate, wide}, {&d->up, wide},
                   {&d->wide, wide}, {&d->z, rank},      {&d->a, gate},    {&d->g, rank},
                   {&d->s, gate}};
    size_t count = 0;
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++) {
        *buffers[i].out = base ? base + count : NULL;
        count += size_round_up(DECODER_ROWS * buffers[i].dim, MEM_ALIGN / sizeof(float));
    }
    return count;
}

static int create_rows(struct decoder *d, struct err *err)
{
    const struct model *model = d->model;
    struct device_limits limits;
    d->rows = mem_aligned(place_rows(d, NULL), sizeof *d->rows);
    if (!d->rows)
        return err_set(err, ERR_NO_MEMORY, "no memory for %d rows of a model", DECODER_ROWS);
    place_rows(d, d->rows);
    model_limits(&limits, &model->shape, 1, 1);
    limits.decode_rows = DECODER_ROWS;
    limits.decode_capacity = d->capacity;
    if (model_sparse(&model->shape)) {
        limits.n = model->shape.n;
        limits.m = model->shape.m;
    }
    return device_reserve(model->dev, &limits, err);
}

int decoder_create(struct decoder **out, struct model *model, size_t sequences, size_t capacity,
                   struct err *err)
{
    const size_t context = model->private_data->context;
    *out = NULL;
    if (!model->dev->ops->decode_linear)
        return err_set(err, ERR_UNSUPPORTED, "device \"%s\" cannot decode: use \"cpu\"",
                       model->dev->ops->name);
    if (sequences < 1 || sequences > DECODER_SEQUENCES_MAX)
        return err_set(err, ERR_INVALID, "decoder: %zu sequences: must be 1 to %d", sequences,
                       DECODER_SEQUENCES_MAX);
    if (capacity < 1 || capacity > context)
        return err_set(err, ERR_INVALID,
                       "decoder: a capacity of %zu tokens: must be 1 to the context of %zu",
                       capacity, context);
    struct decoder *d = mem_zeroed(1, sizeof *d);
    if (!d)
        return err_set(err, ERR_NO_MEMORY, "no memory for a decoder");
    *d = (struct decoder){.model = model, .sequences = sequences, .capacity = capacity};
    int rc = create_cache(d, err);
    if (rc == 0)
        rc = create_packs(d, err);
    if (rc == 0)
        rc = create_rows(d, err);
    if (rc != 0) {
        decoder_destroy(d);
        return rc;
    }
    *out = d;
    return 0;
}

void decoder_destroy(struct decoder *d)
{
    if (!d)
        return;
    mem_aligned_free(d->cached);
    mem_aligned_free(d->pack_slab);
    mem_aligned_free(d->rows);
    free(d->packs);
    free(d->cache);
    free(d->lengths);
    free(d);
}

size_t decoder_token_bytes(const struct decoder *d)
{
    const struct model *model = d->model;
    size_t bytes = d->pack_bytes;
    for (size_t i = 0; i < model->param_count; i++) {
        const struct param *param = &model->params[i];
        if (param->folded || (param == &model->params[0] && param != model_head(model)))
            continue; /* one row of the embedding is read; scales are part of the weights */
        bytes += param->count * sizeof(real);
    }
    return bytes;
}

/* --- a pass over a few rows --- */

static struct decode_product target_product(const struct decoder *d, real *y, size_t layer,
                                            enum layer_param kind, bool add)
{
    const struct param *weight = model_layer_param(d->model, layer, kind);
    struct decode_product product = {
        .y = y, .dout = weight->rows, .din = weight->cols, .nm = weight->nm, .add = add};
    if (weight->nm)
        product.pack = d->packs[layer * MODEL_TARGETS_PER_LAYER + (size_t)kind];
    else
        product.dense = model_factor(d->model, weight);
    return product;
}

/* y += the branch beside a target, of its input x. */
static void branch_add(const struct decoder *d, real *y, const real *x, size_t layer,
                       enum layer_param kind, size_t rows)
{
    struct model_branch branch;
    if (!model_adapter_branch(&branch, d->model, layer, kind))
        return;
    struct device *dev = d->model->dev;
    const struct ops *ops = dev->ops;
    const size_t din = branch.a->cols, rank = branch.args.rank;
    struct decode_product in[2] = {
        {.y = d->z, .dense = model_weight(d->model, branch.a), .dout = rank, .din = din}};
    if (branch.w1)
        in[1] = (struct decode_product){.y = d->a,
                                        .dense = model_weight(d->model, branch.w1),
                                        .dout = branch.args.hidden,
                                        .din = din};
    ops->decode_linear(dev, in, branch.w1 ? 2 : 1, x, rows);
    ops->decode_como(dev, d->g, d->s, d->z, d->a, &branch.args, rows);
    const struct decode_product out = {.y = y,
                                       .dense = model_weight(d->model, branch.bt),
                                       .dout = branch.bt->cols,
                                       .din = rank,
                                       .turned = true,
                                       .add = true};
    ops->decode_linear(dev, &out, 1, d->g, rows);
}

static void norm_rows(const struct decoder *d, const struct param *weight, size_t rows)
{
    const struct model *model = d->model;
    model->dev->ops->decode_norm(model->dev, d->norm, d->x, model_weight(model, weight),
                                 (real)model->shape.norm_eps, rows, model->shape.hidden);
}

/* x += Wo attention(rope(Wq norm(x)), rope(Wk norm(x)), Wv norm(x)) */
static void attention_half(const struct decoder *d, size_t layer,
                           const struct decode_place *places, size_t rows)
{
    struct device *dev = d->model->dev;
    const struct ops *ops = dev->ops;
    const struct work *work = &d->model->private_data->work;
    const struct decode_product in[] = {target_product(d, d->q, layer, LAYER_Q, false),
                                        target_product(d, d->k, layer, LAYER_K, false),
                                        target_product(d, d->v, layer, LAYER_V, false)};
    norm_rows(d, model_layer_param(d->model, layer, LAYER_INPUT_NORM), rows);
    ops->decode_linear(dev, in, 3, d->norm, rows);
    branch_add(d, d->q, d->norm, layer, LAYER_Q, rows);
    branch_add(d, d->k, d->norm, layer, LAYER_K, rows);
    branch_add(d, d->v, d->norm, layer, LAYER_V, rows);
    ops->decode_append(dev, &d->cache[layer], d->q, d->k, d->v, work->cosine, work->sine,
                       places, rows);
    ops->decode_attention(dev, d->att, d->q, &d->cache[layer], places, rows);
    const struct decode_product out = target_product(d, d->x, layer, LAYER_O, true);
    ops->decode_linear(dev, &out, 1, d->att, rows);
    branch_add(d, d->x, d->att, layer, LAYER_O, rows);
}

/* x += Wdown (silu(Wgate norm(x)) * Wup norm(x)) */
static void mlp_half(const struct decoder *d, size_t layer, size_t rows)
{
    struct device *dev = d->model->dev;
    const struct ops *ops = dev->ops;
    const struct decode_product in[] = {target_product(d, d->gate, layer, LAYER_GATE, false),
                                        target_product(d, d->up, layer, LAYER_UP, false)};
    norm_rows(d, model_layer_param(d->model, layer, LAYER_POST_NORM), rows);
    ops->decode_linear(dev, in, 2, d->norm, rows);
    branch_add(d, d->gate, d->norm, layer, LAYER_GATE, rows);
    branch_add(d, d->up, d->norm, layer, LAYER_UP, rows);
    ops->decode_swiglu(dev, d->wide, d->gate, d->up, rows, d->model->shape.intermediate);
    const struct decode_product out = target_product(d, d->x, layer, LAYER_DOWN, true);
    ops->decode_linear(dev, &out, 1, d->wide, rows);
    branch_add(d, d->x, d->wide, layer, LAYER_DOWN, rows);
}

/* Logits of the last `want` rows. */
static void pass(const struct decoder *d, const int32_t *tokens,
                 const struct decode_place *places, size_t rows, real *logits, size_t want)
{
    const struct model *model = d->model;
    const struct model_shape *shape = &model->shape;
    struct device *dev = model->dev;
    assert(rows <= DECODER_ROWS);
    dev->ops->decode_embed(dev, d->x, model_weight(model, &model->params[0]), tokens, rows,
                           shape->hidden);
    for (size_t layer = 0; layer < shape->layers; layer++) {
        attention_half(d, layer, places, rows);
        mlp_half(d, layer, rows);
    }
    if (want == 0)
        return;
    norm_rows(d, &model->params[1 + shape->layers * LAYER_PARAMS], rows);
    const struct decode_product head = {.y = logits,
                                        .dense = model_weight(model, model_head(model)),
                                        .dout = shape->vocab,
                                        .din = shape->hidden};
    dev->ops->decode_linear(dev, &head, 1, d->norm + (rows - want) * shape->hidden, want);
}

/* --- sequences --- */

static size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

struct fill {
    const struct decoder *decoder;
    size_t sequence;
};

static void fill_layer(void *context, size_t layer, const real *k, const real *v, size_t rows)
{
    const struct fill *fill = context;
    struct device *dev = fill->decoder->model->dev;
    dev->ops->decode_fill(dev, &fill->decoder->cache[layer], k, v, fill->sequence, rows);
}

void decoder_read(struct decoder *d, size_t sequence, const int32_t *tokens, size_t count,
                  real *logits, size_t want)
{
    assert(sequence < d->sequences && count >= 1 && want <= count);
    assert(count <= d->capacity - d->lengths[sequence]);
    size_t *length = &d->lengths[sequence];
    if (*length == 0 && count > DECODER_ROWS) {
        struct fill fill = {.decoder = d, .sequence = sequence};
        const struct model_capture capture = {.context = &fill, .layer = fill_layer};
        model_logits_capture(d->model, tokens, logits, 1, count, count - want, want, &capture);
        *length = count;
        return;
    }
    for (size_t done = 0, rows; done < count; done += rows) {
        struct decode_place places[DECODER_ROWS];
        rows = min_size(DECODER_ROWS, count - done);
        for (size_t r = 0; r < rows; r++)
            places[r] = (struct decode_place){.sequence = sequence, .place = *length + r};
        size_t last = done + rows, start = count - want; /* logits from token `start` on */
        size_t wanted = last > start ? min_size(rows, last - start) : 0;
        real *out =
            wanted > 0 ? logits + (last - wanted - start) * d->model->shape.vocab : NULL;
        pass(d, tokens + done, places, rows, out, wanted);
        *length += rows;
    }
}

void decoder_step(struct decoder *d, const size_t *sequences, const int32_t *tokens,
                  size_t count, real *logits)
{
    for (size_t done = 0, rows; done < count; done += rows) {
        struct decode_place places[DECODER_ROWS];
        rows = min_size(DECODER_ROWS, count - done);
        for (size_t r = 0; r < rows; r++) {
            size_t sequence = sequences[done + r];
            assert(sequence < d->sequences && d->lengths[sequence] < d->capacity);
            places[r] = (struct decode_place){sequence, d->lengths[sequence]++};
        }
        pass(d, tokens + done, places, rows, logits + done * d->model->shape.vocab, rows);
    }
}

void decoder_copy(struct decoder *d, size_t to, size_t from)
{
    assert(to < d->sequences && from < d->sequences);
    d->lengths[to] = d->lengths[from];
    if (to == from)
        return;
    for (size_t layer = 0; layer < d->model->shape.layers; layer++) {
        const struct decode_cache *cache = &d->cache[layer];
        size_t head = cache->capacity * cache->head_dim,
               used = d->lengths[from] * cache->head_dim;
        for (size_t h = 0; h < cache->kv_heads; h++) {
            size_t into = (to * cache->kv_heads + h) * head;
            size_t source = (from * cache->kv_heads + h) * head;
            memcpy(cache->keys + into, cache->keys + source, used * sizeof(real));
            memcpy(cache->values + into, cache->values + source, used * sizeof(real));
        }
    }
}
