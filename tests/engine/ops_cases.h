/* Every op of the contract as a list of cases: shapes, operands, and token-major copies of all that comes out. An op
 * sees activations in its device's own layout only, and memory of its device: the cases go through act_load, act_store,
 * device_push and device_pull. Included after cmocka. */
#ifndef HEBB_TESTS_ENGINE_OPS_CASES_H
#define HEBB_TESTS_ENGINE_OPS_CASES_H

#include "tests/engine/ops_fixture.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

enum { RESULTS_MAX = 24 };

/* What one case produced: token-major copies of all outputs. */
struct results {
    size_t count;
    real *data[RESULTS_MAX];
    size_t length[RESULTS_MAX];
    const char *name[RESULTS_MAX];
};

static inline void results_release(struct results *results)
{
    for (size_t i = 0; i < results->count; i++)
        mem_aligned_free(results->data[i]);
    results->count = 0;
}

static inline void results_keep(struct results *results, const char *name, const real *data,
                                size_t length)
{
    assert_true(results->count < RESULTS_MAX);
    real *copy = mem_aligned(length, sizeof *copy);
    assert_non_null(copy);
    memcpy(copy, data, length * sizeof *copy);
    size_t at = results->count++;
    results->data[at] = copy;
    results->length[at] = length;
    results->name[at] = name;
}

/* The same of memory that ops wrote. */
static inline void results_add(struct device *dev, struct results *results, const char *name,
                               const real *data, size_t length)
{
    device_pull(dev, data, length * sizeof *data);
    results_keep(results, name, data, length);
}
/* Standard normal numbers in memory for ops. */
static inline real *device_normal(struct device *dev, size_t count, uint32_t stream)
{
    real *host = fixture_normal(count, stream);
    real *out = device_alloc(dev, count, sizeof *out);
    assert_non_null(out);
    memcpy(out, host, count * sizeof *out);
    device_push(dev, out, count * sizeof *out);
    mem_aligned_free(host);
    return out;
}

/* NaN in memory for ops. */
static inline real *device_poisoned(struct device *dev, size_t count)
{
    real *out = device_alloc(dev, count, sizeof *out);
    assert_non_null(out);
    memset(out, 0xff, count * sizeof *out);
    device_push(dev, out, count * sizeof *out);
    return out;
}

/* An activation full of NaN, padding included: an op that overwrites must leave none. */
static inline real *act_poisoned(struct device *dev, size_t rows, size_t dim)
{
    return device_poisoned(dev, dev->ops->act_size(rows, dim));
}

/* An activation loaded with normal numbers. */
static inline real *act_normal(struct device *dev, size_t rows, size_t dim, uint32_t stream)
{
    real *host = fixture_normal(rows * dim, stream);
    real *act = act_poisoned(dev, rows, dim);
    dev->ops->act_load(dev, act, host, rows, dim);
    mem_aligned_free(host);
    return act;
}

/* Adds an output activation to the results, checks its padding and frees it. */
static inline void act_result(struct device *dev, struct results *results, const char *name, real *act,
                       size_t rows, size_t dim)
{
    size_t size = dev->ops->act_size(rows, dim);
    for (size_t i = 0; i < size && device_shares_memory(dev); i++)
        if (!isfinite(act[i]))
            fail_msg("%s (%zu, %zu): element %zu of the buffer is not finite", name, rows, dim,
                     i);
    real *host = mem_aligned(rows * dim, sizeof *host);
    assert_non_null(host);
    memset(host, 0xff, rows * dim * sizeof *host);
    dev->ops->act_store(dev, host, act, rows, dim);
    results_keep(results, name, host, rows * dim);
    mem_aligned_free(host);
    device_free(dev, act);
}

static inline void plain_result(struct device *dev, struct results *results, const char *name,
                                real *data, size_t length)
{
    results_add(dev, results, name, data, length);
    device_free(dev, data);
}

struct shape {
    size_t rows, dim, dout; /* dout: vocab for embedding and head */
    unsigned n, m;
    struct attention_shape attention;
};

