/* Rows that work on activations element by element or row by row: moves, embedding, RMSNorm, rotary positions, SwiGLU,
 * the adapter's gate, and the head with its cross-entropy. */
#include "engine/cuda/kernel.cuh"

#include <assert.h>

/* --- moves --- */

template <class T>
__global__ void load_kernel(T *out, const float *in, size_t count)
{
    for (size_t i = thread_index(); i < count; i += thread_count())
        out[i] = from_float<T>(in[i]);
}

template <class T>
__global__ void store_kernel(float *out, const T *in, size_t count)
{
    for (size_t i = thread_index(); i < count; i += thread_count())
        out[i] = to_float(in[i]);
}

void cuda_act_load(struct device *dev, real *act, const real *host, size_t rows, size_t dim)
{
    const size_t count = rows * dim;
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_round(count * sizeof(float)));
    float *copy = (float *)cuda_piece(&scratch, count * sizeof(float));
    if (!copy)
        return;
    cudaStream_t stream = cuda_of(dev)->stream;
    cuda_fail(dev, "act_load",
              cudaMemcpyAsync(copy, host, count * sizeof(float), cudaMemcpyHostToDevice, stream));
    WITH_ACT_TYPE(dev, {
        auto *kernel = load_kernel<T>;
        CUDA_LAUNCH(kernel, blocks_for(count), THREADS, 0, stream, act_at<T>(dev, act), copy, count);
    });
    cuda_launched(dev, "act_load");
}

void cuda_act_store(struct device *dev, real *host, const real *act, size_t rows, size_t dim)
{
    const size_t count = rows * dim;
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_round(count * sizeof(float)));
    float *copy = (float *)cuda_piece(&scratch, count * sizeof(float));
    if (!copy)
        return;
    cudaStream_t stream = cuda_of(dev)->stream;
    WITH_ACT_TYPE(dev, {
        auto *kernel = store_kernel<T>;
        CUDA_LAUNCH(kernel, blocks_for(count), THREADS, 0, stream, copy, act_at<T>(dev, act), count);
    });
    cuda_launched(dev, "act_store");
    cuda_fail(dev, "act_store",
              cudaMemcpyAsync(host, copy, count * sizeof(float), cudaMemcpyDeviceToHost, stream));
    cuda_fail(dev, "act_store", cudaStreamSynchronize(stream));
}

template <class T>
__device__ __forceinline__ T add(T a, T b)
{
    return from_float<T>(to_float(a) + to_float(b));
}

template <class T>
__global__ void add_kernel(T *out, const T *a, const T *b, size_t count)
{
    each_eight(
        count,
        [=](size_t i) {
            const eight<T> x = ((const eight<T> *)a)[i], y = ((const eight<T> *)b)[i];
            eight<T> z;
            for (int k = 0; k < 8; k++)
                z.at[k] = add(x.at[k], y.at[k]);
            ((eight<T> *)out)[i] = z;
        },
        [=](size_t i) { out[i] = add(a[i], b[i]); });
}

void cuda_act_add(struct device *dev, real *out, const real *a, const real *b, size_t rows, size_t dim)
{
    const size_t count = rows * dim;
    WITH_ACT_TYPE(dev, {
        auto *kernel = add_kernel<T>;
        CUDA_LAUNCH(kernel, blocks_for(count / 8), THREADS, 0, cuda_of(dev)->stream, act_at<T>(dev, out),
                    act_at<T>(dev, a), act_at<T>(dev, b), count);
    });
    cuda_launched(dev, "act_add");
}

/* --- embedding --- */

template <class T>
__global__ void embed_kernel(T *out, const float *table, const int32_t *tokens, size_t count, size_t dim)
{
    for (size_t i = thread_index(); i < count; i += thread_count())
        out[i] = from_float<T>(table[(size_t)tokens[i / dim] * dim + i % dim]);
}

void cuda_embed_forward(struct device *dev, real *out, const real *table, const int32_t *tokens,
                        size_t rows, size_t dim)
{
    const size_t bytes = rows * sizeof *tokens, count = rows * dim;
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_input_bytes(dev, tokens, bytes));
    const int32_t *at = (const int32_t *)cuda_input(&scratch, tokens, bytes);
    if (!at)
        return;
    WITH_ACT_TYPE(dev, {
        auto *kernel = embed_kernel<T>;
        CUDA_LAUNCH(kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream, act_at<T>(dev, out),
                    fp32_at(dev, table), at, count, dim);
    });
    cuda_launched(dev, "embed_forward");
}

