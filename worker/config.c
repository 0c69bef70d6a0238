#include "worker/config.h"

#include "engine/method_rules.h"

#include <inttypes.h>
#include <string.h>

/* A name of another build is left out here and refused by config_trainer. */
static void config_adapter(const struct job_spec *spec, struct adapter_shape *out)
{
    int kind = rule_find(adapter_names, spec->adapter.name);
    *out = (struct adapter_shape){0};
    if (kind <= ADAPTER_NONE) {
        return;
    }
    out->kind = (enum adapter_kind)kind;
    out->rank = (size_t)spec->adapter.rank;
    out->alpha = spec->adapter.alpha;
    if (out->kind == ADAPTER_COMOLORA) {
        out->hidden = (size_t)spec->adapter.hidden;
        out->gamma = spec->adapter.gamma;
    }
}

void config_shape(const struct job_spec *spec, struct model_shape *out)
{
    const struct method *method = method_find(spec->sparsity.method);
    bool sparse = strcmp(spec->sparsity.method, "dense") != 0;
    *out = (struct model_shape){
        .hidden = (size_t)spec->model.hidden,
        .intermediate = (size_t)spec_intermediate(spec),
        .layers = (size_t)spec->model.layers,
        .heads = (size_t)spec->model.heads,
        .kv_heads = (size_t)spec->model.kv_heads,
        .vocab = (size_t)spec->model.vocab,
        .context = (size_t)spec->model.context,
        .rope_theta = spec->model.rope_theta,
        .norm_eps = spec->model.norm_eps,
        .tie_embeddings = spec->model.tie_embeddings,
        .n = sparse ? (unsigned)spec->sparsity.n : 1,
        .m = sparse ? (unsigned)spec->sparsity.m : 1,
        .layout = sparse && strcmp(spec->sparsity.layout, "block") == 0 ? NM_LAYOUT_BLOCK
                                                                        : NM_LAYOUT_ROW,
        .latent = method ? method->latent : MODEL_LATENT_NONE,
    };
    config_adapter(spec, &out->adapter);
}

static int rule_read(const char *field, const char *const *names, const char *word, int *out,
                     struct err *err)
{
    *out = rule_find(names, word);
    return *out >= 0
               ? 0
               : err_set(err, ERR_UNSUPPORTED, "%s is \"%s\": not in this build", field, word);
}

static int config_method(const struct job_spec *spec, struct method_config *out,
                         struct err *err)
{
    int removal = 0, score = 0, repair = 0;
    int rc = rule_read("/sparsity/removal", removal_rule_names, spec->sparsity.removal,
                       &removal, err);
    if (rc == 0) {
        rc = rule_read("/sparsity/score", score_rule_names, spec->sparsity.score, &score, err);
    }
    if (rc == 0) {
        rc = rule_read("/sparsity/state_repair", repair_rule_names, spec->sparsity.state_repair,
                       &repair, err);
    }
    *out = (struct method_config){
        .name = spec->sparsity.method,
        .seed = spec->train.seed,
        .steps = (size_t)spec->train.steps,
        .interval = (size_t)spec->sparsity.refresh_interval,
        .until = spec->sparsity.refresh_until,
        .zeta = spec->sparsity.zeta,
        .removal = (enum removal_rule)removal,
        .soft = spec->sparsity.soft,
        .temperature_start = spec->sparsity.temperature_start,
        .temperature_end = spec->sparsity.temperature_end,
        .score = (enum score_rule)score,
        .repair = (enum repair_rule)repair,
        .mpr = spec->sparsity.mpr,
        .penalty = spec->sparsity.penalty,
        .branch_share = spec->sparsity.branch_share,
    };
    return rc;
}

static int config_optimizer(const struct job_spec *spec, struct optim_options *out,
                            struct err *err)
{
    int scale = 0, rms = 0;
    int rc =
        rule_read("/optimizer/scale", scale_rule_names, spec->optimizer.scale, &scale, err);
    if (rc == 0) {
        rc = rule_read("/optimizer/rms", rms_rule_names, spec->optimizer.rms, &rms, err);
    }
    *out = (struct optim_options){
        .adam_lr_ratio = spec->optimizer.adam_lr_ratio,
        .adam_eps = spec->optimizer.adam_eps,
        .momentum = spec->optimizer.momentum,
        .scale = (enum scale_rule)scale,
        .gamma_ns = spec->optimizer.gamma_ns,
        .ramp = (size_t)spec->optimizer.ramp,
        .rms = (enum rms_rule)rms,
        .age_correction = spec->optimizer.age_correction,
    };
    return rc;
}

/* The largest divisor of share that is at most wanted. */
static size_t fit_micro_batch(size_t wanted, size_t share)
{
    size_t best = 1;
    for (size_t d = 1; d <= share && d <= wanted; d++) {
        best = share % d == 0 ? d : best;
    }
    return best;
}

int config_trainer(const struct job_spec *spec, size_t ranks, struct trainer_config *out,
                   struct err *err)
{
    size_t batch = (size_t)spec->train.batch;
    if (rule_find(adapter_names, spec->adapter.name) < 0) {
        return err_set(err, ERR_UNSUPPORTED, "/adapter/name is \"%s\": not in this build",
                       spec->adapter.name);
    }
    if (batch % ranks != 0) {
        return err_set(err, ERR_INVALID, "/train/batch is %zu: not a multiple of the %zu ranks",
                       batch, ranks);
    }
    *out = (struct trainer_config){
        .steps = (size_t)spec->train.steps,
        .warmup = (size_t)spec->train.warmup,
        .batch = batch,
        .micro_batch = fit_micro_batch((size_t)spec->train.micro_batch, batch / ranks),
        .context = (size_t)spec->train.context,
        .seed = spec->train.seed,
        .optimizer = spec->optimizer.name,
        .lr = spec->optimizer.lr,
        .min_lr_ratio = spec->optimizer.min_lr_ratio,
        .beta1 = spec->optimizer.beta1,
        .beta2 = spec->optimizer.beta2,
        .eps = spec->optimizer.eps,
        .weight_decay = spec->optimizer.weight_decay,
        .grad_clip = spec->optimizer.grad_clip,
        .guard = {.window = (size_t)spec->guard.spike_window,
                  .factor = spec->guard.spike_factor,
                  .rise = spec->guard.spike_rise,
                  .skips = (size_t)spec->guard.skips,
                  .rollbacks = (size_t)spec->guard.rollbacks},
        .compare_every = (size_t)spec->guard.compare_every,
    };
    config_shape(spec, &out->shape);
    int rc = config_optimizer(spec, &out->optim, err);
    return rc == 0 ? config_method(spec, &out->method, err) : rc;
}

void config_dataset(const struct job_spec *spec, struct dataset_config *out)
{
    const bool shards =
        strcmp(spec->data.tokenizer, "none") == 0 && strcmp(spec->data.format, "auto") == 0;
    *out = (struct dataset_config){
        .train = (const char *const *)spec->data.train.items,
        .train_count = spec->data.train.count,
        .validation = (const char *const *)spec->data.validation.items,
        .validation_count = spec->data.validation.count,
        .validation_fraction = spec->data.validation_fraction,
        .format = shards ? "shards" : spec->data.format,
        .context = (size_t)spec->train.context,
        .vocab = (size_t)spec->model.vocab,
        .seed = spec->train.seed,
    };
}

const char *config_device(const struct job_spec *spec)
{
    return strcmp(spec->resources.device, "auto") == 0 ? "cpu" : spec->resources.device;
}
