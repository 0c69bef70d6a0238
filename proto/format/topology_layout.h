/* The bytes of a topology file, shared by its writer and reader; private to proto/format.
 * docs/formats.md says the same in words. */
#ifndef HEBB_FORMAT_TOPOLOGY_LAYOUT_H
#define HEBB_FORMAT_TOPOLOGY_LAYOUT_H

#include "proto/format/topology.h"
#include <stdbool.h>
#include <stdint.h>

enum {
    TOPOLOGY_VERSION = 1,
    TOPOLOGY_M_MAX = 16,
    TOPOLOGY_ALIGN = 8,
    TOPOLOGY_TRAILER_BYTES = 8,
};

#define TOPOLOGY_MAGIC "HEBBTOP1"

struct topology_header {
    char magic[8];
    uint32_t version;
    uint32_t refresh;
    uint64_t step;
    uint64_t matrices;
    uint64_t bytes; /* of the whole file, trailer included */
    uint64_t reserved[3];
};

struct topology_record {
    char name[TOPOLOGY_NAME_MAX]; /* padded with NUL, at least one */
    uint32_t dout, din, n, m;
    uint64_t hash;
    uint64_t count;
};

_Static_assert(sizeof(struct topology_header) == 64, "a topology file's header has 64 bytes");
_Static_assert(sizeof(struct topology_record) == 128, "a matrix's record has 128 bytes");

/* Groups of a whole matrix, dout * din / m; false unless 1 <= n < m <= 16, m divides din and
 * every group has a 32-bit index. */
bool topology_groups(uint64_t *out, uint32_t dout, uint32_t din, uint32_t n, uint32_t m);

/* folder/masks-start.hbt or folder/refresh-NNNNNN.hbt; out holds FSX_PATH_MAX bytes. */
int topology_path(char *out, const char *folder, uint32_t refresh, struct err *err);

#endif
