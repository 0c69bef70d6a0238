/* Tokens, the audit, and the drain before maintenance. */
#include "daemon/api.h"
#include "daemon/problem.h"
#include "daemon/secret.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- tokens --- */

static bool read_token(const cJSON *body, const char **name, enum auth_role *role,
                       struct spec_faults *faults)
{
    const char *text = json_string(body, "role");
    *name = json_string(body, "name");
    if (!*name || !auth_name_good(*name))
        problem_fault(
            faults, "/name",
            "must be 1 to %d letters, digits, dots, dashes or underlines, and neither "
            "local nor daemon",
            STORE_NAME_MAX - 1);
    if (!text || !auth_role_parse(role, text))
        problem_fault(faults, "/role", "must be read, submit or admin");
    return faults->count == 0;
}

static void add_token(struct api_request *request, struct api_answer *answer, const char *name,
                      enum auth_role role)
{
    char token[SECRET_HEX_MAX], hash[SECRET_HEX_MAX], detail[128];
    struct err err = {0};
    struct store *store = request->daemon->store;
    snprintf(detail, sizeof(detail), "%s, role %s", name, auth_role_name(role));
    int rc = secret_random_hex(token, &err);
    if (!rc)
        rc = secret_hash(hash, token, &err);
    if (!rc)
        rc = store_token_add(store, name, auth_role_name(role), hash, &err);
    if (!rc)
        rc = store_audit(store, "", "token_add", detail, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", name);
    cJSON_AddStringToObject(object, "role", auth_role_name(role));
    cJSON_AddStringToObject(object, "token", token);
    api_answer_json(answer, 201, object);
    answer->next = API_AFTER_COMMIT;
}

void api_tokens_add(struct api_request *request, struct api_answer *answer)
{
    static const char *const keys[] = {"name", "role", NULL};
    cJSON *body;
    const char *name = NULL;
    enum auth_role role = AUTH_READ;
    if (!api_can_write(request, answer) || !api_body(request, answer, keys, &body))
        return;
    struct spec_faults *faults = mem_zeroed(1, sizeof(*faults));
    if (!faults)
        problem_set(answer, PROBLEM_UNAVAILABLE, "out of memory");
    else if (!read_token(body, &name, &role, faults))
        problem_set_faults(answer, PROBLEM_INVALID_BODY, "the body has faults: see errors",
                           faults);
    else
        add_token(request, answer, name, role);
    free(faults);
    cJSON_Delete(body);
}

static int token_item(void *context, const struct token_row *token)
{
    cJSON *item = cJSON_CreateObject();
    cJSON_AddItemToArray(context, item);
    cJSON_AddStringToObject(item, "name", token->name);
    cJSON_AddStringToObject(item, "role", token->role);
    api_add_stamp(item, "created", token->created_ms);
    return 0;
}

void api_tokens_list(struct api_request *request, struct api_answer *answer)
{
    struct err err = {0};
    cJSON *object = cJSON_CreateObject();
    int rc = store_tokens(request->daemon->store, token_item,
                          cJSON_AddArrayToObject(object, "tokens"), &err);
    if (!rc) {
        api_answer_json(answer, 200, object);
        return;
    }
    cJSON_Delete(object);
    problem_set_err(answer, rc, &err);
}

void api_tokens_remove(struct api_request *request, struct api_answer *answer)
{
    const char *name = request->segments.text[0];
    struct err err = {0};
    if (!api_can_write(request, answer))
        return;
    int rc = store_token_remove(request->daemon->store, name, &err);
    if (!rc)
        rc = store_audit(request->daemon->store, "", "token_revoke", name, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "revoked", name);
    api_answer_json(answer, 200, object);
    answer->next = API_AFTER_COMMIT;
}

/* --- audit --- */

struct page {
    cJSON *events;
    size_t limit, count;
    int64_t last;
};

static int audit_item(void *context, const struct audit_row *row)
{
    struct page *page = context;
    if (page->count++ == page->limit)
        return 0;
    cJSON *item = cJSON_CreateObject();
    cJSON_AddItemToArray(page->events, item);
    cJSON_AddNumberToObject(item, "seq", (double)row->seq);
    api_add_stamp(item, "time", row->time_ms);
    cJSON_AddStringToObject(item, "actor", row->actor);
    cJSON_AddStringToObject(item, "action", row->action);
    if (row->job[0])
        cJSON_AddStringToObject(item, "job", row->job);
    else
        cJSON_AddNullToObject(item, "job");
    cJSON_AddStringToObject(item, "detail", row->detail);
    page->last = row->seq;
    return 0;
}

void api_audit(struct api_request *request, struct api_answer *answer)
{
    struct err err = {0};
    struct audit_filter filter = {.job = api_text(request, "job"),
                                  .actor = api_text(request, "actor"),
                                  .action = api_text(request, "action"),
                                  .after = api_int(request, "after"),
                                  .limit = (size_t)api_int(request, "limit") + 1};
    cJSON *object = cJSON_CreateObject();
    struct page page = {.events = cJSON_AddArrayToObject(object, "events"),
                        .limit = filter.limit - 1};
    int rc = store_audit_list(request->daemon->store, &filter, audit_item, &page, &err);
    if (rc) {
        cJSON_Delete(object);
        problem_set_err(answer, rc, &err);
        return;
    }
    api_answer_page(answer, object, page.count > page.limit, page.last);
}

/* --- drain --- */

static void answer_drain(struct api_request *request, struct api_answer *answer)
{
    struct err err = {0};
    int64_t counts[JOB_STATES];
    int rc = store_jobs_count(request->daemon->store, counts, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddBoolToObject(object, "draining", request->daemon->draining);
    cJSON_AddNumberToObject(object, "running",
                            (double)(counts[JOB_STARTING] + counts[JOB_RUNNING] +
                                     counts[JOB_PAUSING] + counts[JOB_CANCELLING]));
    cJSON_AddNumberToObject(object, "waiting",
                            (double)(counts[JOB_QUEUED] + counts[JOB_RETRY_WAIT]));
    api_answer_json(answer, 200, object);
}

void api_drain_show(struct api_request *request, struct api_answer *answer)
{
    answer_drain(request, answer);
}

void api_drain(struct api_request *request, struct api_answer *answer)
{
    static const char *const keys[] = {"draining", NULL};
    cJSON *body;
    struct err err = {0};
    bool draining = false;
    if (!api_can_write(request, answer) || !api_body(request, answer, keys, &body))
        return;
    bool good = json_bool(&draining, body, "draining");
    cJSON_Delete(body);
    if (!good) {
        problem_set(answer, PROBLEM_INVALID_BODY, "/draining: must be true or false");
        return;
    }
    struct store *store = request->daemon->store;
    int rc = store_setting_set(store, "draining", draining, &err);
    if (!rc)
        rc = store_audit(store, "", "drain", draining ? "on" : "off", &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    request->daemon->draining = draining;
    answer_drain(request, answer);
    if (answer->status == 200)
        answer->next = API_AFTER_COMMIT;
}
