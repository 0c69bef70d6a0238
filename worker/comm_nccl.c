/* NCCL beside the collectives of a comm (MPI): sums of what lies on the device go by NCCL, all else as before. Built where
 * nccl.h is; the library is loaded when it is asked for. */
#include "worker/comms.h"

#ifdef HEBB_NCCL
#include "engine/cuda/library.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"

#include <nccl.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    START_TIMEOUT_MS = 120 * 1000, /* of all ranks finding each other */
    SUM_TIMEOUT_MS = 600 * 1000,   /* of one sum: a rank may be late by a checkpoint */
    POLL_US = 50,
    PLACE_BYTES = 128,
};

struct comm_nccl {
    struct device *dev;
    void *library;
    ncclComm_t nccl;
    cudaStream_t stream;
    __typeof__(&ncclGetUniqueId) unique_id;
    __typeof__(&ncclCommInitRankConfig) init;
    __typeof__(&ncclCommGetAsyncError) async_error;
    __typeof__(&ncclCommAbort) abort;
    __typeof__(&ncclCommDestroy) destroy;
    __typeof__(&ncclAllReduce) all_reduce;
    __typeof__(&ncclGetErrorString) text;
};

static void nap(void)
{
    const struct timespec pause = {.tv_nsec = POLL_US * 1000};
    nanosleep(&pause, NULL);
}

/* Ends the communicator on an error, so that no kernel of it waits for ever. */
static int give_up(struct comm_nccl *c, const char *what, const char *why, struct err *err)
{
    if (c->nccl)
        c->abort(c->nccl);
    c->nccl = NULL;
    return err_set(err, ERR_IO, "NCCL: %s: %s", what, why);
}

/* Waits until the communicator has no call in progress. */
static int settle(struct comm_nccl *c, const char *what, ncclResult_t result, int timeout_ms,
                  struct err *err)
{
    const int64_t began = clock_monotonic_ms();
    while (result == ncclInProgress) {
        ncclResult_t state = ncclInProgress;
        if (clock_monotonic_ms() - began > timeout_ms)
            return give_up(c, what, "no answer in time", err);
        nap();
        result = c->async_error(c->nccl, &state);
        result = result == ncclSuccess ? state : result;
    }
    return result == ncclSuccess ? 0 : give_up(c, what, c->text(result), err);
}

static int nccl_sum_device(struct comm *comm, real *data, size_t count, struct err *err)
{
    static const char what[] = "ncclAllReduce";
    struct comm_nccl *c = comm->device_sums;
    void *at = device_address(c->dev, data);
    const int64_t began = clock_monotonic_ms();
    if (!c->nccl)
        return err_set(err, ERR_IO, "NCCL: the communicator was aborted");
    int rc = settle(c, what, c->all_reduce(at, at, count, ncclFloat, ncclSum, c->nccl, c->stream),
                    SUM_TIMEOUT_MS, err);
    for (cudaError_t code = cudaErrorNotReady; rc == 0 && code != cudaSuccess;) {
        ncclResult_t state = ncclSuccess;
        code = cudaStreamQuery(c->stream);
        if (code != cudaSuccess && code != cudaErrorNotReady)
            return give_up(c, what, cudaGetErrorString(code), err);
        if (c->async_error(c->nccl, &state) != ncclSuccess || state != ncclSuccess)
            return give_up(c, what, c->text(state), err);
        if (code == cudaErrorNotReady && clock_monotonic_ms() - began > SUM_TIMEOUT_MS)
            return give_up(c, what, "no answer in time", err);
        if (code == cudaErrorNotReady)
            nap();
    }
    comm_progress(comm);
    return rc;
}

static void release(struct comm_nccl *c)
{
    if (c->nccl)
        c->destroy(c->nccl);
    library_close(c->library);
    free(c);
}