enum { EMBED_COLUMNS = 4 * THREADS };

/* Block (r, slice): if r is the first row with its token, adds all rows with that token, in ascending order, to the
 * token's row of dtable, columns slice * EMBED_COLUMNS and on. No atomics: the order of the sum is fixed. */
template <class T>
__global__ void embed_backward_kernel(float *dtable, const T *dout, const int32_t *tokens, size_t rows,
                                      size_t dim)
{
    __shared__ int hits[THREADS];
    __shared__ int warp_hits[THREADS / WARP];
    const size_t r = blockIdx.x, base = (size_t)blockIdx.y * EMBED_COLUMNS;
    const int32_t token = tokens[r];
    const unsigned lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int before = 0;
    for (size_t j = threadIdx.x; j < r; j += THREADS)
        before |= tokens[j] == token;
    if (__syncthreads_or(before))
        return;
    float sum[4] = {0, 0, 0, 0};
    float *row = dtable + (size_t)token * dim;
    for (int k = 0; k < 4; k++)
        if (base + k * THREADS + threadIdx.x < dim)
            sum[k] = row[base + k * THREADS + threadIdx.x];
    for (size_t first = r; first < rows; first += THREADS) {
        const size_t j = first + threadIdx.x;
        const bool hit = j < rows && tokens[j] == token;
        const unsigned mine = __ballot_sync(0xffffffffu, hit);
        if (lane == 0)
            warp_hits[warp] = __popc(mine);
        __syncthreads();
        int at = 0, total = 0;
        for (unsigned w = 0; w < THREADS / WARP; w++) {
            at += w < warp ? warp_hits[w] : 0;
            total += warp_hits[w];
        }
        if (hit)
            hits[at + __popc(mine & ((1u << lane) - 1u))] = (int)threadIdx.x;
        __syncthreads();
        for (int h = 0; h < total; h++) {
            const T *from = dout + (first + (size_t)hits[h]) * dim;
            for (int k = 0; k < 4; k++)
                if (base + k * THREADS + threadIdx.x < dim)
                    sum[k] += to_float(from[base + k * THREADS + threadIdx.x]);
        }
        __syncthreads();
    }
    for (int k = 0; k < 4; k++)
        if (base + k * THREADS + threadIdx.x < dim)
            row[base + k * THREADS + threadIdx.x] = sum[k];
}

void cuda_embed_backward(struct device *dev, real *dtable, const real *dout, const int32_t *tokens,
                         size_t rows, size_t vocab, size_t dim)
{
    (void)vocab;
    const size_t bytes = rows * sizeof *tokens;
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_input_bytes(dev, tokens, bytes));
    const int32_t *at = (const int32_t *)cuda_input(&scratch, tokens, bytes);
    if (!at)
        return;
    const dim3 grid((unsigned)rows, (unsigned)((dim + EMBED_COLUMNS - 1) / EMBED_COLUMNS));
    WITH_ACT_TYPE(dev, {
        auto *kernel = embed_backward_kernel<T>;
        CUDA_LAUNCH(kernel, grid, THREADS, 0, cuda_of(dev)->stream, fp32_at(dev, dtable),
                    act_at<T>(dev, dout), at, rows, dim);
    });
    cuda_launched(dev, "embed_backward");
}

/* --- RMSNorm: a block a row --- */

template <class T>
__global__ void rmsnorm_kernel(T *out, float *rstd, const T *x, const float *w, float eps, size_t dim)
{
    __shared__ float shared[THREADS / WARP];
    const size_t r = blockIdx.x;
    const T *row = x + r * dim;
    float sum = 0;
    for (size_t i = threadIdx.x; i < dim; i += THREADS) {
        const float v = to_float(row[i]);
        sum += v * v;
    }
    const float scale = 1.0f / sqrtf(block_sum(sum, shared) / (float)dim + eps);
    if (threadIdx.x == 0)
        rstd[r] = scale;
    for (size_t i = threadIdx.x; i < dim; i += THREADS)
        out[r * dim + i] = from_float<T>(to_float(row[i]) * scale * w[i]);
}

