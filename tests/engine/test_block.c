/* The block (transposable) layout: its table, initial masks, legality, projection and refresh.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "refresh_fixture.h"

enum { CASES = 2000, POSITIONS = NM_BLOCK * NM_BLOCK, MASKS = 1 << POSITIONS };

static bool legal_block(unsigned mask, unsigned n)
{
    for (unsigned i = 0; i < NM_BLOCK; i++) {
        unsigned row = 0, column = 0;
        for (unsigned j = 0; j < NM_BLOCK; j++) {
            row += mask >> (NM_BLOCK * i + j) & 1;
            column += mask >> (NM_BLOCK * j + i) & 1;
        }
        if (row != n || column != n)
            return false;
    }
    return true;
}

static struct pattern_table *table_of(unsigned n, unsigned m)
{
    struct pattern_table *table;
    assert_int_equal(pattern_table_create(&table, n, m, NULL), 0);
    return table;
}

static void block_table_lists_every_legal_block_once_in_order(void **state)
{
    (void)state;
    static const size_t counts[] = {0, 24, 90, 24};
    for (unsigned n = 1; n < NM_BLOCK; n++) {
        struct pattern_table *table = table_of(n, NM_BLOCK);
        const struct block_table *blocks = table->blocks;
        size_t legal = 0;
        assert_int_equal(blocks->count, counts[n]);
        for (unsigned mask = 0; mask < MASKS; mask++) {
            if (!legal_block(mask, n))
                continue;
            assert_int_equal(blocks->mask[legal], mask);
            for (unsigned r = 0; r < NM_BLOCK; r++)
                assert_int_equal(table->mask[blocks->code[legal][r]],
                                 mask >> NM_BLOCK * r & 15);
            legal++;
        }
        assert_int_equal(legal, blocks->count);
        pattern_table_destroy(table);
    }
    struct pattern_table *other = table_of(2, 8);
    assert_null(other->blocks);
    pattern_table_destroy(other);
}

/* chi-square above the 0.999 quantile; the seed is fixed, so it never wavers. */
static void initial_blocks_are_legal_and_uniform(void **state)
{
    (void)state;
    static const double limits[] = {0, 49.73, 136.0, 49.73}; /* 23, 89, 23 degrees of freedom */
    enum { ROWS = 400, COLS = 400, BLOCKS = ROWS / NM_BLOCK * COLS / NM_BLOCK };
    for (unsigned n = 1; n < NM_BLOCK; n++) {
        struct pattern_table *table = table_of(n, NM_BLOCK);
        uint16_t *codes = calloc((size_t)ROWS * COLS / NM_BLOCK, sizeof *codes);
        assert_non_null(codes);
        struct nm w = {.dout = ROWS,
                       .din = COLS,
                       .n = n,
                       .m = NM_BLOCK,
                       .layout = NM_LAYOUT_BLOCK,
                       .patterns = table,
                       .codes = codes};
        nm_init_mask(&w, 42, 3);
        assert_int_equal(nm_check(&w, NULL), 0);
        size_t bins[NM_BLOCKS_MAX] = {0};
        for (size_t o = 0; o < ROWS; o += NM_BLOCK)
            for (size_t g = 0; g < nm_groups(&w); g++) {
                size_t p = 0;
                while (table->blocks->mask[p] != nm_block_mask(&w, o, g))
                    p++;
                bins[p]++;
            }
        const double mean = (double)BLOCKS / (double)table->blocks->count;
        double chi = 0;
        for (size_t p = 0; p < table->blocks->count; p++)
            chi += ((double)bins[p] - mean) * ((double)bins[p] - mean) / mean;
        assert_true(chi < limits[n]);
        /* A range of rows draws what the whole draws. */
        uint16_t *part = calloc((size_t)ROWS * COLS / NM_BLOCK, sizeof *part);
        assert_non_null(part);
        w.codes = part;
        nm_init_mask_rows(&w, 42, 3, 64, 128);
        nm_init_mask_rows(&w, 42, 3, 0, 64);
        nm_init_mask_rows(&w, 42, 3, 128, ROWS);
        assert_memory_equal(part, codes, (size_t)ROWS * COLS / NM_BLOCK * sizeof *codes);
        free(part);
        free(codes);
        pattern_table_destroy(table);
    }
}

