#include "engine/method_rules.h"

#include "engine/method.h"

#include <string.h>

const char *const removal_rule_names[] = {
    [REMOVAL_MAGNITUDE] = "magnitude",
    [REMOVAL_RI] = "ri",
    NULL,
};

const char *const score_rule_names[] = {
    [SCORE_CH2_L3N] = "ch2-l3n",
    [SCORE_CH3_L3N] = "ch3-l3n",
    [SCORE_RANDOM] = "random",
    [SCORE_GRADIENT] = "gradient",
    NULL,
};

const char *const repair_rule_names[] = {
    [REPAIR_CHANGED] = "changed",
    [REPAIR_NONE] = "none",
    [REPAIR_ALL] = "all",
    NULL,
};

int rule_find(const char *const *names, const char *name)
{
    for (int i = 0; names[i]; i++) {
        if (strcmp(names[i], name) == 0) {
            return i;
        }
    }
    return -1;
}
