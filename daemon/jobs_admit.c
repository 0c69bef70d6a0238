/* Admission: what the option tables cannot know. */
#include "daemon/beneath.h"
#include "daemon/jobs_internal.h"
#include "daemon/slurm_script.h"
#include "proto/msg/estimate.h"
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static void __attribute__((format(printf, 3, 4)))
add_fault(struct spec_faults *faults, const char *field, const char *format, ...)
{
    if (faults->count < SPEC_FAULTS_MAX) {
        struct spec_fault *fault = &faults->items[faults->count];
        va_list args;
        va_start(args, format);
        snprintf(fault->field, sizeof fault->field, "%s", field);
        vsnprintf(fault->reason, sizeof fault->reason, format, args);
        va_end(args);
    }
    faults->count++;
}

/* The part of path below a data root, NULL if it is under none; both are compared as text,
 * since what is opened below the root goes through no link. */
static const char *below(const char *path, const char *root)
{
    size_t len = strlen(root);
    while (len > 0 && root[len - 1] == '/')
        len--;
    return strncmp(path, root, len) == 0 && (path[len] == '/' || path[len] == '\0') ? path + len
                                                                                    : NULL;
}

/* What an absolute path or pattern stands for. Nothing outside the roots is looked at, so that
 * an answer says nothing about it. */
static int check_absolute(const struct jobs *jobs, const char *pattern, struct err *err)
{
    const struct daemon_config *config = &jobs->daemon->config;
    for (size_t i = 0; i < config->data_root_count; i++) {
        size_t count = 0;
        const char *rest = below(pattern, config->data_roots[i]);
        if (rest == NULL)
            continue;
        int code = beneath_glob(config->data_roots[i], rest, JOBS_MATCHES_MAX, &count, err);
        if (code == 0 && count == 0)
            code = err_set(err, ERR_NOT_FOUND, "'%s' matches no file", pattern);
        return code == 0 ? 0 : err_set(err, code, "'%s': %s", pattern, err->text);
    }
    return err_set(err, ERR_INVALID, "'%s' is not under a data root of the daemon", pattern);
}

/* out gets the absolute form; a relative path is looked for under each root in turn. */
static int resolve_path(const struct jobs *jobs, const char *path, char out[FSX_PATH_MAX],
                        struct err *err)
{
    const struct daemon_config *config = &jobs->daemon->config;
    if (config->data_root_count == 0)
        return err_set(err, ERR_INVALID, "the daemon has no data root (hebbd --data-root)");
    if (path[0] == '/') {
        int code = fsx_path(out, err, "%s", path);
        return code == 0 ? check_absolute(jobs, path, err) : code;
    }
    int code = 0;
    for (size_t i = 0; i < config->data_root_count; i++) {
        code = fsx_path(out, err, "%s/%s", config->data_roots[i], path);
        if (code == 0)
            code = check_absolute(jobs, out, err);
        if (code != ERR_NOT_FOUND)
            return code;
    }
    return err_set(err, ERR_NOT_FOUND, "'%s' matches no file under the daemon's data roots",
                   path);
}

/* Whether field, or something in it, has a fault already: the value in the job is a default
 * then.
 */
static bool faulty(const struct spec_faults *faults, const char *field)
{
    size_t len = strlen(field);
    size_t kept = faults->count < SPEC_FAULTS_MAX ? faults->count : SPEC_FAULTS_MAX;
    for (size_t i = 0; i < kept; i++)
        if (strncmp(faults->items[i].field, field, len) == 0 &&
            (faults->items[i].field[len] == '\0' || faults->items[i].field[len] == '/'))
            return true;
    return false;
}

static void admit_paths(const struct jobs *jobs, const struct str_list *list, const char *field,
                        struct spec_faults *faults)
{
    for (size_t i = 0; i < list->count; i++) {
        char item[OPT_STRING_MAX], path[FSX_PATH_MAX];
        struct err why;
        snprintf(item, sizeof item, "%s/%zu", field, i);
        if (!faulty(faults, item) && resolve_path(jobs, list->items[i], path, &why) != 0)
            add_fault(faults, item, "%s", why.text);
    }
}

void jobs_slots_needed(const struct job_spec *spec, int64_t *cores, int64_t *gpus)
{
    *cores = *gpus = 0;
    if (strcmp(spec->resources.launcher, "slurm") == 0) /* its slots are Slurm's */
        return;
    *cores = spec->resources.ranks * spec->resources.threads;
    *gpus = strcmp(spec->resources.device, "cuda") == 0 ? spec->resources.ranks : 0;
}

