/* Decoding: its ops on the cpu device, with every instruction set of this machine, against the
 * reference; and the decoder against the model's whole pass. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those first */
#include <cmocka.h>

#include "engine/cpu/cpu.h"
#include "engine/decoder.h"
#include "engine/model_private.h"
#include "tests/engine/ops_fixture.h"
#include <malloc.h>
#include <math.h>
#include <string.h>

/* Largest difference over the largest reference value: sums of some 1000 fp32 terms in another
 * order. */
static const double TOLERANCE = 2e-5;

static void expect_close(const char *what, const real *want, const real *got, size_t count,
                         double tolerance)
{
    double top = 1e-30;
    for (size_t i = 0; i < count; i++)
        top = fmax(top, fabs((double)want[i]));
    for (size_t i = 0; i < count; i++)
        if (!(fabs((double)want[i] - (double)got[i]) <= tolerance * top))
            fail_msg("%s: element %zu of %zu is %.9g, the reference has %.9g (scale %g)", what,
                     i, count, (double)got[i], (double)want[i], top);
}

static struct device *device_open(const char *name, struct pool *pool,
                                  const struct device_limits *limits)
{
    struct device *dev = NULL;
    assert_int_equal(device_create(&dev, name, pool, NULL), 0);
    assert_int_equal(device_reserve(dev, limits, NULL), 0);
    return dev;
}

/* --- products --- */

struct linear_case {
    size_t din, dout, rows;
    unsigned n, m; /* equal: dense */
    bool turned, add, block;
};

enum { ROWS_MOST = 3, DOUT_MOST = 150, PRODUCTS = 2 };

static void block_mask(struct nm *w)
{
    w->layout = NM_LAYOUT_BLOCK;
    nm_init_mask(w, 3, 0);
    assert_int_equal(nm_check(w, NULL), 0);
}

/* Two products of one x; out: (PRODUCTS, rows, dout). */
static void run_linear(struct device *dev, const struct linear_case *c, real *out)
{
    const struct ops *ops = dev->ops;
    struct nm w[PRODUCTS];
    struct decode_product products[PRODUCTS] = {0};
    real *x = fixture_normal(c->rows * c->din, 1),
         *start = fixture_normal(c->rows * c->dout, 2);
    real *dense = fixture_normal(c->n == c->m ? PRODUCTS * c->dout * c->din : 1, 3);
    void *packs[PRODUCTS] = {NULL};
    for (unsigned i = 0; i < PRODUCTS; i++) {
        real *y = out + i * c->rows * c->dout;
        memcpy(y, start, c->rows * c->dout * sizeof *y);
        products[i] = (struct decode_product){
            .y = y, .dout = c->dout, .din = c->din, .add = c->add, .turned = c->turned};
        if (c->n == c->m) {
            products[i].dense = dense + i * c->dout * c->din;
            continue;
        }
        w[i] = fixture_nm(dev, c->dout, c->din, c->n, c->m, 10 + i);
        if (c->block)
            block_mask(&w[i]);
        packs[i] = mem_aligned(ops->decode_pack_size(&w[i]) + 1, 1);
        ops->decode_pack(dev, packs[i], &w[i]);
        products[i].nm = &w[i];
        products[i].pack = packs[i];
    }
    ops->decode_linear(dev, products, PRODUCTS, x, c->rows);
    for (unsigned i = 0; i < PRODUCTS; i++) {
        mem_aligned_free(packs[i]);
        if (c->n < c->m)
            fixture_nm_release(&w[i]);
    }
    mem_aligned_free(x);
    mem_aligned_free(start);
    mem_aligned_free(dense);
}

