/* The capacity control: an FFN with as many parameters more as a low-rank branch would have. */
#include "proto/msg/spec.h"

#include <string.h>

/* Parameters that a branch beside a matrix (dout, din) has: engine/adapter.h. */
static int64_t branch_parameters(int64_t rank, int64_t gate, int64_t dout, int64_t din)
{
    int64_t narrow = rank * (din + dout);
    return gate == 0 ? narrow : narrow + gate * (din + 1) + rank * (gate + 1);
}

int64_t spec_intermediate(const struct job_spec *spec)
{
    const int64_t hidden = spec->model.hidden, wide = spec->model.intermediate;
    if (strcmp(spec->model.widen, "none") == 0) {
        return wide;
    }
    const bool sparse = spec_density(spec) < 1;
    const int64_t n = sparse ? spec->sparsity.n : 1, m = sparse ? spec->sparsity.m : 1;
    const int64_t kv = hidden / spec->model.heads * spec->model.kv_heads;
    const int64_t rank = spec->model.widen_rank;
    const int64_t gate =
        strcmp(spec->model.widen, "comolora") == 0 ? spec->model.widen_hidden : 0;
    const int64_t budget = 2 * branch_parameters(rank, gate, hidden, hidden) + /* q, o */
                           2 * branch_parameters(rank, gate, kv, hidden) +     /* k, v */
                           2 * branch_parameters(rank, gate, wide, hidden) +   /* gate, up */
                           branch_parameters(rank, gate, hidden, wide);        /* down */
    /* m units more are n hidden weights more in each of gate, up and down. */
    const int64_t step = 3 * hidden * n;
    return wide + (budget + step - 1) / step * m;
}
