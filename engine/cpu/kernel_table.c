/* The table of one instruction set's kernels. */
#include "engine/cpu/kernel_isa.h"

const struct cpu_kernels KERNEL(kernels) = {
    .isa = KERNEL_TEXT(KERNEL_ISA),
    .transpose = KERNEL(transpose),
    .dot = KERNEL(dot),
    .nm_forward = KERNEL(nm_forward),
    .nm_gather = KERNEL(nm_gather),
    .nm_backward_x = KERNEL(nm_backward_x),
    .nm_backward_w = KERNEL(nm_backward_w),
    .add = KERNEL(add),
    .exponential = KERNEL(exponential),
    .swiglu_forward = KERNEL(swiglu_forward),
    .swiglu_backward = KERNEL(swiglu_backward),
    .como_forward = KERNEL(como_forward),
    .como_backward = KERNEL(como_backward),
    .rmsnorm_forward = KERNEL(rmsnorm_forward),
    .rmsnorm_backward_x = KERNEL(rmsnorm_backward_x),
    .rmsnorm_backward_w = KERNEL(rmsnorm_backward_w),
    .lane_sum = KERNEL(lane_sum),
    .rope = KERNEL(rope),
    .softmax_lanes = KERNEL(softmax_lanes),
    .softmax_scaled = KERNEL(softmax_scaled),
    .softmax_backward = KERNEL(softmax_backward),
    .scale_lanes = KERNEL(scale_lanes),
    .adamw = KERNEL(adamw),
    .sum_squares = KERNEL(sum_squares),
};
