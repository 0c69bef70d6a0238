#include "worker/tools/bench_trace.h"

#include "proto/base/clock.h"

#include <assert.h>
#include <string.h>

enum trace_op {
    TRACE_EMBED_FORWARD,
    TRACE_EMBED_BACKWARD,
    TRACE_NORM_FORWARD,
    TRACE_NORM_BACKWARD,
    TRACE_NM_FORWARD,
    TRACE_NM_DX,
    TRACE_NM_DW,
    TRACE_NM_REPACK,
    TRACE_DENSE_FORWARD,
    TRACE_DENSE_DX,
    TRACE_DENSE_DW,
    TRACE_ROPE,
    TRACE_ATTENTION_FORWARD,
    TRACE_ATTENTION_BACKWARD,
    TRACE_SWIGLU_FORWARD,
    TRACE_SWIGLU_BACKWARD,
    TRACE_ADD,
    TRACE_HEAD,
    TRACE_SUM_SQUARES,
    TRACE_ADAMW,
    TRACE_MOMENTS,
    TRACE_MATRIX_PRODUCT,
    TRACE_MATRIX_SQUARE,
    TRACE_MATRIX_COMMUTE,
    TRACE_MATRIX_SPREAD,
    TRACE_MATRIX_STEP,
    TRACE_COUNT,
};

static const char *const names[TRACE_COUNT] = {
    [TRACE_EMBED_FORWARD] = "embed_forward",
    [TRACE_EMBED_BACKWARD] = "embed_backward",
    [TRACE_NORM_FORWARD] = "rmsnorm_forward",
    [TRACE_NORM_BACKWARD] = "rmsnorm_backward",
    [TRACE_NM_FORWARD] = "nm_forward",
    [TRACE_NM_DX] = "nm_backward_x",
    [TRACE_NM_DW] = "nm_backward_w",
    [TRACE_NM_REPACK] = "nm_repack",
    [TRACE_DENSE_FORWARD] = "dense_forward",
    [TRACE_DENSE_DX] = "dense_backward_x",
    [TRACE_DENSE_DW] = "dense_backward_w",
    [TRACE_ROPE] = "rope",
    [TRACE_ATTENTION_FORWARD] = "attention_forward",
    [TRACE_ATTENTION_BACKWARD] = "attention_backward",
    [TRACE_SWIGLU_FORWARD] = "swiglu_forward",
    [TRACE_SWIGLU_BACKWARD] = "swiglu_backward",
    [TRACE_ADD] = "act_add",
    [TRACE_HEAD] = "head_loss",
    [TRACE_SUM_SQUARES] = "sum_squares",
    [TRACE_ADAMW] = "adamw",
    [TRACE_MOMENTS] = "matrix_moments",
    [TRACE_MATRIX_PRODUCT] = "matrix_product",
    [TRACE_MATRIX_SQUARE] = "matrix_square",
    [TRACE_MATRIX_COMMUTE] = "matrix_commute",
    [TRACE_MATRIX_SPREAD] = "matrix_spread",
    [TRACE_MATRIX_STEP] = "matrix_step",
};

_Static_assert((int)TRACE_COUNT <= (int)BENCH_OPS_MAX, "every op has a row");

static const double REAL_BYTES = sizeof(real);
static const double EXP_FLOPS = 20;

static struct bench_trace *trace_of(const struct device *dev)
{
    return (struct bench_trace *)(void *)dev->ops;
}

static const struct ops *inner(const struct device *dev) { return trace_of(dev)->inner; }

/* elements: reals that the op reads and writes. */
static void note(const struct device *dev, enum trace_op op, double began, double flops,
                 double elements)
{
    struct bench_op *row = &trace_of(dev)->rows[op];
    row->seconds += clock_monotonic_s() - began;
    row->calls++;
    row->flops += flops;
    row->bytes += elements * REAL_BYTES;
}

static double area(size_t rows, size_t dim) { return (double)rows * (double)dim; }

