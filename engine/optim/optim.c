#include "engine/optim/optim.h"
#include <string.h>

static const struct optimizer *const OPTIMIZERS[] = {
    &optimizer_adamw,
};

const struct optimizer *const *optimizer_table(size_t *count)
{
    *count = sizeof OPTIMIZERS / sizeof OPTIMIZERS[0];
    return OPTIMIZERS;
}

const struct optimizer *optimizer_find(const char *name)
{
    size_t count = 0;
    const struct optimizer *const *table = optimizer_table(&count);
    for (size_t i = 0; i < count; i++) {
        if (strcmp(table[i]->name, name) == 0)
            return table[i];
    }
    return NULL;
}
