/* The op contract: every operation of the model, one function pointer each.
 *
 * A device is a struct device and a table of ops. ref (ops_ref_*.c) implements every row in plain C,
 * token-major; cpu (cpu/) overrides rows with fast kernels in its own layout. The layout of an
 * *activation* (act, shape (rows, dim), rows = tokens) belongs to the device: only ops look inside,
 * act_load and act_store convert from and to token-major. Weights, gradients, per-row scalars and
 * tokens are plain row-major arrays for every device. tests/engine/test_ops.c runs every row of every
 * device against ref, tests/engine/test_ops_f64.c by finite differences.
 *
 * Memory: what a row takes comes from device_alloc and may be an address inside it; only tokens, targets, loss and
 * logits may be any memory of the host. A device may keep its own copy of what is behind an address: after
 * the host wrote there device_push, before it reads device_pull. Ops themselves see the device's copy.
 *
 * Rules for all rows: buffers do not alias unless said; "+=" accumulates, "=" overwrites; sums over
 * tokens and features are in real unless said; results have the same bits for every number of
 * threads; nothing is allocated (device_reserve sized the scratch); programmer mistakes assert. */
#ifndef HEBB_ENGINE_OPS_H
#define HEBB_ENGINE_OPS_H

#include "engine/nm.h"
#include "engine/pool.h"
#include "engine/real.h"
#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct device;

/* Shape of a batch of sequences for attention and RoPE: rows = batch * context, row b * context + t. */
struct attention_shape {
    size_t batch, context;       /* B, T */
    size_t heads, kv_heads;      /* H, K; H % K == 0; query head h reads key/value head h / (H / K) */
    size_t head_dim;             /* D, even */
};

struct adamw_args {
    double beta1, beta2; /* in double, since 1 - 0.999 in float is 1e-5 off */
    real lr, eps, weight_decay;
    real correction1, correction2; /* 1 - beta1^t, 1 - beta2^t */
    real grad_scale;               /* multiplies the gradient: clipping, 1 / tokens */
};

/* The gate of a low-rank branch (engine/adapter.h): weights, not activations. */
struct como_args {
    size_t rank, hidden;       /* r, h; h == 0: no gate, m = 1, and the pointers are not used */
    const real *b1, *w2, *b2;  /* (h), (r, h), (r) */
    real gamma, scale;         /* scale = alpha / r */
};

/* Ages of entries are counted up to AGE_MAX and stay there. */
enum { AGE_MAX = UINT16_MAX };

struct tans_args {
    double beta1, beta2;
    real eps, grad_scale;
    /* (AGE_MAX + 1) each, by age a >= 1: 1 / (1 - beta1^(a+1)) and 1 / (1 - beta2^a); NULL: no bias correction. */
    const real *correct_update, *correct_moment;
};

struct matrix_step_args {
    real keep;  /* 1 - lr weight_decay */
    real step;  /* learning rate times the matrix's scale */
    real gamma; /* share of o; 0: o is not read and may be NULL */
    real ratio; /* scale of o */
};

/* One product of decode_linear: y = x W^T, or y += x W^T if add, with W an N:M matrix and its
 * pack, or a dense one. */
struct decode_product {
    real *y;             /* (rows, dout) */
    const struct nm *nm; /* NULL: dense */
    const void *pack;    /* of nm, made by decode_pack */
    const real *dense;   /* (dout, din), or (din, dout) if turned: y = x dense */
    size_t dout, din;
    bool turned, add;
};

enum { DECODE_PRODUCTS_MAX = 4 };

/* The rotated keys and the values of one block: (sequences, kv_heads, capacity, head_dim) each. */
struct decode_cache {
    real *keys, *values;
    size_t capacity, heads, kv_heads, head_dim;
};

/* Where the token of a row belongs. */
struct decode_place {
    size_t sequence, place; /* place < capacity, counted from 0 */
};

struct ops {
    const char *name;

