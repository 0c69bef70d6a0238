#include "daemon/slurm_internal.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { TICK_MS = 100, ARGUMENT_MAX = FSX_PATH_MAX };

bool slurm_reached(const struct slurm *slurm) { return slurm->trouble[0] == '\0'; }

/* --- attempts --- */

static void drop_idle(struct slurm *slurm, int64_t now)
{
    for (size_t i = slurm->attempt_count; i-- > 0;) {
        struct slurm_attempt *attempt = slurm->attempts[i];
        if (attempt->calling || now - attempt->asked_ms < SLURM_ATTEMPT_IDLE_MS)
            continue;
        free(attempt);
        slurm->attempts[i] = slurm->attempts[--slurm->attempt_count];
    }
}

static struct slurm_attempt *find(const struct slurm *slurm, const char *key)
{
    for (size_t i = 0; i < slurm->attempt_count; i++)
        if (strcmp(slurm->attempts[i]->key, key) == 0)
            return slurm->attempts[i];
    return NULL;
}

int slurm_attempt_get(struct slurm *slurm, const struct launch *launch,
                      struct slurm_attempt **out, struct err *err)
{
    char key[SLURM_KEY_MAX];
    int64_t now = clock_monotonic_ms();
    slurm_key(key, sizeof key, launch);
    if ((*out = find(slurm, key)) != NULL) {
        (*out)->asked_ms = now;
        return 0;
    }
    drop_idle(slurm, now);
    if (slurm->attempt_count == slurm->attempt_cap) {
        size_t cap = slurm->attempt_cap != 0 ? 2 * slurm->attempt_cap : 8;
        struct slurm_attempt **grown = reallocarray(slurm->attempts, cap, sizeof *grown);
        if (grown == NULL)
            return err_set(err, ERR_NO_MEMORY, "slurm: out of memory");
        slurm->attempts = grown;
        slurm->attempt_cap = cap;
    }
    struct slurm_attempt *attempt = mem_zeroed(1, sizeof *attempt);
    if (attempt == NULL)
        return err_set(err, ERR_NO_MEMORY, "slurm: out of memory");
    *attempt = (struct slurm_attempt){.slurm = slurm, .asked_ms = now, .mark_ms = now};
    memcpy(attempt->key, key, sizeof key);
    int code =
        fsx_path(attempt->folder, err, "%s/attempt-%" PRId64, launch->folder, launch->attempt);
    if (code != 0) {
        free(attempt);
        return code;
    }
    attempt->number = slurm_number_read(attempt);
    slurm->attempts[slurm->attempt_count++] = *out = attempt;
    slurm_ask(slurm);
    return 0;
}

const struct slurm_job *slurm_job_of(const struct slurm *slurm, const char *key, int64_t *more)
{
    const struct slurm_job *best = NULL;
    *more = 0;
    for (size_t i = 0; i < slurm->job_count; i++) {
        const struct slurm_job *job = &slurm->jobs[i], *other = job;
        if (strcmp(job->key, key) != 0)
            continue;
        bool over = job->phase == SLURM_ENDED, was_over = best && best->phase == SLURM_ENDED;
        bool better = best == NULL || (was_over && !over) ||
                      (over == was_over &&
                       (over ? job->number > best->number : job->phase > best->phase));
        if (better) {
            other = best;
            best = job;
        }
        if (other != NULL && other->phase != SLURM_ENDED)
            *more = other->number;
    }
    return best;
}

int slurm_number_write(const struct slurm_attempt *attempt, struct err *err)
{
    char path[FSX_PATH_MAX], text[64];
    int len = snprintf(text, sizeof text, "{\"job\": %" PRId64 "}\n", attempt->number);
    int code = fsx_path(path, err, "%s/slurm.json", attempt->folder);
    return code == 0 ? fsx_publish(path, text, (size_t)len, 0600, err) : code;
}

int64_t slurm_number_read(const struct slurm_attempt *attempt)
{
    char path[FSX_PATH_MAX];
    cJSON *object;
    int64_t number = 0;
    if (fsx_path(path, NULL, "%s/slurm.json", attempt->folder) != 0 ||
        json_read(&object, path, 1024, NULL) != 0)
        return 0;
    if (!json_int(&number, object, "job") || number < 0)
        number = 0;
    cJSON_Delete(object);
    return number;
}

/* --- calls --- */

static int call(struct slurm *slurm, const char *const *argv, const char *input, int keep_fd,
                void (*done)(void *context, const struct call_answer *answer), void *context,
                struct err *err)
{
    struct call it = {.argv = argv,
                      .environment = slurm->environment,
                      .input = input,
                      .keep_fd = keep_fd,
                      .timeout_ms = SLURM_CALL_MS,
                      .done = done,
                      .context = context};
    return calls_start(slurm->calls, &it, err);
}

