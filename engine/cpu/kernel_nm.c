/* The three products of an N:M matrix with one panel. */
#include "engine/cpu/kernel_isa.h"
#include <string.h>

enum {
    NM_ROWS = VEC == 16 ? 2 : 1, /* rows at a time in the forward product: 8 independent sums */
    NM_BATCH = VEC,              /* weights whose sums over lanes are folded together */
};

INLINE size_t min_size(size_t a, size_t b) { return a < b ? a : b; }

enum {
    AHEAD = 8, /* rows or columns between a prefetch and its use */
    LINE = 64,
    BLOCK_LINES = CPU_BLOCK * CPU_BLOCK_BYTES / LINE,
};

/* `bytes` bytes at p + offset; that may lie past the array's end: a prefetch reads nothing. */
INLINE void prefetch_range(const void *p, size_t offset, size_t bytes, const int write)
{
    for (size_t i = 0; i < bytes; i += LINE) {
        if (write)
            __builtin_prefetch((const void *)((uintptr_t)p + offset + i), 1);
        else
            __builtin_prefetch((const void *)((uintptr_t)p + offset + i), 0);
    }
}

/* A product visits the features of a block in an order that no hardware prefetcher guesses, so
 * the next block is asked for while this one is worked on, a few lines at each of its steps. */
struct prefetch {
    const float *block;
    size_t next, bytes; /* offset, and bytes of each step */
};

INLINE struct prefetch prefetch_plan(const float *block, size_t steps)
{
    return (struct prefetch){block, 0, (BLOCK_LINES / (steps + 1) + 1) * LINE};
}

INLINE void prefetch_step(struct prefetch *plan)
{
    prefetch_range(plan->block, plan->next, plan->bytes, 0);
    plan->next += plan->bytes;
}

/* A row's values and offsets in one column block: rows lie further apart than prefetchers look.
 */
INLINE void prefetch_row(const struct cpu_nm *w, const float *values, size_t at, size_t count,
                         const int write)
{
    prefetch_range(values, at * sizeof *values, count * sizeof *values, write);
    prefetch_range(w->forward, at * sizeof *w->forward, count * sizeof *w->forward, 0);
}

/* `rows` rows (a constant where inlined) against `count` values each of one column block. */
INLINE void nm_forward_rows(size_t rows, float *y, const char *x, const float *values,
                            const uint16_t *offsets, size_t kept, size_t count, bool first)
{
    vec sum[NM_ROWS][PART];
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < PART; j++)
        sum[i][j] = first ? (vec){0} : vec_load(y + i * CPU_PANEL + j * VEC);
    for (size_t k = 0; k < count; k++) {
        UNROLL for (size_t i = 0; i < rows; i++)
        {
            const float *lanes = (const float *)(const void *)(x + offsets[i * kept + k]);
            float value = values[i * kept + k];
            UNROLL for (size_t j = 0; j < PART; j++) sum[i][j] +=
                value * vec_load(lanes + j * VEC);
        }
    }
    UNROLL for (size_t i = 0; i < rows; i++) UNROLL for (size_t j = 0; j < PART; j++)
        vec_store(y + i * CPU_PANEL + j * VEC, sum[i][j]);
}

void KERNEL(nm_forward)(const struct cpu_nm *w, float *y, const float *x, const float *next,
                        size_t block, size_t first, size_t last)
{
    size_t column = block * w->block, start = column / w->m * w->n;
    size_t count = min_size(w->block, w->din - column) / w->m * w->n;
    for (size_t lane = 0; lane < CPU_PANEL; lane += PART_LANES) {
        const char *lanes = (const char *)(x + column * CPU_PANEL + lane);
        struct prefetch plan = prefetch_plan(next, (last - first) / NM_ROWS);
        size_t o = first;
        for (; o + NM_ROWS <= last; o += NM_ROWS) {
            prefetch_step(&plan);
            for (size_t i = 0; i < NM_ROWS; i++)
                prefetch_row(w, w->values, (o + AHEAD + i) * w->kept + start, count, 0);
            if (block == 0)
                prefetch_range(y, (o + AHEAD) * CPU_BLOCK_BYTES, NM_ROWS * CPU_BLOCK_BYTES, 1);
            nm_forward_rows(NM_ROWS, y + o * CPU_PANEL + lane, lanes,
                            w->values + o * w->kept + start, w->forward + o * w->kept + start,
                            w->kept, count, block == 0);
        }
        for (; o < last; o++)
            nm_forward_rows(1, y + o * CPU_PANEL + lane, lanes, w->values + o * w->kept + start,
                            w->forward + o * w->kept + start, w->kept, count, block == 0);
    }
}

enum { GATHER = 16 }; /* values of a row taken at once: at least one group, since n <= 15 */

/* Values of one column of groups lie a row apart, often in one set of the cache; so a tile of
 * GATHER values of each row of the block is copied first. */
