/* The cpu device: panels of CPU_PANEL tokens, kernels chosen by what the machine has, tasks
 * that do not depend on the number of threads. An activation (rows, dim) is
 * [panel][dim][CPU_PANEL]; the lanes of the last panel past `rows` are padding. Every op that
 * writes an activation writes the padding too, with finite numbers, and with zeros where its
 * inputs have zeros there, so that sums over all lanes need no mask.
 *
 * The contract of each op is its row in engine/ops.h. Only cpu/ and its tests include this. */
#ifndef HEBB_ENGINE_CPU_CPU_H
#define HEBB_ENGINE_CPU_CPU_H

#include "engine/cpu/kernel.h"

struct cpu_device {
    const struct cpu_kernels *kernels;
};

/* The instruction sets of this build, best first; the last row is NULL. Tests run them all. */
const struct cpu_kernels *const *cpu_kernel_sets(void);
bool cpu_kernels_supported(const struct cpu_kernels *kernels);
/* Makes dev use another set than the best one. */
void cpu_device_use(struct device *dev, const struct cpu_kernels *kernels);

static inline const struct cpu_kernels *cpu_kernels_of(const struct device *dev)
{
    return ((const struct cpu_device *)dev->private_data)->kernels;
}

static inline size_t cpu_min(size_t a, size_t b) { return a < b ? a : b; }
static inline size_t cpu_blocks(size_t n, size_t block) { return (n + block - 1) / block; }
static inline size_t cpu_panels(size_t rows) { return cpu_blocks(rows, CPU_PANEL); }
/* Tokens in panel p, 1 .. CPU_PANEL. */
static inline size_t cpu_lanes(size_t rows, size_t p)
{
    return cpu_min(CPU_PANEL, rows - p * CPU_PANEL);
}

/* Bytes of scratch that the ops need; SIZE_MAX on overflow. */
size_t cpu_head_scratch(size_t vocab, size_t dim);
size_t cpu_attention_scratch(size_t context, size_t head_dim, unsigned threads);
size_t cpu_nm_scratch(size_t values);
size_t cpu_decode_scratch(const struct device_limits *limits, unsigned threads);

/* Part of dw += dy^T x with a dense dw: rows [first, last) of the column tiles
 * [first_tile, last_tile) of CPU_PANEL columns each; panels in ascending order. */
struct cpu_weight_gradient {
    float *dw; /* (.., din) */
    const float *dy, *x;
    size_t dy_stride, x_stride; /* floats from panel to panel */
    size_t panels, din;
};
void cpu_weight_gradient(const struct cpu_weight_gradient *job, size_t first_tile,
                         size_t last_tile, size_t first, size_t last);

/* The rows of struct ops. */
size_t cpu_act_size(size_t rows, size_t dim);
void cpu_act_load(struct device *dev, real *act, const real *host, size_t rows, size_t dim);
void cpu_act_store(struct device *dev, real *host, const real *act, size_t rows, size_t dim);
void cpu_act_add(struct device *dev, real *out, const real *a, const real *b, size_t rows,
                 size_t dim);
void cpu_embed_forward(struct device *dev, real *out, const real *table, const int32_t *tokens,
                       size_t rows, size_t dim);
void cpu_embed_backward(struct device *dev, real *dtable, const real *dout,
                        const int32_t *tokens, size_t rows, size_t vocab, size_t dim);
void cpu_rmsnorm_forward(struct device *dev, real *out, real *rstd, const real *x,
                         const real *w, real eps, size_t rows, size_t dim);
void cpu_rmsnorm_backward(struct device *dev, real *dx, real *dw, const real *dout,
                          const real *x, const real *w, const real *rstd, size_t rows,
                          size_t dim);
void cpu_nm_forward(struct device *dev, real *y, const real *x, const struct nm *w,
                    size_t rows);
void cpu_nm_backward_x(struct device *dev, real *dx, const real *dy, const struct nm *w,
                       size_t rows, int accumulate);
void cpu_nm_backward_w(struct device *dev, real *dvalues, const real *dy, const real *x,
                       const struct nm *w, size_t rows);
size_t cpu_nm_pack_size(const struct nm *w);
void cpu_nm_repack(struct device *dev, struct nm *w);
void cpu_dense_forward(struct device *dev, real *y, const real *x, const real *w, size_t rows,
                       size_t din, size_t dout);
