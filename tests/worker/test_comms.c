/* The world of one, and the outcome that ranks make together. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "tests/engine/comms.h"
#include "worker/comms.h"
#include <pthread.h>

static void a_world_of_one_changes_nothing(void **state)
{
    (void)state;
    struct comm *comm;
    struct err err = {0};
    real reals[2] = {REAL(1.5), -REAL(2.0)};
    double doubles[1] = {0.25};
    uint64_t words[1] = {UINT64_MAX};
    int failed = -7;
    assert_int_equal(comm_self_create(&comm, &err), 0);
    assert_int_equal(comm->rank, 0);
    assert_int_equal(comm->size, 1);
    assert_int_equal(comm->ops->sum_real(comm, reals, 2, &err), 0);
    assert_int_equal(comm->ops->sum_double(comm, doubles, 1, &err), 0);
    assert_int_equal(comm->ops->min_u64(comm, words, 1, &err), 0);
    assert_int_equal(comm->ops->max_u64(comm, words, 1, &err), 0);
    assert_int_equal(comm->ops->broadcast(comm, words, sizeof words, 0, &err), 0);
    assert_int_equal(comm->ops->barrier(comm, &err), 0);
    assert_true(reals[0] == REAL(1.5) && reals[1] == -REAL(2.0) && doubles[0] == 0.25);
    assert_true(words[0] == UINT64_MAX);
    assert_int_equal(comm_agree(comm, 0, &failed, &err), 0);
    err_set(&err, ERR_CORRUPT, "broken");
    assert_int_equal(comm_agree(comm, ERR_CORRUPT, &failed, &err), ERR_CORRUPT);
    assert_int_equal(failed, 0);
    assert_string_equal(err.text, "broken");
    comm->ops->destroy(comm);
}

struct member {
    struct comms_rank *rank;
    int code; /* what this rank brings */
    int agreed, failed;
    struct err err;
};

static void *agree(void *context)
{
    struct member *member = context;
    if (member->code != 0)
        err_set(&member->err, member->code, "rank %d says so", member->rank->comm.rank);
    member->agreed =
        comm_agree(&member->rank->comm, member->code, &member->failed, &member->err);
    return NULL;
}

static void agree_all(struct member *members, const int *codes, int size)
{
    struct comms_world world;
    static struct comms_rank ranks[COMMS_MAX];
    pthread_t threads[COMMS_MAX];
    comms_init(&world, ranks, size);
    for (int r = 0; r < size; r++) {
        members[r] = (struct member){.rank = &ranks[r], .code = codes[r], .failed = -9};
        assert_int_equal(pthread_create(&threads[r], NULL, agree, &members[r]), 0);
    }
    for (int r = 0; r < size; r++)
        pthread_join(threads[r], NULL);
    comms_release(&world);
}

static void all_ranks_get_the_error_of_the_lowest_that_failed(void **state)
{
    (void)state;
    struct member members[4];
    agree_all(members, (const int[]){0, 0, ERR_CORRUPT, ERR_IO}, 4);
    for (int r = 0; r < 4; r++) {
        assert_int_equal(members[r].agreed, ERR_CORRUPT);
        assert_int_equal(members[r].failed, 2);
        assert_string_equal(members[r].err.text, "rank 2 says so");
    }
}

static void success_everywhere_is_success(void **state)
{
    (void)state;
    struct member members[3];
    agree_all(members, (const int[]){0, 0, 0}, 3);
    for (int r = 0; r < 3; r++)
        assert_int_equal(members[r].agreed, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_world_of_one_changes_nothing),
        cmocka_unit_test(all_ranks_get_the_error_of_the_lowest_that_failed),
        cmocka_unit_test(success_everywhere_is_success),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
