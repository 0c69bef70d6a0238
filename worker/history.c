#include "worker/history.h"

#include "proto/base/fsx.h"
#include "proto/base/mem.h"

#include <assert.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { GROUPS_MIN = 1024 };

static size_t targets_count(const struct model *model)
{
    size_t count = 0;
    for (size_t i = 0; i < model->param_count; i++) {
        count += model->params[i].nm != NULL;
    }
    return count;
}

/* name without ".weight". */
static void matrix_name(char out[TOPOLOGY_NAME_MAX], const char *name)
{
    static const char suffix[] = ".weight";
    size_t length = strlen(name), tail = sizeof suffix - 1;
    if (length > tail && strcmp(name + length - tail, suffix) == 0) {
        length -= tail;
    }
    snprintf(out, TOPOLOGY_NAME_MAX, "%.*s", (int)length, name);
}

static void matrices_init(struct history *history)
{
    size_t at = 0;
    for (size_t i = 0; i < history->model->param_count; i++) {
        const struct param *param = &history->model->params[i];
        if (!param->nm) {
            continue;
        }
        struct topology_matrix *matrix = &history->matrices[at++];
        matrix_name(matrix->name, param->name);
        matrix->dout = (uint32_t)param->nm->dout;
        matrix->din = (uint32_t)param->nm->din;
        matrix->n = param->nm->n;
        matrix->m = param->nm->m;
    }
}

int history_create(struct history **out, const char *job, const struct model *model,
                   struct err *err)
{
    char folder[FSX_PATH_MAX];
    int rc = fsx_path(folder, err, "%s/topology", job);
    if (rc == 0) {
        rc = fsx_mkdirs(folder, 0755, err);
    }
    if (rc != 0) {
        return rc;
    }
    struct history *history = mem_zeroed(1, sizeof *history);
    if (history) {
        history->model = model;
        history->count = targets_count(model);
        history->folder = mem_strdup(folder);
        history->matrices = mem_zeroed(history->count + 1, sizeof *history->matrices);
        history->stats = mem_zeroed(history->count + 1, sizeof *history->stats);
        history->first = mem_zeroed(history->count + 1, sizeof *history->first);
    }
    if (!history || !history->folder || !history->matrices || !history->stats ||
        !history->first) {
        history_destroy(history);
        return err_set(err, ERR_NO_MEMORY, "no memory for the history of masks");
    }
    matrices_init(history);
    *out = history;
    return 0;
}

void history_destroy(struct history *history)
{
    if (!history) {
        return;
    }
    free(history->folder);
    free(history->matrices);
    free(history->stats);
    free(history->first);
    free(history->groups);
    free(history->codes);
    free(history);
}

int history_start(struct history *history, struct err *err)
{
    size_t at = 0;
    for (size_t i = 0; i < history->model->param_count; i++) {
        const struct nm *w = history->model->params[i].nm;
        if (w) {
            struct topology_matrix *matrix = &history->matrices[at++];
            matrix->hash = nm_mask_hash(w);
            matrix->count = w->dout * nm_groups(w);
            matrix->groups = NULL;
            matrix->codes = w->codes;
        }
    }
    return topology_write(history->folder, 0, 0, history->matrices, history->count, err);
}

int history_rewind(struct history *history, size_t refresh, struct err *err)
{
    for (size_t next = refresh + 1;; next++) {
        char path[FSX_PATH_MAX];
        int rc = fsx_path(path, err, "%s/refresh-%06zu.hbt", history->folder, next);
        if (rc != 0) {
            return rc;
        }
        if (unlink(path) != 0) {
            return errno == ENOENT
                       ? 0
                       : err_set(err, ERR_IO, "remove %s: %s", path, strerror(errno));
        }
    }
}

static int groups_grow(struct history *history, struct err *err)
{
    size_t capacity = history->capacity ? history->capacity * 2 : GROUPS_MIN;
    uint32_t *groups = realloc(history->groups, capacity * sizeof *groups);
    if (groups) {
        history->groups = groups;
    }
    uint16_t *codes = realloc(history->codes, capacity * sizeof *codes);
    if (codes) {
        history->codes = codes;
    }
    if (!groups || !codes) {
        return err_set(err, ERR_NO_MEMORY, "no memory for %zu changed groups", capacity);
    }
    history->capacity = capacity;
    return 0;
}

/* The observer: notes the groups of one matrix whose code is another now. Matrices come in any
 * order. */
static int observe_matrix(void *context, size_t target, const struct nm *w,
                          const uint16_t *codes_before, const struct refresh_stats *stats,
                          struct err *err)
{
    struct history *history = context;
    assert(target < history->count);
    struct topology_matrix *matrix = &history->matrices[target];
    history->stats[target] = *stats;
    history->first[target] = history->used;
    history->seen++;
    matrix->hash = stats->hash;
    matrix->count = 0;
    for (size_t group = 0; group < w->dout * nm_groups(w); group++) {
        if (w->codes[group] == codes_before[group]) {
            continue;
        }
        if (history->used == history->capacity) {
            int rc = groups_grow(history, err);
            if (rc != 0) {
                return rc;
            }
        }
        history->groups[history->used] = (uint32_t)group;
        history->codes[history->used++] = w->codes[group];
        matrix->count++;
    }
    return 0;
}

struct refresh_observer history_observer(struct history *history)
{
    return (struct refresh_observer){.context = history, .matrix = observe_matrix};
}

int history_publish(struct history *history, size_t refresh, size_t step, struct err *err)
{
    assert(history->seen == history->count || history->seen == 0); /* 0: the same once more */
    for (size_t i = 0; i < history->count; i++) {
        struct topology_matrix *matrix = &history->matrices[i];
        matrix->groups = history->groups + history->first[i];
        matrix->codes = history->codes + history->first[i];
    }
    history->seen = 0;
    history->used = 0;
    return topology_write(history->folder, (uint32_t)refresh, step, history->matrices,
                          history->count, err);
}
