/* Inside the kernel files: names with the instruction set's suffix, and its vectors. */
#ifndef HEBB_ENGINE_CPU_KERNEL_ISA_H
#define HEBB_ENGINE_CPU_KERNEL_ISA_H

#include "engine/cpu/kernel.h"

#define KERNEL_PASTE(name, isa) cpu_##name##_##isa
#define KERNEL_EXPAND(name, isa) KERNEL_PASTE(name, isa)
#define KERNEL(name) KERNEL_EXPAND(name, KERNEL_ISA)
#define KERNEL_TEXT_OF(isa) #isa
#define KERNEL_TEXT(isa) KERNEL_TEXT_OF(isa)

#if defined(__AVX512F__)
enum { VEC = 16 };
#elif defined(__AVX2__)
enum { VEC = 8 };
#else
enum { VEC = 4 };
#endif

/* Loads and stores need no alignment beyond float's. */
typedef float vec __attribute__((vector_size(VEC * 4), aligned(4), may_alias));
typedef float vec4 __attribute__((vector_size(16), aligned(4), may_alias));

enum {
    /* Registers that hold the sums of one row of a product; lanes are done in parts of that
       many. */
    PART = VEC == 4 ? 8 : CPU_PANEL / VEC,
    PART_LANES = PART * VEC,
};

#define UNROLL _Pragma("GCC unroll 16")
#define INLINE static inline __attribute__((always_inline))

INLINE vec vec_load(const float *p) { return *(const vec *)p; }
INLINE void vec_store(float *p, vec v) { *(vec *)p = v; }

float KERNEL(dot)(const float *a, const float *b, size_t count);
void KERNEL(transpose)(float *out, size_t ldo, const float *in, size_t ldi, size_t rows,
                       size_t columns);
void KERNEL(nm_forward)(const struct cpu_nm *w, float *y, const float *x, const float *next,
                        size_t block, size_t first, size_t last);
void KERNEL(nm_backward_x)(const struct cpu_nm *w, float *dx, const float *dy,
                           const float *next, const float *values, size_t block, size_t strip,
                           bool fresh);
void KERNEL(nm_backward_w)(const struct cpu_nm *w, float *dvalues, const float *dy,
                           const float *x, const float *next, size_t block, size_t first,
                           size_t last);
void KERNEL(add)(float *out, const float *a, const float *b, size_t count);
void KERNEL(exponential)(float *out, const float *x, size_t count);
void KERNEL(swiglu_forward)(float *out, const float *gate, const float *up, size_t count);
void KERNEL(swiglu_backward)(float *dgate, float *dup, const float *dout, const float *gate,
                             const float *up, size_t count);
void KERNEL(como_forward)(float *g, float *s, const float *z, const float *a,
                          const struct como_args *args, size_t lanes);
void KERNEL(como_backward)(float *dz, float *du, float *da, const float *dg, const float *s,
                           const float *z, const float *a, const struct como_args *args);
void KERNEL(rmsnorm_forward)(float *out, float *rstd, const float *x, const float *w, float eps,
                             size_t dim, size_t lanes);
void KERNEL(rmsnorm_backward_x)(float *dx, const float *dout, const float *x, const float *w,
                                const float *rstd, size_t dim);
void KERNEL(rmsnorm_backward_w)(float *sums, const float *dout, const float *x,
                                const float *rstd, size_t count);
float KERNEL(lane_sum)(const float *lanes);
void KERNEL(rope)(float *x, const float *cosine, const float *sine, size_t heads, size_t half,
                  size_t pairs, float direction);
void KERNEL(softmax_lanes)(float *s, float *max, float *sum, size_t rows, float scale,
                           bool keep);
void KERNEL(softmax_scaled)(float *s, const float *lse, const float *scale, size_t rows);
void KERNEL(softmax_backward)(float *s, float *dp, const float *lse, const float *delta,
                              float scale, size_t rows);
void KERNEL(scale_lanes)(float *x, const float *factor, size_t rows);
void KERNEL(adamw)(float *w, float *m, float *v, const float *g, size_t count,
                   const struct adamw_args *args);
double KERNEL(sum_squares)(const float *x, size_t count);
void KERNEL(tans_moments)(float *u, float *p, float *v, uint16_t *ages, const float *g,
                          size_t count, const struct tans_args *args);
void KERNEL(muon_momentum)(float *u, float *p, const float *g, size_t count, double mu,
                           float grad_scale);
void KERNEL(matrix_step)(float *w, const float *u, const float *o, size_t count,
                         const struct matrix_step_args *args);
void KERNEL(blend)(float *out, const float *a, const float *b, float alpha, float beta,
                   size_t count);
void KERNEL(select_spread)(const struct cpu_select *w, float *choices, const float *x);
void KERNEL(select_rows)(const struct cpu_select *w, float *y, const float *choices,
                         size_t first, size_t last, bool add);
void KERNEL(row_norm)(float *out, const float *x, const float *w, float eps, size_t dim);
void KERNEL(row_rope)(float *x, const float *cosine, const float *sine, size_t heads,
                      size_t half);
void KERNEL(row_softmax)(float *s, float scale, size_t count);

#endif
