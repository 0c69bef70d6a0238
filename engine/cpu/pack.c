/* Packing: codes to one byte a link for the forward product and dW, row by row in blocks of
 * columns, and one for dX, column by column in blocks of rows; and 1/32 byte a position. */
#include "engine/cpu/pack.h"
#include <assert.h>
#include <string.h>

enum {
    PACK_ALIGN = 64,
    PACK_PLACES = 256 / CPU_BLOCK, /* values of a group that a link's byte can tell apart */
};

_Static_assert(CPU_STRIP *CPU_BLOCK <= 256, "a byte holds a column of a strip");

static size_t pack_links_bytes(const struct nm *w)
{
    return (nm_count(w) + PACK_ALIGN - 1) / PACK_ALIGN * PACK_ALIGN;
}

size_t cpu_nm_pack_size(const struct nm *w)
{
    return 2 * pack_links_bytes(w) + 2 * cpu_blocks(w->dout, CPU_BLOCK) * w->din;
}

struct cpu_nm cpu_pack_view(const struct nm *w)
{
    const uint8_t *pack = w->pack;
    size_t links = pack_links_bytes(w);
    assert(pack && "nm_repack makes the pack before the first product");
    return (struct cpu_nm){
        .values = w->values,
        .forward = pack,
        .backward = pack + links,
        .columns = pack + 2 * links,
        .counts = pack + 2 * links + cpu_blocks(w->dout, CPU_BLOCK) * w->din,
        .dout = w->dout,
        .din = w->din,
        .kept = nm_row_values(w),
        .n = w->n,
        .m = w->m,
        .block = CPU_BLOCK / w->m * w->m,
    };
}

size_t cpu_pack_start(const struct cpu_nm *w, size_t block, size_t strip)
{
    size_t row = block * CPU_BLOCK, rows = cpu_min(CPU_BLOCK, w->dout - row);
    return row * w->kept + cpu_nm_span(w, strip * CPU_STRIP, CPU_STRIP).start * rows;
}

/* place[column in the strip] = the place of its first link in w->backward, from
 * cpu_pack_start on. */
static void pack_places(const struct cpu_nm *w, uint16_t *place, size_t block, size_t strip)
{
    const struct cpu_nm_span span = cpu_nm_span(w, strip * CPU_STRIP, CPU_STRIP);
    const uint8_t *columns = w->columns + block * w->din + span.column;
    const uint8_t *counts = w->counts + block * w->din + span.column;
    size_t at = 0;
    for (size_t i = 0; i < span.columns; i++) {
        place[columns[i]] = (uint16_t)at;
        at += counts[i];
    }
}

/* Row by row: a link says where its value goes, the column's next place. For any n. */
static void pack_values_by_rows(const struct cpu_nm *w, float *out, size_t block, size_t strip)
{
    uint16_t place[CPU_STRIP * CPU_BLOCK];
    const size_t row = block * CPU_BLOCK, end = cpu_min(row + CPU_BLOCK, w->dout);
    const size_t last = cpu_min((strip + 1) * CPU_STRIP, cpu_blocks(w->din, w->block));
    pack_places(w, place, block, strip);
    for (size_t b = strip * CPU_STRIP; b < last; b++) {
        const struct cpu_nm_span span = cpu_nm_span(w, b, 1);
        uint16_t *places = place + b % CPU_STRIP * w->block;
        for (size_t o = row; o < end; o++) {
            const uint8_t *links = w->forward + span.start * w->dout + o * span.count;
            const float *values = w->values + o * w->kept + span.start;
            for (size_t k = 0; k < span.count; k++)
                out[places[links[k]]++] = values[k];
        }
    }
}

/* Column by column, which is faster: a link's byte says where its value comes from. */
static void pack_values_by_columns(const struct cpu_nm *w, float *out, size_t block,
                                   size_t strip)
{
    const struct cpu_nm_span span = cpu_nm_span(w, strip * CPU_STRIP, CPU_STRIP);
    const uint8_t *columns = w->columns + block * w->din + span.column;
    const uint8_t *counts = w->counts + block * w->din + span.column;
    const uint8_t *links = w->backward + cpu_pack_start(w, block, strip);
    const float *values = w->values + block * CPU_BLOCK * w->kept + span.start;
    for (size_t i = 0; i < span.columns; i++) {
        const float *group = values + columns[i] / w->m * w->n;
        for (size_t k = 0; k < counts[i]; k++)
            out[k] = group[(links[k] & CPU_LINK_MASK) * w->kept + links[k] / CPU_BLOCK];
        out += counts[i];
        links += counts[i];
    }
}

