/* Where the time of a step goes: a table of ops that calls a device's own and counts time,
 * operations and bytes of each. Only a device that was wrapped pays for it. */
#ifndef HEBB_TOOLS_BENCH_TRACE_H
#define HEBB_TOOLS_BENCH_TRACE_H

#include "engine/ops.h"

enum { BENCH_OPS_MAX = 32 };

/* The counts of one op, summed over its calls. flops: what the op must compute (an exponential
 * counts as 20, a division or root as 1); bytes: every operand read or written once. */
struct bench_op {
    const char *name;
    size_t calls;
    double seconds, flops, bytes;
};

/* Must outlive the device's use; the device must not be destroyed while it is wrapped. */
struct bench_trace {
    struct ops ops; /* first: an op finds its trace by the device's table */
    const struct ops *inner;
    struct bench_op rows[BENCH_OPS_MAX];
    size_t count;
};

void bench_trace_begin(struct bench_trace *trace, struct device *dev);
/* Gives the device its own table back. The counts stay. */
void bench_trace_end(struct bench_trace *trace, struct device *dev);
void bench_trace_clear(struct bench_trace *trace);

#endif
