/* The folder of checkpoints: which are there, and which are removed. */
#include "engine/checkpoint.h"

#include "engine/checkpoint_files.h"
#include "proto/base/mem.h"
#include "proto/format/manifest.h"

#include <dirent.h>
#include <errno.h>
#include <inttypes.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>

enum { STEP_DIGITS_MIN = 8, STEP_DIGITS_MAX = 19, LIST_MAX = 1 << 20 };

/* The step in "step-NNNNNNNN"; false for any other name. */
static bool step_parse(uint64_t *step, const char *name)
{
    static const char prefix[] = "step-";
    if (strncmp(name, prefix, sizeof prefix - 1) != 0) {
        return false;
    }
    const char *digits = name + sizeof prefix - 1;
    size_t length = strspn(digits, "0123456789");
    if (length < STEP_DIGITS_MIN || length > STEP_DIGITS_MAX || digits[length] != '\0') {
        return false;
    }
    *step = strtoull(digits, NULL, 10);
    return true;
}

static int newest_first(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return (x < y) - (x > y);
}

static int list_add(uint64_t **steps, size_t *count, size_t *capacity, uint64_t step,
                    struct err *err)
{
    if (*count == *capacity) {
        size_t grown = *capacity ? *capacity * 2 : 16;
        uint64_t *moved = grown <= LIST_MAX ? realloc(*steps, grown * sizeof **steps) : NULL;
        if (!moved) {
            return err_set(err, ERR_NO_MEMORY, "no memory for a list of %zu checkpoints",
                           grown);
        }
        *steps = moved;
        *capacity = grown;
    }
    (*steps)[(*count)++] = step;
    return 0;
}

int checkpoint_list(uint64_t **steps, size_t *count, const char *folder, struct err *err)
{
    *steps = NULL;
    *count = 0;
    DIR *dir = opendir(folder);
    if (!dir) {
        return errno == ENOENT ? 0
                               : err_set(err, ERR_IO, "open %s: %s", folder, strerror(errno));
    }
    int rc = 0;
    size_t capacity = 0;
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        uint64_t step;
        if (step_parse(&step, entry->d_name)) {
            rc = list_add(steps, count, &capacity, step, err);
        }
    }
    closedir(dir);
    if (rc != 0) {
        free(*steps);
        *steps = NULL;
        *count = 0;
    } else if (*count > 0) {
        qsort(*steps, *count, sizeof **steps, newest_first);
    }
    return rc;
}

/* Removes ".step-NNNNNNNN.tmp" folders: what a killed writer left. */
static int temporaries_remove(const char *folder, struct err *err)
{
    DIR *dir = opendir(folder);
    if (!dir) {
        return errno == ENOENT ? 0
                               : err_set(err, ERR_IO, "open %s: %s", folder, strerror(errno));
    }
    int rc = 0;
    const struct dirent *entry;
    while (rc == 0 && (entry = readdir(dir)) != NULL) {
        const char *suffix = strrchr(entry->d_name, '.');
        if (strncmp(entry->d_name, ".step-", 6) == 0 && strcmp(suffix, ".tmp") == 0) {
            char path[FSX_PATH_MAX];
            rc = fsx_path(path, err, "%s/%s", folder, entry->d_name);
            if (rc == 0) {
                rc = fsx_remove_tree(path, err);
            }
        }
    }
    closedir(dir);
    return rc;
}

/* A folder is renamed to a temporary's name before it is taken apart, so that no half of it
 * looks like a checkpoint. */
static int step_remove(const char *folder, uint64_t step, struct err *err)
{
    char path[FSX_PATH_MAX], hidden[FSX_PATH_MAX];
    int rc = fsx_path(path, err, "%s/step-%08" PRIu64, folder, step);
    if (rc == 0) {
        rc = fsx_path(hidden, err, "%s/.step-%08" PRIu64 ".tmp", folder, step);
    }
    if (rc == 0) {
        rc = fsx_remove_tree(hidden, err);
    }
    if (rc == 0) {
        rc = fsx_rename(path, hidden, err);
    }
    return rc == 0 ? fsx_remove_tree(hidden, err) : rc;
}

int checkpoint_remove_after(const char *folder, uint64_t step, struct err *err)
{
    uint64_t *steps;
    size_t count;
    int rc = checkpoint_list(&steps, &count, folder, err);
    for (size_t i = 0; rc == 0 && i < count && steps[i] > step; i++) {
        rc = step_remove(folder, steps[i], err);
    }
    free(steps);
    return rc;
}

/* --- which stay --- */

struct candidate {
    uint64_t step;
    double loss; /* of validation; NaN: not known */
    bool stays;
};

/* NaN if train.json cannot be read: such a checkpoint is not among the best. */
static double candidate_loss(const char *folder, uint64_t step)
{
    char path[FSX_PATH_MAX];
    struct checkpoint_info info;
    int rc = fsx_path(path, NULL, "%s/step-%08" PRIu64, folder, step);
    return rc == 0 && checkpoint_describe(&info, path, NULL) == 0 ? info.validation_loss
                                                                  : (double)NAN;
}

/* Marks the best of those that are not marked; false if no other has a loss. */
static bool mark_best(struct candidate *candidates, size_t count)
{
    struct candidate *best = NULL;
    for (size_t i = 0; i < count; i++) { /* the newest first: of equal ones the older stays */
        struct candidate *one = &candidates[i];
        if (!one->stays && (best ? one->loss <= best->loss : one->loss == one->loss)) {
            best = one;
        }
    }
    if (best) {
        best->stays = true;
    }
    return best != NULL;
}

/* The best are chosen over all, the newest among them too. */
static void mark(struct candidate *candidates, size_t count, const struct checkpoint_keep *keep)
{
    for (size_t i = 0; i < keep->best && mark_best(candidates, count); i++) {
    }
    for (size_t i = 0; i < count && i < (keep->last > 0 ? keep->last : 1); i++) {
        candidates[i].stays = true;
    }
    for (size_t i = 0; keep->every > 0 && i < count; i++) {
        if (candidates[i].step % keep->every == 0) {
            candidates[i].stays = true;
            break;
        }
    }
}

static int newest_check(const char *folder, uint64_t step, struct err *err)
{
    char path[FSX_PATH_MAX];
    int rc = fsx_path(path, err, "%s/step-%08" PRIu64, folder, step);
    return rc == 0 ? manifest_verify(path, NULL, err) : rc;
}

int checkpoint_prune(const char *folder, const struct checkpoint_keep *keep, struct err *err)
{
    uint64_t *steps;
    size_t count;
    struct candidate *candidates = NULL;
    int rc = checkpoint_list(&steps, &count, folder, err);
    if (rc == 0 && !(candidates = mem_zeroed(count + 1, sizeof *candidates))) {
        rc = err_set(err, ERR_NO_MEMORY, "no memory for a list of %zu checkpoints", count);
    }
    for (size_t i = 0; rc == 0 && i < count; i++) {
        candidates[i].step = steps[i];
        candidates[i].loss = keep->best > 0 ? candidate_loss(folder, steps[i]) : (double)NAN;
    }
    if (rc == 0) {
        mark(candidates, count, keep);
    }
    bool checked = false;
    for (size_t i = 0; rc == 0 && i < count; i++) {
        if (!candidates[i].stays) {
            rc = checked ? 0 : newest_check(folder, steps[0], err);
            checked = true;
            rc = rc == 0 ? step_remove(folder, steps[i], err) : rc;
        }
    }
    free(candidates);
    free(steps);
    return rc == 0 ? temporaries_remove(folder, err) : rc;
}