void cuda_rmsnorm_forward(struct device *dev, real *out, real *rstd, const real *x, const real *w,
                          real eps, size_t rows, size_t dim)
{
    WITH_ACT_TYPE(dev, {
        auto *kernel = rmsnorm_kernel<T>;
        CUDA_LAUNCH(kernel, (unsigned)rows, THREADS, 0, cuda_of(dev)->stream, act_at<T>(dev, out),
                    fp32_at(dev, rstd), act_at<T>(dev, x), fp32_at(dev, w), eps, dim);
    });
    cuda_launched(dev, "rmsnorm_forward");
}

/* Block p: rows p, p + gridDim.x, ...; its sum of dw goes to parts (gridDim.x, dim). The columns that a thread
 * adds up are its own, so the sums need no barrier. */
template <class T>
__global__ void rmsnorm_backward_kernel(T *dx, float *parts, const T *dout, const T *x, const float *w,
                                        const float *rstd, size_t rows, size_t dim)
{
    __shared__ float shared[THREADS / WARP];
    float *part = parts + blockIdx.x * dim;
    for (size_t i = threadIdx.x; i < dim; i += THREADS)
        part[i] = 0;
    for (size_t r = blockIdx.x; r < rows; r += gridDim.x) {
        const T *xr = x + r * dim, *dr = dout + r * dim;
        float dot = 0;
        for (size_t i = threadIdx.x; i < dim; i += THREADS)
            dot += to_float(dr[i]) * w[i] * to_float(xr[i]);
        const float scale = rstd[r];
        const float pull = scale * scale * block_sum(dot, shared) / (float)dim;
        for (size_t i = threadIdx.x; i < dim; i += THREADS) {
            const float d = to_float(dr[i]), v = to_float(xr[i]);
            dx[r * dim + i] =
                from_float<T>(to_float(dx[r * dim + i]) + scale * (w[i] * d - v * pull));
            part[i] += d * v * scale;
        }
    }
}

/* out[i] += the sum of parts (count, dim), in order. */
__global__ void parts_kernel(float *out, const float *parts, size_t count, size_t dim)
{
    for (size_t i = thread_index(); i < dim; i += thread_count()) {
        float sum = 0;
        for (size_t p = 0; p < count; p++)
            sum += parts[p * dim + i];
        out[i] += sum;
    }
}

static size_t parts_of(size_t rows) { return rows < CUDA_PARTS ? rows : (size_t)CUDA_PARTS; }

void cuda_rmsnorm_backward(struct device *dev, real *dx, real *dw, const real *dout, const real *x,
                           const real *w, const real *rstd, size_t rows, size_t dim)
{
    const size_t parts = parts_of(rows), bytes = parts * dim * sizeof(float);
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_round(bytes));
    float *at = (float *)cuda_piece(&scratch, bytes);
    cudaStream_t stream = cuda_of(dev)->stream;
    if (!at)
        return;
    WITH_ACT_TYPE(dev, {
        auto *kernel = rmsnorm_backward_kernel<T>;
        CUDA_LAUNCH(kernel, (unsigned)parts, THREADS, 0, stream, act_at<T>(dev, dx), at,
                    act_at<T>(dev, dout), act_at<T>(dev, x), fp32_at(dev, w), fp32_at(dev, rstd), rows,
                    dim);
    });
    CUDA_LAUNCH(parts_kernel, blocks_for(dim), THREADS, 0, stream, fp32_at(dev, dw), at, parts, dim);
    cuda_launched(dev, "rmsnorm_backward");
}

/* --- rotary positions --- */

/* Thread: one pair of one head. direction 1: by the angle; -1: back. */
template <class T>
__global__ void rope_kernel(T *x, const float *cosine, const float *sine, size_t count, size_t context,
                            size_t heads, size_t pairs, float direction)
{
    for (size_t n = thread_index(); n < count; n += thread_count()) {
        const size_t i = n % pairs, head = n / pairs, t = head / heads % context;
        T *at = x + head * 2 * pairs + i;
        const float a = to_float(at[0]), b = to_float(at[pairs]);
        const float c = cosine[t * pairs + i], s = direction * sine[t * pairs + i];
        at[0] = from_float<T>(a * c - b * s);
        at[pairs] = from_float<T>(b * c + a * s);
    }
}

static void rope(struct device *dev, real *x, const real *cosine, const real *sine,
                 const struct attention_shape *shape, size_t heads, float direction)
{
    const size_t pairs = shape->head_dim / 2, count = shape->batch * shape->context * heads * pairs;
    WITH_ACT_TYPE(dev, {
        auto *kernel = rope_kernel<T>;
        CUDA_LAUNCH(kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream, act_at<T>(dev, x),
                    fp32_at(dev, cosine), fp32_at(dev, sine), count, shape->context, heads, pairs,
                    direction);
    });
    cuda_launched(dev, "rope");
}

