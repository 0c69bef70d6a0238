/* Random secrets, hashes and signatures, by OpenSSL's libcrypto. The only file that includes
 * it. */
#ifndef HEBB_DAEMON_SECRET_H
#define HEBB_DAEMON_SECRET_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>

enum {
    SECRET_HEX_MAX = 65,    /* 32 bytes as lower-case hex and a NUL */
    SECRET_BASE64_MAX = 45, /* 32 bytes as base64 and a NUL */
};

/* 256 random bits. */
int secret_random_hex(char out[SECRET_HEX_MAX], struct err *err);
int secret_random_base64(char out[SECRET_BASE64_MAX], struct err *err);

/* SHA-256 (FIPS 180-4) of text. */
int secret_hash(char out[SECRET_HEX_MAX], const char *text, struct err *err);

/* HMAC-SHA256 (RFC 2104) of the message, as base64. key_base64: the key's bytes in base64. */
int secret_sign(char out[SECRET_BASE64_MAX], const char *key_base64, const void *message,
                size_t len, struct err *err);

/* Whether two texts are equal, in a time that depends on their lengths only. */
bool secret_equal(const char *a, const char *b);

#endif
