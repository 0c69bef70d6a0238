/* The inner loops of the cpu device. Every kernel file is compiled once per instruction set
 * (see engine/CMakeLists.txt) and its functions are reached through one table per set;
 * cpu/device.c chooses the best one that the machine has. Kernels work on panels, know no
 * threads and allocate nothing.
 *
 * A panel holds CPU_PANEL tokens feature-major: panel[feature][CPU_PANEL]. So a weight is a
 * broadcast that meets CPU_PANEL contiguous tokens. Lanes are the tokens of a panel. */
#ifndef HEBB_ENGINE_CPU_KERNEL_H
#define HEBB_ENGINE_CPU_KERNEL_H

#include "engine/ops.h"

enum {
    CPU_PANEL = 64, /* tokens of a panel */
    CPU_BLOCK = 64, /* features of a panel that are kept in the first-level cache: 16 KiB */
    CPU_STRIP = 4,  /* blocks of columns of a strip */
    CPU_LINK_MASK = CPU_BLOCK - 1, /* the bits of a link's byte that are its feature */
    CPU_BLOCK_BYTES = CPU_PANEL * (int)sizeof(float),
    CPU_TILE = CPU_PANEL * CPU_PANEL, /* floats of a square tile */
};

_Static_assert(sizeof(real) == sizeof(float), "the cpu device is written for float");

/* An N:M matrix as the kernels see it. Columns are cut into blocks of `block` (a multiple of m,
 * at most CPU_BLOCK) and strips of CPU_STRIP blocks, rows into blocks of CPU_BLOCK; the last of
 * each may be shorter. A link is an active weight: one byte says where its lanes are. */
struct cpu_nm {
    const float *values; /* (dout, kept) */
    const uint8_t
        *forward; /* per block of columns (dout, links of a row): column in the block */
    const uint8_t *backward; /* per block of rows and strip, column by column in the order of
                              * `columns`, rows ascending: row in the block; in the two high
                              * bits, if n <= 4, which value of its group */
    const uint8_t *columns;  /* (row blocks, din): a strip's columns, those with most links in
                              * the  row block first: column in the strip */
    const uint8_t *counts;   /* (row blocks, din): the links of columns[.] in the row block */
    size_t dout, din, kept, n, m, block;
};

/* `blocks` blocks of columns from `block` on, cut off at din. */
struct cpu_nm_span {
    size_t column, columns; /* first column, and how many */
    size_t start, count;    /* the same of the row's values */
};

static inline struct cpu_nm_span cpu_nm_span(const struct cpu_nm *w, size_t block,
                                             size_t blocks)
{
    size_t column = block * w->block, end = (block + blocks) * w->block;
    size_t columns = (end < w->din ? end : w->din) - column;
    return (struct cpu_nm_span){column, columns, column / w->m * w->n, columns / w->m * w->n};
}

/* Weights that a product with a vector reads this many bytes before it needs them: its rows are
 * too short for the hardware's own prefetcher. Measured: 8 KiB into the second-level cache, 48
 * GB/s against 20 without, where memory gives 30 and the third-level cache 70. */
enum { CPU_AHEAD = 8 * 1024 };

/* Asks for the line CPU_AHEAD behind p, which may lie past the array's end: nothing is read. */
static inline void cpu_ask_ahead(const float *p)
{
    __builtin_prefetch((const void *)((uintptr_t)p + CPU_AHEAD), 0, 2);
}

enum { CPU_SELECT = 16 }; /* values that share words of selectors */

/* An N:M matrix for products with one vector. Value k of a row meets x[k / n * m + column], and
 * its column inside the group is a number of `bits` bits. For every CPU_SELECT values of a row
 * there are `bits` words; bit j of word b is bit b of the column of value j. */
struct cpu_select {
    const float *values;   /* (dout, kept) */
    const uint16_t *words; /* (dout, blocks, bits) */
    size_t kept, blocks;   /* blocks = ceil(kept / CPU_SELECT) */
    size_t n, m;
    unsigned bits; /* 1 .. 4: 2^bits >= m */
};

struct cpu_kernels {
    const char *isa;

    /* out[j * ldo + i] = in[i * ldi + j], i < rows, j < columns. */
    void (*transpose)(float *out, size_t ldo, const float *in, size_t ldi, size_t rows,
                      size_t columns);
    float (*dot)(const float *a, const float *b, size_t count);

