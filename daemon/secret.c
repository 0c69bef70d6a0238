#include "daemon/secret.h"
#include <limits.h>
#include <openssl/crypto.h>
#include <openssl/evp.h>
#include <openssl/hmac.h>
#include <openssl/rand.h>
#include <string.h>

enum { BYTES = 32, KEY_BYTES_MAX = 96 };

static void to_hex(char out[SECRET_HEX_MAX], const unsigned char bytes[BYTES])
{
    static const char digits[] = "0123456789abcdef";
    for (int i = 0; i < BYTES; i++) {
        out[2 * i] = digits[bytes[i] >> 4];
        out[2 * i + 1] = digits[bytes[i] & 15];
    }
    out[2 * BYTES] = '\0';
}

static int random_bytes(unsigned char bytes[BYTES], struct err *err)
{
    if (RAND_bytes(bytes, BYTES) != 1)
        return err_set(err, ERR_INTERNAL, "libcrypto has no random numbers");
    return 0;
}

int secret_random_hex(char out[SECRET_HEX_MAX], struct err *err)
{
    unsigned char bytes[BYTES];
    int code = random_bytes(bytes, err);
    if (code == 0)
        to_hex(out, bytes);
    return code;
}

int secret_random_base64(char out[SECRET_BASE64_MAX], struct err *err)
{
    unsigned char bytes[BYTES];
    int code = random_bytes(bytes, err);
    if (code == 0)
        EVP_EncodeBlock((unsigned char *)out, bytes, BYTES);
    return code;
}

int secret_hash(char out[SECRET_HEX_MAX], const char *text, struct err *err)
{
    unsigned char digest[EVP_MAX_MD_SIZE];
    unsigned int len = 0;
    if (EVP_Digest(text, strlen(text), digest, &len, EVP_sha256(), NULL) != 1 || len != BYTES)
        return err_set(err, ERR_INTERNAL, "libcrypto refuses SHA-256");
    to_hex(out, digest);
    return 0;
}

int secret_sign(char out[SECRET_BASE64_MAX], const char *key_base64, const void *message,
                size_t len, struct err *err)
{
    unsigned char key[KEY_BYTES_MAX], digest[EVP_MAX_MD_SIZE];
    unsigned int digest_len = 0;
    size_t text_len = strlen(key_base64), padding = 0;
    while (padding < 2 && text_len > padding && key_base64[text_len - 1 - padding] == '=')
        padding++;
    if (text_len == 0 || text_len % 4 != 0 || text_len / 4 * 3 > sizeof key)
        return err_set(err, ERR_INVALID, "a signing key is not base64 of 1 to %d bytes",
                       (int)KEY_BYTES_MAX);
    int key_len =
        EVP_DecodeBlock(key, (const unsigned char *)key_base64, (int)text_len) - (int)padding;
    if (key_len <= 0)
        return err_set(err, ERR_INVALID, "a signing key is not base64");
    const unsigned char *done =
        HMAC(EVP_sha256(), key, key_len, message, len, digest, &digest_len);
    OPENSSL_cleanse(key, sizeof key);
    if (done == NULL || digest_len != BYTES)
        return err_set(err, ERR_INTERNAL, "libcrypto refuses HMAC-SHA256");
    EVP_EncodeBlock((unsigned char *)out, digest, BYTES);
    return 0;
}

bool secret_equal(const char *a, const char *b)
{
    size_t len = strlen(a);
    return len == strlen(b) && CRYPTO_memcmp(a, b, len) == 0;
}
