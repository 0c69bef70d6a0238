/* Ranks: every rank computes the same masks, and masks_agree and states_agree mend a
 * difference. Ranks are threads here; their collectives meet at a barrier and read each other's
 * memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "engine/agree.h"
#include "refresh_fixture.h"
#include <math.h>
#include <pthread.h>

enum { RANKS = 3, MATRICES = 5 };

struct meeting {
    pthread_barrier_t barrier;
    void *data[RANKS];
    size_t broadcasts; /* counted by rank 0 */
};

struct thread_comm {
    struct comm comm; /* first: a struct comm * is one of these */
    struct meeting *meeting;
};

static struct meeting *meet(struct comm *comm, void *data)
{
    struct meeting *meeting = ((struct thread_comm *)(void *)comm)->meeting;
    meeting->data[comm->rank] = data;
    pthread_barrier_wait(&meeting->barrier);
    return meeting;
}

static int reduce(struct comm *comm, uint64_t *data, size_t count, bool largest)
{
    uint64_t out[64];
    assert_true(count <= sizeof out / sizeof out[0]);
    struct meeting *meeting = meet(comm, data);
    for (size_t i = 0; i < count; i++) {
        out[i] = data[i];
        for (int r = 0; r < comm->size; r++) {
            const uint64_t other = ((const uint64_t *)meeting->data[r])[i];
            if (largest ? other > out[i] : other < out[i])
                out[i] = other;
        }
    }
    pthread_barrier_wait(&meeting->barrier);
    memcpy(data, out, count * sizeof *out);
    return 0;
}

static int least(struct comm *comm, uint64_t *data, size_t count, struct err *err)
{
    (void)err;
    return reduce(comm, data, count, false);
}

static int greatest(struct comm *comm, uint64_t *data, size_t count, struct err *err)
{
    (void)err;
    return reduce(comm, data, count, true);
}

static int broadcast(struct comm *comm, void *data, size_t bytes, int root, struct err *err)
{
    (void)err;
    struct meeting *meeting = meet(comm, data);
    if (comm->rank != root)
        memcpy(data, meeting->data[root], bytes);
    if (comm->rank == 0)
        meeting->broadcasts++;
    pthread_barrier_wait(&meeting->barrier);
    return 0;
}

static int sum(struct comm *comm, double *data, size_t count, struct err *err)
{
    (void)err;
    assert_int_equal(count, 1);
    struct meeting *meeting = meet(comm, data);
    double all = 0;
    for (int r = 0; r < comm->size; r++)
        all += *(const double *)meeting->data[r];
    pthread_barrier_wait(&meeting->barrier);
    *data = all;
    return 0;
}

static const struct comm_ops thread_ops = {.name = "threads",
                                           .sum_double = sum,
                                           .min_u64 = least,
                                           .max_u64 = greatest,
                                           .broadcast = broadcast};

struct rank {
    struct fixture f;
    struct thread_comm comm;
    bool whole; /* states_agree, with explored */
    uint8_t explored[8];
    struct agreement found;
    int rc;
};

static size_t shapes[MATRICES][2] = {{16, 16}, {8, 24}, {24, 8}, {40, 16}, {5, 64}};

static void world_init_of(struct rank *ranks, struct meeting *meeting, int size)
{
    memset(meeting, 0, sizeof *meeting);
    pthread_barrier_init(&meeting->barrier, NULL, (unsigned)size);
    for (int r = 0; r < size; r++) {
        fixture_init(&ranks[r].f, 2, 4, shapes, MATRICES, 1, 5);
        fixture_draw(&ranks[r].f, 5, 0, 24);
        ranks[r].whole = false;
        memset(ranks[r].explored, 0x55, sizeof ranks[r].explored);
        ranks[r].comm = (struct thread_comm){
            .comm = {.ops = &thread_ops, .rank = r, .size = size}, .meeting = meeting};
    }
}

static void world_init(struct rank *ranks, struct meeting *meeting)
{
    world_init_of(ranks, meeting, RANKS);
}

static void world_release(struct rank *ranks, struct meeting *meeting)
{
    for (int r = 0; r < ranks[0].comm.comm.size; r++)
        fixture_release(&ranks[r].f);
    pthread_barrier_destroy(&meeting->barrier);
}

static void *agree(void *context)
{
    struct rank *rank = context;
    struct err err;
    rank->rc = rank->whole ? states_agree(&rank->f.model, &rank->comm.comm, rank->explored,
                                          sizeof rank->explored, &rank->found, &err)
                           : masks_agree(&rank->f.model, &rank->comm.comm, &rank->found, &err);
    return NULL;
}

