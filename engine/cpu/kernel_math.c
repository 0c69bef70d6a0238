/* Elementwise and per-lane functions, in plain C that the compiler turns into vectors. */
#include "engine/cpu/kernel_isa.h"
#include <math.h>
#include <string.h>

/* exp(x): x = n ln 2 + r, |r| <= ln 2 / 2, a polynomial of degree 6 in r (the minimax
 * coefficients of Moshier's Cephes library, 1989) times 2^n in two factors, so that the result
 * goes through the denormals to 0 and to infinity as it should. NaN gives NaN. Within 2 ulp
 * where the result is a normal number (tests/engine/test_ops.c measures it). */
INLINE float exp_lane(float x)
{
    const float magic = 12582912.0f; /* 1.5 * 2^23: adding it rounds to an integer */
    x = x < -104.0f ? -104.0f : x;   /* exp(-104) rounds to 0, exp(89) to infinity */
    x = x > 89.0f ? 89.0f : x;
    float shifted = x * 1.44269504088896341f + magic, n = shifted - magic;
    float r = x - n * 0.693359375f;
    r = r - n * -2.12194440e-4f;
    float p = 1.9875691500e-4f;
    p = p * r + 1.3981999507e-3f;
    p = p * r + 8.3334519073e-3f;
    p = p * r + 4.1665795894e-2f;
    p = p * r + 1.6666665459e-1f;
    p = p * r + 5.0000001201e-1f;
    p = p * (r * r) + r + 1.0f;
    int32_t whole;
    memcpy(&whole, &shifted, sizeof whole);
    whole -= 0x4b400000; /* the bits of magic */
    int32_t half = whole >> 1;
    uint32_t low = ((uint32_t)half + 127) << 23, high = ((uint32_t)(whole - half) + 127) << 23;
    float scale_low, scale_high;
    memcpy(&scale_low, &low, sizeof low);
    memcpy(&scale_high, &high, sizeof high);
    return p * scale_low * scale_high;
}

void KERNEL(exponential)(float *restrict out, const float *restrict x, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = exp_lane(x[i]);
}

/* out may alias a or b: a block is read before it is written. */
void KERNEL(add)(float *out, const float *a, const float *b, size_t count)
{
    size_t i = 0;
    for (; i + VEC <= count; i += VEC)
        vec_store(out + i, vec_load(a + i) + vec_load(b + i));
    for (; i < count; i++)
        out[i] = a[i] + b[i];
}

void KERNEL(swiglu_forward)(float *restrict out, const float *restrict gate,
                            const float *restrict up, size_t count)
{
    for (size_t i = 0; i < count; i++)
        out[i] = gate[i] / (1.0f + exp_lane(-gate[i])) * up[i];
}

static void swiglu_backward_block(float *restrict dgate, float *restrict dup,
                                  const float *restrict d, const float *restrict gate,
                                  const float *restrict up, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        float s = 1.0f / (1.0f + exp_lane(-gate[i]));
        dup[i] = d[i] * gate[i] * s;
        dgate[i] = d[i] * up[i] * s * (1.0f + gate[i] * (1.0f - s));
    }
}

/* dgate may alias dout, which is why a block of it is copied first. */
void KERNEL(swiglu_backward)(float *dgate, float *dup, const float *dout, const float *gate,
                             const float *up, size_t count)
{
    float block[256];
    for (size_t i = 0; i < count; i += 256) {
        size_t part = count - i < 256 ? count - i : 256;
        memcpy(block, dout + i, part * sizeof *block);
        swiglu_backward_block(dgate + i, dup + i, block, gate + i, up + i, part);
    }
}

void KERNEL(softmax_lanes)(float *s, float *restrict max, float *restrict sum, size_t rows,
                           float scale, bool keep)
{
    float top[CPU_PANEL], total[CPU_PANEL] = {0};
    for (size_t j = 0; j < CPU_PANEL; j++)
        top[j] = -INFINITY;
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < CPU_PANEL; j++)
            top[j] = s[i * CPU_PANEL + j] > top[j] ? s[i * CPU_PANEL + j] : top[j];
    for (size_t i = 0; i < rows; i++) {
        float *row = s + i * CPU_PANEL, e[CPU_PANEL];
        for (size_t j = 0; j < CPU_PANEL; j++)
            e[j] = exp_lane(scale * (row[j] - top[j]));
        for (size_t j = 0; j < CPU_PANEL; j++)
            total[j] += e[j];
        if (keep)
            memcpy(row, e, sizeof e);
    }
    memcpy(max, top, sizeof top);
    memcpy(sum, total, sizeof total);
}

void KERNEL(softmax_scaled)(float *restrict s, const float *restrict lse,
                            const float *restrict scale, size_t rows)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < CPU_PANEL; j++)
            s[i * CPU_PANEL + j] = scale[j] * exp_lane(s[i * CPU_PANEL + j] - lse[j]);
}

void KERNEL(softmax_backward)(float *restrict s, float *restrict dp, const float *restrict lse,
                              const float *restrict delta, float scale, size_t rows)
{
    for (size_t i = 0; i < rows; i++) {
        float *restrict p = s + i * CPU_PANEL, *restrict d = dp + i * CPU_PANEL;
        float shift = lse[i], pull = delta[i];
        for (size_t j = 0; j < CPU_PANEL; j++) {
            p[j] = exp_lane(scale * p[j] - shift);
            d[j] = scale * p[j] * (d[j] - pull);
        }
    }
}

void KERNEL(scale_lanes)(float *restrict x, const float *restrict factor, size_t rows)
{
    for (size_t i = 0; i < rows; i++)
        for (size_t j = 0; j < CPU_PANEL; j++)
            x[i * CPU_PANEL + j] *= factor[j];
}
