/* Opening what a request names without leaving a folder: openat2 with RESOLVE_BENEATH,
 * RESOLVE_NO_SYMLINKS and RESOLVE_NO_MAGICLINKS, so that neither "..", absolute paths nor
 * links, also ones made while we look, lead out of it. */
#ifndef HEBB_DAEMON_BENEATH_H
#define HEBB_DAEMON_BENEATH_H

#include "proto/base/err.h"
#include <stddef.h>
#include <stdint.h>

/* Opens path below the folder root for reading. The caller closes *fd. ERR_NOT_FOUND;
 * ERR_INVALID when the path would lead out of root or through a link. */
int beneath_open(int *fd, const char *root, const char *path, struct err *err);

/* The same for a regular file, and its size. */
int beneath_open_file(int *fd, int64_t *size, const char *root, const char *path,
                      struct err *err);

/* Number of existing paths below root that pattern stands for: * ? [...] within a segment.
 * ERR_LIMIT above max; ERR_INVALID for "..", or when a match leads through a link. */
int beneath_glob(const char *root, const char *pattern, size_t max, size_t *count,
                 struct err *err);

#endif