static void agree_all(struct rank *ranks)
{
    pthread_t threads[RANKS];
    const int size = ranks[0].comm.comm.size;
    for (int r = 0; r < size; r++)
        assert_int_equal(pthread_create(&threads[r], NULL, agree, &ranks[r]), 0);
    for (int r = 0; r < size; r++) {
        pthread_join(threads[r], NULL);
        assert_int_equal(ranks[r].rc, 0);
        assert_true(ranks[r].found.compared);
        assert_int_equal(ranks[r].found.root, ranks[0].found.root);
        assert_int_equal(ranks[r].found.repaired, ranks[0].found.repaired);
    }
}

static void assert_same(const struct fixture *a, const struct fixture *b)
{
    assert_memory_equal(a->model.codes, b->model.codes, a->model.code_count * sizeof(uint16_t));
    assert_memory_equal(a->model.weights, b->model.weights, a->model.count * sizeof(real));
    assert_memory_equal(a->model.moment1, b->model.moment1, a->model.count * sizeof(real));
    assert_memory_equal(a->model.moment2, b->model.moment2, a->model.count * sizeof(real));
    if (a->model.ages)
        assert_memory_equal(a->model.ages, b->model.ages, a->model.count * sizeof(uint16_t));
}

static void ranks_refresh_to_the_same_masks_without_a_word(void **state)
{
    (void)state;
    const struct method_config config = {.name = "chts24",
                                         .seed = 5,
                                         .steps = 100,
                                         .interval = 10,
                                         .until = 0.75,
                                         .zeta = 0.4,
                                         .soft = true,
                                         .temperature_start = 1,
                                         .temperature_end = 9};
    struct rank ranks[RANKS];
    struct meeting meeting;
    struct err err;
    world_init(ranks, &meeting);
    for (int r = 0; r < RANKS; r++) {
        struct refresher *refresher;
        assert_int_equal(refresher_create(&refresher, &config, &ranks[r].f.model, &err), 0);
        for (size_t refresh = 1; refresh <= 5; refresh++)
            assert_int_equal(refresher_run(refresher, refresh * 10, refresh, NULL, &err), 0);
        refresher_destroy(refresher);
        assert_same(&ranks[0].f, &ranks[r].f);
    }
    fixture_repacks = 0;
    agree_all(ranks);
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(ranks[r].found.repaired, 0);
    assert_int_equal(meeting.broadcasts, 0);
    assert_int_equal(fixture_repacks, 0);
    world_release(ranks, &meeting);
}

/* Another pattern and other numbers in one group of the matrix. */
static void spoil(struct fixture *f, size_t matrix, size_t group)
{
    struct nm *w = &f->nms[matrix];
    const size_t at = f->params[matrix + 1].offset + group * w->n;
    w->codes[group] = (uint16_t)((w->codes[group] + 1) % w->patterns->count);
    f->model.weights[at] += 1;
    f->model.moment1[at] += 1;
    f->model.moment2[at + 1] += 1;
    if (f->model.ages)
        f->model.ages[at + 1] += 1;
}

static void ages_init(struct rank *ranks)
{
    for (int r = 0; r < RANKS; r++) {
        ranks[r].f.model.ages = calloc(ranks[r].f.model.count, sizeof(uint16_t));
        assert_non_null(ranks[r].f.model.ages);
    }
}

static void a_mask_that_differs_is_taken_from_the_majority(void **state)
{
    (void)state;
    static const struct {
        int rank;
        size_t matrix;
    } faults[][2] = {{{1, 0}, {1, 0}}, {{0, 2}, {0, 2}}, {{1, 1}, {2, 4}}, {{1, 3}, {2, 3}}};
    /* In the last all three differ: rank 0, which is right here. */
    static const size_t repaired[] = {1, 1, 2, 1};
    static const int root[] = {0, 1, 0, 0};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct rank ranks[RANKS];
        struct meeting meeting;
        struct fixture right;
        world_init(ranks, &meeting);
        fixture_init(&right, 2, 4, shapes, MATRICES, 1, 5);
        fixture_draw(&right, 5, 0, 24);
        if (i % 2 == 0) /* an optimizer that keeps ages of links, and one that does not */
            ages_init(ranks);
        for (size_t k = 0; k < 2; k++)
            spoil(&ranks[faults[i][k].rank].f, faults[i][k].matrix, 3 + k);
        agree_all(ranks);
        for (int r = 0; r < RANKS; r++) {
            assert_int_equal(ranks[r].found.repaired, repaired[i]);
            assert_int_equal(ranks[r].found.root, root[i]);
            assert_memory_equal(ranks[r].f.model.codes, right.model.codes,
                                right.model.code_count * sizeof(uint16_t));
            assert_memory_equal(ranks[r].f.model.weights, right.model.weights,
                                right.model.count * sizeof(real));
            assert_same(&ranks[0].f, &ranks[r].f);
        }
        agree_all(ranks);
        assert_int_equal(ranks[1].found.repaired, 0);
        fixture_release(&right);
        world_release(ranks, &meeting);
    }
}

/* ---- the whole state ---- */