static void check_linear(const struct linear_case *c)
{
    const struct device_limits limits = {
        .dim_max = c->din, .decode_rows = ROWS_MOST, .n = c->n, .m = c->m};
    const size_t count = PRODUCTS * c->rows * c->dout;
    struct pool *pool;
    real want[PRODUCTS * ROWS_MOST * DOUT_MOST], got[PRODUCTS * ROWS_MOST * DOUT_MOST];
    real shared[PRODUCTS * ROWS_MOST * DOUT_MOST];
    assert_true(c->rows <= ROWS_MOST && c->dout <= DOUT_MOST);
    assert_int_equal(pool_create(&pool, 3, NULL), 0);
    struct device *ref = device_open("ref", NULL, &limits);
    struct device *one = device_open("cpu", NULL, &limits);
    struct device *three = device_open("cpu", pool, &limits);
    run_linear(ref, c, want);
    for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
        char what[96];
        if (!cpu_kernels_supported(*set))
            continue;
        snprintf(what, sizeof what, "%s, %u:%u, %zu x %zu, %zu rows", (*set)->isa, c->n, c->m,
                 c->dout, c->din, c->rows);
        cpu_device_use(one, *set);
        cpu_device_use(three, *set);
        run_linear(one, c, got);
        expect_close(what, want, got, count, TOLERANCE);
        run_linear(three, c, shared);
        assert_memory_equal(got, shared, count * sizeof *got);
    }
    device_destroy(ref);
    device_destroy(one);
    device_destroy(three);
    pool_destroy(pool);
}

static void products_with_every_pattern_agree_with_the_reference(void **state)
{
    (void)state;
    for (unsigned m = 2; m <= NM_M_MAX; m++)
        for (unsigned n = 1; n < m; n++) {
            struct linear_case c = {.din = m, .dout = 1, .rows = 1, .n = n, .m = m};
            check_linear(&c);
            c = (struct linear_case){
                .din = 7 * m, .dout = 39, .rows = 2, .n = n, .m = m, .add = n % 2};
            check_linear(&c);
        }
}

static void products_of_both_layouts_agree_with_the_reference(void **state)
{
    (void)state;
    static const size_t dins[] = {4, 28, 64, 68, 516};
    for (size_t i = 0; i < sizeof dins / sizeof dins[0]; i++)
        for (unsigned n = 1; n <= 3; n++)
            for (unsigned kind = 0; kind < 4; kind++) {
                struct linear_case c = {.din = dins[i],

                                        .dout = kind & 2 ? 44 : 148,
                                        .rows = kind & 2 ? 3 : 1,
                                        .n = n,
                                        .m = 4,
                                        .block = kind & 1};
                check_linear(&c);
            }
}

static void dense_products_agree_with_the_reference(void **state)
{
    (void)state;
    static const size_t shapes[][2] = {{1, 1}, {7, 5}, {130, 67}, {64, 128}, {516, 150}};
    for (size_t i = 0; i < sizeof shapes / sizeof shapes[0]; i++)
        for (unsigned kind = 0; kind < 8; kind++) {
            struct linear_case c = {.din = shapes[i][0],
                                    .dout = shapes[i][1],
                                    .rows = kind & 4 ? 3 : 1,
                                    .n = 1,
                                    .m = 1,
                                    .turned = kind & 1,
                                    .add = kind & 2};
            check_linear(&c);
        }
}

/* What a row loads past its end belongs to another: a broken neighbour must not reach it. */
static void a_row_does_not_read_its_neighbours(void **state)
{
    (void)state;
    enum { DIN = 36, DOUT = 3 };
    const struct device_limits limits = {.dim_max = DIN, .decode_rows = 1, .n = 1, .m = 4};
    struct device *dev = device_open("cpu", NULL, &limits);
    struct nm w = fixture_nm(dev, DOUT, DIN, 1, 4, 1);
    real *x = fixture_normal(DIN, 2), y[DOUT], clean[DOUT];
    void *pack = mem_aligned(dev->ops->decode_pack_size(&w), 1);
    dev->ops->decode_pack(dev, pack, &w);
    struct decode_product product = {
        .y = clean, .nm = &w, .pack = pack, .dout = DOUT, .din = DIN};
    for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
        if (!cpu_kernels_supported(*set))
            continue;
        cpu_device_use(dev, *set);
        product.y = clean;
        dev->ops->decode_linear(dev, &product, 1, x, 1);
        real kept = w.values[DIN / 4];
        w.values[DIN / 4] = NAN; /* the first value of row 1 */
        product.y = y;
        dev->ops->decode_linear(dev, &product, 1, x, 1);
        w.values[DIN / 4] = kept;
        assert_true(isnan(y[1]));
        assert_memory_equal(&y[0], &clean[0], sizeof y[0]);
        assert_memory_equal(&y[2], &clean[2], sizeof y[2]);
    }
    mem_aligned_free(x);
    mem_aligned_free(pack);
    fixture_nm_release(&w);
    device_destroy(dev);
}

/* --- norm, SwiGLU, cache and attention --- */

