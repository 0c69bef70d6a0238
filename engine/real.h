/* The engine's number type. The product is built with float; the tests build the same sources with
 * HEBB_REAL_DOUBLE to check gradients by finite differences. */
#ifndef HEBB_ENGINE_REAL_H
#define HEBB_ENGINE_REAL_H

#ifdef HEBB_REAL_DOUBLE
typedef double real;
#define REAL(x) (x)
#define real_sqrt sqrt
#define real_exp exp
#define real_log log
#define real_abs fabs
#define real_tanh tanh
#else
typedef float real;
#define REAL(x) (x##f)
#define real_sqrt sqrtf
#define real_exp expf
#define real_log logf
#define real_abs fabsf
#define real_tanh tanhf
#endif

#endif
