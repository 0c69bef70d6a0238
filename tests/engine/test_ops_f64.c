/* Every backward op of the reference against central differences, in double precision, and
 * forward values that are known in closed form. The loss is the inner product of the outputs
 * with fixed random weights, so the upstream gradient is those weights. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those first */
#include <cmocka.h>

#include "tests/engine/ops_fixture.h"
#include <math.h>
#include <stdio.h>
#include <string.h>

/* Step of the differences: the error of a central difference is about STEP^2 f''' / 6 = 1e-10
 * from the cut and 2^-53 |f| / STEP = 1e-11 from rounding. */
static const double STEP = 1e-5;
/* Relative error of one entry of a gradient; entries below a hundredth of the largest are held
 * to that hundredth, since a loss of O(1..100) leaves no more digits for them. */
static const double RELATIVE_ERROR = 1e-6;
static const double SMALL_ENTRY = 1e-2;
/* Closed forms: a few roundings. */
static const double ROUNDING = 1e-12;

static struct device *open_ref(void)
{
    static const struct device_limits limits = {
        .rows = 16, .dim_max = 64, .vocab = 64, .context = 16, .heads = 4, .head_dim = 8};
    struct device *dev = NULL;
    assert_int_equal(device_create(&dev, "ref", NULL, NULL), 0);
    assert_int_equal(device_reserve(dev, &limits, NULL), 0);
    return dev;
}

static double inner(const real *a, const real *b, size_t count)
{
    double sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* What the loss of one op under test depends on. */
struct probe {
    struct device *dev;
    const struct nm *nm;
    const struct attention_shape *attention;
    const int32_t *tokens;
    size_t rows, dim, dout;
    real *x, *w, *v;      /* inputs */
    real *out, *aux;      /* room for outputs */
    const real *upstream; /* weights of the outputs in the loss */
    double (*loss)(const struct probe *probe);
};

static void check_gradient(const struct probe *probe, const char *name, real *x,
                           const real *grad, size_t count)
{
    double top = 0;
    for (size_t i = 0; i < count; i++)
        top = fmax(top, fabs(grad[i]));
    assert_true(top > 0);
    for (size_t i = 0; i < count; i++) {
        double kept = x[i];
        x[i] = kept + STEP;
        double above = probe->loss(probe);
        x[i] = kept - STEP;
        double below = probe->loss(probe);
        x[i] = kept;
        double difference = (above - below) / (2 * STEP);
        double scale = fmax(fmax(fabs(grad[i]), fabs(difference)), SMALL_ENTRY * top);
        if (!(fabs(difference - grad[i]) <= RELATIVE_ERROR * scale))
            fail_msg("%s, entry %zu of %zu: gradient %.12g, difference %.12g", name, i, count,
                     grad[i], difference);
    }
}

static double embed_loss(const struct probe *probe)
{
    probe->dev->ops->embed_forward(probe->dev, probe->out, probe->w, probe->tokens, probe->rows,
                                   probe->dim);
    return inner(probe->out, probe->upstream, probe->rows * probe->dim);
}

static void embed_backward_is_the_gradient(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 1}, {7, 3, 5}, {9, 4, 2}}; /* rows, vocab, dim */
    for (size_t i = 0; i < 3; i++) {
        size_t rows = shapes[i][0], vocab = shapes[i][1], dim = shapes[i][2];
        struct probe probe = {.dev = open_ref(), .rows = rows, .dim = dim, .loss = embed_loss};
        int32_t *tokens = fixture_tokens(rows, vocab, 1);
        real *upstream = fixture_normal(rows * dim, 2),
             *dtable = fixture_normal(vocab * dim, 0);
        memset(dtable, 0, vocab * dim * sizeof *dtable);
        probe.tokens = tokens;
        probe.upstream = upstream;
        probe.w = fixture_normal(vocab * dim, 3);
        probe.out = fixture_normal(rows * dim, 4);
        probe.dev->ops->embed_backward(probe.dev, dtable, upstream, tokens, rows, vocab, dim);
        check_gradient(&probe, "embed", probe.w, dtable, vocab * dim);
        mem_aligned_free(upstream);
        mem_aligned_free(dtable);
        mem_aligned_free(probe.w);
        mem_aligned_free(probe.out);
        free(tokens);
        device_destroy(probe.dev);
    }
}