struct attend_case {
    size_t heads, kv_heads, head_dim, capacity, rows;
};

enum { SEQUENCES = 2 };

/* Fills both sequences, the first through decode_fill, then attends from the last places. out:
 * (5 parts, each at most `most`). */
static void run_attend(struct device *dev, const struct attend_case *c, real *keys,
                       real *values, real *out)
{
    const struct ops *ops = dev->ops;
    const size_t half = c->head_dim / 2, dim = c->heads * c->head_dim;
    const size_t kv = c->kv_heads * c->head_dim, filled = c->capacity - 1;
    const struct decode_cache cache = {.keys = keys,
                                       .values = values,
                                       .capacity = c->capacity,
                                       .heads = c->heads,
                                       .kv_heads = c->kv_heads,
                                       .head_dim = c->head_dim};
    real *cosine = fixture_normal(c->capacity * half, 1);
    real *sine = fixture_normal(c->capacity * half, 2);
    real *k = fixture_normal(c->capacity * kv, 3), *v = fixture_normal(c->capacity * kv, 4);
    real *q = fixture_normal(c->capacity * dim, 5);
    if (filled > 0) {
        real *act[2];
        for (int i = 0; i < 2; i++) {
            act[i] = mem_aligned(ops->act_size(filled, kv), sizeof(real));
            ops->act_load(dev, act[i], i == 0 ? k : v, filled, kv);
        }
        ops->decode_fill(dev, &cache, act[0], act[1], 0, filled);
        mem_aligned_free(act[0]);
        mem_aligned_free(act[1]);
    }
    struct decode_place places[DECODER_ROWS];
    assert_true(c->capacity <= DECODER_ROWS * 32);
    for (size_t t = 0; t < c->capacity; t++) { /* the other one by one */
        places[0] = (struct decode_place){1, t};
        ops->decode_append(dev, &cache, q + t * dim, k + t * kv, v + t * kv, cosine, sine,
                           places, 1);
    }
    places[0] = (struct decode_place){0, filled};
    places[1] = (struct decode_place){1, c->capacity / 2};
    places[2] = (struct decode_place){1, c->capacity - 1};
    real *rows = fixture_normal(3 * dim, 6);
    ops->decode_append(dev, &cache, rows, k, v, cosine, sine, places, 1);
    ops->decode_attention(dev, out, rows, &cache, places, 3);
    real *buffers[] = {cosine, sine, k, v, q, rows};
    for (size_t i = 0; i < sizeof buffers / sizeof buffers[0]; i++)
        mem_aligned_free(buffers[i]);
}

static void attention_over_the_cache_agrees_with_the_reference(void **state)
{
    (void)state;
    static const struct attend_case cases[] = {
        {.heads = 1, .kv_heads = 1, .head_dim = 2, .capacity = 1},
        {.heads = 4, .kv_heads = 2, .head_dim = 6, .capacity = 5},
        {.heads = 3, .kv_heads = 3, .head_dim = 16, .capacity = 66},
        {.heads = 6, .kv_heads = 1, .head_dim = 64, .capacity = 131},
    };
    struct pool *pool;
    assert_int_equal(pool_create(&pool, 3, NULL), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const struct attend_case *c = &cases[i];
        const struct device_limits limits = {.decode_rows = 3, .decode_capacity = c->capacity};
        struct device *ref = device_open("ref", NULL, &limits);
        struct device *one = device_open("cpu", NULL, &limits);
        struct device *three = device_open("cpu", pool, &limits);
        const size_t size = SEQUENCES * c->capacity * c->kv_heads * c->head_dim;
        const size_t count = 3 * c->heads * c->head_dim;
        real *keys[3], *values[3], *out[3];
        for (int k = 0; k < 3; k++) {
            keys[k] = mem_aligned(size, sizeof(real));
            values[k] = mem_aligned(size, sizeof(real));
            out[k] = mem_aligned(count, sizeof(real));
        }
        run_attend(ref, c, keys[0], values[0], out[0]);
        for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
            if (!cpu_kernels_supported(*set))
                continue;
            cpu_device_use(one, *set);
            cpu_device_use(three, *set);
            run_attend(one, c, keys[1], values[1], out[1]);
            run_attend(three, c, keys[2], values[2], out[2]);
            expect_close("keys", keys[0], keys[1], size, TOLERANCE);
            expect_close("values", values[0], values[1], size, TOLERANCE);
            expect_close((*set)->isa, out[0], out[1], count, TOLERANCE);
            assert_memory_equal(out[1], out[2], count * sizeof(real));
        }
        for (int k = 0; k < 3; k++) {
            mem_aligned_free(keys[k]);
            mem_aligned_free(values[k]);
            mem_aligned_free(out[k]);
        }
        device_destroy(ref);
        device_destroy(one);
        device_destroy(three);
    }
    pool_destroy(pool);
}