static int load(struct comm_nccl *c, struct err *err)
{
    const struct library_symbol symbols[] = {
        {"ncclGetUniqueId", &c->unique_id},
        {"ncclCommInitRankConfig", &c->init},
        {"ncclCommGetAsyncError", &c->async_error},
        {"ncclCommAbort", &c->abort},
        {"ncclCommDestroy", &c->destroy},
        {"ncclAllReduce", &c->all_reduce},
        {"ncclGetErrorString", &c->text},
        {NULL, NULL},
    };
    return library_open(&c->library, "libnccl.so.2", symbols, err);
}

/* ERR_CONFLICT if another rank works on this rank's GPU, which NCCL refuses. All ranks call it. */
static int check_alone(struct comm *comm, struct err *err)
{
    char mine[PLACE_BYTES] = "", bus[32] = "";
    int ordinal = 0, rc = 0, twin = -1;
    if (cudaGetDevice(&ordinal) == cudaSuccess)
        cudaDeviceGetPCIBusId(bus, sizeof bus, ordinal);
    gethostname(mine, PLACE_BYTES - sizeof bus - 1);
    strcat(mine, " ");
    strcat(mine, bus);
    for (int rank = 0; rc == 0 && rank < comm->size; rank++) {
        char theirs[PLACE_BYTES];
        memcpy(theirs, mine, sizeof theirs);
        rc = comm->ops->broadcast(comm, theirs, sizeof theirs, rank, err);
        if (rc == 0 && rank != comm->rank && memcmp(theirs, mine, sizeof mine) == 0)
            twin = rank;
    }
    if (rc == 0 && twin >= 0)
        rc = err_set(err, ERR_CONFLICT, "ranks %d and %d share one GPU (%s): sums go by %s", comm->rank,
                     twin, mine, comm->ops->name);
    return rc;
}

static int start(struct comm_nccl *c, struct comm *comm, struct err *err)
{
    ncclUniqueId id;
    ncclConfig_t config = NCCL_CONFIG_INITIALIZER;
    int rc = 0;
    memset(&id, 0, sizeof id);
    if (comm->rank == 0) {
        ncclResult_t result = c->unique_id(&id);
        if (result != ncclSuccess)
            rc = err_set(err, ERR_IO, "NCCL: ncclGetUniqueId: %s", c->text(result));
    }
    rc = comm_agree(comm, rc, NULL, err);
    if (rc == 0)
        rc = comm->ops->broadcast(comm, &id, sizeof id, 0, err);
    if (rc != 0)
        return rc;
    config.blocking = 0;
    ncclResult_t result = c->init(&c->nccl, comm->size, id, comm->rank, &config);
    rc = settle(c, "ncclCommInitRankConfig", result, START_TIMEOUT_MS, err);
    return comm_agree(comm, rc, NULL, err);
}

int comm_nccl_attach(struct comm *comm, struct device *dev, struct err *err)
{
    struct comm_nccl *c = mem_zeroed(1, sizeof *c);
    int rc = c ? load(c, err) : err_set(err, ERR_NO_MEMORY, "no memory for NCCL");
    rc = comm_agree(comm, rc, NULL, err);
    if (rc == 0)
        rc = comm_agree(comm, check_alone(comm, err), NULL, err);
    if (rc == 0) {
        c->dev = dev;
        c->stream = device_queue(dev);
        rc = start(c, comm, err);
    }
    if (rc != 0) {
        if (c)
            release(c);
        return rc;
    }
    comm->sum_device = nccl_sum_device;
    comm->device_sums = c;
    return 0;
}

void comm_nccl_detach(struct comm *comm)
{
    if (comm->device_sums)
        release(comm->device_sums);
    comm->sum_device = NULL;
    comm->device_sums = NULL;
}

#else

int comm_nccl_attach(struct comm *comm, struct device *dev, struct err *err)
{
    (void)dev;
    return err_set(err, ERR_UNSUPPORTED, "this build has no NCCL: sums go by %s", comm->ops->name);
}

void comm_nccl_detach(struct comm *comm) { (void)comm; }

#endif
