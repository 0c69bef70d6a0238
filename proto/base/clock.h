/* Time. Durations come from the monotonic clock, stamps from the wall clock in UTC. */
#ifndef HEBB_BASE_CLOCK_H
#define HEBB_BASE_CLOCK_H

#include <stdint.h>

enum { CLOCK_STAMP_MAX = 32 };

int64_t clock_monotonic_ms(void);
double clock_monotonic_s(void);
int64_t clock_wall_ms(void); /* milliseconds since 1970-01-01 UTC */

/* RFC 3339 with milliseconds, "2026-11-23T01:02:03.456Z". Returns out. */
char *clock_stamp(char out[CLOCK_STAMP_MAX], int64_t wall_ms);

#endif