void cpu_dense_backward_x(struct device *dev, real *dx, const real *dy, const real *w,
                          size_t rows, size_t din, size_t dout, int accumulate);
void cpu_dense_backward_w(struct device *dev, real *dw, const real *dy, const real *x,
                          size_t rows, size_t din, size_t dout);
void cpu_rope_forward(struct device *dev, real *x, const real *cosine, const real *sine,
                      const struct attention_shape *shape, size_t heads);
void cpu_rope_backward(struct device *dev, real *dx, const real *cosine, const real *sine,
                       const struct attention_shape *shape, size_t heads);
void cpu_attention_forward(struct device *dev, real *out, real *lse, const real *q,
                           const real *k, const real *v, const struct attention_shape *shape);
void cpu_attention_backward(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                            const real *out, const real *lse, const real *q, const real *k,
                            const real *v, const struct attention_shape *shape);
void cpu_swiglu_forward(struct device *dev, real *out, const real *gate, const real *up,
                        size_t rows, size_t dim);
void cpu_swiglu_backward(struct device *dev, real *dgate, real *dup, const real *dout,
                         const real *gate, const real *up, size_t rows, size_t dim);
void cpu_como_forward(struct device *dev, real *g, real *s, const real *z, const real *a,
                      const struct como_args *args, size_t rows);
void cpu_como_backward(struct device *dev, real *dz, real *du, real *da, const real *dg,
                       const real *s, const real *z, const real *a,
                       const struct como_args *args, size_t rows);
void cpu_bias_backward(struct device *dev, real *db, const real *dy, size_t rows, size_t dim);
void cpu_head_loss(struct device *dev, real *loss, real *dx, real *dw, const real *x,
                   const real *w, const int32_t *targets, real scale, size_t rows, size_t dim,
                   size_t vocab);
void cpu_head_logits(struct device *dev, real *logits, const real *x, const real *w,
                     size_t rows, size_t first, size_t count, size_t dim, size_t vocab);
void cpu_adamw(struct device *dev, real *w, real *m, real *v, const real *g, size_t count,
               const struct adamw_args *args);
double cpu_sum_squares(struct device *dev, const real *x, size_t count);
void cpu_matrix_product(struct device *dev, real *c, const real *a, const real *b, size_t M,
                        size_t N, size_t K);
void cpu_matrix_square(struct device *dev, real *c, const real *a, const real *d, real alpha,
                       real beta, real gamma, size_t M, size_t K);
void cpu_matrix_commute(struct device *dev, real *c, const real *a, const real *b, size_t M);
void cpu_matrix_spread(struct device *dev, real *out, const real *values, const struct nm *w,
                       size_t dout, size_t din, real scale, int transposed);
void cpu_matrix_collect(struct device *dev, real *values, const real *in, const struct nm *w,
                        size_t dout, size_t din, int transposed);
void cpu_tans_moments(struct device *dev, real *u, real *p, real *v, uint16_t *ages,
                      const real *g, size_t count, const struct tans_args *args);
void cpu_muon_momentum(struct device *dev, real *u, real *p, const real *g, size_t count,
                       double mu, real grad_scale);
void cpu_matrix_step(struct device *dev, real *w, const real *u, const real *o, size_t count,
                     const struct matrix_step_args *args);
size_t cpu_decode_pack_size(const struct nm *w);
void cpu_decode_pack(struct device *dev, void *pack, const struct nm *w);
void cpu_decode_linear(struct device *dev, const struct decode_product *products, size_t count,
                       const real *x, size_t rows);
void cpu_decode_norm(struct device *dev, real *out, const real *x, const real *w, real eps,
                     size_t rows, size_t dim);
void cpu_decode_swiglu(struct device *dev, real *out, const real *gate, const real *up,
                       size_t rows, size_t dim);
void cpu_decode_append(struct device *dev, const struct decode_cache *cache, real *q, real *k,
                       const real *v, const real *cosine, const real *sine,
                       const struct decode_place *places, size_t rows);
void cpu_decode_attention(struct device *dev, real *out, const real *q,
                          const struct decode_cache *cache, const struct decode_place *places,
                          size_t rows);
void cpu_decode_fill(struct device *dev, const struct decode_cache *cache, const real *k,
                     const real *v, size_t sequence, size_t rows);

#endif