static void norm_and_swiglu_of_rows_agree_with_the_reference(void **state)
{
    (void)state;
    enum { MOST = 515, ROWS = 3 };
    static const size_t dims[] = {1, 7, 64, 130, MOST};
    const struct device_limits limits = {.dim_max = MOST, .decode_rows = ROWS};
    struct device *ref = device_open("ref", NULL, &limits);
    struct device *cpu = device_open("cpu", NULL, &limits);
    real *x = fixture_normal(ROWS * MOST, 1), *w = fixture_normal(MOST, 2);
    real *up = fixture_normal(ROWS * MOST, 3);
    real want[ROWS * MOST], got[ROWS * MOST];
    for (size_t i = 0; i < sizeof dims / sizeof dims[0]; i++)
        for (const struct cpu_kernels *const *set = cpu_kernel_sets(); *set; set++) {
            size_t dim = dims[i];
            if (!cpu_kernels_supported(*set))
                continue;
            cpu_device_use(cpu, *set);
            ref->ops->decode_norm(ref, want, x, w, REAL(1e-3), ROWS, dim);
            cpu->ops->decode_norm(cpu, got, x, w, REAL(1e-3), ROWS, dim);
            expect_close("decode_norm", want, got, ROWS * dim, TOLERANCE);
            ref->ops->decode_swiglu(ref, want, x, up, ROWS, dim);
            cpu->ops->decode_swiglu(cpu, got, x, up, ROWS, dim);
            expect_close("decode_swiglu", want, got, ROWS * dim, TOLERANCE);
        }
    mem_aligned_free(x);
    mem_aligned_free(w);
    mem_aligned_free(up);
    device_destroy(ref);
    device_destroy(cpu);
}

/* --- the decoder --- */

enum { VOCAB = 23, CONTEXT = 45 };

static const struct model_shape SHAPE = {.hidden = 24,
                                         .intermediate = 40,
                                         .layers = 2,
                                         .heads = 4,
                                         .kv_heads = 2,
                                         .vocab = VOCAB,
                                         .context = CONTEXT,
                                         .rope_theta = 10000,
                                         .norm_eps = 1e-6,
                                         .n = 1,
                                         .m = 4};

/* Logits of the whole pass and of the decoder: within this of the largest. */
static const double LOGITS_TOLERANCE = 1e-5;

struct fixture {
    struct pool *pool;
    struct device *dev;
    struct model *model;
    struct decoder *decoder;
    int32_t tokens[CONTEXT];
    real whole[CONTEXT * VOCAB]; /* logits of the model's own pass */
};

static void setup(struct fixture *f, const char *device, const struct model_shape *shape,
                  unsigned threads, size_t sequences)
{
    struct err err = {0};
    assert_int_equal(pool_create(&f->pool, threads, NULL), 0);
    assert_int_equal(device_create(&f->dev, device, f->pool, NULL), 0);
    assert_int_equal(model_create(&f->model, f->dev, shape, 1, CONTEXT, false, NULL), 0);
    model_init(f->model, 7);
    for (size_t i = 0; i < f->model->param_count;
         i++) { /* a branch starts at 0, a head small */
        const struct param *param = &f->model->params[i];
        const struct philox key = {.seed = i, .purpose = FIXTURE_PURPOSE};
        for (size_t j = 0; (param->adapter || i == 0) && j < param->count; j++)
            f->model->weights[param->offset + j] = (real)(0.3 * philox_normal(&key, j));
    }
    model_repack(f->model);
    for (size_t i = 0; i < CONTEXT; i++)
        f->tokens[i] = (int32_t)(i * i % VOCAB);
    model_logits(f->model, f->tokens, f->whole, 1, CONTEXT, 0, CONTEXT);
    if (decoder_create(&f->decoder, f->model, sequences, CONTEXT, &err) != 0)
        fail_msg("%s", err.text);
}

