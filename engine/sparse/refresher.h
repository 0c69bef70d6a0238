/* What the files of a refresh share. One matrix at a time goes through
 *   removal.c   which links to drop                -> survivors
 *   score.c     what each vacant position is worth  -> scores
 *   project.c   the best legal pattern per group    -> the matrix's codes
 *   repair.c    values and moments follow the codes
 *   stats.c     what happened
 * in that order (refresh.c). All work is cut into tasks of fixed size, so that the masks have the same bits for every
 * number of threads. */
#ifndef HEBB_ENGINE_SPARSE_REFRESHER_H
#define HEBB_ENGINE_SPARSE_REFRESHER_H

#include "engine/method.h"
#include "engine/philox.h"

enum {
    REFRESH_ROWS = 32,  /* rows of a task; a multiple of 8, so that tasks share no byte of an explored map */
    REFRESH_PANEL = 64, /* rows of R that score.c has at a time */
};

struct refresh_target {
    struct param *param;
    char name[MODEL_NAME_MAX]; /* without ".weight" */
    uint8_t *explored;         /* (dout * din bits), whole bytes */
};

struct refresh_count { /* of the rows of one task */
    size_t changed_groups, flipped_links, explored;
};

/* Pointers into the refresher's one block of memory. Each is as large as the largest matrix needs; (dout, din) is the
 * shape of the matrix in work. */
struct refresh_scratch {
    void *cells;                 /* (dout, din) 8 bytes each: uint64_t keys of removal.c, then double scores */
    uint16_t *survivors;         /* (dout, groups) masks of the links that were not dropped */
    uint16_t *codes_before;      /* (dout, groups) */
    uint16_t *columns;           /* (groups) */
    struct refresh_count *count; /* (ceil(dout / REFRESH_ROWS)) */
    double *row_sum, *col_sum;   /* (dout), (din): relative importance only, else NULL */
    uint64_t *row_bits;          /* (dout, ceil(din / 64)): the next four for CH scores only, else NULL */
    uint64_t *col_bits;          /* (din, ceil(dout / 64)) */
    uint32_t *degree;            /* (max(dout, din)) */
    double *panel;               /* (max(dout, din), REFRESH_PANEL) */
    real *gradient;              /* (dout, din): gradient scores only, else NULL */
};

struct refresher {
    const struct method *method;
    struct method_config config;
    struct model *model;
    struct refresh_target *targets; /* (target_count) in params order */
    size_t target_count;
    uint8_t *explored;
    size_t explored_bytes;
    struct refresh_scratch scratch;
};

/* One matrix in one refresh. */
struct refresh_job {
    struct refresher *refresher;
    struct refresh_scratch *scratch;
    const struct method_config *config;
    struct pool *pool;
    struct nm *w;
    size_t target;
    uint32_t refresh;   /* 1-based */
    double temperature; /* of the soft removal */
    size_t remove;      /* links to drop */
};

double refresher_temperature(const struct refresher *refresher, size_t step);
/* zeta * links, rounded half up. */
size_t refresher_removed(double zeta, size_t links);

struct philox refresh_stream(const struct refresh_job *job, enum philox_purpose purpose);

/* Runs fn over the rows of the matrix, REFRESH_ROWS a task; context is the job. */
void refresh_rows(struct refresh_job *job, void (*fn)(void *job, size_t task, unsigned thread));
static inline size_t refresh_row_end(const struct refresh_job *job, size_t task)
{
    size_t end = (task + 1) * REFRESH_ROWS;
    return end < job->w->dout ? end : job->w->dout;
}

/* Fills survivors: the masks without the job->remove links of smallest key. */
void removal_run(struct refresh_job *job);

/* True if the unit of the projection that holds group g of row o lost a link: the group, or in the block layout its block.
 * Before the projection only. */
bool refresh_lost(const struct refresh_job *job, size_t o, size_t g);

/* Fills scores at every position that is not a survivor's, in every unit (group or block) that lost a link. */
void score_run(struct refresh_job *job);

/* Sets the codes: per group the legal pattern that holds all survivors and has the largest sum of scores over its other
 * columns; of equal ones the lowest code. The sums are compared exactly. With probability mpr a group that lost a link has its
 * old pattern taken out of the candidates (preprint 202605.0851, 3.4). */
void project_run(struct refresh_job *job);
uint16_t project_group(const double *score, uint16_t survivors, unsigned n, unsigned m);
/* The same without the pattern `barred` among the candidates; survivors has less than n columns. */
uint16_t project_group_barred(const double *score, uint16_t survivors, uint16_t barred, unsigned n, unsigned m);

/* The block layout: the index of the legal block that holds all survivors (bit 4 * row + column, part of a legal block) and has
 * the largest sum of score (4, 4) over its other positions; of equal ones the lowest. Sums are in double, row by row: columns
 * descending, then rows ascending.
 * The old block is legal and holds the survivors, so that the rule "most survivors, then the largest sum" always keeps all. */
size_t project_block(const double *score, uint16_t survivors, const struct block_table *blocks);

/* Moves values and moments from codes_before to codes; new links get weight 0. Fills count, marks both masks explored. */
void repair_run(struct refresh_job *job);

void stats_fill(struct refresh_job *job, struct refresh_stats *stats);

#endif