static double rmsnorm_loss(const struct probe *probe)
{
    probe->dev->ops->rmsnorm_forward(probe->dev, probe->out, probe->aux, probe->x, probe->w,
                                     1e-3, probe->rows, probe->dim);
    return inner(probe->out, probe->upstream, probe->rows * probe->dim);
}

static void rmsnorm_backward_is_the_gradient(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {1, 8}, {5, 7}, {3, 33}};
    for (size_t i = 0; i < 4; i++) {
        size_t rows = shapes[i][0], dim = shapes[i][1], count = rows * dim;
        struct probe probe = {
            .dev = open_ref(), .rows = rows, .dim = dim, .loss = rmsnorm_loss};
        real *upstream = fixture_normal(count, 5), *dx = fixture_normal(count, 0);
        real *dw = fixture_normal(dim, 0);
        memset(dx, 0, count * sizeof *dx);
        memset(dw, 0, dim * sizeof *dw);
        probe.upstream = upstream;
        probe.x = fixture_normal(count, 6);
        probe.w = fixture_normal(dim, 7);
        probe.out = fixture_normal(count, 8);
        probe.aux = fixture_normal(rows, 9);
        probe.loss(&probe); /* rstd */
        probe.dev->ops->rmsnorm_backward(probe.dev, dx, dw, upstream, probe.x, probe.w,
                                         probe.aux, rows, dim);
        check_gradient(&probe, "rmsnorm dx", probe.x, dx, count);
        check_gradient(&probe, "rmsnorm dw", probe.w, dw, dim);
        real *all[] = {upstream, dx, dw, probe.x, probe.w, probe.out, probe.aux};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
            mem_aligned_free(all[j]);
        device_destroy(probe.dev);
    }
}

static double nm_loss(const struct probe *probe)
{
    probe->dev->ops->nm_forward(probe->dev, probe->out, probe->x, probe->nm, probe->rows);
    return inner(probe->out, probe->upstream, probe->rows * probe->nm->dout);
}

static void check_nm(size_t rows, size_t dout, size_t groups, unsigned n, unsigned m)
{
    size_t din = groups * m;
    struct probe probe = {.dev = open_ref(), .rows = rows, .loss = nm_loss};
    struct nm w = fixture_nm(probe.dev, dout, din, n, m, 10);
    real *dy = fixture_normal(rows * dout, 11), *dx = fixture_normal(rows * din, 12);
    real *dvalues = fixture_normal(nm_count(&w), 0);
    memset(dvalues, 0, nm_count(&w) * sizeof *dvalues);
    probe.nm = &w;
    probe.upstream = dy;
    probe.x = fixture_normal(rows * din, 13);
    probe.out = fixture_normal(rows * dout, 14);
    probe.dev->ops->nm_backward_x(probe.dev, dx, dy, &w, rows, 0);
    probe.dev->ops->nm_backward_w(probe.dev, dvalues, dy, probe.x, &w, rows);
    check_gradient(&probe, "nm dx", probe.x, dx, rows * din);
    check_gradient(&probe, "nm dvalues", w.values, dvalues, nm_count(&w));
    real *all[] = {dy, dx, dvalues, probe.x, probe.out};
    for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
        mem_aligned_free(all[j]);
    fixture_nm_release(&w);
    device_destroy(probe.dev);
}

static void nm_products_are_each_others_gradients(void **state)
{
    (void)state;
    check_nm(1, 1, 1, 1, 2);
    check_nm(3, 5, 2, 1, 4);
    check_nm(4, 3, 3, 2, 4);
    check_nm(2, 7, 2, 3, 8);
    check_nm(3, 2, 1, 15, 16);
    check_nm(5, 4, 1, 1, 16);
    check_nm(2, 3, 4, 2, 3);
}

/* The same product with the matrix made dense: nm_to_dense and the dense ops are the other
 * path. */
static void nm_products_equal_the_dense_ones(void **state)
{
    (void)state;
    enum { ROWS = 3, DOUT = 5, DIN = 24 };
    struct device *dev = open_ref();
    struct nm w = fixture_nm(dev, DOUT, DIN, 3, 8, 15);
    real *x = fixture_normal(ROWS * DIN, 16), *dense = fixture_normal(DOUT * DIN, 0);
    real y[ROWS * DOUT], want[ROWS * DOUT];
    nm_to_dense(&w, dense);
    dev->ops->nm_forward(dev, y, x, &w, ROWS);
    dev->ops->dense_forward(dev, want, x, dense, ROWS, DIN, DOUT);
    for (size_t i = 0; i < ROWS * DOUT; i++)
        assert_true(fabs(y[i] - want[i]) < ROUNDING);
    mem_aligned_free(x);
    mem_aligned_free(dense);
    fixture_nm_release(&w);
    device_destroy(dev);
}

