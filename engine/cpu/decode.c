/* Decoding beside the products (select.c): norm, SwiGLU, the cache and attention over it. All
 * but attention is so little work that the caller does it alone. */
#include "engine/cpu/blas.h"
#include "engine/cpu/cpu.h"
#include <assert.h>
#include <math.h>
#include <string.h>

void cpu_decode_norm(struct device *dev, real *out, const real *x, const real *w, real eps,
                     size_t rows, size_t dim)
{
    for (size_t r = 0; r < rows; r++)
        cpu_kernels_of(dev)->row_norm(out + r * dim, x + r * dim, w, eps, dim);
}

void cpu_decode_swiglu(struct device *dev, real *out, const real *gate, const real *up,
                       size_t rows, size_t dim)
{
    for (size_t r = 0; r < rows; r++)
        cpu_kernels_of(dev)->swiglu_forward(out + r * dim, gate + r * dim, up + r * dim, dim);
}

/* First number of head h of a sequence in the cache. */
static size_t head_start(const struct decode_cache *cache, size_t sequence, size_t h)
{
    return (sequence * cache->kv_heads + h) * cache->capacity * cache->head_dim;
}

void cpu_decode_append(struct device *dev, const struct decode_cache *cache, real *q, real *k,
                       const real *v, const real *cosine, const real *sine,
                       const struct decode_place *places, size_t rows)
{
    const struct cpu_kernels *kernels = cpu_kernels_of(dev);
    size_t D = cache->head_dim, H = cache->heads, K = cache->kv_heads, half = D / 2;
    for (size_t r = 0; r < rows; r++) {
        const float *c = cosine + places[r].place * half, *s = sine + places[r].place * half;
        assert(places[r].place < cache->capacity);
        kernels->row_rope(q + r * H * D, c, s, H, half);
        kernels->row_rope(k + r * K * D, c, s, K, half);
        for (size_t h = 0; h < K; h++) {
            size_t at = head_start(cache, places[r].sequence, h) + places[r].place * D;
            memcpy(cache->keys + at, k + (r * K + h) * D, D * sizeof *k);
            memcpy(cache->values + at, v + (r * K + h) * D, D * sizeof *v);
        }
    }
}

struct attend_job {
    const struct cpu_kernels *kernels;
    const struct decode_cache *cache;
    const struct decode_place *places;
    float *out, *scratch; /* scratch: (threads, capacity) */
    const float *q;
    float scale; /* 1 / sqrt(D) */
};

/* One row and one key/value head, with all query heads that share it. */
static void attend_task(void *context, size_t task, unsigned thread)
{
    const struct attend_job *job = context;
    const struct decode_cache *cache = job->cache;
    size_t D = cache->head_dim, H = cache->heads, K = cache->kv_heads, shared = H / K;
    size_t r = task / K, kv = task % K, count = job->places[r].place + 1;
    size_t start = head_start(cache, job->places[r].sequence, kv);
    float *scores = job->scratch + thread * cache->capacity;
    const struct blas_matrix keys = {cache->keys + start, D, false};
    const struct blas_matrix values = {cache->values + start, D, true};
    for (size_t h = kv * shared; h < (kv + 1) * shared; h++) {
        size_t own = (r * H + h) * D;
        blas_vector_product(scores, keys, job->q + own, count, D, false);
        job->kernels->row_softmax(scores, job->scale, count);
        blas_vector_product(job->out + own, values, scores, D, count, false);
    }
}

void cpu_decode_attention(struct device *dev, real *out, const real *q,
                          const struct decode_cache *cache, const struct decode_place *places,
                          size_t rows)
{
    struct attend_job job = {.kernels = cpu_kernels_of(dev),
                             .cache = cache,
                             .places = places,
                             .out = out,
                             .scratch = dev->scratch,
                             .q = q,
                             .scale = 1.0f / sqrtf((float)cache->head_dim)};
    assert(cache->heads % cache->kv_heads == 0);
    assert(dev->scratch_bytes >=
           pool_threads(dev->pool) * cache->capacity * sizeof *job.scratch);
    pool_run(dev->pool, rows * cache->kv_heads, attend_task, &job);
}

struct fill_job {
    const struct cpu_kernels *kernels;
    const struct decode_cache *cache;
    const float *k, *v;
    size_t sequence, rows;
};

/* One panel: every head is (D, CPU_PANEL) there and (tokens, D) in the cache. */
static void fill_task(void *context, size_t p, unsigned thread)
{
    (void)thread;
    const struct fill_job *job = context;
    const struct decode_cache *cache = job->cache;
    size_t D = cache->head_dim, K = cache->kv_heads, lanes = cpu_lanes(job->rows, p);
    for (size_t h = 0; h < K; h++) {
        size_t at = head_start(cache, job->sequence, h) + p * CPU_PANEL * D;
        size_t from = (p * K + h) * D * CPU_PANEL;
        job->kernels->transpose(cache->keys + at, D, job->k + from, CPU_PANEL, D, lanes);
        job->kernels->transpose(cache->values + at, D, job->v + from, CPU_PANEL, D, lanes);
    }
}

void cpu_decode_fill(struct device *dev, const struct decode_cache *cache, const real *k,
                     const real *v, size_t sequence, size_t rows)
{
    struct fill_job job = {.kernels = cpu_kernels_of(dev),
                           .cache = cache,
                           .k = k,
                           .v = v,
                           .sequence = sequence,
                           .rows = rows};
    assert(rows <= cache->capacity);
    pool_run(dev->pool, cpu_panels(rows), fill_task, &job);
}