static void check_looks_at_columns_too(void **state)
{
    (void)state;
    struct pattern_table *table = table_of(1, NM_BLOCK);
    uint16_t codes[2 * NM_BLOCK * 2] = {0, 3, 1, 2, 2, 1, 3, 0, 1, 0, 0, 1, 3, 2, 2, 3};
    struct nm w = {.dout = 8,
                   .din = 8,
                   .n = 1,
                   .m = NM_BLOCK,
                   .layout = NM_LAYOUT_BLOCK,
                   .patterns = table,
                   .codes = codes};
    struct err err = {0};
    assert_int_equal(nm_check(&w, &err), 0);
    codes[13] = 0; /* row 6, second group: legal as a row */
    assert_int_equal(nm_check(&w, &err), ERR_CORRUPT);
    assert_string_equal(err.text, "block at row 4 group 1: 2 links in column 0, not 1");
    w.layout = NM_LAYOUT_ROW;
    assert_int_equal(nm_check(&w, &err), 0);
    w.layout = NM_LAYOUT_BLOCK;
    codes[13] = 4;
    assert_int_equal(nm_check(&w, &err), ERR_CORRUPT);
    assert_string_equal(err.text, "row 6 group 1: code 4 is not below 4, the 1:4 patterns");
    pattern_table_destroy(table);
}

/* All 2^16 masks, the boosted sum over all positions. Scores are small whole numbers: every sum
 * is exact and equal sums are common. */
static unsigned best_by_force(const double *score, unsigned survivors, unsigned n, size_t *ties)
{
    static const double boost = 1e6; /* above any sum of scores */
    unsigned best = 0;
    double most = -1;
    size_t equal = 0;
    for (unsigned mask = 0; mask < MASKS; mask++) {
        if ((unsigned)__builtin_popcount(mask) != n * NM_BLOCK || !legal_block(mask, n))
            continue;
        double sum = 0;
        for (unsigned i = 0; i < POSITIONS; i++)
            if (mask >> i & 1)
                sum += score[i] + (survivors >> i & 1 ? boost : 0);
        equal = sum > most ? 0 : equal + (sum == most);
        if (sum > most) {
            most = sum;
            best = mask;
        }
    }
    *ties += equal > 0;
    return best;
}

static void block_projection_is_the_best_legal_block_of_all(void **state)
{
    (void)state;
    struct philox stream = {.seed = 6, .purpose = PHILOX_GENERATE};
    size_t ties = 0, moved = 0;
    for (unsigned n = 1; n < NM_BLOCK; n++) {
        struct pattern_table *table = table_of(n, NM_BLOCK);
        const struct block_table *blocks = table->blocks;
        for (unsigned repeat = 0; repeat < 300; repeat++) {
            double score[POSITIONS];
            for (unsigned i = 0; i < POSITIONS; i++)
                score[i] = philox_u32(&stream, stream.round++) % (repeat % 2 ? 4 : 1000);
            const unsigned old =
                blocks->mask[philox_u32(&stream, stream.round++) % blocks->count];
            unsigned survivors = old & philox_u32(&stream, stream.round++);
            if (repeat % 3 == 0)
                survivors &= philox_u32(&stream, stream.round++);
            const size_t best = project_block(score, (uint16_t)survivors, blocks);
            assert_int_equal(blocks->mask[best], best_by_force(score, survivors, n, &ties));
            moved += blocks->mask[best] != old;
        }
        pattern_table_destroy(table);
    }
    assert_true(ties > 50 && moved > 300);
}

struct observed {
    const struct nm *w;
    uint16_t *before;
    struct refresh_stats stats;
};

static int observe(void *context, size_t target, const struct nm *w, const uint16_t *before,
                   const struct refresh_stats *stats, struct err *err)
{
    (void)err;
    struct observed *o = context;
    assert_int_equal(target, 0);
    memcpy(o->before, before, w->dout * nm_groups(w) * sizeof *before);
    o->stats = *stats;
    return 0;
}

