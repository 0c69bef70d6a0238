/* Products with a few plain rows: N:M by kernel_select.c, dense by BLAS. A task is a run of
 * rows of one matrix, about TASK_BYTES of it, with all rows of x: so a weight is read from
 * memory once. The split depends on shapes only. */
#include "engine/cpu/blas.h"
#include "engine/cpu/cpu.h"
#include "proto/base/mem.h"
#include <assert.h>

enum {
    TASK_BYTES = 32 * 1024,
    LINE_FLOATS = 16,
    TASK_ROWS = 16, /* a multiple of what the kernel does at a time */
};

static unsigned select_bits(unsigned m)
{
    unsigned bits = 1;
    while (1U << bits < m)
        bits++;
    return bits;
}

static struct cpu_select select_view(const struct nm *w, const void *pack)
{
    return (struct cpu_select){.values = w->values,
                               .words = pack,
                               .kept = nm_row_values(w),
                               .blocks = cpu_blocks(nm_row_values(w), CPU_SELECT),
                               .n = w->n,
                               .m = w->m,
                               .bits = select_bits(w->m)};
}

size_t cpu_decode_pack_size(const struct nm *w)
{
    struct cpu_select view = select_view(w, NULL);
    return w->dout * view.blocks * view.bits * sizeof(uint16_t);
}

struct pack_job {
    const struct nm *w;
    struct cpu_select view;
    uint16_t *words;
};

static void pack_task(void *context, size_t row, unsigned thread)
{
    (void)thread;
    const struct pack_job *job = context;
    const struct nm *w = job->w;
    const struct cpu_select *view = &job->view;
    const uint16_t *codes = w->codes + row * nm_groups(w);
    uint16_t *words = job->words + row * view->blocks * view->bits;
    for (size_t block = 0; block < view->blocks; block++, words += view->bits) {
        size_t first = block * CPU_SELECT, count = cpu_min(CPU_SELECT, view->kept - first);
        for (unsigned b = 0; b < view->bits; b++) {
            unsigned word = 0;
            for (size_t j = 0; j < count; j++) {
                size_t k = first + j, code = codes[k / w->n];
                unsigned column = w->patterns->column[code * w->n + k % w->n];
                word |= (column >> b & 1U) << j;
            }
            words[b] = (uint16_t)word;
        }
    }
}

void cpu_decode_pack(struct device *dev, void *pack, const struct nm *w)
{
    struct pack_job job = {.w = w, .view = select_view(w, pack), .words = pack};
    pool_run(dev->pool, w->dout, pack_task, &job);
}

/* Floats of one row of x, spread out. din: an upper bound. */
static bool spread_floats(size_t *out, size_t din, unsigned n, unsigned m)
{
    size_t kept = 0;
    return size_mul(&kept, din / m + 1, n) &&
           size_mul(out, cpu_blocks(kept, CPU_SELECT), (size_t)CPU_SELECT << select_bits(m));
}

size_t cpu_decode_scratch(const struct device_limits *limits, unsigned threads)
{
    size_t spread = 0, scores = 0, floats = 0, bytes = 0;
    bool fits = limits->m == 0 || spread_floats(&spread, limits->dim_max, limits->n, limits->m);
    fits = fits && size_mul(&spread, spread, limits->decode_rows) &&
           size_mul(&scores, limits->decode_capacity, threads);
    floats = spread > scores ? spread : scores;
    return fits && size_mul(&bytes, floats, sizeof(float)) ? bytes : SIZE_MAX;
}

struct linear_job {
    const struct cpu_kernels *kernels;
    const struct decode_product *products;
    size_t count, rows;
    const float *x;
    struct cpu_select view[DECODE_PRODUCTS_MAX];
    const float *choices; /* (rows, stride); of the N:M products */
    size_t stride;
    size_t step[DECODE_PRODUCTS_MAX];  /* rows of a task */
    size_t tasks[DECODE_PRODUCTS_MAX]; /* of the products before and with this one */
};

/* Rows of W, a few at a time, so that the rows behind them are on their way while BLAS works.
 */
static void dense_rows(const struct linear_job *job, const struct decode_product *p, size_t r,
                       size_t first, size_t last)
{
    const size_t step =
        p->turned ? last - first : cpu_min(CPU_AHEAD / 4 / p->din / 4 * 4 + 4, last - first);
    for (size_t row = first, end; row < last; row = end) {
        end = cpu_min(row + step, last);
        const struct blas_matrix matrix = {
            .data = p->dense + (p->turned ? row : row * p->din),
            .stride = p->turned ? p->dout : p->din,
            .turned = p->turned,
        };
        for (size_t i = 0; !p->turned && i < (end - row) * p->din; i += LINE_FLOATS)
            cpu_ask_ahead(matrix.data + i);
        blas_vector_product(p->y + r * p->dout + row, matrix, job->x + r * p->din, end - row,
                            p->din, p->add);
    }
}

static void linear_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct linear_job *job = context;
    size_t i = 0;
    while (task >= job->tasks[i])
        i++;
    const struct decode_product *p = &job->products[i];
    size_t first = (task - (i > 0 ? job->tasks[i - 1] : 0)) * job->step[i];
    size_t last = cpu_min(first + job->step[i], p->dout);
    for (size_t r = 0; r < job->rows; r++) {
        if (p->nm)
            job->kernels->select_rows(&job->view[i], p->y + r * p->dout,
                                      job->choices + r * job->stride, first, last, p->add);
        else
            dense_rows(job, p, r, first, last);
    }
}

/* Every row of x, spread out for the N:M products. */
static void linear_spread(struct linear_job *job, struct device *dev,
                          const struct cpu_select *view, size_t din)
{
    float *choices = dev->scratch;
    job->stride = view->blocks * ((size_t)CPU_SELECT << view->bits);
    assert(dev->scratch_bytes >= job->rows * job->stride * sizeof *choices);
    for (size_t r = 0; r < job->rows; r++)
        job->kernels->select_spread(view, choices + r * job->stride, job->x + r * din);
    job->choices = choices;
}

void cpu_decode_linear(struct device *dev, const struct decode_product *products, size_t count,
                       const real *x, size_t rows)
{
    struct linear_job job = {.kernels = cpu_kernels_of(dev),
                             .products = products,
                             .count = count,
                             .rows = rows,
                             .x = x};
    size_t tasks = 0;
    assert(count <= DECODE_PRODUCTS_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct decode_product *p = &products[i];
        size_t bytes = p->din * sizeof(float);
        assert(p->din == products[0].din);
        if (p->nm) {
            job.view[i] = select_view(p->nm, p->pack);
            bytes = job.view[i].kept * sizeof(float);
            if (!job.choices)
                linear_spread(&job, dev, &job.view[i], p->din);
        }
        job.step[i] = cpu_blocks(TASK_BYTES / bytes + 1, TASK_ROWS) * TASK_ROWS;
        tasks += cpu_blocks(p->dout, job.step[i]);
        job.tasks[i] = tasks;
    }
    pool_run(dev->pool, tasks, linear_task, &job);
}