void KERNEL(nm_gather)(const struct cpu_nm *w, float *values, size_t block, size_t first,
                       size_t last)
{
    float tile[CPU_BLOCK * GATHER];
    size_t row = block * CPU_BLOCK, rows = min_size(CPU_BLOCK, w->dout - row);
    const uint8_t *counts = w->counts + block * w->din;
    const uint16_t *links = w->backward + row * w->kept + first * w->n * rows;
    for (size_t g = first; g < last; g += GATHER / w->n) {
        size_t groups = min_size(GATHER / w->n, last - g), width = groups * w->n;
        for (size_t r = 0; r < rows; r++) {
            const float *from = w->values + (row + r) * w->kept + g * w->n;
            if (g * w->n + GATHER <= w->kept)
                memcpy(tile + r * GATHER, from, GATHER * sizeof *tile);
            else
                memcpy(tile + r * GATHER, from, width * sizeof *tile);
        }
        for (size_t i = 0; i < groups; i++) {
            size_t count = 0;
            for (size_t column = 0; column < w->m; column++)
                count += counts[(g + i) * w->m + column];
            for (size_t k = 0; k < count; k++)
                values[k] =
                    tile[(size_t)(links[k] >> 8) * GATHER + (links[k] & 0xffU) + i * w->n];
            values += count;
            links += count;
        }
    }
}

/* p, of which the compiler knows nothing: else it keeps one base per vector of a row, runs out
 * of registers and reloads them for every link. */
INLINE const float *opaque(const float *p)
{
    __asm__("" : "+r"(p));
    return p;
}

/* sum += a link's value times the lanes of its row of dy. */
INLINE void nm_link(vec *sum, const char *dy, float value, uint16_t link)
{
    const float *lanes = opaque((const float *)(const void *)(dy + (link & 0xff00U)));
    UNROLL for (size_t j = 0; j < PART; j++) sum[j] += value * vec_load(lanes + j * VEC);
}

/* One column of dx against the `count` links that it has in one row block. With few registers a
 * sum (PART < 8) odd and even links are summed apart, so that no addition waits for the last.
 */
INLINE void nm_column(float *dx, const char *dy, const float *values, const uint16_t *links,
                      size_t count, bool fresh)
{
    _Static_assert(CPU_BLOCK_BYTES == 1 << 8, "a link's high byte is its row's offset / 256");
    vec sum[PART], odd[PART];
    size_t k = 0;
    UNROLL for (size_t j = 0; j < PART; j++)
    {
        sum[j] = fresh ? (vec){0} : vec_load(dx + j * VEC);
        odd[j] = (vec){0};
    }
    if (PART < 8) {
        for (; k + 2 <= count; k += 2) {
            nm_link(sum, dy, values[k], links[k]);
            nm_link(odd, dy, values[k + 1], links[k + 1]);
        }
        UNROLL for (size_t j = 0; j < PART; j++) sum[j] += odd[j];
    }
    for (; k < count; k++)
        nm_link(sum, dy, values[k], links[k]);
    UNROLL for (size_t j = 0; j < PART; j++) vec_store(dx + j * VEC, sum[j]);
}

void KERNEL(nm_backward_x)(const struct cpu_nm *w, float *dx, const float *dy,
                           const float *next, const float *values, size_t block, size_t first,
                           size_t last, bool fresh)
{
    size_t row = block * CPU_BLOCK, rows = min_size(CPU_BLOCK, w->dout - row);
    const uint8_t *counts = w->counts + block * w->din;
    for (size_t lane = 0; lane < CPU_PANEL; lane += PART_LANES) {
        struct prefetch plan = prefetch_plan(next, (last - first) * w->m);
        const uint16_t *links = w->backward + row * w->kept + first * w->n * rows;
        const char *lanes = (const char *)(dy + row * CPU_PANEL + lane);
        size_t done = 0;
        for (size_t column = first * w->m; column < last * w->m; column++) {
            prefetch_step(&plan);
            if (block == 0)
                prefetch_range(dx, (column + AHEAD) * CPU_BLOCK_BYTES, CPU_BLOCK_BYTES, 1);
            nm_column(dx + column * CPU_PANEL + lane, lanes, values + done, links + done,
                      counts[column], fresh);
            done += counts[column];
        }
    }
}

/* Lane i of the result = the sum over the lanes of s[i], i < VEC. Every step halves the
 * vectors: it adds the two halves of each pair, so that lanes of both end up in one vector. */
