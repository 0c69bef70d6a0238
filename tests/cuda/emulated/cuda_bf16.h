/* bfloat16 as CUDA rounds it: to nearest, ties to even; NaN stays NaN. */
#ifndef EMULATED_CUDA_BF16_H
#define EMULATED_CUDA_BF16_H

#include <cstdint>
#include <cstring>

struct __nv_bfloat16 {
    uint16_t bits;
};
struct alignas(4) __nv_bfloat162 {
    __nv_bfloat16 x, y;
};

static inline float __bfloat162float(__nv_bfloat16 x)
{
    uint32_t bits = (uint32_t)x.bits << 16;
    float out;
    std::memcpy(&out, &bits, sizeof out);
    return out;
}

static inline __nv_bfloat16 __float2bfloat16(float x)
{
    uint32_t bits;
    std::memcpy(&bits, &x, sizeof bits);
    if (x != x)
        return {0x7fff};
    bits += 0x7fffu + (bits >> 16 & 1u);
    return {(uint16_t)(bits >> 16)};
}

static inline __nv_bfloat162 __floats2bfloat162_rn(float x, float y)
{
    return {__float2bfloat16(x), __float2bfloat16(y)};
}

#endif
