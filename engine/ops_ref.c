/* The device "ref": the table of the reference ops, and the ones that move activations. */
#include "engine/ops_ref.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <string.h>

size_t ref_act_size(size_t rows, size_t dim)
{
    size_t size = 0;
    bool fits = size_mul(&size, rows, dim);
    assert(fits && "activation sizes are checked where the shape comes in");
    return size;
}

void ref_act_load(struct device *dev, real *act, const real *host, size_t rows, size_t dim)
{
    (void)dev;
    memcpy(act, host, rows * dim * sizeof *act);
}

void ref_act_store(struct device *dev, real *host, const real *act, size_t rows, size_t dim)
{
    (void)dev;
    memcpy(host, act, rows * dim * sizeof *act);
}

void ref_act_add(struct device *dev, real *out, const real *a, const real *b, size_t rows,
                 size_t dim)
{
    (void)dev;
    for (size_t i = 0; i < rows * dim; i++)
        out[i] = a[i] + b[i];
}

/* The logits of one token are all that the reference keeps. */
static size_t ref_scratch_bytes(const struct device_limits *limits, unsigned threads)
{
    (void)threads;
    size_t bytes = 0;
    return size_mul(&bytes, limits->vocab, sizeof(real)) ? bytes : SIZE_MAX;
}

static const struct ops ref_ops = {
    .name = "ref",
    .act_size = ref_act_size,
    .act_load = ref_act_load,
    .act_store = ref_act_store,
    .act_add = ref_act_add,
    .embed_forward = ref_embed_forward,
    .embed_backward = ref_embed_backward,
    .rmsnorm_forward = ref_rmsnorm_forward,
    .rmsnorm_backward = ref_rmsnorm_backward,
    .nm_forward = ref_nm_forward,
    .nm_backward_x = ref_nm_backward_x,
    .nm_backward_w = ref_nm_backward_w,
    .nm_pack_size = ref_nm_pack_size,
    .nm_repack = ref_nm_repack,
    .dense_forward = ref_dense_forward,
    .dense_backward_x = ref_dense_backward_x,
    .dense_backward_w = ref_dense_backward_w,
    .rope_forward = ref_rope_forward,
    .rope_backward = ref_rope_backward,
    .attention_forward = ref_attention_forward,
    .attention_backward = ref_attention_backward,
    .swiglu_forward = ref_swiglu_forward,
    .swiglu_backward = ref_swiglu_backward,
    .como_forward = ref_como_forward,
    .como_backward = ref_como_backward,
    .bias_backward = ref_bias_backward,
    .head_loss = ref_head_loss,
    .head_logits = ref_head_logits,
    .adamw = ref_adamw,
    .sum_squares = ref_sum_squares,
    .matrix_product = ref_matrix_product,
    .matrix_square = ref_matrix_square,
    .matrix_commute = ref_matrix_commute,
    .matrix_spread = ref_matrix_spread,
    .matrix_collect = ref_matrix_collect,
    .tans_moments = ref_tans_moments,
    .muon_momentum = ref_muon_momentum,
    .matrix_step = ref_matrix_step,
    .decode_pack_size = ref_decode_pack_size,
    .decode_pack = ref_decode_pack,
    .decode_linear = ref_decode_linear,
    .decode_embed = ref_embed_forward,
    .decode_norm = ref_decode_norm,
    .decode_swiglu = ref_swiglu_forward,
    .decode_como = ref_como_forward,
    .decode_append = ref_decode_append,
    .decode_attention = ref_decode_attention,
    .decode_fill = ref_decode_fill,
};

const struct device_row device_ref = {
    .name = "ref",
    .ops = &ref_ops,
    .scratch_bytes = ref_scratch_bytes,
};
