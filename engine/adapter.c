#include "engine/adapter.h"
#include <math.h>

/* Far above any low-rank branch, low enough that products with the model's limits fit. */
enum { RANK_MAX = 1 << 12, GATE_HIDDEN_MAX = 1 << 12 };

const char *const adapter_names[] = {
    [ADAPTER_NONE] = "none",
    [ADAPTER_LORA] = "lora",
    [ADAPTER_COMOLORA] = "comolora",
    NULL,
};

static const size_t PARTS[] = {
    [ADAPTER_NONE] = 0,
    [ADAPTER_LORA] = ADAPTER_BT + 1,
    [ADAPTER_COMOLORA] = ADAPTER_PARTS,
};

enum extent { EXTENT_ONE, EXTENT_RANK, EXTENT_HIDDEN, EXTENT_DIN, EXTENT_DOUT };

static const struct {
    const char *suffix;
    enum extent rows, cols;
    bool random;
} PART[ADAPTER_PARTS] = {
    [ADAPTER_A] = {"lora_A.weight", EXTENT_RANK, EXTENT_DIN, true},
    [ADAPTER_BT] = {"lora_BT.weight", EXTENT_RANK, EXTENT_DOUT, false},
    [ADAPTER_W1] = {"como.W1", EXTENT_HIDDEN, EXTENT_DIN, true},
    [ADAPTER_B1] = {"como.b1", EXTENT_ONE, EXTENT_HIDDEN, false},
    [ADAPTER_W2] = {"como.W2", EXTENT_RANK, EXTENT_HIDDEN, false},
    [ADAPTER_B2] = {"como.b2", EXTENT_ONE, EXTENT_RANK, false},
};

size_t adapter_parts(const struct adapter_shape *shape) { return PARTS[shape->kind]; }

const char *adapter_suffix(enum adapter_part part) { return PART[part].suffix; }

void adapter_extent(const struct adapter_shape *shape, enum adapter_part part, size_t dout,
                    size_t din, size_t *rows, size_t *cols)
{
    const size_t extents[] = {[EXTENT_ONE] = 1,
                              [EXTENT_RANK] = shape->rank,
                              [EXTENT_HIDDEN] = shape->hidden,
                              [EXTENT_DIN] = din,
                              [EXTENT_DOUT] = dout};
    *rows = extents[PART[part].rows];
    *cols = extents[PART[part].cols];
}

bool adapter_decays(enum adapter_part part) { return PART[part].rows != EXTENT_ONE; }

bool adapter_random(enum adapter_part part) { return PART[part].random; }

static int check_gate(const struct adapter_shape *shape, struct err *err)
{
    if (shape->hidden < 1 || shape->hidden > GATE_HIDDEN_MAX)
        return err_set(err, ERR_INVALID, "adapter.hidden is %zu: must be between 1 and %d",
                       shape->hidden, GATE_HIDDEN_MAX);
    if (!isfinite(shape->gamma))
        return err_set(err, ERR_INVALID, "adapter.gamma is %g: must be finite", shape->gamma);
    return 0;
}

int adapter_check(const struct adapter_shape *shape, struct err *err)
{
    if (shape->kind == ADAPTER_NONE)
        return 0;
    if (shape->rank < 1 || shape->rank > RANK_MAX)
        return err_set(err, ERR_INVALID, "adapter.rank is %zu: must be between 1 and %d",
                       shape->rank, RANK_MAX);
    if (!(isfinite(shape->alpha) && shape->alpha > 0))
        return err_set(err, ERR_INVALID, "adapter.alpha is %g: must be positive", shape->alpha);
    if (shape->kind == ADAPTER_COMOLORA)
        return check_gate(shape, err);
    if (shape->hidden != 0)
        return err_set(err, ERR_INVALID, "adapter.hidden is %zu: \"%s\" has no gate",
                       shape->hidden, adapter_names[shape->kind]);
    return 0;
}
