/* The three N:M products of the device "cpu": every N:M, both layouts, every instruction set of
 * this machine against the reference, and the same bits for 1, 2 and 3 threads. Shapes leave a
 * rest everywhere: panels, blocks of rows and columns, strips, links in fours. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those first */
#include <cmocka.h>

#include "engine/cpu/cpu.h"
#include "tests/engine/ops_fixture.h"
#include <math.h>
#include <string.h>

/* Difference over the largest value of an output: sums of up to 300 fp32 terms in another order
 * differ by about sqrt(300) * 2^-24 = 1e-6; ten times that. */
static const double SUM_TOLERANCE = 1e-5;

enum { OUTPUTS = 4, THREADS_MAX = 3 };
static const char *const output_names[OUTPUTS] = {"forward", "dX", "dX accumulate", "dW"};

struct shape {
    size_t rows, din, dout;
    unsigned n, m;
    enum nm_layout layout;
};

/* Token-major. */
struct outputs {
    real *data[OUTPUTS];
    size_t length[OUTPUTS];
};

static struct device *device_open(const char *name, struct pool *pool)
{
    static const struct device_limits limits = {
        .dim_max = 1, .vocab = 1, .context = 1, .head_dim = 2, .nm_values = (size_t)600 * 600};
    struct device *dev = NULL;
    assert_int_equal(device_create(&dev, name, pool, NULL), 0);
    assert_int_equal(device_reserve(dev, &limits, NULL), 0);
    return dev;
}

static real *act_normal(struct device *dev, size_t rows, size_t dim, uint32_t stream)
{
    real *host = fixture_normal(rows * dim, stream);
    real *act = mem_aligned(dev->ops->act_size(rows, dim), sizeof *act);
    assert_non_null(act);
    dev->ops->act_load(dev, act, host, rows, dim);
    mem_aligned_free(host);
    return act;
}

static void keep(struct device *dev, struct outputs *out, size_t at, const real *act,
                 size_t rows, size_t dim)
{
    out->length[at] = rows * dim;
    out->data[at] = mem_aligned(rows * dim, sizeof *out->data[at]);
    assert_non_null(out->data[at]);
    dev->ops->act_store(dev, out->data[at], act, rows, dim);
}

static void run(struct device *dev, const struct shape *s, struct outputs *out)
{
    struct nm w = fixture_nm(dev, s->dout, s->din, s->n, s->m, 1);
    if (s->layout == NM_LAYOUT_BLOCK) {
        w.layout = s->layout;
        nm_init_mask(&w, 3, 1);
        dev->ops->nm_repack(dev, &w);
    }
    real *x = act_normal(dev, s->rows, s->din, 2), *dy = act_normal(dev, s->rows, s->dout, 3);
    real *y = act_normal(dev, s->rows, s->dout, 4), *dx = act_normal(dev, s->rows, s->din, 5);
    dev->ops->nm_forward(dev, y, x, &w, s->rows);
    keep(dev, out, 0, y, s->rows, s->dout);
    dev->ops->nm_backward_x(dev, dx, dy, &w, s->rows, 0);
    keep(dev, out, 1, dx, s->rows, s->din);
    dev->ops->nm_backward_x(dev, dx, dy, &w, s->rows, 1);
    keep(dev, out, 2, dx, s->rows, s->din);
    out->length[3] = nm_count(&w);
    out->data[3] = fixture_normal(nm_count(&w), 6);
    dev->ops->nm_backward_w(dev, out->data[3], dy, x, &w, s->rows);
    real *const buffers[] = {x, y, dx, dy};
    for (size_t i = 0; i < sizeof buffers / sizeof *buffers; i++)
        mem_aligned_free(buffers[i]);
    fixture_nm_release(&w);
}

static void outputs_release(struct outputs *out)
{
    for (size_t i = 0; i < OUTPUTS; i++)
        mem_aligned_free(out->data[i]);
}

static void compare(const struct shape *s, const char *isa, const struct outputs *want,
                    const struct outputs *got)
{
    for (size_t i = 0; i < OUTPUTS; i++) {
        double top = 1e-30, worst = 0;
        for (size_t j = 0; j < want->length[i]; j++) {
            double difference = fabs((double)want->data[i][j] - (double)got->data[i][j]);
            top = fmax(top, fabs((double)want->data[i][j]));
            worst = isnan(difference) ? HUGE_VAL : fmax(worst, difference);
        }
        if (!(worst <= SUM_TOLERANCE * top))
            fail_msg("%s %u:%u %s %zu x (%zu -> %zu), %s: off by %g at scale %g", isa, s->n,
                     s->m, nm_layout_names[s->layout], s->rows, s->din, s->dout,
                     output_names[i], worst, top);
    }
}

/* Runs fn(shape) for every N:M at a shape with two blocks each way, and for some at shapes with
 * several strips, a single token, row or group. */