void cpu_pack_values(const struct cpu_nm *w, float *out, size_t block, size_t strip)
{
    out += cpu_pack_start(w, block, strip);
    if (w->n <= PACK_PLACES)
        pack_values_by_columns(w, out, block, strip);
    else
        pack_values_by_rows(w, out, block, strip);
}

/* The parts of a pack while it is made. */
struct pack_job {
    const struct nm *w;
    struct cpu_nm view;
    uint8_t *forward, *backward, *columns, *counts;
};

static void pack_forward_row(const struct pack_job *job, size_t o)
{
    const struct nm *w = job->w;
    for (size_t b = 0; b < cpu_blocks(w->din, job->view.block); b++) {
        const struct cpu_nm_span span = cpu_nm_span(&job->view, b, 1);
        const uint16_t *codes = w->codes + o * nm_groups(w) + span.column / w->m;
        uint8_t *links = job->forward + span.start * w->dout + o * span.count;
        for (size_t g = 0; g < span.columns / w->m; g++) {
            const uint8_t *columns = w->patterns->column + (size_t)codes[g] * w->n;
            for (size_t j = 0; j < w->n; j++)
                *links++ = (uint8_t)(g * w->m + columns[j]);
        }
    }
}

/* Columns of the strip sorted by falling count, and their counts; equal ones ascending. */
static void pack_sort(const struct pack_job *job, const uint8_t *found, size_t block,
                      struct cpu_nm_span span)
{
    uint8_t *columns = job->columns + block * job->w->din + span.column;
    uint8_t *counts = job->counts + block * job->w->din + span.column;
    size_t start[CPU_BLOCK + 2] = {0}; /* start[n]: columns with more than n - 1 links */
    for (size_t c = 0; c < span.columns; c++)
        start[found[c]]++;
    for (size_t n = CPU_BLOCK + 1; n-- > 0;)
        start[n] += start[n + 1];
    for (size_t c = 0; c < span.columns; c++) {
        size_t at = start[found[c] + 1]++;
        columns[at] = (uint8_t)c;
        counts[at] = found[c];
    }
}

/* Calls for every link of a row block and strip, rows ascending: found[column]++, or, with
 * places, its row into the column's next place. */
static void pack_walk(const struct pack_job *job, size_t block, size_t strip, uint8_t *found,
                      uint16_t *places)
{
    const struct nm *w = job->w;
    const struct cpu_nm *view = &job->view;
    const size_t row = block * CPU_BLOCK, end = cpu_min(row + CPU_BLOCK, w->dout);
    const size_t last = cpu_min((strip + 1) * CPU_STRIP, cpu_blocks(w->din, view->block));
    uint8_t *backward = job->backward + cpu_pack_start(view, block, strip);
    for (size_t b = strip * CPU_STRIP; b < last; b++) {
        const struct cpu_nm_span span = cpu_nm_span(view, b, 1);
        const size_t column = b % CPU_STRIP * view->block;
        for (size_t o = row; o < end; o++) {
            const uint8_t *links = view->forward + span.start * w->dout + o * span.count;
            for (size_t k = 0; k < span.count; k++) {
                size_t value = w->n <= PACK_PLACES ? k % w->n : 0;
                if (places)
                    backward[places[column + links[k]]++] =
                        (uint8_t)(value * CPU_BLOCK + o - row);
                else
                    found[column + links[k]]++;
            }
        }
    }
}

/* One block of rows: their forward links, then the lists of their columns. */
static void pack_task(void *context, size_t block, unsigned thread)
{
    (void)thread;
    const struct pack_job *job = context;
    const size_t first = block * CPU_BLOCK, last = cpu_min(first + CPU_BLOCK, job->w->dout);
    for (size_t o = first; o < last; o++)
        pack_forward_row(job, o);
    for (size_t strip = 0; strip < cpu_pack_strips(&job->view); strip++) {
        uint8_t found[CPU_STRIP * CPU_BLOCK] = {0};
        uint16_t places[CPU_STRIP * CPU_BLOCK];
        pack_walk(job, block, strip, found, NULL);
        pack_sort(job, found, block, cpu_nm_span(&job->view, strip * CPU_STRIP, CPU_STRIP));
        pack_places(&job->view, places, block, strip);
        pack_walk(job, block, strip, NULL, places);
    }
}

void cpu_nm_repack(struct device *dev, struct nm *w)
{
    struct pack_job job = {.w = w, .view = cpu_pack_view(w)};
    size_t links = pack_links_bytes(w);
    job.forward = w->pack;
    job.backward = job.forward + links;
    job.columns = job.backward + links;
    job.counts = job.columns + cpu_blocks(w->dout, CPU_BLOCK) * w->din;
    pool_run(dev->pool, cpu_blocks(w->dout, CPU_BLOCK), pack_task, &job);
}
