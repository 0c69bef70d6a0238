/* What a job will take, from its spec alone: the dry run. The numbers equal the engine's slabs; a test in tests/worker compares
 * them with model_sizes, and another with the real peak of a process. */
#ifndef HEBB_MSG_ESTIMATE_H
#define HEBB_MSG_ESTIMATE_H

#include "proto/base/buf.h"
#include "proto/msg/spec.h"

struct estimate {
    uint64_t parameters;          /* logical: dense count */
    uint64_t active_parameters;   /* stored */
    double density;               /* of the target matrices */
    uint64_t tokens_per_step;
    double flops_per_token;       /* forward + backward, active weights and attention: see the .c file */
    double flops_per_token_dense; /* the same model without a mask */
    struct { /* bytes of one rank */
        uint64_t weights, topology /* codes + device packs */, gradients, optimizer, activations, scratch /* device + refresh */,
            runtime /* libraries, MPI, buffers: measured */, total;
    } memory;
};

void estimate_job(const struct job_spec *spec, struct estimate *out);

/* {"parameters": ..., "memory_per_rank_bytes": {"weights": ...}, "memory_total_bytes": ...} */
void estimate_print(const struct job_spec *spec, const struct estimate *estimate, struct buf *out);

#endif