void cuda_rope_forward(struct device *dev, real *x, const real *cosine, const real *sine,
                       const struct attention_shape *shape, size_t heads)
{
    rope(dev, x, cosine, sine, shape, heads, 1);
}

void cuda_rope_backward(struct device *dev, real *dx, const real *cosine, const real *sine,
                        const struct attention_shape *shape, size_t heads)
{
    rope(dev, dx, cosine, sine, shape, heads, -1);
}

/* --- SwiGLU --- */

template <class T>
__device__ __forceinline__ T swiglu(T gate, T up)
{
    return from_float<T>(cuda_silu(to_float(gate)) * to_float(up));
}

template <class T>
__global__ void swiglu_kernel(T *out, const T *gate, const T *up, size_t count)
{
    each_eight(
        count,
        [=](size_t i) {
            const eight<T> g = ((const eight<T> *)gate)[i], u = ((const eight<T> *)up)[i];
            eight<T> z;
            for (int k = 0; k < 8; k++)
                z.at[k] = swiglu(g.at[k], u.at[k]);
            ((eight<T> *)out)[i] = z;
        },
        [=](size_t i) { out[i] = swiglu(gate[i], up[i]); });
}

void cuda_swiglu_forward(struct device *dev, real *out, const real *gate, const real *up, size_t rows,
                         size_t dim)
{
    const size_t count = rows * dim;
    WITH_ACT_TYPE(dev, {
        auto *kernel = swiglu_kernel<T>;
        CUDA_LAUNCH(kernel, blocks_for(count / 8), THREADS, 0, cuda_of(dev)->stream, act_at<T>(dev, out),
                    act_at<T>(dev, gate), act_at<T>(dev, up), count);
    });
    cuda_launched(dev, "swiglu_forward");
}

template <class T>
__device__ __forceinline__ void swiglu_gradient(T *dgate, T *dup, T dout, T gate, T up)
{
    const float d = to_float(dout), g = to_float(gate);
    *dup = from_float<T>(d * cuda_silu(g));
    *dgate = from_float<T>(d * to_float(up) * cuda_silu_slope(g));
}

/* dgate may be dout: a thread reads an element before it writes it. */
template <class T>
__global__ void swiglu_backward_kernel(T *dgate, T *dup, const T *dout, const T *gate, const T *up,
                                       size_t count)
{
    each_eight(
        count,
        [=](size_t i) {
            const eight<T> d = ((const eight<T> *)dout)[i], g = ((const eight<T> *)gate)[i],
                           u = ((const eight<T> *)up)[i];
            eight<T> dg, du;
            for (int k = 0; k < 8; k++)
                swiglu_gradient(&dg.at[k], &du.at[k], d.at[k], g.at[k], u.at[k]);
            ((eight<T> *)dgate)[i] = dg;
            ((eight<T> *)dup)[i] = du;
        },
        [=](size_t i) { swiglu_gradient(&dgate[i], &dup[i], dout[i], gate[i], up[i]); });
}

void cuda_swiglu_backward(struct device *dev, real *dgate, real *dup, const real *dout,
                          const real *gate, const real *up, size_t rows, size_t dim)
{
    const size_t count = rows * dim;
    WITH_ACT_TYPE(dev, {
        auto *kernel = swiglu_backward_kernel<T>;
        CUDA_LAUNCH(kernel, blocks_for(count / 8), THREADS, 0, cuda_of(dev)->stream, act_at<T>(dev, dgate),
                    act_at<T>(dev, dup), act_at<T>(dev, dout), act_at<T>(dev, gate),
                    act_at<T>(dev, up), count);
    });
    cuda_launched(dev, "swiglu_backward");
}

/* --- the gate of a low-rank branch: a warp a row, since rank and hidden are small --- */

struct gate {
    size_t rank, hidden;
    const float *b1, *w2, *b2;
    float gamma, scale;
};

/* tanh(W2 s + b2) of feature k; lanes share the sum. */
template <class T>
__device__ float gate_tanh(const struct gate &gate, const T *s, size_t k)
{
    float u = 0;
    for (size_t j = threadIdx.x % WARP; j < gate.hidden; j += WARP)
        u += gate.w2[k * gate.hidden + j] * to_float(s[j]);
    return tanhf(warp_sum(u) + gate.b2[k]);
}