/* One branch's gate as the model runs it: every input is a weight or an activation. */
struct como_probe {
    struct probe probe; /* x: z; w: W2; v: a; out: g; aux: s; rows */
    struct como_args args;
};

static double como_loss(const struct probe *probe)
{
    const struct como_probe *como = (const struct como_probe *)(const void *)probe;
    probe->dev->ops->como_forward(probe->dev, probe->out, probe->aux, probe->x, probe->v,
                                  &como->args, probe->rows);
    return inner(probe->out, probe->upstream, probe->rows * como->args.rank);
}

static void check_como(size_t rows, size_t rank, size_t hidden)
{
    real *z = fixture_normal(rows * rank, 60), *a = fixture_normal(rows * hidden, 61);
    real *b1 = fixture_normal(hidden, 62), *w2 = fixture_normal(rank * hidden, 63);
    real *b2 = fixture_normal(rank, 64), *dg = fixture_normal(rows * rank, 65);
    real *g = fixture_normal(rows * rank, 66), *s = fixture_normal(rows * hidden, 67);
    real *dz = fixture_normal(rows * rank, 68), *du = fixture_normal(rows * rank, 69);
    real *da = fixture_normal(rows * hidden, 70), *dw2 = fixture_normal(rank * hidden, 71);
    real *db1 = fixture_normal(hidden, 72), *db2 = fixture_normal(rank, 73);
    memset(dw2, 0, rank * hidden * sizeof *dw2);
    memset(db1, 0, hidden * sizeof *db1);
    memset(db2, 0, rank * sizeof *db2);
    struct como_probe como = {
        .probe = {.dev = open_ref(),
                  .rows = rows,
                  .x = z,
                  .w = w2,
                  .v = a,
                  .out = g,
                  .aux = s,
                  .upstream = dg,
                  .loss = como_loss},
        .args = {.rank = rank,
                 .hidden = hidden,
                 .b1 = b1,
                 .w2 = w2,
                 .b2 = b2,
                 .gamma = 0.7,
                 .scale = 1.3},
    };
    struct device *dev = como.probe.dev;
    const struct ops *ops = dev->ops;
    como.probe.loss(&como.probe); /* s */
    ops->como_backward(dev, dz, du, da, dg, s, z, a, &como.args, rows);
    ops->dense_backward_w(dev, dw2, du, s, rows, hidden, rank);
    ops->bias_backward(dev, db1, da, rows, hidden);
    ops->bias_backward(dev, db2, du, rows, rank);
    check_gradient(&como.probe, "como dz", z, dz, rows * rank);
    check_gradient(&como.probe, "como da", a, da, rows * hidden);
    check_gradient(&como.probe, "como db1", b1, db1, hidden);
    check_gradient(&como.probe, "como dW2", w2, dw2, rank * hidden);
    check_gradient(&como.probe, "como db2", b2, db2, rank);
    real *all[] = {z, a, b1, w2, b2, dg, g, s, dz, du, da, dw2, db1, db2};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++)
        mem_aligned_free(all[i]);
    device_destroy(dev);
}

static void como_backward_is_the_gradient(void **state)
{
    (void)state;
    check_como(1, 1, 1);
    check_como(5, 7, 2);
    check_como(3, 2, 6);
    check_como(9, 13, 3);
}

/* One token by hand: a = 1, b1 = 0, W2 = 2, b2 = -1, gamma 0.5, scale 3, z = 4. */
static void the_gate_has_its_closed_form(void **state)
{
    (void)state;
    struct device *dev = open_ref();
    const real z[1] = {4}, a[1] = {1}, b1[1] = {0}, w2[1] = {2}, b2[1] = {-1}, dg[1] = {1};
    real g[1], s[1], dz[1], du[1], da[1];
    struct como_args args = {
        .rank = 1, .hidden = 1, .b1 = b1, .w2 = w2, .b2 = b2, .gamma = 0.5, .scale = 3};
    dev->ops->como_forward(dev, g, s, z, a, &args, 1);
    double p = 1 / (1 + exp(-1.0)), t = tanh(2 * p - 1);
    assert_true(fabs(s[0] - p) < ROUNDING);
    assert_true(fabs(g[0] - 12 * (1 + 0.5 * t)) < 20 * ROUNDING);
    dev->ops->como_backward(dev, dz, du, da, dg, s, z, a, &args, 1);
    assert_true(fabs(dz[0] - 3 * (1 + 0.5 * t)) < 20 * ROUNDING);
    assert_true(fabs(du[0] - 6 * (1 - t * t)) < 20 * ROUNDING);
    assert_true(fabs(da[0] - 2 * du[0] * p * (1 + (1 - p))) < 20 * ROUNDING);
    device_destroy(dev);
}

