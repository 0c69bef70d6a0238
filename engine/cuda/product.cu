/* The three products of a linear layer. The first path of an N:M matrix is dense: its entries are spread over a matrix
 * with zeros in scratch, which lives until the op returns, and the gradient of its active entries is gathered from the dense
 * product's. */
#include "engine/cuda/kernel.cuh"
#include "engine/cuda/sparselt.h"

extern "C" {
#include "proto/base/clock.h"
}

/* --- N:M matrices and their dense form --- */

/* Place of entry k of row o, by the table of columns. */
struct places {
    const uint16_t *codes;
    const uint8_t *columns;
    size_t groups; /* of a row */
    unsigned n, m;
};

static struct places places_of(struct device *dev, const struct nm *w)
{
    struct places places = {};
    places.codes = (const uint16_t *)cuda_at(dev, w->codes);
    places.columns = cuda_columns(dev, w->patterns);
    places.groups = nm_groups(w);
    places.n = w->n;
    places.m = w->m;
    return places;
}

/* Thread: one group, all its columns. out (dout, din). */
template <class T>
__global__ void spread_kernel(T *out, const float *values, struct places at, size_t count)
{
    for (size_t g = thread_index(); g < count; g += thread_count()) {
        const uint8_t *column = at.columns + (size_t)at.codes[g] * at.n;
        const float *value = values + g * at.n;
        unsigned k = 0;
        for (unsigned j = 0; j < at.m; j++) {
            const bool active = k < at.n && column[k] == j;
            out[g * at.m + j] = from_float<T>(active ? value[k] : 0.0f);
            k += active;
        }
    }
}

__device__ __forceinline__ void store4(float *out, const float v[4])
{
    *(float4 *)out = make_float4(v[0], v[1], v[2], v[3]);
}

__device__ __forceinline__ void store4(bf16 *out, const float v[4])
{
    __nv_bfloat162 pair[2] = {__floats2bfloat162_rn(v[0], v[1]), __floats2bfloat162_rn(v[2], v[3])};
    uint2 both;
    memcpy(&both, pair, sizeof both);
    *(uint2 *)(void *)out = both;
}

/* The same for 1:4 and 2:4, whose groups are one 8- or 16-byte store. */
template <class T, unsigned N>
__global__ void spread4_kernel(T *out, const float *values, const uint16_t *codes, size_t count)
{
    for (size_t g = thread_index(); g < count; g += thread_count()) {
        const unsigned columns = cuda_columns4(N, codes[g]);
        float v[4];
#pragma unroll
        for (unsigned j = 0; j < 4; j++) {
            v[j] = (columns & 3u) == j ? values[g * N] : 0.0f;
            if (N == 2 && columns >> 2 == j)
                v[j] = values[g * N + N - 1];
        }
        store4(out + g * 4, v);
    }
}

template <class T>
static void spread(struct device *dev, T *out, const float *values, const struct nm *w)
{
    const size_t count = w->dout * nm_groups(w);
    cudaStream_t stream = cuda_of(dev)->stream;
    if (w->m == 4 && w->n <= 2) {
        auto *kernel = w->n == 1 ? spread4_kernel<T, 1> : spread4_kernel<T, 2>;
        CUDA_LAUNCH(kernel, blocks_for(count), THREADS, 0, stream, out, values,
                    (const uint16_t *)cuda_at(dev, w->codes), count);
    } else {
        auto *kernel = spread_kernel<T>;
        CUDA_LAUNCH(kernel, blocks_for(count), THREADS, 0, stream, out, values, places_of(dev, w), count);
    }
    cuda_launched(dev, "spread");
}

/* values[g, k] += dense[its place] */
__global__ void gather_kernel(float *values, const float *dense, struct places at, size_t count)
{
    for (size_t g = thread_index(); g < count; g += thread_count()) {
        const uint8_t *column = at.columns + (size_t)at.codes[g] * at.n;
        for (unsigned k = 0; k < at.n; k++)
            values[g * at.n + k] += dense[g * at.m + column[k]];
    }
}

size_t cuda_nm_pack_size(const struct nm *w)
{
    (void)w;
    return 64; /* nothing is kept; but then nm_repack is called, which takes the codes to the device */
}

void cuda_nm_repack(struct device *dev, struct nm *w)
{
    device_push(dev, w->codes, w->dout * nm_groups(w) * sizeof *w->codes);
    cuda_columns(dev, w->patterns);
}

/* --- products --- */

template <class T>
__global__ void factor_kernel(T *out, const float *in, size_t count)
{
    for (size_t i = thread_index(); i < count; i += thread_count())
        out[i] = from_float<T>(in[i]);
}

