/* The collectives that a worker can have: a world of one, or MPI. MPI's headers are included in
 * comm_mpi.c only. */
#ifndef HEBB_WORKER_COMMS_H
#define HEBB_WORKER_COMMS_H

#include "engine/comm.h"
#include "engine/ops.h"

/* A world of one rank: every collective is the identity. */
int comm_self_create(struct comm **out, struct err *err);

/* Initialises MPI (MPI_THREAD_FUNNELED: only the main thread calls it) and takes
 * MPI_COMM_WORLD. destroy finalises MPI and returns once every rank has done so. Sums are in
 * place and in pieces of a fixed length; Open MPI picks its algorithm by length and world alone
 * and each of them adds in an order that is fixed by the ranks, so that equal inputs give equal
 * bits on every rank and in every run of the same world. */
int comm_mpi_create(struct comm **out, struct err *err);

/* NCCL for the sums of what is on dev: sets comm->sum_device; everything else stays comm's. All ranks call it and get one outcome.
 * ERR_CONFLICT where two ranks share a GPU, ERR_UNSUPPORTED where there is no NCCL: comm is as good as before. A sum
 * that fails, or takes longer than 10 minutes, aborts NCCL's communicator and is an error. detach before dev and comm go; it
 * is fine without an attach. */
int comm_nccl_attach(struct comm *comm, struct device *dev, struct err *err);
void comm_nccl_detach(struct comm *comm);

/* Ends the whole world with an exit code, because this rank alone cannot go on. */
_Noreturn void comm_mpi_abort(int exit_code);

#endif