static inline void run_move(struct device *dev, const struct shape *s, struct results *results)
{
    real *a = act_normal(dev, s->rows, s->dim, 1), *b = act_normal(dev, s->rows, s->dim, 2);
    real *out = act_poisoned(dev, s->rows, s->dim);
    dev->ops->act_add(dev, out, a, b, s->rows, s->dim);
    dev->ops->act_add(dev, b, a, b, s->rows, s->dim); /* out is b */
    act_result(dev, results, "act_load", a, s->rows, s->dim);
    act_result(dev, results, "act_add", out, s->rows, s->dim);
    act_result(dev, results, "act_add in place", b, s->rows, s->dim);
}

static inline void run_embed(struct device *dev, const struct shape *s, struct results *results)
{
    int32_t *tokens = fixture_tokens(s->rows, s->dout, 3);
    real *table = device_normal(dev, s->dout * s->dim, 4);
    real *out = act_poisoned(dev, s->rows, s->dim);
    dev->ops->embed_forward(dev, out, table, tokens, s->rows, s->dim);
    real *dout = act_normal(dev, s->rows, s->dim, 5);
    dev->ops->embed_backward(dev, table, dout, tokens, s->rows, s->dout, s->dim);
    act_result(dev, results, "embed_forward", out, s->rows, s->dim);
    plain_result(dev, results, "embed_backward", table, s->dout * s->dim);
    device_free(dev, dout);
    free(tokens);
}

static inline void run_rmsnorm(struct device *dev, const struct shape *s, struct results *results)
{
    real *x = act_normal(dev, s->rows, s->dim, 6), *w = device_normal(dev, s->dim, 7);
    real *rstd = device_normal(dev, s->rows, 8), *dw = device_normal(dev, s->dim, 9);
    real *out = act_poisoned(dev, s->rows, s->dim),
         *dout = act_normal(dev, s->rows, s->dim, 10);
    real *dx = act_normal(dev, s->rows, s->dim, 11);
    /* eps 0: the padding's root of zero must stay harmless; real rows are never zero here. */
    dev->ops->rmsnorm_forward(dev, out, rstd, x, w, REAL(0.0), s->rows, s->dim);
    act_result(dev, results, "rmsnorm_forward without eps", out, s->rows, s->dim);
    out = act_poisoned(dev, s->rows, s->dim);
    dev->ops->rmsnorm_forward(dev, out, rstd, x, w, REAL(1e-3), s->rows, s->dim);
    dev->ops->rmsnorm_backward(dev, dx, dw, dout, x, w, rstd, s->rows, s->dim);
    act_result(dev, results, "rmsnorm_forward", out, s->rows, s->dim);
    plain_result(dev, results, "rmsnorm rstd", rstd, s->rows);
    act_result(dev, results, "rmsnorm_backward dx", dx, s->rows, s->dim);
    plain_result(dev, results, "rmsnorm_backward dw", dw, s->dim);
    device_free(dev, x);
    device_free(dev, w);
    device_free(dev, dout);
}

static inline void run_swiglu(struct device *dev, const struct shape *s, struct results *results)
{
    real *gate = act_normal(dev, s->rows, s->dim, 12),
         *up = act_normal(dev, s->rows, s->dim, 13);
    real *dout = act_normal(dev, s->rows, s->dim, 14),
         *out = act_poisoned(dev, s->rows, s->dim);
    real *dgate = act_poisoned(dev, s->rows, s->dim), *dup = act_poisoned(dev, s->rows, s->dim);
    real *dup2 = act_poisoned(dev, s->rows, s->dim);
    dev->ops->swiglu_forward(dev, out, gate, up, s->rows, s->dim);
    dev->ops->swiglu_backward(dev, dgate, dup, dout, gate, up, s->rows, s->dim);
    dev->ops->swiglu_backward(dev, dout, dup2, dout, gate, up, s->rows, s->dim);
    act_result(dev, results, "swiglu_forward", out, s->rows, s->dim);
    act_result(dev, results, "swiglu_backward dgate", dgate, s->rows, s->dim);
    act_result(dev, results, "swiglu_backward dup", dup, s->rows, s->dim);
    act_result(dev, results, "swiglu_backward dgate over dout", dout, s->rows, s->dim);
    act_result(dev, results, "swiglu_backward dup, dgate over dout", dup2, s->rows, s->dim);
    device_free(dev, gate);
    device_free(dev, up);
}

