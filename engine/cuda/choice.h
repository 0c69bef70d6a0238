/* Which way an N:M product goes: measured at a shape's first use, then kept for the run. */
#ifndef HEBB_ENGINE_CUDA_CHOICE_H
#define HEBB_ENGINE_CUDA_CHOICE_H

#include <stdbool.h>
#include <stddef.h>

/* Sparse must be faster by this much, so that noise does not decide, and give the dense result: both round to bf16, whose relative
 * step is 2^-8. */
static const double CHOICE_GAIN = 0.03, CHOICE_DIFFERENCE = 1e-2;

struct cuda_choice {
    size_t rows, din, dout;
    unsigned n, m;
    double dense_seconds, sparse_seconds; /* of one product, spreading or compressing included */
    double difference;                    /* of the results, relative; NaN: not compared */
    bool sparse;
};

static inline bool choice_make(double dense_seconds, double sparse_seconds, double difference)
{
    return difference <= CHOICE_DIFFERENCE && sparse_seconds < (1 - CHOICE_GAIN) * dense_seconds;
}

#endif
