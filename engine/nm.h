/* N:M matrices: exactly N of every M contiguous entries of a row are stored.
 *
 * Layout block (transposable, M = 4, dout % 4 == 0): each aligned 4x4 block also holds exactly N in every column, so that W^T
 * is N:M too. It is stored as any other: the four rows' codes of a legal block are legal codes, not the other way round.
 *
 * W is (dout, din). Group g of row o covers columns M*g .. M*g + M-1. Its pattern is a bit mask
 * (bit j = column M*g + j is active); a code is the pattern's place in the table of all C(M, N)
 * patterns, ordered by ascending mask. values holds the active entries of a row group by group,
 * columns ascending. Nothing dense is kept. */
#ifndef HEBB_ENGINE_NM_H
#define HEBB_ENGINE_NM_H

#include "engine/real.h"
#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    NM_M_MAX = 16,
    NM_PATTERNS_MAX = 12870, /* C(16, 8) */
    NM_BLOCK = 4,            /* rows and columns of a block */
    NM_BLOCKS_MAX = 90,
};

enum nm_layout { NM_LAYOUT_ROW, NM_LAYOUT_BLOCK };

/* "row", "block": in the order of enum nm_layout, ends with NULL. */
extern const char *const nm_layout_names[];

/* The legal 4x4 blocks of N:4: 24 for 1:4 and 3:4, 90 for 2:4. */
struct block_table {
    size_t count;
    uint16_t mask[NM_BLOCKS_MAX];             /* bit 4 * row + column; ascending: place = index */
    uint16_t code[NM_BLOCKS_MAX][NM_BLOCK];   /* of the four rows */
};

struct pattern_table {
    unsigned n, m;
    size_t count;          /* C(m, n) */
    uint16_t *mask;        /* (count) ascending */
    uint16_t *code_of;     /* (1 << m): code of a mask, 0xffff if not legal */
    uint8_t *column;       /* (count, n): columns of pattern p inside its group, ascending */
    struct block_table *blocks; /* m == 4, else NULL */
};

/* 1 <= n < m <= NM_M_MAX, else ERR_INVALID. */
int pattern_table_create(struct pattern_table **out, unsigned n, unsigned m, struct err *err);
void pattern_table_destroy(struct pattern_table *table);

/* Pointers into slabs that the model owns; pack belongs to the device (ops->nm_repack). */
struct nm {
    size_t dout, din;      /* din % m == 0 */
    unsigned n, m;
    enum nm_layout layout; /* block: m == 4 and dout % 4 == 0 */
    const struct pattern_table *patterns;
    real *values;          /* (dout, din / m * n) */
    uint16_t *codes;       /* (dout, din / m) */
    void *pack;            /* device-private index form of codes, ops->nm_pack_size bytes */
};

static inline size_t nm_groups(const struct nm *w) { return w->din / w->m; }          /* of a row */
static inline size_t nm_row_values(const struct nm *w) { return w->din / w->m * w->n; }
static inline size_t nm_count(const struct nm *w) { return w->dout * nm_row_values(w); }

/* True if dense position o * din + column is inside the mask. */
static inline bool nm_active(const struct nm *w, size_t position)
{
    const unsigned mask = w->patterns->mask[w->codes[position / w->m]];
    return (mask >> position % w->m & 1U) != 0;
}

/* out (dout, din): the dense form, exact zeros where the mask is zero. */
void nm_to_dense(const struct nm *w, real *out);

/* out (dout, din) bytes: the mask as 0/1. */
void nm_to_mask(const struct nm *w, uint8_t *out);

/* XXH3-64 over dout, din, n, m and the codes: equal masks, equal hashes. */
uint64_t nm_mask_hash(const struct nm *w);

/* ERR_CORRUPT naming the first code that is not below patterns->count, or, in the block layout, the first block with a column
 * that does not hold n. */
int nm_check(const struct nm *w, struct err *err);

/* The rows' masks of the block at row o (o % 4 == 0) and group g: bit 4 * row + column. */
unsigned nm_block_mask(const struct nm *w, size_t o, size_t g);

/* Draws codes uniformly over the legal patterns, without bias, from philox (seed, PHILOX_INIT_MASK, stream,
 * attempt, o * nm_groups + g); in the block layout legal blocks, with index o / 4 * nm_groups + g. Values stay as they are.
 * stream: the matrix's number among the targets. */
void nm_init_mask(struct nm *w, uint64_t seed, uint32_t stream);
/* The same for rows first .. end - 1 only; in the block layout first % 4 == 0 and end % 4 == 0. */
void nm_init_mask_rows(struct nm *w, uint64_t seed, uint32_t stream, size_t first, size_t end);

#endif
