/* The XXH3-128 of a block of memory as text: what names a content (idempotency of submissions,
 * static files). Not against someone who makes collisions on purpose. */
#ifndef HEBB_FORMAT_DIGEST_H
#define HEBB_FORMAT_DIGEST_H

#include <stddef.h>

enum { DIGEST_TEXT_MAX = 33 };

/* 32 lower-case hex digits and a NUL. Returns out. */
char *digest_text(char out[DIGEST_TEXT_MAX], const void *data, size_t len);

#endif
