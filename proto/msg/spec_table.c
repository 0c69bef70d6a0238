#include "proto/msg/spec.h"
#include "proto/msg/spec_private.h"

#include <assert.h>
#include <string.h>

static const char *const spec_preset_names[] = {"llama-60m", "llama-130m", "llama-350m",
                                                "llama-1b",  "none",       NULL};
static const char *const spec_tokenizers[] = {"bytes", "none", NULL};
static const char *const spec_formats[] = {"auto",       "text",       "hebb", "llmc",
                                           "raw-uint16", "raw-uint32", NULL};
static const char *const spec_methods[] = {"dense",  "static",  "slope", "set",   "rigl", "chts24",
                                           "chtsnm", "retrain", "ste",   "srste", "cast", NULL};
static const char *const spec_layouts[] = {"row", "block", NULL};
static const char *const spec_removals[] = {"magnitude", "ri", NULL};
static const char *const spec_scores[] = {"ch2-l3n", "ch3-l3n", "random", "gradient", NULL};
static const char *const spec_repairs[] = {"changed", "none", "all", NULL};
static const char *const spec_adapters[] = {"none", "lora", "comolora", NULL};
static const char *const spec_optimizers[] = {"adamw", "muon", "tans", NULL};
static const char *const spec_scales[] = {"rms", "spectral", NULL};
static const char *const spec_rms[] = {"post-mask", "pre-mask", "none", NULL};
static const char *const spec_launchers[] = {"local", "slurm", NULL};
static const char *const spec_slurm[] = {"slurm", NULL};
static const char *const spec_devices[] = {"auto", "cpu", "cuda", NULL};

/* Methods that change their masks while training. */
static const char *const spec_refreshing[] = {"set", "rigl", "chts24", "chtsnm", "retrain", NULL};
/* Of these, whose rules are options. */
static const char *const spec_ruled[] = {"set", "chts24", "chtsnm", "retrain", NULL};
static const char *const spec_revisiting[] = {"chtsnm", "retrain", NULL};
static const char *const spec_penalized[] = {"srste", "cast", NULL};
static const char *const spec_late[] = {"slope", NULL};

/* Adapters with a low-rank branch, and those of them with a gate. */
static const char *const spec_branches[] = {"lora", "comolora", NULL};
static const char *const spec_gated[] = {"comolora", NULL};

/* Owners of options of single optimizers. */
static const char *const spec_muon[] = {"muon", NULL};
static const char *const spec_tans[] = {"tans", NULL};
static const char *const spec_matrix_optimizers[] = {"muon", "tans", NULL};

#define STEPS_MAX 1e9
#define AT(field) offsetof(struct job_spec, field)

