/* The tables of the C(m, n) legal patterns of a group, and of the legal 4x4 blocks. */
#include "engine/nm.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <stdlib.h>

enum { CODE_NONE = 0xffff };

static size_t choose(unsigned m, unsigned n)
{
    size_t c = 1;
    for (unsigned i = 1; i <= n; i++)
        c = c * (m - n + i) /
            i; /* exact: a product of i successive numbers is divisible by i! */
    return c;
}

static void fill(struct pattern_table *table)
{
    size_t p = 0;
    for (unsigned mask = 0; mask < 1U << table->m; mask++) {
        table->code_of[mask] = CODE_NONE;
        if ((unsigned)__builtin_popcount(mask) != table->n)
            continue;
        table->mask[p] = (uint16_t)mask;
        table->code_of[mask] = (uint16_t)p;
        uint8_t *column = table->column + p * table->n;
        for (unsigned j = 0; j < table->m; j++)
            if (mask >> j & 1)
                *column++ = (uint8_t)j;
        p++;
    }
    assert(p == table->count);
}

static bool columns_legal(unsigned mask, unsigned n)
{
    for (unsigned c = 0; c < NM_BLOCK; c++)
        if ((unsigned)__builtin_popcount(mask & 0x1111U << c) != n)
            return false;
    return true;
}

/* All choices of four row patterns, the last row slowest: ascending masks. */
static void fill_blocks(struct block_table *blocks, const struct pattern_table *table)
{
    const size_t count = table->count;
    for (size_t i = 0; i < count * count * count * count; i++) {
        size_t code[NM_BLOCK] = {i % count, i / count % count, i / count / count % count,
                                 i / count / count / count};
        unsigned mask = 0;
        for (unsigned r = 0; r < NM_BLOCK; r++)
            mask |= (unsigned)table->mask[code[r]] << NM_BLOCK * r;
        if (!columns_legal(mask, table->n))
            continue;
        assert(blocks->count < NM_BLOCKS_MAX);
        blocks->mask[blocks->count] = (uint16_t)mask;
        for (unsigned r = 0; r < NM_BLOCK; r++)
            blocks->code[blocks->count][r] = (uint16_t)code[r];
        blocks->count++;
    }
}

int pattern_table_create(struct pattern_table **out, unsigned n, unsigned m, struct err *err)
{
    *out = NULL;
    if (m > NM_M_MAX || n < 1 || n >= m)
        return err_set(err, ERR_INVALID, "pattern %u:%u: needs 1 <= N < M <= %d", n, m,
                       NM_M_MAX);
    struct pattern_table *table = mem_zeroed(1, sizeof *table);
    if (!table)
        return err_set(err, ERR_NO_MEMORY, "pattern %u:%u: no memory", n, m);
    table->n = n;
    table->m = m;
    table->count = choose(m, n);
    assert(table->count <= NM_PATTERNS_MAX);
    table->mask = mem_zeroed(table->count, sizeof *table->mask);
    table->code_of = mem_zeroed((size_t)1 << m, sizeof *table->code_of);
    table->column = mem_zeroed(table->count * n, sizeof *table->column);
    if (m == NM_BLOCK)
        table->blocks = mem_zeroed(1, sizeof *table->blocks);
    if (!table->mask || !table->code_of || !table->column ||
        (m == NM_BLOCK && !table->blocks)) {
        pattern_table_destroy(table);
        return err_set(err, ERR_NO_MEMORY, "pattern %u:%u: no memory for %zu patterns", n, m,
                       choose(m, n));
    }
    fill(table);
    if (table->blocks)
        fill_blocks(table->blocks, table);
    *out = table;
    return 0;
}

void pattern_table_destroy(struct pattern_table *table)
{
    if (!table)
        return;
    free(table->mask);
    free(table->code_of);
    free(table->column);
    free(table->blocks);
    free(table);
}
