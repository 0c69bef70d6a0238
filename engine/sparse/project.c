/* Projection onto the legal patterns, row layout. Any N columns of a group are a legal pattern,
 * so the one of largest sum that holds the survivors is: the survivors, then the vacant columns
 * of largest score. Taking the lowest of equal columns gives the lowest mask, hence the lowest
 * code, among the patterns of largest sum. No sum is formed and nothing rounds: it is the
 * survivor boost with an infinite constant. */
#include "engine/sparse/refresher.h"
#include <assert.h>

uint16_t project_group(const double *score, uint16_t survivors, unsigned n, unsigned m)
{
    unsigned mask = survivors;
    for (unsigned held = (unsigned)__builtin_popcount(mask); held < n; held++) {
        unsigned best = m;
        for (unsigned c = 0; c < m; c++)
            if (!(mask >> c & 1) && (best == m || score[c] > score[best]))
                best = c;
        assert(best < m);
        mask |= 1U << best;
    }
    return (uint16_t)mask;
}

static void project_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    struct nm *w = job->w;
    const struct pattern_table *patterns = w->patterns;
    const double *scores = job->scratch->cells;
    const size_t groups = nm_groups(w);
    const size_t first = task * REFRESH_ROWS * groups,
                 end = refresh_row_end(job, task) * groups;
    for (size_t i = first; i < end; i++) {
        const uint16_t survivors = job->scratch->survivors[i];
        if (survivors == patterns->mask[w->codes[i]])
            continue; /* lost nothing */
        w->codes[i] =
            patterns->code_of[project_group(scores + i * w->m, survivors, w->n, w->m)];
    }
}

void project_run(struct refresh_job *job) { refresh_rows(job, project_rows); }
