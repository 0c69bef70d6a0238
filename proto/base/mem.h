/* Checked sizes and memory. Every size that comes from input goes through size_mul/size_add
 * before it reaches an allocator. */
#ifndef HEBB_BASE_MEM_H
#define HEBB_BASE_MEM_H

#include <stdbool.h>
#include <stddef.h>

enum { MEM_ALIGN = 64 };

/* *out = a * b or a + b; false, and *out unchanged, on overflow. */
bool size_mul(size_t *out, size_t a, size_t b);
bool size_add(size_t *out, size_t a, size_t b);

/* n rounded up to a multiple of step (> 0); asserts on overflow. */
size_t size_round_up(size_t n, size_t step);

/* Zeroed memory for count elements, NULL on overflow or lack of memory. free() releases it. */
void *mem_zeroed(size_t count, size_t size);

/* The same, aligned to MEM_ALIGN bytes and released by mem_aligned_free; large blocks are zero
 * pages that the kernel gives on first touch. */
void *mem_aligned(size_t count, size_t size);
void mem_aligned_free(void *memory);

/* Copies of strings; NULL for NULL or on lack of memory. The caller frees. */
char *mem_strdup(const char *text);

#endif
