/* Ranks: every rank computes the same masks, and masks_agree mends a difference. Ranks are
 * threads here; their collectives meet at a barrier and read each other's memory. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "refresh_fixture.h"
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

static const struct comm_ops thread_ops = {
    .name = "threads", .min_u64 = least, .max_u64 = greatest, .broadcast = broadcast};

struct rank {
    struct fixture f;
    struct thread_comm comm;
    size_t repaired;
    int rc;
};

static size_t shapes[MATRICES][2] = {{16, 16}, {8, 24}, {24, 8}, {40, 16}, {5, 64}};

static void world_init(struct rank *ranks, struct meeting *meeting)
{
    memset(meeting, 0, sizeof *meeting);
    pthread_barrier_init(&meeting->barrier, NULL, RANKS);
    for (int r = 0; r < RANKS; r++) {
        fixture_init(&ranks[r].f, 2, 4, shapes, MATRICES, 1, 5);
        fixture_draw(&ranks[r].f, 5, 0, 24);
        ranks[r].comm = (struct thread_comm){
            .comm = {.ops = &thread_ops, .rank = r, .size = RANKS}, .meeting = meeting};
    }
}

static void world_release(struct rank *ranks, struct meeting *meeting)
{
    for (int r = 0; r < RANKS; r++)
        fixture_release(&ranks[r].f);
    pthread_barrier_destroy(&meeting->barrier);
}

static void *agree(void *context)
{
    struct rank *rank = context;
    struct err err;
    rank->rc = masks_agree(&rank->f.model, &rank->comm.comm, &rank->repaired, &err);
    return NULL;
}

static void agree_all(struct rank *ranks)
{
    pthread_t threads[RANKS];
    for (int r = 0; r < RANKS; r++)
        assert_int_equal(pthread_create(&threads[r], NULL, agree, &ranks[r]), 0);
    for (int r = 0; r < RANKS; r++) {
        pthread_join(threads[r], NULL);
        assert_int_equal(ranks[r].rc, 0);
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
        assert_int_equal(ranks[r].repaired, 0);
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

static void a_difference_is_mended_from_rank_0(void **state)
{
    (void)state;
    static const struct {
        int rank;
        size_t matrix;
    } faults[][2] = {{{1, 0}, {1, 0}}, {{0, 2}, {0, 2}}, {{1, 1}, {2, 4}}, {{1, 3}, {2, 3}}};
    static const size_t repaired[] = {1, 1, 2, 1};
    for (size_t i = 0; i < sizeof faults / sizeof faults[0]; i++) {
        struct rank ranks[RANKS];
        struct meeting meeting;
        world_init(ranks, &meeting);
        const bool aged =
            i % 2 == 0; /* an optimizer that keeps ages of links, and one that does not */
        for (int r = 0; aged && r < RANKS; r++) {
            ranks[r].f.model.ages = calloc(ranks[r].f.model.count, sizeof(uint16_t));
            assert_non_null(ranks[r].f.model.ages);
        }
        for (size_t k = 0; k < 2; k++)
            spoil(&ranks[faults[i][k].rank].f, faults[i][k].matrix, 3 + k);
        struct fixture right = ranks[0].f;
        uint16_t *codes = malloc(right.model.code_count * sizeof *codes);
        assert_non_null(codes);
        memcpy(codes, right.model.codes, right.model.code_count * sizeof *codes);
        agree_all(ranks);
        assert_memory_equal(codes, ranks[0].f.model.codes,
                            right.model.code_count * sizeof *codes);
        for (int r = 0; r < RANKS; r++) {
            assert_int_equal(ranks[r].repaired, repaired[i]);
            assert_same(&ranks[0].f, &ranks[r].f);
        }
        /* codes, weights, two moments */
        assert_int_equal(meeting.broadcasts, (aged ? 5 : 4) * repaired[i]);
        agree_all(ranks);
        assert_int_equal(ranks[1].repaired, 0);
        free(codes);
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
    size_t repaired = 7;
    fixture_init(&f, 2, 4, shapes, MATRICES, 1, 5);
    assert_int_equal(masks_agree(&f.model, &comm, &repaired, &err), ERR_NETWORK);
    assert_string_equal(err.text, "rank 2 is gone");
    assert_int_equal(repaired, 0);
    comm.size = 1; /* alone, nobody is asked */
    assert_int_equal(masks_agree(&f.model, &comm, &repaired, &err), 0);
    fixture_release(&f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranks_refresh_to_the_same_masks_without_a_word),
        cmocka_unit_test(a_difference_is_mended_from_rank_0),
        cmocka_unit_test(a_failed_collective_is_reported),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
