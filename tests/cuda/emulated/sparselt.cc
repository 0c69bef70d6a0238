/* The emulator's cuSPARSELt: the dense product, after a look that the matrix is 2:4. */
#include "cuda_bf16.h"
#include "cuda_runtime.h"
#include "engine/cuda/sparselt.h"

#include <cstdio>
#include <cstdlib>

struct cuda_sparselt *sparselt_open(char *note, size_t size)
{
    std::snprintf(note, size, "cuSPARSELt is emulated");
    return (struct cuda_sparselt *)std::malloc(1);
}

void sparselt_close(struct cuda_sparselt *lt) { std::free(lt); }

bool sparselt_forward(struct device *dev, void *y, const void *x, const void *dense, size_t rows,
                      size_t din, size_t dout)
{
    const __nv_bfloat16 *w = (const __nv_bfloat16 *)dense;
    for (size_t i = 0; i < din * dout; i += 4) {
        unsigned held = 0;
        for (size_t j = 0; j < 4; j++)
            held += (w[i + j].bits & 0x7fff) != 0;
        if (held > 2)
            std::abort();
    }
    struct cuda_product gemm = {};
    gemm.d = y;
    gemm.a = x;
    gemm.b = dense;
    gemm.M = rows;
    gemm.N = dout;
    gemm.K = din;
    gemm.tb = gemm.ab_bf16 = gemm.c_bf16 = true;
    gemm.alpha = 1;
    cuda_gemm(dev, "sparselt", &gemm);
    return rows % 2 == 0; /* refuses the others */
}
