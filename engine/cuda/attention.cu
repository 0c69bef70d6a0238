/* Causal attention without a T x T matrix. Heads of any size: a warp per query (or key) with fp32 arithmetic; flash.cu
 * takes what tensor cores can. */
#include "engine/cuda/flash.h"
#include "engine/cuda/kernel.cuh"

#include <assert.h>

/* Rows of q, out: (heads, D); of k, v: (kv_heads, D). */
struct shape {
    size_t context, heads, kv_heads, dim; /* T, H, K, D */
    float scale;                          /* 1 / sqrt(D) */
};

enum { WARPS = THREADS / WARP, LANE_DIMS = CUDA_HEAD_DIM_MAX / WARP };

template <class T>
__device__ __forceinline__ float dot(const float *a, const T *b, size_t count)
{
    float sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * to_float(b[i]);
    return sum;
}

/* The warp's vector `to` (of shared memory) = the row at `from`. */
template <class T>
__device__ __forceinline__ void stage(float *to, const T *from, size_t count)
{
    for (size_t i = threadIdx.x % WARP; i < count; i += WARP)
        to[i] = to_float(from[i]);
}

/* acc += p[lane j] * row j for the rows of a tile that are there; lanes own dimensions lane, lane + WARP, ... */
template <class T>
__device__ __forceinline__ void add_rows(float acc[LANE_DIMS], float p, const T *rows, size_t stride,
                                         unsigned count, size_t dim)
{
    for (unsigned j = 0; j < count; j++) {
        const float pj = __shfl_sync(0xffffffffu, p, (int)j);
        for (unsigned k = 0; k < LANE_DIMS; k++) {
            const size_t i = threadIdx.x % WARP + k * WARP;
            if (i < dim)
                acc[k] += pj * to_float(rows[j * stride + i]);
        }
    }
}

template <class T>
__device__ __forceinline__ void write_row(T *out, const float acc[LANE_DIMS], float scale, size_t dim)
{
    for (unsigned k = 0; k < LANE_DIMS; k++) {
        const size_t i = threadIdx.x % WARP + k * WARP;
        if (i < dim)
            out[i] = from_float<T>(acc[k] * scale);
    }
}

/* A warp: query head h of row r, `own` = r * H + h < count. Keys come in tiles of WARP, one a lane; the running maximum
 * rescales what was added up before (online softmax). */
template <class T>
__global__ void forward_kernel(T *out, float *lse, const T *q, const T *k, const T *v,
                               struct shape s, size_t count)
{
    __shared__ float queries[WARPS][CUDA_HEAD_DIM_MAX];
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const size_t own = (size_t)blockIdx.x * WARPS + warp;
    if (own >= count)
        return;
    const size_t r = own / s.heads, h = own % s.heads, t = r % s.context;
    const size_t stride = s.kv_heads * s.dim;
    const size_t first = (r - t) * stride + h / (s.heads / s.kv_heads) * s.dim;
    float *query = queries[warp];
    stage(query, q + own * s.dim, s.dim);
    __syncwarp();
    float acc[LANE_DIMS] = {}, top = -INFINITY, sum = 0;
    for (size_t j0 = 0; j0 <= t; j0 += WARP) {
        const size_t j = j0 + lane;
        const float score =
            j <= t ? s.scale * dot(query, k + first + j * stride, s.dim) : -INFINITY;
        const float above = fmaxf(top, warp_max(score));
        const float p = expf(score - above), shrink = expf(top - above);
        top = above;
        sum = sum * shrink + warp_sum(p);
        for (unsigned i = 0; i < LANE_DIMS; i++)
            acc[i] *= shrink;
        const unsigned rows = t - j0 < WARP - 1 ? (unsigned)(t - j0) + 1 : (unsigned)WARP;
        add_rows(acc, p, v + first + j0 * stride, stride, rows, s.dim);
    }
    write_row(out + own * s.dim, acc, 1.0f / sum, s.dim);
    if (lane == 0)
        lse[own] = top + logf(sum);
}

/* delta[own] = dout . out, a warp each. */
template <class T>
__global__ void delta_kernel(float *delta, const T *dout, const T *out, size_t dim, size_t count)
{
    const size_t own = (size_t)blockIdx.x * WARPS + threadIdx.x / WARP;
    if (own >= count)
        return;
    float sum = 0;
    for (size_t i = threadIdx.x % WARP; i < dim; i += WARP)
        sum += to_float(dout[own * dim + i]) * to_float(out[own * dim + i]);
    sum = warp_sum(sum);
    if (threadIdx.x % WARP == 0)
        delta[own] = sum;
}

/* dq = sum_j ds_j k_j, ds_j = p_j (dout . v_j - delta) scale. A warp per query head. */
template <class T>
__global__ void backward_q_kernel(T *dq, const T *dout, const float *delta, const float *lse, const T *q,
                                  const T *k, const T *v, struct shape s, size_t count)
{
    __shared__ float queries[WARPS][CUDA_HEAD_DIM_MAX], gradients[WARPS][CUDA_HEAD_DIM_MAX];
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const size_t own = (size_t)blockIdx.x * WARPS + warp;
    if (own >= count)
        return;
    const size_t r = own / s.heads, h = own % s.heads, t = r % s.context;
    const size_t stride = s.kv_heads * s.dim;
    const size_t first = (r - t) * stride + h / (s.heads / s.kv_heads) * s.dim;
    stage(queries[warp], q + own * s.dim, s.dim);
    stage(gradients[warp], dout + own * s.dim, s.dim);
    __syncwarp();
    float acc[LANE_DIMS] = {};
    for (size_t j0 = 0; j0 <= t; j0 += WARP) {
        const size_t j = j0 + lane;
        float ds = 0;
        if (j <= t) {
            const size_t at = first + j * stride;
            const float p = expf(s.scale * dot(queries[warp], k + at, s.dim) - lse[own]);
            ds = p * (dot(gradients[warp], v + at, s.dim) - delta[own]) * s.scale;
        }
        const unsigned rows = t - j0 < WARP - 1 ? (unsigned)(t - j0) + 1 : (unsigned)WARP;
        add_rows(acc, ds, k + first + j0 * stride, stride, rows, s.dim);
    }
    write_row(dq + own * s.dim, acc, 1.0f, s.dim);
}