static void trace_act_add(struct device *dev, real *out, const real *a, const real *b,
                          size_t rows, size_t dim)
{
    double began = clock_monotonic_s();
    inner(dev)->act_add(dev, out, a, b, rows, dim);
    note(dev, TRACE_ADD, began, area(rows, dim), 3 * area(rows, dim));
}

static void trace_embed_forward(struct device *dev, real *out, const real *table,
                                const int32_t *tokens, size_t rows, size_t dim)
{
    double began = clock_monotonic_s();
    inner(dev)->embed_forward(dev, out, table, tokens, rows, dim);
    note(dev, TRACE_EMBED_FORWARD, began, 0, 2 * area(rows, dim));
}

static void trace_embed_backward(struct device *dev, real *dtable, const real *dout,
                                 const int32_t *tokens, size_t rows, size_t vocab, size_t dim)
{
    double began = clock_monotonic_s();
    inner(dev)->embed_backward(dev, dtable, dout, tokens, rows, vocab, dim);
    note(dev, TRACE_EMBED_BACKWARD, began, area(rows, dim), 3 * area(rows, dim));
}

static void trace_norm_forward(struct device *dev, real *out, real *rstd, const real *x,
                               const real *w, real eps, size_t rows, size_t dim)
{
    double began = clock_monotonic_s();
    inner(dev)->rmsnorm_forward(dev, out, rstd, x, w, eps, rows, dim);
    note(dev, TRACE_NORM_FORWARD, began, 4 * area(rows, dim), 2 * area(rows, dim));
}

static void trace_norm_backward(struct device *dev, real *dx, real *dw, const real *dout,
                                const real *x, const real *w, const real *rstd, size_t rows,
                                size_t dim)
{
    double began = clock_monotonic_s();
    inner(dev)->rmsnorm_backward(dev, dx, dw, dout, x, w, rstd, rows, dim);
    note(dev, TRACE_NORM_BACKWARD, began, 11 * area(rows, dim), 4 * area(rows, dim));
}

static double nm_share(const struct nm *w) { return (double)w->n / w->m; }

/* Activations, and the values with one index of 16 bits each: forward and dX. */
static double nm_elements(const struct nm *w, size_t rows)
{
    return area(rows, w->din) + area(rows, w->dout) + 1.5 * nm_share(w) * area(w->dout, w->din);
}

static double nm_flops(const struct nm *w, size_t rows)
{
    return 2 * (double)rows * area(w->dout, w->din) * nm_share(w);
}

static void trace_nm_forward(struct device *dev, real *y, const real *x, const struct nm *w,
                             size_t rows)
{
    double began = clock_monotonic_s();
    inner(dev)->nm_forward(dev, y, x, w, rows);
    note(dev, TRACE_NM_FORWARD, began, nm_flops(w, rows), nm_elements(w, rows));
}

static void trace_nm_dx(struct device *dev, real *dx, const real *dy, const struct nm *w,
                        size_t rows, int accumulate)
{
    double began = clock_monotonic_s();
    inner(dev)->nm_backward_x(dev, dx, dy, w, rows, accumulate);
    note(dev, TRACE_NM_DX, began, nm_flops(w, rows),
         nm_elements(w, rows) + (accumulate ? area(rows, w->din) : 0));
}

static void trace_nm_dw(struct device *dev, real *dvalues, const real *dy, const real *x,
                        const struct nm *w, size_t rows)
{
    double began = clock_monotonic_s();
    inner(dev)->nm_backward_w(dev, dvalues, dy, x, w, rows);
    note(dev, TRACE_NM_DW, began, nm_flops(w, rows),
         nm_elements(w, rows) + nm_share(w) * area(w->dout, w->din));
}

static void trace_nm_repack(struct device *dev, struct nm *w)
{
    double began = clock_monotonic_s();
    inner(dev)->nm_repack(dev, w);
    note(dev, TRACE_NM_REPACK, began, 0, nm_share(w) * area(w->dout, w->din));
}

