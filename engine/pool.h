/* The one thread pool. A job is cut into tasks whose number does not depend on the number of
 * threads, and no task reads what another writes: so results have the same bits for any number. */
#ifndef HEBB_ENGINE_POOL_H
#define HEBB_ENGINE_POOL_H

#include "proto/base/err.h"
#include <stddef.h>

enum { POOL_THREADS_MAX = 256 };

struct pool;

/* threads >= 1 counts the caller, which works too. */
int pool_create(struct pool **out, unsigned threads, struct err *err);
void pool_destroy(struct pool *pool);
unsigned pool_threads(const struct pool *pool);

/* Calls fn(context, task, thread) once for every task in [0, tasks), thread in [0, pool_threads),
 * and returns when all are done. Not reentrant. pool may be NULL: the caller does all. */
void pool_run(struct pool *pool, size_t tasks, void (*fn)(void *context, size_t task, unsigned thread),
              void *context);

#endif
