/* Properties of a whole refresh over random shapes, patterns and rules. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "refresh_fixture.h"
#include <math.h>

enum { CASES = 2000, STEPS = 100, INTERVAL = 10 };

struct random_case {
    struct fixture f;
    struct refresher *refresher;
    struct method_config config;
    size_t shape[1][2];
};

static size_t draw(struct philox *stream, size_t low, size_t high)
{
    return low + philox_u32(stream, stream->round++) % (high - low + 1);
}

static void random_case_init(struct random_case *c, uint64_t number)
{
    struct philox stream = {.seed = number, .purpose = PHILOX_GENERATE};
    static const char *const names[] = {"set", "chts24", "chts24", "chtsnm", "chtsnm"};
    struct err err;
    const unsigned m = (unsigned)draw(&stream, 2, NM_M_MAX);
    const unsigned n = (unsigned)draw(&stream, 1, m - 1);
    c->shape[0][0] = draw(&stream, 1, 70);
    c->shape[0][1] = m * draw(&stream, 1, 9);
    c->config = (struct method_config){
        .name = names[draw(&stream, 0, 4)],
        .mpr = (double)draw(&stream, 0, 4) / 4,
        .seed = number,
        .steps = STEPS,
        .interval = INTERVAL,
        .until = 0.75,
        .zeta = (double)draw(&stream, 0, 10) / 10,
        .removal = draw(&stream, 0, 1) ? REMOVAL_MAGNITUDE : REMOVAL_RI,
        .soft = draw(&stream, 0, 1),
        .temperature_start = 1,
        .temperature_end = 9,
        .score = (enum score_rule)draw(&stream, SCORE_CH2_L3N, SCORE_RANDOM),
        .repair = (enum repair_rule)draw(&stream, REPAIR_CHANGED, REPAIR_ALL),
    };
    fixture_init(&c->f, n, m, c->shape, 1, 1, number);
    fixture_draw(&c->f, number, 0, draw(&stream, 0, 1) ? 24 : 3);
    assert_int_equal(refresher_create(&c->refresher, &c->config, &c->f.model, &err), 0);
}

static void random_case_release(struct random_case *c)
{
    refresher_destroy(c->refresher);
    fixture_release(&c->f);
}

/* The state of before a refresh, as dense arrays. */
struct before {
    real *weight; /* (positions) */
    uint16_t *codes;
    struct refresh_stats stats;
    char name[MODEL_NAME_MAX];
};

static int keep_stats(void *context, size_t target, const struct nm *w, const uint16_t *codes,
                      const struct refresh_stats *stats, struct err *err)
{
    (void)err;
    struct before *before = context;
    assert_int_equal(target, 0);
    assert_memory_equal(codes, before->codes, w->dout * nm_groups(w) * sizeof *codes);
    before->stats = *stats;
    snprintf(before->name, sizeof before->name, "%s", stats->name);
    return 0;
}

static void refresh_once(struct random_case *c, struct before *before, size_t step,
                         size_t number)
{
    const struct nm *w = &c->f.nms[0];
    const size_t codes = w->dout * nm_groups(w) * sizeof *w->codes;
    const struct refresh_observer observer = {.context = before, .matrix = keep_stats};
    struct err err;
    before->weight = calloc(w->dout * w->din, sizeof(real));
    before->codes = malloc(codes);
    assert_true(before->weight && before->codes);
    nm_to_dense(w, before->weight);
    memcpy(before->codes, w->codes, codes);
    assert_int_equal(refresher_run(c->refresher, step, number, &observer, &err), 0);
}

static void before_release(struct before *before)
{
    free(before->weight);
    free(before->codes);
}

static void refresh_keeps_every_group_legal_and_every_survivor(void **state)
{
    (void)state;
    for (uint64_t number = 0; number < CASES; number++) {
        struct random_case c;
        struct before before;
        random_case_init(&c, number);
        refresh_once(&c, &before, INTERVAL, 1);
        const struct nm *w = &c.f.nms[0];
        const struct refresh_scratch *scratch = &c.refresher->scratch;
        size_t removed = 0;
        assert_int_equal(nm_check(w, NULL), 0);
        for (size_t i = 0; i < w->dout * nm_groups(w) && before.stats.removed > 0; i++) {
            const unsigned old = w->patterns->mask[before.codes[i]],
                           left = scratch->survivors[i];
            const unsigned now = w->patterns->mask[w->codes[i]];
            assert_int_equal(__builtin_popcount(now), w->n);
            assert_int_equal(left & ~old, 0); /* survivors come from the old mask, */
            assert_int_equal(left & ~now, 0); /* and all are in the new one */
            if (left == old)
                assert_int_equal(w->codes[i], before.codes[i]);
            else if (c.refresher->config.mpr == 1) /* its old pattern was no candidate */
                assert_int_not_equal(w->codes[i], before.codes[i]);
            removed += (size_t)__builtin_popcount(old & ~left);
        }
        assert_int_equal(removed, before.stats.removed);
        before_release(&before);
        random_case_release(&c);
    }
}

