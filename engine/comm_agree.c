#include "engine/comm.h"

#include <string.h>

int comm_agree(struct comm *comm, int code, int *rank, struct err *err)
{
    struct err shared = {0};
    if (code != 0) {
        if (err && err->code != 0) {
            shared = *err;
        } else {
            err_set(&shared, code, "%s", err_name(code));
        }
    }
    if (rank) {
        *rank = -1;
    }
    uint64_t first = code != 0 ? (uint64_t)comm->rank : UINT64_MAX;
    int rc = comm->ops->min_u64(comm, &first, 1, err);
    if (rc != 0) {
        return rc;
    }
    if (first == UINT64_MAX) {
        return 0;
    }
    rc = comm->ops->broadcast(comm, &shared, sizeof shared, (int)first, err);
    if (rc != 0) {
        return rc;
    }
    if (rank) {
        *rank = (int)first;
    }
    return err_set(err, shared.code, "%s", shared.text);
}