/* s->dim is the rank, s->dout the gate's hidden size. */
static inline void run_como(struct device *dev, const struct shape *s, struct results *results)
{
    size_t rank = s->dim, hidden = s->dout;
    real *b1 = device_normal(dev, hidden, 50), *w2 = device_normal(dev, rank * hidden, 51);
    real *b2 = device_normal(dev, rank, 52), *db = device_normal(dev, rank, 53);
    struct como_args args = {.rank = rank,
                             .hidden = hidden,
                             .b1 = b1,
                             .w2 = w2,
                             .b2 = b2,
                             .gamma = REAL(0.5),
                             .scale = REAL(1.5)};
    real *z = act_normal(dev, s->rows, rank, 54), *a = act_normal(dev, s->rows, hidden, 55);
    real *dg = act_normal(dev, s->rows, rank, 56), *hid = act_poisoned(dev, s->rows, hidden);
    real *g = act_poisoned(dev, s->rows, rank), *dz = act_poisoned(dev, s->rows, rank);
    real *du = act_poisoned(dev, s->rows, rank), *da = act_poisoned(dev, s->rows, hidden);
    real *du2 = act_poisoned(dev, s->rows, rank), *da2 = act_poisoned(dev, s->rows, hidden);
    dev->ops->como_forward(dev, g, hid, z, a, &args, s->rows);
    dev->ops->como_backward(dev, dz, du, da, dg, hid, z, a, &args, s->rows);
    dev->ops->como_backward(dev, dg, du2, da2, dg, hid, z, a, &args, s->rows);
    dev->ops->bias_backward(dev, db, du, s->rows, rank);
    act_result(dev, results, "como_forward g", g, s->rows, rank);
    act_result(dev, results, "como_forward s", hid, s->rows, hidden);
    act_result(dev, results, "como_backward dz", dz, s->rows, rank);
    act_result(dev, results, "como_backward du", du, s->rows, rank);
    act_result(dev, results, "como_backward da", da, s->rows, hidden);
    act_result(dev, results, "como_backward dz over dg", dg, s->rows, rank);
    act_result(dev, results, "como_backward du, dz over dg", du2, s->rows, rank);
    act_result(dev, results, "como_backward da, dz over dg", da2, s->rows, hidden);
    plain_result(dev, results, "bias_backward", db, rank);
    args.hidden = 0; /* no gate: the pointers are not used */
    args.b1 = args.w2 = args.b2 = NULL;
    g = act_poisoned(dev, s->rows, rank), dz = act_poisoned(dev, s->rows, rank);
    dev->ops->como_forward(dev, g, a, z, a, &args, s->rows);
    dev->ops->como_backward(dev, dz, g, a, z, a, z, a, &args, s->rows);
    act_result(dev, results, "como_forward g without gate", g, s->rows, rank);
    act_result(dev, results, "como_backward dz without gate", dz, s->rows, rank);
    real *all[] = {b1, w2, b2, z, a};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        device_free(dev, all[i]);
}

static inline void run_nm(struct device *dev, const struct shape *s, struct results *results)
{
    struct nm w = fixture_nm(dev, s->dout, s->dim, s->n, s->m, 15);
    real *x = act_normal(dev, s->rows, s->dim, 16), *dy = act_normal(dev, s->rows, s->dout, 17);
    real *y = act_poisoned(dev, s->rows, s->dout), *dx = act_poisoned(dev, s->rows, s->dim);
    real *dx2 = act_normal(dev, s->rows, s->dim, 18);
    real *dvalues = device_normal(dev, nm_count(&w), 19);
    dev->ops->nm_forward(dev, y, x, &w, s->rows);
    dev->ops->nm_backward_x(dev, dx, dy, &w, s->rows, 0);
    dev->ops->nm_backward_x(dev, dx2, dy, &w, s->rows, 1);
    dev->ops->nm_backward_w(dev, dvalues, dy, x, &w, s->rows);
    act_result(dev, results, "nm_forward", y, s->rows, s->dout);
    act_result(dev, results, "nm_backward_x", dx, s->rows, s->dim);
    act_result(dev, results, "nm_backward_x accumulate", dx2, s->rows, s->dim);
    plain_result(dev, results, "nm_backward_w", dvalues, nm_count(&w));
    device_free(dev, x);
    device_free(dev, dy);
    fixture_nm_free(dev, &w);
}

