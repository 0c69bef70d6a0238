/* hebb bench --device: products and whole steps of LLaMA-style models on a device with memory of its own. Time is the host's
 * around a series of ops, the device waited for at both ends. */
#include "worker/tools/bench_device.h"

#include "engine/optim/optim.h"
#include "engine/philox.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include "worker/tools/bench.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { REPEATS = 7, SERIES = 4, SEED = 1, PEAK_DIM = 8192, STEPS = 5, JSON_MAX = 1 << 20 };

/* llama-60m to 1b of the literature; the 1b's intermediate size is rounded up from 5461 to whole groups. */
static const struct preset {
    const char *name;
    size_t hidden, intermediate, layers, heads;
} presets[] = {
    {"llama-60m", 512, 1376, 8, 8},
    {"llama-130m", 768, 2048, 12, 12},
    {"llama-350m", 1024, 2736, 24, 16},
    {"llama-1b", 2048, 5464, 24, 32},
};
enum { PRESETS = sizeof presets / sizeof presets[0], VOCAB = 32000 };

static const struct {
    unsigned n, m;
} kinds[] = {{1, 1}, {2, 4}, {1, 4}}; /* dense first: the others are compared with it */
enum { KINDS = sizeof kinds / sizeof kinds[0] };

static const char *const products[] = {"forward", "dx", "dw"};
enum { PRODUCTS = 3 };

struct report {
    cJSON *root, *choices, *products, *steps;
    struct device *dev;
    double peak; /* FLOP/s of a large dense product */
};

/* --- one product --- */

struct operands {
    struct device *dev;
    size_t tokens, din, dout;
    real *x, *y, *weights, *gradient;
    struct pattern_table *tables[KINDS];
    struct nm nm[KINDS]; /* [0] unused: dense */
};

static real *random_memory(struct device *dev, size_t count, uint32_t stream)
{
    const struct philox key = {.seed = SEED, .purpose = PHILOX_INIT_WEIGHT, .stream = stream};
    real *out = device_alloc(dev, count, sizeof *out);
    for (size_t i = 0; out && i < count; i++) {
        out[i] = (real)(philox_uniform(&key, i) - 0.5);
    }
    if (out) {
        device_push(dev, out, count * sizeof *out);
    }
    return out;
}

/* Random activations without a copy on the host of the size of all tokens: one row, repeated with another sign. */
static real *random_act(struct device *dev, size_t rows, size_t dim, uint32_t stream)
{
    const struct philox key = {.seed = SEED, .purpose = PHILOX_INIT_WEIGHT, .stream = stream};
    real *act = device_alloc(dev, dev->ops->act_size(rows, dim), sizeof *act);
    real *host = malloc(rows * dim * sizeof *host);
    for (size_t i = 0; host && i < rows * dim; i++) {
        host[i] = i < 1 << 20 ? (real)(philox_uniform(&key, i) - 0.5) : -host[i - (1 << 20) + 1];
    }
    if (act && host) {
        dev->ops->act_load(dev, act, host, rows, dim);
        device_check(dev, NULL);
    }
    free(host);
    return act;
}

static int operands_nm(struct operands *o, size_t kind, struct err *err)
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
    w->codes = device_alloc(o->dev, o->dout * nm_groups(w), sizeof *w->codes);
    w->pack = device_alloc(o->dev, o->dev->ops->nm_pack_size(w) + 1, 1);
    if (!w->codes || !w->pack) {
        return err_set(err, ERR_NO_MEMORY, "no memory for a matrix of %zu x %zu", o->dout, o->din);
    }
    nm_init_mask(w, SEED, (uint32_t)kind);
    o->dev->ops->nm_repack(o->dev, w);
    return 0;
}

static void operands_release(struct operands *o)
{
    real *const buffers[] = {o->x, o->y, o->weights, o->gradient};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++) {
        device_free(o->dev, buffers[i]);
    }
    for (size_t kind = 1; kind < KINDS; kind++) {
        device_free(o->dev, o->nm[kind].codes);
        device_free(o->dev, o->nm[kind].pack);
        pattern_table_destroy(o->tables[kind]);
    }
}

static int operands_init(struct operands *o, struct device *dev, size_t tokens, size_t din, size_t dout,
                         struct err *err)
{
    int rc = 0;
    *o = (struct operands){.dev = dev, .tokens = tokens, .din = din, .dout = dout};
    o->x = random_act(dev, tokens, din, 0);
    o->y = random_act(dev, tokens, dout, 1);
    o->weights = random_memory(dev, din * dout, 2);
    o->gradient = device_alloc(dev, din * dout, sizeof(real));
    if (!o->x || !o->y || !o->weights || !o->gradient) {
        rc = err_set(err, ERR_NO_MEMORY, "no memory for %zu tokens of %zu x %zu", tokens, dout, din);
    }
    for (size_t kind = 1; rc == 0 && kind < KINDS; kind++) {
        rc = operands_nm(o, kind, err);
    }
    return rc;
}

