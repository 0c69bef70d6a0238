/* What all ranks have alike by construction, compared by hashes, and mended where a fault broke
 * it. */
#ifndef HEBB_ENGINE_AGREE_H
#define HEBB_ENGINE_AGREE_H

#include "engine/comm.h"
#include "engine/model.h"

/* What a comparison found. */
struct agreement {
    bool compared;              /* false: a world of one, or nothing was due */
    size_t repaired;            /* parameters that were not the same on every rank */
    char first[MODEL_NAME_MAX]; /* the first of them; empty: none */
    int root;                   /* the rank that its content was taken from */
};

/* Compares the masks of all N:M matrices over the ranks. Where a hash differs, codes, weights,
 * moments and ages of the matrix are taken from the first rank of the largest group that has
 * the same mask; of groups of one size, from the first all of whose numbers are finite, if
 * there is one. Packs are rebuilt. All ranks call; *out is the same on each. */
int masks_agree(struct model *model, struct comm *comm, struct agreement *out, struct err *err);

/* The same with a hash over codes, weights, moments and ages of every parameter, over the ages
 * of masks, and over `explored` (bytes; the refresher's maps; may be NULL). */
int states_agree(struct model *model, struct comm *comm, void *explored, size_t bytes,
                 struct agreement *out, struct err *err);

#endif
