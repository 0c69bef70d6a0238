#include "engine/sparse/refresher.h"
#include <string.h>

static size_t dead_columns(const struct nm *w, uint16_t *seen)
{
    const size_t groups = nm_groups(w);
    memset(seen, 0, groups * sizeof *seen);
    for (size_t o = 0; o < w->dout; o++)
        for (size_t g = 0; g < groups; g++)
            seen[g] = (uint16_t)(seen[g] | w->patterns->mask[w->codes[o * groups + g]]);
    size_t dead = w->din;
    for (size_t g = 0; g < groups; g++)
        dead -= (size_t)__builtin_popcount(seen[g]);
    return dead;
}

static void count_patterns(const struct nm *w, struct refresh_stats *stats)
{
    const size_t groups = w->dout * nm_groups(w);
    if (w->patterns->count > sizeof stats->patterns / sizeof stats->patterns[0])
        return;
    stats->pattern_count = w->patterns->count;
    for (size_t i = 0; i < groups; i++)
        stats->patterns[w->codes[i]]++;
}

static void count_blocks(const struct refresh_job *job, struct refresh_stats *stats)
{
    const struct nm *w = job->w;
    const size_t groups = nm_groups(w);
    if (w->layout != NM_LAYOUT_BLOCK)
        return;
    stats->blocks = w->dout / NM_BLOCK * groups;
    for (size_t o = 0; o < w->dout; o += NM_BLOCK)
        for (size_t g = 0; g < groups; g++) {
            bool changed = false;
            for (size_t i = o * groups + g; i < (o + NM_BLOCK) * groups; i += groups)
                changed |= w->codes[i] != job->scratch->codes_before[i];
            stats->changed_blocks += changed;
        }
}

void stats_fill(struct refresh_job *job, struct refresh_stats *stats)
{
    const struct nm *w = job->w;
    struct refresh_count sum = {0};
    for (size_t t = 0; t * REFRESH_ROWS < w->dout; t++) {
        sum.changed_groups += job->scratch->count[t].changed_groups;
        sum.flipped_links += job->scratch->count[t].flipped_links;
        sum.explored += job->scratch->count[t].explored;
    }
    const double positions = (double)w->dout * (double)w->din, links = (double)nm_count(w);
    *stats = (struct refresh_stats){
        .name = job->refresher->targets[job->target].name,
        .density = links / positions,
        .removed = job->remove,
        .changed_groups = sum.changed_groups,
        .flip_rate = (double)sum.flipped_links / links,
        .explored = (double)sum.explored / positions,
        .dead_columns = dead_columns(w, job->scratch->columns),
        .hash = nm_mask_hash(w),
    };
    count_patterns(w, stats);
    count_blocks(job, stats);
}