template <class T>
__global__ void como_kernel(T *g, T *s, const T *z, const T *a, struct gate gate, size_t rows)
{
    const size_t lane = threadIdx.x % WARP;
    const size_t r = (size_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (r >= rows)
        return; /* a whole warp */
    for (size_t j = lane; j < gate.hidden; j += WARP)
        s[r * gate.hidden + j] =
            from_float<T>(cuda_silu(to_float(a[r * gate.hidden + j]) + gate.b1[j]));
    __syncwarp();
    for (size_t k = 0; k < gate.rank; k++) {
        const float t = gate.hidden > 0 ? gate_tanh(gate, s + r * gate.hidden, k) : 0.0f;
        if (lane == 0)
            g[r * gate.rank + k] = from_float<T>(gate.scale * (1.0f + gate.gamma * t) *
                                                 to_float(z[r * gate.rank + k]));
    }
}

/* du is read back by the lanes of the warp that wrote it. dz may be dg. */
template <class T>
__global__ void como_backward_kernel(T *dz, T *du, T *da, const T *dg, const T *s, const T *z,
                                     const T *a, struct gate gate, size_t rows)
{
    const size_t lane = threadIdx.x % WARP;
    const size_t r = (size_t)blockIdx.x * (THREADS / WARP) + threadIdx.x / WARP;
    if (r >= rows)
        return;
    for (size_t k = 0; k < gate.rank; k++) {
        const size_t i = r * gate.rank + k;
        const float t = gate.hidden > 0 ? gate_tanh(gate, s + r * gate.hidden, k) : 0.0f;
        if (lane == 0) {
            const float d = to_float(dg[i]);
            dz[i] = from_float<T>(gate.scale * (1.0f + gate.gamma * t) * d);
            if (gate.hidden > 0)
                du[i] = from_float<T>(gate.scale * gate.gamma * (1.0f - t * t) * to_float(z[i]) * d);
        }
    }
    __syncwarp();
    for (size_t j = lane; j < gate.hidden; j += WARP) {
        float sum = 0;
        for (size_t k = 0; k < gate.rank; k++)
            sum += gate.w2[k * gate.hidden + j] * to_float(du[r * gate.rank + k]);
        const float slope = cuda_silu_slope(to_float(a[r * gate.hidden + j]) + gate.b1[j]);
        da[r * gate.hidden + j] = from_float<T>(sum * slope);
    }
}

static struct gate gate_of(struct device *dev, const struct como_args *args)
{
    struct gate gate = {args->rank, args->hidden, NULL, NULL, NULL, args->gamma, args->scale};
    if (args->hidden > 0) {
        gate.b1 = fp32_at(dev, args->b1);
        gate.w2 = fp32_at(dev, args->w2);
        gate.b2 = fp32_at(dev, args->b2);
    }
    return gate;
}

static unsigned warp_blocks(size_t rows)
{
    return (unsigned)((rows + THREADS / WARP - 1) / (THREADS / WARP));
}

void cuda_como_forward(struct device *dev, real *g, real *s, const real *z, const real *a,
                       const struct como_args *args, size_t rows)
{
    const bool gated = args->hidden > 0;
    WITH_ACT_TYPE(dev, {
        auto *kernel = como_kernel<T>;
        CUDA_LAUNCH(kernel, warp_blocks(rows), THREADS, 0, cuda_of(dev)->stream, act_at<T>(dev, g),
                    gated ? act_at<T>(dev, s) : (T *)NULL, act_at<T>(dev, z),
                    gated ? act_at<T>(dev, a) : (const T *)NULL, gate_of(dev, args), rows);
    });
    cuda_launched(dev, "como_forward");
}

void cuda_como_backward(struct device *dev, real *dz, real *du, real *da, const real *dg, const real *s,
                        const real *z, const real *a, const struct como_args *args, size_t rows)
{
    const bool gated = args->hidden > 0;
    WITH_ACT_TYPE(dev, {
        auto *kernel = como_backward_kernel<T>;
        CUDA_LAUNCH(kernel, warp_blocks(rows), THREADS, 0, cuda_of(dev)->stream, act_at<T>(dev, dz),
                    gated ? act_at<T>(dev, du) : (T *)NULL, gated ? act_at<T>(dev, da) : (T *)NULL,
                    act_at<T>(dev, dg), gated ? act_at<T>(dev, s) : (const T *)NULL,
                    act_at<T>(dev, z), gated ? act_at<T>(dev, a) : (const T *)NULL,
                    gate_of(dev, args), rows);
    });
    cuda_launched(dev, "como_backward");
}

/* Block (columns, part): the sum over rows part, part + gridDim.y, ... */
template <class T>
__global__ void columns_kernel(float *parts, const T *dy, size_t rows, size_t dim)
{
    const size_t i = thread_index();
    if (i >= dim)
        return;
    float sum = 0;
    for (size_t r = blockIdx.y; r < rows; r += gridDim.y)
        sum += to_float(dy[r * dim + i]);
    parts[blockIdx.y * dim + i] = sum;
}

void cuda_bias_backward(struct device *dev, real *db, const real *dy, size_t rows, size_t dim)
{
    const size_t parts = parts_of(rows), bytes = parts * dim * sizeof(float);
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_round(bytes));
    float *at = (float *)cuda_piece(&scratch, bytes);
    cudaStream_t stream = cuda_of(dev)->stream;
    if (!at)
        return;
    const dim3 grid((unsigned)((dim + THREADS - 1) / THREADS), (unsigned)parts);
    WITH_ACT_TYPE(dev, {
        auto *kernel = columns_kernel<T>;
        CUDA_LAUNCH(kernel, grid, THREADS, 0, stream, at, act_at<T>(dev, dy), rows, dim);
    });
    CUDA_LAUNCH(parts_kernel, blocks_for(dim), THREADS, 0, stream, fp32_at(dev, db), at, parts, dim);
    cuda_launched(dev, "bias_backward");
}

