#include "proto/format/digest.h"

#include <stdio.h>
#include <xxhash.h>

char *digest_text(char out[DIGEST_TEXT_MAX], const void *data, size_t len)
{
    XXH128_hash_t sum = XXH3_128bits(data, len);
    snprintf(out, DIGEST_TEXT_MAX, "%016llx%016llx", (unsigned long long)sum.high64,
             (unsigned long long)sum.low64);
    return out;
}

uint64_t digest_u64(const void *data, size_t len, uint64_t seed)
{
    return XXH3_64bits_withSeed(data, len, seed);
}
