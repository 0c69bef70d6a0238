#include "worker/tools/bench.h"

#include "proto/base/clock.h"

enum {
    CHAINS = 12,
    TURNS = 1 << 21,
    ROUNDS = 20,
    BYTES_BASE = 16,
    BYTES_AVX2 = 32,
    BYTES_AVX512 = 64
};

/* CHAINS independent accumulators, each a variable of its own (GCC keeps an array of them in
 * memory), hide the latency of the multiply-add on two ports. The empty asm makes the compiler
 * believe that they are used in every turn. -ffp-contract=fast makes one instruction of the two
 * operations. */
#define PEAK_BODY(vector)                                                                      \
    const vector scale = (vector){0} + 0.999f, shift = (vector){0} + 0.001f;                   \
    vector a = shift, b = shift, c = shift, d = shift, e = shift, f = shift;                   \
    vector g = shift, h = shift, i = shift, j = shift, k = shift, l = shift;                   \
    for (int turn = 0; turn < TURNS; turn++) {                                                 \
        a = a * scale + shift, b = b * scale + shift, c = c * scale + shift;                   \
        d = d * scale + shift, e = e * scale + shift, f = f * scale + shift;                   \
        g = g * scale + shift, h = h * scale + shift, i = i * scale + shift;                   \
        j = j * scale + shift, k = k * scale + shift, l = l * scale + shift;                   \
        __asm__ volatile(""                                                                    \
                         : "+x"(a), "+x"(b), "+x"(c), "+x"(d), "+x"(e), "+x"(f), "+x"(g),      \
                           "+x"(h), "+x"(i), "+x"(j), "+x"(k), "+x"(l));                       \
    }

static void peak_base(void)
{
    typedef float vector __attribute__((vector_size(BYTES_BASE)));
    PEAK_BODY(vector)
}

#ifdef __x86_64__
__attribute__((target("avx2,fma"))) static void peak_avx2(void)
{
    typedef float vector __attribute__((vector_size(BYTES_AVX2)));
    PEAK_BODY(vector)
}

__attribute__((target("avx512f"))) static void peak_avx512(void)
{
    typedef float vector __attribute__((vector_size(BYTES_AVX512)));
    PEAK_BODY(vector)
}
#endif

struct peak_kernel {
    void (*run)(void);
    size_t lanes;
};

static struct peak_kernel peak_choose(void)
{
#ifdef __x86_64__
    if (__builtin_cpu_supports("avx512f")) {
        return (struct peak_kernel){peak_avx512, BYTES_AVX512 / sizeof(float)};
    }
    if (__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma")) {
        return (struct peak_kernel){peak_avx2, BYTES_AVX2 / sizeof(float)};
    }
#endif
    return (struct peak_kernel){peak_base, BYTES_BASE / sizeof(float)};
}

static void peak_task(void *context, size_t task, unsigned thread)
{
    (void)task, (void)thread;
    ((const struct peak_kernel *)context)->run();
}

double bench_peak(struct pool *pool)
{
    struct peak_kernel kernel = peak_choose();
    size_t threads = pool ? pool_threads(pool) : 1;
    double best = 0;
    for (int round = 0; round < ROUNDS; round++) {
        double began = clock_monotonic_s();
        pool_run(pool, threads, peak_task, &kernel);
        double seconds = clock_monotonic_s() - began;
        double flops = 2.0 * CHAINS * TURNS * (double)(kernel.lanes * threads);
        best = flops / seconds > best ? flops / seconds : best;
    }
    return best / 1e9;
}