/* --- the head: logits of CUDA_HEAD_ROWS tokens at a time --- */

/* Block: one token. logits (rows, vocab) in; loss out; with dlogits != NULL the gradient of scale * loss. */
template <class T>
__global__ void cross_entropy_kernel(float *loss, T *dlogits, const float *logits,
                                     const int32_t *targets, float scale, size_t vocab)
{
    __shared__ float shared[THREADS / WARP];
    const size_t r = blockIdx.x;
    const float *row = logits + r * vocab;
    const int32_t target = targets[r];
    if (target < 0) { /* the same for the whole block */
        if (threadIdx.x == 0)
            loss[r] = 0;
        for (size_t v = threadIdx.x; dlogits && v < vocab; v += THREADS)
            dlogits[r * vocab + v] = from_float<T>(0);
        return;
    }
    float top = -INFINITY, sum = 0;
    for (size_t v = threadIdx.x; v < vocab; v += THREADS)
        top = fmaxf(top, row[v]);
    top = block_max(top, shared);
    for (size_t v = threadIdx.x; v < vocab; v += THREADS)
        sum += expf(row[v] - top);
    const float lse = top + logf(block_sum(sum, shared));
    if (threadIdx.x == 0)
        loss[r] = lse - row[target];
    for (size_t v = threadIdx.x; dlogits && v < vocab; v += THREADS)
        dlogits[r * vocab + v] =
            from_float<T>(scale * (expf(row[v] - lse) - (v == (size_t)target ? 1.0f : 0.0f)));
}

/* The head's weight as a factor of products: itself, or its bf16 copy in scratch. */
static const void *head_factor(struct device *dev, struct cuda_scratch *scratch, const real *w,
                               size_t count)
{
    if (!cuda_of(dev)->bf16)
        return cuda_at(dev, w);
    bf16 *copy = (bf16 *)cuda_piece(scratch, count * sizeof(bf16));
    auto *kernel = load_kernel<bf16>;
    CUDA_LAUNCH(kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream, copy, fp32_at(dev, w),
                count);
    cuda_launched(dev, "head");
    return copy;
}

