/* The device "cpu": its table of ops and the choice of kernels. */
#include "engine/device.h"
#include "engine/cpu/blas.h"
#include "engine/cpu/cpu.h"
#include "engine/ops_ref.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <stdlib.h>

const struct cpu_kernels *const *cpu_kernel_sets(void)
{
    static const struct cpu_kernels *const sets[] = {
#ifdef __x86_64__
        &cpu_kernels_avx512,
        &cpu_kernels_avx2,
#endif
        &cpu_kernels_base,
        NULL,
    };
    return sets;
}

bool cpu_kernels_supported(const struct cpu_kernels *kernels)
{
#ifdef __x86_64__
    if (kernels == &cpu_kernels_avx512)
        return __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512vl") &&
               __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
               __builtin_cpu_supports("fma");
    if (kernels == &cpu_kernels_avx2)
        return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
#endif
    return kernels == &cpu_kernels_base;
}

void cpu_device_use(struct device *dev, const struct cpu_kernels *kernels)
{
    assert(cpu_kernels_supported(kernels));
    ((struct cpu_device *)dev->private_data)->kernels = kernels;
}

static int cpu_open(struct device *dev, struct err *err)
{
    blas_setup();
    struct cpu_device *cpu = mem_zeroed(1, sizeof *cpu);
    if (!cpu)
        return err_set(err, ERR_NO_MEMORY, "no memory for device \"cpu\"");
    const struct cpu_kernels *const *set = cpu_kernel_sets();
    while (!cpu_kernels_supported(*set))
        set++;
    cpu->kernels = *set;
    dev->private_data = cpu;
    return 0;
}

static void cpu_close(struct device *dev) { free(dev->private_data); }

/* Ops do not overlap in time and share one scratch: the largest need counts. */
static size_t cpu_scratch_bytes(const struct device_limits *limits, unsigned threads)
{
    size_t needs[] = {
        cpu_head_scratch(limits->vocab, limits->dim_max),
        cpu_attention_scratch(limits->context, limits->head_dim, threads),
        cpu_nm_scratch(limits->nm_values),
        cpu_decode_scratch(limits, threads),
    };
    size_t most = 0;
    for (size_t i = 0; i < sizeof needs / sizeof *needs; i++)
        most = needs[i] > most ? needs[i] : most;
    return most;
}

static const struct ops cpu_ops = {
    .name = "cpu",
    .act_size = cpu_act_size,
    .act_load = cpu_act_load,
    .act_store = cpu_act_store,
    .act_add = cpu_act_add,
    .embed_forward = cpu_embed_forward,
    .embed_backward = cpu_embed_backward,
    .rmsnorm_forward = cpu_rmsnorm_forward,
    .rmsnorm_backward = cpu_rmsnorm_backward,
    .nm_forward = cpu_nm_forward,
    .nm_backward_x = cpu_nm_backward_x,
    .nm_backward_w = cpu_nm_backward_w,
    .nm_pack_size = cpu_nm_pack_size,
    .nm_repack = cpu_nm_repack,
    .dense_forward = cpu_dense_forward,
    .dense_backward_x = cpu_dense_backward_x,
    .dense_backward_w = cpu_dense_backward_w,
    .rope_forward = cpu_rope_forward,
    .rope_backward = cpu_rope_backward,
    .attention_forward = cpu_attention_forward,
    .attention_backward = cpu_attention_backward,
    .swiglu_forward = cpu_swiglu_forward,
    .swiglu_backward = cpu_swiglu_backward,
    .como_forward = cpu_como_forward,
    .como_backward = cpu_como_backward,
    .bias_backward = cpu_bias_backward,
    .head_loss = cpu_head_loss,
    .head_logits = cpu_head_logits,
    .adamw = cpu_adamw,
    .sum_squares = cpu_sum_squares,
    .matrix_product = cpu_matrix_product,
    .matrix_square = cpu_matrix_square,
    .matrix_commute = cpu_matrix_commute,
    .matrix_spread = cpu_matrix_spread,
    .matrix_collect = cpu_matrix_collect,
    .tans_moments = cpu_tans_moments,
    .muon_momentum = cpu_muon_momentum,
    .matrix_step = cpu_matrix_step,
    .decode_pack_size = cpu_decode_pack_size,
    .decode_pack = cpu_decode_pack,
    .decode_linear = cpu_decode_linear,
    .decode_embed = ref_embed_forward, /* plain rows: nothing to gain */
    .decode_norm = cpu_decode_norm,
    .decode_swiglu = cpu_decode_swiglu,
    .decode_como = ref_como_forward, /* tens of numbers */
    .decode_append = cpu_decode_append,
    .decode_attention = cpu_decode_attention,
    .decode_fill = cpu_decode_fill,
};

const struct device_row device_cpu = {
    .name = "cpu",
    .ops = &cpu_ops,
    .scratch_bytes = cpu_scratch_bytes,
    .open = cpu_open,
    .close = cpu_close,
};
