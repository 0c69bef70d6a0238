/* Causal attention of bf16 heads of 64 or 128 by tensor cores, forward and backward, without a T x T matrix (Dao 2023,
 * FlashAttention-2). A block has four warps of 16 rows: of queries in the forward pass and for dq, of keys for dk and dv. The two
 * backward kernels each make the scores again, so that no sum needs atomics and bits are the same in every run. */
#include "engine/cuda/flash.h"
#include "engine/cuda/mma.cuh"

enum { ROWS = 64, BLOCK = 128, PAD = 8 /* keeps rows of shared memory in different banks */ };

struct shape {
    unsigned context, heads, kv_heads;
    float scale; /* 1 / sqrt(D) */
};

static constexpr float LOG2E = 1.4426950408889634f;

/* tile (ROWS, D) = rows first .. of a head, 0 past `rows`. stride: elements from row to row. */
template <int D>
__device__ __forceinline__ void load_tile(bf16 (*tile)[D + PAD], const bf16 *head, size_t stride,
                                          unsigned first, unsigned rows)
{
    for (unsigned i = threadIdx.x; i < ROWS * (D / 8); i += BLOCK) {
        const unsigned row = i / (D / 8), column = i % (D / 8) * 8;
        uint4 piece = {0, 0, 0, 0};
        if (first + row < rows)
            piece = *(const uint4 *)(const void *)(head + (first + row) * stride + column);
        *(uint4 *)(void *)&tile[row][column] = piece;
    }
}

/* The warp's 16 rows of a matrix in device memory as A fragments; 0 past `rows`. */
template <int D>
__device__ __forceinline__ void load_rows(uint32_t a[D / 16][4], const bf16 *head, size_t stride,
                                          unsigned first, unsigned rows)
{
    const unsigned lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int i = 0; i < 4; i++) {
            const unsigned row = first + g + 8 * (i % 2), column = 16 * k + 2 * t + 8 * (i / 2);
            a[k][i] = row < rows
                          ? *(const uint32_t *)(const void *)(head + row * stride + column)
                          : 0u;
        }
}

/* c (16, ROWS) = a (16, D) tile^T */
template <int D>
__device__ __forceinline__ void product_tile(float c[ROWS / 8][4], const uint32_t a[D / 16][4],
                                             const bf16 (*tile)[D + PAD])
{
    const unsigned lane = threadIdx.x % WARP, matrix = lane / 8;
#pragma unroll
    for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
        for (int i = 0; i < 4; i++)
            c[n][i] = 0;
#pragma unroll
    for (int k = 0; k < D / 16; k++)
#pragma unroll
        for (int n = 0; n < ROWS / 8; n += 2) {
            uint32_t b[4];
            load_matrices(b, &tile[(n + matrix / 2) * 8 + lane % 8][16 * k + 8 * (matrix % 2)]);
            mma_bf16(c[n], a[k], b);
            mma_bf16(c[n + 1], a[k], b + 2);
        }
}

/* c (16, D) += p (16, ROWS) tile; p is an accumulator, which as an A fragment has the same places. */
template <int D>
__device__ __forceinline__ void product_rows(float c[D / 8][4], const float p[ROWS / 8][4],
                                             const bf16 (*tile)[D + PAD])
{
    const unsigned lane = threadIdx.x % WARP, matrix = lane / 8;
#pragma unroll
    for (int k = 0; k < ROWS / 16; k++) {
        const uint32_t a[4] = {
            pack_bf16(p[2 * k][0], p[2 * k][1]), pack_bf16(p[2 * k][2], p[2 * k][3]),
            pack_bf16(p[2 * k + 1][0], p[2 * k + 1][1]), pack_bf16(p[2 * k + 1][2], p[2 * k + 1][3])};
#pragma unroll
        for (int n = 0; n < D / 8; n += 2) {
            uint32_t b[4];
            load_matrices_transposed(
                b, &tile[16 * k + 8 * (matrix % 2) + lane % 8][(n + matrix / 2) * 8]);
            mma_bf16(c[n], a, b);
            mma_bf16(c[n + 1], a, b + 2);
        }
    }
}