static void refresh_moves_weights_and_moments_with_their_links(void **state)
{
    (void)state;
    for (uint64_t number = 0; number < CASES; number++) {
        struct random_case c;
        struct before before;
        random_case_init(&c, number);
        refresh_once(&c, &before, INTERVAL, 1);
        const struct nm *w = &c.f.nms[0];
        const real *m1 = c.f.model.moment1 + c.f.params[1].offset;
        const real *m2 = c.f.model.moment2 + c.f.params[1].offset;
        for (size_t i = 0; i < nm_count(w); i++) {
            const size_t position = fixture_position(w, i);
            const bool kept = fixture_active(w, before.codes, position);
            assert_true(w->values[i] == (kept ? before.weight[position] : 0));
            assert_true(m2[i] == -m1[i]);
            if (c.config.repair == REPAIR_ALL)
                assert_true(m1[i] == 0);
            else if (kept)
                assert_true(m1[i] == (real)(position + 1));
            else if (c.config.repair == REPAIR_CHANGED)
                assert_true(m1[i] == 0);
            else { /* of a link of the same group that was lost */
                const size_t from = (size_t)m1[i] - 1;
                assert_int_equal(from / w->m, position / w->m);
                assert_true(fixture_active(w, before.codes, from));
                assert_false(fixture_active(w, w->codes, from));
            }
        }
        for (size_t i = 0; i < c.f.params[0].count; i++) /* the embedding is left alone */
            assert_true(c.f.model.weights[i] == 0 && c.f.model.moment1[i] == 0);
        before_release(&before);
        random_case_release(&c);
    }
}

static void inherited_moments_are_each_taken_once(void **state)
{
    (void)state;
    for (uint64_t number = 0; number < CASES / 3; number++) {
        struct random_case c;
        struct before before;
        random_case_init(&c, number);
        c.refresher->config.repair = REPAIR_NONE;
        refresh_once(&c, &before, INTERVAL, 1);
        const struct nm *w = &c.f.nms[0];
        const real *moment = c.f.model.moment1 + c.f.params[1].offset;
        for (size_t i = 0; i < w->dout * nm_groups(w); i++) {
            unsigned seen = 0;
            for (size_t k = 0; k < w->n; k++)
                seen |= 1U << ((size_t)moment[i * w->n + k] - 1) % w->m;
            assert_int_equal(seen, w->patterns->mask[before.codes[i]]);
        }
        before_release(&before);
        random_case_release(&c);
    }
}

static void assert_stats(const struct random_case *c, const struct before *before,
                         const uint8_t *ever)
{
    const struct nm *w = &c->f.nms[0];
    const struct refresh_stats *s = &before->stats;
    size_t changed = 0, flipped = 0, explored = 0, dead = 0, patterns[16] = {0};
    for (size_t i = 0; i < w->dout * nm_groups(w); i++) {
        changed += w->codes[i] != before->codes[i];
        if (w->patterns->count <= 16)
            patterns[w->codes[i]]++;
    }
    for (size_t c_in = 0; c_in < w->din; c_in++) {
        bool alive = false;
        for (size_t o = 0; o < w->dout; o++) {
            const size_t position = o * w->din + c_in;
            const bool now = fixture_active(w, w->codes, position);
            alive |= now;
            flipped += now && !fixture_active(w, before->codes, position);
            explored += ever[position];
        }
        dead += !alive;
    }
    assert_int_equal(s->changed_groups, changed);
    assert_true(s->flip_rate == (double)flipped / (double)nm_count(w));
    assert_true(s->density == (double)nm_count(w) / (double)(w->dout * w->din));
    assert_true(s->explored == (double)explored / (double)(w->dout * w->din));
    assert_int_equal(s->dead_columns, dead);
    assert_true(s->hash == nm_mask_hash(w));
    assert_int_equal(s->pattern_count, w->patterns->count <= 16 ? w->patterns->count : 0);
    assert_memory_equal(s->patterns, patterns, sizeof patterns);
    assert_string_equal(before->name, "model.layers.0.matrix0");
}