static void flip(void *memory, size_t bit)
{
    ((uint8_t *)memory)[bit / 8] ^= (uint8_t)(1u << bit % 8);
}

/* One bit of one of the slabs, ages or maps of a rank. */
static void flip_of(struct rank *rank, int which)
{
    struct model *model = &rank->f.model;
    const struct param *last = &model->params[MATRICES];
    const size_t bit = (last->offset + 7) * sizeof(real) * 8 + 5;
    if (which == 0)
        flip(model->weights, bit);
    else if (which == 1)
        flip(model->moment1, bit);
    else if (which == 2)
        flip(model->moment2, bit);
    else if (which == 3)
        flip(model->ages, (last->offset + 2) * sizeof(uint16_t) * 8 + 1);
    else if (which == 4)
        flip(model->weights, 40); /* a dense parameter */
    else
        flip(rank->explored, 17);
}

static void one_flipped_bit_anywhere_is_found_and_mended(void **state)
{
    (void)state;
    static const char *const names[] = {
        "model.layers.0.matrix4.weight", "model.layers.0.matrix4.weight",
        "model.layers.0.matrix4.weight", "model.layers.0.matrix4.weight",
        "model.embed_tokens.weight",     "refresh_age, explored"};
    for (int which = 0; which < 6; which++) {
        for (int bad = 0; bad < RANKS; bad++) {
            struct rank ranks[RANKS];
            struct meeting meeting;
            world_init(ranks, &meeting);
            ages_init(ranks);
            for (int r = 0; r < RANKS; r++)
                ranks[r].whole = true;
            agree_all(ranks);
            assert_int_equal(ranks[0].found.repaired, 0);
            flip_of(&ranks[bad], which);
            struct rank *good = &ranks[(bad + 1) % RANKS];
            real *weights = malloc(good->f.model.count * sizeof *weights);
            assert_non_null(weights);
            memcpy(weights, good->f.model.weights, good->f.model.count * sizeof *weights);
            agree_all(ranks);
            for (int r = 0; r < RANKS; r++) {
                assert_int_equal(ranks[r].found.repaired, 1);
                assert_int_equal(ranks[r].found.root, bad == 0 ? 1 : 0);
                assert_string_equal(ranks[r].found.first, names[which]);
                assert_memory_equal(ranks[r].f.model.weights, weights,
                                    good->f.model.count * sizeof *weights);
                assert_memory_equal(ranks[r].explored, good->explored, sizeof good->explored);
                assert_same(&good->f, &ranks[r].f);
            }
            free(weights);
            world_release(ranks, &meeting);
        }
    }
}

static void of_two_ranks_the_one_with_finite_numbers_is_right(void **state)
{
    (void)state;
    for (int bad = 0; bad < 2; bad++) {
        struct rank ranks[2];
        struct meeting meeting;
        world_init_of(ranks, &meeting, 2);
        ranks[0].whole = ranks[1].whole = true;
        ranks[bad].f.model.weights[20] = (real)NAN;
        agree_all(ranks);
        assert_int_equal(ranks[0].found.root, 1 - bad);
        assert_true(isfinite(ranks[0].f.model.weights[20]));
        assert_same(&ranks[0].f, &ranks[1].f);
        ranks[1].f.model.weights[20] += 1; /* nobody knows: rank 0 */
        agree_all(ranks);
        assert_int_equal(ranks[0].found.root, 0);
        assert_same(&ranks[0].f, &ranks[1].f);
        world_release(ranks, &meeting);
    }
}

static int gone(struct comm *comm, uint64_t *data, size_t count, struct err *err)
{
    (void)comm;
    (void)data;
    (void)count;
    return err_set(err, ERR_NETWORK, "rank 2 is gone");
}

static void a_failed_collective_is_reported(void **state)
{
    (void)state;
    static const struct comm_ops broken = {.name = "broken", .min_u64 = gone, .max_u64 = gone};
    struct comm comm = {.ops = &broken, .rank = 0, .size = 2};
    struct fixture f;
    struct err err;
    struct agreement found = {.repaired = 7};
    fixture_init(&f, 2, 4, shapes, MATRICES, 1, 5);
    assert_int_equal(masks_agree(&f.model, &comm, &found, &err), ERR_NETWORK);
    assert_string_equal(err.text, "rank 2 is gone");
    assert_int_equal(found.repaired, 0);
    comm.size = 1; /* alone, nobody is asked */
    assert_int_equal(masks_agree(&f.model, &comm, &found, &err), 0);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_refresh_to_the_same_masks_without_a_word),
        cmocka_unit_test(a_mask_that_differs_is_taken_from_the_majority),
        cmocka_unit_test(one_flipped_bit_anywhere_is_found_and_mended),
        cmocka_unit_test(of_two_ranks_the_one_with_finite_numbers_is_right),
        cmocka_unit_test(a_failed_collective_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
