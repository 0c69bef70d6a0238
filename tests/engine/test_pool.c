/* The thread pool: every task once, by threads of the pool, whatever the counts. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
/* cmocka needs those first */
#include <cmocka.h>

#include "engine/pool.h"
#include <stdlib.h>
#include <unistd.h>

struct counters {
    unsigned threads;
    unsigned *done;        /* (tasks) */
    unsigned wrong_thread; /* written by at most one thread in a run that passes */
};

static void count_task(void *context, size_t task, unsigned thread)
{
    struct counters *counters = context;
    counters->done[task]++; /* a task done twice at once would be a race that TSan reports */
    if (thread >= counters->threads)
        counters->wrong_thread++;
}

static void check_run(struct pool *pool, size_t tasks)
{
    struct counters counters = {.threads = pool_threads(pool)};
    counters.done = calloc(tasks + 1, sizeof *counters.done);
    assert_non_null(counters.done);
    pool_run(pool, tasks, count_task, &counters);
    for (size_t i = 0; i < tasks; i++)
        assert_int_equal(counters.done[i], 1);
    assert_int_equal(counters.done[tasks], 0);
    assert_int_equal(counters.wrong_thread, 0);
    free(counters.done);
}

static void every_task_is_done_once(void **state)
{
    (void)state;
    static const unsigned threads[] = {1, 2, 3, 8};
    static const size_t tasks[] = {0, 1, 2, 3, 7, 64, 1000};
    for (size_t i = 0; i < sizeof threads / sizeof threads[0]; i++) {
        struct pool *pool = NULL;
        assert_int_equal(pool_create(&pool, threads[i], NULL), 0);
        assert_int_equal(pool_threads(pool), threads[i]);
        for (size_t j = 0; j < sizeof tasks / sizeof tasks[0]; j++)
            check_run(pool, tasks[j]);
        pool_destroy(pool);
    }
}

static void many_short_jobs_follow_each_other(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    assert_int_equal(pool_create(&pool, 3, NULL), 0);
    for (int i = 0; i < 500; i++)
        check_run(pool, (size_t)(i % 9));
    pool_destroy(pool);
}

static void sleeping_workers_wake_up(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    assert_int_equal(pool_create(&pool, 4, NULL), 0);
    for (int i = 0; i < 5; i++) {
        usleep(5000); /* long after the workers stopped spinning */
        check_run(pool, 50);
    }
    pool_destroy(pool);
}

static void slow_task(void *context, size_t task, unsigned thread)
{
    (void)thread;
    if (task == 1)
        usleep(20000);
    ((int *)context)[task] = 1;
}

static void run_returns_after_the_slowest_task(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    assert_int_equal(pool_create(&pool, 2, NULL), 0);
    int done[2] = {0, 0};
    pool_run(pool, 2, slow_task, done);
    assert_int_equal(done[0] + done[1], 2);
    pool_destroy(pool);
}

static void without_a_pool_the_caller_does_all(void **state)
{
    (void)state;
    assert_int_equal(pool_threads(NULL), 1);
    check_run(NULL, 10);
    pool_destroy(NULL);
}

static void thread_counts_out_of_range_are_refused(void **state)
{
    (void)state;
    struct pool *pool = NULL;
    struct err err;
    assert_int_equal(pool_create(&pool, 0, &err), ERR_INVALID);
    assert_null(pool);
    assert_string_equal(err.text, "threads 0: must be 1 to 256");
    assert_int_equal(pool_create(&pool, POOL_THREADS_MAX + 1, &err), ERR_INVALID);
    assert_null(pool);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_task_is_done_once),
        cmocka_unit_test(many_short_jobs_follow_each_other),
        cmocka_unit_test(sleeping_workers_wake_up),
        cmocka_unit_test(run_returns_after_the_slowest_task),
        cmocka_unit_test(without_a_pool_the_caller_does_all),
        cmocka_unit_test(thread_counts_out_of_range_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
