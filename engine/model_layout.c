/* One slab for all activations. The layout is computed by one function for both uses: how many
 * elements it takes (base NULL) and where everything lies. */
#include "engine/model_private.h"
#include "proto/base/mem.h"

enum { ELEMENT_ALIGN = MEM_ALIGN / sizeof(float) };

struct plan {
    real *base; /* NULL: sizes only */
    size_t count;
    bool fits;
};

static real *plan_take(struct plan *plan, size_t elements)
{
    size_t offset = plan->count, end = 0;
    plan->fits = plan->fits && elements <= SIZE_MAX / 2 && size_add(&end, offset, elements) &&
                 end <= SIZE_MAX / 2;
    if (!plan->fits)
        return NULL;
    plan->count = size_round_up(end, ELEMENT_ALIGN);
    return plan->base ? plan->base + offset : NULL;
}

struct dims {
    const struct ops *ops;
    const struct model_shape *shape;
    size_t rows, hidden, kv, wide; /* rows; then elements of act (rows, dim) */
    size_t rank, gate;             /* of an adapter's act, 0 without one */
};

/* x is placed by the caller: a block's input is the last block's output. */
static void layout_saved(struct plan *plan, struct layer_saved *saved, const struct dims *dims)
{
    saved->rstd_in = plan_take(plan, dims->rows);
    saved->q = plan_take(plan, dims->hidden);
    saved->k = plan_take(plan, dims->kv);
    saved->v = plan_take(plan, dims->kv);
    saved->att = plan_take(plan, dims->hidden);
    saved->lse = plan_take(plan, dims->rows * dims->shape->heads);
    saved->rstd_post = plan_take(plan, dims->rows);
    saved->gate = plan_take(plan, dims->wide);
    saved->up = plan_take(plan, dims->wide);
    for (size_t kind = 0; kind < MODEL_TARGETS_PER_LAYER; kind++) {
        saved->adapter[kind].z = plan_take(plan, dims->rank);
        saved->adapter[kind].a = plan_take(plan, dims->gate);
    }
}

static void layout_adapter(struct plan *plan, struct adapter_work *work,
                           const struct dims *dims, bool training)
{
    work->g = plan_take(plan, dims->rank);
    work->s = plan_take(plan, dims->gate);
    work->dz = plan_take(plan, training ? dims->rank : 0);
    work->du = plan_take(plan, training ? dims->rank : 0);
    work->da = plan_take(plan, training ? dims->gate : 0);
}

static void layout_gradients(struct plan *plan, struct work *work, const struct dims *dims)
{
    work->dx = plan_take(plan, dims->hidden);
    /* A block's two halves are never at work together. */
    struct plan mlp = *plan, attention = *plan;
    work->dgate = plan_take(&mlp, dims->wide);
    work->dup = plan_take(&mlp, dims->wide);
    work->dq = plan_take(&attention, dims->hidden);
    work->datt = plan_take(&attention, dims->hidden);
    work->dk = plan_take(&attention, dims->kv);
    work->dv = plan_take(&attention, dims->kv);
    plan->fits = mlp.fits && attention.fits;
    plan->count = mlp.count > attention.count ? mlp.count : attention.count;
}

bool model_layout(struct layer_saved *saved, struct layer_saved *scratch, struct work *work,
                  real *base, const struct ops *ops, const struct model_shape *shape,
                  size_t batch, size_t context, bool training, size_t *count)
{
    struct plan plan = {.base = base, .fits = true};
    struct dims dims = {.ops = ops, .shape = shape};
    if (!size_mul(&dims.rows, batch, context) || dims.rows > SIZE_MAX >> 24)
        return false;
    dims.hidden = ops->act_size(dims.rows, shape->hidden);
    dims.kv = ops->act_size(dims.rows, model_kv_dim(shape));
    dims.wide = ops->act_size(dims.rows, shape->intermediate);
    if (shape->adapter.kind != ADAPTER_NONE) {
        dims.rank = ops->act_size(dims.rows, shape->adapter.rank);
        dims.gate = ops->act_size(dims.rows, shape->adapter.hidden);
    }

    size_t half = model_head_dim(shape) / 2;
    work->cosine = plan_take(&plan, context * half);
    work->sine = plan_take(&plan, context * half);
    work->norm = plan_take(&plan, dims.hidden);
    work->branch = plan_take(&plan, dims.hidden);
    work->rstd_out = plan_take(&plan, dims.rows);
    work->wide = plan_take(&plan, dims.wide);
    layout_adapter(&plan, &work->adapter, &dims, training);
    if (training)
        layout_gradients(&plan, work, &dims);

    struct layer_saved one = {0};
    for (size_t layer = 0; layer < (training ? shape->layers : 1); layer++) {
        one.x = plan_take(&plan, dims.hidden);
        one.mid = training ? plan_take(&plan, dims.hidden) : one.x;
        layout_saved(&plan, &one, &dims);
        if (saved)
            saved[layer] = one;
        if (layer == 0)
            *scratch = one;
    }
    /* Without a backward pass the residual stream is updated in place. */
    scratch->mid = scratch->x;
    work->out = training ? plan_take(&plan, dims.hidden) : scratch->x;
    *count = plan.count;
    return plan.fits;
}