static double dense_loss(const struct probe *probe)
{
    probe->dev->ops->dense_forward(probe->dev, probe->out, probe->x, probe->w, probe->rows,
                                   probe->dim, probe->dout);
    return inner(probe->out, probe->upstream, probe->rows * probe->dout);
}

static void dense_products_are_each_others_gradients(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 1}, {3, 5, 7}, {6, 2, 3}}; /* rows, din, dout */
    for (size_t i = 0; i < 3; i++) {
        size_t rows = shapes[i][0], din = shapes[i][1], dout = shapes[i][2];
        struct probe probe = {.dev = open_ref(), .rows = rows, .dim = din, .dout = dout};
        real *dy = fixture_normal(rows * dout, 17), *dx = fixture_normal(rows * din, 18);
        real *dw = fixture_normal(dout * din, 0);
        memset(dw, 0, dout * din * sizeof *dw);
        probe.loss = dense_loss;
        probe.upstream = dy;
        probe.x = fixture_normal(rows * din, 19);
        probe.w = fixture_normal(dout * din, 20);
        probe.out = fixture_normal(rows * dout, 21);
        probe.dev->ops->dense_backward_x(probe.dev, dx, dy, probe.w, rows, din, dout, 0);
        probe.dev->ops->dense_backward_w(probe.dev, dw, dy, probe.x, rows, din, dout);
        check_gradient(&probe, "dense dx", probe.x, dx, rows * din);
        check_gradient(&probe, "dense dw", probe.w, dw, dout * din);
        real *all[] = {dy, dx, dw, probe.x, probe.w, probe.out};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
            mem_aligned_free(all[j]);
        device_destroy(probe.dev);
    }
}

/* "+=" ops called twice must give twice the gradient, "=" ops the same one. */
static void accumulating_ops_add_and_the_others_overwrite(void **state)
{
    (void)state;
    enum { ROWS = 3, DIN = 8, DOUT = 5 };
    struct device *dev = open_ref();
    const struct ops *ops = dev->ops;
    struct nm w = fixture_nm(dev, DOUT, DIN, 1, 4, 22);
    real *dy = fixture_normal(ROWS * DOUT, 23), *x = fixture_normal(ROWS * DIN, 24);
    real once[ROWS * DIN], twice[ROWS * DIN], dw1[DOUT * DIN] = {0}, dw2[DOUT * DIN] = {0};
    ops->nm_backward_x(dev, once, dy, &w, ROWS, 0);
    memcpy(twice, once, sizeof twice);
    ops->nm_backward_x(dev, twice, dy, &w, ROWS, 1);
    for (size_t i = 0; i < ROWS * DIN; i++)
        assert_true(fabs(twice[i] - 2 * once[i]) < ROUNDING);
    ops->nm_backward_x(dev, twice, dy, &w, ROWS, 0);
    assert_memory_equal(twice, once, sizeof once);
    ops->nm_backward_w(dev, dw1, dy, x, &w, ROWS);
    ops->nm_backward_w(dev, dw2, dy, x, &w, ROWS);
    ops->nm_backward_w(dev, dw2, dy, x, &w, ROWS);
    for (size_t i = 0; i < nm_count(&w); i++)
        assert_true(fabs(dw2[i] - 2 * dw1[i]) < ROUNDING);
    mem_aligned_free(dy);
    mem_aligned_free(x);
    fixture_nm_release(&w);
    device_destroy(dev);
}

