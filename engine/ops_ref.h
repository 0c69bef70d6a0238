/* The plain C reference of every row of ops.h: token-major, serial, written to be read. The
 * contract of each function is the comment of its row in ops.h. Only the device tables include
 * this. */
#ifndef HEBB_ENGINE_OPS_REF_H
#define HEBB_ENGINE_OPS_REF_H

#include "engine/device.h"

size_t ref_act_size(size_t rows, size_t dim);
void ref_act_load(struct device *dev, real *act, const real *host, size_t rows, size_t dim);
void ref_act_store(struct device *dev, real *host, const real *act, size_t rows, size_t dim);
void ref_act_add(struct device *dev, real *out, const real *a, const real *b, size_t rows,
                 size_t dim);
void ref_embed_forward(struct device *dev, real *out, const real *table, const int32_t *tokens,
                       size_t rows, size_t dim);
void ref_embed_backward(struct device *dev, real *dtable, const real *dout,
                        const int32_t *tokens, size_t rows, size_t vocab, size_t dim);

void ref_rmsnorm_forward(struct device *dev, real *out, real *rstd, const real *x,
                         const real *w, real eps, size_t rows, size_t dim);
void ref_rmsnorm_backward(struct device *dev, real *dx, real *dw, const real *dout,
                          const real *x, const real *w, const real *rstd, size_t rows,
                          size_t dim);

void ref_nm_forward(struct device *dev, real *y, const real *x, const struct nm *w,
                    size_t rows);
void ref_nm_backward_x(struct device *dev, real *dx, const real *dy, const struct nm *w,
                       size_t rows, int accumulate);
void ref_nm_backward_w(struct device *dev, real *dvalues, const real *dy, const real *x,
                       const struct nm *w, size_t rows);
size_t ref_nm_pack_size(const struct nm *w);
void ref_nm_repack(struct device *dev, struct nm *w);

void ref_dense_forward(struct device *dev, real *y, const real *x, const real *w, size_t rows,
                       size_t din, size_t dout);
void ref_dense_backward_x(struct device *dev, real *dx, const real *dy, const real *w,
                          size_t rows, size_t din, size_t dout, int accumulate);
void ref_dense_backward_w(struct device *dev, real *dw, const real *dy, const real *x,
                          size_t rows, size_t din, size_t dout);

void ref_rope_forward(struct device *dev, real *x, const real *cosine, const real *sine,
                      const struct attention_shape *shape, size_t heads);
void ref_rope_backward(struct device *dev, real *dx, const real *cosine, const real *sine,
                       const struct attention_shape *shape, size_t heads);
void ref_attention_forward(struct device *dev, real *out, real *lse, const real *q,
                           const real *k, const real *v, const struct attention_shape *shape);
void ref_attention_backward(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                            const real *out, const real *lse, const real *q, const real *k,
                            const real *v, const struct attention_shape *shape);

void ref_swiglu_forward(struct device *dev, real *out, const real *gate, const real *up,
                        size_t rows, size_t dim);
void ref_swiglu_backward(struct device *dev, real *dgate, real *dup, const real *dout,
                         const real *gate, const real *up, size_t rows, size_t dim);

void ref_como_forward(struct device *dev, real *g, real *s, const real *z, const real *a,
                      const struct como_args *args, size_t rows);
void ref_como_backward(struct device *dev, real *dz, real *du, real *da, const real *dg,
                       const real *s, const real *z, const real *a,
                       const struct como_args *args, size_t rows);
void ref_bias_backward(struct device *dev, real *db, const real *dy, size_t rows, size_t dim);

void ref_head_loss(struct device *dev, real *loss, real *dx, real *dw, const real *x,
                   const real *w, const int32_t *targets, real scale, size_t rows, size_t dim,
                   size_t vocab);
void ref_head_logits(struct device *dev, real *logits, const real *x, const real *w,
                     size_t rows, size_t first, size_t count, size_t dim, size_t vocab);

void ref_adamw(struct device *dev, real *w, real *m, real *v, const real *g, size_t count,
               const struct adamw_args *args);
double ref_sum_squares(struct device *dev, const real *x, size_t count);

void ref_matrix_product(struct device *dev, real *c, const real *a, const real *b, size_t M,
                        size_t N, size_t K);
void ref_matrix_square(struct device *dev, real *c, const real *a, const real *d, real alpha,
                       real beta, real gamma, size_t M, size_t K);
void ref_matrix_commute(struct device *dev, real *c, const real *a, const real *b, size_t M);
void ref_matrix_spread(struct device *dev, real *out, const real *values, const struct nm *w,
                       size_t dout, size_t din, real scale, int transposed);
void ref_matrix_collect(struct device *dev, real *values, const real *in, const struct nm *w,
                        size_t dout, size_t din, int transposed);
void ref_tans_moments(struct device *dev, real *u, real *p, real *v, uint16_t *ages,
                      const real *g, size_t count, const struct tans_args *args);
void ref_muon_momentum(struct device *dev, real *u, real *p, const real *g, size_t count,
                       double mu, real grad_scale);
void ref_matrix_step(struct device *dev, real *w, const real *u, const real *o, size_t count,
                     const struct matrix_step_args *args);

size_t ref_decode_pack_size(const struct nm *w);
void ref_decode_pack(struct device *dev, void *pack, const struct nm *w);
void ref_decode_linear(struct device *dev, const struct decode_product *products, size_t count,
                       const real *x, size_t rows);
void ref_decode_norm(struct device *dev, real *out, const real *x, const real *w, real eps,
                     size_t rows, size_t dim);
void ref_decode_append(struct device *dev, const struct decode_cache *cache, real *q, real *k,
                       const real *v, const real *cosine, const real *sine,
                       const struct decode_place *places, size_t rows);
void ref_decode_attention(struct device *dev, real *out, const real *q,
                          const struct decode_cache *cache, const struct decode_place *places,
                          size_t rows);
void ref_decode_fill(struct device *dev, const struct decode_cache *cache, const real *k,
                     const real *v, size_t sequence, size_t rows);

#endif
