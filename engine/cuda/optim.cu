/* Rows of the optimizers: fused updates entry by entry, sums, and plain matrices. */
#include "engine/cuda/kernel.cuh"

/* --- entry by entry --- */

__global__ void adamw_kernel(float *w, float *m, float *v, const float *g, size_t count,
                             struct cuda_adamw args)
{
    for (size_t i = thread_index(); i < count; i += thread_count())
        cuda_adamw_entry(&w[i], &m[i], &v[i], g[i], args);
}

void cuda_adamw(struct device *dev, real *w, real *m, real *v, const real *g, size_t count,
                const struct adamw_args *args)
{
    struct cuda_adamw a = {};
    a.beta1 = (float)args->beta1;
    a.beta2 = (float)args->beta2;
    a.rest1 = (float)(1 - args->beta1);
    a.rest2 = (float)(1 - args->beta2);
    a.lr = args->lr;
    a.eps = args->eps;
    a.decay = 1 - args->lr * args->weight_decay;
    a.correction1 = args->correction1;
    a.correction2 = args->correction2;
    a.grad_scale = args->grad_scale;
    CUDA_LAUNCH(adamw_kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream, fp32_at(dev, w),
                fp32_at(dev, m), fp32_at(dev, v), fp32_at(dev, g), count, a);
    cuda_launched(dev, "adamw");
}

/* update, moment (AGE_MAX + 1) and ages are NULL without ages. */
__global__ void tans_kernel(float *u, float *p, float *v, uint16_t *ages, const float *g,
                            const float *update, const float *moment, size_t count,
                            struct cuda_tans args)
{
    for (size_t i = thread_index(); i < count; i += thread_count()) {
        float first = 1, second = 1;
        if (ages) {
            const unsigned age = ages[i] < AGE_MAX ? ages[i] + 1u : (unsigned)AGE_MAX;
            ages[i] = (uint16_t)age;
            first = update[age];
            second = moment[age];
        }
        cuda_tans_entry(&u[i], &p[i], &v[i], g[i], first, second, args);
    }
}

void cuda_tans_moments(struct device *dev, real *u, real *p, real *v, uint16_t *ages, const real *g,
                       size_t count, const struct tans_args *args)
{
    struct cuda_tans a = {};
    a.beta1 = (float)args->beta1;
    a.beta2 = (float)args->beta2;
    a.rest1 = (float)(1 - args->beta1);
    a.rest2 = (float)(1 - args->beta2);
    a.eps = args->eps;
    a.grad_scale = args->grad_scale;
    CUDA_LAUNCH(tans_kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream, fp32_at(dev, u),
                fp32_at(dev, p), fp32_at(dev, v), (uint16_t *)cuda_at(dev, ages), fp32_at(dev, g),
                ages ? fp32_at(dev, args->correct_update) : (const float *)NULL,
                ages ? fp32_at(dev, args->correct_moment) : (const float *)NULL, count, a);
    cuda_launched(dev, "tans_moments");
}

__global__ void muon_kernel(float *u, float *p, const float *g, size_t count, float keep, float rest,
                            float grad_scale)
{
    for (size_t i = thread_index(); i < count; i += thread_count()) {
        const float gi = grad_scale * g[i];
        p[i] = keep * p[i] + rest * gi;
        u[i] = rest * gi + keep * p[i];
    }
}

void cuda_muon_momentum(struct device *dev, real *u, real *p, const real *g, size_t count, double mu,
                        real grad_scale)
{
    CUDA_LAUNCH(muon_kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream, fp32_at(dev, u),
                fp32_at(dev, p), fp32_at(dev, g), count, (float)mu, (float)(1 - mu), grad_scale);
    cuda_launched(dev, "muon_momentum");
}

/* o is not read where gamma is 0. */
__global__ void step_kernel(float *w, const float *u, const float *o, size_t count, float keep,
                            float step, float gamma, float ratio)
{
    for (size_t i = thread_index(); i < count; i += thread_count()) {
        float update = u[i];
        if (gamma > 0)
            update += gamma * (ratio * o[i] - update);
        w[i] = keep * w[i] - step * update;
    }
}

void cuda_matrix_step(struct device *dev, real *w, const real *u, const real *o, size_t count,
                      const struct matrix_step_args *args)
{
    CUDA_LAUNCH(step_kernel, blocks_for(count), THREADS, 0, cuda_of(dev)->stream, fp32_at(dev, w),
                fp32_at(dev, u), fp32_at(dev, o), count, args->keep, args->step, args->gamma,
                args->ratio);
    cuda_launched(dev, "matrix_step");
}

/* --- sums --- */