/* dk_j = sum ds q, dv_j = sum p dout over the queries t >= j of the heads that share the key. A warp per key head: `own` =
 * row * K + kv head. */
template <class T>
__global__ void backward_kv_kernel(T *dk, T *dv, const T *dout, const float *delta, const float *lse,
                                   const T *q, const T *k, const T *v, struct shape s, size_t count)
{
    __shared__ float keys[WARPS][CUDA_HEAD_DIM_MAX], values[WARPS][CUDA_HEAD_DIM_MAX];
    const unsigned warp = threadIdx.x / WARP, lane = threadIdx.x % WARP;
    const size_t own = (size_t)blockIdx.x * WARPS + warp;
    if (own >= count)
        return;
    const size_t r = own / s.kv_heads, j = r % s.context, sequence = r - j;
    const size_t shared_by = s.heads / s.kv_heads, stride = s.heads * s.dim;
    stage(keys[warp], k + own * s.dim, s.dim);
    stage(values[warp], v + own * s.dim, s.dim);
    __syncwarp();
    float acc_k[LANE_DIMS] = {}, acc_v[LANE_DIMS] = {};
    for (size_t g = 0; g < shared_by; g++) {
        const size_t h = own % s.kv_heads * shared_by + g;
        for (size_t t0 = j; t0 < s.context; t0 += WARP) {
            const size_t t = t0 + lane, row = (sequence + t) * s.heads + h;
            float p = 0, ds = 0;
            if (t < s.context) {
                p = expf(s.scale * dot(keys[warp], q + row * s.dim, s.dim) - lse[row]);
                ds = p * (dot(values[warp], dout + row * s.dim, s.dim) - delta[row]) * s.scale;
            }
            const size_t left = s.context - t0, from = ((sequence + t0) * s.heads + h) * s.dim;
            const unsigned rows = left < WARP ? (unsigned)left : (unsigned)WARP;
            add_rows(acc_k, ds, q + from, stride, rows, s.dim);
            add_rows(acc_v, p, dout + from, stride, rows, s.dim);
        }
    }
    write_row(dk + own * s.dim, acc_k, 1.0f, s.dim);
    write_row(dv + own * s.dim, acc_v, 1.0f, s.dim);
}

static struct shape shape_of(const struct attention_shape *shape)
{
    assert(shape->head_dim <= CUDA_HEAD_DIM_MAX && shape->heads % shape->kv_heads == 0);
    struct shape s = {shape->context, shape->heads, shape->kv_heads, shape->head_dim,
                      1.0f / sqrtf((float)shape->head_dim)};
    return s;
}

static unsigned warp_blocks(size_t count) { return (unsigned)((count + WARPS - 1) / WARPS); }

void cuda_attention_forward(struct device *dev, real *out, real *lse, const real *q, const real *k,
                            const real *v, const struct attention_shape *shape)
{
    const size_t count = shape->batch * shape->context * shape->heads;
    if (flash_takes(dev, shape)) {
        flash_forward(dev, out, lse, q, k, v, shape);
        return;
    }
    WITH_ACT_TYPE(dev, {
        auto *kernel = forward_kernel<T>;
        CUDA_LAUNCH(kernel, warp_blocks(count), THREADS, 0, cuda_of(dev)->stream,
                    act_at<T>(dev, out), fp32_at(dev, lse), act_at<T>(dev, q), act_at<T>(dev, k),
                    act_at<T>(dev, v), shape_of(shape), count);
    });
    cuda_launched(dev, "attention_forward");
}

void cuda_attention_backward(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                             const real *out, const real *lse, const real *q, const real *k,
                             const real *v, const struct attention_shape *shape)
{
    const size_t rows = shape->batch * shape->context, count = rows * shape->heads;
    const struct shape s = shape_of(shape);
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_round(count * sizeof(float)));
    float *delta = (float *)cuda_piece(&scratch, count * sizeof(float));
    cudaStream_t stream = cuda_of(dev)->stream;
    if (!delta)
        return;
    WITH_ACT_TYPE(dev, {
        auto *first = delta_kernel<T>;
        CUDA_LAUNCH(first, warp_blocks(count), THREADS, 0, stream, delta, act_at<T>(dev, dout),
                    act_at<T>(dev, out), s.dim, count);
        if (flash_takes(dev, shape)) {
            flash_backward(dev, dq, dk, dv, dout, delta, lse, q, k, v, shape);
            return;
        }
        auto *second = backward_q_kernel<T>;
        CUDA_LAUNCH(second, warp_blocks(count), THREADS, 0, stream, act_at<T>(dev, dq),
                    act_at<T>(dev, dout), delta, fp32_at(dev, lse), act_at<T>(dev, q),
                    act_at<T>(dev, k), act_at<T>(dev, v), s, count);
        auto *third = backward_kv_kernel<T>;
        CUDA_LAUNCH(third, warp_blocks(rows * s.kv_heads), THREADS, 0, stream, act_at<T>(dev, dk),
                    act_at<T>(dev, dv), act_at<T>(dev, dout), delta, fp32_at(dev, lse),
                    act_at<T>(dev, q), act_at<T>(dev, k), act_at<T>(dev, v), s, rows * s.kv_heads);
    });
    cuda_launched(dev, "attention_backward");
}
