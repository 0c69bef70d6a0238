/* "did you mean": the known name that is nearest to an unknown one. */
#ifndef HEBB_BASE_SUGGEST_H
#define HEBB_BASE_SUGGEST_H

enum { SUGGEST_NAME_MAX = 64 };

struct suggestion {
    const char *name; /* the nearest so far; NULL: none is near */
    unsigned distance;
};

/* Offers candidate for name. It is taken when its edit distance (insert, delete, replace, swap of
 * neighbours) is smaller than of those before and at most a third of name's length, or 1. Start with
 * a zeroed struct. Names longer than SUGGEST_NAME_MAX are not compared. */
void suggest_offer(struct suggestion *best, const char *name, const char *candidate);

#endif
