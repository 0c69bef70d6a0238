/* The devices "cuda" (activations in bf16, products of bf16 with fp32 sums) and "cuda-fp32" (all in fp32, for tests
 * against the CPU). Activations are token-major; weights, gradients and optimizer state are fp32 in both.
 *
 * Every address that the engine holds is one of the host's: device_alloc reserves pages of the host beside the device's
 * memory, and a row of the op table turns the one into the other by cuda_at. So the engine's pointer arithmetic,
 * slabs and directories work unchanged, and the host's pages cost nothing until a push or pull touches them.
 *
 * C files (device.c, table.c, gemm.c) hold the tables and talk to the libraries; .cu files hold kernels and the rows that
 * launch them. Only engine/cuda/ and its tests include this. */
#ifndef HEBB_ENGINE_CUDA_CUDA_H
#define HEBB_ENGINE_CUDA_CUDA_H

#include <cuda_runtime_api.h>

#ifdef __cplusplus
extern "C" {
#endif

#include "engine/cuda/choice.h"
#include "engine/device.h"

enum {
    CUDA_RANGES_MAX = 512, /* live allocations */
    CUDA_TABLES_MAX = 16,  /* N:M kinds of one run */
    CUDA_ALIGN = 256,      /* of every piece of scratch */
    CUDA_HEAD_ROWS = 2048, /* tokens whose logits exist at a time */
    CUDA_PARTS = 128,      /* partial sums of a reduction over tokens */
    CUDA_HEAD_DIM_MAX = 256,
    CUDA_CHOICES_MAX = 256,
    CUDA_NOTE_MAX = 256,
};

struct cuda_range {
    unsigned char *host, *device;
    size_t bytes;
};

/* Columns of every code of an N:M kind, on the device. */
struct cuda_table {
    unsigned n, m;
    uint8_t *columns; /* (count, n) */
};

struct cuda_gemm_state; /* gemm.c */
struct cuda_sparselt;   /* sparselt.c */

struct cuda_device {
    bool bf16;
    int sms, major, minor;
    char name[128];
    cudaStream_t stream;
    struct cuda_range ranges[CUDA_RANGES_MAX]; /* by host address, ascending */
    size_t range_count;
    unsigned char *spare; /* scratch beyond dev->scratch, for shapes that device_reserve did not foresee */
    size_t spare_bytes;
    struct cuda_table tables[CUDA_TABLES_MAX];
    size_t table_count;
    struct cuda_gemm_state *gemm;
    struct cuda_sparselt *sparselt; /* NULL: none, and note says why */
    char note[CUDA_NOTE_MAX];
    struct cuda_choice choices[CUDA_CHOICES_MAX];
    size_t choice_count;
    double *sum; /* pinned: the result of sum_squares */
    struct err failure;
};

static inline struct cuda_device *cuda_of(const struct device *dev)
{
    return (struct cuda_device *)dev->private_data;
}

/* The device's address of memory of device_alloc; asserts that it is. NULL stays NULL. */
void *cuda_at(const struct device *dev, const void *memory);
/* The same, or NULL if it is not. */
void *cuda_find(const struct device *dev, const void *memory);

/* Keeps the first failure with the op's name. cuda_launched: of the last kernel launch. */
void cuda_fail(struct device *dev, const char *op, cudaError_t code);
void cuda_launched(struct device *dev, const char *op);

/* `bytes` of scratch on the device, valid until the op returns; the pieces of one op come from one struct. */
struct cuda_scratch {
    struct device *dev;
    unsigned char *base;
    size_t used, size;
};
/* total: of all pieces, each rounded up by cuda_round. */
static inline size_t cuda_round(size_t bytes)
{
    return (bytes + CUDA_ALIGN - 1) / CUDA_ALIGN * CUDA_ALIGN;
}
struct cuda_scratch cuda_scratch_take(struct device *dev, size_t total);
void *cuda_piece(struct cuda_scratch *scratch, size_t bytes);

/* The device's address of `memory` if it is the device's; else a copy of it in scratch (room of bytes needed). */
const void *cuda_input(struct cuda_scratch *scratch, const void *memory, size_t bytes);
size_t cuda_input_bytes(const struct device *dev, const void *memory, size_t bytes);
/* An output likewise: `memory` if it is the device's, else scratch, which cuda_output_done copies to the host. */
void *cuda_output(struct cuda_scratch *scratch, void *memory, size_t bytes);
void cuda_output_done(struct device *dev, void *memory, const void *at, size_t bytes);

/* The columns of an N:M kind; made at the first nm_repack of the kind. NULL after a failure. */
const uint8_t *cuda_columns(struct device *dev, const struct pattern_table *patterns);

/* D (M, N) = alpha op(A) op(B) + beta C, row-major, fp32 sums. A (M, K), or (K, M) if ta; B (K, N), or (N, K) if tb.
 * C may be D; with beta 0 it is not read. ab_bf16: A and B are bf16, else fp32; c_bf16: C and D. */
struct cuda_product {
    void *d;
    const void *a, *b, *c;
    size_t M, N, K;
    bool ta, tb, ab_bf16, c_bf16;
    bool tf32; /* fp32 factors may be rounded to TF32 */
    float alpha, beta;
};
int cuda_gemm_open(struct cuda_device *cuda, struct err *err);
void cuda_gemm_close(struct cuda_device *cuda);
void cuda_gemm(struct device *dev, const char *op, const struct cuda_product *gemm);

/* The rows of struct ops; contracts in engine/ops.h. */
size_t cuda_act_size_bf16(size_t rows, size_t dim);
size_t cuda_act_size_fp32(size_t rows, size_t dim);
void cuda_act_load(struct device *dev, real *act, const real *host, size_t rows, size_t dim);
void cuda_act_store(struct device *dev, real *host, const real *act, size_t rows, size_t dim);
void cuda_act_add(struct device *dev, real *out, const real *a, const real *b, size_t rows, size_t dim);
void cuda_embed_forward(struct device *dev, real *out, const real *table, const int32_t *tokens,
                        size_t rows, size_t dim);
void cuda_embed_backward(struct device *dev, real *dtable, const real *dout, const int32_t *tokens,
                         size_t rows, size_t vocab, size_t dim);
void cuda_rmsnorm_forward(struct device *dev, real *out, real *rstd, const real *x, const real *w,
                          real eps, size_t rows, size_t dim);
void cuda_rmsnorm_backward(struct device *dev, real *dx, real *dw, const real *dout, const real *x,
                           const real *w, const real *rstd, size_t rows, size_t dim);
void cuda_nm_forward(struct device *dev, real *y, const real *x, const struct nm *w, size_t rows);
void cuda_nm_backward_x(struct device *dev, real *dx, const real *dy, const struct nm *w, size_t rows,
                        int accumulate);
void cuda_nm_backward_w(struct device *dev, real *dvalues, const real *dy, const real *x,
                        const struct nm *w, size_t rows);
size_t cuda_nm_pack_size(const struct nm *w);
void cuda_nm_repack(struct device *dev, struct nm *w);
void cuda_dense_forward(struct device *dev, real *y, const real *x, const real *w, size_t rows,
                        size_t din, size_t dout);
void cuda_dense_backward_x(struct device *dev, real *dx, const real *dy, const real *w, size_t rows,
                           size_t din, size_t dout, int accumulate);
void cuda_dense_backward_w(struct device *dev, real *dw, const real *dy, const real *x, size_t rows,
                           size_t din, size_t dout);
void cuda_rope_forward(struct device *dev, real *x, const real *cosine, const real *sine,
                       const struct attention_shape *shape, size_t heads);
void cuda_rope_backward(struct device *dev, real *dx, const real *cosine, const real *sine,
                        const struct attention_shape *shape, size_t heads);
void cuda_attention_forward(struct device *dev, real *out, real *lse, const real *q, const real *k,
                            const real *v, const struct attention_shape *shape);
void cuda_attention_backward(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                             const real *out, const real *lse, const real *q, const real *k,
                             const real *v, const struct attention_shape *shape);
void cuda_swiglu_forward(struct device *dev, real *out, const real *gate, const real *up, size_t rows,
                         size_t dim);
void cuda_swiglu_backward(struct device *dev, real *dgate, real *dup, const real *dout,
                          const real *gate, const real *up, size_t rows, size_t dim);
void cuda_como_forward(struct device *dev, real *g, real *s, const real *z, const real *a,
                       const struct como_args *args, size_t rows);
void cuda_como_backward(struct device *dev, real *dz, real *du, real *da, const real *dg, const real *s,
                        const real *z, const real *a, const struct como_args *args, size_t rows);
void cuda_bias_backward(struct device *dev, real *db, const real *dy, size_t rows, size_t dim);
void cuda_head_loss(struct device *dev, real *loss, real *dx, real *dw, const real *x, const real *w,
                    const int32_t *targets, real scale, size_t rows, size_t dim, size_t vocab);
void cuda_head_logits(struct device *dev, real *logits, const real *x, const real *w, size_t rows,
                      size_t first, size_t count, size_t dim, size_t vocab);
void cuda_adamw(struct device *dev, real *w, real *m, real *v, const real *g, size_t count,
                const struct adamw_args *args);
double cuda_sum_squares(struct device *dev, const real *x, size_t count);
void cuda_matrix_product(struct device *dev, real *c, const real *a, const real *b, size_t M, size_t N,
                         size_t K);
void cuda_matrix_square(struct device *dev, real *c, const real *a, const real *d, real alpha, real beta,
                        real gamma, size_t M, size_t K);
void cuda_matrix_commute(struct device *dev, real *c, const real *a, const real *b, size_t M);
void cuda_matrix_spread(struct device *dev, real *out, const real *values, const struct nm *w,
                        size_t dout, size_t din, real scale, int transposed);
void cuda_matrix_collect(struct device *dev, real *values, const real *in, const struct nm *w,
                         size_t dout, size_t din, int transposed);
void cuda_tans_moments(struct device *dev, real *u, real *p, real *v, uint16_t *ages, const real *g,
                       size_t count, const struct tans_args *args);
void cuda_muon_momentum(struct device *dev, real *u, real *p, const real *g, size_t count, double mu,
                        real grad_scale);
void cuda_matrix_step(struct device *dev, real *w, const real *u, const real *o, size_t count,
                      const struct matrix_step_args *args);

#ifdef __cplusplus
}
#endif

#endif
