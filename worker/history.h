/* jobs/ID/topology: what each refresh did, from the engine's observer to a file and to the
 * refresh event. Rank 0 only. The lists of changed groups grow with the largest refresh so far;
 * that is the one memory that a run takes after step 1. */
#ifndef HEBB_WORKER_HISTORY_H
#define HEBB_WORKER_HISTORY_H

#include "engine/method.h"
#include "proto/format/topology.h"

struct history {
    char *folder;                     /* jobs/ID/topology; owned */
    const struct model *model;        /* not owned */
    size_t count;                     /* target matrices */
    struct topology_matrix *matrices; /* (count) of the refresh under way */
    struct refresh_stats *stats;      /* (count) */
    size_t *first;                    /* (count) a matrix's place in groups and codes */
    size_t seen;                      /* matrices observed in this refresh */
    uint32_t *groups; /* (capacity) changed groups of all matrices, one after the other */
    uint16_t *codes;  /* (capacity) their new codes */
    size_t used, capacity;
};

/* model: must outlive the history. ERR_NO_MEMORY, ERR_IO (the folder cannot be made). */
int history_create(struct history **out, const char *job, const struct model *model,
                   struct err *err);
void history_destroy(struct history *history);

/* Writes masks-start.hbt from the model's codes. */
int history_start(struct history *history, struct err *err);

/* Removes the files of refreshes after number `refresh`: an earlier attempt got further than
 * its last checkpoint. */
int history_rewind(struct history *history, size_t refresh, struct err *err);

/* What trainer_step is given. */
struct refresh_observer history_observer(struct history *history);

/* Publishes the refresh that was just observed and makes room for the next. stats and matrices
 * stay valid until then, and a call that failed may be made again. */
int history_publish(struct history *history, size_t refresh, size_t step, struct err *err);

#endif