template <class T>
static void head_chunks(struct device *dev, struct cuda_scratch *scratch, float *loss, real *dx,
                        real *dw, const real *x, const void *factor, const int32_t *targets,
                        float scale, size_t rows, size_t dim, size_t vocab)
{
    const size_t chunk = rows < CUDA_HEAD_ROWS ? rows : (size_t)CUDA_HEAD_ROWS;
    const bool narrow = cuda_of(dev)->bf16;
    float *logits = (float *)cuda_piece(scratch, chunk * vocab * sizeof(float));
    T *dlogits = dx ? (T *)cuda_piece(scratch, chunk * vocab * sizeof(T)) : NULL;
    for (size_t first = 0; first < rows; first += chunk) {
        const size_t count = rows - first < chunk ? rows - first : chunk;
        const T *xs = act_at<T>(dev, x) + first * dim;
        struct cuda_product product = {};
        product.d = logits;
        product.a = xs;
        product.b = factor;
        product.M = count;
        product.N = vocab;
        product.K = dim;
        product.tb = true;
        product.ab_bf16 = narrow;
        product.alpha = 1;
        cuda_gemm(dev, "head_loss", &product);
        auto *kernel = cross_entropy_kernel<T>;
        CUDA_LAUNCH(kernel, (unsigned)count, THREADS, 0, cuda_of(dev)->stream, loss + first, dlogits,
                    logits, targets + first, scale, vocab);
        cuda_launched(dev, "head_loss");
        if (!dx)
            continue;
        struct cuda_product back = {};
        back.d = act_at<T>(dev, dx) + first * dim;
        back.a = dlogits;
        back.b = factor;
        back.M = count;
        back.N = dim;
        back.K = vocab;
        back.ab_bf16 = back.c_bf16 = narrow;
        back.alpha = 1;
        cuda_gemm(dev, "head_loss dx", &back);
        struct cuda_product weight = {};
        weight.d = fp32_at(dev, dw);
        weight.c = weight.d;
        weight.a = dlogits;
        weight.b = xs;
        weight.M = vocab;
        weight.N = dim;
        weight.K = count;
        weight.ta = true;
        weight.ab_bf16 = narrow;
        weight.alpha = weight.beta = 1;
        cuda_gemm(dev, "head_loss dw", &weight);
    }
}

void cuda_head_loss(struct device *dev, real *loss, real *dx, real *dw, const real *x, const real *w,
                    const int32_t *targets, real scale, size_t rows, size_t dim, size_t vocab)
{
    assert((dx == NULL) == (dw == NULL));
    const size_t element = cuda_of(dev)->bf16 ? sizeof(bf16) : sizeof(float);
    const size_t chunk = rows < CUDA_HEAD_ROWS ? rows : (size_t)CUDA_HEAD_ROWS;
    const size_t target_bytes = rows * sizeof *targets, loss_bytes = rows * sizeof(float);
    const size_t total = cuda_round(vocab * dim * element) + cuda_round(chunk * vocab * sizeof(float)) +
                         cuda_round(chunk * vocab * element) +
                         cuda_input_bytes(dev, targets, target_bytes) +
                         cuda_input_bytes(dev, loss, loss_bytes);
    struct cuda_scratch scratch = cuda_scratch_take(dev, total);
    const int32_t *target_at = (const int32_t *)cuda_input(&scratch, targets, target_bytes);
    float *loss_at = (float *)cuda_output(&scratch, loss, loss_bytes);
    if (!target_at || !loss_at)
        return;
    const void *factor = head_factor(dev, &scratch, w, vocab * dim);
    WITH_ACT_TYPE(dev, {
        head_chunks<T>(dev, &scratch, loss_at, dx, dw, x, factor, target_at, scale, rows, dim, vocab);
    });
    cuda_output_done(dev, loss, loss_at, loss_bytes);
}

void cuda_head_logits(struct device *dev, real *logits, const real *x, const real *w, size_t rows,
                      size_t first, size_t count, size_t dim, size_t vocab)
{
    assert(first <= rows && count <= rows - first);
    const size_t element = cuda_of(dev)->bf16 ? sizeof(bf16) : sizeof(float);
    const size_t bytes = count * vocab * sizeof(float);
    struct cuda_scratch scratch = cuda_scratch_take(
        dev, cuda_round(vocab * dim * element) + cuda_input_bytes(dev, logits, bytes));
    float *at = (float *)cuda_output(&scratch, logits, bytes);
    if (!at || count == 0)
        return;
    struct cuda_product product = {};
    product.d = at;
    product.a = (const unsigned char *)cuda_at(dev, x) + first * dim * element;
    product.b = head_factor(dev, &scratch, w, vocab * dim);
    product.M = count;
    product.N = vocab;
    product.K = dim;
    product.tb = true;
    product.ab_bf16 = cuda_of(dev)->bf16;
    product.alpha = 1;
    cuda_gemm(dev, "head_logits", &product);
    cuda_output_done(dev, logits, at, bytes);
}
