/* The measurements of `hebb bench`, and how they are shown. */
#ifndef HEBB_TOOLS_BENCH_H
#define HEBB_TOOLS_BENCH_H

#include "engine/ops.h"
#include "proto/msg/spec.h"
#include "worker/tools/bench_trace.h"

enum {
    BENCH_KINDS = 3,
    BENCH_SHAPES = 3,
    BENCH_PRODUCTS = 3,
    BENCH_ROWS = BENCH_KINDS * BENCH_SHAPES * BENCH_PRODUCTS,
    BENCH_CPU_MAX = 128,
};

/* What the machine can do with the pool's threads. */
struct bench_machine {
    char cpu[BENCH_CPU_MAX];
    unsigned threads;
    const char *device;
    double peak_gflops; /* fp32, see bench_peak */
    double stream_gb_s; /* see bench_stream */
};

/* The roofline of some work: which of the machine's two limits takes longer, and the share of
 * the work's time that this limit alone explains. Above 1 where data stay in a cache. */
struct bench_bound {
    const char *by; /* "compute" or "memory" */
    double share;
};
struct bench_bound bench_bound(const struct bench_machine *machine, double flops, double bytes,
                               double seconds);

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
    struct bench_bound bound;
};

/* Steps of a job: medians, and the sums of the ops over them. */
struct bench_step {
    double tokens_per_s, seconds; /* of one step */
    size_t steps;
    struct bench_op ops[BENCH_OPS_MAX]; /* means of one step; only ops that were called */
    size_t op_count;
    double rest_seconds;  /* outside the ops */
    bool refreshed;       /* one refresh was measured */
    double refresh_ms;    /* its time */
    double refresh_share; /* of the training time at the job's interval */
    size_t refresh_interval;
};

enum { BENCH_GENERATE_ROWS = 4 };

/* Tokens one after the other, of one sequence: medians of rounds in which the rows take turns.
 */
struct bench_generate_row {
    unsigned n, m; /* 1, 1: dense */
    const char *layout;
    double tokens_per_s;
    double weight_bytes, cache_bytes; /* that a token reads, the latter on the average */
    double gb_s;
    struct bench_bound bound;
};

struct bench_generate {
    struct bench_generate_row rows[BENCH_GENERATE_ROWS]; /* the job's own model first */
    size_t count, prompt, tokens;                        /* tokens: timed, behind the prompt */
};

struct bench {
    struct bench_machine machine;
    size_t tokens; /* of the products */
    bool has_products, has_step, has_generate;
    struct bench_row rows[BENCH_ROWS];
    struct bench_step step;
    struct bench_generate generate;
};

/* Fused multiply-adds of independent chains on every thread, best of several rounds: the most
 * that this machine does in fp32, in 10^9 FLOPs/s. Uses the widest of AVX-512, AVX2 and the
 * baseline that the processor has. */
double bench_peak(struct pool *pool);

/* a = b + s c over arrays far larger than the caches, on every thread, best of several rounds,
 * in 10^9 bytes/s; the three arrays count once each (McCalpin's triad). 0 without memory. */
double bench_stream(struct pool *pool);

/* The three products at the shapes of llama-60m (512 x 512, 512 x 1376, 1376 x 512), dense, 2:4
 * and 1:4. */
int bench_products(struct bench_row rows[BENCH_ROWS], struct device *dev, size_t tokens,
                   const struct bench_machine *machine, struct err *err);

/* Whole optimizer steps of a job on one rank, after a first that is left out; then one that is
 * followed by a refresh, where the job's method has one. */
int bench_step(struct bench_step *out, const struct job_spec *spec, struct device *dev,
               struct err *err);

/* Greedy generation by models of the job's shape with random weights: its own N:M, dense, 2:4
 * and 1:4. */
int bench_generate(struct bench_generate *out, const struct job_spec *spec, struct device *dev,
                   const struct bench_machine *machine, struct err *err);

void bench_print_json(const struct bench *bench);
void bench_print_text(const struct bench *bench);

/* Middle of count numbers, which get sorted. */
double bench_median(double *values, size_t count);

#endif