static double dense_elements(size_t rows, size_t din, size_t dout)
{
    return area(rows, din) + area(rows, dout) + area(dout, din);
}

static void trace_dense_forward(struct device *dev, real *y, const real *x, const real *w,
                                size_t rows, size_t din, size_t dout)
{
    double began = clock_monotonic_s();
    inner(dev)->dense_forward(dev, y, x, w, rows, din, dout);
    note(dev, TRACE_DENSE_FORWARD, began, 2 * (double)rows * area(dout, din),
         dense_elements(rows, din, dout));
}

static void trace_dense_dx(struct device *dev, real *dx, const real *dy, const real *w,
                           size_t rows, size_t din, size_t dout, int accumulate)
{
    double began = clock_monotonic_s();
    inner(dev)->dense_backward_x(dev, dx, dy, w, rows, din, dout, accumulate);
    note(dev, TRACE_DENSE_DX, began, 2 * (double)rows * area(dout, din),
         dense_elements(rows, din, dout) + (accumulate ? area(rows, din) : 0));
}

static void trace_dense_dw(struct device *dev, real *dw, const real *dy, const real *x,
                           size_t rows, size_t din, size_t dout)
{
    double began = clock_monotonic_s();
    inner(dev)->dense_backward_w(dev, dw, dy, x, rows, din, dout);
    note(dev, TRACE_DENSE_DW, began, 2 * (double)rows * area(dout, din),
         dense_elements(rows, din, dout) + area(dout, din));
}

static void note_rope(const struct device *dev, double began,
                      const struct attention_shape *shape, size_t heads)
{
    double elements = area(shape->batch * shape->context, heads * shape->head_dim);
    note(dev, TRACE_ROPE, began, 3 * elements, 2 * elements);
}

static void trace_rope_forward(struct device *dev, real *x, const real *cosine,
                               const real *sine, const struct attention_shape *shape,
                               size_t heads)
{
    double began = clock_monotonic_s();
    inner(dev)->rope_forward(dev, x, cosine, sine, shape, heads);
    note_rope(dev, began, shape, heads);
}

static void trace_rope_backward(struct device *dev, real *dx, const real *cosine,
                                const real *sine, const struct attention_shape *shape,
                                size_t heads)
{
    double began = clock_monotonic_s();
    inner(dev)->rope_backward(dev, dx, cosine, sine, shape, heads);
    note_rope(dev, began, shape, heads);
}

/* Multiplications of one product of scores: every query with the keys up to itself. */
static double score_work(const struct attention_shape *shape)
{
    double pairs = area(shape->context, shape->context + 1) / 2;
    return area(shape->batch, shape->heads) * pairs;
}

static double attention_elements(const struct attention_shape *shape)
{
    return area(shape->batch * shape->context,
                2 * (shape->heads + shape->kv_heads) * shape->head_dim);
}

static void trace_attention_forward(struct device *dev, real *out, real *lse, const real *q,
                                    const real *k, const real *v,
                                    const struct attention_shape *shape)
{
    double began = clock_monotonic_s(), pairs = score_work(shape);
    inner(dev)->attention_forward(dev, out, lse, q, k, v, shape);
    note(dev, TRACE_ATTENTION_FORWARD, began, pairs * (4 * (double)shape->head_dim + EXP_FLOPS),
         attention_elements(shape));
}

static void trace_attention_backward(struct device *dev, real *dq, real *dk, real *dv,
                                     const real *dout, const real *out, const real *lse,
                                     const real *q, const real *k, const real *v,
                                     const struct attention_shape *shape)
{
    double began = clock_monotonic_s(), pairs = score_work(shape);
    inner(dev)->attention_backward(dev, dq, dk, dv, dout, out, lse, q, k, v, shape);
    note(dev, TRACE_ATTENTION_BACKWARD, began,
         pairs * (10 * (double)shape->head_dim + EXP_FLOPS), 2 * attention_elements(shape));
}

