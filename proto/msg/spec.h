/* A job: the struct, its option tables, and the way from JSON to the struct and back.
 *
 * spec_parse reports every fault at once; spec_print writes all fields, so that spec.json needs
 * no default to be understood. The tables are in spec_table.c, one static table per section; a
 * sparse method's or optimizer's own options are rows there that name the methods they belong
 * to. */
#ifndef HEBB_MSG_SPEC_H
#define HEBB_MSG_SPEC_H

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include "proto/base/opt.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    SPEC_BODY_MAX = 64 * 1024, /* bytes of a job's JSON */
    SPEC_INTERMEDIATE_MAX = 262144,
    SPEC_FAULTS_MAX = 64,      /* further faults are counted, not kept */
    SPEC_LABELS_MAX = 16,
    SPEC_LABEL_MAX = 64, /* bytes of a label */
    SPEC_VOCAB_BYTES = 257,    /* byte tokenizer: 256 bytes and the document separator */
    SPEC_VOCAB_TOKENS = 32000, /* default for token shards */
    SPEC_MICRO_TOKENS = 4096,  /* a chosen micro_batch has at most so many tokens */
};

/* Limits of combinations: parameters (2^40) and tokens of a whole run (2^53: exact in JSON). */
#define SPEC_PARAMETERS_MAX 1099511627776.0
#define SPEC_TOKENS_MAX 9007199254740992.0

struct job_spec {
    char name[OPT_STRING_MAX]; /* "job" */
    int64_t priority;          /* 0; higher first, -100..100 */
    struct str_list labels;    /* []; as submitted: PATCH changes the daemon's row only */
    struct {
        char preset[OPT_STRING_MAX]; /* llama-60m | llama-130m | llama-350m | llama-1b | none;
                                        gives the next five */
        int64_t hidden, intermediate, layers, heads, kv_heads; /* kv_heads: heads */
        int64_t vocab;                    /* tokenizer bytes: 257, else 32000 */
        int64_t context;                  /* 256 */
        double rope_theta;                /* 10000 */
        double norm_eps;                  /* 1e-6 */
        bool tie_embeddings;              /* false */
        char widen[OPT_STRING_MAX];       /* none | lora | comolora */
        int64_t widen_rank, widen_hidden; /* 7, 2 */
        struct str_list init_from;        /* []; one folder: the weights to start from */
    } model;
    struct {
        struct str_list train;      /* required: files, folders, globs */
        struct str_list validation; /* []; empty: validation_fraction of train is held out */
        double validation_fraction; /* 0.05, 0..0.5 */
        char tokenizer[OPT_STRING_MAX]; /* bytes | none (token shards) */
        char format[OPT_STRING_MAX]; /* auto | text | hebb | llmc | raw-uint16 | raw-uint32 */
    } data;
    struct {
        char method[OPT_STRING_MAX];  /* chts24; dense | static | slope | set | rigl | chts24 |
                                         chtsnm | retrain | ste | srste | cast */
        int64_t n, m;                 /* 1, 4 */
        char layout[OPT_STRING_MAX];  /* row | block */
        int64_t refresh_interval;     /* 100 steps */
        double refresh_until;         /* 0.75, share of steps: T_end */
        double zeta;                  /* 0.1 */
        char removal[OPT_STRING_MAX]; /* magnitude | ri */
        bool soft;                    /* true: soft removal and soft regrowth (chts24) */
        double temperature_start, temperature_end; /* 1, 9: T of the soft removal */
        char score[OPT_STRING_MAX]; /* ch2-l3n | ch3-l3n | random | gradient; set: random */
        char state_repair[OPT_STRING_MAX]; /* changed | none | all */
        double mpr;          /* chtsnm, row: 0.5 for n / m up to 1/4, else 0.75; others 0 */
        double penalty;      /* srste: 1e-4, cast: 2e-4; others 0 */
        double branch_share; /* slope: 0.01, share of steps: the last ones */
    } sparsity;
    struct {
        char name[OPT_STRING_MAX];  /* adamw | muon | tans */
        double lr;                  /* 0.001 */
        double min_lr_ratio;        /* 0.1, end of the cosine */
        double beta1, beta2, eps;   /* 0.9, 0.999, 1e-8; eps of tans 1e-5 */
        double weight_decay;        /* 0 */
        double grad_clip;           /* 1.0; 0: off */
        double adam_lr_ratio;       /* muon, tans: 1 */
        double adam_eps;            /* tans: 1e-8 */
        double momentum;            /* muon: 0.95 */
        char scale[OPT_STRING_MAX]; /* muon: rms | spectral */
        double gamma_ns;            /* tans: 0.5 */
        int64_t ramp;               /* tans: 8 steps; 0: off */
        char rms[OPT_STRING_MAX];   /* tans: post-mask | pre-mask | none */
        bool age_correction;        /* tans: false */
    } optimizer;
    struct {
        char name[OPT_STRING_MAX]; /* none (slope: lora) | lora | comolora */
        int64_t rank, hidden;      /* 7, 2 */
        double gamma, alpha;       /* 0.5, rank */
    } adapter;
    struct {
        int64_t steps;       /* 10000 */
        int64_t warmup;      /* min(1000, steps / 10) */
        int64_t batch;       /* 256 sequences, global, a multiple of ranks */
        int64_t micro_batch; /* 0: chosen; sequences per rank and pass, divides batch / ranks */
        int64_t context;     /* model.context; at most that */
        uint64_t seed;       /* "1" */
        int64_t eval_every;  /* 500 steps; 0: at the end only */
        int64_t eval_sequences;   /* 256; validation sequences per evaluation; 0: all */
        int64_t checkpoint_every; /* 500 steps; 0: at the end only */
        int64_t keep;             /* 3 checkpoints */
        int64_t keep_best;        /* 1 checkpoint */
    } train;
    struct {
        int64_t spike_window;  /* 128 losses; 0: off */
        double spike_factor;   /* 10 */
        double spike_rise;     /* 0.5 nats per token */
        int64_t skips;         /* 3 batches in a row */
        int64_t rollbacks;     /* 3 */
        int64_t compare_every; /* 100 steps; 0: off */
    } guard;
    struct {
        char launcher[OPT_STRING_MAX]; /* local | slurm */
        char device[OPT_STRING_MAX];   /* auto | cpu | cuda */
        int64_t ranks;                 /* 1 */
        int64_t threads;               /* 1, per rank */
    } resources;
    struct { /* of the launcher slurm */
        char partition[OPT_STRING_MAX], account[OPT_STRING_MAX], qos[OPT_STRING_MAX]; /* "" */
        int64_t nodes, ranks_per_node; /* 1, ranks / nodes */
        int64_t gpus_per_rank;         /* cuda: 1, else 0 */
        int64_t time_limit_minutes;    /* 0: the partition's */
        struct str_list options;       /* [] */
    } slurm;
    struct {
        int64_t max;      /* 3 retries after failures */
        double backoff_s; /* 5; doubles per retry, at most 300 s */
    } restart;
};

