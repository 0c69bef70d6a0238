/* Webhooks: where changes of state are sent. */
#include "daemon/api.h"
#include "daemon/problem.h"
#include "daemon/secret.h"
#include "daemon/webhook.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* ["failed", "succeeded"] to " failed succeeded ", NULL to "". */
static void read_states(const cJSON *value, char out[256], struct spec_faults *faults)
{
    const cJSON *item;
    size_t len = 0;
    enum job_state state;
    unsigned seen = 0;
    out[0] = '\0';
    if (value && (!cJSON_IsArray(value) || cJSON_GetArraySize(value) == 0)) {
        problem_fault(faults, "/states", "must be an array of states that is not empty");
        return;
    }
    cJSON_ArrayForEach(item, value)
    {
        if (!cJSON_IsString(item) || !job_state_parse(&state, item->valuestring)) {
            problem_fault(faults, "/states", "an item is no state of a job");
        } else if (!(seen & 1u << state)) {
            seen |= 1u << state;
            len += (size_t)snprintf(out + len, 256 - len, "%s%s ", len ? "" : " ",
                                    item->valuestring);
        }
    }
}

static bool read_webhook(const struct api_request *request, const cJSON *body,
                         struct webhook_row *row, struct spec_faults *faults)
{
    struct err err = {0};
    const char *name = json_string(body, "name"), *url = json_string(body, "url");
    if (!name || !auth_name_good(name))
        problem_fault(faults, "/name",
                      "must be 1 to %d letters, digits, dots, dashes or "
                      "underlines, and neither local nor daemon",
                      STORE_NAME_MAX - 1);
    if (!url)
        problem_fault(faults, "/url", "must be a string");
    else if (webhook_url_check(&request->daemon->config, url, &err))
        problem_fault(faults, "/url", "%s", err.text);
    read_states(cJSON_GetObjectItemCaseSensitive(body, "states"), row->states, faults);
    if (faults->count > 0)
        return false;
    snprintf(row->name, sizeof(row->name), "%s", name);
    snprintf(row->url, sizeof(row->url), "%s", url);
    return true;
}

static void add_webhook(struct api_request *request, struct api_answer *answer,
                        struct webhook_row *row)
{
    struct err err = {0};
    char detail[STORE_TEXT_MAX];
    snprintf(detail, sizeof(detail), "%s to %.400s", row->name, row->url);
    int rc = secret_random_base64(row->secret, &err);
    if (!rc)
        rc = store_webhook_add(request->daemon->store, row, &err);
    if (!rc)
        rc = store_audit(request->daemon->store, "", "webhook_add", detail, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    char secret[80];
    snprintf(secret, sizeof(secret), "whsec_%s", row->secret);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "name", row->name);
    cJSON_AddStringToObject(object, "url", row->url);
    cJSON_AddStringToObject(object, "secret", secret);
    api_answer_json(answer, 201, object);
    answer->next = API_AFTER_COMMIT;
}

void api_webhooks_add(struct api_request *request, struct api_answer *answer)
{
    static const char *const keys[] = {"name", "url", "states", NULL};
    cJSON *body;
    if (!api_can_write(request, answer) || !api_body(request, answer, keys, &body))
        return;
    struct spec_faults *faults = mem_zeroed(1, sizeof(*faults));
    struct webhook_row row = {.created_ms = 0};
    if (!faults)
        problem_set(answer, PROBLEM_UNAVAILABLE, "out of memory");
    else if (!read_webhook(request, body, &row, faults))
        problem_set_faults(answer, PROBLEM_INVALID_BODY, "the body has faults: see errors",
                           faults);
    else
        add_webhook(request, answer, &row);
    free(faults);
    cJSON_Delete(body);
}

static int webhook_item(void *context, const struct webhook_row *row)
{
    char states[256];
    cJSON *item = cJSON_CreateObject();
    cJSON_AddItemToArray(context, item);
    cJSON_AddStringToObject(item, "name", row->name);
    cJSON_AddStringToObject(item, "url", row->url);
    cJSON *list = cJSON_AddArrayToObject(item, "states");
    snprintf(states, sizeof(states), "%s", row->states);
    char *save = NULL;
    for (char *name = strtok_r(states, " ", &save); name; name = strtok_r(NULL, " ", &save))
        cJSON_AddItemToArray(list, cJSON_CreateString(name));
    api_add_stamp(item, "created", row->created_ms);
    cJSON_AddNumberToObject(item, "pending", (double)row->pending);
    cJSON_AddStringToObject(item, "trouble", row->trouble);
    return 0;
}

void api_webhooks_list(struct api_request *request, struct api_answer *answer)
{
    struct err err = {0};
    cJSON *object = cJSON_CreateObject();
    int rc = store_webhooks(request->daemon->store, webhook_item,
                            cJSON_AddArrayToObject(object, "webhooks"), &err);
    if (!rc) {
        api_answer_json(answer, 200, object);
        return;
    }
    cJSON_Delete(object);
    problem_set_err(answer, rc, &err);
}

void api_webhooks_remove(struct api_request *request, struct api_answer *answer)
{
    const char *name = request->segments.text[0];
    struct err err = {0};
    if (!api_can_write(request, answer))
        return;
    int rc = store_webhook_remove(request->daemon->store, name, &err);
    if (!rc)
        rc = store_audit(request->daemon->store, "", "webhook_remove", name, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "removed", name);
    api_answer_json(answer, 200, object);
    answer->next = API_AFTER_COMMIT;
}
