/* Reference: output head fused with the cross-entropy, one token at a time. */
#include "engine/ops_ref.h"
#include <assert.h>
#include <math.h>
#include <string.h>

static void ref_logits(real *logits, const real *x, const real *w, size_t dim, size_t vocab)
{
    for (size_t v = 0; v < vocab; v++) {
        real sum = 0;
        for (size_t i = 0; i < dim; i++)
            sum += w[v * dim + i] * x[i];
        logits[v] = sum;
    }
}

static real ref_log_sum_exp(const real *logits, size_t count)
{
    real top = -INFINITY, sum = 0;
    for (size_t v = 0; v < count; v++)
        top = logits[v] > top ? logits[v] : top;
    for (size_t v = 0; v < count; v++)
        sum += real_exp(logits[v] - top);
    return top + real_log(sum);
}

void ref_head_loss(struct device *dev, real *loss, real *dx, real *dw, const real *x,
                   const real *w, const int32_t *targets, real scale, size_t rows, size_t dim,
                   size_t vocab)
{
    assert((dx == NULL) == (dw == NULL));
    assert(dev->scratch_bytes >= vocab * sizeof(real));
    real *logits = dev->scratch;
    for (size_t r = 0; r < rows; r++) {
        const real *xr = x + r * dim;
        loss[r] = 0;
        if (dx)
            memset(dx + r * dim, 0, dim * sizeof *dx);
        if (targets[r] < 0)
            continue;
        size_t target = (size_t)targets[r];
        assert(target < vocab);
        ref_logits(logits, xr, w, dim, vocab);
        real lse = ref_log_sum_exp(logits, vocab);
        loss[r] = lse - logits[target];
        if (!dx)
            continue;
        for (size_t v = 0; v < vocab; v++) {
            real d = scale * (real_exp(logits[v] - lse) - (v == target ? 1 : 0));
            for (size_t i = 0; i < dim; i++) {
                dx[r * dim + i] += d * w[v * dim + i];
                dw[v * dim + i] += d * xr[i];
            }
        }
    }
}

void ref_head_logits(struct device *dev, real *logits, const real *x, const real *w,
                     size_t rows, size_t first, size_t count, size_t dim, size_t vocab)
{
    (void)dev;
    assert(first <= rows && count <= rows - first);
    for (size_t r = 0; r < count; r++)
        ref_logits(logits + r * vocab, x + (first + r) * dim, w, dim, vocab);
}
