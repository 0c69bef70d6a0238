/* The collective interface. The engine knows no MPI: worker/comm_*.c gives it one of these.
 * All ranks call the same functions in the same order. Every call blocks. A failed collective
 * is reported once, by its return value; the run then ends (there is no recovery inside a
 * step). */
#ifndef HEBB_ENGINE_COMM_H
#define HEBB_ENGINE_COMM_H

#include "engine/real.h"
#include "proto/base/err.h"
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

struct comm;

struct comm_ops {
    const char *name; /* "self", "mpi" */
    /* data[i] = sum over ranks; every rank gets the same bits. */
    int (*sum_real)(struct comm *comm, real *data, size_t count, struct err *err);
    int (*sum_double)(struct comm *comm, double *data, size_t count, struct err *err);
    int (*min_u64)(struct comm *comm, uint64_t *data, size_t count, struct err *err);
    int (*max_u64)(struct comm *comm, uint64_t *data, size_t count, struct err *err);
    int (*broadcast)(struct comm *comm, void *data, size_t bytes, int root, struct err *err);
    int (*barrier)(struct comm *comm, struct err *err);
    void (*destroy)(struct comm *comm);
};

struct comm {
    const struct comm_ops *ops;
    int rank, size;
    /* sum_real of memory that ops work on (device_alloc), its device's copy, by the device's own library; NULL where it goes by way
     * of the host. device_sums is that library's. */
    int (*sum_device)(struct comm *comm, real *data, size_t count, struct err *err);
    void *device_sums;
    /* Counts what this rank has got done, in small pieces: collectives, passes, files. Written
     * by the training thread; another thread may read it, to tell slow from stuck. */
    _Atomic uint64_t progress;
};

static inline void comm_progress(struct comm *comm)
{
    atomic_fetch_add_explicit(&comm->progress, 1, memory_order_relaxed);
}

/* Makes one outcome of every rank's own: all ranks call it with their code (0 or an err_code)
 * and, on failure, their err. Returns 0 if all succeeded; else the code and err of the lowest
 * rank that failed, the same on every rank, with that rank in *rank (may be NULL). If a
 * collective fails inside, *rank is -1. */
int comm_agree(struct comm *comm, int code, int *rank, struct err *err);

#endif
