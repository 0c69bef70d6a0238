#include "daemon/launcher.h"
#include "daemon/slurm.h"
#include <string.h>

static const struct launcher *const launchers[] = {
    &launcher_local,
    &launcher_slurm,
};

const struct launcher *launcher_find(const char *name)
{
    for (size_t i = 0; i < sizeof launchers / sizeof launchers[0]; i++)
        if (strcmp(launchers[i]->name, name) == 0)
            return launchers[i];
    return NULL;
}
