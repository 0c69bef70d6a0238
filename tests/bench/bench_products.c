/* The three products of one linear layer at the shapes of llama-60m and llama-130m: N:M in both
 * layouts and dense on the device "cpu", against the BLAS libraries of the machine on plain
 * row-major arrays. The candidates take turns and medians are printed, so that a busy machine
 * disturbs them alike. GF/s count dense multiply-adds (2 tokens din dout), so that numbers of
 * one line compare as times do. With several threads each thread of the pool makes one BLAS
 * call for its share of the rows, so that no library's waiting threads disturb the next
 * candidate.
 *
 *   bench_products [-t tokens] [-j threads] [-r rounds] [-i isa] [-s DINxDOUT] [-b
 * NAME=FILE]... */
#include "engine/cpu/cpu.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <cblas.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum {
    SPARSE = 4,
    LIBRARIES = 4,
    KINDS = SPARSE + 1 + LIBRARIES,
    PRODUCTS = 3,
    ROUNDS_MAX = 99
};

static const struct {
    const char *name;
    unsigned n;
    enum nm_layout layout;
} sparse_kinds[SPARSE] = {{"1:4 row", 1, NM_LAYOUT_ROW},
                          {"1:4 block", 1, NM_LAYOUT_BLOCK},
                          {"2:4 row", 2, NM_LAYOUT_ROW},
                          {"2:4 block", 2, NM_LAYOUT_BLOCK}};
static const char *const product_names[PRODUCTS] = {"forward", "dX", "dW"};
static const size_t shapes[][2] = {{512, 512}, {512, 1376}, {1376, 512},
                                   {768, 768}, {768, 2048}, {2048, 768}};

struct library {
    const char *name;
    __typeof__(&cblas_sgemm) sgemm;
};

struct bench {
    struct device *dev;
    struct pool *pool;
    size_t rows, din, dout, rounds;
    unsigned threads;
    struct library libraries[LIBRARIES];
    size_t library_count;
    const struct library *library; /* of the call in progress */
    int product;
    struct nm sparse[SPARSE];
    float *w, *dw, *x, *y, *dx, *dy; /* activations large enough for both layouts */
};

static void *must(void *p)
{
    if (!p) {
        fprintf(stderr, "bench_products: no memory\n");
        exit(1);
    }
    return p;
}

static float *random_floats(size_t count)
{
    float *out = must(mem_aligned(count, sizeof *out));
    unsigned state = 1;
    for (size_t i = 0; i < count; i++) {
        state = state * 1664525U + 1013904223U;
        out[i] = (float)(state >> 8) * 0x1p-24f - 0.5f;
    }
    return out;
}

static struct nm sparse_create(struct device *dev, size_t kind, size_t dout, size_t din)
{
    struct pattern_table *patterns = NULL;
    struct nm w = {.dout = dout,
                   .din = din,
                   .n = sparse_kinds[kind].n,
                   .m = 4,
                   .layout = sparse_kinds[kind].layout};
    must(pattern_table_create(&patterns, w.n, w.m, NULL) == 0 ? patterns : NULL);
    w.patterns = patterns;
    w.values = random_floats(nm_count(&w));
    w.codes = must(mem_zeroed(dout * nm_groups(&w), sizeof *w.codes));
    w.pack = must(mem_aligned(dev->ops->nm_pack_size(&w), 1));
    nm_init_mask(&w, 1, (uint32_t)kind);
    dev->ops->nm_repack(dev, &w);
    return w;
}

static void sparse_release(struct nm *w)
{
    pattern_table_destroy((struct pattern_table *)(uintptr_t)w->patterns);
    mem_aligned_free(w->values);
    mem_aligned_free(w->pack);
    free(w->codes);
}

static void run_sparse(struct bench *b, const struct nm *w)
{
    const struct ops *ops = b->dev->ops;
    if (b->product == 0)
        ops->nm_forward(b->dev, b->y, b->x, w, b->rows);
    else if (b->product == 1)
        ops->nm_backward_x(b->dev, b->dx, b->dy, w, b->rows, 0);
    else
        ops->nm_backward_w(b->dev, b->dw, b->dy, b->x, w, b->rows);
}

static void run_dense(struct bench *b)
{
    const struct ops *ops = b->dev->ops;
    if (b->product == 0)
        ops->dense_forward(b->dev, b->y, b->x, b->w, b->rows, b->din, b->dout);
    else if (b->product == 1)
        ops->dense_backward_x(b->dev, b->dx, b->dy, b->w, b->rows, b->din, b->dout, 0);
    else
        ops->dense_backward_w(b->dev, b->dw, b->dy, b->x, b->rows, b->din, b->dout);
}

