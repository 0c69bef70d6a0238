/* A growing byte buffer with a cap. The content always ends with a NUL that len does not count. */
#ifndef HEBB_BASE_BUF_H
#define HEBB_BASE_BUF_H

#include <stdbool.h>
#include <stddef.h>

struct buf {
    char *data;   /* owned; NULL while empty */
    size_t len;   /* bytes in use */
    size_t cap;   /* bytes allocated */
    size_t max;   /* limit of len; appends past it fail and set failed */
    bool failed;  /* an append failed; later appends are ignored */
};

void buf_init(struct buf *buf, size_t max);
void buf_release(struct buf *buf);
void buf_clear(struct buf *buf); /* len = 0, memory kept, failed reset */

/* Appends; on overflow of max or lack of memory sets failed and leaves the content as it was. */
void buf_add(struct buf *buf, const void *data, size_t len);
void buf_puts(struct buf *buf, const char *text);
void buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));

/* The content as a malloc'd string that the caller frees; buf is empty afterwards. NULL if failed. */
char *buf_detach(struct buf *buf);

#endif