/* What must hold after a refresh of one matrix; *moved: blocks that changed. */
static void assert_refreshed(const struct fixture *f, const struct refresher *refresher,
                             const struct observed *seen, size_t *moved)
{
    const struct nm *w = &f->nms[0];
    const size_t groups = nm_groups(w);
    size_t changed_blocks = 0, changed_groups = 0, removed = 0;
    assert_int_equal(nm_check(w, NULL), 0);
    for (size_t o = 0; o < w->dout; o += NM_BLOCK)
        for (size_t g = 0; g < groups; g++) {
            bool changed = false, lost = false;
            for (size_t i = o * groups + g; i < (o + NM_BLOCK) * groups; i += groups) {
                const unsigned old = w->patterns->mask[seen->before[i]],
                               now = w->patterns->mask[w->codes[i]];
                const unsigned left =
                    seen->stats.removed > 0 ? refresher->scratch.survivors[i] : old;
                assert_int_equal(left & ~old, 0); /* survivors come from the old mask, */
                assert_int_equal(left & ~now, 0); /* and all are in the new one */
                removed += (size_t)__builtin_popcount(old & ~left);
                changed_groups += old != now;
                changed |= old != now;
                lost |= left != old;
            }
            assert_true(lost || !changed);
            changed_blocks += changed;
        }
    assert_int_equal(seen->stats.removed, removed);
    assert_int_equal(seen->stats.changed_groups, changed_groups);
    assert_int_equal(seen->stats.changed_blocks, changed_blocks);
    assert_int_equal(seen->stats.blocks, w->dout / NM_BLOCK * groups);
    *moved += changed_blocks;
}

static void refresh_keeps_every_block_legal_and_every_survivor(void **state)
{
    (void)state;
    static const char *const names[] = {"set", "chts24", "chtsnm"};
    size_t moved = 0;
    for (uint64_t number = 0; number < CASES; number++) {
        struct philox s = {.seed = number, .purpose = PHILOX_GENERATE};
        const unsigned n = 1 + philox_u32(&s, 0) % 3;
        size_t shape[1][2] = {
            {NM_BLOCK * (1 + philox_u32(&s, 1) % 18), NM_BLOCK * (1 + philox_u32(&s, 2) % 9)}};
        const struct method_config config = {
            .name = names[philox_u32(&s, 3) % 3],
            .seed = number,
            .steps = 100,
            .interval = 10,
            .until = 0.75,
            .zeta = (double)(philox_u32(&s, 4) % 11) / 10,
            .removal = (enum removal_rule)(philox_u32(&s, 5) % 2),
            .soft = philox_u32(&s, 6) % 2,
            .temperature_start = 1,
            .temperature_end = 9,
            .score = (enum score_rule)(philox_u32(&s, 7) % 3),
            .repair = (enum repair_rule)(philox_u32(&s, 8) % 3),
        };
        struct fixture f;
        struct refresher *refresher;
        fixture_init_layout(&f, n, NM_BLOCK, NM_LAYOUT_BLOCK, shape, 1, 1, number);
        fixture_draw(&f, number, 0, number % 2 ? 24 : 3);
        assert_int_equal(refresher_create(&refresher, &config, &f.model, NULL), 0);
        struct observed seen = {.before = calloc(f.model.code_count, sizeof(uint16_t))};
        assert_non_null(seen.before);
        const struct refresh_observer observer = {.context = &seen, .matrix = observe};
        for (size_t refresh = 1; refresh <= 2; refresh++) {
            real *dense = calloc(shape[0][0] * shape[0][1], sizeof *dense);
            assert_non_null(dense);
            nm_to_dense(&f.nms[0], dense);
            assert_int_equal(refresher_run(refresher, refresh * 10, refresh, &observer, NULL),
                             0);
            assert_refreshed(&f, refresher, &seen, &moved);
            for (size_t i = 0; i < nm_count(&f.nms[0]); i++) { /* values follow their links */
                const size_t position = fixture_position(&f.nms[0], i);
                const bool kept = fixture_active(&f.nms[0], seen.before, position);
                assert_true(f.nms[0].values[i] == (kept ? dense[position] : 0));
            }
            free(dense);
        }
        free(seen.before);
        refresher_destroy(refresher);
        fixture_release(&f);
    }
    assert_true(moved > CASES);
}