#if defined(__AVX512F__)
INLINE vec fold(vec *s)
{
    UNROLL for (size_t i = 0; i < 8; i++)
    {
        vec a = s[2 * i], b = s[2 * i + 1];
        s[i] = __builtin_shufflevector(a, b, 0, 16, 1, 17, 4, 20, 5, 21, 8, 24, 9, 25, 12, 28,
                                       13, 29) +
               __builtin_shufflevector(a, b, 2, 18, 3, 19, 6, 22, 7, 23, 10, 26, 11, 27, 14, 30,
                                       15, 31);
    }
    UNROLL for (size_t i = 0; i < 4; i++)
    {
        vec a = s[2 * i], b = s[2 * i + 1];
        s[i] = __builtin_shufflevector(a, b, 0, 1, 16, 17, 4, 5, 20, 21, 8, 9, 24, 25, 12, 13,
                                       28, 29) +
               __builtin_shufflevector(a, b, 2, 3, 18, 19, 6, 7, 22, 23, 10, 11, 26, 27, 14, 15,
                                       30, 31);
    }
    for (size_t half = 2; half > 0; half /= 2)
        for (size_t i = 0; i < half; i++) {
            vec a = s[2 * i], b = s[2 * i + 1];
            s[i] = __builtin_shufflevector(a, b, 0, 1, 2, 3, 8, 9, 10, 11, 16, 17, 18, 19, 24,
                                           25, 26, 27) +
                   __builtin_shufflevector(a, b, 4, 5, 6, 7, 12, 13, 14, 15, 20, 21, 22, 23, 28,
                                           29, 30, 31);
        }
    return s[0];
}
#elif defined(__AVX2__)
INLINE vec fold(vec *s)
{
    UNROLL for (size_t i = 0; i < 4; i++)
    {
        vec a = s[2 * i], b = s[2 * i + 1];
        s[i] = __builtin_shufflevector(a, b, 0, 8, 1, 9, 4, 12, 5, 13) +
               __builtin_shufflevector(a, b, 2, 10, 3, 11, 6, 14, 7, 15);
    }
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        vec a = s[2 * i], b = s[2 * i + 1];
        s[i] = __builtin_shufflevector(a, b, 0, 1, 8, 9, 4, 5, 12, 13) +
               __builtin_shufflevector(a, b, 2, 3, 10, 11, 6, 7, 14, 15);
    }
    return __builtin_shufflevector(s[0], s[1], 0, 1, 2, 3, 8, 9, 10, 11) +
           __builtin_shufflevector(s[0], s[1], 4, 5, 6, 7, 12, 13, 14, 15);
}
#else
INLINE vec fold(vec *s)
{
    UNROLL for (size_t i = 0; i < 2; i++)
    {
        vec a = s[2 * i], b = s[2 * i + 1];
        s[i] = __builtin_shufflevector(a, b, 0, 4, 1, 5) +
               __builtin_shufflevector(a, b, 2, 6, 3, 7);
    }
    return __builtin_shufflevector(s[0], s[1], 0, 1, 4, 5) +
           __builtin_shufflevector(s[0], s[1], 2, 3, 6, 7);
}
#endif

/* dvalues[k] += sum over PART_LANES lanes of dy x[column k], k < count, of one row. */
INLINE void nm_backward_w_row(float *dvalues, const vec *dy, const char *x,
                              const uint16_t *offsets, size_t count)
{
    size_t k = 0;
    vec sum[NM_BATCH];
    for (; k + NM_BATCH <= count; k += NM_BATCH) {
        UNROLL for (size_t b = 0; b < NM_BATCH; b++)
        {
            const float *lanes = (const float *)(const void *)(x + offsets[k + b]);
            sum[b] = dy[0] * vec_load(lanes);
            UNROLL for (size_t j = 1; j < PART; j++) sum[b] +=
                dy[j] * vec_load(lanes + j * VEC);
        }
        vec_store(dvalues + k, vec_load(dvalues + k) + fold(sum));
    }
    if (k == count)
        return;
    UNROLL for (size_t b = 0; b < NM_BATCH; b++) sum[b] = (vec){0};
    for (size_t b = 0; b < count - k; b++) {
        const float *lanes = (const float *)(const void *)(x + offsets[k + b]);
        UNROLL for (size_t j = 0; j < PART; j++) sum[b] += dy[j] * vec_load(lanes + j * VEC);
    }
    vec total = fold(sum);
    for (size_t b = 0; b < count - k; b++)
        dvalues[k + b] += total[b];
}

void KERNEL(nm_backward_w)(const struct cpu_nm *w, float *dvalues, const float *dy,
                           const float *x, const float *next, size_t block, size_t first,
                           size_t last)
{
    size_t column = block * w->block, start = column / w->m * w->n;
    size_t count = min_size(w->block, w->din - column) / w->m * w->n;
    for (size_t lane = 0; lane < CPU_PANEL; lane += PART_LANES) {
        const char *lanes = (const char *)(x + column * CPU_PANEL + lane);
        struct prefetch plan = prefetch_plan(next, last - first);
        for (size_t o = first; o < last; o++) {
            prefetch_step(&plan);
            prefetch_row(w, dvalues, (o + AHEAD) * w->kept + start, count, 1);
            vec row[PART];
            UNROLL for (size_t j = 0; j < PART; j++) row[j] =
                vec_load(dy + o * CPU_PANEL + lane + j * VEC);
            nm_backward_w_row(dvalues + o * w->kept + start, row, lanes,
                              w->forward + o * w->kept + start, count);
        }
    }
}
