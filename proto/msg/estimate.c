/* The formulas repeat what the engine allocates: proto does not know the engine.
 * tests/worker/test_estimate.c compares every line with model_sizes, optim_bytes and
 * refresher_bytes, so a change there that is not made here fails.
 *
 * FLOPs count two per multiply-add: 6 per active weight and token for forward and backward (all
 * target matrices, an adapter's and the head; looking up an embedding is free), and for
 * attention 12 * hidden per visible position and layer: two products forward, four backward,
 * with (context + 1) / 2 positions visible on average. Softmax, norms, SwiGLU and the optimizer
 * are not counted. */
#include "proto/msg/estimate.h"
#include <string.h>

enum {
    REAL_BYTES = 4,
    CODE_BYTES = 2,
    TOKEN_BYTES = 4,
    ALIGN_BYTES = 64, /* parts of slabs start at multiples of this */
    ALIGN_ELEMENTS = ALIGN_BYTES / REAL_BYTES,
    TARGETS = 7,     /* matrices of a layer */
    PANEL = 64,      /* tokens of an activation's panel on the CPU */
    HEAD_ROWS = 256, /* tokens whose logits are in work */
    VOCAB_BLOCK = 128,
    LOGIT_ROWS = 4,
    SCORE_PANEL = 64,           /* rows of regrowth scores in work */
    REFRESHER_BYTES = 224,      /* engine/sparse: struct refresher */
    REFRESH_TARGET_BYTES = 112, /* struct refresh_target */
    REFRESH_COUNT_BYTES = 24,   /* struct refresh_count, one for 32 rows */
    REFRESH_ROWS = 32,
    LAYER_PARAMETERS = TARGETS + 2, /* matrices and norms */
    AGES = 65536,                   /* entries of a table of corrections by age */
    AGE_BYTES = 2,
};

/* Resident bytes of a worker beyond its slabs: program and libraries, MPI, buffers. Measured as
 * peak resident memory less all other lines, dense, 2:4 and 1:4, with Open MPI 4.1: 15 to 17
 * MiB for one rank, 17 to 18 with a second. Pages of the mapped data files come on top; the
 * kernel takes them back when memory is short. */
static const uint64_t RUNTIME_BYTES = 18 * 1024 * 1024;

/* Sizes that do not fit 64 bits stay at the largest one: no job of such a size runs. */
static uint64_t mul(uint64_t a, uint64_t b)
{
    uint64_t out;
    return __builtin_mul_overflow(a, b, &out) ? UINT64_MAX : out;
}

static uint64_t add(uint64_t a, uint64_t b)
{
    uint64_t out;
    return __builtin_add_overflow(a, b, &out) ? UINT64_MAX : out;
}

static uint64_t larger(uint64_t a, uint64_t b) { return a > b ? a : b; }

static uint64_t blocks(uint64_t count, uint64_t block)
{
    return count / block + (count % block != 0);
}

static uint64_t round_up(uint64_t count, uint64_t step)
{
    return mul(blocks(count, step), step);
}

/* The spec's shape, unsigned, and what follows from it. */
struct shape {
    uint64_t hidden, kv, wide, layers, heads, vocab, head_dim;
    uint64_t n, m;       /* equal: dense */
    uint64_t rank, gate; /* an adapter's; 0: none */
    double working;      /* share of the steps that an adapter takes part in */
    uint64_t rows, context;
    bool tied;
    bool latent; /* dense weights behind the masks */
    bool scaled; /* and learned scales */
};

struct matrix {
    uint64_t dout, din, times; /* of a layer */
};

enum { KINDS = 4 };

static void shape_init(struct shape *shape, const struct job_spec *spec)
{
    bool sparse = spec_density(spec) < 1;
    *shape = (struct shape){
        .hidden = (uint64_t)spec->model.hidden,
        .wide = (uint64_t)spec_intermediate(spec),
        .layers = (uint64_t)spec->model.layers,
        .heads = (uint64_t)spec->model.heads,
        .vocab = (uint64_t)spec->model.vocab,
        .n = sparse ? (uint64_t)spec->sparsity.n : 1,
        .m = sparse ? (uint64_t)spec->sparsity.m : 1,
        .rows = (uint64_t)(spec->train.micro_batch * spec->train.context),
        .context = (uint64_t)spec->train.context,
        .tied = spec->model.tie_embeddings,
        .working =
            strcmp(spec->sparsity.method, "slope") == 0 ? spec->sparsity.branch_share : 1,
        .latent = spec_latent(spec),
        .scaled = strcmp(spec->sparsity.method, "cast") == 0,
    };
    if (strcmp(spec->adapter.name, "none") != 0)
        shape->rank = (uint64_t)spec->adapter.rank;
    if (strcmp(spec->adapter.name, "comolora") == 0)
        shape->gate = (uint64_t)spec->adapter.hidden;
    shape->head_dim = shape->hidden / shape->heads;
    shape->kv = shape->head_dim * (uint64_t)spec->model.kv_heads;
}

