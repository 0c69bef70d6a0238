/* Optimizers: a registry of rows, one file each. An optimizer turns the model's gradient slab
 * into an update of its weights; its moments live in the model's two slabs, and what depends on
 * the masks' history in model->refresh_age and model->ages.
 *
 * adamw treats every entry alike. muon and tans treat each target matrix (q, k, v, o, gate, up,
 * down of every block) as a whole, by Newton-Schulz iterations in one scratch for all, and
 * leave embedding, head and norms to AdamW. Nothing dense is kept between steps. */
#ifndef HEBB_ENGINE_OPTIM_H
#define HEBB_ENGINE_OPTIM_H

#include "engine/comm.h"
#include "engine/model.h"

enum rms_rule { RMS_POST_MASK, RMS_PRE_MASK, RMS_NONE };
enum scale_rule { SCALE_RMS, SCALE_SPECTRAL };

/* Names in the order of the enums, the words of a job's JSON and of train.json; NULL at the
 * end. */
extern const char *const rms_rule_names[];
extern const char *const scale_rule_names[];

/* Options of single optimizers; each reads its own. */
struct optim_options {
    double adam_lr_ratio;  /* muon, tans: lr of embedding, head and norms as a share of lr */
    double adam_eps;       /* tans: eps of their AdamW (muon: optim_args.eps) */
    double momentum;       /* muon */
    enum scale_rule scale; /* muon */
    double gamma_ns;       /* tans: share of the orthogonalised update, 0 .. 1 */
    size_t ramp;         /* tans: steps after a refresh until gamma_ns is reached; 0: at once */
    enum rms_rule rms;   /* tans */
    bool age_correction; /* tans: bias correction by every entry's own age */
};

struct optim_args {
    double lr, beta1, beta2, eps;
    double weight_decay; /* of matrices (param->decay); norms have none */
    double grad_scale;   /* multiplies every gradient: clipping */
    size_t step;         /* 1-based, this update's number */
    size_t branch_step;  /* the same of an adapter's parameters; 0: they stay as they are */
    struct comm *comm;   /* muon, tans: the ranks that share the matrices; NULL: none */
};

/* Dense matrices for the largest target, (rows, cols) with rows <= cols after transposing. */
struct matrix_scratch {
    real *x, *y; /* (rows, cols) */
    real *a, *b; /* (rows, rows) */
    real *u;     /* stored entries of the largest target */
};

struct optim {
    const struct optimizer *optimizer;
    struct device *dev; /* not owned */
    struct optim_options options;
    struct matrix_scratch scratch; /* muon and tans, else NULL pointers */
    real *correct_update,
        *correct_moment; /* (AGE_MAX + 1) each with age_correction, else NULL */
    void *block;         /* owns the memory of all of them */
};

struct optimizer {
    const char *name;
    bool matrices;  /* needs the matrix scratch */
    bool refreshes; /* keeps the age of every matrix's mask: model->refresh_age */
    /* Updates all weights and moments. The gradients stay as they are, but for those of targets
     * where ranks share them (optim/share.h); only then it can fail. Allocates nothing. */
    int (*step)(struct optim *optim, struct model *model, const struct optim_args *args,
                struct err *err);
};

extern const struct optimizer optimizer_adamw;
extern const struct optimizer optimizer_muon;
extern const struct optimizer optimizer_tans;

/* NULL if unknown. */
const struct optimizer *optimizer_find(const char *name);
const struct optimizer *const *optimizer_table(size_t *count);

/* The optimizer's own memory for this model, sized once; gives the model the ages that the
 * optimizer keeps. beta1, beta2: those of every step (age_correction tabulates their powers).
 * ERR_INVALID for an unknown name, naming it. options are copied. */
int optim_create(struct optim **out, const char *name, double beta1, double beta2,
                 const struct optim_options *options, struct model *model, struct err *err);
void optim_destroy(struct optim *optim);

/* Bytes that optim_create takes for a model of this shape, without struct optim itself; each
 * part is rounded up to 64 bytes. With the largest value over the target matrices for each max:
 *   muon, tans: 2 max(dout din) + 2 max(min(dout, din)^2) + max(stored entries), 4 each
 *   tans: parameters of the model 4 (refresh_age)
 *   age_correction: 2 65536 4 + entries of a slab 2 (ages) */
size_t optim_bytes(const char *name, const struct optim_options *options,
                   const struct model_shape *shape);

/* What the files of the optimizers share. */

/* One step of AdamW of one parameter with learning rate lr; eps as given. An adapter's counts
 * from its own first update, and there is none where branch_step is 0. */
void adamw_param(struct model *model, const struct param *param, const struct optim_args *args,
                 double lr, double eps);

/* gamma_ns min(1, tau / ramp), tau = updates since the matrix's last refresh or the start. */
double tans_gamma(const struct optim_options *options, size_t tau);

#endif