static void stats_equal_a_plain_count(void **state)
{
    (void)state;
    for (uint64_t number = 0; number < CASES / 3; number++) {
        struct random_case c;
        random_case_init(&c, number);
        const struct nm *w = &c.f.nms[0];
        uint8_t *ever = calloc(w->dout * w->din, 1);
        assert_non_null(ever);
        for (size_t refresh = 1; refresh <= 3; refresh++) {
            struct before before;
            for (size_t i = 0; i < nm_count(w); i++)
                ever[fixture_position(w, i)] = 1;
            refresh_once(&c, &before, refresh * INTERVAL, refresh);
            for (size_t i = 0; i < nm_count(w); i++)
                ever[fixture_position(w, i)] = 1;
            assert_stats(&c, &before, ever);
            size_t bytes;
            const uint8_t *map = refresher_explored(c.refresher, &bytes);
            assert_int_equal(bytes, (w->dout * w->din + 7) / 8);
            for (size_t i = 0; i < 8 * bytes; i++)
                assert_int_equal(map[i / 8] >> i % 8 & 1, i < w->dout * w->din ? ever[i] : 0);
            before_release(&before);
        }
        free(ever);
        random_case_release(&c);
    }
}

static size_t wide_shapes[5][2] = {{96, 96}, {40, 160}, {160, 40}, {1, 8}, {130, 264}};

struct trace {
    struct refresh_stats stats[5 * 8];
    size_t count;
};

static int trace_stats(void *context, size_t target, const struct nm *w, const uint16_t *codes,
                       const struct refresh_stats *stats, struct err *err)
{
    (void)target;
    (void)w;
    (void)codes;
    (void)err;
    struct trace *trace = context;
    trace->stats[trace->count] = *stats;
    trace->stats[trace->count++].name = NULL;
    return 0;
}

static void run_wide(struct fixture *f, struct refresher **refresher, struct trace *trace,
                     const struct method_config *config, unsigned threads)
{
    const struct refresh_observer observer = {.context = trace, .matrix = trace_stats};
    struct err err;
    memset(trace, 0, sizeof *trace);
    fixture_init(f, 2, 8, wide_shapes, 5, threads, 9);
    fixture_draw(f, 9, 0, 24);
    assert_int_equal(refresher_create(refresher, config, &f->model, &err), 0);
    for (size_t refresh = 1; refresh <= 4; refresh++)
        assert_int_equal(
            refresher_run(*refresher, refresh * INTERVAL, refresh, &observer, &err), 0);
}

static void refresh_gives_the_same_bits_for_any_number_of_threads(void **state)
{
    (void)state;
    for (unsigned ri = 0; ri < 2; ri++) {
        const struct method_config config = {.name = "chts24",
                                             .seed = 9,
                                             .steps = STEPS,
                                             .interval = INTERVAL,
                                             .until = 0.75,
                                             .zeta = 0.5,
                                             .soft = true,
                                             .temperature_start = 1,
                                             .temperature_end = 9,
                                             .removal = ri ? REMOVAL_RI : REMOVAL_MAGNITUDE,
                                             .score = ri ? SCORE_CH3_L3N : SCORE_CH2_L3N};
        struct fixture one, many;
        struct refresher *r1, *r2;
        struct trace t1, t2;
        size_t bytes1, bytes2;
        run_wide(&one, &r1, &t1, &config, 1);
        for (unsigned threads = 2; threads <= 7; threads += 5) {
            run_wide(&many, &r2, &t2, &config, threads);
            const struct model *a = &one.model, *b = &many.model;
            assert_memory_equal(a->codes, b->codes, a->code_count * sizeof *a->codes);
            assert_memory_equal(a->weights, b->weights, a->count * sizeof(real));
            assert_memory_equal(a->moment1, b->moment1, a->count * sizeof(real));
            assert_memory_equal(a->moment2, b->moment2, a->count * sizeof(real));
            assert_memory_equal(&t1, &t2, sizeof t1);
            const uint8_t *map = refresher_explored(r1, &bytes1);
            assert_memory_equal(map, refresher_explored(r2, &bytes2), bytes1);
            assert_int_equal(bytes1, bytes2);
            refresher_destroy(r2);
            fixture_release(&many);
        }
        refresher_destroy(r1);
        fixture_release(&one);
    }
}