static void target_matrices(const struct shape *shape, struct matrix out[KINDS])
{
    const struct matrix kinds[KINDS] = {
        {shape->hidden, shape->hidden, 2}, /* q, o */
        {shape->kv, shape->hidden, 2},     /* k, v */
        {shape->wide, shape->hidden, 2},   /* gate, up */
        {shape->hidden, shape->wide, 1},   /* down */
    };
    memcpy(out, kinds, sizeof kinds);
}

/* Stored entries of all target matrices, each rounded up to `align` entries. */
static uint64_t target_entries(const struct shape *shape, uint64_t n, uint64_t m,
                               uint64_t align)
{
    struct matrix kinds[KINDS];
    uint64_t sum = 0;
    target_matrices(shape, kinds);
    for (size_t i = 0; i < KINDS; i++) {
        uint64_t entries = mul(kinds[i].dout, kinds[i].din / m * n);
        sum = add(sum, mul(round_up(entries, align), kinds[i].times));
    }
    return mul(sum, shape->layers);
}

/* Entries of an adapter's branches: A, B, W1, W2 (also without align: multiply-adds of a token)
 * and, if biases, b1 and b2. engine/adapter.c */
static uint64_t adapter_entries(const struct shape *shape, bool biases, uint64_t align)
{
    struct matrix kinds[KINDS];
    uint64_t sum = 0, rank = shape->rank, gate = shape->gate;
    target_matrices(shape, kinds);
    for (size_t i = 0; i < KINDS; i++) {
        const uint64_t parts[] = {mul(rank, kinds[i].din), mul(rank, kinds[i].dout),
                                  mul(gate, kinds[i].din), mul(rank, gate),
                                  biases ? gate : 0,       biases && gate > 0 ? rank : 0};
        for (size_t k = 0; k < sizeof parts / sizeof parts[0]; k++)
            sum = add(sum, mul(round_up(parts[k], align), kinds[i].times));
    }
    return mul(sum, shape->layers);
}

/* Learned scales, one for two groups of a row. */
static uint64_t scale_entries(const struct shape *shape, uint64_t align)
{
    struct matrix kinds[KINDS];
    uint64_t sum = 0;
    target_matrices(shape, kinds);
    for (size_t i = 0; i < KINDS && shape->scaled; i++) {
        uint64_t entries = mul(kinds[i].dout, blocks(kinds[i].din / shape->m, 2));
        sum = add(sum, mul(round_up(entries, align), kinds[i].times));
    }
    return mul(sum, shape->layers);
}

/* Entries of embedding, head, norms and scales. */
static uint64_t other_entries(const struct shape *shape, uint64_t align)
{
    uint64_t tables =
        mul(round_up(mul(shape->vocab, shape->hidden), align), shape->tied ? 1 : 2);
    uint64_t norms = mul(round_up(shape->hidden, align), 2 * shape->layers + 1);
    return add(add(tables, norms), scale_entries(shape, align));
}

/* Elements of an activation (rows, dim) in the slab. */
static uint64_t activation(const struct shape *shape, uint64_t dim)
{
    return round_up(mul(round_up(shape->rows, PANEL), dim), ALIGN_ELEMENTS);
}

/* engine/model_layout.c */
static uint64_t activation_bytes(const struct shape *shape)
{
    uint64_t hidden = activation(shape, shape->hidden), kv = activation(shape, shape->kv);
    uint64_t wide = activation(shape, shape->wide);
    uint64_t rstd = round_up(shape->rows, ALIGN_ELEMENTS);
    uint64_t lse = round_up(mul(shape->rows, shape->heads), ALIGN_ELEMENTS);
    uint64_t angles = round_up(mul(shape->context, shape->head_dim / 2), ALIGN_ELEMENTS);
    /* x, mid, q, att; k, v; gate, up; and what the norms and the softmax leave. */
    uint64_t layer =
        add(add(mul(hidden, 4), mul(kv, 2)), add(mul(wide, 2), add(mul(rstd, 2), lse)));
    /* Of the two halves of a block's gradients the larger counts. */
    uint64_t gradients = larger(mul(wide, 2), add(mul(hidden, 2), mul(kv, 2)));
    /* norm, branch, dx and the last block's output; SwiGLU's product. */
    uint64_t work = add(add(mul(angles, 2), mul(hidden, 4)), add(add(rstd, wide), gradients));
    /* An adapter: z and a of every target; g, dz, du and s, da in work. */
    uint64_t rank = activation(shape, shape->rank), gate = activation(shape, shape->gate);
    layer = add(layer, mul(add(rank, gate), TARGETS));
    work = add(work, add(mul(rank, 3), mul(gate, 2)));
    uint64_t elements = add(work, mul(layer, shape->layers));
    /* The trainer's tokens, targets and losses. */
    return add(mul(elements, REAL_BYTES), mul(shape->rows, 2 * TOKEN_BYTES + REAL_BYTES));
}