static void product_run(struct operands *o, size_t product, size_t kind)
{
    const struct ops *ops = o->dev->ops;
    const struct nm *w = &o->nm[kind];
    if (product == 0 && kind == 0) {
        ops->dense_forward(o->dev, o->y, o->x, o->weights, o->tokens, o->din, o->dout);
    } else if (product == 0) {
        ops->nm_forward(o->dev, o->y, o->x, w, o->tokens);
    } else if (product == 1 && kind == 0) {
        ops->dense_backward_x(o->dev, o->x, o->y, o->weights, o->tokens, o->din, o->dout, 0);
    } else if (product == 1) {
        ops->nm_backward_x(o->dev, o->x, o->y, w, o->tokens, 0);
    } else if (kind == 0) {
        ops->dense_backward_w(o->dev, o->gradient, o->y, o->x, o->tokens, o->din, o->dout);
    } else {
        ops->nm_backward_w(o->dev, o->gradient, o->y, o->x, w, o->tokens);
    }
}

/* Medians of REPEATS series of SERIES products each, the kinds taking turns, after one that only warms up. */
static int product_measure(double seconds[KINDS], struct operands *o, size_t product, struct err *err)
{
    double times[KINDS][REPEATS];
    for (int repeat = -1; repeat < REPEATS; repeat++) {
        for (size_t kind = 0; kind < KINDS; kind++) {
            device_check(o->dev, NULL);
            double began = clock_monotonic_s();
            for (int i = 0; i < SERIES; i++) {
                product_run(o, product, kind);
            }
            int rc = device_check(o->dev, err);
            if (rc != 0) {
                return rc;
            }
            times[kind][repeat < 0 ? 0 : repeat] = (clock_monotonic_s() - began) / SERIES;
        }
    }
    for (size_t kind = 0; kind < KINDS; kind++) {
        seconds[kind] = bench_median(times[kind], REPEATS);
    }
    return 0;
}

static void product_report(struct report *report, const char *shape, const struct operands *o,
                           size_t product, const double seconds[KINDS])
{
    const double flops = 2.0 * (double)o->tokens * (double)o->din * (double)o->dout;
    for (size_t kind = 0; kind < KINDS; kind++) {
        cJSON *item = cJSON_CreateObject();
        cJSON_AddStringToObject(item, "model", shape);
        cJSON_AddStringToObject(item, "product", products[product]);
        cJSON_AddNumberToObject(item, "tokens", (double)o->tokens);
        cJSON_AddNumberToObject(item, "din", (double)o->din);
        cJSON_AddNumberToObject(item, "dout", (double)o->dout);
        cJSON_AddNumberToObject(item, "n", kinds[kind].n);
        cJSON_AddNumberToObject(item, "m", kinds[kind].m);
        cJSON_AddNumberToObject(item, "seconds", seconds[kind]);
        cJSON_AddNumberToObject(item, "effective_gflops", flops / seconds[kind] / 1e9);
        cJSON_AddNumberToObject(item, "ratio_to_dense", seconds[0] / seconds[kind]);
        cJSON_AddItemToArray(report->products, item);
    }
}

/* The products of one preset's two kinds of matrices. */
static int preset_products(struct report *report, const struct preset *preset, size_t tokens,
                           struct err *err)
{
    const size_t shapes[][2] = {{preset->hidden, preset->hidden},
                                {preset->hidden, preset->intermediate},
                                {preset->intermediate, preset->hidden}};
    int rc = 0;
    for (size_t i = 0; rc == 0 && i < 3; i++) {
        struct operands o;
        rc = operands_init(&o, report->dev, tokens, shapes[i][0], shapes[i][1], err);
        for (size_t product = 0; rc == 0 && product < PRODUCTS; product++) {
            double seconds[KINDS];
            rc = product_measure(seconds, &o, product, err);
            if (rc == 0) {
                product_report(report, preset->name, &o, product, seconds);
            }
        }
        operands_release(&o);
    }
    return rc;
}

/* The rate of a large dense product: what shares are shares of. */
static int peak_measure(struct report *report, struct err *err)
{
    struct operands o;
    double seconds[KINDS];
    int rc = operands_init(&o, report->dev, 4 * PEAK_DIM, PEAK_DIM, PEAK_DIM, err);
    if (rc == 0) {
        rc = product_measure(seconds, &o, 0, err);
    }
    operands_release(&o);
    if (rc == 0) {
        report->peak = 8.0 * PEAK_DIM * PEAK_DIM * PEAK_DIM / seconds[0];
        cJSON_AddNumberToObject(report->root, "peak_gflops", report->peak / 1e9);
    }
    return rc;
}

/* --- whole steps --- */