    /* Elements of real that an activation (rows, dim) takes, padding included. */
    size_t (*act_size)(size_t rows, size_t dim);
    void (*act_load)(struct device *dev, real *act, const real *host, size_t rows, size_t dim);
    void (*act_store)(struct device *dev, real *host, const real *act, size_t rows, size_t dim);
    /* out = a + b; out may alias a or b. act (rows, dim) */
    void (*act_add)(struct device *dev, real *out, const real *a, const real *b, size_t rows, size_t dim);

    /* out[r] = table[tokens[r]]. out: act (rows, dim); table (vocab, dim) */
    void (*embed_forward)(struct device *dev, real *out, const real *table, const int32_t *tokens,
                          size_t rows, size_t dim);
    /* dtable[tokens[r]] += dout[r], rows in ascending order. dtable (vocab, dim) */
    void (*embed_backward)(struct device *dev, real *dtable, const real *dout, const int32_t *tokens,
                           size_t rows, size_t vocab, size_t dim);

    /* rstd[r] = 1 / sqrt(mean_i(x[r,i]^2) + eps); out[r,i] = x[r,i] * rstd[r] * w[i].
     * x, out: act (rows, dim); w (dim); rstd (rows). Zhang & Sennrich 2019, eq. 4. */
    void (*rmsnorm_forward)(struct device *dev, real *out, real *rstd, const real *x, const real *w,
                            real eps, size_t rows, size_t dim);
    /* dx[r,i] += rstd (w_i dout_i - x_i rstd^2 / dim * sum_j dout_j w_j x_j); dw[i] += sum_r dout x rstd. */
    void (*rmsnorm_backward)(struct device *dev, real *dx, real *dw, const real *dout, const real *x,
                             const real *w, const real *rstd, size_t rows, size_t dim);

    /* y = x W^T. x: act (rows, din); y: act (rows, dout) */
    void (*nm_forward)(struct device *dev, real *y, const real *x, const struct nm *w, size_t rows);
    /* dx = dy W, or dx += dy W if accumulate. */
    void (*nm_backward_x)(struct device *dev, real *dx, const real *dy, const struct nm *w, size_t rows,
                          int accumulate);
    /* dvalues[k] += sum_r dy[r, row(k)] x[r, column(k)] for active weights only. Shape of w->values. */
    void (*nm_backward_w)(struct device *dev, real *dvalues, const real *dy, const real *x,
                          const struct nm *w, size_t rows);
    /* Bytes of w->pack (0: none) and its making from w->codes as the host has them; called at start and after
     * every mask change. The pack holds indices only, never values. */
    size_t (*nm_pack_size)(const struct nm *w);
    void (*nm_repack)(struct device *dev, struct nm *w);

    /* The same three products with a dense W (dout, din); dw (dout, din). */
    void (*dense_forward)(struct device *dev, real *y, const real *x, const real *w, size_t rows,
                          size_t din, size_t dout);
    void (*dense_backward_x)(struct device *dev, real *dx, const real *dy, const real *w, size_t rows,
                             size_t din, size_t dout, int accumulate);
    void (*dense_backward_w)(struct device *dev, real *dw, const real *dy, const real *x, size_t rows,
                             size_t din, size_t dout);

    /* Rotates pairs (i, i + D/2) of every head by angle t * theta^(-2i/D), in place, t = the row's place
     * in its sequence (Su et al. 2021, split-half convention). x: act (rows, heads * D).
     * cosine, sine: (context, D / 2). backward = the rotation by the negative angle. */
    void (*rope_forward)(struct device *dev, real *x, const real *cosine, const real *sine,
                         const struct attention_shape *shape, size_t heads);
    void (*rope_backward)(struct device *dev, real *dx, const real *cosine, const real *sine,
                          const struct attention_shape *shape, size_t heads);