static void for_every_shape(void (*fn)(void *context, const struct shape *s), void *context)
{
    for (unsigned m = 2; m <= NM_M_MAX; m++)
        for (unsigned n = 1; n < m; n++) {
            struct shape s = {
                .rows = 67, .din = CPU_BLOCK / m * m + 2 * m, .dout = 69, .n = n, .m = m};
            fn(context, &s);
        }
    static const size_t sizes[][3] = {{1, 4, 4},      {64, 64, 64}, {65, 284, 132},
                                      {130, 544, 20}, {3, 12, 300}, {321, 8, 4}};
    for (unsigned n = 1; n < 4; n++)
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
            for (int layout = NM_LAYOUT_ROW; layout <= NM_LAYOUT_BLOCK; layout++) {
                struct shape s = {.rows = sizes[i][0],
                                  .din = sizes[i][1],
                                  .dout = sizes[i][2],
                                  .n = n,
                                  .m = 4,
                                  .layout = (enum nm_layout)layout};
                fn(context, &s);
            }
    static const unsigned wide[][2] = {{2, 3}, {5, 16}, {15, 16}, {4, 5}, {5, 7}};
    for (size_t i = 0; i < sizeof wide / sizeof *wide; i++) {
        unsigned n = wide[i][0], m = wide[i][1];
        struct shape s = {.rows = 66, .din = 530 / m * m, .dout = 65, .n = n, .m = m};
        fn(context, &s);
    }
}

struct devices {
    struct device *ref, *cpu[THREADS_MAX];
    struct pool *pools[THREADS_MAX];
};

static void devices_open(struct devices *d)
{
    d->ref = device_open("ref", NULL);
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        assert_int_equal(pool_create(&d->pools[i], i + 1, NULL), 0);
        d->cpu[i] = device_open("cpu", d->pools[i]);
    }
}

static void devices_close(struct devices *d)
{
    device_destroy(d->ref);
    for (unsigned i = 0; i < THREADS_MAX; i++) {
        device_destroy(d->cpu[i]);
        pool_destroy(d->pools[i]);
    }
}

static void check_reference(void *context, const struct shape *s)
{
    struct devices *d = context;
    struct outputs want, got;
    run(d->ref, s, &want);
    for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
        if (!cpu_kernels_supported(*set))
            continue;
        cpu_device_use(d->cpu[0], *set);
        run(d->cpu[0], s, &got);
        compare(s, (*set)->isa, &want, &got);
        outputs_release(&got);
    }
    outputs_release(&want);
}

static void every_product_agrees_with_the_reference(void **state)
{
    (void)state;
    struct devices d;
    devices_open(&d);
    for_every_shape(check_reference, &d);
    devices_close(&d);
}

static void check_bits(void *context, const struct shape *s)
{
    struct devices *d = context;
    if (s->m != 4 && s->n != s->m / 2)
        return; /* the split into tasks knows m, not n */
    for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
        if (!cpu_kernels_supported(*set))
            continue;
        struct outputs out[THREADS_MAX];
        for (unsigned t = 0; t < THREADS_MAX; t++) {
            cpu_device_use(d->cpu[t], *set);
            run(d->cpu[t], s, &out[t]);
            for (size_t i = 0; i < OUTPUTS; i++)
                if (memcmp(out[0].data[i], out[t].data[i], out[0].length[i] * sizeof(real)) !=
                    0)
                    fail_msg("%s %u:%u %s %zu x (%zu -> %zu), %s: %u threads give other bits",
                             (*set)->isa, s->n, s->m, nm_layout_names[s->layout], s->rows,
                             s->din, s->dout, output_names[i], t + 1);
        }
        for (unsigned t = 0; t < THREADS_MAX; t++)
            outputs_release(&out[t]);
    }
}

static void bits_do_not_depend_on_the_number_of_threads(void **state)
{
    (void)state;
    struct devices d;
    devices_open(&d);
    for_every_shape(check_bits, &d);
    devices_close(&d);
}

/* An infinite gradient of one token must not reach others, nor features without a link to it.
 */
static void what_is_not_finite_stays_where_it_belongs(void **state)
{
    (void)state;
    enum { ROWS = 5, DIM = 68, BAD = 3 };
    struct device *dev = device_open("cpu", NULL);
    for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
        if (!cpu_kernels_supported(*set))
            continue;
        cpu_device_use(dev, *set);
        struct nm w = fixture_nm(dev, DIM, DIM, 1, 4, 1);
        real *host = fixture_normal(ROWS * DIM, 2);
        for (size_t o = 0; o < DIM; o += 64) /* the first rows of each block */
            host[BAD * DIM + o] = INFINITY;
        real *dy = mem_aligned(dev->ops->act_size(ROWS, DIM), sizeof *dy);
        real *dx = mem_aligned(dev->ops->act_size(ROWS, DIM), sizeof *dx);
        assert_true(dy && dx);
        dev->ops->act_load(dev, dy, host, ROWS, DIM);
        dev->ops->nm_backward_x(dev, dx, dy, &w, ROWS, 0);
        dev->ops->act_store(dev, host, dx, ROWS, DIM);
        for (size_t r = 0; r < ROWS; r++)
            for (size_t i = 0; i < DIM; i++) {
                bool linked = nm_active(&w, i) || nm_active(&w, (size_t)64 * DIM + i);
                assert_int_equal(!isfinite(host[r * DIM + i]), r == BAD && linked);
            }
        mem_aligned_free(host);
        mem_aligned_free(dy);
        mem_aligned_free(dx);
        fixture_nm_release(&w);
    }
    device_destroy(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_product_agrees_with_the_reference),
        cmocka_unit_test(bits_do_not_depend_on_the_number_of_threads),
        cmocka_unit_test(what_is_not_finite_stays_where_it_belongs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
