/* Collectives for tests: ranks that are threads of one process. A world of one needs no thread.
 */
#ifndef TESTS_ENGINE_COMMS_H
#define TESTS_ENGINE_COMMS_H

#include "engine/comm.h"
#include <assert.h>
#include <pthread.h>
#include <stdbool.h>
#include <string.h>

enum { COMMS_MAX = 8 };

struct comms_world {
    pthread_barrier_t barrier;
    void *data[COMMS_MAX]; /* every rank's argument of the collective in progress */
    int size;
};

struct comms_rank {
    struct comm comm; /* first: a struct comm is cast back */
    struct comms_world *world;
};

static inline struct comms_world *comms_meet(struct comm *comm, void *data)
{
    struct comms_world *world = ((struct comms_rank *)comm)->world;
    world->data[comm->rank] = data;
    pthread_barrier_wait(&world->barrier);
    return world;
}

/* Rank 0 reduces in rank order into its own data, then the others copy. */
#define COMMS_REDUCE(name, type, combine)                                                      \
    static inline int name(struct comm *comm, type *data, size_t count, struct err *err)       \
    {                                                                                          \
        struct comms_world *world = comms_meet(comm, data);                                    \
        (void)err;                                                                             \
        for (int r = 1; comm->rank == 0 && r < world->size; r++) {                             \
            const type *other = world->data[r];                                                \
            for (size_t i = 0; i < count; i++)                                                 \
                data[i] = combine;                                                             \
        }                                                                                      \
        pthread_barrier_wait(&world->barrier);                                                 \
        if (comm->rank != 0)                                                                   \
            memcpy(data, world->data[0], count * sizeof *data);                                \
        pthread_barrier_wait(&world->barrier);                                                 \
        return 0;                                                                              \
    }

COMMS_REDUCE(comms_sum_real, real, data[i] + other[i])
COMMS_REDUCE(comms_sum_double, double, data[i] + other[i])
COMMS_REDUCE(comms_min_u64, uint64_t, data[i] < other[i] ? data[i] : other[i])
COMMS_REDUCE(comms_max_u64, uint64_t, data[i] > other[i] ? data[i] : other[i])

static inline int comms_broadcast(struct comm *comm, void *data, size_t bytes, int root,
                                  struct err *err)
{
    struct comms_world *world = comms_meet(comm, data);
    (void)err;
    if (comm->rank != root)
        memcpy(data, world->data[root], bytes);
    pthread_barrier_wait(&world->barrier);
    return 0;
}

static inline int comms_barrier(struct comm *comm, struct err *err)
{
    (void)err;
    comms_meet(comm, NULL);
    return 0;
}

static const struct comm_ops COMMS_OPS = {.name = "threads",
                                          .sum_real = comms_sum_real,
                                          .sum_double = comms_sum_double,
                                          .min_u64 = comms_min_u64,
                                          .max_u64 = comms_max_u64,
                                          .broadcast = comms_broadcast,
                                          .barrier = comms_barrier};

static inline void comms_init(struct comms_world *world, struct comms_rank *ranks, int size)
{
    assert(size >= 1 && size <= COMMS_MAX);
    *world = (struct comms_world){.size = size};
    pthread_barrier_init(&world->barrier, NULL, (unsigned)size);
    for (int r = 0; r < size; r++)
        ranks[r] = (struct comms_rank){.comm = {.ops = &COMMS_OPS, .rank = r, .size = size},
                                       .world = world};
}

static inline void comms_release(struct comms_world *world)
{
    pthread_barrier_destroy(&world->barrier);
}

#endif