static void complain(struct slurm *slurm, const char *why)
{
    char stamp[CLOCK_STAMP_MAX];
    if (slurm->trouble[0] != '\0') /* since when it is so is worth more than the last words */
        return;
    clock_stamp(stamp, clock_wall_ms());
    snprintf(slurm->trouble, sizeof slurm->trouble, "Slurm does not answer since %s: %.400s",
             stamp, why);
    log_warn("%s", slurm->trouble);
}

static void on_squeue(void *context, const struct call_answer *answer)
{
    struct slurm *slurm = context;
    int64_t began = slurm->asking_ms;
    struct slurm_job *jobs;
    size_t count;
    struct err err;
    slurm->asking_ms = 0;
    if (answer->code != 0) {
        complain(slurm, answer->trouble);
        return;
    }
    if (slurm_parse_squeue(&jobs, &count, answer->out, answer->out_len, &err) != 0) {
        complain(slurm, err.text);
        return;
    }
    if (slurm->trouble[0] != '\0')
        log_info("Slurm answers again");
    slurm->trouble[0] = '\0';
    free(slurm->jobs);
    slurm->jobs = jobs;
    slurm->job_count = count;
    slurm->began_ms = began;
}

static void start_squeue(struct slurm *slurm)
{
    char program[ARGUMENT_MAX], user[32];
    struct err err;
    snprintf(program, sizeof program, "%s/squeue", slurm->config->commands);
    snprintf(user, sizeof user, "%u", (unsigned)geteuid());
    const char *const argv[] = {
        program, "-h", "-t", "all", "-u", user, "-o", SLURM_SQUEUE_FORMAT, NULL};
    slurm->asking_ms = clock_monotonic_ms();
    if (call(slurm, argv, NULL, -1, on_squeue, slurm, &err) != 0) {
        slurm->asking_ms = 0;
        complain(slurm, err.text);
    }
}

void slurm_ask(struct slurm *slurm) { slurm->next_ms = 0; }

/* squeue is asked while there are attempts that somebody asks for. */
static void on_timer(void *context)
{
    struct slurm *slurm = context;
    int64_t now = clock_monotonic_ms();
    int poll_ms = slurm->config->poll_ms;
    if (slurm->asking_ms != 0 || now < slurm->next_ms)
        return;
    drop_idle(slurm, now);
    if (slurm->attempt_count == 0)
        return;
    slurm->next_ms = now + poll_ms;
    start_squeue(slurm);
}

static void on_sbatch(void *context, const struct call_answer *answer)
{
    struct slurm_attempt *attempt = context;
    struct err err = {.text = ""};
    attempt->calling = false;
    /* What was killed or not understood may have been taken all the same: squeue will say. */
    attempt->mark_ms = attempt->submit_ms = clock_monotonic_ms();
    slurm_ask(attempt->slurm);
    if (answer->code == 0 && slurm_parse_sbatch(&attempt->number, answer->out, &err) == 0) {
        attempt->trouble[0] = '\0';
        attempt->absent_ms = 0;
        log_info("attempt %s: batch job %" PRId64, attempt->key, attempt->number);
        if (slurm_number_write(attempt, &err) != 0)
            log_warn("%s", err.text);
        return;
    }
    const char *why = answer->code != 0 ? answer->trouble : err.text;
    snprintf(attempt->trouble, sizeof attempt->trouble, "%s", why);
    attempt->refused = answer->code > 0 && slurm_refused(answer->errors);
    log_warn("attempt %s: sbatch: %s", attempt->key, why);
}

/* The lock that sbatch keeps for as long as it lives. */
static int submit_lock(const struct slurm_attempt *attempt, int *fd, struct err *err)
{
    char path[FSX_PATH_MAX];
    int lock = -1, code = fsx_path(path, err, "%s/submit.lock", attempt->folder);
    if (code == 0)
        code = fsx_lock(&lock, path, err);
    if (code != 0)
        return code;
    *fd = fcntl(lock, F_DUPFD_CLOEXEC, 10);
    close(lock);
    return *fd >= 0 ? 0 : err_set(err, ERR_IO, "%s: no descriptor left", path);
}

static int read_spec(struct job_spec *spec, const struct launch *launch, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    buf_init(&text, 4 * SPEC_BODY_MAX);
    int code = fsx_path(path, err, "%s/spec.json", launch->folder);
    if (code == 0)
        code = fsx_read(&text, path, err);
    if (code == 0)
        code = spec_parse(spec, text.data, text.len, NULL, err);
    buf_release(&text);
    return code;
}

int slurm_launch_write(struct slurm *slurm, const struct launch *launch, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct job_spec spec;
    struct buf text;
    spec_init(&spec);
    buf_init(&text, SLURM_TEXT_MAX);
    int code = read_spec(&spec, launch, err);
    if (code == 0)
        code = slurm_launch_text(&text, slurm->config, launch, &spec, err);
    if (code == 0)
        code = fsx_path(path, err, "%s/attempt-%" PRId64 "/launch", launch->folder,
                        launch->attempt);
    if (code == 0)
        code = fsx_publish(path, text.data, text.len, 0600, err);
    buf_release(&text);
    spec_release(&spec);
    return code;
}