static void revisitation_is_refused_in_the_block_layout(void **state)
{
    (void)state;
    size_t shape[1][2] = {{8, 16}};
    struct fixture f;
    struct refresher *refresher;
    struct err err = {0};
    struct method_config config = {.name = "chtsnm", .mpr = 0.5};
    fixture_init_layout(&f, 1, NM_BLOCK, NM_LAYOUT_BLOCK, shape, 1, 1, 1);
    assert_int_equal(refresher_create(&refresher, &config, &f.model, &err), ERR_INVALID);
    assert_string_equal(err.text, "sparsity.mpr is 0.5: motif pattern revisitation is for the "
                                  "layout row; in the layout block it must be 0");
    config.name = "chts24"; /* fixes mpr at 0 itself */
    assert_int_equal(refresher_create(&refresher, &config, &f.model, &err), 0);
    refresher_destroy(refresher);
    fixture_release(&f);
}

static void expect_fault(const struct model_shape *shape, const char *text)
{
    struct err err = {0};
    assert_int_equal(model_shape_check(shape, &err), ERR_INVALID);
    assert_string_equal(err.text, text);
}

static void shapes_that_hold_no_blocks_are_refused_by_name(void **state)
{
    (void)state;
    const struct model_shape good = {.hidden = 24,
                                     .intermediate = 40,
                                     .layers = 1,
                                     .heads = 12,
                                     .kv_heads = 2,
                                     .vocab = 10,
                                     .context = 8,
                                     .rope_theta = 10000,
                                     .norm_eps = 1e-6,
                                     .n = 2,
                                     .m = 4,
                                     .layout = NM_LAYOUT_BLOCK};
    assert_int_equal(model_shape_check(&good, NULL), 0);
    struct model_shape shape = good;
    shape.m = 8;
    expect_fault(&shape,
                 "sparsity.m is 8: the layout block has blocks of 4 x 4, so m must be 4");
    shape = good;
    shape.kv_heads = 1;
    expect_fault(&shape,
                 "model.kv_heads is 1: kv_heads * hidden / heads = 2 must be a multiple "
                 "of 4 in the layout block");
    shape.layout = NM_LAYOUT_ROW;
    assert_int_equal(model_shape_check(&shape, NULL), 0);
}

static void initial_model_is_legal_both_ways(void **state)
{
    (void)state;
    const struct model_shape shape = {.hidden = 72,
                                      .intermediate = 104,
                                      .layers = 2,
                                      .heads = 6,
                                      .kv_heads = 2,
                                      .vocab = 10,
                                      .context = 8,
                                      .rope_theta = 10000,
                                      .norm_eps = 1e-6,
                                      .n = 2,
                                      .m = 4,
                                      .layout = NM_LAYOUT_BLOCK};
    struct device *dev;
    struct model *model;
    assert_int_equal(device_create(&dev, "cpu", NULL, NULL), 0);
    assert_int_equal(model_create(&model, dev, &shape, 1, 8, false, NULL), 0);
    model_init(model, 7);
    size_t target = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        struct nm *w = model->params[i].nm;
        if (!w)
            continue;
        assert_int_equal(nm_check(w, NULL), 0);
        const uint64_t hash = nm_mask_hash(w);
        nm_init_mask(w, 7, (uint32_t)target++); /* the same draw as a model's */
        assert_true(nm_mask_hash(w) == hash);
    }
    assert_int_equal(target, 2 * MODEL_TARGETS_PER_LAYER);
    model_destroy(model);
    device_destroy(dev);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(block_table_lists_every_legal_block_once_in_order),
        cmocka_unit_test(initial_blocks_are_legal_and_uniform),
        cmocka_unit_test(check_looks_at_columns_too),
        cmocka_unit_test(block_projection_is_the_best_legal_block_of_all),
        cmocka_unit_test(refresh_keeps_every_block_legal_and_every_survivor),
        cmocka_unit_test(revisitation_is_refused_in_the_block_layout),
        cmocka_unit_test(shapes_that_hold_no_blocks_are_refused_by_name),
        cmocka_unit_test(initial_model_is_legal_both_ways),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