/* Rows first + g and first + g + 8 of a head = c times their scale. */
template <int D>
__device__ __forceinline__ void store_rows(bf16 *head, size_t stride, const float c[D / 8][4],
                                           unsigned first, unsigned rows, float low, float high)
{
    const unsigned lane = threadIdx.x % WARP, g = lane / 4, t = lane % 4;
#pragma unroll
    for (int n = 0; n < D / 8; n++)
#pragma unroll
        for (int i = 0; i < 2; i++) {
            const unsigned row = first + g + 8 * i;
            const float scale = i ? high : low;
            if (row < rows)
                *(uint32_t *)(void *)(head + row * stride + 8 * n + 2 * t) =
                    pack_bf16(c[n][2 * i] * scale, c[n][2 * i + 1] * scale);
        }
}

__device__ __forceinline__ float quad_sum(float x)
{
    x += __shfl_xor_sync(0xffffffffu, x, 1);
    return x + __shfl_xor_sync(0xffffffffu, x, 2);
}

__device__ __forceinline__ float quad_max(float x)
{
    x = fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 1));
    return fmaxf(x, __shfl_xor_sync(0xffffffffu, x, 2));
}

/* Where the block's sequence and head start: of q, out with H heads, of k, v with K. */
struct heads {
    size_t q, kv, rows; /* elements, elements, first row of the sequence */
    size_t q_stride, kv_stride;
    unsigned head;
};

template <int D> __device__ __forceinline__ struct heads heads_of(const struct shape &s, unsigned at)
{
    struct heads h;
    h.head = at % s.heads;
    h.rows = (size_t)(at / s.heads) * s.context;
    h.q_stride = (size_t)s.heads * D;
    h.kv_stride = (size_t)s.kv_heads * D;
    h.q = h.rows * h.q_stride + (size_t)h.head * D;
    h.kv = h.rows * h.kv_stride + (size_t)(h.head / (s.heads / s.kv_heads)) * D;
    return h;
}

/* Block (tile of queries, batch * heads). The last tiles, with the most keys, start first. */
template <int D>
__global__ void __launch_bounds__(BLOCK)
    flash_forward_kernel(bf16 *out, float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                         struct shape s)
{
    __shared__ __align__(16) bf16 keys[ROWS][D + PAD];
    __shared__ __align__(16) bf16 values[ROWS][D + PAD];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const unsigned tile = gridDim.x - 1 - blockIdx.x, first = tile * ROWS + warp * 16;
    const struct heads h = heads_of<D>(s, blockIdx.y);
    uint32_t a[D / 16][4];
    float acc[D / 8][4] = {}, top[2] = {-INFINITY, -INFINITY}, sum[2] = {0, 0};
    const float scale = s.scale * LOG2E;
    load_rows<D>(a, q + h.q, h.q_stride, first, s.context);
    for (unsigned j = 0; j <= tile; j++) {
        float p[ROWS / 8][4];
        __syncthreads(); /* readers of the last tile */
        load_tile<D>(keys, k + h.kv, h.kv_stride, j * ROWS, s.context);
        load_tile<D>(values, v + h.kv, h.kv_stride, j * ROWS, s.context);
        __syncthreads();
        product_tile<D>(p, a, keys);
        if (j == tile) /* keys past the sequence are past every query that is stored, too */
#pragma unroll
            for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++)
                    if (j * ROWS + 8 * n + 2 * t + i % 2 > first + g + 8 * (i / 2))
                        p[n][i] = -INFINITY;
#pragma unroll
        for (int r = 0; r < 2; r++) {
            float most = -INFINITY;
#pragma unroll
            for (int n = 0; n < ROWS / 8; n++)
                most = fmaxf(most, fmaxf(p[n][2 * r], p[n][2 * r + 1]));
            most = fmaxf(top[r], quad_max(most));
            const float shrink = exp2f((top[r] - most) * scale);
            top[r] = most;
            sum[r] *= shrink;
#pragma unroll
            for (int n = 0; n < D / 8; n++) {
                acc[n][2 * r] *= shrink;
                acc[n][2 * r + 1] *= shrink;
            }
#pragma unroll
            for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
                for (int i = 2 * r; i < 2 * r + 2; i++) {
                    p[n][i] = exp2f((p[n][i] - most) * scale);
                    sum[r] += p[n][i];
                }
        }
        product_rows<D>(acc, p, values);
    }
    sum[0] = quad_sum(sum[0]);
    sum[1] = quad_sum(sum[1]);
    store_rows<D>(out + h.q, h.q_stride, acc, first, s.context, 1.0f / sum[0], 1.0f / sum[1]);
    for (unsigned r = 0; r < 2; r++)
        if (t == 0 && first + g + 8 * r < s.context)
            lse[(h.rows + first + g + 8 * r) * s.heads + h.head] = top[r] * s.scale + logf(sum[r]);
}