    /* out = softmax(q k^T / sqrt(D), causal) v per sequence and head; lse = log-sum-exp of the scores.
     * q, out: act (rows, H * D); k, v: act (rows, K * D); lse (rows, H). No T x T matrix is stored. */
    void (*attention_forward)(struct device *dev, real *out, real *lse, const real *q, const real *k,
                              const real *v, const struct attention_shape *shape);
    /* dq, dk, dv = gradients (overwritten). */
    void (*attention_backward)(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                               const real *out, const real *lse, const real *q, const real *k,
                               const real *v, const struct attention_shape *shape);

    /* out = silu(gate) * up, silu(x) = x / (1 + exp(-x)). All act (rows, dim). */
    void (*swiglu_forward)(struct device *dev, real *out, const real *gate, const real *up, size_t rows,
                           size_t dim);
    /* dgate, dup = gradients (overwritten); dgate may alias dout. */
    void (*swiglu_backward)(struct device *dev, real *dgate, real *dup, const real *dout, const real *gate,
                            const real *up, size_t rows, size_t dim);

    /* s = silu(a + b1); m = 1 + gamma tanh(s W2^T + b2); g = scale m * z, elementwise.
     * z, g: act (rows, r); a, s: act (rows, h), not used when h == 0. */
    void (*como_forward)(struct device *dev, real *g, real *s, const real *z, const real *a,
                         const struct como_args *args, size_t rows);
    /* With s of the forward pass and t = (m - 1) / gamma, all overwritten: dz = scale m * dg;
     * du = scale gamma (1 - t^2) * z * dg, the gradient before the tanh; da = silu'(a + b1) * (du W2).
     * dz may alias dg. du: act (rows, r); da: act (rows, h); neither is written when h == 0. */
    void (*como_backward)(struct device *dev, real *dz, real *du, real *da, const real *dg, const real *s,
                          const real *z, const real *a, const struct como_args *args, size_t rows);
    /* db[i] += sum_r dy[r,i]. dy: act (rows, dim); db (dim) */
    void (*bias_backward)(struct device *dev, real *db, const real *dy, size_t rows, size_t dim);

    /* Output head and cross-entropy in chunks of tokens, logits never kept whole.
     * loss[r] = logsumexp(x[r] W^T) - (x[r] W^T)[targets[r]]; 0 where targets[r] < 0.
     * dx, dw NULL: loss only. Else, with d = scale * d loss / d logits: dx = d W; dw += d^T x.
     * x, dx: act (rows, dim); w, dw (vocab, dim); loss (rows). */
    void (*head_loss)(struct device *dev, real *loss, real *dx, real *dw, const real *x, const real *w,
                      const int32_t *targets, real scale, size_t rows, size_t dim, size_t vocab);
    /* logits (count, vocab), token-major, of rows first .. first + count - 1 of x: act (rows, dim). */
    void (*head_logits)(struct device *dev, real *logits, const real *x, const real *w, size_t rows,
                        size_t first, size_t count, size_t dim, size_t vocab);

    /* g = grad_scale * g; m = b1 m + (1-b1) g; v = b2 v + (1-b2) g^2;
     * w = (1 - lr wd) w - lr (m / correction1) / (sqrt(v / correction2) + eps).
     * Loshchilov & Hutter 2019, algorithm 2. All (count). g is not changed. */
    void (*adamw)(struct device *dev, real *w, real *m, real *v, const real *g, size_t count,
                  const struct adamw_args *args);
    /* Sum of x[i]^2 in double, in a fixed order. */
    double (*sum_squares)(struct device *dev, const real *x, size_t count);