static void teardown(struct fixture *f)
{
    decoder_destroy(f->decoder);
    model_destroy(f->model);
    device_destroy(f->dev);
    pool_destroy(f->pool);
}

/* Reads all tokens, `first` of them at once and the rest `step` at a time. */
static void read_all(struct fixture *f, size_t first, size_t step, real *logits)
{
    decoder_rewind(f->decoder, 0, 0);
    for (size_t at = 0, count = first; at < CONTEXT; at += count, count = step) {
        count = count < CONTEXT - at ? count : CONTEXT - at;
        decoder_read(f->decoder, 0, f->tokens + at, count, logits + at * VOCAB, count);
        assert_int_equal(decoder_length(f->decoder, 0), at + count);
    }
}

static void check_decoder(const char *device, const struct model_shape *shape)
{
    static const size_t cuts[][2] = {{1, 1}, {CONTEXT, 1}, {20, 1}, {3, 2}, {5, 40}, {16, 17}};
    struct fixture f;
    real logits[CONTEXT * VOCAB];
    setup(&f, device, shape, 1, 1);
    for (size_t i = 0; i < sizeof cuts / sizeof cuts[0]; i++) {
        memset(logits, 0xff, sizeof logits);
        read_all(&f, cuts[i][0], cuts[i][1], logits);
        expect_close(device, f.whole, logits, CONTEXT * VOCAB, LOGITS_TOLERANCE);
    }
    teardown(&f);
}

static void cached_logits_are_those_of_the_whole_pass(void **state)
{
    (void)state;
    static const char *const devices[] = {"ref", "cpu"};
    struct model_shape shapes[9];
    for (size_t i = 0; i < 9; i++)
        shapes[i] = SHAPE;
    shapes[1].n = shapes[1].m = 1;
    shapes[2].n = 2, shapes[2].layout = NM_LAYOUT_BLOCK, shapes[2].kv_heads = 4;
    shapes[3].n = 3, shapes[3].m = 8, shapes[3].tie_embeddings = true;
    shapes[4].adapter = (struct adapter_shape){.kind = ADAPTER_LORA, .rank = 3, .alpha = 6};
    shapes[5].adapter = (struct adapter_shape){
        .kind = ADAPTER_COMOLORA, .rank = 7, .hidden = 2, .gamma = 0.5, .alpha = 7};
    shapes[6].latent = MODEL_LATENT_MASKED;
    shapes[7].n = 2, shapes[7].latent = MODEL_LATENT_SCALED;
    shapes[8].n = shapes[8].m = 1, shapes[8].adapter = shapes[5].adapter;
    for (size_t d = 0; d < 2; d++)
        for (size_t i = 0; i < 9; i++)
            check_decoder(devices[d], &shapes[i]);
}

static int32_t likeliest(const real *logits)
{
    size_t best = 0;
    for (size_t v = 1; v < VOCAB; v++)
        best = logits[v] > logits[best] ? v : best;
    return (int32_t)best;
}

static void greedy_text_is_that_of_whole_passes(void **state)
{
    (void)state;
    struct fixture f;
    setup(&f, "cpu", &SHAPE, 2, 1);
    int32_t tokens[CONTEXT] = {1, 5, 2};
    real logits[VOCAB], whole[VOCAB];
    decoder_read(f.decoder, 0, tokens, 3, logits, 1);
    for (size_t n = 3; n < CONTEXT; n++) {
        model_logits(f.model, tokens, whole, 1, n, n - 1, 1);
        tokens[n] = likeliest(logits);
        assert_int_equal(tokens[n], likeliest(whole));
        decoder_read(f.decoder, 0, tokens + n, 1, logits, 1);
    }
    assert_int_equal(decoder_length(f.decoder, 0), decoder_capacity(f.decoder));
    teardown(&f);
}

