#include "proto/base/mem.h"

#include <assert.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

enum {
    MEM_MAP_MIN = 1 << 20, /* blocks from here on are mapped, so that the kernel zeroes them */
    MEM_MAGIC = 0x4845,
};

/* Precedes every aligned block and fills one alignment unit. */
struct mem_head {
    size_t bytes; /* of the mapping or allocation, head included */
    int magic;
    bool mapped;
};
_Static_assert(sizeof(struct mem_head) <= MEM_ALIGN, "the head fits in front of the block");

bool size_mul(size_t *out, size_t a, size_t b)
{
    size_t product;
    if (__builtin_mul_overflow(a, b, &product)) {
        return false;
    }
    *out = product;
    return true;
}

bool size_add(size_t *out, size_t a, size_t b)
{
    size_t sum;
    if (__builtin_add_overflow(a, b, &sum)) {
        return false;
    }
    *out = sum;
    return true;
}

size_t size_round_up(size_t n, size_t step)
{
    assert(step > 0);
    size_t rest = n % step;
    if (rest == 0) {
        return n;
    }
    size_t out;
    bool fits = size_add(&out, n, step - rest);
    assert(fits);
    return fits ? out : 0;
}

void *mem_zeroed(size_t count, size_t size)
{
    size_t bytes;
    return size_mul(&bytes, count, size) ? calloc(bytes > 0 ? bytes : 1, 1) : NULL;
}

void *mem_aligned(size_t count, size_t size)
{
    size_t bytes;
    if (!size_mul(&bytes, count, size) || !size_add(&bytes, bytes, 2 * (size_t)MEM_ALIGN)) {
        return NULL;
    }
    bytes -= bytes % MEM_ALIGN; /* at least count * size + MEM_ALIGN */
    bool mapped = bytes >= MEM_MAP_MIN;
    void *base;
    if (mapped) {
        base = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (base == MAP_FAILED) {
            return NULL;
        }
    } else {
        base = aligned_alloc(MEM_ALIGN, bytes);
        if (!base) {
            return NULL;
        }
        memset(base, 0, bytes);
    }
    struct mem_head *head = base;
    *head = (struct mem_head){.bytes = bytes, .magic = MEM_MAGIC, .mapped = mapped};
    return (char *)base + MEM_ALIGN;
}

void mem_aligned_free(void *memory)
{
    if (!memory) {
        return;
    }
    struct mem_head *head = (struct mem_head *)(void *)((char *)memory - MEM_ALIGN);
    assert(head->magic == MEM_MAGIC);
    if (head->mapped) {
        munmap(head, head->bytes);
    } else {
        free(head);
    }
}

char *mem_strdup(const char *text) { return text ? strdup(text) : NULL; }
