/* The index form of an N:M matrix's mask that the cpu kernels read; it lies in w->pack. */
#ifndef HEBB_ENGINE_CPU_PACK_H
#define HEBB_ENGINE_CPU_PACK_H

#include "engine/cpu/cpu.h"

/* Pointers into w->pack and the blocking that goes with them. */
struct cpu_nm cpu_pack_view(const struct nm *w);

#endif
