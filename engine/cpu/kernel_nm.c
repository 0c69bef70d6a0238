/* y = x W^T and dx = dy W of an N:M matrix with one panel. */
#include "engine/cpu/kernel_nm.h"

/* Rows of y or columns of dx at a time: with 8 independent sums no addition waits for the last.
 */
enum { NM_ROWS = VEC == 16 ? 2 : 1 };

INLINE void sums_load(vec *sum, const float *out, bool fresh)
{
    UNROLL for (size_t j = 0; j < PART; j++) sum[j] =
        fresh ? (vec){0} : vec_load(out + j * VEC);
}

INLINE void sums_store(float *out, const vec *sum)
{
    UNROLL for (size_t j = 0; j < PART; j++) vec_store(out + j * VEC, sum[j]);
}

/* `rows` rows (a constant where inlined) against `count` values each of one column block. */
INLINE void nm_forward_rows(size_t rows, float *y, const float *x, const float *values,
                            size_t kept, const uint8_t *links, size_t count, bool fresh)
{
    vec sum[NM_ROWS][PART];
    UNROLL for (size_t i = 0; i < rows; i++) sums_load(sum[i], y + i * CPU_PANEL, fresh);
    size_t k = 0;
    for (; k + QUAD <= count; k += QUAD)
        UNROLL for (size_t i = 0; i < rows; i++)
            quad_add(sum[i], x, values + i * kept + k, links + i * count + k);
    for (; k < count; k++)
        UNROLL for (size_t i = 0; i < rows; i++)
            link_add(sum[i], x, values[i * kept + k], links[i * count + k]);
    UNROLL for (size_t i = 0; i < rows; i++) sums_store(y + i * CPU_PANEL, sum[i]);
}

void KERNEL(nm_forward)(const struct cpu_nm *w, float *y, const float *x, const float *next,
                        size_t block, size_t first, size_t last)
{
    const struct cpu_nm_span span = cpu_nm_span(w, block, 1);
    const uint8_t *links = w->forward + span.start * w->dout;
    const float *values = w->values + span.start;
    for (size_t lane = 0; lane < CPU_PANEL; lane += PART_LANES) {
        const float *lanes = x + span.column * CPU_PANEL + lane;
        struct prefetch plan = prefetch_plan(next, (last - first) / NM_ROWS);
        size_t o = first;
        for (; o + NM_ROWS <= last; o += NM_ROWS) {
            prefetch_step(&plan);
            for (size_t i = 0; i < NM_ROWS;
                 i++) /* rows lie further apart than prefetchers look */
                prefetch_range(values, (o + AHEAD + i) * w->kept * sizeof *values,
                               span.count * sizeof *values, 0);
            if (block == 0)
                prefetch_range(y, (o + AHEAD) * CPU_BLOCK_BYTES, NM_ROWS * CPU_BLOCK_BYTES, 1);
            nm_forward_rows(NM_ROWS, y + o * CPU_PANEL + lane, lanes, values + o * w->kept,
                            w->kept, links + o * span.count, span.count, block == 0);
        }
        for (; o < last; o++)
            nm_forward_rows(1, y + o * CPU_PANEL + lane, lanes, values + o * w->kept, w->kept,
                            links + o * span.count, span.count, block == 0);
    }
}

/* What is left of a column: links [from, count). */
INLINE void nm_column_rest(vec *sum, const float *dy, const float *values, const uint8_t *links,
                           size_t from, size_t count)
{
    for (; from + QUAD <= count; from += QUAD)
        quad_add(sum, dy, values + from, links + from);
    for (; from < count; from++)
        link_add(sum, dy, values[from], links[from]);
}

/* `columns` columns (a constant where inlined) of dx with their links in one row block, which
 * lie one after the other; the last column has the fewest. */
INLINE void nm_backward_columns(size_t columns, float *const *dx, const float *dy,
                                const float *values, const uint8_t *links,
                                const uint8_t *counts, bool fresh)
{
    vec sum[NM_ROWS][PART];
    size_t k = 0, at[NM_ROWS] = {0};
    UNROLL for (size_t i = 0; i < columns; i++)
    {
        at[i] = i > 0 ? at[i - 1] + counts[i - 1] : 0;
        sums_load(sum[i], dx[i], fresh);
    }
    for (; k + QUAD <= counts[columns - 1]; k += QUAD)
        UNROLL for (size_t i = 0; i < columns; i++)
            quad_add(sum[i], dy, values + at[i] + k, links + at[i] + k);
    UNROLL for (size_t i = 0; i < columns; i++)
        nm_column_rest(sum[i], dy, values + at[i], links + at[i], k, counts[i]);
    UNROLL for (size_t i = 0; i < columns; i++) sums_store(dx[i], sum[i]);
}

/* Columns come sorted by their number of links, so that the loops over links run equally long
 * for many columns in a row and the processor foresees their ends. */
void KERNEL(nm_backward_x)(const struct cpu_nm *w, float *dx, const float *dy,
                           const float *next, const float *values, size_t block, size_t strip,
                           bool fresh)
{
    const struct cpu_nm_span span = cpu_nm_span(w, strip * CPU_STRIP, CPU_STRIP);
    const size_t row = block * CPU_BLOCK, rows = min_size(CPU_BLOCK, w->dout - row);
    const uint8_t *counts = w->counts + block * w->din + span.column;
    const uint8_t *order = w->columns + block * w->din + span.column;
    const bool scattered = counts[0] != counts[span.columns - 1]; /* else they ascend */
    for (size_t lane = 0; lane < CPU_PANEL; lane += PART_LANES) {
        struct prefetch plan = prefetch_plan(next, span.columns / NM_ROWS);
        const uint8_t *links = w->backward + row * w->kept + span.start * rows;
        const float *lanes = dy + row * CPU_PANEL + lane;
        float *out = dx + span.column * CPU_PANEL + lane;
        size_t done = 0, i = 0;
        for (; i + NM_ROWS <= span.columns; i += NM_ROWS) {
            prefetch_step(&plan);
            float *columns[NM_ROWS];
            size_t count = 0;
            for (size_t c = 0; c < NM_ROWS; c++) {
                if (scattered && i + AHEAD + c < span.columns)
                    prefetch_range(out, order[i + AHEAD + c] * CPU_BLOCK_BYTES, CPU_BLOCK_BYTES,
                                   1);
                columns[c] = out + (size_t)order[i + c] * CPU_PANEL;
                count += counts[i + c];
            }
            nm_backward_columns(NM_ROWS, columns, lanes, values + done, links + done,
                                counts + i, fresh);
            done += count;
        }
        for (; i < span.columns; i++) {
            float *column = out + (size_t)order[i] * CPU_PANEL;
            nm_backward_columns(1, &column, lanes, values + done, links + done, counts + i,
                                fresh);
            done += counts[i];
        }
    }
}