__device__ double block_sum_double(double x, double *shared)
{
    shared[threadIdx.x] = x;
    __syncthreads();
    for (unsigned step = THREADS / 2; step > 0; step /= 2) {
        if (threadIdx.x < step)
            shared[threadIdx.x] += shared[threadIdx.x + step];
        __syncthreads();
    }
    return shared[0];
}

/* out[block] = the block's share, in an order that count alone fixes. */
__global__ void squares_kernel(double *out, const float *x, size_t count)
{
    __shared__ double shared[THREADS];
    double sum = 0;
    for (size_t i = thread_index(); i < count; i += thread_count())
        sum += (double)x[i] * (double)x[i];
    sum = block_sum_double(sum, shared);
    if (threadIdx.x == 0)
        out[blockIdx.x] = sum;
}

__global__ void total_kernel(double *out, const double *in, size_t count)
{
    __shared__ double shared[THREADS];
    double sum = 0;
    for (size_t i = threadIdx.x; i < count; i += THREADS)
        sum += in[i];
    sum = block_sum_double(sum, shared);
    if (threadIdx.x == 0)
        out[0] = sum;
}

enum { SQUARES_BLOCKS = 1024 };

double cuda_sum_squares(struct device *dev, const real *x, size_t count)
{
    struct cuda_device *cuda = cuda_of(dev);
    const unsigned blocks = blocks_for(count, SQUARES_BLOCKS);
    const size_t bytes = (blocks + 1) * sizeof(double);
    struct cuda_scratch scratch = cuda_scratch_take(dev, cuda_round(bytes));
    double *parts = (double *)cuda_piece(&scratch, bytes);
    *cuda->sum = NAN;
    if (!parts)
        return *cuda->sum;
    CUDA_LAUNCH(squares_kernel, blocks, THREADS, 0, cuda->stream, parts + 1, fp32_at(dev, x), count);
    CUDA_LAUNCH(total_kernel, 1, THREADS, 0, cuda->stream, parts, parts + 1, (size_t)blocks);
    cuda_launched(dev, "sum_squares");
    cuda_fail(dev, "sum_squares",
              cudaMemcpyAsync(cuda->sum, parts, sizeof *cuda->sum, cudaMemcpyDeviceToHost,
                              cuda->stream));
    cuda_fail(dev, "sum_squares", cudaStreamSynchronize(cuda->stream));
    return *cuda->sum;
}

/* --- matrices --- */

/* c += gamma I, and the upper triangle from the lower one: products do not promise equal bits for both. */
__global__ void mirror_kernel(float *c, size_t dim, float gamma)
{
    for (size_t n = thread_index(); n < dim * dim; n += thread_count()) {
        const size_t i = n / dim, j = n % dim;
        if (j == i)
            c[n] += gamma;
        if (j > i)
            c[n] = c[j * dim + i];
    }
}

static void mirror(struct device *dev, const char *op, real *c, size_t dim, float gamma)
{
    CUDA_LAUNCH(mirror_kernel, blocks_for(dim * dim), THREADS, 0, cuda_of(dev)->stream,
                fp32_at(dev, c), dim, gamma);
    cuda_launched(dev, op);
}

/* c (M, N) = alpha a b + beta d in fp32, on "cuda" with TF32 products: 10 bits, which the powers of A in Newton-Schulz
 * need more than bf16's 7. */
static void product(struct device *dev, const char *op, real *c, const real *a, const real *b,
                    const real *d, float alpha, float beta, size_t M, size_t N, size_t K, bool tb)
{
    struct cuda_product gemm = {};
    gemm.d = cuda_at(dev, c);
    gemm.a = cuda_at(dev, a);
    gemm.b = cuda_at(dev, b);
    gemm.c = d ? cuda_at(dev, d) : gemm.d;
    gemm.M = M;
    gemm.N = N;
    gemm.K = K;
    gemm.tb = tb;
    gemm.tf32 = cuda_of(dev)->bf16;
    gemm.alpha = alpha;
    gemm.beta = d ? beta : 0;
    cuda_gemm(dev, op, &gemm);
}

void cuda_matrix_product(struct device *dev, real *c, const real *a, const real *b, size_t M, size_t N,
                         size_t K)
{
    product(dev, "matrix_product", c, a, b, NULL, 1, 0, M, N, K, false);
}

void cuda_matrix_square(struct device *dev, real *c, const real *a, const real *d, real alpha, real beta,
                        real gamma, size_t M, size_t K)
{
    product(dev, "matrix_square", c, a, a, d, alpha, beta, M, M, K, true);
    mirror(dev, "matrix_square", c, M, gamma);
}

void cuda_matrix_commute(struct device *dev, real *c, const real *a, const real *b, size_t M)
{
    product(dev, "matrix_commute", c, a, b, NULL, 1, 0, M, M, M, false);
    mirror(dev, "matrix_commute", c, M, 0);
}
