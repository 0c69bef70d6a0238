/* Sparse methods: a registry of rows. A method decides how the masks start and how a refresh picks the links
 * to remove and to grow; the projection to legal patterns, the state repair and the statistics are shared
 * (sparse/refresh.c). */
#ifndef HEBB_ENGINE_METHOD_H
#define HEBB_ENGINE_METHOD_H

#include "engine/comm.h"
#include "engine/model.h"

enum removal_rule { REMOVAL_MAGNITUDE, REMOVAL_RI };
enum score_rule { SCORE_CH2_L3N, SCORE_CH3_L3N, SCORE_RANDOM, SCORE_GRADIENT };
enum repair_rule { REPAIR_CHANGED, REPAIR_NONE, REPAIR_ALL };

struct method_config {
    const char *name;      /* a registry row; kept by pointer */
    uint64_t seed;
    size_t steps;          /* of the run */
    size_t interval;       /* steps between refreshes */
    double until;          /* T_end = until * steps */
    double zeta;
    enum removal_rule removal;
    bool soft;             /* soft removal (temperature) and soft regrowth (times U) */
    double temperature_start, temperature_end;
    enum score_rule score;
    enum repair_rule repair;
    double mpr;            /* motif pattern revisitation: probability that a group which lost a link may not take its old
                              pattern again; 0: off. Only chtsnm keeps it: set and chts24 fix it at 0 */
    double branch_share;   /* slope: share of the steps, the last ones, in which the branch is trained */
    double penalty;        /* srste: lambda_w of the masked weights; cast: their L1 decay; others 0 */
};

/* What a refresh did to one matrix. */
struct refresh_stats {
    const char *name;       /* the parameter's name without ".weight" */
    double density;
    size_t removed;         /* links dropped in the removal step */
    size_t changed_groups;  /* groups whose pattern differs afterwards */
    size_t blocks;          /* of the block layout, else 0 */
    size_t changed_blocks;  /* blocks with a changed group */
    double flip_rate;       /* links of the new mask that the old one lacked / links */
    double explored;        /* share of all positions that were ever active */
    size_t patterns[16];    /* groups per code; pattern_count == 0 when there are more than 16 */
    size_t pattern_count;
    size_t dead_columns;    /* inputs without any link */
    uint64_t hash;
};

/* Called once per matrix, in whatever order, with the codes of before the refresh (dout, din / m), e.g. to write history. */
struct refresh_observer {
    void *context;
    int (*matrix)(void *context, size_t target, const struct nm *w, const uint16_t *codes_before,
                  const struct refresh_stats *stats, struct err *err);
};

struct method {
    const char *name;
    bool sparse;                                   /* false: dense */
    bool refreshes;                                /* sparse weights whose mask changes (sparse/refresh.c) */
    enum model_latent latent;                      /* dense weights behind the masks (sparse/latent.c) */
    bool late_branch;                              /* a lora branch that rests until the last branch_share of the steps */
    /* Method's own fixed choices over the config (e.g. set: hard magnitude removal, random score); may be NULL. */
    void (*configure)(struct method_config *config);
};

const struct method *method_find(const char *name);         /* NULL if unknown */
const struct method *method_table(size_t *count);
/* Applies the method's fixed choices and returns it; config->name must be known. refresher_* do so themselves. */
const struct method *method_settle(struct method_config *config);

struct refresher; /* scratch for the largest matrix and the explored bit maps, sized once */

/* ERR_INVALID if the method is unknown or never refreshes, the model has no N:M matrix, or mpr is not 0 in the block layout. The
 * config is copied. */
int refresher_create(struct refresher **out, const struct method_config *config, struct model *model,
                     struct err *err);
void refresher_destroy(struct refresher *refresher);
/* What refresher_create takes for a model of this shape; 0 for a method without refresh. With the largest value over the
 * target matrices (dout, din) for each max, each part rounded up to 64 bytes:
 *   sizeof(struct refresher) + targets * sizeof(struct refresh_target) + sum over targets of ceil(dout din / 8)
 *   + max(dout din) 8 + max(dout din / m) 4 + max(din / m) 2 + max(ceil(dout / 32)) 24
 *   CH scores: + max(dout ceil(din / 64)) 8 + max(din ceil(dout / 64)) 8 + max(dout, din) (4 + 64 * 8)
 *   relative importance: + (max dout + max din) 8; gradient scores: + max(dout din) sizeof(real) */
size_t refresher_bytes(const struct model_shape *shape, const struct method_config *config);

/* True if the masks are to be refreshed after optimizer step `step` (1-based): a multiple of the interval up to T_end and
 * before the last step. */
bool refresher_due(const struct refresher *refresher, size_t step);
/* zeta / 2 (1 + cos(pi step / T_end)), the share of links to drop; 0 from T_end on. */
double refresher_zeta(const struct refresher *refresher, size_t step);

/* Refreshes every target matrix of the model, number `refresh` (1-based), after step `step`. Gradient-free (refresher_gradient is
 * NULL); the same masks on every rank by construction. Leaves the packs rebuilt. */
int refresher_run(struct refresher *refresher, size_t step, size_t refresh,
                  const struct refresh_observer *observer, struct err *err);

/* Gradient scores: the refresher is given one matrix's dense gradient at a time, which it does not keep. NULL for methods
 * without, which take refresher_run. Else (dout, din) of the largest matrix: the caller fills it with the gradient of param's
 * dense matrix at the weights of now, then calls refresher_run_matrix; every matrix once, in any order. */
real *refresher_gradient(struct refresher *refresher);
int refresher_run_matrix(struct refresher *refresher, const struct param *param, size_t step, size_t refresh,
                         const struct refresh_observer *observer, struct err *err);

/* The explored bit maps, for checkpoints: bit i % 8 of byte i / 8 is dense position i = o * din + column; every target in
 * params order, from a whole byte on. A position is marked when a refresh finds or makes it active. */
uint8_t *refresher_explored(struct refresher *refresher, size_t *bytes);

#endif
