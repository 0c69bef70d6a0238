#include "worker/tools/tool_spec.h"

#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Puts a number in place of resources.key. */
static bool resource_set(cJSON *root, const char *key, uint64_t value)
{
    if (value == 0) {
        return true;
    }
    cJSON *resources = cJSON_GetObjectItemCaseSensitive(root, "resources");
    if (!resources) {
        resources = cJSON_AddObjectToObject(root, "resources");
    }
    if (!cJSON_IsObject(resources)) {
        return resources != NULL; /* spec_parse says what is wrong */
    }
    cJSON_DeleteItemFromObjectCaseSensitive(resources, key);
    return cJSON_AddNumberToObject(resources, key, (double)value) != NULL;
}

/* The job's text with ranks and threads of the command line: before defaults are filled in,
 * since some follow from them. */
static int resources_set(struct buf *text, uint64_t ranks, uint64_t threads, struct err *err)
{
    cJSON *root = NULL;
    int rc = ranks || threads ? json_parse(&root, text->data, text->len, err) : 0;
    if (rc != 0 || !cJSON_IsObject(root)) {
        cJSON_Delete(root);
        return rc;
    }
    bool ok = resource_set(root, "ranks", ranks) && resource_set(root, "threads", threads);
    if (ok) {
        buf_clear(text);
        json_print(root, text);
        ok = !text->failed;
    }
    cJSON_Delete(root);
    return ok ? 0 : err_set(err, ERR_NO_MEMORY, "no memory for the job");
}

static int paths_absolute(struct str_list *list, const char *here, struct err *err)
{
    for (size_t i = 0; i < list->count; i++) {
        if (list->items[i][0] == '/') {
            continue;
        }
        char path[FSX_PATH_MAX];
        int rc = fsx_path(path, err, "%s/%s", here, list->items[i]);
        char *copy = rc == 0 ? mem_strdup(path) : NULL;
        if (!copy) {
            return rc != 0 ? rc : err_set(err, ERR_NO_MEMORY, "no memory for a path");
        }
        free(list->items[i]);
        list->items[i] = copy;
    }
    return 0;
}

/* All faults, one a line, when there are several; the error names them or the only one. */
static int refuse(const char *path, const struct spec_faults *faults, int rc, struct err *err)
{
    if (faults->count <= 1) {
        return err_wrap(err, rc, "%s", path);
    }
    for (size_t i = 0; i < faults->count && i < SPEC_FAULTS_MAX; i++) {
        fprintf(stderr, "%s: %s: %s\n", path, faults->items[i].field, faults->items[i].reason);
    }
    return err_set(err, rc, "%s: the job has %zu faults", path, faults->count);
}

int tool_spec_load(struct job_spec *spec, const char *path, uint64_t ranks, uint64_t threads,
                   struct err *err)
{
    struct spec_faults faults = {0};
    struct buf text;
    char here[FSX_PATH_MAX];
    buf_init(&text, SPEC_BODY_MAX);
    int rc = fsx_read(&text, path, err);
    if (rc == 0) {
        rc = resources_set(&text, ranks, threads, err);
        rc = rc == 0 ? spec_parse(spec, text.data, text.len, &faults, err) : rc;
        rc = rc == 0 ? 0 : refuse(path, &faults, rc, err);
    }
    buf_release(&text);
    if (rc != 0) {
        return rc;
    }
    if (!getcwd(here, sizeof here)) {
        return err_set(err, ERR_IO, "working folder: %s", strerror(errno));
    }
    rc = paths_absolute(&spec->model.init_from, here, err);
    if (rc == 0) {
        rc = paths_absolute(&spec->data.train, here, err);
    }
    return rc == 0 ? paths_absolute(&spec->data.validation, here, err) : rc;
}
