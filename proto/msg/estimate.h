/* What a job will take, from its spec alone: the dry run. The numbers equal the engine's slabs;
 * a test in tests/worker compares them with model_sizes, and another with the real peak of a
 * process. */
#ifndef HEBB_MSG_ESTIMATE_H
#define HEBB_MSG_ESTIMATE_H

#include "proto/base/buf.h"
#include "proto/msg/spec.h"

struct estimate {
    uint64_t parameters;         /* logical: dense count, the adapter's among them */
    uint64_t active_parameters;  /* inside the masks: stored, unless the weights are latent */
    uint64_t adapter_parameters; /* of the branches */
    uint64_t intermediate;       /* the width that is trained: spec_intermediate */
    double adapter_share;        /* these over the parameters of the dense model without them */
    double density;              /* of the target matrices */
    uint64_t tokens_per_step;
    double flops_per_token; /* forward + backward, active weights (all of them where the weights
                               are latent) and attention, the mean over the steps: see the .c
                               file */
    double flops_per_token_dense; /* the same model without a mask */
    struct {                      /* bytes of one rank */
        uint64_t weights, latent /* what dense latent weights take beyond that; 0: none */,
            topology /* codes + device packs */, gradients, optimizer, activations,
            scratch /* device + refresh */, runtime /* libraries, MPI, buffers: measured */,
            total;
    } memory;
};

/* spec as spec_parse leaves it. Sizes beyond 64 bits are UINT64_MAX. */
void estimate_job(const struct job_spec *spec, struct estimate *out);

/* Appends {"parameters", "active_parameters", "intermediate", "adapter_parameters",
 * "adapter_share", "density", "tokens_per_step", "tokens", "flops_per_token",
 * "flops_per_token_dense", "memory_per_rank_bytes": {"weights", "latent", "topology",
 * "gradients", "optimizer", "activations", "scratch", "runtime", "total"}, "ranks",
 * "memory_total_bytes", "alternatives"}: the last an array with the same job dense, 2:4 and 1:4
 * (as far as its widths allow): "sparsity", "method", "active_parameters", "flops_per_token",
 * "memory_per_rank_bytes". */
void estimate_print(const struct job_spec *spec, const struct estimate *estimate,
                    struct buf *out);

#endif