struct bench_run {
    struct model *model;
    struct optim *optim;
    int32_t *tokens;
    real *loss;
    size_t batch, context;
};

static void run_release(struct bench_run *run, struct device *dev)
{
    device_free(dev, run->tokens);
    device_free(dev, run->loss);
    optim_destroy(run->optim);
    model_destroy(run->model);
}

static int run_init(struct bench_run *run, struct device *dev, const struct model_shape *shape, size_t batch,
                    const char *optimizer, struct err *err)
{
    const struct philox key = {.seed = SEED, .purpose = PHILOX_DATA_ORDER};
    const struct optim_options options = {.adam_lr_ratio = 1, .adam_eps = 1e-8, .momentum = 0.95, .gamma_ns = 0.5};
    const size_t count = batch * shape->context;
    *run = (struct bench_run){.batch = batch, .context = shape->context};
    int rc = model_create(&run->model, dev, shape, batch, shape->context, true, err);
    if (rc == 0) {
        rc = optim_create(&run->optim, optimizer, 0.9, 0.999, &options, run->model, err);
    }
    if (rc != 0) {
        return rc;
    }
    run->tokens = device_alloc(dev, count, sizeof *run->tokens);
    run->loss = device_alloc(dev, count, sizeof *run->loss);
    if (!run->tokens || !run->loss) {
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu tokens", count);
    }
    for (size_t i = 0; i < count; i++) {
        run->tokens[i] = (int32_t)(philox_u32(&key, i) % shape->vocab);
    }
    device_push(dev, run->tokens, count * sizeof *run->tokens);
    model_init(run->model, SEED);
    return 0;
}

/* Seconds of a step, and in optimizer those of the update alone. */
static int run_step(struct bench_run *run, size_t step, double *seconds, double *optimizer, struct err *err)
{
    struct model *model = run->model;
    struct device *dev = model->dev;
    const struct optim_args args = {.lr = 1e-4,
                                    .beta1 = 0.9,
                                    .beta2 = 0.999,
                                    .eps = 1e-8,
                                    .weight_decay = 0.1,
                                    .grad_scale = 1,
                                    .step = step,
                                    .branch_step = step};
    double began = clock_monotonic_s();
    device_zero(dev, model->grads, model->count * sizeof *model->grads);
    model_forward_backward(model, run->tokens, run->tokens, run->loss,
                           (real)(1 / (double)(run->batch * run->context)), run->batch, run->context);
    dev->ops->sum_squares(dev, model->grads, model->count); /* waits, as clipping does */
    double middle = clock_monotonic_s();
    int rc = run->optim->optimizer->step(run->optim, model, &args, err);
    rc = rc == 0 ? device_check(dev, err) : rc;
    *seconds = clock_monotonic_s() - began;
    *optimizer = clock_monotonic_s() - middle;
    return rc;
}

/* FLOPs of a token's forward and backward pass, dense: 6 a weight of a matrix, and causal attention. */
static double token_flops(const struct model_shape *s)
{
    const double hidden = (double)s->hidden, layers = (double)s->layers;
    const double weights = layers * (4 * hidden * hidden + 3 * hidden * (double)s->intermediate) +
                           hidden * (double)s->vocab;
    return 6 * weights + 6 * layers * hidden * (double)s->context;
}

static int step_measure(struct report *report, const struct preset *preset, size_t kind, size_t context,
                        size_t tokens, const char *optimizer, struct err *err)
{
    const struct model_shape shape = {.hidden = preset->hidden,
                                      .intermediate = preset->intermediate,
                                      .layers = preset->layers,
                                      .heads = preset->heads,
                                      .kv_heads = preset->heads,
                                      .vocab = VOCAB,
                                      .context = context,
                                      .rope_theta = 10000,
                                      .norm_eps = 1e-6,
                                      .n = kinds[kind].n,
                                      .m = kinds[kind].m};
    struct bench_run run = {0};
    double times[STEPS], updates[STEPS];
    int rc = run_init(&run, report->dev, &shape, tokens / context, optimizer, err);
    for (int i = -2; rc == 0 && i < STEPS; i++) { /* the first two make plans */
        double seconds, update;
        rc = run_step(&run, (size_t)(i + 3), &seconds, &update, err);
        times[i < 0 ? 0 : i] = seconds;
        updates[i < 0 ? 0 : i] = update;
    }
    run_release(&run, report->dev);
    if (rc != 0) {
        return err_wrap(err, rc, "%s, %u:%u, context %zu", preset->name, shape.n, shape.m, context);
    }
    const double median = bench_median(times, STEPS), rate = (double)(tokens / context * context) / median;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddStringToObject(item, "model", preset->name);
    cJSON_AddNumberToObject(item, "n", shape.n);
    cJSON_AddNumberToObject(item, "m", shape.m);
    cJSON_AddNumberToObject(item, "context", (double)context);
    cJSON_AddNumberToObject(item, "tokens", (double)tokens);
    cJSON_AddStringToObject(item, "optimizer", optimizer);
    cJSON_AddNumberToObject(item, "tokens_per_s", rate);
    cJSON_AddNumberToObject(item, "optimizer_ms", bench_median(updates, STEPS) * 1000);
    cJSON_AddNumberToObject(item, "dense_flop_utilisation", rate * token_flops(&shape) / report->peak);
    cJSON_AddItemToArray(report->steps, item);
    return 0;
}

