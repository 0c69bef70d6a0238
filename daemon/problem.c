#include "daemon/problem.h"

#include "daemon/api.h"
#include "proto/base/log.h"
#include <assert.h>
#include <cjson/cJSON.h>
#include <stdarg.h>
#include <stdio.h>

static const struct {
    int status;
    const char *code;
    const char *title;
} kinds[PROBLEM_COUNT] = {
    [PROBLEM_BAD_REQUEST] = {400, "bad_request", "The request is malformed"},
    [PROBLEM_INVALID_QUERY] = {400, "invalid_query", "The query is not valid"},
    [PROBLEM_INVALID_JSON] = {400, "invalid_json", "The body is not JSON"},
    [PROBLEM_UNAUTHORIZED] = {401, "unauthorized", "The token is missing or wrong"},
    [PROBLEM_FOREIGN_ORIGIN] = {403, "foreign_origin", "Pages of other sites are refused"},
    [PROBLEM_FORBIDDEN] = {403, "forbidden", "The token's role does not allow it"},
    [PROBLEM_WRONG_HOST] = {403, "wrong_host", "The Host header names another service"},
    [PROBLEM_NOT_FOUND] = {404, "not_found", "There is no such thing"},
    [PROBLEM_METHOD] = {405, "method_not_allowed", "The method is not allowed here"},
    [PROBLEM_CONFLICT] = {409, "conflict", "The state does not allow it"},
    [PROBLEM_IN_FLIGHT] = {409, "idempotency_in_flight",
                           "The first request with this Idempotency-Key has no answer yet"},
    [PROBLEM_PRECONDITION] = {412, "precondition_failed", "The job has changed"},
    [PROBLEM_TOO_LARGE] = {413, "too_large", "The body is too large"},
    [PROBLEM_URI_TOO_LONG] = {414, "uri_too_long", "The address is too long"},
    [PROBLEM_MEDIA_TYPE] = {415, "media_type", "The body must be application/json"},
    [PROBLEM_RANGE] = {416, "range", "The range is outside the file"},
    [PROBLEM_IDEMPOTENCY] = {422, "idempotency_conflict",
                             "The Idempotency-Key was used with another body"},
    [PROBLEM_INVALID_BODY] = {422, "invalid_body", "The body is not valid"},
    [PROBLEM_INVALID_JOB] = {422, "invalid_job", "The job is not valid"},
    [PROBLEM_UNSUPPORTED] = {422, "unsupported", "This build or machine does not have it"},
    [PROBLEM_INTERNAL] = {500, "internal", "The daemon failed"},
    [PROBLEM_NOT_COMMITTED] = {503, "not_committed", "The write could not be made durable"},
    [PROBLEM_READ_ONLY] = {503, "read_only", "The daemon cannot write at present"},
    [PROBLEM_TOO_MANY_STREAMS] = {503, "too_many_streams", "All event streams are in use"},
    [PROBLEM_UNAVAILABLE] = {503, "unavailable", "The daemon cannot do it now"},
};

int problem_status(enum problem problem)
{
    assert(problem < PROBLEM_COUNT);
    return kinds[problem].status;
}

const char *problem_code(enum problem problem)
{
    assert(problem < PROBLEM_COUNT);
    return kinds[problem].code;
}

static void set_detail(struct api_answer *answer, enum problem problem, const char *detail,
                       const struct spec_faults *faults)
{
    char type[64];
    snprintf(type, sizeof(type), "urn:hebb:problem:%s", problem_code(problem));
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "type", type);
    cJSON_AddStringToObject(object, "title", kinds[problem].title);
    cJSON_AddNumberToObject(object, "status", problem_status(problem));
    cJSON_AddStringToObject(object, "detail", detail);
    cJSON_AddStringToObject(object, "code", problem_code(problem));
    if (faults) {
        size_t kept = faults->count < SPEC_FAULTS_MAX ? faults->count : SPEC_FAULTS_MAX;
        cJSON *errors = cJSON_AddArrayToObject(object, "errors");
        for (size_t i = 0; i < kept; i++) {
            cJSON *item = cJSON_CreateObject();
            cJSON_AddStringToObject(item, "field", faults->items[i].field);
            cJSON_AddStringToObject(item, "reason", faults->items[i].reason);
            cJSON_AddItemToArray(errors, item);
        }
        if (faults->count > kept)
            cJSON_AddNumberToObject(object, "errors_left_out", (double)(faults->count - kept));
    }
    api_answer_clear(answer);
    api_answer_json(answer, problem_status(problem), object);
    answer->type = "application/problem+json";
    if (problem == PROBLEM_UNAUTHORIZED)
        api_answer_header(answer, "WWW-Authenticate", "Bearer realm=\"hebb\"");
    if (problem_status(problem) == 503 || problem == PROBLEM_IN_FLIGHT)
        api_answer_header(answer, "Retry-After", problem == PROBLEM_IN_FLIGHT ? "1" : "5");
}

void problem_set(struct api_answer *answer, enum problem problem, const char *format, ...)
{
    char detail[ERR_TEXT_MAX];
    va_list args;
    va_start(args, format);
    vsnprintf(detail, sizeof(detail), format, args);
    va_end(args);
    set_detail(answer, problem, detail, NULL);
}

void problem_set_faults(struct api_answer *answer, enum problem problem, const char *detail,
                        const struct spec_faults *faults)
{
    set_detail(answer, problem, detail, faults);
}

void problem_fault(struct spec_faults *faults, const char *field, const char *format, ...)
{
    if (faults->count < SPEC_FAULTS_MAX) {
        struct spec_fault *fault = &faults->items[faults->count];
        snprintf(fault->field, sizeof(fault->field), "%s", field);
        va_list args;
        va_start(args, format);
        vsnprintf(fault->reason, sizeof(fault->reason), format, args);
        va_end(args);
    }
    faults->count++;
}

void problem_set_err(struct api_answer *answer, int code, const struct err *err)
{
    switch (code) {
    case ERR_INVALID:
        problem_set(answer, PROBLEM_BAD_REQUEST, "%s", err->text);
        return;
    case ERR_NOT_FOUND:
        problem_set(answer, PROBLEM_NOT_FOUND, "%s", err->text);
        return;
    case ERR_CONFLICT:
        problem_set(answer, PROBLEM_CONFLICT, "%s", err->text);
        return;
    case ERR_LIMIT:
        problem_set(answer, PROBLEM_UNAVAILABLE, "%s", err->text);
        return;
    case ERR_UNSUPPORTED:
        problem_set(answer, PROBLEM_UNSUPPORTED, "%s", err->text);
        return;
    case ERR_NO_SPACE:
        problem_set(answer, PROBLEM_READ_ONLY, "%s", err->text);
        return;
    default:
        log_error("request failed (%s): %s", err_name(code), err->text);
        problem_set(answer, PROBLEM_INTERNAL,
                    "the daemon failed to answer (%s); its log says why", err_name(code));
    }
}
