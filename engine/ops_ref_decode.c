/* Reference: decoding. The reference keeps activations token-major, as decoding does, so that
 * the products, the norm and the elementwise ops are those of a forward pass. */
#include "engine/ops_ref.h"
#include <assert.h>
#include <math.h>
#include <string.h>

size_t ref_decode_pack_size(const struct nm *w)
{
    (void)w; /* the reference reads the codes themselves */
    return 0;
}

void ref_decode_pack(struct device *dev, void *pack, const struct nm *w)
{
    (void)dev;
    (void)pack;
    (void)w;
}

/* Element (o, i) of the product's matrix W (dout, din). */
static real product_weight(const struct decode_product *p, size_t o, size_t i)
{
    return p->turned ? p->dense[i * p->dout + o] : p->dense[o * p->din + i];
}

static real product_dot(const struct decode_product *p, size_t o, const real *x)
{
    const struct nm *w = p->nm;
    real sum = 0;
    if (!w) {
        for (size_t i = 0; i < p->din; i++)
            sum += product_weight(p, o, i) * x[i];
        return sum;
    }
    for (size_t k = 0; k < nm_row_values(w); k++) {
        size_t group = k / w->n, code = w->codes[o * nm_groups(w) + group];
        size_t column = group * w->m + w->patterns->column[code * w->n + k % w->n];
        sum += w->values[o * nm_row_values(w) + k] * x[column];
    }
    return sum;
}

void ref_decode_linear(struct device *dev, const struct decode_product *products, size_t count,
                       const real *x, size_t rows)
{
    (void)dev;
    assert(count <= DECODE_PRODUCTS_MAX);
    for (size_t i = 0; i < count; i++) {
        const struct decode_product *p = &products[i];
        for (size_t r = 0; r < rows; r++)
            for (size_t o = 0; o < p->dout; o++) {
                real sum = product_dot(p, o, x + r * p->din);
                p->y[r * p->dout + o] = p->add ? p->y[r * p->dout + o] + sum : sum;
            }
    }
}

void ref_decode_norm(struct device *dev, real *out, const real *x, const real *w, real eps,
                     size_t rows, size_t dim)
{
    for (size_t r = 0; r < rows; r++) {
        real rstd;
        ref_rmsnorm_forward(dev, out + r * dim, &rstd, x + r * dim, w, eps, 1, dim);
    }
}

/* First number of head h of a sequence in the cache. */
static size_t head_start(const struct decode_cache *cache, size_t sequence, size_t h)
{
    return (sequence * cache->kv_heads + h) * cache->capacity * cache->head_dim;
}

void ref_decode_append(struct device *dev, const struct decode_cache *cache, real *q, real *k,
                       const real *v, const real *cosine, const real *sine,
                       const struct decode_place *places, size_t rows)
{
    size_t D = cache->head_dim, H = cache->heads, K = cache->kv_heads;
    const struct attention_shape one = {
        .batch = 1, .context = 1, .heads = H, .kv_heads = K, .head_dim = D};
    for (size_t r = 0; r < rows; r++) {
        const real *c = cosine + places[r].place * (D / 2),
                   *s = sine + places[r].place * (D / 2);
        ref_rope_forward(dev, q + r * H * D, c, s, &one, H);
        ref_rope_forward(dev, k + r * K * D, c, s, &one, K);
        for (size_t h = 0; h < K; h++) {
            size_t at = head_start(cache, places[r].sequence, h) + places[r].place * D;
            memcpy(cache->keys + at, k + (r * K + h) * D, D * sizeof *k);
            memcpy(cache->values + at, v + (r * K + h) * D, D * sizeof *v);
        }
    }
}

/* One query head over `count` places. */
static void attend(real *out, const real *q, const real *keys, const real *values, size_t count,
                   size_t D)
{
    real top = -INFINITY, sum = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t t = 0; t < count; t++) {
            real score = 0;
            for (size_t i = 0; i < D; i++)
                score += q[i] * keys[t * D + i];
            score /= real_sqrt((real)D);
            if (pass == 0) {
                top = score > top ? score : top;
                continue;
            }
            real p = real_exp(score - top);
            sum += p;
            for (size_t i = 0; i < D; i++)
                out[i] += p * values[t * D + i];
        }
    }
    for (size_t i = 0; i < D; i++)
        out[i] /= sum;
}

void ref_decode_attention(struct device *dev, real *out, const real *q,
                          const struct decode_cache *cache, const struct decode_place *places,
                          size_t rows)
{
    (void)dev;
    size_t D = cache->head_dim, H = cache->heads, shared = H / cache->kv_heads;
    memset(out, 0, rows * H * D * sizeof *out);
    for (size_t r = 0; r < rows; r++)
        for (size_t h = 0; h < H; h++) {
            size_t own = (r * H + h) * D;
            size_t start = head_start(cache, places[r].sequence, h / shared);
            attend(out + own, q + own, cache->keys + start, cache->values + start,
                   places[r].place + 1, D);
        }
}

void ref_decode_fill(struct device *dev, const struct decode_cache *cache, const real *k,
                     const real *v, size_t sequence, size_t rows)
{
    (void)dev;
    size_t D = cache->head_dim, K = cache->kv_heads;
    for (size_t r = 0; r < rows; r++)
        for (size_t h = 0; h < K; h++) {
            size_t at = head_start(cache, sequence, h) + r * D;
            memcpy(cache->keys + at, k + (r * K + h) * D, D * sizeof *k);
            memcpy(cache->values + at, v + (r * K + h) * D, D * sizeof *v);
        }
}
