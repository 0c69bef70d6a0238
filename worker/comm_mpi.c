#include "worker/comms.h"

#include <mpi.h>
#include <stdlib.h>

/* Elements and bytes of one MPI call: below INT_MAX, and small enough that MPI's temporary copy
 * of a piece does not show in the memory of a run. */
enum { PIECE_ELEMENTS = 1 << 22, PIECE_BYTES = 1 << 26 };

#ifdef HEBB_REAL_DOUBLE
static MPI_Datatype mpi_real(void) { return MPI_DOUBLE; }
#else
static MPI_Datatype mpi_real(void) { return MPI_FLOAT; }
#endif

static int mpi_check(int code, const char *call, struct err *err)
{
    if (code == MPI_SUCCESS) {
        return 0;
    }
    char text[MPI_MAX_ERROR_STRING];
    int length = 0;
    if (MPI_Error_string(code, text, &length) != MPI_SUCCESS) {
        length = 0;
    }
    return err_set(err, ERR_IO, "%s: %.*s", call, length, text);
}

static int mpi_reduce(struct comm *comm, void *data, size_t count, size_t size,
                      MPI_Datatype type, MPI_Op op, struct err *err)
{
    char *at = data;
    while (count > 0) {
        size_t piece = count < PIECE_ELEMENTS ? count : PIECE_ELEMENTS;
        int code = MPI_Allreduce(MPI_IN_PLACE, at, (int)piece, type, op, MPI_COMM_WORLD);
        if (code != MPI_SUCCESS) {
            return mpi_check(code, "MPI_Allreduce", err);
        }
        at += piece * size;
        count -= piece;
        comm_progress(comm);
    }
    return 0;
}

static int mpi_sum_real(struct comm *comm, real *data, size_t count, struct err *err)
{
    return mpi_reduce(comm, data, count, sizeof *data, mpi_real(), MPI_SUM, err);
}

static int mpi_sum_double(struct comm *comm, double *data, size_t count, struct err *err)
{
    return mpi_reduce(comm, data, count, sizeof *data, MPI_DOUBLE, MPI_SUM, err);
}

static int mpi_min_u64(struct comm *comm, uint64_t *data, size_t count, struct err *err)
{
    return mpi_reduce(comm, data, count, sizeof *data, MPI_UINT64_T, MPI_MIN, err);
}

static int mpi_max_u64(struct comm *comm, uint64_t *data, size_t count, struct err *err)
{
    return mpi_reduce(comm, data, count, sizeof *data, MPI_UINT64_T, MPI_MAX, err);
}

static int mpi_broadcast(struct comm *comm, void *data, size_t bytes, int root, struct err *err)
{
    char *at = data;
    while (bytes > 0) {
        size_t piece = bytes < PIECE_BYTES ? bytes : PIECE_BYTES;
        int code = MPI_Bcast(at, (int)piece, MPI_BYTE, root, MPI_COMM_WORLD);
        if (code != MPI_SUCCESS) {
            return mpi_check(code, "MPI_Bcast", err);
        }
        at += piece;
        bytes -= piece;
        comm_progress(comm);
    }
    return 0;
}

static int mpi_barrier(struct comm *comm, struct err *err)
{
    int rc = mpi_check(MPI_Barrier(MPI_COMM_WORLD), "MPI_Barrier", err);
    comm_progress(comm);
    return rc;
}

static void mpi_destroy(struct comm *comm)
{
    MPI_Finalize();
    free(comm);
}

static const struct comm_ops mpi_ops = {
    .name = "mpi",
    .sum_real = mpi_sum_real,
    .sum_double = mpi_sum_double,
    .min_u64 = mpi_min_u64,
    .max_u64 = mpi_max_u64,
    .broadcast = mpi_broadcast,
    .barrier = mpi_barrier,
    .destroy = mpi_destroy,
};

int comm_mpi_create(struct comm **out, struct err *err)
{
    int provided = MPI_THREAD_SINGLE;
    int rc = mpi_check(MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided),
                       "MPI_Init_thread", err);
    if (rc != 0) {
        return rc;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    if (provided < MPI_THREAD_FUNNELED) {
        MPI_Finalize();
        return err_set(err, ERR_UNSUPPORTED,
                       "this MPI gives thread level %d, MPI_THREAD_FUNNELED is needed",
                       provided);
    }
    struct comm *comm = malloc(sizeof *comm);
    if (!comm) {
        MPI_Finalize();
        return err_set(err, ERR_NO_MEMORY, "no memory for the collectives");
    }
    *comm = (struct comm){.ops = &mpi_ops};
    MPI_Comm_rank(MPI_COMM_WORLD, &comm->rank);
    MPI_Comm_size(MPI_COMM_WORLD, &comm->size);
    *out = comm;
    return 0;
}

_Noreturn void comm_mpi_abort(int exit_code)
{
    MPI_Abort(MPI_COMM_WORLD, exit_code);
    _Exit(exit_code);
}
