/* The rules of the section /slurm. */
#include "proto/msg/spec_private.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define SOUND(draft, ...) spec_sound(draft, (const char *const[]){__VA_ARGS__, NULL})

/* Names of Slurm's things. They become one argument of sbatch each: nothing in them can be
 * taken for another. */
static void check_slurm_name(struct spec_draft *draft, const char *path, const char *name)
{
    static const char good[] =
        "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789_.@+-,";
    if (spec_sound(draft, (const char *const[]){path, NULL}) &&
        (strspn(name, good) != strlen(name) || name[0] == '-')) {
        spec_fault(draft, path,
                   "may hold letters, digits and _ . @ + - and commas, and begin with no -");
    }
}

/* "--name" or "--name=value" of printable ASCII. */
static bool slurm_option_good(const char *option)
{
    static const char letters[] = "abcdefghijklmnopqrstuvwxyz-";
    size_t len = strncmp(option, "--", 2) == 0 ? 2 + strspn(option + 2, letters) : 0;
    if (len < 4 || option[2] == '-' || (option[len] != '\0' && option[len] != '=')) {
        return false;
    }
    for (const char *c = option + len; *c; c++) {
        if (*c < 0x20 || *c > 0x7e) {
            return false;
        }
    }
    return true;
}

void spec_check_slurm(struct spec_draft *draft)
{
    const struct job_spec *spec = draft->spec;
    if (!SOUND(draft, "/resources/launcher") ||
        strcmp(spec->resources.launcher, "slurm") != 0) {
        return;
    }
    check_slurm_name(draft, "/slurm/partition", spec->slurm.partition);
    check_slurm_name(draft, "/slurm/account", spec->slurm.account);
    check_slurm_name(draft, "/slurm/qos", spec->slurm.qos);
    if (SOUND(draft, "/slurm/nodes", "/resources/ranks") &&
        spec->resources.ranks % spec->slurm.nodes != 0) {
        spec_fault(draft, "/slurm/nodes",
                   "%" PRId64 " does not divide resources.ranks %" PRId64, spec->slurm.nodes,
                   spec->resources.ranks);
    } else if (SOUND(draft, "/slurm/nodes", "/resources/ranks", "/slurm/ranks_per_node") &&
               spec->slurm.ranks_per_node != spec->resources.ranks / spec->slurm.nodes) {
        spec_fault(draft, "/slurm/ranks_per_node",
                   "%" PRId64 " is not resources.ranks / nodes = %" PRId64,
                   spec->slurm.ranks_per_node, spec->resources.ranks / spec->slurm.nodes);
    }
    for (size_t i = 0; SOUND(draft, "/slurm/options") && i < spec->slurm.options.count; i++) {
        if (!slurm_option_good(spec->slurm.options.items[i])) {
            char field[OPT_STRING_MAX];
            snprintf(field, sizeof(field), "/slurm/options/%zu", i);
            spec_fault(draft, field, "must be --name or --name=value in printable ASCII");
        }
    }
}
