/* Adapters: a small dense branch beside every target matrix W (q, k, v, o, gate, up, down).
 *
 *   lora      y = W x + (alpha / r) B A x                            Hu et al. 2021
 *   comolora  y = W x + (alpha / r) B (m * z),   z = A x,
 *             m = 1 + gamma tanh(W2 silu(W1 x + b1) + b2)            Lyu et al. 2026, 3.3
 *
 * A (r, din), B (dout, r), W1 (h, din), b1 (h), W2 (r, h), b2 (r). Their parameters follow the
 * model's own in its slabs, are dense and trained like everything that is no target. B is kept
 * transposed, (r, dout): then its products are those of a dense layer with few outputs, which
 * are fast. At the start A and W1 are N(0, 1 / din), all else 0: the branch adds 0 and m = 1
 * (the start and alpha = r are our choice; the paper gives neither).
 *
 * Adding an adapter: docs/adding.md. */
#ifndef HEBB_ENGINE_ADAPTER_H
#define HEBB_ENGINE_ADAPTER_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>

enum adapter_kind { ADAPTER_NONE, ADAPTER_LORA, ADAPTER_COMOLORA };

/* Zero: no adapter. hidden and gamma are 0 unless comolora. */
struct adapter_shape {
    enum adapter_kind kind;
    size_t rank, hidden; /* r, h */
    double gamma, alpha;
};

/* The parameters of one branch, in their order. An adapter has the first `parts` of them. */
enum adapter_part {
    ADAPTER_A,
    ADAPTER_BT, /* B transposed */
    ADAPTER_W1,
    ADAPTER_B1,
    ADAPTER_W2,
    ADAPTER_B2,
    ADAPTER_PARTS,
};

/* Names in the order of enum adapter_kind; ends with NULL. */
extern const char *const adapter_names[];

/* Parts of a branch: 0, 2 or 6. */
size_t adapter_parts(const struct adapter_shape *shape);

/* What follows "model.layers.0.self_attn.q_proj." in a part's name: "lora_A.weight". */
const char *adapter_suffix(enum adapter_part part);

/* Rows and columns of a part for a matrix (dout, din); biases: (1, dim). */
void adapter_extent(const struct adapter_shape *shape, enum adapter_part part, size_t dout,
                    size_t din, size_t *rows, size_t *cols);

/* Weight decay applies: matrices, not biases. */
bool adapter_decays(enum adapter_part part);

/* The part starts as N(0, 1 / din), not as 0. */
bool adapter_random(enum adapter_part part);

/* ERR_INVALID names field, value and reason. */
int adapter_check(const struct adapter_shape *shape, struct err *err);

#endif
