#include "daemon/api.h"

#include "daemon/problem.h"
#include "proto/base/log.h"
#include "proto/json/json.h"
#include "proto/json/json_scan.h"
#include <assert.h>
#include <ctype.h>
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

size_t api_route_count(void)
{
    size_t count = 0;
    while (api_routes[count].path)
        count++;
    return count;
}

/* --- routing --- */

bool api_id_valid(const char *id)
{
    return strlen(id) == STORE_ID_MAX - 1 && strspn(id, "0123456789abcdef") == STORE_ID_MAX - 1;
}

/* Whether path fits pattern; what its {parts} matched goes to segments. */
static bool path_matches(const char *pattern, const char *path, struct api_segments *segments)
{
    segments->count = 0;
    while (*pattern) {
        if (*pattern != '{') {
            if (*pattern++ != *path++)
                return false;
            continue;
        }
        size_t len = strcspn(path, "/");
        assert(segments->count < API_SEGMENTS_MAX);
        if (len == 0)
            return false;
        snprintf(segments->text[segments->count++], API_SEGMENT_MAX, "%.*s",
                 (int)(len < API_SEGMENT_MAX ? len : 0), path);
        path += len;
        pattern = strchr(pattern, '}') + 1;
    }
    return *path == '\0';
}

const struct api_route *api_route_find(const char *method, const char *path, char *allow,
                                       size_t size, struct api_segments *segments)
{
    const char *wanted = strcmp(method, "HEAD") == 0 ? "GET" : method;
    allow[0] = '\0';
    for (const struct api_route *route = api_routes; route->path; route++) {
        if (!path_matches(route->path, path, segments))
            continue;
        if (strcmp(route->method, wanted) == 0)
            return route;
        size_t len = strlen(allow);
        snprintf(allow + len, size - len, "%s%s", len ? ", " : "",
                 strcmp(route->method, "GET") == 0 ? "GET, HEAD" : route->method);
    }
    segments->count = 0;
    return NULL;
}

/* --- query --- */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9')
        return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

bool api_unescape(char *text, bool query)
{
    char *out = text;
    for (const char *in = text; *in; in++) {
        char c = *in;
        if (c == '%') {
            int high = hex_digit(in[1]);
            int low = high < 0 ? -1 : hex_digit(in[2]);
            if (low < 0)
                return false;
            c = (char)(high * 16 + low);
            in += 2;
        } else if (c == '+' && query) {
            c = ' ';
        }
        if ((unsigned char)c < 0x20 || c == 0x7f)
            return false;
        *out++ = c;
    }
    *out = '\0';
    return true;
}

static bool is_utf8(const char *text)
{
    const char *end = text + strlen(text);
    while (text < end) {
        size_t len = json_utf8_length(text, (size_t)(end - text));
        if (len == 0)
            return false;
        text += len;
    }
    return true;
}

/* Reads text as option's value into slot i of the request. */
static void option_set(struct api_request *request, size_t i, const char *text,
                       struct spec_faults *faults)
{
    const struct api_option *option = &request->route->options[i];
    char field[72], *end;
    snprintf(field, sizeof(field), "?%s", option->name);
    request->options[i].text = text;
    switch (option->type) {
    case API_INT:
        errno = 0;
        request->options[i].number = strtoll(text, &end, 10);
        if (!(isdigit((unsigned char)text[0]) || text[0] == '-') || *end || end == text)
            problem_fault(faults, field, "\"%.64s\" is not a whole number", text);
        else if (errno || request->options[i].number < option->min ||
                 request->options[i].number > option->max)
            problem_fault(faults, field, "%.64s is outside %lld to %lld", text,
                          (long long)option->min, (long long)option->max);
        return;
    case API_BOOL:
        if (strcmp(text, "1") == 0 || strcmp(text, "true") == 0)
            request->options[i].number = 1;
        else if (strcmp(text, "0") == 0 || strcmp(text, "false") == 0)
            request->options[i].number = 0;
        else
            problem_fault(faults, field, "\"%.64s\" is none of 0, 1, false, true", text);
        return;
    case API_TEXT:
        if (strlen(text) > (size_t)option->max)
            problem_fault(faults, field, "has %zu bytes, more than %lld", strlen(text),
                          (long long)option->max);
        else if (!is_utf8(text))
            problem_fault(faults, field, "is not UTF-8");
        return;
    }
}