/* By what the job's dimensions need, computed as the dry run does. Only of a job without
 * faults: its numbers are the ones that would run. */
static void admit_memory(const struct daemon_config *config, const struct job_spec *spec,
                         struct spec_faults *faults)
{
    bool elsewhere = strcmp(spec->resources.launcher, "slurm") == 0;
    if (faults->count > 0 || config->memory_mb == 0 || elsewhere)
        return;
    struct estimate estimate;
    estimate_job(spec, &estimate);
    double needed_mb =
        ceil((double)estimate.memory.total * (double)spec->resources.ranks / 1048576.0);
    if (needed_mb > (double)config->memory_mb)
        add_fault(faults, "/resources/ranks",
                  "%lld ranks need about %.0f MiB of memory; the daemon gives out %d",
                  (long long)spec->resources.ranks, needed_mb, config->memory_mb);
}

static void admit_slurm(const struct slurm_config *config, const struct job_spec *spec,
                        struct spec_faults *faults)
{
    if (strcmp(spec->resources.launcher, "slurm") != 0)
        return;
    if (config->commands == NULL)
        add_fault(faults, "/resources/launcher",
                  "this daemon was started without Slurm (hebbd --slurm)");
    for (size_t i = 0; i < spec->slurm.options.count; i++) {
        char field[OPT_STRING_MAX];
        const char *fault = slurm_option_fault(config, spec->slurm.options.items[i]);
        snprintf(field, sizeof field, "/slurm/options/%zu", i);
        if (fault != NULL)
            add_fault(faults, field, "%s", fault);
    }
}

void jobs_admit(struct jobs *jobs, const struct job_spec *spec, struct spec_faults *faults)
{
    const struct daemon_config *config = &jobs->daemon->config;
    int64_t cores, gpus;
    jobs_slots_needed(spec, &cores, &gpus);
    bool sized = !faulty(faults, "/resources/ranks") && !faulty(faults, "/resources/threads");
    if (sized && cores > config->cores)
        add_fault(faults, "/resources/ranks",
                  "%lld ranks of %lld threads take %lld cores; the daemon has %d",
                  (long long)spec->resources.ranks, (long long)spec->resources.threads,
                  (long long)cores, config->cores);
    if (sized && gpus > config->gpus)
        add_fault(faults, "/resources/device",
                  "%lld ranks on cuda take %lld GPUs; the daemon has %d",
                  (long long)spec->resources.ranks, (long long)gpus, config->gpus);
    admit_memory(config, spec, faults);
    if (launcher_find(spec->resources.launcher) == NULL)
        add_fault(faults, "/resources/launcher", "'%s' is not a launcher of this daemon",
                  spec->resources.launcher);
    admit_slurm(&config->slurm, spec, faults);
    admit_paths(jobs, &spec->model.init_from, "/model/init_from", faults);
    admit_paths(jobs, &spec->data.train, "/data/train", faults);
    admit_paths(jobs, &spec->data.validation, "/data/validation", faults);
}

static int resolve_list(const struct jobs *jobs, struct str_list *list, struct err *err)
{
    for (size_t i = 0; i < list->count; i++) {
        char path[FSX_PATH_MAX];
        int code = resolve_path(jobs, list->items[i], path, err);
        if (code != 0)
            return code;
        char *copy = strdup(path);
        if (copy == NULL)
            return err_set(err, ERR_NO_MEMORY, "data paths: out of memory");
        free(list->items[i]);
        list->items[i] = copy;
    }
    return 0;
}

int jobs_resolve(struct jobs *jobs, const struct job_spec *spec, struct job_spec *out,
                 struct err *err)
{
    struct buf text;
    buf_init(&text, 4 * SPEC_BODY_MAX);
    spec_print(spec, &text);
    int code = text.failed
                   ? err_set(err, ERR_LIMIT, "the job is longer than %zu bytes", text.max)
                   : spec_parse(out, text.data, text.len, NULL, err);
    buf_release(&text);
    if (code != 0)
        return code;
    code = resolve_list(jobs, &out->model.init_from, err);
    if (code == 0)
        code = resolve_list(jobs, &out->data.train, err);
    if (code == 0)
        code = resolve_list(jobs, &out->data.validation, err);
    if (code != 0)
        spec_release(out);
    return code;
}
