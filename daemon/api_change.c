/* Changes of jobs beyond the single actions: labels and priority, and cancelling many. */
#include "daemon/api.h"
#include "daemon/http.h"
#include "daemon/jobs.h"
#include "daemon/problem.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MANY_MAX = 500, PRIORITY_MAX = 100 };

/* --- PATCH --- */

struct patch {
    bool has_priority, has_labels;
    int64_t priority;
    struct str_list labels; /* items are cJSON's; the array is owned */
};

static void read_labels(const cJSON *value, struct patch *patch, struct spec_faults *faults)
{
    patch->has_labels = true;
    if (!cJSON_IsArray(value) || cJSON_GetArraySize(value) > SPEC_LABELS_MAX) {
        problem_fault(faults, "/labels", "must be an array of at most %d strings",
                      SPEC_LABELS_MAX);
        return;
    }
    patch->labels.items = mem_zeroed(SPEC_LABELS_MAX, sizeof(char *));
    const cJSON *item;
    cJSON_ArrayForEach(item, value)
    {
        char field[32];
        snprintf(field, sizeof(field), "/labels/%zu", patch->labels.count);
        if (!cJSON_IsString(item) || !spec_label_good(item->valuestring))
            problem_fault(faults, field,
                          "a label has 1 to %d bytes without commas or spaces at its ends",
                          SPEC_LABEL_MAX);
        if (patch->labels.items)
            patch->labels.items[patch->labels.count++] = item->valuestring;
    }
}

static bool read_patch(const cJSON *body, struct patch *patch, struct spec_faults *faults)
{
    const cJSON *priority = cJSON_GetObjectItemCaseSensitive(body, "priority");
    const cJSON *labels = cJSON_GetObjectItemCaseSensitive(body, "labels");
    if (priority) {
        patch->has_priority = true;
        if (!json_whole(&patch->priority, priority) || patch->priority < -PRIORITY_MAX ||
            patch->priority > PRIORITY_MAX)
            problem_fault(faults, "/priority", "must be a whole number from %d to %d",
                          -PRIORITY_MAX, PRIORITY_MAX);
    }
    if (labels)
        read_labels(labels, patch, faults);
    if (!priority && !labels)
        problem_fault(faults, "", "names neither priority nor labels");
    return faults->count == 0;
}

static int apply(struct api_request *request, const struct patch *patch, struct err *err)
{
    struct store *store = request->daemon->store;
    char detail[STORE_TEXT_MAX] = "";
    int rc = 0;
    if (patch->has_priority) {
        snprintf(detail, sizeof(detail), "priority %lld", (long long)patch->priority);
        rc = store_job_set_priority(store, request->id, patch->priority, err);
    }
    if (!rc && patch->has_labels) {
        struct buf text;
        buf_init(&text, sizeof(detail) - 32);
        buf_puts(&text, "labels");
        for (size_t i = 0; i < patch->labels.count; i++)
            buf_printf(&text, "%s %s", i ? "," : "", patch->labels.items[i]);
        size_t len = strlen(detail);
        snprintf(detail + len, sizeof(detail) - len, "%s%s", len ? "; " : "",
                 text.data ? text.data : "");
        buf_release(&text);
        rc = store_labels_set(store, request->id, &patch->labels, err);
    }
    return rc ? rc : store_audit(store, request->id, "patch", detail, err);
}

static void patch_job(struct api_request *request, struct api_answer *answer,
                      const struct patch *patch)
{
    struct err err = {0};
    struct job_row job;
    uint64_t offset, seq = 0;
    char tag[64];
    struct store *store = request->daemon->store;
    int rc = store_job_get(store, request->id, &job, &err);
    if (!rc && !api_match(request, answer, &job))
        return;
    if (!rc)
        rc = apply(request, patch, &err);
    if (!rc)
        rc = store_job_get(store, request->id, &job, &err);
    if (!rc)
        rc = store_event_offset(store, request->id, &offset, &seq, &err);
    cJSON *object = rc ? NULL : api_job_object(request->daemon, &job, &err);
    if (!object) {
        problem_set_err(answer, rc ? rc : err.code, &err);
        return;
    }
    api_answer_json(answer, 200, object);
    api_job_tag(tag, &job, seq);
    api_answer_header(answer, "ETag", "%s", tag);
    answer->next = API_AFTER_COMMIT;
    http_job_changed(request->daemon->http, request->id);
}

void api_jobs_patch(struct api_request *request, struct api_answer *answer)
{
    static const char *const keys[] = {"priority", "labels", NULL};
    cJSON *body;
    struct patch patch = {0};
    if (!api_can_write(request, answer) || !api_body(request, answer, keys, &body))
        return;
    struct spec_faults *faults = mem_zeroed(1, sizeof(*faults));
    if (!faults)
        problem_set(answer, PROBLEM_UNAVAILABLE, "out of memory");
    else if (!read_patch(body, &patch, faults))
        problem_set_faults(answer, PROBLEM_INVALID_BODY, "the body has faults: see errors",
                           faults);
    else
        patch_job(request, answer, &patch);
    free(faults);
    free(patch.labels.items);
    cJSON_Delete(body);
}

/* --- cancelling many --- */

struct many {
    struct job_row *jobs;
    size_t count;
    bool more;
};

static int many_add(void *context, const struct job_row *job)
{
    struct many *many = context;
    if (job_state_final(job->state))
        return 0;
    if (many->count == MANY_MAX) {
        many->more = true;
        return 1;
    }
    many->jobs[many->count++] = *job;
    return 0;
}