    /* Plain row-major matrices, for optimizers that treat a weight as a whole. c = a b. a (M, K), b (K, N),
     * c (M, N). */
    void (*matrix_product)(struct device *dev, real *c, const real *a, const real *b, size_t M, size_t N,
                           size_t K);
    /* c = alpha a a^T + beta d + gamma I. a (M, K), c and d (M, M), d symmetric. d may be a, or NULL: no such
     * term. c is exactly symmetric, since one half of it is computed. */
    void (*matrix_square)(struct device *dev, real *c, const real *a, const real *d, real alpha,
                          real beta, real gamma, size_t M, size_t K);
    /* c = a b of symmetric matrices that commute, all (M, M): c is symmetric, one half of it is computed. */
    void (*matrix_commute)(struct device *dev, real *c, const real *a, const real *b, size_t M);
    /* out (dout, din), or (din, dout) if transposed: scale times the stored entries at their places, 0 where
     * there is none. values: as w stores them, of which only shape and codes are read; w NULL: all (dout, din). */
    void (*matrix_spread)(struct device *dev, real *out, const real *values, const struct nm *w, size_t dout,
                          size_t din, real scale, int transposed);
    /* The way back: values = the entries of `in` at the stored places. */
    void (*matrix_collect)(struct device *dev, real *values, const real *in, const struct nm *w, size_t dout,
                           size_t din, int transposed);

    /* Nesterov momentum of the gradient divided by the root of its second moment, all (count):
     * g = grad_scale * g; v = b2 v + (1-b2) g^2; q = g / (sqrt(v) + eps); p = b1 p + (1-b1) q;
     * u = (1-b1) q + b1 p. With ages (corrections in args): age = min(age + 1, AGE_MAX), v is multiplied by
     * correct_moment[age] under the root and u by correct_update[age]: the sum of u's weights over the entry's
     * own gradients becomes 1. g is not changed. TANS, preprint 202605.0851, App. C. */
    void (*tans_moments)(struct device *dev, real *u, real *p, real *v, uint16_t *ages, const real *g,
                         size_t count, const struct tans_args *args);
    /* g = grad_scale * g; p = mu p + (1-mu) g; u = (1-mu) g + mu p. All (count). Jordan et al. 2024 (Muon). */
    void (*muon_momentum)(struct device *dev, real *u, real *p, const real *g, size_t count, double mu,
                          real grad_scale);
    /* w = keep w - step (u + gamma (ratio o - u)); gamma 0: w = keep w - step u. All (count). */
    void (*matrix_step)(struct device *dev, real *w, const real *u, const real *o, size_t count,
                        const struct matrix_step_args *args);

    /* Decoding (engine/decoder.h): a few rows, each the next token of some sequence. x, y and all buffers
     * of these ops are plain row-major (rows, dim); a row's bits do not depend on the other rows. All or
     * none of these are NULL: a device may not decode. device_limits.decode_rows and below bound them.
     *
     * Bytes of the form of w->codes that decode_linear reads, and its making. It holds no values. */
    size_t (*decode_pack_size)(const struct nm *w);
    void (*decode_pack)(struct device *dev, void *pack, const struct nm *w);
    /* count <= DECODE_PRODUCTS_MAX products of one x (rows, din); N:M ones have equal n and m. */
    void (*decode_linear)(struct device *dev, const struct decode_product *products, size_t count,
                          const real *x, size_t rows);
    /* As embed_forward, rmsnorm_forward (without rstd), swiglu_forward and como_forward. */
    void (*decode_embed)(struct device *dev, real *out, const real *table, const int32_t *tokens,
                         size_t rows, size_t dim);
    void (*decode_norm)(struct device *dev, real *out, const real *x, const real *w, real eps,
                        size_t rows, size_t dim);
    void (*decode_swiglu)(struct device *dev, real *out, const real *gate, const real *up, size_t rows,
                          size_t dim);
    void (*decode_como)(struct device *dev, real *g, real *s, const real *z, const real *a,
                        const struct como_args *args, size_t rows);
    /* Rotates q (rows, H * D) and k (rows, K * D) in place by the rows' places, as rope_forward, and puts
     * k and v (rows, K * D) into the cache there. */
    void (*decode_append)(struct device *dev, const struct decode_cache *cache, real *q, real *k,
                          const real *v, const real *cosine, const real *sine,
                          const struct decode_place *places, size_t rows);
    /* out[r] = softmax(q[r] keys^T / sqrt(D)) values over places 0 .. places[r].place of the row's
     * sequence, per head. q, out: (rows, H * D). */
    void (*decode_attention)(struct device *dev, real *out, const real *q,
                             const struct decode_cache *cache, const struct decode_place *places,
                             size_t rows);
    /* Puts k (rotated) and v, act (rows, K * D) of a forward pass, into places 0 .. rows - 1. */
    void (*decode_fill)(struct device *dev, const struct decode_cache *cache, const real *k,
                        const real *v, size_t sequence, size_t rows);
};

