/* Products of 2:4 matrices by cuSPARSELt, where the build had its header and the machine has the library. */
#ifndef HEBB_ENGINE_CUDA_SPARSELT_H
#define HEBB_ENGINE_CUDA_SPARSELT_H

#include "engine/cuda/cuda.h"

#ifdef __cplusplus
extern "C" {
#endif

/* Why there is none goes into note (size bytes). NULL is a device without it. */
struct cuda_sparselt *sparselt_open(char *note, size_t size);
void sparselt_close(struct cuda_sparselt *lt);

/* y (rows, dout) = x (rows, din) W^T in bf16; dense (dout, din) is W with its zeros, of which every four hold at most two others. The
 * matrix is compressed anew each time, for its values change. False if the library refuses the shape: y is then undefined. */
bool sparselt_forward(struct device *dev, void *y, const void *x, const void *dense, size_t rows,
                      size_t din, size_t dout);

#ifdef __cplusplus
}
#endif

#endif