static inline void run_dense(struct device *dev, const struct shape *s, struct results *results)
{
    real *w = device_normal(dev, s->dout * s->dim, 20), *dw = device_normal(dev, s->dout * s->dim, 21);
    real *x = act_normal(dev, s->rows, s->dim, 22), *dy = act_normal(dev, s->rows, s->dout, 23);
    real *y = act_poisoned(dev, s->rows, s->dout), *dx = act_poisoned(dev, s->rows, s->dim);
    real *dx2 = act_normal(dev, s->rows, s->dim, 24);
    dev->ops->dense_forward(dev, y, x, w, s->rows, s->dim, s->dout);
    dev->ops->dense_backward_x(dev, dx, dy, w, s->rows, s->dim, s->dout, 0);
    dev->ops->dense_backward_x(dev, dx2, dy, w, s->rows, s->dim, s->dout, 1);
    dev->ops->dense_backward_w(dev, dw, dy, x, s->rows, s->dim, s->dout);
    act_result(dev, results, "dense_forward", y, s->rows, s->dout);
    act_result(dev, results, "dense_backward_x", dx, s->rows, s->dim);
    act_result(dev, results, "dense_backward_x accumulate", dx2, s->rows, s->dim);
    plain_result(dev, results, "dense_backward_w", dw, s->dout * s->dim);
    device_free(dev, w);
    device_free(dev, x);
    device_free(dev, dy);
}

static inline void run_rope(struct device *dev, const struct shape *s, struct results *results)
{
    const struct attention_shape *a = &s->attention;
    size_t rows = a->batch * a->context, half = a->head_dim / 2, dim = a->heads * a->head_dim;
    real *cosine = device_normal(dev, a->context * half, 25);
    real *sine = device_normal(dev, a->context * half, 26);
    real *x = act_normal(dev, rows, dim, 27), *back = act_normal(dev, rows, dim, 28);
    dev->ops->rope_forward(dev, x, cosine, sine, a, a->heads);
    dev->ops->rope_backward(dev, back, cosine, sine, a, a->heads);
    act_result(dev, results, "rope_forward", x, rows, dim);
    act_result(dev, results, "rope_backward", back, rows, dim);
    device_free(dev, cosine);
    device_free(dev, sine);
}

static inline void run_attention(struct device *dev, const struct shape *s, struct results *results)
{
    const struct attention_shape *a = &s->attention;
    size_t rows = a->batch * a->context;
    size_t dim = a->heads * a->head_dim, shared = a->kv_heads * a->head_dim;
    real *q = act_normal(dev, rows, dim, 29), *k = act_normal(dev, rows, shared, 30);
    real *v = act_normal(dev, rows, shared, 31), *dout = act_normal(dev, rows, dim, 32);
    real *out = act_poisoned(dev, rows, dim), *dq = act_poisoned(dev, rows, dim);
    real *dk = act_poisoned(dev, rows, shared), *dv = act_poisoned(dev, rows, shared);
    real *lse = device_normal(dev, rows * a->heads, 33);
    dev->ops->attention_forward(dev, out, lse, q, k, v, a);
    dev->ops->attention_backward(dev, dq, dk, dv, dout, out, lse, q, k, v, a);
    act_result(dev, results, "attention_forward", out, rows, dim);
    plain_result(dev, results, "attention lse", lse, rows * a->heads);
    act_result(dev, results, "attention_backward dq", dq, rows, dim);
    act_result(dev, results, "attention_backward dk", dk, rows, shared);
    act_result(dev, results, "attention_backward dv", dv, rows, shared);
    device_free(dev, q);
    device_free(dev, k);
    device_free(dev, v);
    device_free(dev, dout);
}