/* Angles of a real table, so that the rotation is one. cosine, sine: (context, D / 2). */
static void rope_table(real *cosine, real *sine, size_t context, size_t head_dim)
{
    for (size_t t = 0; t < context; t++) {
        for (size_t i = 0; i < head_dim / 2; i++) {
            double angle = (double)t * pow(100.0, -2.0 * (double)i / (double)head_dim);
            cosine[t * head_dim / 2 + i] = cos(angle);
            sine[t * head_dim / 2 + i] = sin(angle);
        }
    }
}

static void rope_backward_turns_back(void **state)
{
    (void)state;
    static const struct attention_shape shapes[] = {
        {.batch = 1, .context = 1, .heads = 1, .kv_heads = 1, .head_dim = 2},
        {.batch = 2, .context = 5, .heads = 3, .kv_heads = 1, .head_dim = 6},
    };
    for (size_t i = 0; i < 2; i++) {
        const struct attention_shape *shape = &shapes[i];
        size_t rows = shape->batch * shape->context, D = shape->head_dim;
        size_t count = rows * shape->heads * D;
        struct device *dev = open_ref();
        real *x = fixture_normal(count, 25), *turned = fixture_normal(count, 25);
        real *dy = fixture_normal(count, 26), *dx = fixture_normal(count, 26);
        real cosine[64], sine[64];
        rope_table(cosine, sine, shape->context, D);
        dev->ops->rope_forward(dev, turned, cosine, sine, shape, shape->heads);
        dev->ops->rope_backward(dev, dx, cosine, sine, shape, shape->heads);
        /* A linear map: <dy, R x> = <R^T dy, x>; a rotation: lengths stay. */
        assert_true(fabs(inner(dy, turned, count) - inner(dx, x, count)) < ROUNDING * 100);
        assert_true(fabs(inner(x, x, count) - inner(turned, turned, count)) < ROUNDING * 100);
        if (shape->context > 1) {
            /* Row 1, head 0, pair 0 turns by one radian: element 0 with element D / 2. */
            const real *from = x + shape->heads * D, *to = turned + shape->heads * D;
            assert_true(fabs(to[0] - (from[0] * cos(1) - from[D / 2] * sin(1))) < ROUNDING);
            assert_true(fabs(to[D / 2] - (from[D / 2] * cos(1) + from[0] * sin(1))) < ROUNDING);
        }
        dev->ops->rope_backward(dev, turned, cosine, sine, shape, shape->heads);
        for (size_t j = 0; j < count; j++)
            assert_true(fabs(turned[j] - x[j]) < ROUNDING);
        real *all[] = {x, turned, dy, dx};
        for (size_t j = 0; j < 4; j++)
            mem_aligned_free(all[j]);
        device_destroy(dev);
    }
}

static double attention_loss(const struct probe *probe)
{
    const struct attention_shape *shape = probe->attention;
    probe->dev->ops->attention_forward(probe->dev, probe->out, probe->aux, probe->x, probe->w,
                                       probe->v, shape);
    return inner(probe->out, probe->upstream,
                 shape->batch * shape->context * shape->heads * shape->head_dim);
}

static void check_attention(const struct attention_shape *shape)
{
    size_t rows = shape->batch * shape->context;
    size_t wide = rows * shape->heads * shape->head_dim;
    size_t narrow = rows * shape->kv_heads * shape->head_dim;
    struct probe probe = {.dev = open_ref(), .attention = shape, .loss = attention_loss};
    real *dout = fixture_normal(wide, 27), *dq = fixture_normal(wide, 28);
    real *dk = fixture_normal(narrow, 29), *dv = fixture_normal(narrow, 30);
    probe.upstream = dout;
    probe.x = fixture_normal(wide, 31);
    probe.w = fixture_normal(narrow, 32);
    probe.v = fixture_normal(narrow, 33);
    probe.out = fixture_normal(wide, 34);
    probe.aux = fixture_normal(rows * shape->heads, 35);
    probe.loss(&probe);
    probe.dev->ops->attention_backward(probe.dev, dq, dk, dv, dout, probe.out, probe.aux,
                                       probe.x, probe.w, probe.v, shape);
    if (shape->context > 1) { /* with one key q and k have no influence */
        check_gradient(&probe, "attention dq", probe.x, dq, wide);
        check_gradient(&probe, "attention dk", probe.w, dk, narrow);
    }
    check_gradient(&probe, "attention dv", probe.v, dv, narrow);
    real *all[] = {dout, dq, dk, dv, probe.x, probe.w, probe.v, probe.out, probe.aux};
    for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
        mem_aligned_free(all[j]);
    device_destroy(probe.dev);
}

