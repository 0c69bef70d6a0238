/* The emulator's products: plain loops in the place of cuBLASLt. */
#include "cuda_bf16.h"
#include "cuda_runtime.h"
#include "engine/cuda/cuda.h"

#include <vector>

static float load(const void *at, size_t i, bool half)
{
    return half ? __bfloat162float(((const __nv_bfloat16 *)at)[i]) : ((const float *)at)[i];
}

int cuda_gemm_open(struct cuda_device *, struct err *) { return 0; }
void cuda_gemm_close(struct cuda_device *) {}

void cuda_gemm(struct device *, const char *, const struct cuda_product *g)
{
    std::vector<float> b(g->K * g->N), a(g->K);
    for (size_t k = 0; k < g->K; k++)
        for (size_t j = 0; j < g->N; j++)
            b[k * g->N + j] = load(g->b, g->tb ? j * g->K + k : k * g->N + j, g->ab_bf16);
    std::vector<float> row(g->N);
    for (size_t i = 0; i < g->M; i++) {
        std::fill(row.begin(), row.end(), 0.0f);
        for (size_t k = 0; k < g->K; k++) {
            const float x = load(g->a, g->ta ? k * g->M + i : i * g->K + k, g->ab_bf16);
            for (size_t j = 0; j < g->N; j++)
                row[j] += x * b[k * g->N + j];
        }
        for (size_t j = 0; j < g->N; j++) {
            const size_t at = i * g->N + j;
            float out = g->alpha * row[j];
            if (g->beta != 0)
                out += g->beta * load(g->c, at, g->c_bf16);
            if (g->c_bf16)
                ((__nv_bfloat16 *)g->d)[at] = __float2bfloat16(out);
            else
                ((float *)g->d)[at] = out;
        }
    }
}
