#include "engine/agree.h"

#include "proto/format/digest.h"

#include <assert.h>
#include <stdio.h>
#include <string.h>

enum { AGREE_BATCH = 64, PARTS_MAX = 5 }; /* hashes per collective; memory blocks of an item */

struct part {
    void *data;
    size_t bytes;
    bool reals;
};

/* One thing that is compared: a parameter, or what belongs to the whole model. */
struct item {
    char name[MODEL_NAME_MAX];
    struct param *param; /* NULL: of the whole model */
    struct part parts[PARTS_MAX];
    size_t part_count;
};

struct comparison {
    struct model *model;
    struct comm *comm;
    bool masks; /* the hash is over the mask only */
    struct agreement *out;
    struct item items[AGREE_BATCH];
    uint64_t low[AGREE_BATCH], high[AGREE_BATCH];
    size_t count;
};

static void part_add(struct item *item, void *data, size_t bytes, bool reals)
{
    if (data && bytes > 0)
        item->parts[item->part_count++] = (struct part){data, bytes, reals};
}

static void item_init(struct item *item, const struct model *model, struct param *param)
{
    const struct nm *mask = param->nm ? param->nm : param->latent;
    const size_t bytes = param->count * sizeof(real);
    real *const slabs[] = {model->weights, model->moment1, model->moment2};
    *item = (struct item){.param = param};
    snprintf(item->name, sizeof item->name, "%s", param->name);
    if (mask)
        part_add(item, mask->codes, mask->dout * nm_groups(mask) * sizeof *mask->codes, false);
    for (size_t i = 0; i < sizeof slabs / sizeof slabs[0]; i++)
        part_add(item, slabs[i] ? slabs[i] + param->offset : NULL, bytes, true);
    part_add(item, model->ages ? model->ages + param->offset : NULL,
             param->count * sizeof *model->ages, false);
}

static uint64_t item_hash(const struct comparison *c, const struct item *item)
{
    uint64_t hash = 0;
    if (c->masks)
        return nm_mask_hash(item->param->nm);
    for (size_t i = 0; i < item->part_count; i++)
        hash = digest_u64(item->parts[i].data, item->parts[i].bytes, hash);
    return hash;
}

/* True if no number is infinite or NaN: x - x is 0 for all others only. */
static bool item_finite(const struct item *item)
{
    for (size_t i = 0; i < item->part_count; i++) {
        const real *values = item->parts[i].data;
        const size_t count = item->parts[i].reals ? item->parts[i].bytes / sizeof *values : 0;
        for (size_t k = 0; k < count; k++)
            if (!(values[k] - values[k] == 0))
                return false;
    }
    return true;
}

/* The rank whose content all will have. Every rank's hash goes round once: this is the rare
 * case. */
static int elect(const struct comparison *c, const struct item *item, uint64_t hash, int *root,
                 struct err *err)
{
    struct comm *comm = c->comm;
    const uint64_t mine[2] = {hash, item_finite(item)};
    double best = 0;
    uint64_t best_finite = 0;
    int rc = 0;
    *root = 0;
    for (int rank = 0; rc == 0 && rank < comm->size; rank++) {
        uint64_t theirs[2] = {mine[0], mine[1]};
        rc = comm->ops->broadcast(comm, theirs, sizeof theirs, rank, err);
        double votes = theirs[0] == hash;
        if (rc == 0)
            rc = comm->ops->sum_double(comm, &votes, 1, err);
        if (votes > best || (votes == best && theirs[1] > best_finite)) {
            best = votes;
            best_finite = theirs[1];
            *root = rank;
        }
    }
    return rc;
}

static int mend(const struct comparison *c, struct item *item, uint64_t hash, struct err *err)
{
    int root;
    if (c->masks) /* for all else the state was compared, and is here */
        model_pull(c->model);
    int rc = elect(c, item, hash, &root, err);
    for (size_t i = 0; rc == 0 && i < item->part_count; i++)
        rc = c->comm->ops->broadcast(c->comm, item->parts[i].data, item->parts[i].bytes, root,
                                     err);
    if (rc != 0)
        return rc;
    model_push(c->model);
    if (item->param && item->param->nm)
        c->model->dev->ops->nm_repack(c->model->dev, item->param->nm);
    if (c->out->repaired++ == 0) {
        c->out->root = root;
        memcpy(c->out->first, item->name, sizeof item->name);
    }
    return 0;
}

static int settle(struct comparison *c, struct err *err)
{
    uint64_t mine[AGREE_BATCH];
    memcpy(mine, c->low, c->count * sizeof *mine);
    memcpy(c->high, c->low, c->count * sizeof *mine);
    int rc = c->comm->ops->min_u64(c->comm, c->low, c->count, err);
    if (rc == 0)
        rc = c->comm->ops->max_u64(c->comm, c->high, c->count, err);
    for (size_t i = 0; rc == 0 && i < c->count; i++)
        if (c->low[i] != c->high[i])
            rc = mend(c, &c->items[i], mine[i], err);
    c->count = 0;
    return rc;
}

/* The item at c->items[c->count] is filled. */
static int compare(struct comparison *c, struct err *err)
{
    c->low[c->count] = item_hash(c, &c->items[c->count]);
    return ++c->count == AGREE_BATCH ? settle(c, err) : 0;
}

int masks_agree(struct model *model, struct comm *comm, struct agreement *out, struct err *err)
{
    struct comparison c = {.model = model, .comm = comm, .masks = true, .out = out};
    int rc = 0;
    *out = (struct agreement){.compared = comm->size > 1};
    for (size_t i = 0; rc == 0 && out->compared && i < model->param_count; i++) {
        if (!model->params[i].nm)
            continue;
        item_init(&c.items[c.count], model, &model->params[i]);
        rc = compare(&c, err);
    }
    return rc == 0 && c.count > 0 ? settle(&c, err) : rc;
}

int states_agree(struct model *model, struct comm *comm, void *explored, size_t bytes,
                 struct agreement *out, struct err *err)
{
    struct comparison c = {.model = model, .comm = comm, .out = out};
    int rc = 0;
    *out = (struct agreement){.compared = comm->size > 1};
    if (!out->compared)
        return 0;
    model_pull(model);
    for (size_t i = 0; rc == 0 && i < model->param_count; i++) {
        item_init(&c.items[c.count], model, &model->params[i]);
        rc = compare(&c, err);
        comm_progress(comm);
    }
    if (rc == 0) {
        struct item *item = &c.items[c.count];
        *item = (struct item){.name = "refresh_age, explored"};
        part_add(item, model->refresh_age,
                 model->refresh_age ? model->param_count * sizeof *model->refresh_age : 0,
                 false);
        part_add(item, explored, bytes, false);
        rc = compare(&c, err);
    }
    if (rc == 0 && c.count > 0)
        rc = settle(&c, err);
    if (rc == 0 && out->repaired > 0)
        model_repack(model);
    return rc;
}