/* One fault of a request: a JSON pointer and why. */
struct spec_fault {
    char field[OPT_STRING_MAX];
    char reason[ERR_TEXT_MAX];
};

struct spec_faults {
    struct spec_fault items[SPEC_FAULTS_MAX];
    size_t count; /* may exceed SPEC_FAULTS_MAX: the rest is not kept */
};

void spec_init(struct job_spec *spec); /* zeroed; valid for spec_release */
void spec_release(struct job_spec *spec);

/* Parses JSON text (len bytes, need not end with NUL), fills defaults, validates values and
 * their combinations. On faults returns ERR_INVALID with the first in err and all in faults
 * (may be NULL); spec is then released and zeroed. JSON syntax faults carry field "" and the
 * position. */
int spec_parse(struct job_spec *spec, const char *json, size_t len, struct spec_faults *faults,
               struct err *err);

/* The same, but on faults of single fields spec keeps what is right, with defaults in the faulty
 * ones, so that more can be checked; the caller releases it in any case. *partial is false if
 * there is nothing to look at (no JSON object). */
int spec_parse_partial(struct job_spec *spec, const char *json, size_t len,
                       struct spec_faults *faults, bool *partial, struct err *err);

/* A label: 1 to SPEC_LABEL_MAX bytes without comma, space at an end, or control character. */
bool spec_label_good(const char *label);

/* Appends the job as JSON on one line, in the tables' order: every field that its method,
 * optimizer and adapter have. Parsing and printing it again gives the same bytes. */
void spec_print(const struct job_spec *spec, struct buf *out);

/* The width inside the SwiGLU block that is trained: model.intermediate, with model.widen
 * increased by the least multiple of m (1 for dense) whose weights inside the masks are at
 * least as many as the parameters of the branches that it names. Of a spec without faults. */
int64_t spec_intermediate(const struct job_spec *spec);

/* Share of the target matrices' weights that is stored: n / m, 1 for dense. */
double spec_density(const struct job_spec *spec);
/* True if the method changes its masks while training (set, chts24). */
bool spec_refreshes(const struct job_spec *spec);
/* A dense weight behind every masked one: ste, srste, cast. */
bool spec_latent(const struct job_spec *spec);

/* The rows of all sections in order; *count gets their number. */
const struct opt *spec_options(size_t *count);

struct spec_preset {
    const char *name;
    int64_t hidden, intermediate, layers, heads;
};
const struct spec_preset *spec_presets(size_t *count);

#endif