static void attention_backward_is_the_gradient(void **state)
{
    (void)state;
    static const struct attention_shape shapes[] = {
        {.batch = 1, .context = 1, .heads = 1, .kv_heads = 1, .head_dim = 2},
        {.batch = 1, .context = 6, .heads = 1, .kv_heads = 1, .head_dim = 4},
        {.batch = 2, .context = 5, .heads = 4, .kv_heads = 2, .head_dim = 6},
        {.batch = 2, .context = 7, .heads = 3, .kv_heads = 1, .head_dim = 2},
    };
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        check_attention(&shapes[i]);
}

/* Equal scores: the output is the mean of the values so far, lse = score + log(count). */
static void attention_averages_when_all_keys_are_equal(void **state)
{
    (void)state;
    const struct attention_shape shape = {
        .batch = 2, .context = 4, .heads = 2, .kv_heads = 1, .head_dim = 2};
    enum { ROWS = 8, WIDE = 4, NARROW = 2 };
    struct device *dev = open_ref();
    real q[ROWS * WIDE], k[ROWS * NARROW], v[ROWS * NARROW], out[ROWS * WIDE], lse[ROWS * 2];
    for (size_t i = 0; i < ROWS * WIDE; i++)
        q[i] = 0.5;
    for (size_t r = 0; r < ROWS; r++) {
        for (size_t d = 0; d < NARROW; d++) {
            k[r * NARROW + d] = 2;
            v[r * NARROW + d] = (double)(r * 10 + d);
        }
    }
    dev->ops->attention_forward(dev, out, lse, q, k, v, &shape);
    for (size_t r = 0; r < ROWS; r++) {
        size_t t = r % 4;
        double mean = 10.0 * ((double)(r - t) + (double)t / 2);
        assert_true(fabs(out[r * WIDE] - mean) < ROUNDING * 100);
        assert_true(fabs(out[r * WIDE + 3] - (mean + 1)) < ROUNDING * 100);
        assert_true(fabs(lse[r * 2 + 1] - (2 / sqrt(2.0) + log((double)t + 1))) < ROUNDING);
    }
    device_destroy(dev);
}

static double swiglu_loss(const struct probe *probe)
{
    probe->dev->ops->swiglu_forward(probe->dev, probe->out, probe->x, probe->w, probe->rows,
                                    probe->dim);
    return inner(probe->out, probe->upstream, probe->rows * probe->dim);
}

static void swiglu_backward_is_the_gradient(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {3, 7}, {5, 64}};
    for (size_t i = 0; i < 3; i++) {
        size_t rows = shapes[i][0], dim = shapes[i][1], count = rows * dim;
        struct probe probe = {.dev = open_ref(), .rows = rows, .dim = dim, .loss = swiglu_loss};
        real *dout = fixture_normal(count, 36), *dgate = fixture_normal(count, 37);
        real *dup = fixture_normal(count, 38);
        probe.upstream = dout;
        probe.x = fixture_normal(count, 39);
        probe.w = fixture_normal(count, 40);
        probe.out = fixture_normal(count, 41);
        probe.dev->ops->swiglu_backward(probe.dev, dgate, dup, dout, probe.x, probe.w, rows,
                                        dim);
        check_gradient(&probe, "swiglu dgate", probe.x, dgate, count);
        check_gradient(&probe, "swiglu dup", probe.w, dup, count);
        real *all[] = {dout, dgate, dup, probe.x, probe.w, probe.out};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
            mem_aligned_free(all[j]);
        device_destroy(probe.dev);
    }
}

/* The weights of the rows' losses are all 1: head_loss takes one scale for all. */
static double head_loss(const struct probe *probe)
{
    probe->dev->ops->head_loss(probe->dev, probe->out, NULL, NULL, probe->x, probe->w,
                               probe->tokens, 1, probe->rows, probe->dim, probe->dout);
    double sum = 0;
    for (size_t r = 0; r < probe->rows; r++)
        sum += probe->out[r];
    return sum;
}