int slurm_submit(struct slurm_attempt *attempt, const struct launch *launch, struct err *err)
{
    const char *argv[SLURM_ARGUMENTS_MAX];
    struct job_spec spec;
    struct buf store;
    int lock = -1;
    spec_init(&spec);
    buf_init(&store, SLURM_TEXT_MAX);
    int code = read_spec(&spec, launch, err);
    if (code == 0)
        code = slurm_arguments(argv, &store, attempt->slurm->config, launch, &spec, err);
    if (code == 0)
        code = submit_lock(attempt, &lock, err);
    if (code == 0)
        code = call(attempt->slurm, argv, slurm_script, lock, on_sbatch, attempt, err);
    attempt->calling = code == 0;
    attempt->submit_ms = clock_monotonic_ms();
    if (lock >= 0)
        close(lock);
    buf_release(&store);
    spec_release(&spec);
    return code;
}

static void on_scancel(void *context, const struct call_answer *answer)
{
    struct slurm *slurm = context;
    if (answer->code != 0)
        log_warn("scancel: %s", answer->trouble);
    slurm_ask(slurm);
}

void slurm_cancel(struct slurm_attempt *attempt, int64_t number, const char *const *how)
{
    struct slurm *slurm = attempt->slurm;
    char program[ARGUMENT_MAX], job[32];
    const char *argv[8];
    size_t count = 0;
    struct err err;
    snprintf(program, sizeof program, "%s/scancel", slurm->config->commands);
    snprintf(job, sizeof job, "%" PRId64, number);
    argv[count++] = program;
    while (how != NULL && *how != NULL)
        argv[count++] = *how++;
    argv[count++] = job;
    argv[count] = NULL;
    attempt->cancel_ms = clock_monotonic_ms();
    if (call(slurm, argv, NULL, -1, on_scancel, slurm, &err) != 0)
        log_warn("%s", err.text);
}

static void on_sacct(void *context, const struct call_answer *answer)
{
    char key[SLURM_KEY_MAX], name[SLURM_KEY_MAX + 8];
    struct slurm_attempt *attempt = context;
    memcpy(key, attempt->key, sizeof key);
    *strrchr(key, '.') = '\0';
    snprintf(name, sizeof name, "hebb-%s", key);
    attempt->calling = false;
    if (answer->code != 0 ||
        !slurm_parse_sacct(attempt->accounted, answer->out, attempt->number, name))
        attempt->accounted[0] = '\0'; /* many clusters have no accounting */
    if (slurm_phase(attempt->accounted) != SLURM_ENDED)
        attempt->accounted[0] = '\0';
}

void slurm_account(struct slurm_attempt *attempt)
{
    char program[ARGUMENT_MAX], job[32];
    struct err err;
    snprintf(program, sizeof program, "%s/sacct", attempt->slurm->config->commands);
    snprintf(job, sizeof job, "%" PRId64, attempt->number);
    const char *const argv[] = {
        program, "-n", "-X", "-P", "-j", job, "-o", "JobIDRaw,JobName,State", NULL};
    attempt->accounted_ms = clock_monotonic_ms();
    /* The attempt must stay in memory until the answer is there. */
    attempt->calling = call(attempt->slurm, argv, NULL, -1, on_sacct, attempt, &err) == 0;
}

/* --- life --- */

int slurm_create(struct slurm **out, const struct slurm_config *config, struct loop *loop,
                 struct err *err)
{
    struct slurm *slurm = mem_zeroed(1, sizeof *slurm);
    const char *conf = getenv("SLURM_CONF");
    size_t count = 0;
    if (slurm == NULL)
        return err_set(err, ERR_NO_MEMORY, "slurm: out of memory");
    slurm->config = config;
    slurm->loop = loop;
    slurm->environment[count++] = "PATH=/usr/local/bin:/usr/bin:/bin";
    slurm->environment[count++] = "LANG=C.UTF-8";
    int code = 0;
    if (conf != NULL && (code = fsx_path(slurm->conf, err, "SLURM_CONF=%s", conf)) == 0)
        slurm->environment[count++] = slurm->conf;
    if (code == 0)
        code = calls_create(&slurm->calls, loop, err);
    if (code != 0) {
        slurm_destroy(slurm);
        return code;
    }
    slurm->timer = loop_add_timer(loop, TICK_MS, on_timer, slurm);
    *out = slurm;
    return 0;
}

void slurm_destroy(struct slurm *slurm)
{
    if (slurm == NULL)
        return;
    if (slurm->timer != 0)
        loop_remove_timer(slurm->loop, slurm->timer);
    calls_destroy(slurm->calls);
    for (size_t i = 0; i < slurm->attempt_count; i++)
        free(slurm->attempts[i]);
    free(slurm->attempts);
    free(slurm->jobs);
    free(slurm);
}

void slurm_reaped(struct slurm *slurm, pid_t pid, int status)
{
    calls_reaped(slurm->calls, pid, status);
}