/* clang-format off */
static const struct opt spec_rows[] = {
    {"/name", OPT_STRING, AT(name), "\"job\"", 1, 128, NULL, "", "What lists and pages call the job.", NULL},
    {"/priority", OPT_INT, AT(priority), "0", -100, 100, NULL, "",
     "Higher starts first; equal ones start in the order of submission.", NULL},
    {"/labels", OPT_STRINGS, AT(labels), "[]", 0, SPEC_LABELS_MAX, NULL, "",
     "Words to find the job by (?label=); at most 64 bytes each, without commas.", NULL},

    {"/model/preset", OPT_ENUM, AT(model.preset), "", 0, 0, spec_preset_names, "",
     "Gives hidden, intermediate, layers and heads, unless they are given too; default llama-60m, or none "
     "(these four are then required) if one of them is given. llama-1b has 5504 where the paper has 5461, "
     "which no group length divides.", NULL},
    {"/model/hidden", OPT_INT, AT(model.hidden), "", 1, 65536, NULL, "",
     "Width of the residual stream; a multiple of heads, and of m for a sparse method. Default: the preset's.", NULL},
    {"/model/intermediate", OPT_INT, AT(model.intermediate), "", 1, SPEC_INTERMEDIATE_MAX, NULL, "",
     "Width inside the SwiGLU block; a multiple of m for a sparse method. Default: the preset's.", NULL},
    {"/model/layers", OPT_INT, AT(model.layers), "", 1, 512, NULL, "", "Transformer blocks. Default: the preset's.", NULL},
    {"/model/heads", OPT_INT, AT(model.heads), "", 1, 1024, NULL, "",
     "Query heads; hidden / heads is even. Default: the preset's.", NULL},
    {"/model/kv_heads", OPT_INT, AT(model.kv_heads), "", 1, 1024, NULL, "",
     "Key and value heads; divides heads. Default: heads.", NULL},
    {"/model/vocab", OPT_INT, AT(model.vocab), "", 2, 16777216, NULL, "tokens",
     "Rows of the embedding; every token of the data is below it. Default: 257 for the tokenizer bytes, else 32000.", NULL},
    {"/model/context", OPT_INT, AT(model.context), "256", 2, 131072, NULL, "tokens",
     "Longest sequence that the model is made for.", NULL},
    {"/model/rope_theta", OPT_REAL, AT(model.rope_theta), "10000", 1, 1e9, NULL, "", "Base of the rotary embedding.", NULL},
    {"/model/norm_eps", OPT_REAL, AT(model.norm_eps), "1e-6", 1e-12, 0.1, NULL, "", "Epsilon of RMSNorm.", NULL},
    {"/model/tie_embeddings", OPT_BOOL, AT(model.tie_embeddings), "false", 0, 0, NULL, "",
     "The output head uses the embedding's weights.", NULL},
    {"/model/widen", OPT_ENUM, AT(model.widen), "\"none\"", 0, 0, spec_adapters, "",
     "Capacity control: intermediate grows by the least multiple of m (1 for dense) whose weights inside the masks are at least as many as the "
     "parameters of this adapter beside every target matrix. No branch is made.", NULL},
    {"/model/widen_rank", OPT_INT, AT(model.widen_rank), "7", 1, 4096, NULL, "", "Rank of the branch that widen counts.", spec_branches},
    {"/model/widen_hidden", OPT_INT, AT(model.widen_hidden), "2", 1, 4096, NULL, "",
     "Hidden units of the gate that widen counts.", spec_gated},
    {"/model/init_from", OPT_STRINGS, AT(model.init_from), "[]", 0, 1, NULL, "",
     "Weights to start from: a checkpoint of a dense run, or a model folder (config.json and safetensors, ours or Hugging Face's LLaMA), "
     "under the daemon's data roots, of this shape. A sparse method starts with the masks of largest magnitude. Empty: random weights.", NULL},

    {"/data/train", OPT_STRINGS, AT(data.train), NULL, 1, OPT_STRINGS_MAX, NULL, "",
     "Files, folders or globs under the daemon's data roots.", NULL},
    {"/data/validation", OPT_STRINGS, AT(data.validation), "[]", 0, OPT_STRINGS_MAX, NULL, "",
     "As train; if empty, validation_fraction of train is held out.", NULL},
    {"/data/validation_fraction", OPT_REAL, AT(data.validation_fraction), "0.05", 0, 0.5, NULL, "",
     "Share of train that is held out while validation is empty.", NULL},
    {"/data/tokenizer", OPT_ENUM, AT(data.tokenizer), "\"bytes\"", 0, 0, spec_tokenizers, "",
     "bytes: text, one token a byte, and 256 between documents; none: the files hold tokens.", NULL},
    {"/data/format", OPT_ENUM, AT(data.format), "\"auto\"", 0, 0, spec_formats, "",
     "auto: shards by their magic, and with the tokenizer bytes all else is text; arrays without a magic need raw-uint16 or raw-uint32.", NULL},

    {"/sparsity/method", OPT_ENUM, AT(sparsity.method), "\"chts24\"", 0, 0, spec_methods, "",
     "dense: no mask; static: a random mask, never changed; slope: the same, and a lora branch in the last branch_share of the steps; set: random regrowth; rigl: regrowth by gradient; chts24: Cannistraci-Hebb training with "
     "soft removal and regrowth; chtsnm: the same with motif pattern revisitation; retrain: chtsnm from the weights of model.init_from. With a dense weight "
     "behind every masked one, and its memory: ste: the largest magnitudes, gradient straight through; srste: ste with a penalty on "
     "masked weights; cast: dense until the end, masked weights decay.", NULL},
    {"/sparsity/n", OPT_INT, AT(sparsity.n), "1", 1, 15, NULL, "weights", "Weights kept in each group of m; below m. dense keeps all.", NULL},
    {"/sparsity/m", OPT_INT, AT(sparsity.m), "4", 2, 16, NULL, "weights", "Length of a group along a row.", NULL},
    {"/sparsity/layout", OPT_ENUM, AT(sparsity.layout), "\"row\"", 0, 0, spec_layouts, "",
     "row: exactly n in each group of m neighbours of a row; block: n in each row and each column of every 4x4 block (m = 4), "
     "so that the transposed matrix is n:m too.", NULL},
    {"/sparsity/refresh_interval", OPT_INT, AT(sparsity.refresh_interval), "100", 1, STEPS_MAX, NULL, "steps",
     "Steps between two refreshes of the masks.", spec_refreshing},
    {"/sparsity/refresh_until", OPT_REAL, AT(sparsity.refresh_until), "0.75", 0, 1, NULL, "",
     "Share of the steps after which the masks stay.", spec_refreshing},
    {"/sparsity/zeta", OPT_REAL, AT(sparsity.zeta), "0.1", 0, 1, NULL, "",
     "Share of the links that the first refresh removes; falls along a cosine to 0 at refresh_until.", spec_refreshing},
    {"/sparsity/removal", OPT_ENUM, AT(sparsity.removal), "\"magnitude\"", 0, 0, spec_removals, "",
     "What removal compares: magnitude, or ri: relative importance in row and column.", spec_ruled},
    {"/sparsity/soft", OPT_BOOL, AT(sparsity.soft), "", 0, 0, NULL, "",
     "Removal and regrowth draw instead of cutting at a threshold. Default: true for chts24, chtsnm and retrain, false for set.", spec_ruled},
    {"/sparsity/temperature_start", OPT_REAL, AT(sparsity.temperature_start), "1", 0.01, 100, NULL, "",
     "Temperature of the soft removal at the start.", spec_ruled},
    {"/sparsity/temperature_end", OPT_REAL, AT(sparsity.temperature_end), "9", 0.01, 100, NULL, "",
     "Temperature of the soft removal at refresh_until; linear between.", spec_ruled},
    {"/sparsity/score", OPT_ENUM, AT(sparsity.score), "", 0, 0, spec_scores, "",
     "Score of regrowth. gradient takes one matrix's dense gradient at a time, on refresh steps only. "
     "Default: ch2-l3n for chts24, chtsnm and retrain; set has random only.", spec_ruled},
    {"/sparsity/state_repair", OPT_ENUM, AT(sparsity.state_repair), "\"changed\"", 0, 0, spec_repairs, "",
     "Which entries of the optimizer's state a refresh sets to zero: those whose link changed, none, or all.", spec_refreshing},
    {"/sparsity/mpr", OPT_REAL, AT(sparsity.mpr), "", 0, 1, NULL, "",
     "Motif pattern revisitation: probability that a group which lost a link may not take its old pattern again; 0: off. "
     "For the layout row. "
     "Default: 0.5 for n / m up to 1/4, else 0.75; 0 in the layout block.", spec_revisiting},
    {"/sparsity/penalty", OPT_REAL, AT(sparsity.penalty), "", 0, 1, NULL, "",
     "srste: what is added to the gradient of a masked weight, times the weight; cast: L1 decay of masked weights, over the root of "
     "their second moment. Default: 1e-4 for srste, 2e-4 for cast.", spec_penalized},
    {"/sparsity/branch_share", OPT_REAL, AT(sparsity.branch_share), "0.01", 1e-4, 1, NULL, "",
     "Share of the steps, the last ones, in which the branch is trained; before them it adds nothing and costs no time.", spec_late},

    {"/optimizer/name", OPT_ENUM, AT(optimizer.name), "\"adamw\"", 0, 0, spec_optimizers, "",
     "adamw; muon: orthogonalised momentum; tans: preconditioned Nesterov momentum blended with its orthogonalised form. muon and "
     "tans take the matrices of the blocks and leave embedding, head, norms and adapters to AdamW.", NULL},
    {"/optimizer/lr", OPT_REAL, AT(optimizer.lr), "0.001", 0, 10, NULL, "", "Highest learning rate, after the warm-up.", NULL},
    {"/optimizer/min_lr_ratio", OPT_REAL, AT(optimizer.min_lr_ratio), "0.1", 0, 1, NULL, "",
     "Learning rate at the end of the cosine, as a share of lr.", NULL},
    {"/optimizer/beta1", OPT_REAL, AT(optimizer.beta1), "0.9", 0, 0.999999, NULL, "", "Decay of the first moment.", NULL},
    {"/optimizer/beta2", OPT_REAL, AT(optimizer.beta2), "0.999", 0, 0.999999, NULL, "", "Decay of the second moment.", NULL},
    {"/optimizer/eps", OPT_REAL, AT(optimizer.eps), "", 1e-20, 1, NULL, "",
     "Added to the root of the second moment, and in tans to the norms it divides by; muon: of its AdamW. Default: 1e-8, for tans "
     "1e-5.", NULL},
    {"/optimizer/weight_decay", OPT_REAL, AT(optimizer.weight_decay), "0", 0, 10, NULL, "",
     "Decoupled weight decay of the matrices; the norms have none.", NULL},
    {"/optimizer/grad_clip", OPT_REAL, AT(optimizer.grad_clip), "1", 0, 1e6, NULL, "",
     "The gradient is scaled down to this global norm; 0: off.", NULL},
    {"/optimizer/adam_lr_ratio", OPT_REAL, AT(optimizer.adam_lr_ratio), "1", 0, 1000, NULL, "",
     "Learning rate of the AdamW of embedding, head, norms and adapters, as a share of lr.", spec_matrix_optimizers},
    {"/optimizer/adam_eps", OPT_REAL, AT(optimizer.adam_eps), "1e-8", 1e-20, 1, NULL, "",
     "eps of the AdamW of embedding, head, norms and adapters.", spec_tans},
    {"/optimizer/momentum", OPT_REAL, AT(optimizer.momentum), "0.95", 0, 0.999999, NULL, "",
     "Decay of the Nesterov momentum.", spec_muon},
    {"/optimizer/scale", OPT_ENUM, AT(optimizer.scale), "\"rms\"", 0, 0, spec_scales, "",
     "Factor of the orthogonal update: rms: 0.2 sqrt(max(dout, din)), an update of AdamW's size; spectral: sqrt(max(1, dout / din)).",
     spec_muon},
    {"/optimizer/gamma_ns", OPT_REAL, AT(optimizer.gamma_ns), "0.5", 0, 1, NULL, "",
     "Share of the orthogonalised update; 0: none.", spec_tans},
    {"/optimizer/ramp", OPT_INT, AT(optimizer.ramp), "8", 0, STEPS_MAX, NULL, "steps",
     "Steps after a refresh, or the start, over which gamma_ns rises from 0; 0: off.", spec_tans},
    {"/optimizer/rms", OPT_ENUM, AT(optimizer.rms), "\"post-mask\"", 0, 0, spec_rms, "",
     "Scales the orthogonalised update to the size of the other one: by its active entries, by all its entries, or not.", spec_tans},
    {"/optimizer/age_correction", OPT_BOOL, AT(optimizer.age_correction), "false", 0, 0, NULL, "",
     "Bias correction by every link's own age, 2 bytes each, counted to 65535; needs beta2 of at most 0.9999.", spec_tans},

    {"/adapter/name", OPT_ENUM, AT(adapter.name), "", 0, 0, spec_adapters, "",
     "A small dense branch beside every target matrix. none; lora: y = W x + alpha / rank B A x; comolora: the same with A x scaled "
     "by 1 + gamma tanh(W2 silu(W1 x + b1) + b2). Trained by Adam; adds nothing at the start. Default: none, for slope lora, which it requires.", NULL},
    {"/adapter/rank", OPT_INT, AT(adapter.rank), "7", 1, 4096, NULL, "", "Rank of the branch: rows of A.", spec_branches},
    {"/adapter/hidden", OPT_INT, AT(adapter.hidden), "2", 1, 4096, NULL, "", "Hidden units of the gate: rows of W1.", spec_gated},
    {"/adapter/gamma", OPT_REAL, AT(adapter.gamma), "0.5", 0, 100, NULL, "",
     "Reach of the gate: it scales by 1 - gamma to 1 + gamma; 0 is lora.", spec_gated},
    {"/adapter/alpha", OPT_REAL, AT(adapter.alpha), "", 1e-6, 1e6, NULL, "",
     "The branch is scaled by alpha / rank. Default: rank, so that the scale is 1.", spec_branches},

    {"/train/steps", OPT_INT, AT(train.steps), "10000", 1, STEPS_MAX, NULL, "steps", "Optimizer steps.", NULL},
    {"/train/warmup", OPT_INT, AT(train.warmup), "", 0, STEPS_MAX, NULL, "steps",
     "Steps of linear warm-up; at most steps. Default: steps / 10, at most 1000.", NULL},
    {"/train/batch", OPT_INT, AT(train.batch), "256", 1, 1048576, NULL, "sequences",
     "Sequences of a step over all ranks; a multiple of resources.ranks.", NULL},
    {"/train/micro_batch", OPT_INT, AT(train.micro_batch), "0", 0, 1048576, NULL, "sequences",
     "Sequences of a rank in one pass; divides batch / ranks. 0: the largest divisor with at most 4096 tokens.", NULL},
    {"/train/context", OPT_INT, AT(train.context), "", 2, 131072, NULL, "tokens",
     "Length of a training sequence; at most model.context. Default: model.context.", NULL},
    {"/train/seed", OPT_SEED, AT(train.seed), "\"1\"", 0, 0, NULL, "",
     "Seed of every random stream: decimal digits in a string, below 2^64.", NULL},
    {"/train/eval_every", OPT_INT, AT(train.eval_every), "500", 0, STEPS_MAX, NULL, "steps",
     "Steps between evaluations; 0: at the end only.", NULL},
    {"/train/eval_sequences", OPT_INT, AT(train.eval_sequences), "256", 0, 2147483647, NULL, "sequences",
     "Validation sequences of one evaluation; 0: all.", NULL},
    {"/train/checkpoint_every", OPT_INT, AT(train.checkpoint_every), "500", 0, STEPS_MAX, NULL, "steps",
     "Steps between checkpoints; 0: at the end only.", NULL},
    {"/train/keep", OPT_INT, AT(train.keep), "3", 1, 1000, NULL, "checkpoints", "The newest checkpoints that stay on disk.", NULL},
    {"/train/keep_best", OPT_INT, AT(train.keep_best), "1", 0, 1000, NULL, "checkpoints",
     "The checkpoints of smallest validation loss that stay as well; needs evaluations on steps of checkpoints.", NULL},

    {"/guard/spike_window", OPT_INT, AT(guard.spike_window), "128", 0, 512, NULL, "steps",
     "Accepted losses that a batch's loss is compared with, from when half of them are there; 0: no loss is too large.", NULL},
    {"/guard/spike_factor", OPT_REAL, AT(guard.spike_factor), "10", 0, 1000, NULL, "",
     "A batch is left out if its loss is above median + max(spike_factor * 1.4826 * median absolute deviation, spike_rise) of the window.", NULL},
    {"/guard/spike_rise", OPT_REAL, AT(guard.spike_rise), "0.5", 0, 100, NULL, "nats per token",
     "What a loss may always be above the median.", NULL},
    {"/guard/skips", OPT_INT, AT(guard.skips), "3", 0, 1000, NULL, "batches",
     "Batches in a row that are left out (a spike, or a loss or gradient norm that is not finite) before a roll back to the last good checkpoint.", NULL},
    {"/guard/rollbacks", OPT_INT, AT(guard.rollbacks), "3", 0, 1000, NULL, "",
     "Roll backs of the whole run. After them a spike is accepted as the new level, and a number that is not finite ends the job.", NULL},
    {"/guard/compare_every", OPT_INT, AT(guard.compare_every), "100", 0, STEPS_MAX, NULL, "steps",
     "Steps between comparisons of weights, masks and optimizer state over the ranks, by hash; differences are repaired. 0: only before checkpoints.", NULL},

    {"/resources/launcher", OPT_ENUM, AT(resources.launcher), "\"local\"", 0, 0, spec_launchers, "",
     "local: on the daemon's machine; slurm: as a batch job of the Slurm cluster that the daemon's administrator set up.", NULL},
    {"/resources/device", OPT_ENUM, AT(resources.device), "\"auto\"", 0, 0, spec_devices, "",
     "auto: the CPU; a GPU works where the job asks for cuda (docs/cuda.md).", NULL},
    {"/resources/ranks", OPT_INT, AT(resources.ranks), "1", 1, 4096, NULL, "ranks", "MPI processes, data parallel.", NULL},
    {"/resources/threads", OPT_INT, AT(resources.threads), "1", 1, 256, NULL, "threads", "Threads of each rank.", NULL},

    {"/slurm/partition", OPT_STRING, AT(slurm.partition), "\"\"", 0, 64, NULL, "", "Partition, or several with commas; empty: Slurm's default.",
     spec_slurm},
    {"/slurm/account", OPT_STRING, AT(slurm.account), "\"\"", 0, 64, NULL, "", "Account that pays; empty: the user's default.", spec_slurm},
    {"/slurm/qos", OPT_STRING, AT(slurm.qos), "\"\"", 0, 64, NULL, "", "Quality of service; empty: the default.", spec_slurm},
    {"/slurm/nodes", OPT_INT, AT(slurm.nodes), "1", 1, 4096, NULL, "nodes", "Nodes; divides resources.ranks.", spec_slurm},
    {"/slurm/ranks_per_node", OPT_INT, AT(slurm.ranks_per_node), "", 1, 4096, NULL, "ranks",
     "Ranks on each node. Default: resources.ranks / nodes, which it must be.", spec_slurm},
    {"/slurm/gpus_per_rank", OPT_INT, AT(slurm.gpus_per_rank), "", 0, 16, NULL, "GPUs",
     "GPUs to ask for, per rank. Default: 1 for the device cuda, else 0.", spec_slurm},
    {"/slurm/time_limit_minutes", OPT_INT, AT(slurm.time_limit_minutes), "0", 0, 525600, NULL, "minutes",
     "Time of one attempt: before it is over the job saves, and it queues again for the next one. 0: the partition's.", spec_slurm},
    {"/slurm/options", OPT_STRINGS, AT(slurm.options), "[]", 0, 16, NULL, "",
     "Further options of sbatch, such as --constraint=ib, as far as the administrator allows them.", spec_slurm},

    {"/restart/max", OPT_INT, AT(restart.max), "3", 0, 1000, NULL, "retries", "Retries after failures that a retry may cure.", NULL},
    {"/restart/backoff_s", OPT_REAL, AT(restart.backoff_s), "5", 0, 300, NULL, "seconds",
     "Wait before the first retry; doubles with each, up to 300.", NULL},
};
/* clang-format on */

