#include "worker/tools/bench.h"

#include "engine/philox.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"

#include <stdlib.h>
#include <string.h>

enum { REPEATS = 7, SEED = 1 };

static const struct {
    size_t din, dout;
} shapes[BENCH_SHAPES] = {{512, 512}, {512, 1376}, {1376, 512}};

static const struct {
    unsigned n, m;
} kinds[BENCH_KINDS] = {
    {1, 1}, {2, 4}, {1, 4}}; /* dense first: the others are compared with it */

static const char *const products[BENCH_PRODUCTS] = {"forward", "dx", "dw"};

/* The operands of one shape. */
struct operands {
    struct device *dev;
    size_t tokens, din, dout;
    real *x, *y, *dx;         /* activations (tokens, din), (tokens, dout), (tokens, din) */
    real *weights, *dweights; /* (dout, din): the dense matrix; an N:M matrix uses its front */
    struct pattern_table *tables[BENCH_KINDS];
    struct nm nm[BENCH_KINDS]; /* [0] unused: dense */
};

static void random_fill(real *out, size_t count, uint32_t stream)
{
    const struct philox key = {.seed = SEED, .purpose = PHILOX_INIT_WEIGHT, .stream = stream};
    for (size_t i = 0; i < count; i++) {
        out[i] = (real)(philox_uniform(&key, i) - 0.5);
    }
}

/* An N:M matrix with uniformly drawn patterns over the operands' weights. */
static int nm_init(struct operands *o, size_t kind, struct err *err)
{
    struct nm *w = &o->nm[kind];
    int rc = pattern_table_create(&o->tables[kind], kinds[kind].n, kinds[kind].m, err);
    if (rc != 0) {
        return rc;
    }
    *w = (struct nm){.dout = o->dout,
                     .din = o->din,
                     .n = kinds[kind].n,
                     .m = kinds[kind].m,
                     .patterns = o->tables[kind],
                     .values = o->weights};
    const struct philox key = {
        .seed = SEED, .purpose = PHILOX_INIT_MASK, .stream = (uint32_t)kind};
    size_t groups = w->dout * nm_groups(w), pack = o->dev->ops->nm_pack_size(w);
    w->codes = device_alloc(o->dev, groups, sizeof *w->codes);
    w->pack = pack > 0 ? device_alloc(o->dev, pack, 1) : NULL;
    if (!w->codes || (pack > 0 && !w->pack)) {
        return err_set(err, ERR_NO_MEMORY, "no memory for a matrix of %zu x %zu", o->dout,
                       o->din);
    }
    for (size_t g = 0; g < groups; g++) {
        w->codes[g] = (uint16_t)(philox_u32(&key, g) % w->patterns->count);
    }
    o->dev->ops->nm_repack(o->dev, w);
    return 0;
}

static int operands_init(struct operands *o, struct device *dev, size_t tokens, size_t shape,
                         struct err *err)
{
    *o = (struct operands){
        .dev = dev, .tokens = tokens, .din = shapes[shape].din, .dout = shapes[shape].dout};
    const struct ops *ops = dev->ops;
    size_t in = ops->act_size(tokens, o->din), out = ops->act_size(tokens, o->dout);
    o->x = device_alloc(dev, in, sizeof(real));
    o->dx = device_alloc(dev, in, sizeof(real));
    o->y = device_alloc(dev, out, sizeof(real));
    o->weights = device_alloc(dev, o->dout * o->din, sizeof(real));
    o->dweights = device_alloc(dev, o->dout * o->din, sizeof(real));
    if (!o->x || !o->dx || !o->y || !o->weights || !o->dweights) {
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu tokens", tokens);
    }
    /* Through act_load, so that a layout's padding stays what the device expects. */
    real *host = mem_zeroed(tokens, (o->din > o->dout ? o->din : o->dout) * sizeof *host);
    if (!host) {
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu tokens", tokens);
    }
    random_fill(host, tokens * o->din, 0);
    ops->act_load(dev, o->x, host, tokens, o->din);
    random_fill(host, tokens * o->dout, 1);
    ops->act_load(dev, o->y, host, tokens, o->dout);
    free(host);
    random_fill(o->weights, o->dout * o->din, 2);
    device_push(dev, o->weights, o->dout * o->din * sizeof *o->weights);
    int rc = 0;
    for (size_t kind = 1; rc == 0 && kind < BENCH_KINDS; kind++) {
        rc = nm_init(o, kind, err);
    }
    return rc;
}