/* A weight as products take it: (dout, din) in the type of activations. */
struct weight {
    const real *dense;
    const struct nm *nm; /* or NULL */
    size_t din, dout;
};

static size_t weight_bytes(const struct device *dev, const struct weight *w)
{
    const bool narrow = cuda_of(dev)->bf16;
    if (!narrow && !w->nm)
        return 0;
    return cuda_round(w->din * w->dout * (narrow ? sizeof(bf16) : sizeof(float)));
}

static const void *weight_factor(struct device *dev, struct cuda_scratch *scratch, const struct weight *w)
{
    if (!w->nm && !cuda_of(dev)->bf16)
        return cuda_at(dev, w->dense);
    void *out = cuda_piece(scratch, weight_bytes(dev, w));
    if (!out)
        return NULL;
    const size_t count = w->din * w->dout;
    WITH_ACT_TYPE(dev, {
        if (w->nm) {
            spread<T>(dev, (T *)out, fp32_at(dev, (const real *)w->nm->values), w->nm);
        } else {
            auto *kernel = factor_kernel<T>;
            CUDA_LAUNCH(kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream, (T *)out,
                        fp32_at(dev, w->dense), count);
        }
    });
    cuda_launched(dev, "weight");
    return out;
}

static void product_forward(struct device *dev, const char *op, real *y, const real *x,
                            const struct weight *w, size_t rows)
{
    struct cuda_scratch scratch = cuda_scratch_take(dev, weight_bytes(dev, w));
    struct cuda_product gemm = {};
    gemm.d = cuda_at(dev, y);
    gemm.a = cuda_at(dev, x);
    gemm.b = weight_factor(dev, &scratch, w);
    gemm.M = rows;
    gemm.N = w->dout;
    gemm.K = w->din;
    gemm.tb = true;
    gemm.ab_bf16 = gemm.c_bf16 = cuda_of(dev)->bf16;
    gemm.alpha = 1;
    cuda_gemm(dev, op, &gemm);
}

static void product_backward_x(struct device *dev, const char *op, real *dx, const real *dy,
                               const struct weight *w, size_t rows, int accumulate)
{
    struct cuda_scratch scratch = cuda_scratch_take(dev, weight_bytes(dev, w));
    struct cuda_product gemm = {};
    gemm.d = cuda_at(dev, dx);
    gemm.c = gemm.d;
    gemm.a = cuda_at(dev, dy);
    gemm.b = weight_factor(dev, &scratch, w);
    gemm.M = rows;
    gemm.N = w->din;
    gemm.K = w->dout;
    gemm.ab_bf16 = gemm.c_bf16 = cuda_of(dev)->bf16;
    gemm.alpha = 1;
    gemm.beta = accumulate ? 1 : 0;
    cuda_gemm(dev, op, &gemm);
}

/* dw (dout, din) of the device = or += dy^T x. */
static void gradient(struct device *dev, const char *op, float *dw, const real *dy, const real *x,
                     size_t rows, size_t din, size_t dout, float beta)
{
    struct cuda_product gemm = {};
    gemm.d = dw;
    gemm.c = dw;
    gemm.a = cuda_at(dev, dy);
    gemm.b = cuda_at(dev, x);
    gemm.M = dout;
    gemm.N = din;
    gemm.K = rows;
    gemm.ta = true;
    gemm.ab_bf16 = cuda_of(dev)->bf16;
    gemm.alpha = 1;
    gemm.beta = beta;
    cuda_gemm(dev, op, &gemm);
}

static struct weight weight_nm(const struct nm *w)
{
    struct weight weight = {NULL, w, w->din, w->dout};
    return weight;
}

/* --- dense with zeros or cuSPARSELt --- */

enum { TUNE_RUNS = 5 };

/* sums[0] += (a - b)^2, sums[1] += b^2 over the block's elements; one block. */
__global__ void difference_kernel(float *sums, const bf16 *a, const bf16 *b, size_t count)
{
    __shared__ float shared[THREADS / WARP];
    float off = 0, norm = 0;
    for (size_t i = threadIdx.x; i < count; i += THREADS) {
        const float x = to_float(a[i]), y = to_float(b[i]);
        off += (x - y) * (x - y);
        norm += y * y;
    }
    off = block_sum(off, shared);
    norm = block_sum(norm, shared);
    if (threadIdx.x == 0) {
        sums[0] = off;
        sums[1] = norm;
    }
}

/* Operands of one product that is measured both ways. */
struct tuning {
    struct device *dev;
    const struct nm *w;
    real *y;
    const real *x;
    size_t rows;
    bf16 *dense, *other; /* scratch: W with zeros; the sparse result */
};