/* Rows [first, end) of y or dx, or of dw. */
static void library_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct bench *b = context;
    size_t all = b->product == 2 ? b->dout : b->rows;
    size_t first = all * task / b->threads, end = all * (task + 1) / b->threads;
    int rows = (int)(end - first), tokens = (int)b->rows, din = (int)b->din,
        dout = (int)b->dout;
    if (b->product == 0)
        b->library->sgemm(CblasRowMajor, CblasNoTrans, CblasTrans, rows, dout, din, 1,
                          b->x + first * b->din, din, b->w, din, 0, b->y + first * b->dout,
                          dout);
    else if (b->product == 1)
        b->library->sgemm(CblasRowMajor, CblasNoTrans, CblasNoTrans, rows, din, dout, 1,
                          b->dy + first * b->dout, dout, b->w, din, 0, b->dx + first * b->din,
                          din);
    else
        b->library->sgemm(CblasRowMajor, CblasTrans, CblasNoTrans, rows, din, tokens, 1,
                          b->dy + first, dout, b->x, din, 1, b->dw + first * b->din, din);
}

/* One thread is timed by the processor time it got, so that other programs disturb it less. */
static double now(const struct bench *b)
{
    struct timespec t;
    clock_gettime(b->threads == 1 ? CLOCK_THREAD_CPUTIME_ID : CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static double time_one(struct bench *b, size_t kind, int product)
{
    b->product = product;
    double start = now(b);
    if (kind < SPARSE) {
        run_sparse(b, &b->sparse[kind]);
    } else if (kind == SPARSE) {
        run_dense(b);
    } else {
        b->library = &b->libraries[kind - SPARSE - 1];
        pool_run(b->pool, b->threads, library_task, b);
    }
    return now(b) - start;
}

static int by_value(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static void measure(struct bench *b, const char *isa)
{
    static double times[KINDS][PRODUCTS][ROUNDS_MAX];
    size_t kinds = SPARSE + 1 + b->library_count;
    for (size_t round = 0; round < b->rounds + 1; round++)
        for (int product = 0; product < PRODUCTS; product++)
            for (size_t kind = 0; kind < kinds; kind++) {
                double seconds = time_one(b, kind, product);
                if (round > 0) /* the first one warms up */
                    times[kind][product][round - 1] = seconds;
            }
    double work = 2e-9 * (double)b->rows * (double)b->din * (double)b->dout;
    for (int product = 0; product < PRODUCTS; product++) {
        double median[KINDS], best = 0;
        printf("| %s | %s | %zu | %zu |", isa, product_names[product], b->din, b->dout);
        for (size_t kind = 0; kind < kinds; kind++) {
            qsort(times[kind][product], b->rounds, sizeof(double), by_value);
            median[kind] = work / times[kind][product][b->rounds / 2];
            if (kind >= SPARSE)
                printf(" %.0f |", median[kind]);
            if (kind > SPARSE && median[kind] > best)
                best = median[kind];
        }
        for (size_t kind = 0; kind < SPARSE; kind++)
            printf(" %.0f = %.2fx |", median[kind], median[kind] / best);
        printf("\n");
    }
    fflush(stdout);
}

static void bench_shape(struct bench *b, size_t din, size_t dout, const char *isa)
{
    b->din = din;
    b->dout = dout;
    for (size_t i = 0; i < SPARSE; i++)
        b->sparse[i] = sparse_create(b->dev, i, dout, din);
    size_t x_size = b->dev->ops->act_size(b->rows, din);
    size_t y_size = b->dev->ops->act_size(b->rows, dout);
    b->w = random_floats(dout * din);
    b->dw = random_floats(dout * din);
    b->x = random_floats(x_size);
    b->dx = random_floats(x_size);
    b->y = random_floats(y_size);
    b->dy = random_floats(y_size);
    for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
        if (!cpu_kernels_supported(*set) || (isa && strcmp(isa, (*set)->isa) != 0))
            continue;
        cpu_device_use(b->dev, *set);
        measure(b, (*set)->isa);
    }
    for (size_t i = 0; i < SPARSE; i++)
        sparse_release(&b->sparse[i]);
    float *const buffers[] = {b->w, b->dw, b->x, b->dx, b->y, b->dy};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        mem_aligned_free(buffers[i]);
}

/* *function = the function of that name; ISO C has no cast from dlsym's result. */
static bool library_symbol(void *handle, const char *name, void *function)
{
    void *symbol = dlsym(handle, name);
    memcpy(function, &symbol, sizeof symbol);
    return symbol != NULL;
}

/* Adds the library of that file, with one thread of its own. */
static void library_open(struct bench *b, const char *name, const char *file)
{
    void *handle = dlopen(file, RTLD_NOW | RTLD_LOCAL | RTLD_DEEPBIND);
    if (!handle || b->library_count == LIBRARIES) {
        fprintf(stderr, "bench_products: without %s: %s\n", name,
                handle ? "too many libraries" : dlerror());
        return;
    }
    void (*set_threads)(int);
    if (library_symbol(handle, "openblas_set_num_threads", &set_threads))
        set_threads(1);
    __typeof__(&cblas_sgemm) sgemm;
    if (!library_symbol(handle, "cblas_sgemm", &sgemm))
        fprintf(stderr, "bench_products: without %s: no cblas_sgemm in %s\n", name, file);
    else
        b->libraries[b->library_count++] = (struct library){name, sgemm};
}

static int usage(void)
{
    fprintf(stderr,
            "bench_products [-t tokens] [-j threads] [-r rounds <= %d] [-i isa] "
            "[-s DINxDOUT, din a multiple of 4, dout too] [-b NAME=FILE]...\n"
            "without -b: libopenblas.so.0 and libblis.so.4\n",
            ROUNDS_MAX);
    return 2;
}

struct options {
    size_t din, dout; /* 0: all shapes */
    const char *isa;
};

static bool options_read(struct bench *b, struct options *options, int argc, char **argv)
{
    for (int c; (c = getopt(argc, argv, "t:j:r:i:s:b:")) != -1;) {
        char *equals;
        if (c == 't')
            b->rows = (size_t)strtoul(optarg, NULL, 10);
        else if (c == 'j')
            b->threads = (unsigned)strtoul(optarg, NULL, 10);
        else if (c == 'r')
            b->rounds = (size_t)strtoul(optarg, NULL, 10);
        else if (c == 'i')
            options->isa = optarg;
        else if (c == 's' && sscanf(optarg, "%zux%zu", &options->din, &options->dout) == 2)
            continue;
        else if (c == 'b' && (equals = strchr(optarg, '=')) != NULL) {
            *equals = '\0';
            library_open(b, optarg, equals + 1);
        } else
            return false;
    }
    return optind == argc && b->rows > 0 && b->threads > 0 && b->rounds > 0 &&
           b->rounds <= ROUNDS_MAX && options->din % 4 == 0 && options->dout % 4 == 0;
}

static void print_head(const struct bench *b)
{
    printf("%zu tokens, %u threads, effective GF/s; xN: times the best of the libraries\n\n",
           b->rows, b->threads);
    printf("| kernels | product | din | dout | dense |");
    for (size_t i = 0; i < b->library_count; i++)
        printf(" %s |", b->libraries[i].name);
    for (size_t i = 0; i < SPARSE; i++)
        printf(" %s |", sparse_kinds[i].name);
    printf("\n|");
    for (size_t i = 0; i < 5 + b->library_count + SPARSE; i++)
        printf("---|");
    printf("\n");
}

int main(int argc, char **argv)
{
    struct bench b = {.rows = 2048, .threads = 1, .rounds = 9};
    struct options options = {0};
    if (!options_read(&b, &options, argc, argv))
        return usage();
    if (b.library_count == 0) {
        library_open(&b, "OpenBLAS", "libopenblas.so.0");
        library_open(&b, "BLIS", "libblis.so.4");
    }
    struct err err;
    const struct device_limits limits = {.dim_max = 1,
                                         .vocab = 1,
                                         .context = 1,
                                         .head_dim = 2,
                                         .nm_values = options.din ? options.din * options.dout
                                                                  : (size_t)2048 * 768};
    if (pool_create(&b.pool, b.threads, &err) < 0 ||
        device_create(&b.dev, "cpu", b.pool, &err) < 0 ||
        device_reserve(b.dev, &limits, &err) < 0) {
        fprintf(stderr, "bench_products: %s\n", err.text);
        return 1;
    }
    print_head(&b);
    for (size_t i = 0; i < sizeof shapes / sizeof *shapes && options.din == 0; i++)
        bench_shape(&b, shapes[i][0], shapes[i][1], options.isa);
    if (options.din > 0)
        bench_shape(&b, options.din, options.dout, options.isa);
    device_destroy(b.dev);
    pool_destroy(b.pool);
    return 0;
}