struct device_memory;

struct device {
    const struct ops *ops;
    struct pool *pool;      /* not owned; NULL: one thread */
    void *scratch;          /* owned; sized by device_reserve */
    size_t scratch_bytes;
    void *private_data;     /* the device's own; released by device_destroy */
    const struct device_memory *memory; /* NULL: the host's */
    unsigned index;         /* which of the machine's devices, counted round */
};

/* What the largest call of a run will need; device_reserve allocates for it. */
struct device_limits {
    size_t rows, dim_max, vocab, context, heads, head_dim;
    size_t nm_values;       /* nm_count of the largest N:M matrix; 0: there is none */
    /* Of decoding; decode_rows 0: none. n, m: of the N:M matrices, 0 without them. */
    size_t decode_rows, decode_capacity;
    unsigned n, m;
};

/* One row per device: "ref", "cpu", and in a build with CUDA "cuda" (activations and products in bf16 with fp32
 * sums) and "cuda-fp32". ERR_UNSUPPORTED for a device that this build or machine does not have, naming the
 * field /resources/device and those of the build. */
int device_create(struct device **out, const char *name, struct pool *pool, struct err *err);
/* The same for the machine's device number `index` of that kind, modulo their number: the rank on this machine. */
int device_create_at(struct device **out, const char *name, unsigned index, struct pool *pool, struct err *err);
void device_destroy(struct device *dev);
/* The ops of a device by name, NULL if this build lacks it: act_size and nm_pack_size are pure functions of their
 * arguments' shapes, which is what a memory estimate needs. */
const struct ops *device_ops(const char *name);
int device_reserve(struct device *dev, const struct device_limits *limits, struct err *err);
/* Zeroed memory for count elements of `size` bytes, aligned to MEM_ALIGN; NULL on overflow or lack of memory.
 * Pages that the host never touches take none of its memory where the device has its own. device_free(dev, NULL) is fine;
 * device_destroy releases what is left on a device with memory of its own. */
void *device_alloc(struct device *dev, size_t count, size_t size);
void device_free(struct device *dev, void *memory);
/* Make the device's (push) or the host's (pull) copy of [memory, memory + bytes) that of the other; nothing where they
 * are one. Both wait until it is done. memory may be NULL when bytes is 0. */
void device_push(struct device *dev, const void *memory, size_t bytes);
void device_pull(struct device *dev, const void *memory, size_t bytes);
/* Sets the device's copy to 0; the host's stays as it is where they are two. */
void device_zero(struct device *dev, void *memory, size_t bytes);
/* True if the device works on the host's memory: push and pull do nothing. */
bool device_shares_memory(const struct device *dev);
/* For a collective library: the device's own address of memory of device_alloc, and the queue that its ops go through (CUDA: a
 * cudaStream_t); the memory itself and NULL where the device works on the host's. */
void *device_address(struct device *dev, const void *memory);
void *device_queue(struct device *dev);
/* What the device is and what it chose by measuring, a line for each index from 0; false past the last. */
bool device_choice(const struct device *dev, size_t index, char *text, size_t size);
/* Waits for all ops; reports the first failure of any since device_create. */
int device_check(struct device *dev, struct err *err);

/* The scratch bytes that device_reserve would take: a pure function, for the memory estimate. */
size_t device_scratch_bytes(const char *name, const struct device_limits *limits, unsigned threads);

#endif
