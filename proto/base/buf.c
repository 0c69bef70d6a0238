#include "proto/base/buf.h"

#include "proto/base/mem.h"
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BUF_CAP_MIN = 256 };

void buf_init(struct buf *buf, size_t max) { *buf = (struct buf){.max = max}; }

void buf_release(struct buf *buf)
{
    free(buf->data);
    *buf = (struct buf){.max = buf->max};
}

void buf_clear(struct buf *buf)
{
    buf->len = 0;
    buf->failed = false;
    if (buf->data) {
        buf->data[0] = '\0';
    }
}

/* Room for more bytes and the NUL; false sets failed. */
static bool buf_reserve(struct buf *buf, size_t more)
{
    size_t need;
    if (buf->failed || !size_add(&need, buf->len, more) || need > buf->max ||
        !size_add(&need, need, 1)) {
        buf->failed = true;
        return false;
    }
    if (need <= buf->cap) {
        return true;
    }
    size_t cap = buf->cap < BUF_CAP_MIN ? BUF_CAP_MIN : buf->cap;
    while (cap < need) {
        if (!size_mul(&cap, cap, 2)) {
            cap = need;
        }
    }
    char *data = realloc(buf->data, cap);
    if (!data) {
        buf->failed = true;
        return false;
    }
    buf->data = data;
    buf->cap = cap;
    return true;
}

void buf_add(struct buf *buf, const void *data, size_t len)
{
    if (!buf_reserve(buf, len)) {
        return;
    }
    if (len > 0) {
        memcpy(buf->data + buf->len, data, len);
    }
    buf->len += len;
    buf->data[buf->len] = '\0';
}

void buf_puts(struct buf *buf, const char *text) { buf_add(buf, text, strlen(text)); }

void buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args, again;
    va_start(args, format);
    va_copy(again, args);
    int len = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (len < 0) {
        buf->failed = true;
    } else if (buf_reserve(buf, (size_t)len)) {
        vsnprintf(buf->data + buf->len, (size_t)len + 1, format, again);
        buf->len += (size_t)len;
    }
    va_end(again);
}

char *buf_detach(struct buf *buf)
{
    char *text = NULL;
    if (!buf->failed) {
        text = buf->data ? buf->data : calloc(1, 1);
        buf->data = NULL;
    }
    buf_release(buf);
    return text;
}