#define SPEC_ROWS (sizeof(spec_rows) / sizeof(spec_rows[0]))
_Static_assert(SPEC_ROWS <= (size_t)SPEC_ROWS_MAX, "a draft marks every row");

/* Shapes of the CHTsNM paper. Its 1B has an intermediate width of 5461, which no group length
 * divides. */
static const struct spec_preset spec_preset_rows[] = {
    {"llama-60m", 512, 1376, 8, 8},
    {"llama-130m", 768, 2048, 12, 12},
    {"llama-350m", 1024, 2736, 24, 16},
    {"llama-1b", 2048, 5504, 24, 32},
};

const struct opt *spec_options(size_t *count)
{
    *count = SPEC_ROWS;
    return spec_rows;
}

const struct spec_preset *spec_presets(size_t *count)
{
    *count = sizeof(spec_preset_rows) / sizeof(spec_preset_rows[0]);
    return spec_preset_rows;
}

size_t spec_row(const char *path)
{
    size_t row = 0;
    while (row < SPEC_ROWS && strcmp(spec_rows[row].path, path) != 0) {
        row++;
    }
    assert(row < SPEC_ROWS);
    return row;
}

const char *spec_owner(const struct job_spec *spec, const struct opt *row)
{
    static const char sparsity[] = "/sparsity/", optimizer[] = "/optimizer/",
                      adapter[] = "/adapter/", widen[] = "/model/widen_", slurm[] = "/slurm/";
    if (strncmp(row->path, sparsity, sizeof(sparsity) - 1) == 0) {
        return spec->sparsity.method;
    }
    if (strncmp(row->path, optimizer, sizeof(optimizer) - 1) == 0) {
        return spec->optimizer.name;
    }
    if (strncmp(row->path, adapter, sizeof(adapter) - 1) == 0) {
        return spec->adapter.name;
    }
    if (strncmp(row->path, widen, sizeof(widen) - 1) == 0) {
        return spec->model.widen;
    }
    if (strncmp(row->path, slurm, sizeof(slurm) - 1) == 0) {
        return spec->resources.launcher;
    }
    return NULL;
}

bool spec_row_applies(const struct job_spec *spec, const struct opt *row)
{
    const char *owner = spec_owner(spec, row);
    if (!row->owners || !owner) {
        return true;
    }
    for (const char *const *name = row->owners; *name; name++) {
        if (strcmp(*name, owner) == 0) {
            return true;
        }
    }
    return false;
}