/* Block (tile of queries, batch * heads): dq = scale ds k, ds = p (dout v^T - delta). */
template <int D>
__global__ void __launch_bounds__(BLOCK)
    flash_backward_q_kernel(bf16 *dq, const bf16 *dout, const float *delta, const float *lse,
                            const bf16 *q, const bf16 *k, const bf16 *v, struct shape s)
{
    __shared__ __align__(16) bf16 keys[ROWS][D + PAD];
    __shared__ __align__(16) bf16 values[ROWS][D + PAD];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const unsigned tile = gridDim.x - 1 - blockIdx.x, first = tile * ROWS + warp * 16;
    const struct heads h = heads_of<D>(s, blockIdx.y);
    uint32_t a[D / 16][4], da[D / 16][4];
    float acc[D / 8][4] = {}, row_lse[2] = {0, 0}, row_delta[2] = {0, 0};
    const float scale = s.scale * LOG2E;
    load_rows<D>(a, q + h.q, h.q_stride, first, s.context);
    load_rows<D>(da, dout + h.q, h.q_stride, first, s.context);
    for (unsigned r = 0; r < 2; r++)
        if (first + g + 8 * r < s.context) {
            const size_t at = (h.rows + first + g + 8 * r) * s.heads + h.head;
            row_lse[r] = lse[at] * LOG2E;
            row_delta[r] = delta[at];
        }
    for (unsigned j = 0; j <= tile; j++) {
        float p[ROWS / 8][4], dp[ROWS / 8][4];
        __syncthreads();
        load_tile<D>(keys, k + h.kv, h.kv_stride, j * ROWS, s.context);
        load_tile<D>(values, v + h.kv, h.kv_stride, j * ROWS, s.context);
        __syncthreads();
        product_tile<D>(p, a, keys);
        product_tile<D>(dp, da, values);
#pragma unroll
        for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
            for (int i = 0; i < 4; i++) {
                const unsigned key = j * ROWS + 8 * n + 2 * t + i % 2, r = i / 2;
                const float x = key > first + g + 8 * r
                                    ? 0.0f
                                    : exp2f(p[n][i] * scale - row_lse[r]);
                p[n][i] = x * (dp[n][i] - row_delta[r]);
            }
        product_rows<D>(acc, p, keys);
    }
    store_rows<D>(dq + h.q, h.q_stride, acc, first, s.context, s.scale, s.scale);
}

/* Block (tile of keys, batch * kv_heads): with everything transposed, a warp has 16 keys and a tile of queries as columns.
 * dv = p^T dout, dk = scale ds^T q, over the query heads that share the key head. */
