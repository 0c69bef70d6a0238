#include "engine/cpu/blas.h"
#include <assert.h>
#include <cblas.h>
#include <limits.h>

void blas_setup(void) { openblas_set_num_threads(1); }

static blasint narrow(size_t n)
{
    assert(n <= INT_MAX);
    return (blasint)n;
}

static enum CBLAS_TRANSPOSE turn(bool turned) { return turned ? CblasTrans : CblasNoTrans; }

void blas_scaled_product(float *c, size_t ldc, struct blas_matrix a, struct blas_matrix b,
                         size_t M, size_t N, size_t K, float alpha, float beta)
{
    cblas_sgemm(CblasRowMajor, turn(a.turned), turn(b.turned), narrow(M), narrow(N), narrow(K),
                alpha, a.data, narrow(a.stride), b.data, narrow(b.stride), beta, c,
                narrow(ldc));
}

void blas_product(float *c, size_t ldc, struct blas_matrix a, struct blas_matrix b, size_t M,
                  size_t N, size_t K, bool accumulate)
{
    blas_scaled_product(c, ldc, a, b, M, N, K, 1.0f, accumulate ? 1.0f : 0.0f);
}

void blas_vector_product(float *y, struct blas_matrix a, const float *x, size_t rows,
                         size_t columns, bool accumulate)
{
    size_t M = a.turned ? columns : rows, N = a.turned ? rows : columns; /* as stored */
    cblas_sgemv(CblasRowMajor, turn(a.turned), narrow(M), narrow(N), 1.0f, a.data,
                narrow(a.stride), x, 1, accumulate ? 1.0f : 0.0f, y, 1);
}