static void refresh_depends_on_nothing_but_state_and_number(void **state)
{
    (void)state;
    const struct method_config config = {.name = "chts24",
                                         .seed = 9,
                                         .steps = STEPS,
                                         .interval = INTERVAL,
                                         .until = 0.75,
                                         .zeta = 0.5,
                                         .soft = true,
                                         .temperature_start = 1,
                                         .temperature_end = 9};
    struct fixture through, resumed;
    struct refresher *r1, *r2;
    struct trace trace;
    struct err err;
    run_wide(&through, &r1, &trace, &config, 1);
    /* A new refresher that starts from the other's state, as after a resume, goes on as it
     * does. */
    fixture_init(&resumed, 2, 8, wide_shapes, 5, 2, 1);
    memcpy(resumed.model.codes, through.model.codes,
           through.model.code_count * sizeof(uint16_t));
    memcpy(resumed.model.weights, through.model.weights, through.model.count * sizeof(real));
    assert_int_equal(refresher_create(&r2, &config, &resumed.model, &err), 0);
    assert_int_equal(refresher_run(r1, 50, 5, NULL, &err), 0);
    assert_int_equal(refresher_run(r2, 50, 5, NULL, &err), 0);
    assert_memory_equal(resumed.model.codes, through.model.codes,
                        through.model.code_count * sizeof(uint16_t));
    assert_memory_equal(resumed.model.weights, through.model.weights,
                        through.model.count * sizeof(real));
    assert_int_equal(refresher_run(r1, 60, 6, NULL, &err), 0);
    assert_int_equal(refresher_run(r2, 60, 7, NULL, &err), 0);
    assert_memory_not_equal(resumed.model.codes, through.model.codes,
                            through.model.code_count * sizeof(uint16_t));
    refresher_destroy(r1);
    refresher_destroy(r2);
    fixture_release(&through);
    fixture_release(&resumed);
}

static void refresh_repacks_every_matrix(void **state)
{
    (void)state;
    const struct method_config config = {
        .name = "set", .steps = STEPS, .interval = INTERVAL, .until = 1, .zeta = 0.5};
    struct fixture f;
    struct refresher *refresher;
    struct trace trace;
    fixture_repacks = 0;
    run_wide(&f, &refresher, &trace, &config, 1);
    assert_int_equal(fixture_repacks, 5 * 4);
    assert_int_equal(trace.count, 5 * 4);
    refresher_destroy(refresher);
    fixture_release(&f);
}

static int refuse(void *context, size_t target, const struct nm *w, const uint16_t *codes,
                  const struct refresh_stats *stats, struct err *err)
{
    (void)target;
    (void)w;
    (void)codes;
    (void)stats;
    ++*(size_t *)context;
    return err_set(err, ERR_IO, "disk full");
}

static void an_observers_error_ends_the_refresh(void **state)
{
    (void)state;
    const struct method_config config = {
        .name = "set", .steps = STEPS, .interval = INTERVAL, .until = 1, .zeta = 0.5};
    struct fixture f;
    struct refresher *refresher;
    struct err err;
    size_t calls = 0;
    const struct refresh_observer observer = {.context = &calls, .matrix = refuse};
    fixture_init(&f, 2, 8, wide_shapes, 5, 1, 9);
    assert_int_equal(refresher_create(&refresher, &config, &f.model, &err), 0);
    assert_int_equal(refresher_run(refresher, INTERVAL, 1, &observer, &err), ERR_IO);
    assert_string_equal(err.text, "disk full");
    assert_int_equal(calls, 1);
    refresher_destroy(refresher);
    fixture_release(&f);
}

static void weights_that_are_not_finite_leave_legal_groups(void **state)
{
    (void)state;
    for (uint64_t number = 0; number < 200; number++) {
        struct random_case c;
        struct before before;
        random_case_init(&c, number);
        struct nm *w = &c.f.nms[0];
        for (size_t i = 0; i < nm_count(w); i++)
            w->values[i] = i % 3 == 0 ? (real)NAN : i % 3 == 1 ? (real)-INFINITY : 0;
        refresh_once(&c, &before, INTERVAL, 1);
        assert_int_equal(nm_check(w, NULL), 0);
        before_release(&before);
        random_case_release(&c);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refresh_keeps_every_group_legal_and_every_survivor),
        cmocka_unit_test(refresh_moves_weights_and_moments_with_their_links),
        cmocka_unit_test(inherited_moments_are_each_taken_once),
        cmocka_unit_test(stats_equal_a_plain_count),
        cmocka_unit_test(refresh_gives_the_same_bits_for_any_number_of_threads),
        cmocka_unit_test(refresh_depends_on_nothing_but_state_and_number),
        cmocka_unit_test(refresh_repacks_every_matrix),
        cmocka_unit_test(an_observers_error_ends_the_refresh),
        cmocka_unit_test(weights_that_are_not_finite_leave_legal_groups),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
