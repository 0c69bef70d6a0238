#include "worker/tools/bench.h"

#include "proto/base/clock.h"
#include "proto/base/mem.h"

enum {
    CHAINS = 12,
    TURNS = 1 << 21,
    ROUNDS = 20,
    STREAM_ROUNDS = 12,
    STREAM_ELEMENTS = 1 << 24, /* of an array: 64 MiB */
    STREAM_CHUNK = 1 << 16,
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

struct stream_job {
    float *restrict a;
    const float *restrict b, *restrict c;
};

static void stream_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    const struct stream_job *job = context;
    for (size_t i = task * STREAM_CHUNK; i < (task + 1) * STREAM_CHUNK; i++) {
        job->a[i] = job->b[i] + 0.5f * job->c[i];
    }
}

double bench_stream(struct pool *pool)
{
    double best = 0;
    float *memory = mem_aligned(3 * (size_t)STREAM_ELEMENTS, sizeof *memory);
    if (!memory) {
        return 0;
    }
    for (size_t i = 0; i < 3 * (size_t)STREAM_ELEMENTS; i++) {
        memory[i] = 1; /* else all pages would be the one of zeros */
    }
    struct stream_job job = {
        .a = memory, .b = memory + STREAM_ELEMENTS, .c = memory + 2 * (size_t)STREAM_ELEMENTS};
    for (int round = 0; round < STREAM_ROUNDS; round++) {
        double began = clock_monotonic_s();
        pool_run(pool, STREAM_ELEMENTS / STREAM_CHUNK, stream_task, &job);
        double bytes = 3.0 * STREAM_ELEMENTS * sizeof(float);
        double rate = bytes / (clock_monotonic_s() - began) / 1e9;
        best = rate > best ? rate : best;
    }
    mem_aligned_free(memory);
    return best;
}
