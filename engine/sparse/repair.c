/* After the codes changed: values and moments move to their columns' new slots, in place and
 * group by group.
 *
 * A link that is in both masks keeps value and moments, also if it was dropped and came back. A
 * link that is only in the new mask starts with value 0; its moments are 0 (REPAIR_CHANGED:
 * best of three in preprint 202605.0851, table A8) or those of the link it replaces, the k-th
 * new column of a group replacing the k-th lost one (REPAIR_NONE). REPAIR_ALL sets all moments
 * of the matrix to 0. */
#include "engine/sparse/refresher.h"
#include <string.h>

/* slots (n) hold the columns of `before` and get those of `after`; `inherit`: a new column
 * takes what a lost one had. */
static void move_group(real *slots, const struct pattern_table *p, uint16_t before,
                       uint16_t after, bool inherit)
{
    real kept[NM_M_MAX] = {0}, lost[NM_M_MAX];
    const uint8_t *from = p->column + (size_t)before * p->n,
                  *to = p->column + (size_t)after * p->n;
    const unsigned old_mask = p->mask[before], new_mask = p->mask[after];
    size_t out = 0, in = 0;
    for (unsigned k = 0; k < p->n; k++) {
        if (new_mask >> from[k] & 1)
            kept[from[k]] = slots[k];
        else
            lost[out++] = slots[k];
    }
    for (unsigned k = 0; k < p->n; k++) {
        if (old_mask >> to[k] & 1)
            slots[k] = kept[to[k]];
        else
            slots[k] = inherit ? lost[in++] : 0;
    }
}

static void explore(uint8_t *map, size_t first, unsigned mask)
{
    for (; mask; mask &= mask - 1) {
        const size_t position = first + (size_t)__builtin_ctz(mask);
        map[position / 8] = (uint8_t)(map[position / 8] | 1U << position % 8);
    }
}

static size_t count_bits(const uint8_t *bytes, size_t count)
{
    size_t bits = 0;
    for (size_t i = 0; i < count; i++)
        bits += (size_t)__builtin_popcount(bytes[i]);
    return bits;
}

static void repair_rows(void *context, size_t task, unsigned thread)
{
    (void)thread;
    struct refresh_job *job = context;
    const struct nm *w = job->w;
    const struct model *model = job->refresher->model;
    const struct refresh_target *target = &job->refresher->targets[job->target];
    const enum repair_rule rule = job->config->repair;
    const size_t groups = nm_groups(w), begin = task * REFRESH_ROWS,
                 end = refresh_row_end(job, task);
    real *moments[2] = {model->moment1 ? model->moment1 + target->param->offset : NULL,
                        model->moment2 ? model->moment2 + target->param->offset : NULL};
    struct refresh_count count = {0};
    for (size_t i = begin * groups; i < end * groups; i++) {
        const uint16_t before = job->scratch->codes_before[i], after = w->codes[i];
        const unsigned old_mask = w->patterns->mask[before],
                       new_mask = w->patterns->mask[after];
        explore(target->explored, i * w->m, old_mask | new_mask);
        if (before == after)
            continue;
        count.changed_groups++;
        count.flipped_links += (size_t)__builtin_popcount(new_mask & ~old_mask);
        move_group(w->values + i * w->n, w->patterns, before, after, false);
        for (size_t k = 0; k < 2; k++)
            if (moments[k])
                move_group(moments[k] + i * w->n, w->patterns, before, after,
                           rule == REPAIR_NONE);
    }
    for (size_t k = 0; k < 2 && rule == REPAIR_ALL; k++)
        if (moments[k])
            memset(moments[k] + begin * nm_row_values(w), 0,
                   (end - begin) * nm_row_values(w) * sizeof(real));
    const size_t first_byte = begin * w->din / 8, end_byte = (end * w->din + 7) / 8;
    count.explored = count_bits(target->explored + first_byte, end_byte - first_byte);
    job->scratch->count[task] = count;
}

void repair_run(struct refresh_job *job) { refresh_rows(job, repair_rows); }
