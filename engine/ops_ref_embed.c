/* Reference: token embedding. */
#include "engine/ops_ref.h"
#include <assert.h>
#include <string.h>

void ref_embed_forward(struct device *dev, real *out, const real *table, const int32_t *tokens,
                       size_t rows, size_t dim)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        assert(tokens[r] >= 0);
        memcpy(out + r * dim, table + (size_t)tokens[r] * dim, dim * sizeof *out);
    }
}

void ref_embed_backward(struct device *dev, real *dtable, const real *dout,
                        const int32_t *tokens, size_t rows, size_t vocab, size_t dim)
{
    (void)dev;
    for (size_t r = 0; r < rows; r++) {
        assert(tokens[r] >= 0 && (size_t)tokens[r] < vocab);
        real *drow = dtable + (size_t)tokens[r] * dim;
        for (size_t i = 0; i < dim; i++)
            drow[i] += dout[r * dim + i];
    }
}