static void head_loss_gives_its_gradient(void **state)
{
    (void)state;
    static const size_t shapes[][3] = {{1, 1, 2}, {5, 7, 9}, {4, 3, 33}}; /* rows, dim, vocab */
    const double scale = 0.25;
    for (size_t i = 0; i < 3; i++) {
        size_t rows = shapes[i][0], dim = shapes[i][1], vocab = shapes[i][2];
        struct probe probe = {
            .dev = open_ref(), .rows = rows, .dim = dim, .dout = vocab, .loss = head_loss};
        int32_t *targets = fixture_tokens(rows, vocab, 42);
        real *dx = fixture_normal(rows * dim, 43), *dw = fixture_normal(vocab * dim, 0);
        if (rows > 2)
            targets[2] = -1;
        memset(dw, 0, vocab * dim * sizeof *dw);
        probe.tokens = targets;
        probe.x = fixture_normal(rows * dim, 44);
        probe.w = fixture_normal(vocab * dim, 45);
        probe.out = fixture_normal(rows, 46);
        probe.dev->ops->head_loss(probe.dev, probe.out, dx, dw, probe.x, probe.w, targets,
                                  scale, rows, dim, vocab);
        for (size_t j = 0; j < rows * dim; j++)
            dx[j] /= scale;
        for (size_t j = 0; j < vocab * dim; j++)
            dw[j] /= scale;
        check_gradient(&probe, "head dx", probe.x, dx, rows * dim);
        check_gradient(&probe, "head dw", probe.w, dw, vocab * dim);
        real *all[] = {dx, dw, probe.x, probe.w, probe.out};
        for (size_t j = 0; j < sizeof all / sizeof all[0]; j++)
            mem_aligned_free(all[j]);
        free(targets);
        device_destroy(probe.dev);
    }
}

static void a_head_of_zeros_has_the_loss_of_a_uniform_guess(void **state)
{
    (void)state;
    struct device *dev = open_ref();
    const int32_t targets[2] = {3, -1};
    real x[4] = {1, 2, 3, 4}, w[10] = {0}, loss[2] = {7, 7}, logits[5];
    dev->ops->head_loss(dev, loss, NULL, NULL, x, w, targets, 1, 2, 2, 5);
    assert_true(fabs(loss[0] - log(5.0)) < ROUNDING);
    assert_true(fabs(loss[1]) <= 0);
    w[2 * 4] = 10;
    w[2 * 4 + 1] = 1;
    dev->ops->head_logits(dev, logits, x, w, 2, 1, 1, 2, 5);
    assert_true(fabs(logits[4] - 34) < ROUNDING && fabs(logits[3]) <= 0);
    device_destroy(dev);
}

static void rmsnorm_of_a_constant_is_its_weight(void **state)
{
    (void)state;
    struct device *dev = open_ref();
    const real x[3] = {-5, -5, -5}, w[3] = {1, 2, 3};
    real out[3], rstd[1];
    dev->ops->rmsnorm_forward(dev, out, rstd, x, w, 0, 1, 3);
    for (size_t i = 0; i < 3; i++)
        assert_true(fabs(out[i] + w[i]) < ROUNDING);
    assert_true(fabs(rstd[0] - 0.2) < ROUNDING);
    device_destroy(dev);
}

static void the_double_build_has_no_cpu_device(void **state)
{
    (void)state;
    struct device *dev = NULL;
    struct err err;
    assert_int_equal(device_create(&dev, "cpu", NULL, &err), ERR_UNSUPPORTED);
    assert_null(dev);
    assert_string_equal(err.text, "/resources/device is \"cpu\": this build has ref");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(embed_backward_is_the_gradient),
        cmocka_unit_test(rmsnorm_backward_is_the_gradient),
        cmocka_unit_test(nm_products_are_each_others_gradients),
        cmocka_unit_test(nm_products_equal_the_dense_ones),
        cmocka_unit_test(como_backward_is_the_gradient),
        cmocka_unit_test(the_gate_has_its_closed_form),
        cmocka_unit_test(dense_products_are_each_others_gradients),
        cmocka_unit_test(accumulating_ops_add_and_the_others_overwrite),
        cmocka_unit_test(rope_backward_turns_back),
        cmocka_unit_test(attention_backward_is_the_gradient),
        cmocka_unit_test(attention_averages_when_all_keys_are_equal),
        cmocka_unit_test(swiglu_backward_is_the_gradient),
        cmocka_unit_test(head_loss_gives_its_gradient),
        cmocka_unit_test(a_head_of_zeros_has_the_loss_of_a_uniform_guess),
        cmocka_unit_test(rmsnorm_of_a_constant_is_its_weight),
        cmocka_unit_test(the_double_build_has_no_cpu_device),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
