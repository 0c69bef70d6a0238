/* A file mapped for reading, and a file written from front to back with a running checksum: the
 * two ways in which the formats of this folder touch the disk. */
#ifndef HEBB_FORMAT_FILEMAP_H
#define HEBB_FORMAT_FILEMAP_H

#include "proto/base/err.h"
#include <stddef.h>
#include <stdint.h>

/* --- reading --- */
struct filemap {
    const unsigned char *data; /* (bytes), read-only; NULL if the file is empty */
    size_t bytes;
};

/* Maps a regular file whole. ERR_NOT_FOUND, ERR_INVALID (not a regular file), ERR_IO. A file
 * that another process shortens while it is mapped raises SIGBUS, as every mapping does. */
int filemap_open(struct filemap *out, const char *path, struct err *err);
void filemap_close(struct filemap *map); /* zeroes map; a zeroed map is fine */

/* Lets the kernel take the pages of [first, first + bytes) out of this process: for whole-file
 * scans that must not show up as resident memory. The content stays readable. */
void filemap_forget(const struct filemap *map, size_t first, size_t bytes);

/* XXH3-64 of the bytes from `first` on. Forgets them as it goes. */
uint64_t filemap_hash(const struct filemap *map, size_t first);

/* --- writing --- */
struct file_writer;

/* Makes or truncates path, mode 0644. Bytes gather in a buffer of 1 MiB. */
int file_writer_open(struct file_writer **out, const char *path, struct err *err);
int file_writer_add(struct file_writer *writer, const void *data, size_t bytes,
                    struct err *err);

/* XXH3-64 of everything added since the last file_writer_hash_restart (or the start). */
uint64_t file_writer_hash(const struct file_writer *writer);
void file_writer_hash_restart(struct file_writer *writer);

/* Overwrites bytes at the file's front that were added before: a header known only at the end.
 * Flushes. */
int file_writer_patch(struct file_writer *writer, const void *data, size_t bytes,
                      struct err *err);

/* Flushes, fsyncs, closes. Frees writer in every case; on failure the file is unlinked. */
int file_writer_finish(struct file_writer *writer, struct err *err);
void file_writer_abort(struct file_writer *writer); /* frees and unlinks; NULL is fine */

#endif
