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

/* If the best pattern is the barred one, the next best: its vacant column of smallest score for
 * the best column left out. Each such exchange lowers the sum by the difference of two scores,
 * so one exchange at the smallest difference is best; the highest of equal columns out and the
 * lowest in gives the lowest mask. */
uint16_t project_group_barred(const double *score, uint16_t survivors, uint16_t barred,
                              unsigned n, unsigned m)
{
    const unsigned mask = project_group(score, survivors, n, m);
    if (mask != barred)
        return (uint16_t)mask;
    unsigned out = m, in = m;
    for (unsigned c = 0; c < m; c++) {
        if (survivors >> c & 1)
            continue;
        if (mask >> c & 1)
            out = out == m || score[c] <= score[out] ? c : out;
        else
            in = in == m || score[c] > score[in] ? c : in;
    }
    assert(out < m && in < m);
    return (uint16_t)((mask & ~(1U << out)) | 1U << in);
}

static void project_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    struct nm *w = job->w;
    const struct pattern_table *patterns = w->patterns;
    const double *scores = job->scratch->cells;
    const size_t groups = nm_groups(w);
    const struct philox stream = refresh_stream(job, PHILOX_MPR);
    const double mpr = job->config->mpr;
    const size_t first = task * REFRESH_ROWS * groups,
                 end = refresh_row_end(job, task) * groups;
    for (size_t i = first; i < end; i++) {
        const uint16_t survivors = job->scratch->survivors[i],
                       old = patterns->mask[w->codes[i]];
        const double *score = scores + i * w->m;
        if (survivors == old)
            continue; /* lost nothing */
        const bool bar = mpr > 0 && philox_uniform(&stream, i) < mpr;
        const uint16_t mask = bar ? project_group_barred(score, survivors, old, w->n, w->m)
                                  : project_group(score, survivors, w->n, w->m);
        w->codes[i] = patterns->code_of[mask];
    }
}

void project_run(struct refresh_job *job) { refresh_rows(job, project_rows); }
