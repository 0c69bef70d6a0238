/* Workers sleep on a condition variable between jobs and spin for a moment first, because the
 * jobs of one training step follow each other within microseconds. Tasks are handed out by an
 * atomic counter: which thread does a task may vary, what the task computes may not. */
#include "engine/pool.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdlib.h>
#include <string.h>

enum { POOL_SPIN_MAX = 2000 }; /* about 20 to 60 us before a thread goes to sleep */

struct worker {
    struct pool *pool;
    pthread_t thread;
    unsigned index; /* 1 .. threads - 1; 0 is the caller */
};

struct pool {
    unsigned threads;
    unsigned started; /* workers that pool_destroy must join */
    struct worker *workers;

    pthread_mutex_t lock;
    pthread_cond_t wake; /* job changed */
    pthread_cond_t idle; /* busy reached 0 */
    atomic_ulong job;    /* number of the current job; written under lock */
    atomic_uint busy;    /* workers that have not finished the current job */
    bool stop;           /* written before job is raised */

    /* The current job; written before `job` is raised, read after it was seen to change. */
    void (*fn)(void *context, size_t task, unsigned thread);
    void *context;
    size_t tasks;
    atomic_size_t next;
    bool running; /* guards against reentry */
};

static void cpu_relax(void)
{
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#endif
}

static void pool_work(struct pool *pool, unsigned thread)
{
    for (;;) {
        size_t task = atomic_fetch_add_explicit(&pool->next, 1, memory_order_relaxed);
        if (task >= pool->tasks)
            return;
        pool->fn(pool->context, task, thread);
    }
}

/* Returns when the job number is no longer `seen`, and the new one. */
static unsigned long pool_wait_job(struct pool *pool, unsigned long seen)
{
    unsigned long job;
    for (int spin = 0; spin < POOL_SPIN_MAX; spin++) {
        job = atomic_load_explicit(&pool->job, memory_order_acquire);
        if (job != seen)
            return job;
        cpu_relax();
    }
    pthread_mutex_lock(&pool->lock);
    while ((job = atomic_load_explicit(&pool->job, memory_order_acquire)) == seen)
        pthread_cond_wait(&pool->wake, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
    return job;
}

static void pool_wait_idle(struct pool *pool)
{
    for (int spin = 0; spin < POOL_SPIN_MAX; spin++) {
        if (atomic_load_explicit(&pool->busy, memory_order_acquire) == 0)
            return;
        cpu_relax();
    }
    pthread_mutex_lock(&pool->lock);
    while (atomic_load_explicit(&pool->busy, memory_order_acquire) != 0)
        pthread_cond_wait(&pool->idle, &pool->lock);
    pthread_mutex_unlock(&pool->lock);
}

static void *pool_worker(void *argument)
{
    struct worker *worker = argument;
    struct pool *pool = worker->pool;
    unsigned long seen = 0;
    for (;;) {
        seen = pool_wait_job(pool, seen);
        if (pool->stop)
            return NULL;
        pool_work(pool, worker->index);
        if (atomic_fetch_sub_explicit(&pool->busy, 1, memory_order_acq_rel) == 1) {
            pthread_mutex_lock(&pool->lock);
            pthread_cond_signal(&pool->idle);
            pthread_mutex_unlock(&pool->lock);
        }
    }
}

static void pool_raise_job(struct pool *pool)
{
    pthread_mutex_lock(&pool->lock);
    atomic_fetch_add_explicit(&pool->job, 1, memory_order_release);
    pthread_cond_broadcast(&pool->wake);
    pthread_mutex_unlock(&pool->lock);
}

int pool_create(struct pool **out, unsigned threads, struct err *err)
{
    *out = NULL;
    if (threads < 1 || threads > POOL_THREADS_MAX)
        return err_set(err, ERR_INVALID, "threads %u: must be 1 to %d", threads,
                       POOL_THREADS_MAX);
    struct pool *pool = mem_zeroed(1, sizeof *pool);
    struct worker *workers = mem_zeroed(threads, sizeof *workers);
    if (!pool || !workers) {
        free(pool);
        free(workers);
        return err_set(err, ERR_NO_MEMORY, "no memory for a pool of %u threads", threads);
    }
    pool->threads = threads;
    pool->workers = workers;
    pthread_mutex_init(&pool->lock, NULL);
    pthread_cond_init(&pool->wake, NULL);
    pthread_cond_init(&pool->idle, NULL);
    for (unsigned i = 1; i < threads; i++) {
        workers[i] = (struct worker){.pool = pool, .index = i};
        int code = pthread_create(&workers[i].thread, NULL, pool_worker, &workers[i]);
        if (code != 0) {
            pool_destroy(pool);
            return err_set(err, ERR_IO, "start thread %u of %u: %s", i + 1, threads,
                           strerror(code));
        }
        pool->started++;
    }
    *out = pool;
    return 0;
}

void pool_destroy(struct pool *pool)
{
    if (!pool)
        return;
    pool->stop = true;
    pool_raise_job(pool);
    for (unsigned i = 1; i <= pool->started; i++)
        pthread_join(pool->workers[i].thread, NULL);
    pthread_cond_destroy(&pool->idle);
    pthread_cond_destroy(&pool->wake);
    pthread_mutex_destroy(&pool->lock);
    free(pool->workers);
    free(pool);
}

unsigned pool_threads(const struct pool *pool) { return pool ? pool->threads : 1; }

void pool_run(struct pool *pool, size_t tasks,
              void (*fn)(void *context, size_t task, unsigned thread), void *context)
{
    if (!pool || pool->threads == 1 || tasks <= 1) {
        for (size_t task = 0; task < tasks; task++)
            fn(context, task, 0);
        return;
    }
    assert(!pool->running && "pool_run is not reentrant");
    pool->running = true;
    pool->fn = fn;
    pool->context = context;
    pool->tasks = tasks;
    atomic_store_explicit(&pool->next, 0, memory_order_relaxed);
    atomic_store_explicit(&pool->busy, pool->threads - 1, memory_order_relaxed);
    pool_raise_job(pool);
    pool_work(pool, 0);
    pool_wait_idle(pool);
    pool->running = false;
}
