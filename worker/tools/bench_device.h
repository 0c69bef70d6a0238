/* The measurements of `hebb bench --device cuda`. */
#ifndef HEBB_TOOLS_BENCH_DEVICE_H
#define HEBB_TOOLS_BENCH_DEVICE_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>

/* Products at the shapes of llama-60m to 1b with `tokens` tokens, dense, 2:4 and 1:4; steps of llama-130m, 350m and 1b with
 * `tokens` tokens a step, random ones. Prints a table, or JSON. */
int bench_device(const char *name, size_t tokens, bool has_products, bool has_steps, bool json,
                 struct err *err);

#endif