/* Codes and the CPU's index form of them: engine/cpu/pack.c. */
static uint64_t topology_bytes(const struct shape *shape)
{
    struct matrix kinds[KINDS];
    uint64_t sum = 0;
    if (shape->n == shape->m)
        return 0;
    target_matrices(shape, kinds);
    for (size_t i = 0; i < KINDS; i++) {
        uint64_t groups = mul(kinds[i].dout, kinds[i].din / shape->m);
        uint64_t links = round_up(mul(groups, shape->n), ALIGN_BYTES);
        uint64_t counts = mul(blocks(kinds[i].dout, PANEL), kinds[i].din);
        uint64_t pack = round_up(mul(add(links, counts), 2), ALIGN_BYTES);
        pack = shape->latent ? 0 : pack; /* the products are dense */
        sum = add(sum, mul(add(mul(groups, CODE_BYTES), pack), kinds[i].times));
    }
    return mul(sum, shape->layers);
}

/* The largest need of head, attention and the values of a sparse matrix in the order of dX:
 * engine/cpu/head.c, attention.c and product.c. */
static uint64_t device_scratch(const struct shape *shape, uint64_t threads)
{
    uint64_t logits = add(add(shape->vocab, mul(2, blocks(shape->vocab, VOCAB_BLOCK))), 2);
    uint64_t head =
        larger(mul(logits, HEAD_ROWS), mul(LOGIT_ROWS, larger(shape->hidden, shape->wide)));
    uint64_t panels = blocks(shape->context, PANEL), features = mul(shape->head_dim, PANEL);
    uint64_t forward = add(mul(features, mul(panels, 4)), mul(panels, PANEL * PANEL));
    uint64_t backward = add(mul(features, mul(panels, 8)),
                            add(2 * PANEL * PANEL, mul(panels, 2 * PANEL)));
    uint64_t attention = mul(larger(forward, backward), threads);
    uint64_t entries = mul(larger(shape->hidden, shape->wide), shape->hidden);
    bool sparse = shape->n < shape->m && !shape->latent;
    uint64_t values = sparse ? mul(entries / shape->m, shape->n) : 0;
    return mul(larger(larger(head, attention), values), REAL_BYTES);
}

/* Largest extents over the target matrices. */
struct extent {
    uint64_t positions, groups, row_groups, tasks, dout, din, row_words, col_words, explored;
};

static void extent_init(struct extent *extent, const struct shape *shape)
{
    struct matrix kinds[KINDS];
    *extent = (struct extent){0};
    target_matrices(shape, kinds);
    for (size_t i = 0; i < KINDS; i++) {
        const struct matrix *k = &kinds[i];
        uint64_t positions = mul(k->dout, k->din);
        extent->positions = larger(extent->positions, positions);
        extent->groups = larger(extent->groups, positions / shape->m);
        extent->row_groups = larger(extent->row_groups, k->din / shape->m);
        extent->tasks = larger(extent->tasks, blocks(k->dout, REFRESH_ROWS));
        extent->dout = larger(extent->dout, k->dout);
        extent->din = larger(extent->din, k->din);
        extent->row_words = larger(extent->row_words, mul(k->dout, blocks(k->din, 64)));
        extent->col_words = larger(extent->col_words, mul(k->din, blocks(k->dout, 64)));
        extent->explored =
            add(extent->explored, mul(mul(blocks(positions, 8), k->times), shape->layers));
    }
}

/* The parts of engine/sparse/refresh.c: layout. */
static uint64_t refresh_bytes(const struct job_spec *spec, const struct shape *shape)
{
    struct extent e;
    if (!spec_refreshes(spec) || shape->n == shape->m)
        return 0;
    extent_init(&e, shape);
    bool ri = strcmp(spec->sparsity.removal, "ri") == 0;
    bool gradient = strcmp(spec->sparsity.score, "gradient") == 0;
    bool ch = !gradient && strcmp(spec->sparsity.score, "random") != 0;
    uint64_t dim = larger(e.dout, e.din);
    const uint64_t parts[] = {
        REFRESHER_BYTES,
        mul(TARGETS * shape->layers, REFRESH_TARGET_BYTES),
        e.explored,
        mul(e.positions, 8), /* keys, then scores */
        mul(e.groups, 2),    /* survivors */
        mul(e.groups, 2),    /* codes before */
        mul(e.row_groups, 2),
        mul(e.tasks, REFRESH_COUNT_BYTES),
        ri ? mul(e.dout, 8) : 0,
        ri ? mul(e.din, 8) : 0,
        ch ? mul(e.row_words, 8) : 0,
        ch ? mul(e.col_words, 8) : 0,
        ch ? mul(dim, 4) : 0,
        ch ? mul(dim, SCORE_PANEL * 8) : 0,
        gradient ? mul(e.positions, REAL_BYTES) : 0,
    };
    uint64_t sum = 0;
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        sum = add(sum, round_up(parts[i], ALIGN_BYTES));
    return sum;
}

