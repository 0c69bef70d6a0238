/* Projection onto the legal patterns.
 *
 * Row layout. Any N columns of a group are a legal pattern,
 * so the one of largest sum that holds the survivors is: the survivors, then the vacant columns
 * of largest score. Taking the lowest of equal columns gives the lowest mask, hence the lowest
 * code, among the patterns of largest sum. No sum is formed and nothing rounds: it is the
 * survivor boost with an infinite constant.
 *
 * Block layout. The 24 or 90 legal blocks are tried one by one; those that lack a survivor are
 * passed over, which leaves few. */
#include "engine/sparse/refresher.h"
#include <assert.h>
#include <string.h>

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

enum { ROW_MASKS = 1 << NM_BLOCK };

/* sum[mask]: of the scores of the columns in mask that hold no survivor. */
static void sum_row(double sum[ROW_MASKS], const double *score, unsigned survivors)
{
    sum[0] = 0;
    for (unsigned mask = 1; mask < ROW_MASKS; mask++) {
        const unsigned c = (unsigned)__builtin_ctz(mask);
        sum[mask] = sum[mask & (mask - 1)] + (survivors >> c & 1 ? 0 : score[c]);
    }
}

size_t project_block(const double *score, uint16_t survivors, const struct block_table *blocks)
{
    double row[NM_BLOCK][ROW_MASKS];
    size_t best = blocks->count;
    double most = 0;
    for (unsigned r = 0; r < NM_BLOCK; r++)
        sum_row(row[r], score + (size_t)r * NM_BLOCK, (unsigned)survivors >> NM_BLOCK * r);
    for (size_t p = 0; p < blocks->count; p++) {
        const unsigned mask = blocks->mask[p];
        if (survivors & ~mask)
            continue;
        const double sum = row[0][mask & 15] + row[1][mask >> 4 & 15] + row[2][mask >> 8 & 15] +
                           row[3][mask >> 12];
        if (best == blocks->count || sum > most) {
            best = p;
            most = sum;
        }
    }
    assert(best < blocks->count);
    return best;
}

/* A task's rows are whole blocks. */
static_assert(REFRESH_ROWS % NM_BLOCK == 0, "a block belongs to one task");

static void project_blocks(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    struct nm *w = job->w;
    const struct block_table *blocks = w->patterns->blocks;
    const double *scores = job->scratch->cells;
    const size_t groups = nm_groups(w);
    for (size_t o = task * REFRESH_ROWS; o < refresh_row_end(job, task); o += NM_BLOCK)
        for (size_t g = 0; g < groups; g++) {
            double score[NM_BLOCK * NM_BLOCK];
            unsigned survivors = 0;
            if (!refresh_lost(job, o, g))
                continue;
            for (size_t r = 0; r < NM_BLOCK; r++) {
                const size_t i = (o + r) * groups + g;
                survivors |= (unsigned)job->scratch->survivors[i] << NM_BLOCK * r;
                memcpy(score + r * NM_BLOCK, scores + i * NM_BLOCK, NM_BLOCK * sizeof *score);
            }
            const size_t best = project_block(score, (uint16_t)survivors, blocks);
            for (size_t r = 0; r < NM_BLOCK; r++)
                w->codes[(o + r) * groups + g] = blocks->code[best][r];
        }
}

void project_run(struct refresh_job *job)
{
    refresh_rows(job, job->w->layout == NM_LAYOUT_BLOCK ? project_blocks : project_rows);
}
