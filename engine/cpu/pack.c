/* Packing: codes to 16-bit offsets, row by row for the forward product and dW, column by column
 * in blocks of rows for dX. 4 bytes a link and 1/64 byte a position. */
#include "engine/cpu/pack.h"
#include <assert.h>
#include <string.h>

enum { PACK_ALIGN = 64 };

static size_t pack_links_bytes(const struct nm *w)
{
    size_t bytes = nm_count(w) * sizeof(uint16_t);
    return (bytes + PACK_ALIGN - 1) / PACK_ALIGN * PACK_ALIGN;
}

size_t cpu_nm_pack_size(const struct nm *w)
{
    return 2 * pack_links_bytes(w) + cpu_blocks(w->dout, CPU_BLOCK) * w->din;
}

struct cpu_nm cpu_pack_view(const struct nm *w)
{
    const char *pack = w->pack;
    size_t links = pack_links_bytes(w);
    assert(pack && "nm_repack makes the pack before the first product");
    return (struct cpu_nm){
        .values = w->values,
        .forward = (const uint16_t *)(const void *)pack,
        .backward = (const uint16_t *)(const void *)(pack + links),
        .counts = (const uint8_t *)pack + 2 * links,
        .dout = w->dout,
        .din = w->din,
        .kept = nm_row_values(w),
        .n = w->n,
        .m = w->m,
        .block = CPU_BLOCK / w->m * w->m,
    };
}

struct pack_job {
    const struct nm *w;
    struct cpu_nm view;
    uint16_t *forward, *backward;
    uint8_t *counts;
};

static const uint8_t *pack_columns(const struct nm *w, size_t row, size_t group)
{
    return w->patterns->column + (size_t)w->codes[row * nm_groups(w) + group] * w->n;
}

/* One block of rows: their forward offsets, then the lists of their columns. */
static void pack_task(void *context, size_t block, unsigned thread)
{
    (void)thread;
    const struct pack_job *job = context;
    const struct nm *w = job->w;
    size_t first = block * CPU_BLOCK, last = cpu_min(first + CPU_BLOCK, w->dout);
    uint16_t *link = job->backward + first * job->view.kept;
    uint8_t *counts = job->counts + block * w->din;
    memset(counts, 0, w->din);
    for (size_t g = 0; g < nm_groups(w); g++) {
        uint16_t base = (uint16_t)(g * w->m % job->view.block);
        for (size_t row = first; row < last; row++) {
            const uint8_t *columns = pack_columns(w, row, g);
            uint16_t *offsets = job->forward + row * job->view.kept + g * w->n;
            for (size_t j = 0; j < w->n; j++)
                offsets[j] = (uint16_t)((base + columns[j]) * CPU_BLOCK_BYTES);
        }
        for (size_t column = 0; column < w->m; column++) {
            for (size_t row = first; row < last; row++) {
                const uint8_t *columns = pack_columns(w, row, g);
                for (size_t j = 0; j < w->n; j++) {
                    if (columns[j] != column)
                        continue;
                    *link++ = (uint16_t)((row - first) << 8 | j);
                    counts[g * w->m + column]++;
                }
            }
        }
    }
}

void cpu_nm_repack(struct device *dev, struct nm *w)
{
    struct pack_job job = {.w = w, .view = cpu_pack_view(w)};
    size_t links = pack_links_bytes(w);
    job.forward = w->pack;
    job.backward = (uint16_t *)(void *)((char *)w->pack + links);
    job.counts = (uint8_t *)w->pack + 2 * links;
    pool_run(dev->pool, cpu_blocks(w->dout, CPU_BLOCK), pack_task, &job);
}