static void bits_do_not_depend_on_threads_or_other_sequences(void **state)
{
    (void)state;
    enum { MANY = 20, STEPS = 6 };
    struct fixture alone, many;
    setup(&alone, "cpu", &SHAPE, 1, 1);
    setup(&many, "cpu", &SHAPE, 3, MANY);
    size_t sequences[MANY];
    int32_t tokens[MANY];
    real together[MANY * VOCAB], single[VOCAB];
    /* Sequence s starts with s + 1 tokens, sequences taken in another order than their number.
     */
    for (size_t i = 0; i < MANY; i++) {
        sequences[i] = (i * 7) % MANY;
        decoder_read(many.decoder, sequences[i], many.tokens, sequences[i] + 1, NULL, 0);
    }
    for (size_t step = 0; step < STEPS; step++) {
        for (size_t i = 0; i < MANY; i++)
            tokens[i] = (int32_t)((i + step) % VOCAB);
        decoder_step(many.decoder, sequences, tokens, MANY, together);
        for (size_t i = 0; i < MANY; i++) {
            decoder_rewind(alone.decoder, 0, 0);
            decoder_read(alone.decoder, 0, alone.tokens, sequences[i] + 1, NULL, 0);
            for (size_t k = 0; k <= step; k++) {
                int32_t token = (int32_t)((i + k) % VOCAB);
                decoder_read(alone.decoder, 0, &token, 1, single, 1);
            }
            assert_memory_equal(single, together + i * VOCAB, sizeof single);
        }
    }
    teardown(&alone);
    teardown(&many);
}

static void a_copied_or_rewound_sequence_goes_on_as_the_first(void **state)
{
    (void)state;
    struct fixture f;
    real want[VOCAB], got[VOCAB];
    const int32_t wrong[] = {3, 3, 3};
    setup(&f, "cpu", &SHAPE, 2, 3);
    decoder_read(f.decoder, 0, f.tokens, 10, NULL, 0);
    decoder_copy(f.decoder, 2, 0);
    assert_int_equal(decoder_length(f.decoder, 2), 10);
    decoder_read(f.decoder, 0, f.tokens + 10, 1, want, 1);
    decoder_read(f.decoder, 2, wrong, 3, got, 1);
    assert_memory_not_equal(want, got, sizeof want);
    decoder_rewind(f.decoder, 2, 10);
    decoder_read(f.decoder, 2, f.tokens + 10, 1, got, 1);
    assert_memory_equal(want, got, sizeof want);
    teardown(&f);
}

static void a_token_allocates_nothing(void **state)
{
    (void)state;
    struct fixture f;
    real logits[VOCAB];
    setup(&f, "cpu", &SHAPE, 2, 1);
    decoder_read(f.decoder, 0, f.tokens, 2, logits, 1);
    size_t before = mallinfo2().uordblks;
    for (size_t i = 2; i < CONTEXT; i++)
        decoder_read(f.decoder, 0, f.tokens + i, 1, logits, 1);
    assert_int_equal(mallinfo2().uordblks, before);
    teardown(&f);
}

static void wrong_sizes_are_refused_by_name(void **state)
{
    (void)state;
    struct fixture f;
    struct err err = {0};
    struct decoder *decoder;
    setup(&f, "ref", &SHAPE, 1, 1);
    assert_int_equal(decoder_create(&decoder, f.model, 1, CONTEXT + 1, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "capacity of 46"));
    assert_int_equal(decoder_create(&decoder, f.model, 0, CONTEXT, &err), ERR_INVALID);
    assert_non_null(strstr(err.text, "0 sequences"));
    assert_null(decoder);
    const struct ops *ops = f.dev->ops;
    struct ops blunt = *ops; /* a device without these rows */
    blunt.decode_linear = NULL;
    f.dev->ops = &blunt;
    assert_int_equal(decoder_create(&decoder, f.model, 1, CONTEXT, &err), ERR_UNSUPPORTED);
    f.dev->ops = ops;
    teardown(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(products_with_every_pattern_agree_with_the_reference),
        cmocka_unit_test(products_of_both_layouts_agree_with_the_reference),
        cmocka_unit_test(dense_products_agree_with_the_reference),
        cmocka_unit_test(a_row_does_not_read_its_neighbours),
        cmocka_unit_test(attention_over_the_cache_agrees_with_the_reference),
        cmocka_unit_test(norm_and_swiglu_of_rows_agree_with_the_reference),
        cmocka_unit_test(cached_logits_are_those_of_the_whole_pass),
        cmocka_unit_test(greedy_text_is_that_of_whole_passes),
        cmocka_unit_test(bits_do_not_depend_on_threads_or_other_sequences),
        cmocka_unit_test(a_copied_or_rewound_sequence_goes_on_as_the_first),
        cmocka_unit_test(a_token_allocates_nothing),
        cmocka_unit_test(wrong_sizes_are_refused_by_name),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
