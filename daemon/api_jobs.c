/* Jobs: submit, list, one job, and what can be done to it. */
#include "daemon/api.h"
#include "daemon/jobs.h"
#include "daemon/problem.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/format/digest.h"
#include "proto/json/json.h"
#include "proto/msg/estimate.h"
#include "proto/msg/spec.h"
#include <ctype.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { IDEMPOTENCY_KEY_MAX = 255 };

/* --- a job as JSON --- */

static void add_real(cJSON *object, const char *key, double value, bool known)
{
    if (known && isfinite(value))
        cJSON_AddNumberToObject(object, key, value);
    else
        cJSON_AddNullToObject(object, key);
}

static void add_progress(cJSON *object, const struct job_row *job,
                         const struct job_progress *progress)
{
    cJSON *out = cJSON_AddObjectToObject(object, "progress");
    bool moves = job->state == JOB_RUNNING || job->state == JOB_PAUSING;
    cJSON_AddNumberToObject(out, "step", (double)progress->step);
    cJSON_AddNumberToObject(out, "steps", (double)progress->steps);
    cJSON_AddNumberToObject(out, "tokens", (double)progress->tokens);
    add_real(out, "loss", progress->loss, progress->has_loss);
    add_real(out, "eval_loss", progress->eval_loss, progress->has_eval);
    add_real(out, "tokens_per_s", progress->tokens_per_s, progress->step > 0);
    add_real(out, "eta_s", progress->eta_s, moves && progress->step > 0);
}

static int add_label(void *labels, const char *label)
{
    cJSON_AddItemToArray(labels, cJSON_CreateString(label));
    return 0;
}

struct cJSON *api_job_object(struct daemon *daemon, const struct job_row *job, struct err *err)
{
    struct job_progress progress = {0};
    uint64_t offset = 0, seq = 0;
    if (store_progress(daemon->store, job->id, &progress, err) ||
        store_event_offset(daemon->store, job->id, &offset, &seq, err))
        return NULL;
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "id", job->id);
    cJSON_AddStringToObject(object, "name", job->name);
    cJSON_AddStringToObject(object, "state", job_state_name(job->state));
    cJSON_AddStringToObject(object, "reason", job->reason);
    cJSON_AddNumberToObject(object, "priority", (double)job->priority);
    cJSON *labels = cJSON_AddArrayToObject(object, "labels");
    if (store_labels(daemon->store, job->id, add_label, labels, err)) {
        cJSON_Delete(object);
        return NULL;
    }
    cJSON_AddNumberToObject(object, "attempt", (double)job->attempt);
    cJSON_AddNumberToObject(object, "failures", (double)job->failures);
    add_progress(object, job, &progress);
    cJSON *slots = cJSON_AddObjectToObject(object, "slots");
    cJSON_AddNumberToObject(slots, "cores", (double)job->cores);
    cJSON_AddNumberToObject(slots, "gpus", (double)job->gpus);
    cJSON_AddNumberToObject(object, "last_seq", (double)seq);
    cJSON_AddNumberToObject(object, "version", (double)job->version);
    api_add_stamp(object, "created", job->created_ms);
    api_add_stamp(object, "updated", job->updated_ms);
    api_add_stamp(object, "started", job->started_ms);
    api_add_stamp(object, "finished", job->finished_ms);
    api_add_stamp(object, "retry_at", job->state == JOB_RETRY_WAIT ? job->retry_at_ms : 0);
    if (!object)
        err_set(err, ERR_NO_MEMORY, "job %s: out of memory", job->id);
    return object;
}

static void answer_job(struct api_request *request, struct api_answer *answer, int status,
                       const struct job_row *job)
{
    struct err err = {0};
    cJSON *object = api_job_object(request->daemon, job, &err);
    if (object)
        api_answer_json(answer, status, object);
    else
        problem_set_err(answer, err.code, &err);
}

/* --- submit --- */

static bool key_is_valid(const char *key)
{
    size_t len = strlen(key);
    if (len == 0 || len > IDEMPOTENCY_KEY_MAX)
        return false;
    for (size_t i = 0; i < len; i++)
        if (key[i] < 0x21 || key[i] > 0x7e)
            return false;
    return true;
}

/* Parses and admits the body. On faults fills answer and returns false; else the caller
 * releases spec. */
