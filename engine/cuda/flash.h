/* Attention by tensor cores, for the shapes that it takes. attention.cu has the others. */
#ifndef HEBB_ENGINE_CUDA_FLASH_H
#define HEBB_ENGINE_CUDA_FLASH_H

#include "engine/cuda/cuda.h"

/* bf16, heads of 64 or 128, at most 65,535 heads of sequences. */
bool flash_takes(const struct device *dev, const struct attention_shape *shape);
void flash_forward(struct device *dev, real *out, real *lse, const real *q, const real *k,
                   const real *v, const struct attention_shape *shape);
/* delta (rows, heads) = dout . out, on the device. */
void flash_backward(struct device *dev, real *dq, real *dk, real *dv, const real *dout,
                    const float *delta, const real *lse, const real *q, const real *k, const real *v,
                    const struct attention_shape *shape);

#endif