/* --- all of it --- */

static double number(const cJSON *item, const char *key)
{
    return cJSON_GetNumberValue(cJSON_GetObjectItemCaseSensitive(item, key));
}

static const char *word(const cJSON *item, const char *key)
{
    return cJSON_GetStringValue(cJSON_GetObjectItemCaseSensitive(item, key));
}

static void print_text(const struct report *report)
{
    const cJSON *item;
    printf("device %s, dense product of %d: %.1f TFLOP/s\n", report->dev->ops->name, PEAK_DIM,
           report->peak / 1e12);
    cJSON_ArrayForEach(item, report->choices) {
        puts(cJSON_GetStringValue(item));
    }
    puts("model       product   tokens   din  dout  N:M   TFLOP/s (dense count)  x dense");
    cJSON_ArrayForEach(item, report->products) {
        printf("%-11s %-8s %7.0f %5.0f %5.0f %3.0f:%-3.0f %12.1f %17.2f\n", word(item, "model"),
               word(item, "product"), number(item, "tokens"), number(item, "din"), number(item, "dout"),
               number(item, "n"), number(item, "m"), number(item, "effective_gflops") / 1e3,
               number(item, "ratio_to_dense"));
    }
    puts("model       N:M  context  optimizer   tokens/s  optimizer ms  dense FLOPs over peak");
    cJSON_ArrayForEach(item, report->steps) {
        printf("%-11s %.0f:%.0f %8.0f  %-9s %10.0f %13.2f %20.1f%%\n", word(item, "model"), number(item, "n"),
               number(item, "m"), number(item, "context"), word(item, "optimizer"),
               number(item, "tokens_per_s"), number(item, "optimizer_ms"),
               number(item, "dense_flop_utilisation") * 100);
    }
}

static void print_json(const struct report *report)
{
    struct buf text;
    buf_init(&text, JSON_MAX);
    json_print(report->root, &text);
    puts(text.data ? text.data : "");
    buf_release(&text);
}

static int measure(struct report *report, size_t tokens, bool has_products, bool has_steps, struct err *err)
{
    static const struct {
        size_t preset, kind, context;
        const char *optimizer;
    } steps[] = {{1, 0, 256, "adamw"}, {1, 0, 1024, "adamw"}, {1, 1, 1024, "adamw"}, {1, 2, 1024, "adamw"},
                 {2, 0, 256, "adamw"}, {2, 0, 1024, "adamw"}, {2, 0, 1024, "muon"},  {2, 0, 1024, "tans"},
                 {3, 0, 1024, "adamw"}, {3, 1, 1024, "adamw"}, {3, 2, 1024, "adamw"}};
    int rc = peak_measure(report, err);
    for (size_t i = 0; rc == 0 && has_products && i < PRESETS; i++) {
        rc = preset_products(report, &presets[i], tokens, err);
    }
    for (size_t i = 0; rc == 0 && has_steps && i < sizeof steps / sizeof *steps; i++) {
        rc = step_measure(report, &presets[steps[i].preset], steps[i].kind, steps[i].context, tokens,
                          steps[i].optimizer, err);
    }
    return rc;
}

int bench_device(const char *name, size_t tokens, bool has_products, bool has_steps, bool json,
                 struct err *err)
{
    struct report report = {.root = cJSON_CreateObject()};
    struct device *dev = NULL;
    int rc = device_create(&dev, name, NULL, err);
    report.dev = dev;
    if (rc == 0) {
        cJSON *machine = cJSON_AddObjectToObject(report.root, "machine");
        cJSON_AddStringToObject(machine, "device", dev->ops->name);
        report.choices = cJSON_AddArrayToObject(report.root, "choices");
        report.products = cJSON_AddArrayToObject(report.root, "products");
        report.steps = cJSON_AddArrayToObject(report.root, "steps");
        rc = measure(&report, tokens, has_products, has_steps, err);
    }
    char line[512];
    for (size_t i = 0; report.choices && device_choice(dev, i, line, sizeof line); i++) {
        cJSON_AddItemToArray(report.choices, cJSON_CreateString(line));
    }
    if (report.products) { /* what was measured before a failure is shown too */
        (json ? print_json : print_text)(&report);
    }
    cJSON_Delete(report.root);
    device_destroy(dev);
    return rc;
}
