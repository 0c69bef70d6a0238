/* Hashes of memory (XXH3). Not against someone who makes collisions on purpose. */
#ifndef HEBB_FORMAT_DIGEST_H
#define HEBB_FORMAT_DIGEST_H

#include <stddef.h>
#include <stdint.h>

enum { DIGEST_TEXT_MAX = 33 };

/* The XXH3-128 as text, what names a content (idempotency of submissions, static files): 32
 * lower-case hex digits and a NUL. Returns out. */
char *digest_text(char out[DIGEST_TEXT_MAX], const void *data, size_t len);

/* The XXH3-64 with this seed; a sequence is hashed by giving each call the result of the one
 * before it. */
uint64_t digest_u64(const void *data, size_t len, uint64_t seed);

#endif
