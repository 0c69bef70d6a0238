/* manifest.json: the names, lengths and XXH3-128 checksums of a folder's other files, written last.
 * {"format": "hebb-manifest-1", "files": [{"name": "...", "bytes": N, "xxh3_128": "32 hex digits"}]} */
#ifndef HEBB_FORMAT_MANIFEST_H
#define HEBB_FORMAT_MANIFEST_H

#include "proto/base/err.h"
#include <stdint.h>

/* Reads the named files of folder, writes and fsyncs folder/manifest.json. *bytes (may be NULL): sum of all. */
int manifest_write(const char *folder, const char *const *names, size_t count, uint64_t *bytes, struct err *err);

/* ERR_NOT_FOUND without a manifest; ERR_CORRUPT names the first file whose length or checksum differs, or that
 * has a name with '/' or a leading '.'. *bytes (may be NULL): sum of all. */
int manifest_verify(const char *folder, uint64_t *bytes, struct err *err);

#endif