static void trace_swiglu_forward(struct device *dev, real *out, const real *gate,
                                 const real *up, size_t rows, size_t dim)
{
    double began = clock_monotonic_s();
    inner(dev)->swiglu_forward(dev, out, gate, up, rows, dim);
    note(dev, TRACE_SWIGLU_FORWARD, began, (EXP_FLOPS + 3) * area(rows, dim),
         3 * area(rows, dim));
}

static void trace_swiglu_backward(struct device *dev, real *dgate, real *dup, const real *dout,
                                  const real *gate, const real *up, size_t rows, size_t dim)
{
    double began = clock_monotonic_s();
    inner(dev)->swiglu_backward(dev, dgate, dup, dout, gate, up, rows, dim);
    note(dev, TRACE_SWIGLU_BACKWARD, began, (EXP_FLOPS + 10) * area(rows, dim),
         5 * area(rows, dim));
}

static void trace_head_loss(struct device *dev, real *loss, real *dx, real *dw, const real *x,
                            const real *w, const int32_t *targets, real scale, size_t rows,
                            size_t dim, size_t vocab)
{
    double began = clock_monotonic_s(), products = dw ? 3 : 1;
    inner(dev)->head_loss(dev, loss, dx, dw, x, w, targets, scale, rows, dim, vocab);
    note(dev, TRACE_HEAD, began,
         area(rows, vocab) * (2 * products * (double)dim + (dw ? 2 : 1) * EXP_FLOPS),
         area(rows, dim) * (dw ? 2 : 1) + area(vocab, dim) * products);
}

static void trace_adamw(struct device *dev, real *w, real *m, real *v, const real *g,
                        size_t count, const struct adamw_args *args)
{
    double began = clock_monotonic_s();
    inner(dev)->adamw(dev, w, m, v, g, count, args);
    note(dev, TRACE_ADAMW, began, 16 * (double)count, 7 * (double)count);
}

static double trace_sum_squares(struct device *dev, const real *x, size_t count)
{
    double began = clock_monotonic_s();
    double sum = inner(dev)->sum_squares(dev, x, count);
    note(dev, TRACE_SUM_SQUARES, began, 2 * (double)count, (double)count);
    return sum;
}

static void trace_matrix_product(struct device *dev, real *c, const real *a, const real *b,
                                 size_t M, size_t N, size_t K)
{
    double began = clock_monotonic_s();
    inner(dev)->matrix_product(dev, c, a, b, M, N, K);
    note(dev, TRACE_MATRIX_PRODUCT, began, 2 * area(M, N) * (double)K,
         area(M, K) + area(K, N) + area(M, N));
}

static void trace_matrix_square(struct device *dev, real *c, const real *a, const real *d,
                                real alpha, real beta, real gamma, size_t M, size_t K)
{
    double began = clock_monotonic_s();
    inner(dev)->matrix_square(dev, c, a, d, alpha, beta, gamma, M, K);
    note(dev, TRACE_MATRIX_SQUARE, began, area(M, M + 1) * (double)K,
         area(M, K) + (d ? 2 : 1) * area(M, M));
}

static void trace_matrix_commute(struct device *dev, real *c, const real *a, const real *b,
                                 size_t M)
{
    double began = clock_monotonic_s();
    inner(dev)->matrix_commute(dev, c, a, b, M);
    note(dev, TRACE_MATRIX_COMMUTE, began, area(M, M + 1) * (double)M, 3 * area(M, M));
}

static void note_spread(const struct device *dev, double began, const struct nm *w, size_t dout,
                        size_t din)
{
    note(dev, TRACE_MATRIX_SPREAD, began, 0, (1 + (w ? nm_share(w) : 1)) * area(dout, din));
}