static void operands_release(struct operands *o)
{
    real *const buffers[] = {o->x, o->dx, o->y, o->weights, o->dweights};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        device_free(o->dev, buffers[i]);
    }
    for (size_t kind = 1; kind < BENCH_KINDS; kind++) {
        device_free(o->dev, o->nm[kind].codes);
        device_free(o->dev, o->nm[kind].pack);
        pattern_table_destroy(o->tables[kind]);
    }
}

/* y, dx and dweights are overwritten or added to; only the time matters. */
static double product_time(struct operands *o, size_t product, size_t kind)
{
    const struct ops *ops = o->dev->ops;
    const struct nm *w = &o->nm[kind];
    device_check(o->dev, NULL);
    double began = clock_monotonic_s();
    if (product == 0 && kind == 0) {
        ops->dense_forward(o->dev, o->y, o->x, o->weights, o->tokens, o->din, o->dout);
    } else if (product == 0) {
        ops->nm_forward(o->dev, o->y, o->x, w, o->tokens);
    } else if (product == 1 && kind == 0) {
        ops->dense_backward_x(o->dev, o->dx, o->y, o->weights, o->tokens, o->din, o->dout, 0);
    } else if (product == 1) {
        ops->nm_backward_x(o->dev, o->dx, o->y, w, o->tokens, 0);
    } else if (kind == 0) {
        ops->dense_backward_w(o->dev, o->dweights, o->y, o->x, o->tokens, o->din, o->dout);
    } else {
        ops->nm_backward_w(o->dev, o->dweights, o->y, o->x, w, o->tokens);
    }
    device_check(o->dev, NULL); /* waits */
    return clock_monotonic_s() - began;
}

/* The rows of one product at one shape: REPEATS rounds after one that only warms up, the kinds
 * taking turns. */
static void product_measure(struct bench_row *rows, struct operands *o, size_t product,
                            const struct bench_machine *machine)
{
    const double tokens = (double)o->tokens, din = (double)o->din, dout = (double)o->dout;
    double times[BENCH_KINDS][REPEATS];
    for (int repeat = -1; repeat < REPEATS; repeat++) {
        for (size_t kind = 0; kind < BENCH_KINDS; kind++) {
            double seconds = product_time(o, product, kind);
            times[kind][repeat < 0 ? 0 : repeat] = seconds;
        }
    }
    for (size_t kind = 0; kind < BENCH_KINDS; kind++) {
        double flops = 2.0 * tokens * din * dout, share = (double)kinds[kind].n / kinds[kind].m;
        double seconds = bench_median(times[kind], REPEATS), done = flops * share;
        double elements = tokens * (din + dout) + din * dout * share;
        rows[kind] = (struct bench_row){
            .product = products[product],
            .din = o->din,
            .dout = o->dout,
            .n = kinds[kind].n,
            .m = kinds[kind].m,
            .seconds = seconds,
            .effective_gflops = flops / seconds / 1e9,
            .peak_share = done / seconds / 1e9 / machine->peak_gflops,
            .ratio_to_dense = times[0][REPEATS / 2] / seconds,
            .bound = bench_bound(machine, done, elements * sizeof(real), seconds)};
    }
}

int bench_products(struct bench_row rows[BENCH_ROWS], struct device *dev, size_t tokens,
                   const struct bench_machine *machine, struct err *err)
{
    const struct device_limits limits = {
        .rows = tokens, .dim_max = 1376, .vocab = 1, .context = 1, .heads = 1, .head_dim = 2,
        .nm_values = (size_t)512 * 1376};
    int rc = device_reserve(dev, &limits, err);
    for (size_t shape = 0; rc == 0 && shape < BENCH_SHAPES; shape++) {
        struct operands o;
        rc = operands_init(&o, dev, tokens, shape, err);
        for (size_t product = 0; rc == 0 && product < BENCH_PRODUCTS; product++) {
            product_measure(rows, &o, product, machine);
            rows += BENCH_KINDS;
        }
        operands_release(&o);
    }
    return rc;
}