/* Fills filter; ids are looked up by the caller. False with answer filled on faults. */
static bool read_filter(const cJSON *body, struct job_filter *filter, char labels[264],
                        struct api_answer *answer)
{
    const char *state = json_string(body, "state"), *label = json_string(body, "label");
    filter->name = json_string(body, "name");
    filter->limit = SIZE_MAX / 2;
    if (label && strlen(label) > 256) {
        problem_set(answer, PROBLEM_INVALID_BODY, "label has more than 256 bytes");
        return false;
    }
    filter->labels = api_labels(label, labels, &filter->label_count);
    if (state && !api_states(state, &filter->states, "/state", answer))
        return false;
    for (int i = 0; !state && i < JOB_STATES; i++)
        if (!job_state_final((enum job_state)i))
            filter->states |= 1u << i;
    return true;
}

static int find_ids(struct api_request *request, const cJSON *ids, struct many *many,
                    cJSON *results, struct err *err)
{
    const cJSON *id;
    cJSON_ArrayForEach(id, ids)
    {
        const char *text = cJSON_IsString(id) ? id->valuestring : "";
        int rc = api_id_valid(text) ? store_job_get(request->daemon->store, text,
                                                    &many->jobs[many->count], err)
                                    : ERR_NOT_FOUND;
        if (rc == ERR_NOT_FOUND) {
            cJSON *item = cJSON_CreateObject();
            cJSON_AddItemToArray(results, item);
            cJSON_AddStringToObject(item, "id", text);
            cJSON_AddNumberToObject(item, "status", 404);
            cJSON_AddStringToObject(item, "detail", "there is no such job");
        } else if (rc) {
            return rc;
        } else {
            many->count++;
        }
    }
    return 0;
}

static int cancel_each(struct api_request *request, const struct many *many, cJSON *results,
                       struct err *err)
{
    for (size_t i = 0; i < many->count; i++) {
        struct job_row job = many->jobs[i];
        int rc = jobs_act(request->daemon->jobs, many->jobs[i].id, ACTION_CANCEL, &job, err);
        if (rc && rc != ERR_CONFLICT)
            return rc;
        cJSON *item = cJSON_CreateObject();
        cJSON_AddItemToArray(results, item);
        cJSON_AddStringToObject(item, "id", many->jobs[i].id);
        cJSON_AddNumberToObject(item, "status", rc ? 409 : 202);
        cJSON_AddStringToObject(item, "state", job_state_name(job.state));
        if (rc)
            cJSON_AddStringToObject(item, "detail", err->text);
    }
    return 0;
}

static void cancel_many(struct api_request *request, struct api_answer *answer,
                        const cJSON *body, struct many *many)
{
    struct job_filter filter = {0};
    struct err err = {0};
    char labels[264];
    int rc = 0;
    const cJSON *ids = json_array(body, "ids");
    cJSON *object = cJSON_CreateObject(), *results = cJSON_AddArrayToObject(object, "results");
    if (ids)
        rc = find_ids(request, ids, many, results, &err);
    else if (!read_filter(body, &filter, labels, answer)) {
        cJSON_Delete(object);
        return;
    } else
        rc = store_jobs_list(request->daemon->store, &filter, many_add, many, &err);
    if (rc == 1) /* many_add's own: there are more */
        rc = 0;
    if (!rc)
        rc = cancel_each(request, many, results, &err);
    if (rc) {
        cJSON_Delete(object);
        problem_set_err(answer, rc, &err);
        return;
    }
    cJSON_AddBoolToObject(object, "more", many->more);
    api_answer_json(answer, 200, object);
    answer->next = API_AFTER_COMMIT;
}

/* Everything at once needs to be said: {"all": true}. */
static bool body_says_which(const cJSON *body, struct spec_faults *faults)
{
    static const char *const texts[] = {"state", "label", "name"};
    const cJSON *ids = cJSON_GetObjectItemCaseSensitive(body, "ids"), *id;
    bool all = false, any = ids != NULL;
    for (size_t i = 0; i < 3; i++) {
        const cJSON *value = cJSON_GetObjectItemCaseSensitive(body, texts[i]);
        char field[16];
        snprintf(field, sizeof(field), "/%s", texts[i]);
        if (value && (!cJSON_IsString(value) || !value->valuestring[0]))
            problem_fault(faults, field, "must be a string");
        else if (value && ids)
            problem_fault(faults, field, "does not go with ids");
        any |= value != NULL;
    }
    if (ids && (!cJSON_IsArray(ids) || cJSON_GetArraySize(ids) > MANY_MAX))
        problem_fault(faults, "/ids", "must be an array of at most %d ids", MANY_MAX);
    else if (ids)
        cJSON_ArrayForEach(id, ids) if (!cJSON_IsString(id))
            problem_fault(faults, "/ids", "an id is a string of 16 hex digits");
    if (cJSON_GetObjectItemCaseSensitive(body, "all") && !json_bool(&all, body, "all"))
        problem_fault(faults, "/all", "must be true or false");
    if (!any && !all)
        problem_fault(faults, "", "name the jobs: ids, state, label, name, or all");
    return faults->count == 0;
}

void api_jobs_cancel_many(struct api_request *request, struct api_answer *answer)
{
    static const char *const keys[] = {"ids", "state", "label", "name", "all", NULL};
    cJSON *body;
    if (!api_can_write(request, answer) || !api_body(request, answer, keys, &body))
        return;
    struct spec_faults *faults = mem_zeroed(1, sizeof(*faults));
    struct many many = {.jobs = mem_zeroed(MANY_MAX, sizeof(*many.jobs))};
    if (!faults || !many.jobs)
        problem_set(answer, PROBLEM_UNAVAILABLE, "out of memory");
    else if (!body_says_which(body, faults))
        problem_set_faults(answer, PROBLEM_INVALID_BODY, "the body has faults: see errors",
                           faults);
    else
        cancel_many(request, answer, body, &many);
    free(many.jobs);
    free(faults);
    cJSON_Delete(body);
}
