#include "proto/base/suggest.h"

#include <string.h>

static unsigned suggest_min(unsigned a, unsigned b) { return a < b ? a : b; }

/* Optimal string alignment distance. */
static unsigned suggest_distance(const char *a, size_t a_len, const char *b, size_t b_len)
{
    unsigned rows[3][SUGGEST_NAME_MAX + 1] = {0};
    for (size_t j = 0; j <= b_len; j++) {
        rows[0][j] = (unsigned)j;
    }
    for (size_t i = 1; i <= a_len; i++) {
        unsigned *now = rows[i % 3], *up = rows[(i + 2) % 3], *up2 = rows[(i + 1) % 3];
        now[0] = (unsigned)i;
        for (size_t j = 1; j <= b_len; j++) {
            unsigned replace = up[j - 1] + (a[i - 1] != b[j - 1] ? 1U : 0U);
            now[j] = suggest_min(replace, suggest_min(up[j], now[j - 1]) + 1);
            if (i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1]) {
                now[j] = suggest_min(now[j], up2[j - 2] + 1);
            }
        }
    }
    return rows[a_len % 3][b_len];
}

void suggest_offer(struct suggestion *best, const char *name, const char *candidate)
{
    size_t name_len = strlen(name), len = strlen(candidate);
    if (name_len > SUGGEST_NAME_MAX || len > SUGGEST_NAME_MAX) {
        return;
    }
    unsigned distance = suggest_distance(name, name_len, candidate, len);
    unsigned limit = name_len < 6 ? 1 : (unsigned)(name_len / 3);
    if (distance <= limit && (!best->name || distance < best->distance)) {
        best->name = candidate;
        best->distance = distance;
    }
}
