/* The history of masks: jobs/ID/topology/. masks-start.hbt holds all codes at the start of the run;
 * refresh-NNNNNN.hbt the groups that a refresh changed, per matrix, as (group index, new code). Any mask of the past is the start
 * plus the changes. Each file is published by rename and ends with an XXH3-64 of what is before it.
 * Little-endian; the layout is in docs/formats.md. */
#ifndef HEBB_FORMAT_TOPOLOGY_H
#define HEBB_FORMAT_TOPOLOGY_H

#include "proto/base/err.h"
#include <stddef.h>
#include <stdint.h>

enum { TOPOLOGY_NAME_MAX = 96, TOPOLOGY_MATRICES_MAX = 100000 };

/* XXH3-64 of dout, din, n, m (each as uint64, little-endian) followed by the count codes (each as
 * uint16, little-endian): equal masks have equal hashes. Allocates nothing. engine's nm_mask_hash. */
uint64_t topology_mask_hash(uint64_t dout, uint64_t din, uint64_t n, uint64_t m,
                            const uint16_t *codes, size_t count);

struct topology_matrix {
    char name[TOPOLOGY_NAME_MAX];
    uint32_t dout, din, n, m;
    uint64_t hash;          /* nm_mask_hash after this file */
    size_t count;           /* groups listed; at the start: all of them */
    const uint32_t *groups; /* (count) ascending group indices o * (din / m) + g; NULL at the start: all in order */
    const uint16_t *codes;  /* (count) */
};

/* Writes folder/masks-start.hbt (refresh == 0) or folder/refresh-NNNNNN.hbt, atomically. An existing file is replaced. */
int topology_write(const char *folder, uint32_t refresh, uint64_t step, const struct topology_matrix *matrices,
                   size_t count, struct err *err);

struct topology_file {
    uint32_t refresh;
    uint64_t step;
    struct topology_matrix *matrices;
    size_t count;
    void *memory; /* what the pointers point into */
};
int topology_read(struct topology_file *out, const char *path, struct err *err);
void topology_release(struct topology_file *file);

/* Rebuilds the codes of one matrix after refresh number `refresh` into codes (dout * din / m). */
int topology_rebuild(const char *folder, const char *matrix, uint32_t refresh, uint16_t *codes, size_t count,
                     struct err *err);

#endif
