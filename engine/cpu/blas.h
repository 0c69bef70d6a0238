/* Dense products by the machine's BLAS. Every call runs on the calling thread: the pool cuts
 * the work into tiles that do not depend on the number of threads, so that neither do the bits.
 */
#ifndef HEBB_ENGINE_CPU_BLAS_H
#define HEBB_ENGINE_CPU_BLAS_H

#include <stdbool.h>
#include <stddef.h>

/* Row-major matrix: rows `stride` floats apart; turned: its transpose is meant. */
struct blas_matrix {
    const float *data;
    size_t stride;
    bool turned;
};

/* Tells BLAS to start no threads of its own. Called when a cpu device is made; process-wide. */
void blas_setup(void);

/* c (M, N), rows ldc apart, = a b, or += a b if accumulate. a is (M, K), b (K, N) after
 * turning. */
void blas_product(float *c, size_t ldc, struct blas_matrix a, struct blas_matrix b, size_t M,
                  size_t N, size_t K, bool accumulate);

/* c = alpha a b + beta c; beta 0: c is not read. */
void blas_scaled_product(float *c, size_t ldc, struct blas_matrix a, struct blas_matrix b,
                         size_t M, size_t N, size_t K, float alpha, float beta);

/* y (rows) = a x, or += if accumulate; a (rows, columns) after turning. */
void blas_vector_product(float *y, struct blas_matrix a, const float *x, size_t rows,
                         size_t columns, bool accumulate);

#endif
