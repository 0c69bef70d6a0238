/* The index form of an N:M matrix's mask that the cpu kernels read; it lies in w->pack. */
#ifndef HEBB_ENGINE_CPU_PACK_H
#define HEBB_ENGINE_CPU_PACK_H

#include "engine/cpu/cpu.h"

/* Pointers into w->pack and the blocking that goes with them. */
struct cpu_nm cpu_pack_view(const struct nm *w);

static inline size_t cpu_pack_strips(const struct cpu_nm *w)
{
    return cpu_blocks(w->din, CPU_STRIP * w->block);
}

/* Where the values of a block of rows and a strip begin in the order of w->backward. */
size_t cpu_pack_start(const struct cpu_nm *w, size_t block, size_t strip);

/* Copies those values from w->values to out + cpu_pack_start. */
void cpu_pack_values(const struct cpu_nm *w, float *out, size_t block, size_t strip);

#endif
