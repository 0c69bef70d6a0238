/* The masks of all ranks are equal by construction; here it is checked, and mended if a fault
 * broke it. */
#include "engine/method.h"
#include <assert.h>
#include <string.h>

enum { AGREE_BATCH = 64 }; /* hashes per collective */

struct batch {
    struct param *params[AGREE_BATCH];
    uint64_t low[AGREE_BATCH], high[AGREE_BATCH];
    size_t count;
};

static int broadcast_matrix(struct model *model, struct comm *comm, struct param *param,
                            struct err *err)
{
    struct nm *w = param->nm;
    const size_t bytes = param->count * sizeof(real);
    real *slabs[] = {model->weights, model->moment1, model->moment2};
    int rc =
        comm->ops->broadcast(comm, w->codes, w->dout * nm_groups(w) * sizeof *w->codes, 0, err);
    for (size_t i = 0; !rc && i < sizeof slabs / sizeof slabs[0]; i++)
        if (slabs[i])
            rc = comm->ops->broadcast(comm, slabs[i] + param->offset, bytes, 0, err);
    if (!rc && model->ages)
        rc = comm->ops->broadcast(comm, model->ages + param->offset,
                                  param->count * sizeof *model->ages, 0, err);
    if (rc)
        return rc;
    model->dev->ops->nm_repack(model->dev, w);
    return 0;
}

static int settle_batch(struct model *model, struct comm *comm, struct batch *batch,
                        size_t *repaired, struct err *err)
{
    memcpy(batch->high, batch->low, batch->count * sizeof batch->low[0]);
    int rc = comm->ops->min_u64(comm, batch->low, batch->count, err);
    if (!rc)
        rc = comm->ops->max_u64(comm, batch->high, batch->count, err);
    for (size_t i = 0; !rc && i < batch->count; i++) {
        if (batch->low[i] == batch->high[i])
            continue;
        rc = broadcast_matrix(model, comm, batch->params[i], err);
        *repaired += rc == 0;
    }
    batch->count = 0;
    return rc;
}

int masks_agree(struct model *model, struct comm *comm, size_t *repaired, struct err *err)
{
    struct batch batch = {.count = 0};
    int rc = 0;
    *repaired = 0;
    if (comm->size == 1)
        return 0;
    for (size_t i = 0; !rc && i < model->param_count; i++) {
        struct param *param = &model->params[i];
        if (!param->nm)
            continue;
        assert(param->nm->values == model->weights + param->offset);
        batch.params[batch.count] = param;
        batch.low[batch.count++] = nm_mask_hash(param->nm);
        if (batch.count == AGREE_BATCH)
            rc = settle_batch(model, comm, &batch, repaired, err);
    }
    if (!rc && batch.count > 0)
        rc = settle_batch(model, comm, &batch, repaired, err);
    return rc;
}
