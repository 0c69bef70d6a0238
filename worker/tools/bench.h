/* The measurements of `hebb bench`. */
#ifndef HEBB_TOOLS_BENCH_H
#define HEBB_TOOLS_BENCH_H

#include "engine/ops.h"
#include "proto/msg/spec.h"

enum {
    BENCH_KINDS = 3,
    BENCH_SHAPES = 3,
    BENCH_PRODUCTS = 3,
    BENCH_ROWS = BENCH_KINDS * BENCH_SHAPES * BENCH_PRODUCTS
};

/* One product of one matrix. Times are medians over repeats in which dense and N:M take turns.
 */
struct bench_row {
    const char *product; /* "forward", "dx", "dw" */
    size_t din, dout;
    unsigned n, m; /* 1, 1: dense */
    double seconds;
    double effective_gflops; /* 2 tokens din dout / seconds: what a dense product would have to
                                reach */
    double peak_share;       /* multiplications really done over the peak; 0 without a peak */
    double ratio_to_dense; /* the dense product's seconds over this one's, from the same run */
};

/* Fused multiply-adds of independent chains on every thread, best of several rounds: the most
 * that this machine does in fp32, in 10^9 FLOPs/s. Uses the widest of AVX-512, AVX2 and the
 * baseline that the processor has. */
double bench_peak(struct pool *pool);

/* The three products at the shapes of llama-60m (512 x 512, 512 x 1376, 1376 x 512), dense, 2:4
 * and 1:4. */
int bench_products(struct bench_row rows[BENCH_ROWS], struct device *dev, size_t tokens,
                   double peak, struct err *err);

/* Whole optimizer steps of a job on one rank: the median tokens/s of a few after a first. */
int bench_step(double *tokens_per_s, const struct job_spec *spec, struct device *dev,
               struct err *err);

#endif
