/* Removal: the links of smallest key go, of equal keys the first in row-major order.
 *
 * The key of a link is a = |W| or, with relative importance, |W| / sum_row |W| + |W| / sum_col
 * |W| over the active links (arXiv 2501.19107). Soft removal perturbs it to a * (-ln U)^(-1/T),
 * U uniform in (0, 1): dropping the smallest is then drawing the links to keep without
 * replacement with probability proportional to a^T (CPAL 2026, 3.2.2). Its logarithm is
 * compared instead, in double; a link of magnitude 0 has -inf and goes first. */
#include "engine/sparse/refresher.h"
#include <assert.h>
#include <math.h>
#include <string.h>

enum { SUM_GROUPS = 64, DIGIT_BITS = 8, DIGITS = 1 << DIGIT_BITS };

static double magnitude(real value) { return fabs((double)value); }

static void sum_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    const struct nm *w = job->w;
    const size_t count = nm_row_values(w);
    for (size_t o = task * REFRESH_ROWS; o < refresh_row_end(job, task); o++) {
        double sum = 0;
        for (size_t i = 0; i < count; i++)
            sum += magnitude(w->values[o * count + i]);
        job->scratch->row_sum[o] = sum;
    }
}

/* A task owns SUM_GROUPS groups of columns and adds their rows in ascending order. */
static void sum_columns(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    const struct nm *w = job->w;
    const size_t groups = nm_groups(w), first = task * SUM_GROUPS;
    const size_t end = first + SUM_GROUPS < groups ? first + SUM_GROUPS : groups;
    double *sum = job->scratch->col_sum;
    memset(sum + first * w->m, 0, (end - first) * w->m * sizeof *sum);
    for (size_t o = 0; o < w->dout; o++)
        for (size_t g = first; g < end; g++) {
            const size_t i = o * groups + g;
            const uint8_t *column = w->patterns->column + (size_t)w->codes[i] * w->n;
            for (unsigned k = 0; k < w->n; k++)
                sum[g * w->m + column[k]] += magnitude(w->values[i * w->n + k]);
        }
}

/* a / sum, and 0 for a row or column of zeros. */
static double share(double a, double sum) { return sum > 0 ? a / sum : 0; }

/* Unsigned integers in the order of the doubles; not a number counts as +inf. */
static uint64_t ordered(double x)
{
    uint64_t bits;
    if (isnan(x))
        x = (double)INFINITY;
    if (x == 0)
        x = 0; /* -0 and 0 are equal keys */
    memcpy(&bits, &x, sizeof bits);
    return bits >> 63 ? ~bits : bits | (uint64_t)1 << 63;
}

static void fill_keys(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    const struct nm *w = job->w;
    const struct refresh_scratch *s = job->scratch;
    const bool ri = job->config->removal == REMOVAL_RI, soft = job->config->soft;
    const struct philox stream = refresh_stream(job, PHILOX_REMOVAL);
    const size_t groups = nm_groups(w);
    uint64_t *keys = s->cells;
    for (size_t o = task * REFRESH_ROWS; o < refresh_row_end(job, task); o++)
        for (size_t g = 0; g < groups; g++) {
            const size_t i = o * groups + g;
            const uint8_t *column = w->patterns->column + (size_t)w->codes[i] * w->n;
            for (unsigned k = 0; k < w->n; k++) {
                const size_t c = g * w->m + column[k];
                double a = magnitude(w->values[i * w->n + k]);
                if (ri)
                    a = share(a, s->row_sum[o]) + share(a, s->col_sum[c]);
                if (soft)
                    a = log(a) -
                        log(-log(philox_uniform(&stream, o * w->din + c))) / job->temperature;
                keys[i * w->n + k] = ordered(a);
            }
        }
}

/* The key of rank `rank` (0-based) in ascending order; *below: the number of smaller ones.
 * Radix selection from the highest digit on: linear, and the keys stay where they are. */
static uint64_t select_key(const uint64_t *keys, size_t count, size_t rank, size_t *below)
{
    assert(rank < count);
    uint64_t prefix = 0, mask = 0;
    *below = 0;
    for (int shift = 64 - DIGIT_BITS; shift >= 0; shift -= DIGIT_BITS) {
        size_t bins[DIGITS] = {0}, digit = 0;
        for (size_t i = 0; i < count; i++)
            if ((keys[i] & mask) == prefix)
                bins[keys[i] >> shift & (DIGITS - 1)]++;
        while (*below + bins[digit] <= rank)
            *below += bins[digit++];
        prefix |= (uint64_t)digit << shift;
        mask |= (uint64_t)(DIGITS - 1) << shift;
    }
    return prefix;
}

void removal_run(struct refresh_job *job)
{
    const struct nm *w = job->w;
    const size_t count = nm_count(w), groups = w->dout * nm_groups(w);
    const uint64_t *keys = job->scratch->cells;
    assert(job->remove > 0 && job->remove <= count);
    if (job->config->removal == REMOVAL_RI) {
        refresh_rows(job, sum_rows);
        pool_run(job->pool, (nm_groups(w) + SUM_GROUPS - 1) / SUM_GROUPS, sum_columns, job);
    }
    refresh_rows(job, fill_keys);

    size_t below;
    const uint64_t last = select_key(keys, count, job->remove - 1, &below);
    size_t ties = job->remove - below;
    for (size_t i = 0; i < groups; i++) {
        const uint8_t *column = w->patterns->column + (size_t)w->codes[i] * w->n;
        unsigned left = w->patterns->mask[w->codes[i]];
        for (unsigned k = 0; k < w->n; k++) {
            const uint64_t key = keys[i * w->n + k];
            if (key < last || (key == last && ties > 0)) {
                ties -= key == last;
                left &= ~(1U << column[k]);
            }
        }
        job->scratch->survivors[i] = (uint16_t)left;
    }
}
