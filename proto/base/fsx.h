/* Files: whole reads with a cap, atomic publication, folders, locks. */
#ifndef HEBB_BASE_FSX_H
#define HEBB_BASE_FSX_H

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

enum { FSX_PATH_MAX = 4096 };

/* Writes the formatted path; ERR_LIMIT if it would not fit. */
int fsx_path(char out[FSX_PATH_MAX], struct err *err, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

/* Appends a file's content to buf. ERR_NOT_FOUND, ERR_IO, ERR_LIMIT (buf->max). */
int fsx_read(struct buf *buf, const char *path, struct err *err);

/* Writes path.tmp, fsyncs, renames to path, fsyncs the folder: path holds the old bytes or the
 * new ones, never a part. mode as for open(2). */
int fsx_publish(const char *path, const void *data, size_t len, mode_t mode, struct err *err);

/* fsync of a file or folder by path; rename followed by an fsync of the target's folder. */
int fsx_sync(const char *path, struct err *err);
int fsx_rename(const char *from, const char *to, struct err *err);

/* mkdir -p; existing folders are fine. */
int fsx_mkdirs(const char *path, mode_t mode, struct err *err);

/* rm -r without following links; a missing path is fine. */
int fsx_remove_tree(const char *path, struct err *err);

bool fsx_exists(const char *path);

/* Takes an exclusive flock on path (made if missing) and returns its descriptor in *fd.
 * ERR_CONFLICT if another process holds it for longer than 100 ms. The lock lives as long as the
 * descriptor does, in every process that inherits it. The descriptor is close-on-exec: who wants a
 * program to inherit the lock clears FD_CLOEXEC before the exec. */
int fsx_lock(int *fd, const char *path, struct err *err);

/* True in *held if some process holds the lock on path; a missing file is not held. */
int fsx_lock_held(bool *held, const char *path, struct err *err);

/* Full write and read that survive EINTR and short counts. A read past the end is ERR_CORRUPT. */
int fsx_write_all(int fd, const void *data, size_t len, struct err *err);
int fsx_read_at(int fd, void *data, size_t len, uint64_t offset, struct err *err);

#endif
