/* Reference: rotary positions and causal attention with grouped key/value heads. */
#include "engine/ops_ref.h"
#include <assert.h>
#include <math.h>
#include <string.h>

/* direction 1: by the angle; -1: back. */
static void ref_rope(real *x, const real *cosine, const real *sine,
                     const struct attention_shape *shape, size_t heads, real direction)
{
    size_t half = shape->head_dim / 2, rows = shape->batch * shape->context;
    for (size_t r = 0; r < rows; r++) {
        const real *c = cosine + r % shape->context * half;
        const real *s = sine + r % shape->context * half;
        for (size_t h = 0; h < heads; h++) {
            real *head = x + (r * heads + h) * shape->head_dim;
            for (size_t i = 0; i < half; i++) {
                real a = head[i], b = head[i + half], turn = direction * s[i];
                head[i] = a * c[i] - b * turn;
                head[i + half] = b * c[i] + a * turn;
            }
        }
    }
}

void ref_rope_forward(struct device *dev, real *x, const real *cosine, const real *sine,
                      const struct attention_shape *shape, size_t heads)
{
    (void)dev;
    ref_rope(x, cosine, sine, shape, heads, 1);
}

void ref_rope_backward(struct device *dev, real *dx, const real *cosine, const real *sine,
                       const struct attention_shape *shape, size_t heads)
{
    (void)dev;
    ref_rope(dx, cosine, sine, shape, heads, -1);
}

static real ref_dot(const real *a, const real *b, size_t count)
{
    real sum = 0;
    for (size_t i = 0; i < count; i++)
        sum += a[i] * b[i];
    return sum;
}

/* One query against the keys of its sequence up to and with its own place t. k, v: the first
 * row of the sequence, already at the head; stride: from row to row. */
static void ref_attend(real *out, real *lse, const real *q, const real *k, const real *v,
                       size_t t, size_t stride, size_t D)
{
    real scale = 1 / real_sqrt((real)D), top = -INFINITY, sum = 0;
    for (size_t j = 0; j <= t; j++) {
        real score = scale * ref_dot(q, k + j * stride, D);
        top = score > top ? score : top;
    }
    memset(out, 0, D * sizeof *out);
    for (size_t j = 0; j <= t; j++) {
        real p = real_exp(scale * ref_dot(q, k + j * stride, D) - top);
        sum += p;
        for (size_t i = 0; i < D; i++)
            out[i] += p * v[j * stride + i];
    }
    for (size_t i = 0; i < D; i++)
        out[i] /= sum;
    *lse = top + real_log(sum);
}

void ref_attention_forward(struct device *dev, real *out, real *lse, const real *q,
                           const real *k, const real *v, const struct attention_shape *shape)
{
    (void)dev;
    size_t T = shape->context, H = shape->heads, K = shape->kv_heads, D = shape->head_dim;
    assert(H % K == 0);
    for (size_t b = 0; b < shape->batch; b++) {
        for (size_t h = 0; h < H; h++) {
            size_t shared = (b * T * K + h / (H / K)) * D;
            for (size_t t = 0; t < T; t++) {
                size_t own = (b * T + t) * H + h;
                ref_attend(out + own * D, lse + own, q + own * D, k + shared, v + shared, t,
                           K * D, D);
            }
        }
    }
}

/* With p = softmax(s): dp_j = dout . v_j, ds_j = p_j (dp_j - dout . out) / sqrt(D). Adds to
 * all. */
static void ref_attend_backward(real *dq, real *dk, real *dv, const real *dout, const real *out,
                                real lse, const real *q, const real *k, const real *v, size_t t,
                                size_t stride, size_t D)
{
    real scale = 1 / real_sqrt((real)D), delta = ref_dot(dout, out, D);
    for (size_t j = 0; j <= t; j++) {
        const real *kj = k + j * stride, *vj = v + j * stride;
        real p = real_exp(scale * ref_dot(q, kj, D) - lse);
        real ds = p * (ref_dot(dout, vj, D) - delta) * scale;
        for (size_t i = 0; i < D; i++) {
            dq[i] += ds * kj[i];
            dk[j * stride + i] += ds * q[i];
            dv[j * stride + i] += p * dout[i];
        }
    }
}

void ref_attention_backward(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                            const real *out, const real *lse, const real *q, const real *k,
                            const real *v, const struct attention_shape *shape)
{
    (void)dev;
    size_t T = shape->context, H = shape->heads, K = shape->kv_heads, D = shape->head_dim;
    size_t rows = shape->batch * T;
    assert(H % K == 0);
    memset(dq, 0, rows * H * D * sizeof *dq);
    memset(dk, 0, rows * K * D * sizeof *dk);
    memset(dv, 0, rows * K * D * sizeof *dv);
    for (size_t b = 0; b < shape->batch; b++) {
        for (size_t h = 0; h < H; h++) {
            size_t shared = (b * T * K + h / (H / K)) * D;
            for (size_t t = 0; t < T; t++) {
                size_t own = (b * T + t) * H + h;
                ref_attend_backward(dq + own * D, dk + shared, dv + shared, dout + own * D,
                                    out + own * D, lse[own], q + own * D, k + shared,
                                    v + shared, t, K * D, D);
            }
        }
    }
}
