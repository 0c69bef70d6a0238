#include "worker/comms.h"

#include <stdlib.h>

static int self_real(struct comm *comm, real *data, size_t count, struct err *err)
{
    (void)comm, (void)data, (void)count, (void)err;
    return 0;
}

static int self_double(struct comm *comm, double *data, size_t count, struct err *err)
{
    (void)comm, (void)data, (void)count, (void)err;
    return 0;
}

static int self_u64(struct comm *comm, uint64_t *data, size_t count, struct err *err)
{
    (void)comm, (void)data, (void)count, (void)err;
    return 0;
}

static int self_broadcast(struct comm *comm, void *data, size_t bytes, int root,
                          struct err *err)
{
    (void)comm, (void)data, (void)bytes, (void)root, (void)err;
    return 0;
}

static int self_barrier(struct comm *comm, struct err *err)
{
    (void)comm, (void)err;
    return 0;
}

static void self_destroy(struct comm *comm) { free(comm); }

static const struct comm_ops self_ops = {
    .name = "self",
    .sum_real = self_real,
    .sum_double = self_double,
    .min_u64 = self_u64,
    .max_u64 = self_u64,
    .broadcast = self_broadcast,
    .barrier = self_barrier,
    .destroy = self_destroy,
};

int comm_self_create(struct comm **out, struct err *err)
{
    struct comm *comm = malloc(sizeof *comm);
    if (!comm) {
        return err_set(err, ERR_NO_MEMORY, "no memory for the collectives");
    }
    *comm = (struct comm){.ops = &self_ops, .rank = 0, .size = 1};
    *out = comm;
    return 0;
}