static bool tuning_run(const struct tuning *t, bool sparse)
{
    spread<bf16>(t->dev, t->dense, fp32_at(t->dev, (const real *)t->w->values), t->w);
    if (sparse)
        return sparselt_forward(t->dev, t->other, cuda_at(t->dev, t->x), t->dense, t->rows, t->w->din, t->w->dout);
    struct cuda_product gemm = {};
    gemm.d = cuda_at(t->dev, t->y);
    gemm.a = cuda_at(t->dev, t->x);
    gemm.b = t->dense;
    gemm.M = t->rows;
    gemm.N = t->w->dout;
    gemm.K = t->w->din;
    gemm.tb = gemm.ab_bf16 = gemm.c_bf16 = true;
    gemm.alpha = 1;
    cuda_gemm(t->dev, "nm_forward", &gemm);
    return true;
}

/* Seconds of one product, the best of TUNE_RUNS after one that makes plans; negative if it is refused. */
static double tuning_seconds(const struct tuning *t, bool sparse)
{
    cudaStream_t stream = cuda_of(t->dev)->stream;
    double best = -1;
    for (int run = -1; run < TUNE_RUNS; run++) {
        cuda_fail(t->dev, "tuning", cudaStreamSynchronize(stream));
        const double began = clock_monotonic_s();
        if (!tuning_run(t, sparse))
            return -1;
        cuda_fail(t->dev, "tuning", cudaStreamSynchronize(stream));
        const double seconds = clock_monotonic_s() - began;
        if (run >= 0 && (best < 0 || seconds < best))
            best = seconds;
    }
    return best;
}

/* Measures both ways with the operands at hand, compares what they give, and leaves the dense result in y. */
static void tune(struct device *dev, struct cuda_choice *choice, real *y, const real *x, const struct nm *w,
                 size_t rows)
{
    const size_t dense = w->din * w->dout * sizeof(bf16), other = rows * w->dout * sizeof(bf16);
    struct cuda_scratch scratch =
        cuda_scratch_take(dev, cuda_round(dense) + cuda_round(other) + cuda_round(2 * sizeof(float)));
    struct tuning t = {dev, w, y, x, rows, (bf16 *)cuda_piece(&scratch, dense), (bf16 *)cuda_piece(&scratch, other)};
    float *sums = (float *)cuda_piece(&scratch, 2 * sizeof(float)), host[2] = {1, 0};
    if (!sums)
        return;
    choice->sparse_seconds = tuning_seconds(&t, true);
    choice->dense_seconds = tuning_seconds(&t, false);
    if (choice->sparse_seconds < 0)
        return; /* the library refuses the shape */
    CUDA_LAUNCH(difference_kernel, 1, THREADS, 0, cuda_of(dev)->stream, sums, t.other,
                (const bf16 *)cuda_at(dev, y), rows * w->dout);
    cuda_launched(dev, "tuning");
    cuda_fail(dev, "tuning",
              cudaMemcpyAsync(host, sums, sizeof host, cudaMemcpyDeviceToHost, cuda_of(dev)->stream));
    cuda_fail(dev, "tuning", cudaStreamSynchronize(cuda_of(dev)->stream));
    choice->difference = sqrt((double)host[0] / (double)host[1]);
    choice->sparse = choice_make(choice->dense_seconds, choice->sparse_seconds, choice->difference);
}

/* The choice for a shape, NULL where there is none to make; *fresh: y has the result already. */
static const struct cuda_choice *choice_of(struct device *dev, real *y, const real *x, const struct nm *w,
                                           size_t rows, bool *fresh)
{
    struct cuda_device *cuda = cuda_of(dev);
    *fresh = false;
    if (!cuda->sparselt || w->m != 4 || w->n > 2)
        return NULL;
    for (size_t i = 0; i < cuda->choice_count; i++) {
        const struct cuda_choice *c = &cuda->choices[i];
        if (c->rows == rows && c->din == w->din && c->dout == w->dout && c->n == w->n)
            return c;
    }
    if (cuda->choice_count == CUDA_CHOICES_MAX)
        return NULL;
    struct cuda_choice *c = &cuda->choices[cuda->choice_count++];
    c->rows = rows;
    c->din = w->din;
    c->dout = w->dout;
    c->n = w->n;
    c->m = w->m;
    c->difference = NAN;
    c->sparse = false;
    tune(dev, c, y, x, w, rows);
    *fresh = !c->sparse; /* the same way from the first product on, for the same bits */
    return c;
}