static bool spec_accept(struct api_request *request, struct api_answer *answer,
                        struct job_spec *spec)
{
    struct spec_faults *faults = mem_zeroed(1, sizeof(*faults));
    if (!faults) {
        problem_set(answer, PROBLEM_UNAVAILABLE, "out of memory");
        return false;
    }
    struct err err = {0};
    bool partial = false;
    int rc = spec_parse_partial(spec, request->body, request->body_len, faults, &partial, &err);
    if (partial) /* also of a job with faults, so that all of them are told at once */
        jobs_admit(request->daemon->jobs, spec, faults);
    bool syntax = rc && faults->count == 1 && faults->items[0].field[0] == '\0';
    bool good = rc == 0 && faults->count == 0;
    if (syntax)
        problem_set_faults(answer, PROBLEM_INVALID_JSON, err.text, faults);
    else if (!good)
        problem_set_faults(answer, PROBLEM_INVALID_JOB,
                           rc ? err.text : "the job cannot run here: see errors", faults);
    if (!good)
        spec_release(spec);
    free(faults);
    return good;
}

static void answer_dry_run(struct api_answer *answer, const struct job_spec *spec)
{
    struct estimate estimate;
    estimate_job(spec, &estimate);
    answer->status = 200;
    buf_puts(&answer->body, "{\"estimate\":");
    estimate_print(spec, &estimate, &answer->body);
    buf_puts(&answer->body, ",\"spec\":");
    spec_print(spec, &answer->body);
    buf_puts(&answer->body, "}");
}

static void submit(struct api_request *request, struct api_answer *answer,
                   const struct job_spec *spec)
{
    char hash[DIGEST_TEXT_MAX];
    digest_text(hash, request->body, request->body_len);
    struct job_row job = {0};
    struct err err = {0};
    bool existing = false;
    int rc = jobs_submit(request->daemon->jobs, spec, request->idempotency_key, hash, &job,
                         &existing, &err);
    if (!rc && !existing && spec->labels.count > 0)
        rc = store_labels_set(request->daemon->store, job.id, &spec->labels, &err);
    if (rc == ERR_CONFLICT)
        problem_set(answer, PROBLEM_IDEMPOTENCY, "%s", err.text);
    else if (rc)
        problem_set_err(answer, rc, &err);
    else
        answer_job(request, answer, 201, &job);
    if (answer->status != 201)
        return;
    api_answer_header(answer, "Location", "/v1/jobs/%s", job.id);
    if (existing)
        api_answer_header(answer, "Idempotency-Replayed", "true");
    answer->next = API_AFTER_COMMIT;
}

void api_jobs_submit(struct api_request *request, struct api_answer *answer)
{
    if (!api_body_is_json(request, answer))
        return;
    if (request->idempotency_key && !key_is_valid(request->idempotency_key)) {
        problem_set(answer, PROBLEM_BAD_REQUEST,
                    "Idempotency-Key must have 1 to %d visible ASCII characters",
                    IDEMPOTENCY_KEY_MAX);
        return;
    }
    bool dry_run = api_int(request, "dry_run") != 0;
    if (!dry_run && !api_can_write(request, answer))
        return;
    struct job_spec spec;
    if (!spec_accept(request, answer, &spec))
        return;
    if (dry_run)
        answer_dry_run(answer, &spec);
    else
        submit(request, answer, &spec);
    spec_release(&spec);
}

/* --- list --- */

struct page {
    struct daemon *daemon;
    cJSON *jobs;
    struct err *err;
    size_t limit, count;
    int64_t last; /* row of the last job on the page */
};

static int page_add(void *context, const struct job_row *job)
{
    struct page *page = context;
    if (page->count++ == page->limit)
        return 0; /* the one more that says there is a next page */
    cJSON *object = api_job_object(page->daemon, job, page->err);
    if (!object)
        return page->err->code;
    cJSON_AddItemToArray(page->jobs, object);
    page->last = job->row;
    return 0;
}

