#include "proto/base/clock.h"

#include <stdio.h>
#include <time.h>

static int64_t clock_ms(clockid_t id)
{
    struct timespec now;
    clock_gettime(id, &now);
    return (int64_t)now.tv_sec * 1000 + now.tv_nsec / 1000000;
}

int64_t clock_monotonic_ms(void) { return clock_ms(CLOCK_MONOTONIC); }

double clock_monotonic_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

int64_t clock_wall_ms(void) { return clock_ms(CLOCK_REALTIME); }

char *clock_stamp(char out[CLOCK_STAMP_MAX], int64_t wall_ms)
{
    int64_t rest = wall_ms % 1000;
    if (rest < 0) {
        rest += 1000;
    }
    time_t seconds = (time_t)((wall_ms - rest) / 1000);
    struct tm utc = {0};
    gmtime_r(&seconds, &utc);
    size_t len = strftime(out, CLOCK_STAMP_MAX, "%Y-%m-%dT%H:%M:%S", &utc);
    snprintf(out + len, CLOCK_STAMP_MAX - len, ".%03dZ", (int)rest);
    return out;
}