/* engine/optim/optim.c: what an optimizer takes beyond its two slabs of moments. */
static uint64_t optimizer_bytes(const struct job_spec *spec, const struct shape *shape,
                                uint64_t slab)
{
    struct matrix kinds[KINDS];
    uint64_t dense = 0, square = 0, stored = 0, sum = 0;
    bool tans = strcmp(spec->optimizer.name, "tans") == 0;
    if (strcmp(spec->optimizer.name, "adamw") == 0)
        return 0;
    target_matrices(shape, kinds);
    for (size_t i = 0; i < KINDS; i++) {
        uint64_t dout = kinds[i].dout, din = kinds[i].din, small = dout < din ? dout : din;
        dense = larger(dense, mul(dout, din));
        square = larger(square, mul(small, small));
        stored = larger(stored, mul(dout, mul(din / shape->m, shape->n)));
    }
    const uint64_t parts[] = {dense, dense, square, square, stored};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        sum = add(sum, round_up(mul(parts[i], REAL_BYTES), ALIGN_BYTES));
    if (!tans)
        return sum;
    uint64_t parts_of_adapter = shape->rank == 0 ? 0 : shape->gate == 0 ? 2 : 6;
    uint64_t of_layer = LAYER_PARAMETERS + TARGETS * parts_of_adapter;
    uint64_t parameters = add(mul(of_layer, shape->layers), shape->tied ? 2 : 3);
    sum = add(sum, round_up(mul(parameters, 4), ALIGN_BYTES));
    if (spec->optimizer.age_correction)
        sum = add(sum, add(2 * AGES * REAL_BYTES, round_up(mul(slab, AGE_BYTES), ALIGN_BYTES)));
    return sum;
}

/* The mean over the run's steps. */
static double flops_per_token(const struct shape *shape, uint64_t n, uint64_t m)
{
    double weights = (double)target_entries(shape, n, m, 1) +
                     shape->working * (double)adapter_entries(shape, false, 1) +
                     (double)shape->vocab * (double)shape->hidden;
    double visible = ((double)shape->context + 1) / 2;
    double attention = 12 * (double)shape->hidden * visible * (double)shape->layers;
    return 6 * weights + attention;
}

void estimate_job(const struct job_spec *spec, struct estimate *out)
{
    struct shape shape;
    shape_init(&shape, spec);
    uint64_t n = shape.latent ? shape.m : shape.n; /* stored and multiplied by, of every m */
    uint64_t targets = target_entries(&shape, n, shape.m, ALIGN_ELEMENTS);
    uint64_t slab = add(add(other_entries(&shape, ALIGN_ELEMENTS), targets),
                        adapter_entries(&shape, true, ALIGN_ELEMENTS));
    uint64_t dense = add(other_entries(&shape, 1), target_entries(&shape, 1, 1, 1));
    uint64_t stored =
        add(other_entries(&shape, 1), target_entries(&shape, shape.n, shape.m, 1));
    uint64_t adapter = adapter_entries(&shape, true, 1);
    *out = (struct estimate){
        .parameters = add(dense, adapter),
        .active_parameters = add(stored, adapter),
        .intermediate = shape.wide,
        .adapter_parameters = adapter,
        .adapter_share = (double)adapter / (double)dense,
        .density = spec_density(spec),
        .tokens_per_step = mul((uint64_t)spec->train.batch, shape.context),
        .flops_per_token = flops_per_token(&shape, n, shape.m),
        .flops_per_token_dense = flops_per_token(&shape, 1, 1),
        .memory =
            {
                .weights = mul(slab, REAL_BYTES),
                .latent = shape.latent ? mul(targets, REAL_BYTES) : 0,
                .topology = topology_bytes(&shape),
                .gradients = mul(slab, REAL_BYTES),
                .optimizer =
                    add(mul(slab, 2 * REAL_BYTES), optimizer_bytes(spec, &shape, slab)),
                .activations = activation_bytes(&shape),
                .scratch = add(device_scratch(&shape, (uint64_t)spec->resources.threads),
                               refresh_bytes(spec, &shape)),
                .runtime = RUNTIME_BYTES,
            },
    };
    out->memory.total =
        add(add(add(add(out->memory.weights, out->memory.latent), out->memory.topology),
                add(out->memory.gradients, out->memory.optimizer)),
            add(add(out->memory.activations, out->memory.scratch), out->memory.runtime));
}