static inline void run_head(struct device *dev, const struct shape *s, struct results *results)
{
    int32_t *targets = fixture_tokens(s->rows, s->dout, 34);
    for (size_t r = 3; r < s->rows; r += 7)
        targets[r] = -1;
    real *w = device_normal(dev, s->dout * s->dim, 35), *dw = device_normal(dev, s->dout * s->dim, 36);
    real *x = act_normal(dev, s->rows, s->dim, 37), *dx = act_poisoned(dev, s->rows, s->dim);
    real *loss = device_normal(dev, s->rows, 38), *loss_only = device_normal(dev, s->rows, 39);
    size_t first = s->rows / 3, count = s->rows - first;
    real *logits = device_normal(dev, count * s->dout, 40);
    dev->ops->head_loss(dev, loss, dx, dw, x, w, targets, REAL(0.125), s->rows, s->dim,
                        s->dout);
    dev->ops->head_loss(dev, loss_only, NULL, NULL, x, w, targets, REAL(1.0), s->rows, s->dim,
                        s->dout);
    dev->ops->head_logits(dev, logits, x, w, s->rows, first, count, s->dim, s->dout);
    plain_result(dev, results, "head_loss", loss, s->rows);
    plain_result(dev, results, "head_loss only", loss_only, s->rows);
    act_result(dev, results, "head_loss dx", dx, s->rows, s->dim);
    plain_result(dev, results, "head_loss dw", dw, s->dout * s->dim);
    plain_result(dev, results, "head_logits", logits, count * s->dout);
    device_free(dev, w);
    device_free(dev, x);
    free(targets);
}

static inline void run_optimizer(struct device *dev, const struct shape *s, struct results *results)
{
    size_t count = s->rows * s->dim;
    real *w = device_normal(dev, count, 41), *m = device_normal(dev, count, 42);
    real *v = device_normal(dev, count, 43), *g = device_normal(dev, count, 44);
    for (size_t i = 0; i < count; i++)
        v[i] *= v[i];
    device_push(dev, v, count * sizeof *v);
    struct adamw_args args = {.lr = REAL(0.01),
                              .beta1 = REAL(0.9),
                              .beta2 = REAL(0.99),
                              .eps = REAL(1e-6),
                              .weight_decay = REAL(0.1),
                              .correction1 = REAL(0.3),
                              .correction2 = REAL(0.05),
                              .grad_scale = REAL(0.5)};
    dev->ops->adamw(dev, w, m, v, g, count, &args);
    real norm = (real)dev->ops->sum_squares(dev, g, count);
    results_keep(results, "sum_squares", &norm, 1);
    plain_result(dev, results, "adamw w", w, count);
    plain_result(dev, results, "adamw m", m, count);
    plain_result(dev, results, "adamw v", v, count);
    plain_result(dev, results, "adamw g", g, count);
}

