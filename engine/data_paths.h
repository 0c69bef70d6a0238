/* From what a job names (files, folders, globs) to the list of files, in an order that depends
 * on names only. */
#ifndef HEBB_ENGINE_DATA_PATHS_H
#define HEBB_ENGINE_DATA_PATHS_H

#include "proto/base/err.h"
#include <stddef.h>

enum { DATA_FILES_MAX = 1000000 };

struct data_paths {
    char **items; /* owned, each item too */
    size_t count, capacity;
};

/* Entries keep their order. A folder is walked: regular files only, names with a leading '.'
 * and symbolic links are passed over, and its files are sorted bytewise by path. A glob (* ? [,
 * only if no file has that very name) gives its matches, sorted bytewise; folders among them
 * are walked. out holds nothing on failure. ERR_NOT_FOUND: an entry that does not exist, a
 * folder without files, a glob without match. ERR_LIMIT above DATA_FILES_MAX files. ERR_IO:
 * what cannot be read. The text names the entry. */
int data_paths_expand(struct data_paths *out, const char *const *entries, size_t count,
                      struct err *err);
void data_paths_release(struct data_paths *paths);

#endif