template <int D>
__global__ void __launch_bounds__(BLOCK)
    flash_backward_kv_kernel(bf16 *dk, bf16 *dv, const bf16 *dout, const float *delta,
                             const float *lse, const bf16 *q, const bf16 *k, const bf16 *v,
                             struct shape s)
{
    __shared__ __align__(16) bf16 queries[ROWS][D + PAD];
    __shared__ __align__(16) bf16 gradients[ROWS][D + PAD];
    __shared__ float column_lse[ROWS], column_delta[ROWS];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP, g = lane / 4, t = lane % 4;
    const unsigned tile = blockIdx.x, first = tile * ROWS + warp * 16, shared_by = s.heads / s.kv_heads;
    const unsigned sequence = blockIdx.y / s.kv_heads, kv_head = blockIdx.y % s.kv_heads;
    uint32_t a[D / 16][4], av[D / 16][4];
    float acc_k[D / 8][4] = {}, acc_v[D / 8][4] = {};
    const float scale = s.scale * LOG2E;
    const struct heads own = heads_of<D>(s, sequence * s.heads + kv_head * shared_by);
    load_rows<D>(a, k + own.kv, own.kv_stride, first, s.context);
    load_rows<D>(av, v + own.kv, own.kv_stride, first, s.context);
    for (unsigned shared = 0; shared < shared_by; shared++) {
        const struct heads h = heads_of<D>(s, sequence * s.heads + kv_head * shared_by + shared);
        for (unsigned j = tile; j * ROWS < s.context; j++) {
            float p[ROWS / 8][4], dp[ROWS / 8][4];
            __syncthreads();
            load_tile<D>(queries, q + h.q, h.q_stride, j * ROWS, s.context);
            load_tile<D>(gradients, dout + h.q, h.q_stride, j * ROWS, s.context);
            for (unsigned i = threadIdx.x; i < ROWS; i += BLOCK) {
                const bool there = j * ROWS + i < s.context;
                const size_t at = (h.rows + j * ROWS + i) * s.heads + h.head;
                column_lse[i] = there ? lse[at] * LOG2E : 0.0f;
                column_delta[i] = there ? delta[at] : 0.0f;
            }
            __syncthreads();
            product_tile<D>(p, a, queries);
            product_tile<D>(dp, av, gradients);
#pragma unroll
            for (int n = 0; n < ROWS / 8; n++)
#pragma unroll
                for (int i = 0; i < 4; i++) {
                    const unsigned column = 8 * n + 2 * t + i % 2, query = j * ROWS + column;
                    const bool seen = query >= first + g + 8 * (i / 2) && query < s.context;
                    const float x = seen ? exp2f(p[n][i] * scale - column_lse[column]) : 0.0f;
                    p[n][i] = x;
                    dp[n][i] = x * (dp[n][i] - column_delta[column]);
                }
            product_rows<D>(acc_v, p, gradients);
            product_rows<D>(acc_k, dp, queries);
        }
    }
    store_rows<D>(dk + own.kv, own.kv_stride, acc_k, first, s.context, s.scale, s.scale);
    store_rows<D>(dv + own.kv, own.kv_stride, acc_v, first, s.context, 1.0f, 1.0f);
}

bool flash_takes(const struct device *dev, const struct attention_shape *shape)
{
    return cuda_of(dev)->bf16 && (shape->head_dim == 64 || shape->head_dim == 128) &&
           shape->batch * shape->heads <= 65535;
}

static struct shape shape_of(const struct attention_shape *shape)
{
    struct shape s = {(unsigned)shape->context, (unsigned)shape->heads, (unsigned)shape->kv_heads,
                      1.0f / sqrtf((float)shape->head_dim)};
    return s;
}

static dim3 grid_of(const struct attention_shape *shape, size_t heads)
{
    return dim3((unsigned)((shape->context + ROWS - 1) / ROWS), (unsigned)(shape->batch * heads));
}

void flash_forward(struct device *dev, real *out, real *lse, const real *q, const real *k,
                   const real *v, const struct attention_shape *shape)
{
    auto *kernel = shape->head_dim == 64 ? flash_forward_kernel<64> : flash_forward_kernel<128>;
    CUDA_LAUNCH(kernel, grid_of(shape, shape->heads), BLOCK, 0, cuda_of(dev)->stream,
                act_at<bf16>(dev, out), fp32_at(dev, lse), act_at<bf16>(dev, q), act_at<bf16>(dev, k),
                act_at<bf16>(dev, v), shape_of(shape));
    cuda_launched(dev, "attention_forward");
}

void flash_backward(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                    const float *delta, const real *lse, const real *q, const real *k, const real *v,
                    const struct attention_shape *shape)
{
    cudaStream_t stream = cuda_of(dev)->stream;
    auto *queries =
        shape->head_dim == 64 ? flash_backward_q_kernel<64> : flash_backward_q_kernel<128>;
    auto *keys =
        shape->head_dim == 64 ? flash_backward_kv_kernel<64> : flash_backward_kv_kernel<128>;
    CUDA_LAUNCH(queries, grid_of(shape, shape->heads), BLOCK, 0, stream, act_at<bf16>(dev, dq),
                act_at<bf16>(dev, dout), delta, fp32_at(dev, lse), act_at<bf16>(dev, q),
                act_at<bf16>(dev, k), act_at<bf16>(dev, v), shape_of(shape));
    CUDA_LAUNCH(keys, grid_of(shape, shape->kv_heads), BLOCK, 0, stream, act_at<bf16>(dev, dk),
                act_at<bf16>(dev, dv), act_at<bf16>(dev, dout), delta, fp32_at(dev, lse),
                act_at<bf16>(dev, q), act_at<bf16>(dev, k), act_at<bf16>(dev, v), shape_of(shape));
    cuda_launched(dev, "attention_backward");
}