static inline void run_moments(struct device *dev, const struct shape *s, struct results *results)
{
    enum { AGES = AGE_MAX + 1 };
    size_t count = s->rows * s->dim;
    real *p = device_normal(dev, count, 45), *v = device_normal(dev, count, 46);
    real *g = device_normal(dev, count, 47), *u = device_normal(dev, count, 48);
    real *aged = device_normal(dev, count, 49), *young = device_normal(dev, count, 50);
    real *update = device_normal(dev, AGES, 51), *moment = device_normal(dev, AGES, 52);
    uint16_t *ages = device_alloc(dev, count, sizeof *ages);
    assert_non_null(ages);
    for (size_t i = 0; i < count; i++) {
        v[i] *= v[i];
        ages[i] = (uint16_t)(i % 3 == 0 ? 0 : AGE_MAX - i % 5);
        young[i] = v[i];
    }
    for (size_t i = 0; i < AGES; i++)
        moment[i] *= moment[i];
    device_push(dev, v, count * sizeof *v);
    device_push(dev, young, count * sizeof *young);
    device_push(dev, moment, AGES * sizeof *moment);
    device_push(dev, ages, count * sizeof *ages);
    struct tans_args args = {
        .beta1 = REAL(0.9), .beta2 = REAL(0.99), .eps = REAL(1e-5), .grad_scale = REAL(0.5)};
    dev->ops->tans_moments(dev, u, p, v, NULL, g, count, &args);
    results_add(dev, results, "tans_moments u", u, count);
    results_add(dev, results, "tans_moments p", p, count);
    args.correct_update = update;
    args.correct_moment = moment;
    dev->ops->tans_moments(dev, u, aged, young, ages, g, count, &args);
    results_add(dev, results, "tans_moments u with ages", u, count);
    device_pull(dev, ages, count * sizeof *ages);
    for (size_t i = 0; i < count; i++)
        aged[i] = (real)ages[i];
    results_keep(results, "tans_moments ages", aged, count);
    dev->ops->muon_momentum(dev, u, p, g, count, REAL(0.95), REAL(0.5));
    results_add(dev, results, "muon_momentum u", u, count);
    struct matrix_step_args step = {
        .keep = REAL(0.99), .step = REAL(0.3), .gamma = REAL(0.25), .ratio = REAL(1.7)};
    dev->ops->matrix_step(dev, g, u, p, count, &step);
    results_add(dev, results, "matrix_step", g, count);
    step.gamma = 0;
    dev->ops->matrix_step(dev, g, u, NULL, count, &step);
    plain_result(dev, results, "muon_momentum p", p, count);
    plain_result(dev, results, "tans_moments v", v, count);
    plain_result(dev, results, "tans_moments v with ages", young, count);
    plain_result(dev, results, "matrix_step without o", g, count);
    device_free(dev, u);
    device_free(dev, aged);
    device_free(dev, update);
    device_free(dev, moment);
    device_free(dev, ages);
}

/* (rows, dim) times (dim, dout). */
static inline void run_matrix(struct device *dev, const struct shape *s, struct results *results)
{
    size_t rows = s->rows, dim = s->dim, dout = s->dout;
    real *a = device_normal(dev, rows * dim, 53), *b = device_normal(dev, dim * dout, 54);
    real *c = device_poisoned(dev, rows * dout), *e = device_poisoned(dev, rows * rows);
    real *f = device_normal(dev, dim * dim, 56);
    dev->ops->matrix_product(dev, c, a, b, rows, dout, dim);
    results_add(dev, results, "matrix_product", c, rows * dout);
    dev->ops->matrix_square(dev, e, a, NULL, REAL(1.5), REAL(9.0), REAL(0.3), rows, dim);
    results_add(dev, results, "matrix_square", e, rows * rows);
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_equal(&e[i * rows + j], &e[j * rows + i], sizeof *e);
    /* Q = a I + b A + c A^2 with a symmetric A, and A Q, which commute. */
    dev->ops->matrix_square(dev, f, b, NULL, REAL(0.01), 0, 0, dim, dout);
    real *square = device_normal(dev, dim * dim, 57), *both = device_normal(dev, dim * dim, 58);
    dev->ops->matrix_square(dev, square, f, f, REAL(-0.3), REAL(0.8), REAL(2.0), dim, dim);
    results_add(dev, results, "matrix_square plus itself", square, dim * dim);
    dev->ops->matrix_commute(dev, both, f, square, dim);
    results_add(dev, results, "matrix_commute", both, dim * dim);
    for (size_t i = 0; i < dim; i++)
        for (size_t j = 0; j < i; j++)
            assert_memory_equal(&both[i * dim + j], &both[j * dim + i], sizeof *both);
    device_free(dev, a);
    device_free(dev, b);
    device_free(dev, c);
    device_free(dev, e);
    device_free(dev, f);
    device_free(dev, square);
    device_free(dev, both);
}

