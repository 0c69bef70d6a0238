/* A test of the CUDA device leaves with ctest's code for skipped, and one line, where there is none. */
#ifndef HEBB_TESTS_CUDA_FIXTURE_H
#define HEBB_TESTS_CUDA_FIXTURE_H

#include "engine/ops.h"
#include <stdio.h>
#include <stdlib.h>

enum { CUDA_SKIP_CODE = 77 };

static inline void cuda_skip_without_device(void)
{
    struct device *dev = NULL;
    struct err err;
    if (device_create(&dev, "cuda", NULL, &err) != 0) {
        printf("skipped: %s\n", err.text);
        exit(CUDA_SKIP_CODE);
    }
    device_destroy(dev);
}

#endif