void api_jobs_list(struct api_request *request, struct api_answer *answer)
{
    struct job_filter filter = {.name = api_text(request, "name"),
                                .after = api_int(request, "after"),
                                .limit = (size_t)api_int(request, "limit") + 1};
    char labels[264];
    filter.labels = api_labels(api_text(request, "label"), labels, &filter.label_count);
    if (api_given(request, "state") &&
        !api_states(api_text(request, "state"), &filter.states, "?state", answer))
        return;
    struct err err = {0};
    cJSON *object = cJSON_CreateObject();
    struct page page = {.daemon = request->daemon,
                        .jobs = cJSON_AddArrayToObject(object, "jobs"),
                        .err = &err,
                        .limit = filter.limit - 1};
    int rc = store_jobs_list(request->daemon->store, &filter, page_add, &page, &err);
    if (rc) {
        cJSON_Delete(object);
        problem_set_err(answer, rc, &err);
        return;
    }
    api_answer_page(answer, object, page.count > page.limit, page.last);
}

/* --- one job --- */

/* What ?until= asks for; without it, any change of the row since the first look. */
static bool reached(struct api_request *request, const struct job_row *job, unsigned until)
{
    if (!request->again)
        request->memo = job->version;
    if (job_state_final(job->state) || request->expired)
        return true;
    return until ? (until & 1u << job->state) != 0 : request->memo != job->version;
}

static void answer_detail(struct api_request *request, struct api_answer *answer,
                          const struct job_row *job, uint64_t seq)
{
    struct err err = {0};
    char folder[FSX_PATH_MAX], tag[64];
    struct buf spec;
    buf_init(&spec, 4 * SPEC_BODY_MAX);
    cJSON *object = NULL;
    int rc = store_job_spec(request->daemon->store, request->id, &spec, &err);
    if (!rc)
        rc = jobs_path(request->daemon->jobs, request->id, folder, sizeof(folder), &err);
    if (!rc && !(object = api_job_object(request->daemon, job, &err)))
        rc = err.code;
    if (rc) {
        problem_set_err(answer, rc, &err);
    } else {
        cJSON_AddStringToObject(object, "folder", folder);
        while (spec.len > 0 && isspace((unsigned char)spec.data[spec.len - 1]))
            spec.data[--spec.len] = '\0'; /* the file ends with a newline */
        cJSON_AddRawToObject(object, "spec", spec.data);
        api_answer_json(answer, 200, object);
        api_job_tag(tag, job, seq);
        api_answer_header(answer, "ETag", "%s", tag);
    }
    buf_release(&spec);
}

void api_jobs_get(struct api_request *request, struct api_answer *answer)
{
    struct err err = {0};
    struct job_row job;
    uint64_t offset, seq = 0;
    unsigned until = 0;
    char tag[64];
    int64_t wait_s = api_int(request, "wait");
    if (api_given(request, "until") &&
        !api_states(api_text(request, "until"), &until, "?until", answer))
        return;
    int rc = store_job_get(request->daemon->store, request->id, &job, &err);
    if (!rc)
        rc = store_event_offset(request->daemon->store, request->id, &offset, &seq, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    if (wait_s > 0 && !reached(request, &job, until)) {
        answer->next = API_WAIT;
        answer->wait_ms = wait_s * 1000;
        return;
    }
    api_job_tag(tag, &job, seq);
    if (request->if_none_match && strstr(request->if_none_match, tag)) {
        answer->status = 304;
        api_answer_header(answer, "ETag", "%s", tag);
        return;
    }
    answer_detail(request, answer, &job, seq);
}

static void act(struct api_request *request, struct api_answer *answer, enum job_action action)
{
    if (!api_body_empty(request)) {
        problem_set(answer, PROBLEM_BAD_REQUEST, "%s takes no body", request->route->path);
        return;
    }
    if (!api_can_write(request, answer))
        return;
    struct err err = {0};
    struct job_row job = {0};
    int rc = store_job_get(request->daemon->store, request->id, &job, &err);
    if (!rc && !api_match(request, answer, &job))
        return;
    if (!rc)
        rc = jobs_act(request->daemon->jobs, request->id, action, &job, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    answer_job(request, answer, 202, &job);
    answer->next = API_AFTER_COMMIT;
}

void api_jobs_cancel(struct api_request *request, struct api_answer *answer)
{
    act(request, answer, ACTION_CANCEL);
}

void api_jobs_pause(struct api_request *request, struct api_answer *answer)
{
    act(request, answer, ACTION_PAUSE);
}

void api_jobs_resume(struct api_request *request, struct api_answer *answer)
{
    act(request, answer, ACTION_RESUME);
}

void api_jobs_checkpoint(struct api_request *request, struct api_answer *answer)
{
    act(request, answer, ACTION_CHECKPOINT);
}