static inline void run_spread(struct device *dev, const struct shape *s, struct results *results)
{
    size_t dout = s->dout, din = s->dim;
    struct nm sparse = {0};
    const struct nm *w = NULL;
    size_t count = dout * din;
    if (s->n > 0) {
        sparse = fixture_nm(dev, dout, din, s->n, s->m, 59);
        w = &sparse;
        count = nm_count(w);
    }
    real *values = device_normal(dev, count, 60);
    for (int transposed = 0; transposed < 2; transposed++) {
        real *dense = device_normal(dev, dout * din, 61), *back = device_normal(dev, count, 62);
        dev->ops->matrix_spread(dev, dense, values, w, dout, din, REAL(0.5), transposed);
        dev->ops->matrix_collect(dev, back, dense, w, dout, din, transposed);
        device_pull(dev, back, count * sizeof *back);
        for (size_t i = 0; i < count; i++) /* halves are exact */
            assert_true(back[i] >= values[i] / 2 && back[i] <= values[i] / 2);
        plain_result(dev, results, transposed ? "matrix_spread transposed" : "matrix_spread", dense,
                     dout * din);
        plain_result(dev, results, "matrix_collect", back, count);
    }
    device_free(dev, values);
    if (w)
        fixture_nm_free(dev, &sparse);
}

struct op_case {
    void (*run)(struct device *dev, const struct shape *shape, struct results *results);
    struct shape shape;
};

/* ---- the list of cases ---- */

struct case_list {
    struct op_case *items;
    size_t count;
};

static inline void case_add(struct case_list *list, struct op_case item)
{
    list->items = realloc(list->items, (list->count + 1) * sizeof *list->items);
    assert_non_null(list->items);
    list->items[list->count++] = item;
}

static const size_t row_counts[] = {1, 63, 64, 65, 130};
enum { ROW_COUNTS = sizeof row_counts / sizeof row_counts[0] };

static inline void add_elementwise(struct case_list *list)
{
    static const size_t dims[] = {1, 7, 96};
    for (size_t i = 0; i < ROW_COUNTS; i++) {
        for (size_t j = 0; j < 3; j++) {
            struct shape s = {.rows = row_counts[i], .dim = dims[j], .dout = 11};
            case_add(list, (struct op_case){run_move, s});
            case_add(list, (struct op_case){run_embed, s});
            case_add(list, (struct op_case){run_rmsnorm, s});
            case_add(list, (struct op_case){run_swiglu, s});
            case_add(list, (struct op_case){run_optimizer, s});
        }
        struct shape s = {.rows = row_counts[i], .dim = 7};
        case_add(list, (struct op_case){run_moments, s});
    }
    static const size_t gates[][2] = {{1, 1}, {7, 2}, {5, 9}, {64, 3}};
    for (size_t i = 0; i < ROW_COUNTS; i++) {
        for (size_t j = 0; j < 4; j++) {
            struct shape s = {.rows = row_counts[i], .dim = gates[j][0], .dout = gates[j][1]};
            case_add(list, (struct op_case){run_como, s});
        }
    }
    struct shape large = {.rows = 300, .dim = 130, .dout = 5}; /* several chunks of each kind */
    case_add(list, (struct op_case){run_move, large});
    case_add(list, (struct op_case){run_embed, large});
    case_add(list, (struct op_case){run_swiglu, large});
    case_add(list, (struct op_case){run_optimizer, large});
    case_add(list, (struct op_case){run_moments, large});
}

static inline void add_matrices(struct case_list *list)
{
    static const size_t shapes[][3] = {{1, 1, 1},     {5, 3, 7},     {64, 64, 64},
                                       {65, 130, 63}, {130, 1, 1},   {300, 40, 150},
                                       {2, 200, 70},  {257, 129, 65}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct shape s = {.rows = shapes[i][0], .dim = shapes[i][1], .dout = shapes[i][2]};
        case_add(list, (struct op_case){run_matrix, s});
        case_add(list, (struct op_case){run_spread, s});
    }
    static const unsigned patterns[][2] = {{1, 4}, {2, 4}, {1, 2}, {15, 16}, {2, 3}, {4, 7}};
    for (size_t i = 0; i < sizeof patterns / sizeof patterns[0]; i++) {
        unsigned n = patterns[i][0], m = patterns[i][1];
        struct shape s = {.dim = 200 / m * m, .dout = 130, .n = n, .m = m};
        case_add(list, (struct op_case){run_spread, s});
        s.dim = m;
        s.dout = 1;
        case_add(list, (struct op_case){run_spread, s});
    }
}