void cuda_nm_forward(struct device *dev, real *y, const real *x, const struct nm *w, size_t rows)
{
    const struct weight weight = weight_nm(w);
    bool fresh;
    const struct cuda_choice *choice = choice_of(dev, y, x, w, rows, &fresh);
    if (fresh)
        return;
    if (choice && choice->sparse) {
        struct cuda_scratch scratch = cuda_scratch_take(dev, weight_bytes(dev, &weight));
        const void *dense = weight_factor(dev, &scratch, &weight);
        if (dense && sparselt_forward(dev, cuda_at(dev, y), cuda_at(dev, x), dense, rows, w->din, w->dout))
            return;
    }
    product_forward(dev, "nm_forward", y, x, &weight, rows);
}

void cuda_nm_backward_x(struct device *dev, real *dx, const real *dy, const struct nm *w, size_t rows,
                        int accumulate)
{
    const struct weight weight = weight_nm(w);
    product_backward_x(dev, "nm_backward_x", dx, dy, &weight, rows, accumulate);
}

void cuda_nm_backward_w(struct device *dev, real *dvalues, const real *dy, const real *x,
                        const struct nm *w, size_t rows)
{
    const size_t bytes = w->dout * w->din * sizeof(float), count = w->dout * nm_groups(w);
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_round(bytes));
    float *dense = (float *)cuda_piece(&scratch, bytes);
    if (!dense)
        return;
    gradient(dev, "nm_backward_w", dense, dy, x, rows, w->din, w->dout, 0);
    CUDA_LAUNCH(gather_kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream,
                fp32_at(dev, dvalues), dense, places_of(dev, w), count);
    cuda_launched(dev, "nm_backward_w");
}

void cuda_dense_forward(struct device *dev, real *y, const real *x, const real *w, size_t rows,
                        size_t din, size_t dout)
{
    const struct weight weight = {w, NULL, din, dout};
    product_forward(dev, "dense_forward", y, x, &weight, rows);
}

void cuda_dense_backward_x(struct device *dev, real *dx, const real *dy, const real *w, size_t rows,
                           size_t din, size_t dout, int accumulate)
{
    const struct weight weight = {w, NULL, din, dout};
    product_backward_x(dev, "dense_backward_x", dx, dy, &weight, rows, accumulate);
}

void cuda_dense_backward_w(struct device *dev, real *dw, const real *dy, const real *x, size_t rows,
                           size_t din, size_t dout)
{
    gradient(dev, "dense_backward_w", fp32_at(dev, dw), dy, x, rows, din, dout, 1);
}

/* --- matrix_spread, matrix_collect: plain fp32 --- */

__device__ __forceinline__ size_t place(const struct places &at, bool sparse, size_t dout, size_t din,
                                        size_t o, size_t k, int transposed)
{
    size_t column = k;
    if (sparse) {
        const size_t group = k / at.n;
        column = group * at.m +
                 at.columns[(size_t)at.codes[o * at.groups + group] * at.n + k % at.n];
    }
    return transposed ? column * dout + o : o * din + column;
}

/* back: values from dense; else dense (which is 0) from values times scale. */
template <bool BACK>
__global__ void entries_kernel(float *values, float *dense, struct places at, bool sparse, size_t dout,
                               size_t din, size_t kept, float scale, int transposed)
{
    for (size_t i = thread_index(); i < dout * kept; i += thread_count()) {
        const size_t to = place(at, sparse, dout, din, i / kept, i % kept, transposed);
        if (BACK)
            values[i] = dense[to];
        else
            dense[to] = scale * values[i];
    }
}

void cuda_matrix_spread(struct device *dev, real *out, const real *values, const struct nm *w,
                        size_t dout, size_t din, real scale, int transposed)
{
    const size_t kept = w ? nm_row_values(w) : din;
    cudaStream_t stream = cuda_of(dev)->stream;
    struct places at = {};
    if (w)
        at = places_of(dev, w);
    cuda_fail(dev, "matrix_spread",
              cudaMemsetAsync(cuda_at(dev, out), 0, dout * din * sizeof(float), stream));
    auto *kernel = entries_kernel<false>;
    CUDA_LAUNCH(kernel, blocks_for(dout * kept), THREADS, 0, stream, (float *)cuda_at(dev, values),
                fp32_at(dev, out), at, w != NULL, dout, din, kept, scale, transposed);
    cuda_launched(dev, "matrix_spread");
}

void cuda_matrix_collect(struct device *dev, real *values, const real *in, const struct nm *w,
                         size_t dout, size_t din, int transposed)
{
    const size_t kept = w ? nm_row_values(w) : din;
    struct places at = {};
    if (w)
        at = places_of(dev, w);
    auto *kernel = entries_kernel<true>;
    CUDA_LAUNCH(kernel, blocks_for(dout * kept), THREADS, 0, cuda_of(dev)->stream,
                fp32_at(dev, values), (float *)cuda_at(dev, in), at, w != NULL, dout, din, kept, 0.0f,
                transposed);
    cuda_launched(dev, "matrix_collect");
}
