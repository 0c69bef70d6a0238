/* After the codes changed: values and moments move to their columns' new slots, in place and
 * group by group.
 *
 * A link that is in both masks keeps value and moments, also if it was dropped and came back. A
 * link that is only in the new mask starts with value 0; its moments are 0 (REPAIR_CHANGED:
 * best of three in preprint 202605.0851, table A8) or those of the link it replaces, the k-th
 * new column of a group replacing the k-th lost one (REPAIR_NONE). REPAIR_ALL sets all moments
 * of the matrix to 0. The entries' ages, where the optimizer keeps them, go the moments' way;
 * the age of the matrix's mask starts anew. */
#include "engine/sparse/refresher.h"
#include <string.h>

/* Where the slots of `after` come from: source[k] is the old slot of the same column, or, where
 * fresh, the one of the lost column that it replaces. */
struct moves {
    uint8_t source[NM_M_MAX];
    bool fresh[NM_M_MAX];
    unsigned n;
};

static void plan_moves(struct moves *moves, const struct pattern_table *p, uint16_t before,
                       uint16_t after)
{
    uint8_t slot_of[NM_M_MAX] = {0}, lost[NM_M_MAX];
    const uint8_t *from = p->column + (size_t)before * p->n,
                  *to = p->column + (size_t)after * p->n;
    size_t out = 0, in = 0;
    for (unsigned k = 0; k < p->n; k++) {
        slot_of[from[k]] = (uint8_t)k;
        if (!(p->mask[after] >> from[k] & 1))
            lost[out++] = (uint8_t)k;
    }
    moves->n = p->n;
    for (unsigned k = 0; k < p->n; k++) {
        moves->fresh[k] = !(p->mask[before] >> to[k] & 1);
        moves->source[k] = moves->fresh[k] ? lost[in++] : slot_of[to[k]];
    }
}

/* slots (n); inherit: a fresh one takes what a lost one had, else 0. */
static void move_reals(real *slots, const struct moves *moves, bool inherit)
{
    real old[NM_M_MAX];
    memcpy(old, slots, moves->n * sizeof *old);
    for (unsigned k = 0; k < moves->n; k++)
        slots[k] = moves->fresh[k] && !inherit ? 0 : old[moves->source[k]];
}

static void move_ages(uint16_t *slots, const struct moves *moves, bool inherit)
{
    uint16_t old[NM_M_MAX];
    memcpy(old, slots, moves->n * sizeof *old);
    for (unsigned k = 0; k < moves->n; k++)
        slots[k] = moves->fresh[k] && !inherit ? 0 : old[moves->source[k]];
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
    uint16_t *ages = model->ages ? model->ages + target->param->offset : NULL;
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
        struct moves moves;
        plan_moves(&moves, w->patterns, before, after);
        move_reals(w->values + i * w->n, &moves, false);
        for (size_t k = 0; k < 2; k++)
            if (moments[k])
                move_reals(moments[k] + i * w->n, &moves, rule == REPAIR_NONE);
        if (ages)
            move_ages(ages + i * w->n, &moves, rule == REPAIR_NONE);
    }
    for (size_t k = 0; k < 2 && rule == REPAIR_ALL; k++)
        if (moments[k])
            memset(moments[k] + begin * nm_row_values(w), 0,
                   (end - begin) * nm_row_values(w) * sizeof(real));
    if (ages && rule == REPAIR_ALL)
        memset(ages + begin * nm_row_values(w), 0,
               (end - begin) * nm_row_values(w) * sizeof *ages);
    const size_t first_byte = begin * w->din / 8, end_byte = (end * w->din + 7) / 8;
    count.explored = count_bits(target->explored + first_byte, end_byte - first_byte);
    job->scratch->count[task] = count;
}

void repair_run(struct refresh_job *job)
{
    const struct model *model = job->refresher->model;
    const struct param *param = job->refresher->targets[job->target].param;
    refresh_rows(job, repair_rows);
    if (model->refresh_age)
        model->refresh_age[param - model->params] = 0;
}