static inline void add_products(struct case_list *list)
{
    static const unsigned patterns[][2] = {{1, 4},  {2, 4},   {1, 2}, {3, 8},
                                           {1, 16}, {15, 16}, {2, 3}, {4, 5}};
    for (size_t i = 0; i < ROW_COUNTS; i++) {
        for (size_t j = 0; j < sizeof patterns / sizeof patterns[0]; j++) {
            unsigned n = patterns[j][0], m = patterns[j][1];
            if (j >= 2 && (row_counts[i] == 63 || row_counts[i] == 64))
                continue; /* 1:4 and 2:4 have every number of rows */
            /* More than one block of rows and of columns, the last ones short; and a single
             * group. */
            struct shape s = {
                .rows = row_counts[i], .dim = 150 / m * m, .dout = 67, .n = n, .m = m};
            case_add(list, (struct op_case){run_nm, s});
            s.dim = m;
            s.dout = 1;
            case_add(list, (struct op_case){run_nm, s});
        }
        static const size_t shapes[][2] = {{1, 1}, {7, 5}, {130, 67}, {64, 128}};
        for (size_t j = 0; j < 4; j++) {
            struct shape s = {.rows = row_counts[i], .dim = shapes[j][0], .dout = shapes[j][1]};
            case_add(list, (struct op_case){run_dense, s});
        }
    }
    /* More rows and columns than a task takes. */
    struct shape tall = {.rows = 66, .dim = 272, .dout = 300, .n = 1, .m = 4};
    case_add(list, (struct op_case){run_nm, tall});
    case_add(list, (struct op_case){run_dense, tall});
    tall.n = 2;
    tall.m = 4;
    case_add(list, (struct op_case){run_nm, tall});
}

static inline void add_attention(struct case_list *list)
{
    static const struct attention_shape shapes[] = {
        {.batch = 1, .context = 1, .heads = 1, .kv_heads = 1, .head_dim = 2},
        {.batch = 2, .context = 63, .heads = 2, .kv_heads = 1, .head_dim = 8},
        {.batch = 3, .context = 64, .heads = 2, .kv_heads = 2, .head_dim = 6},
        {.batch = 1, .context = 65, .heads = 4, .kv_heads = 2, .head_dim = 16},
        {.batch = 2, .context = 130, .heads = 3, .kv_heads = 1, .head_dim = 10},
        {.batch = 5, .context = 20, .heads = 2, .kv_heads = 1, .head_dim = 4},
        {.batch = 1, .context = 192, .heads = 1, .kv_heads = 1, .head_dim = 66},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++) {
        struct shape s = {.attention = shapes[i]};
        case_add(list, (struct op_case){run_rope, s});
        case_add(list, (struct op_case){run_attention, s});
    }
}

static inline void add_head(struct case_list *list)
{
    static const size_t shapes[][2] = {{1, 2}, {33, 5}, {64, 64}, {100, 257}};
    for (size_t i = 0; i < ROW_COUNTS; i++) {
        for (size_t j = 0; j < 4; j++) {
            struct shape s = {.rows = row_counts[i], .dim = shapes[j][0], .dout = shapes[j][1]};
            case_add(list, (struct op_case){run_head, s});
        }
    }
    struct shape chunks = {
        .rows = 300, .dim = 20, .dout = 70}; /* more than a chunk of tokens */
    case_add(list, (struct op_case){run_head, chunks});
}

static inline struct case_list cases_create(void)
{
    struct case_list list = {NULL, 0};
    add_elementwise(&list);
    add_products(&list);
    add_matrices(&list);
    add_attention(&list);
    add_head(&list);
    return list;
}

#endif