    /* One panel's share of one block of columns (forward, backward_w) or rows (backward_x).
     * next: the block of an activation that is needed afterwards, to be prefetched. Rows
     * [first, last) of y = x W^T; block 0 overwrites, the others add. */
    void (*nm_forward)(const struct cpu_nm *w, float *y, const float *x, const float *next,
                       size_t block, size_t first, size_t last);
    /* Columns of one strip of dx += dy W, or = if fresh. values: of this row block and strip,
     * in the order of w->backward. */
    void (*nm_backward_x)(const struct cpu_nm *w, float *dx, const float *dy, const float *next,
                          const float *values, size_t block, size_t strip, bool fresh);
    /* Rows [first, last) of dvalues += dy^T x. */
    void (*nm_backward_w)(const struct cpu_nm *w, float *dvalues, const float *dy,
                          const float *x, const float *next, size_t block, size_t first,
                          size_t last);

    void (*add)(float *out, const float *a, const float *b, size_t count);
    void (*exponential)(float *out, const float *x, size_t count);
    void (*swiglu_forward)(float *out, const float *gate, const float *up, size_t count);
    void (*swiglu_backward)(float *dgate, float *dup, const float *dout, const float *gate,
                            const float *up, size_t count);

    /* One panel of the gate of a low-rank branch. Forward writes 0 into s past the first
     * `lanes` lanes. dz may alias dg. */
    void (*como_forward)(float *g, float *s, const float *z, const float *a,
                         const struct como_args *args, size_t lanes);
    void (*como_backward)(float *dz, float *du, float *da, const float *dg, const float *s,
                          const float *z, const float *a, const struct como_args *args);

    /* One panel; rstd[CPU_PANEL]. Forward writes 0 past the first `lanes` lanes. */
    void (*rmsnorm_forward)(float *out, float *rstd, const float *x, const float *w, float eps,
                            size_t dim, size_t lanes);
    void (*rmsnorm_backward_x)(float *dx, const float *dout, const float *x, const float *w,
                               const float *rstd, size_t dim);
    /* sums[i][lane] += dout x rstd for features i < count. */
    void (*rmsnorm_backward_w)(float *sums, const float *dout, const float *x,
                               const float *rstd, size_t count);
    float (*lane_sum)(const float *lanes); /* CPU_PANEL of them */

    /* Turns the pairs (i, i + half), i < pairs, of `heads` heads of one panel; cosine, sine:
     * (pairs, CPU_PANEL). */
    void (*rope)(float *x, const float *cosine, const float *sine, size_t heads, size_t half,
                 size_t pairs, float direction);

    /* Per lane over rows s[0 .. rows): max, and sum of exp(scale * (s - max)); s[.] becomes
     * that exponential if keep. */
    void (*softmax_lanes)(float *s, float *max, float *sum, size_t rows, float scale,
                          bool keep);
    /* s[i][lane] = scale[lane] * exp(s[i][lane] - lse[lane]) */
    void (*softmax_scaled)(float *s, const float *lse, const float *scale, size_t rows);
    /* p = exp(scale * s - lse[i]); dp = scale * p * (dp - delta[i]); s becomes p. */
    void (*softmax_backward)(float *s, float *dp, const float *lse, const float *delta,
                             float scale, size_t rows);
    void (*scale_lanes)(float *x, const float *factor,
                        size_t rows); /* x[i][lane] *= factor[lane] */

    void (*adamw)(float *w, float *m, float *v, const float *g, size_t count,
                  const struct adamw_args *args);
    double (*sum_squares)(const float *x, size_t count);
    void (*tans_moments)(float *u, float *p, float *v, uint16_t *ages, const float *g,
                         size_t count, const struct tans_args *args);
    void (*muon_momentum)(float *u, float *p, const float *g, size_t count, double mu,
                          float grad_scale);
    void (*matrix_step)(float *w, const float *u, const float *o, size_t count,
                        const struct matrix_step_args *args);
    /* out = alpha a + beta b; out may alias either; b NULL: alpha a. */
    void (*blend)(float *out, const float *a, const float *b, float alpha, float beta,
                  size_t count);

    /* x as select_rows wants it: choices (blocks, 2^bits, CPU_SELECT); number c of value k is
     * x[k / n * m + c], 0 where there is none. */
    void (*select_spread)(const struct cpu_select *w, float *choices, const float *x);
    /* Rows [first, last) of y = W x, or += if add. */
    void (*select_rows)(const struct cpu_select *w, float *y, const float *choices,
                        size_t first, size_t last, bool add);
    /* One row: out = x / sqrt(mean(x^2) + eps) * w. */
    void (*row_norm)(float *out, const float *x, const float *w, float eps, size_t dim);
    /* Turns the pairs (i, i + half) of `heads` heads of one row. */
    void (*row_rope)(float *x, const float *cosine, const float *sine, size_t heads,
                     size_t half);
    /* s = exp(scale * (s - max)) / sum of those. */
    void (*row_softmax)(float *s, float scale, size_t count);
};

extern const struct cpu_kernels cpu_kernels_base;
#ifdef __x86_64__
extern const struct cpu_kernels cpu_kernels_avx2;
extern const struct cpu_kernels cpu_kernels_avx512;
#endif

#endif