static void trace_matrix_spread(struct device *dev, real *out, const real *values,
                                const struct nm *w, size_t dout, size_t din, real scale,
                                int transposed)
{
    double began = clock_monotonic_s();
    inner(dev)->matrix_spread(dev, out, values, w, dout, din, scale, transposed);
    note_spread(dev, began, w, dout, din);
}

static void trace_matrix_collect(struct device *dev, real *values, const real *in,
                                 const struct nm *w, size_t dout, size_t din, int transposed)
{
    double began = clock_monotonic_s();
    inner(dev)->matrix_collect(dev, values, in, w, dout, din, transposed);
    note_spread(dev, began, w, dout, din);
}

static void trace_tans_moments(struct device *dev, real *u, real *p, real *v, uint16_t *ages,
                               const real *g, size_t count, const struct tans_args *args)
{
    double began = clock_monotonic_s();
    inner(dev)->tans_moments(dev, u, p, v, ages, g, count, args);
    note(dev, TRACE_MOMENTS, began, 13 * (double)count, (ages ? 7 : 6) * (double)count);
}

static void trace_muon_momentum(struct device *dev, real *u, real *p, const real *g,
                                size_t count, double mu, real grad_scale)
{
    double began = clock_monotonic_s();
    inner(dev)->muon_momentum(dev, u, p, g, count, mu, grad_scale);
    note(dev, TRACE_MOMENTS, began, 7 * (double)count, 4 * (double)count);
}

static void trace_matrix_step(struct device *dev, real *w, const real *u, const real *o,
                              size_t count, const struct matrix_step_args *args)
{
    double began = clock_monotonic_s();
    inner(dev)->matrix_step(dev, w, u, o, count, args);
    note(dev, TRACE_MATRIX_STEP, began, 6 * (double)count, (o ? 4 : 3) * (double)count);
}

void bench_trace_clear(struct bench_trace *trace)
{
    memset(trace->rows, 0, sizeof trace->rows);
    for (size_t i = 0; i < TRACE_COUNT; i++) {
        trace->rows[i].name = names[i];
    }
    trace->count = TRACE_COUNT;
}

void bench_trace_begin(struct bench_trace *trace, struct device *dev)
{
    struct ops *ops = &trace->ops;
    trace->inner = dev->ops;
    *ops = *dev->ops;
    ops->act_add = trace_act_add;
    ops->embed_forward = trace_embed_forward;
    ops->embed_backward = trace_embed_backward;
    ops->rmsnorm_forward = trace_norm_forward;
    ops->rmsnorm_backward = trace_norm_backward;
    ops->nm_forward = trace_nm_forward;
    ops->nm_backward_x = trace_nm_dx;
    ops->nm_backward_w = trace_nm_dw;
    ops->nm_repack = trace_nm_repack;
    ops->dense_forward = trace_dense_forward;
    ops->dense_backward_x = trace_dense_dx;
    ops->dense_backward_w = trace_dense_dw;
    ops->rope_forward = trace_rope_forward;
    ops->rope_backward = trace_rope_backward;
    ops->attention_forward = trace_attention_forward;
    ops->attention_backward = trace_attention_backward;
    ops->swiglu_forward = trace_swiglu_forward;
    ops->swiglu_backward = trace_swiglu_backward;
    ops->head_loss = trace_head_loss;
    ops->adamw = trace_adamw;
    ops->sum_squares = trace_sum_squares;
    ops->matrix_product = trace_matrix_product;
    ops->matrix_square = trace_matrix_square;
    ops->matrix_commute = trace_matrix_commute;
    ops->matrix_spread = trace_matrix_spread;
    ops->matrix_collect = trace_matrix_collect;
    ops->tans_moments = trace_tans_moments;
    ops->muon_momentum = trace_muon_momentum;
    ops->matrix_step = trace_matrix_step;
    bench_trace_clear(trace);
    dev->ops = ops;
}

void bench_trace_end(struct bench_trace *trace, struct device *dev)
{
    assert(dev->ops == &trace->ops);
    dev->ops = trace->inner;
}