/* One "key=value" of the query. */
static void pair_parse(struct api_request *request, char *pair, struct spec_faults *faults)
{
    char *value = strchr(pair, '=');
    if (value)
        *value++ = '\0';
    else
        value = pair + strlen(pair);
    char field[72];
    if (!api_unescape(pair, true) || !api_unescape(value, true) || !is_utf8(pair)) {
        problem_fault(faults, "?", "an escape is malformed or stands for a control character");
        return;
    }
    snprintf(field, sizeof(field), "?%.64s", pair);
    const struct api_option *options = request->route->options;
    for (size_t i = 0; options && options[i].name; i++) {
        if (strcmp(options[i].name, pair) != 0)
            continue;
        if (request->options[i].given) {
            problem_fault(faults, field, "given twice");
            return;
        }
        request->options[i].given = true;
        option_set(request, i, value, faults);
        return;
    }
    problem_fault(faults, field, "unknown; %s %s takes%s", request->route->method,
                  request->route->path, options ? " other options" : " no option");
}

bool api_query_parse(struct api_request *request, char *query, struct api_answer *answer)
{
    struct spec_faults *faults = calloc(1, sizeof(*faults));
    if (!faults) {
        problem_set(answer, PROBLEM_UNAVAILABLE, "out of memory");
        return false;
    }
    char *save = NULL;
    for (char *pair = strtok_r(query, "&", &save); pair; pair = strtok_r(NULL, "&", &save))
        pair_parse(request, pair, faults);
    const struct api_option *options = request->route->options;
    for (size_t i = 0; options && options[i].name; i++) {
        assert(i < API_OPTIONS_MAX);
        if (!request->options[i].given && options[i].def)
            option_set(request, i, options[i].def, faults);
    }
    bool good = faults->count == 0;
    if (!good)
        problem_set_faults(answer, PROBLEM_INVALID_QUERY, "the query has faults: see errors",
                           faults);
    free(faults);
    return good;
}

static size_t option_index(const struct api_request *request, const char *name)
{
    size_t i = 0;
    while (strcmp(request->route->options[i].name, name) != 0) {
        i++;
        assert(request->route->options[i].name);
    }
    return i;
}

int64_t api_int(const struct api_request *request, const char *name)
{
    return request->options[option_index(request, name)].number;
}

const char *api_text(const struct api_request *request, const char *name)
{
    return request->options[option_index(request, name)].text;
}

bool api_given(const struct api_request *request, const char *name)
{
    return request->options[option_index(request, name)].given;
}

/* --- answers --- */

void api_answer_init(struct api_answer *answer)
{
    *answer = (struct api_answer){.status = 500, .type = "application/json", .fd = -1};
    buf_init(&answer->body, API_ANSWER_MAX);
}

static void drop_file(struct api_answer *answer)
{
    if (answer->next == API_FILE && answer->fd >= 0)
        close(answer->fd);
    answer->fd = -1;
}

void api_answer_release(struct api_answer *answer)
{
    drop_file(answer);
    buf_release(&answer->body);
}

void api_answer_clear(struct api_answer *answer)
{
    drop_file(answer);
    struct buf body = answer->body;
    buf_clear(&body);
    *answer = (struct api_answer){.status = 500,
                                  .type = "application/json",
                                  .body = body,
                                  .fd = -1,
                                  .close = answer->close};
}

void api_answer_header(struct api_answer *answer, const char *name, const char *format, ...)
{
    assert(answer->header_count < API_HEADERS_MAX);
    size_t i = answer->header_count++;
    answer->headers[i].name = name;
    va_list args;
    va_start(args, format);
    vsnprintf(answer->headers[i].value, sizeof(answer->headers[i].value), format, args);
    va_end(args);
}

void api_answer_json(struct api_answer *answer, int status, struct cJSON *object)
{
    answer->status = status;
    answer->type = "application/json";
    buf_clear(&answer->body);
    if (object)
        json_print(object, &answer->body);
    else
        answer->body.failed = true;
    cJSON_Delete(object);
}

void api_answer_page(struct api_answer *answer, struct cJSON *object, bool more, int64_t last)
{
    if (more)
        cJSON_AddNumberToObject(object, "next_after", (double)last);
    else
        cJSON_AddNullToObject(object, "next_after");
    api_answer_json(answer, 200, object);
}
