/* Reference: SwiGLU (Shazeer 2020), forward and backward. */
#include "engine/ops_ref.h"
#include <math.h>

void ref_swiglu_forward(struct device *dev, real *out, const real *gate, const real *up,
                        size_t rows, size_t dim)
{
    (void)dev;
    for (size_t i = 0; i < rows * dim; i++)
        out[i] = gate[i] / (1 + real_exp(-gate[i])) * up[i];
}

/* With s = sigmoid(g): silu'(g) = s (1 + g (1 - s)). */
void ref_swiglu_backward(struct device *dev, real *dgate, real *dup, const real *dout,
                         const real *gate, const real *up, size_t rows, size_t dim)
{
    (void)dev;
    for (size_t i = 0; i < rows * dim; i++) {
        real d = dout[i], g = gate[i], s = 1 / (1 + real_exp(-g));
        dup[i] = d * g * s;
        dgate[i] = d * up[i] * s * (1 + g * (1 - s));
    }
}
