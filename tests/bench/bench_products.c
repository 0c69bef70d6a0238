/* GF/s of the three products of one linear layer: 1:4, 2:4 and dense on the device "cpu", and
 * OpenBLAS on token-major matrices as the yardstick. The candidates take turns, and the medians
 * are printed, so that a busy machine disturbs them alike. GF/s count dense multiply-adds (2 *
 * rows * din * dout), so that numbers of one line compare as times do. bench_products [rows]
 * [din] [dout] [rounds] [threads] */
#include "engine/cpu/cpu.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <cblas.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

enum { KINDS = 4, PRODUCTS = 3, ROUNDS_MAX = 200 };
static const char *const kind_names[KINDS] = {"1:4", "2:4", "dense", "OpenBLAS"};
static const char *const product_names[PRODUCTS] = {"forward", "dX", "dW"};

struct bench {
    struct device *dev;
    size_t rows, din, dout;
    unsigned threads;
    struct nm sparse[2];
    float *w, *dw, *x, *y, *dx, *dy; /* activations large enough for both layouts */
};

static float *random_floats(size_t count)
{
    float *out = mem_aligned(count, sizeof *out);
    assert(out);
    unsigned state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        out[i] = (float)(state >> 8) * 0x1p-24f - 0.5f;
    }
    return out;
}

static struct nm sparse_create(struct device *dev, size_t dout, size_t din, unsigned n)
{
    struct pattern_table *patterns = NULL;
    int code = pattern_table_create(&patterns, n, 4, NULL);
    assert(code == 0);
    struct nm w = {.dout = dout, .din = din, .n = n, .m = 4, .patterns = patterns};
    w.values = random_floats(nm_count(&w));
    w.codes = mem_zeroed(dout * nm_groups(&w), sizeof *w.codes);
    w.pack = mem_aligned(dev->ops->nm_pack_size(&w), 1);
    assert(w.codes && w.pack);
    unsigned state = 7;
    for (size_t i = 0; i < dout * nm_groups(&w); i++) {
        state = state * 1664525U + 1013904223U;
        w.codes[i] = (uint16_t)((state >> 16) % patterns->count);
    }
    dev->ops->nm_repack(dev, &w);
    return w;
}

static void run_sparse(struct bench *b, const struct nm *w, int product)
{
    const struct ops *ops = b->dev->ops;
    if (product == 0)
        ops->nm_forward(b->dev, b->y, b->x, w, b->rows);
    else if (product == 1)
        ops->nm_backward_x(b->dev, b->dx, b->dy, w, b->rows, 0);
    else
        ops->nm_backward_w(b->dev, b->dw, b->dy, b->x, w, b->rows);
}

static void run_dense(struct bench *b, int product)
{
    const struct ops *ops = b->dev->ops;
    if (product == 0)
        ops->dense_forward(b->dev, b->y, b->x, b->w, b->rows, b->din, b->dout);
    else if (product == 1)
        ops->dense_backward_x(b->dev, b->dx, b->dy, b->w, b->rows, b->din, b->dout, 0);
    else
        ops->dense_backward_w(b->dev, b->dw, b->dy, b->x, b->rows, b->din, b->dout);
}

static void run_blas(struct bench *b, int product)
{
    int rows = (int)b->rows, din = (int)b->din, dout = (int)b->dout;
    if (product == 0)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, dout, din, 1, b->x, din,
                    b->w, din, 0, b->y, dout);
    else if (product == 1)
        cblas_sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, din, dout, 1, b->dy, dout,
                    b->w, din, 0, b->dx, din);
    else
        cblas_sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, dout, din, rows, 1, b->dy, dout,
                    b->x, din, 1, b->dw, din);
}

/* One thread is timed by the processor time it got, so that other programs disturb it less. */
static double now(const struct bench *b)
{
    struct timespec t;
    clock_gettime(b->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double time_one(struct bench *b, int kind, int product)
{
    double start = now(b);
    if (kind < 2)
        run_sparse(b, &b->sparse[kind], product);
    else if (kind == 2)
        run_dense(b, product);
    else
        run_blas(b, product);
    return now(b) - start;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct bench *b, size_t rounds)
{
    static double times[KINDS][PRODUCTS][ROUNDS_MAX];
    for (size_t round = 0; round < rounds + 1; round++)
        for (int product = 0; product < PRODUCTS; product++)
            for (int kind = 0; kind < KINDS; kind++) {
                double seconds = time_one(b, kind, product);
                if (round > 0) /* the first one warms up */
                    times[kind][product][round - 1] = seconds;
            }
    double work = 2e-9 * (double)b->rows * (double)b->din * (double)b->dout;
    for (int product = 0; product < PRODUCTS; product++) {
        double best[KINDS];
        printf("%-8s", product_names[product]);
        for (int kind = 0; kind < KINDS; kind++) {
            qsort(times[kind][product], rounds, sizeof(double), by_value);
            best[kind] = times[kind][product][rounds / 2];
            printf("  %s %.1f GF/s", kind_names[kind], work / best[kind]);
        }
        printf("   against the better dense: 1:4 %.2fx, 2:4 %.2fx\n",
               fmin(best[2], best[3]) / best[0], fmin(best[2], best[3]) / best[1]);
    }
}

static size_t argument(int argc, char **argv, int at, size_t fallback)
{
    return argc > at ? (size_t)strtoul(argv[at], NULL, 10) : fallback;
}

int main(int argc, char **argv)
{
    struct bench b = {.rows = argument(argc, argv, 1, 2048),
                      .din = argument(argc, argv, 2, 512),
                      .dout = argument(argc, argv, 3, 512)};
    size_t rounds = argument(argc, argv, 4, 15);
    unsigned threads = b.threads = (unsigned)argument(argc, argv, 5, 1);
    if (rounds < 1 || rounds > ROUNDS_MAX || b.din % 4 != 0 || b.rows == 0 || b.dout == 0) {
        fprintf(stderr,
                "bench_products [rows] [din, a multiple of 4] [dout] [rounds <= %d] "
                "[threads]\n",
                ROUNDS_MAX);
        return 2;
    }
    struct pool *pool = NULL;
    struct err err;
    if (pool_create(&pool, threads, &err) < 0 || device_create(&b.dev, "cpu", pool, &err) < 0) {
        fprintf(stderr, "bench_products: %s\n", err.text);
        return 1;
    }
    openblas_set_num_threads((int)threads);
    size_t x_size = b.dev->ops->act_size(b.rows, b.din);
    size_t y_size = b.dev->ops->act_size(b.rows, b.dout);
    b.sparse[0] = sparse_create(b.dev, b.dout, b.din, 1);
    b.sparse[1] = sparse_create(b.dev, b.dout, b.din, 2);
    b.w = random_floats(b.dout * b.din);
    b.dw = random_floats(b.dout * b.din);
    b.x = random_floats(x_size);
    b.dx = random_floats(x_size);
    b.y = random_floats(y_size);
    b.dy = random_floats(y_size);
    for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
        if (!cpu_kernels_supported(*set))
            continue;
        cpu_device_use(b.dev, *set);
        printf("%s, %zu rows, %zu -> %zu, %u threads\n", (*set)->isa, b.rows, b.din, b.dout,
               threads);
        measure(&b, rounds);
    }
    return 0;
}
