/* Topology files, as they are and with a checksum made to fit, so that the fields behind it are
 * reached. */
#include "proto/format/topology.h"
#include "tests/fuzz/fuzz.h"
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { TRAILER = 8 };

static void read_one(const void *data, size_t size)
{
    struct topology_file file;
    struct err err = {0};
    int rc = topology_read(&file, fuzz_file(data, size), &err);
    FUZZ_CHECK((rc == 0) == (file.matrices != NULL) && (rc == 0 || err.text[0] != '\0'));
    if (rc)
        return;
    fuzz_accepted++;
    for (size_t i = 0; i < file.count; i++) {
        const struct topology_matrix *matrix = &file.matrices[i];
        uint64_t groups = (uint64_t)matrix->dout * (matrix->din / matrix->m);
        FUZZ_CHECK(matrix->count <= groups && strlen(matrix->name) < TOPOLOGY_NAME_MAX);
        FUZZ_CHECK((file.refresh == 0) == (matrix->groups == NULL));
        fuzz_touch(matrix->codes, matrix->count * sizeof(*matrix->codes));
        for (size_t g = 0; matrix->groups && g < matrix->count; g++)
            FUZZ_CHECK(matrix->groups[g] < groups);
    }
    topology_release(&file);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    read_one(data, size);
    if (size < TRAILER)
        return 0;
    uint8_t *fixed = malloc(size);
    FUZZ_CHECK(fixed != NULL);
    memcpy(fixed, data, size);
    uint64_t hash = XXH3_64bits(fixed, size - TRAILER);
    memcpy(fixed + size - TRAILER, &hash, sizeof(hash));
    read_one(fixed, size);
    free(fixed);
    return 0;
}
