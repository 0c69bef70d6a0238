/* What handlers share: bodies, filters, entity tags. */
#include "daemon/api.h"
#include "daemon/problem.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

void api_add_stamp(cJSON *object, const char *key, int64_t wall_ms)
{
    char stamp[CLOCK_STAMP_MAX];
    if (wall_ms)
        cJSON_AddStringToObject(object, key, clock_stamp(stamp, wall_ms));
    else
        cJSON_AddNullToObject(object, key);
}

bool api_can_write(const struct api_request *request, struct api_answer *answer)
{
    if (request->daemon->stopping) {
        problem_set(answer, PROBLEM_UNAVAILABLE, "the daemon is stopping");
        return false;
    }
    if (!store_writable(request->daemon->store)) {
        problem_set(answer, PROBLEM_READ_ONLY,
                    "the daemon's disk is full or failing; reads still work");
        return false;
    }
    return true;
}

/* --- bodies --- */

static bool type_is_json(const char *type)
{
    static const char json[] = "application/json";
    if (!type || strncasecmp(type, json, sizeof(json) - 1) != 0)
        return false;
    const char *rest = type + sizeof(json) - 1;
    rest += strspn(rest, " \t");
    if (*rest == '\0')
        return true;
    if (*rest++ != ';')
        return false;
    rest += strspn(rest, " \t");
    return strcasecmp(rest, "charset=utf-8") == 0 || strcasecmp(rest, "charset=\"utf-8\"") == 0;
}

bool api_body_is_json(const struct api_request *request, struct api_answer *answer)
{
    if (type_is_json(request->content_type))
        return true;
    problem_set(answer, PROBLEM_MEDIA_TYPE, "Content-Type is %s, not application/json",
                request->content_type ? request->content_type : "missing");
    return false;
}

bool api_body_empty(const struct api_request *request)
{
    static const char blank[] = " \t\r\n";
    const char *text = request->body + strspn(request->body, blank);
    if (strncmp(text, "{}", 2) == 0)
        text += 2;
    text += strspn(text, blank);
    return text == request->body + request->body_len;
}

static bool is_key(const char *const *keys, const char *name)
{
    for (; *keys; keys++)
        if (strcmp(*keys, name) == 0)
            return true;
    return false;
}

static void name_unknown(const cJSON *object, const char *const *keys,
                         struct spec_faults *faults)
{
    for (const cJSON *item = object->child; item; item = item->next) {
        struct buf pointer;
        buf_init(&pointer, OPT_STRING_MAX - 1);
        json_pointer_add(&pointer, item->string);
        if (!is_key(keys, item->string))
            problem_fault(faults, pointer.data ? pointer.data : "/", "unknown field");
        buf_release(&pointer);
    }
}

bool api_body(struct api_request *request, struct api_answer *answer, const char *const *keys,
              cJSON **out)
{
    *out = NULL;
    if (!api_body_is_json(request, answer))
        return false;
    struct spec_faults *faults = mem_zeroed(1, sizeof(*faults));
    struct err err = {0};
    if (!faults) {
        problem_set(answer, PROBLEM_UNAVAILABLE, "out of memory");
        return false;
    }
    if (json_parse(out, request->body, request->body_len, &err)) {
        problem_fault(faults, "", "%s", err.text);
        problem_set_faults(answer, PROBLEM_INVALID_JSON, err.text, faults);
    } else if (!cJSON_IsObject(*out)) {
        problem_fault(faults, "", "must be an object");
    } else {
        name_unknown(*out, keys, faults);
    }
    bool good = faults->count == 0;
    if (!good && *out)
        problem_set_faults(answer, PROBLEM_INVALID_BODY, "the body has faults: see errors",
                           faults);
    if (!good) {
        cJSON_Delete(*out);
        *out = NULL;
    }
    free(faults);
    return good;
}

/* --- filters --- */

bool api_states(const char *text, unsigned *bits, const char *field, struct api_answer *answer)
{
    while (*text) {
        char name[32];
        size_t len = strcspn(text, ",");
        enum job_state state;
        snprintf(name, sizeof(name), "%.*s", (int)(len < sizeof(name) ? len : sizeof(name) - 1),
                 text);
        if (!job_state_parse(&state, name)) {
            struct spec_faults *faults = mem_zeroed(1, sizeof(*faults));
            if (faults) {
                problem_fault(faults, field, "\"%s\" is no state of a job", name);
                problem_set_faults(
                    answer, field[0] == '?' ? PROBLEM_INVALID_QUERY : PROBLEM_INVALID_BODY,
                    field[0] == '?' ? "the query has faults: see errors"
                                    : "the body has faults: see errors",
                    faults);
            }
            free(faults);
            return false;
        }
        *bits |= 1u << state;
        text += len + (text[len] == ',');
    }
    return true;
}

const char *api_labels(const char *text, char out[264], size_t *count)
{
    *count = 0;
    if (!text || !text[0])
        return NULL;
    snprintf(out, 264, ",%s,", text);
    for (const char *c = out + 1; *c; c++)
        *count += *c == ',';
    return out;
}

/* --- entity tags --- */

void api_job_tag(char out[64], const struct job_row *job, uint64_t seq)
{
    snprintf(out, 64, "\"%lld.%llu\"", (long long)job->version, (unsigned long long)seq);
}

/* Whether one of the header's tags has this version before its dot. Weak tags (W/) do not
 * count: RFC 9110, 13.1.1 asks for the strong comparison. */
static bool tag_listed(const char *list, int64_t version)
{
    char wanted[32];
    int len = snprintf(wanted, sizeof(wanted), "\"%lld.", (long long)version);
    for (const char *at = list; (at = strstr(at, wanted)); at++) {
        size_t digits = strspn(at + len, "0123456789");
        bool weak = at - list >= 2 && at[-1] == '/';
        if (digits > 0 && at[(size_t)len + digits] == '"' && !weak)
            return true;
    }
    return false;
}

bool api_match(const struct api_request *request, struct api_answer *answer,
               const struct job_row *job)
{
    if (!request->if_match || strcmp(request->if_match, "*") == 0 ||
        tag_listed(request->if_match, job->version))
        return true;
    problem_set(answer, PROBLEM_PRECONDITION,
                "job %s is at version %lld; If-Match is %.100s: read it again", job->id,
                (long long)job->version, request->if_match);
    return false;
}
