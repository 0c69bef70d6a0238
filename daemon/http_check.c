/* The checks before a handler runs. libmicrohttpd 0.9.75 passes on requests with two Hosts,
 * with Content-Length beside Transfer-Encoding, with two lengths, and with NUL in a header or
 * the path, even when told to be strict: two programs that read such a request differently (a
 * proxy and this one) can be played against each other, so all of them are refused here. */
#include "daemon/http_internal.h"
#include "daemon/problem.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

/* RFC 9110, 5.6.2: the characters of a header's name. */
static const char token_chars[] = "!#$%&'*+-.^_`|~0123456789"
                                  "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ";

struct headers {
    size_t lines, hosts, lengths, encodings, tokens;
    const char *fault; /* static text */
};

static enum MHD_Result header_line(void *context, enum MHD_ValueKind kind, const char *name,
                                   const char *value)
{
    (void)kind;
    struct headers *headers = context;
    headers->lines++;
    headers->hosts += strcasecmp(name, "Host") == 0;
    headers->lengths += strcasecmp(name, "Content-Length") == 0;
    headers->encodings += strcasecmp(name, "Transfer-Encoding") == 0;
    headers->tokens += strcasecmp(name, "Authorization") == 0;
    if (!name[0] || name[strspn(name, token_chars)])
        headers->fault = "a header's name has characters that are not allowed";
    value = value ? value : "";
    size_t len = strlen(value);
    for (size_t i = 0; i < len; i++)
        if (((unsigned char)value[i] < 0x20 && value[i] != '\t') || value[i] == 0x7f)
            headers->fault = "a header has a control character";
    return MHD_YES;
}

/* NUL cuts a header's value short in libmicrohttpd. It leaves the rest of the line behind the
 * value, where after a good line (ended by CR LF, both overwritten with NUL) a second NUL
 * stands. A line ended by LF alone is refused with it. */
static enum MHD_Result header_end(void *context, enum MHD_ValueKind kind, const char *name,
                                  const char *value)
{
    (void)kind, (void)name;
    struct headers *headers = context;
    if (value && value[strlen(value) + 1] != '\0')
        headers->fault = "a header has a NUL or a line does not end with CR LF";
    return MHD_YES;
}

static bool check_headers(struct http_request *request, const char **fault)
{
    struct headers headers = {0};
    MHD_get_connection_values(request->connection, MHD_HEADER_KIND, header_line, &headers);
    if (!headers.fault)
        MHD_get_connection_values(request->connection, MHD_HEADER_KIND, header_end, &headers);
    if (!headers.fault && headers.lines > HTTP_HEADERS_MAX)
        headers.fault = "too many headers";
    if (!headers.fault && headers.hosts != 1)
        headers.fault = headers.hosts ? "more than one Host" : "no Host";
    if (!headers.fault && headers.lengths > 1)
        headers.fault = "more than one Content-Length";
    if (!headers.fault && headers.encodings && headers.lengths)
        headers.fault = "Content-Length beside Transfer-Encoding";
    if (!headers.fault && headers.encodings > 1)
        headers.fault = "more than one Transfer-Encoding";
    if (!headers.fault && headers.tokens > 1)
        headers.fault = "more than one Authorization";
    *fault = headers.fault;
    return headers.fault == NULL;
}

static const char *header(struct http_request *request, const char *name)
{
    return MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, name);
}

/* What is malformed about the request, NULL if nothing. Such a request's end is not sure: close
 * after it. */
static const char *framing_fault(struct http_request *request, const char *version)
{
    const char *fault = NULL;
    if (!request->path)
        return "no path";
    if (strcmp(version, "HTTP/1.1") != 0 && strcmp(version, "HTTP/1.0") != 0)
        return "the version is neither HTTP/1.1 nor HTTP/1.0";
    /* The version stands right behind the path's end: else a NUL cut the path. */
    if (request->raw_uri_end && version != request->raw_uri_end + 1)
        return "the path has a NUL";
    if (!check_headers(request, &fault))
        return fault;
    const char *encoding = header(request, "Transfer-Encoding");
    if (encoding && strcasecmp(encoding, "chunked") != 0)
        return "a Transfer-Encoding other than chunked";
    const char *length = header(request, "Content-Length");
    if (length && (!length[0] || length[strspn(length, "0123456789")]))
        return "Content-Length is not a whole number";
    return NULL;
}

static bool refuse_close(struct http_request *request)
{
    request->answer.close = true;
    return false;
}

/* Nothing of another site's page comes through, reads included: one that could be read without
 * the token would be readable by every page that the user visits. */
static bool check_site(struct http_request *request)
{
    const char *origin = header(request, "Origin"), *site = header(request, "Sec-Fetch-Site");
    if (origin && !http_origin_good(origin, header(request, "Host"))) {
        problem_set(&request->answer, PROBLEM_FOREIGN_ORIGIN,
                    "the page of %.100s may not use this service", origin);
        return false;
    }
    if (site && !http_site_good(site)) {
        problem_set(&request->answer, PROBLEM_FOREIGN_ORIGIN,
                    "a request with Sec-Fetch-Site %.40s is not this service's own page", site);
        return false;
    }
    return true;
}

static bool check_identity(struct http_request *request)
{
    struct err err = {0};
    struct identity *identity = &request->api.identity;
    const char *authorization = header(request, "Authorization");
    if (request->conn->peer.role != AUTH_NOBODY && !authorization) {
        *identity = request->conn->peer;
    } else if (auth_token(request->http->daemon, authorization, identity, &err)) {
        problem_set_err(&request->answer, err.code, &err);
        return false;
    }
    if (identity->role != AUTH_NOBODY)
        return true;
    problem_set(&request->answer, PROBLEM_UNAUTHORIZED,
                "send the header Authorization: Bearer TOKEN; the token is in STATE/token");
    return false;
}

static bool check_role(struct http_request *request)
{
    const struct identity *identity = &request->api.identity;
    const struct api_route *route = request->api.route;
    if (route->open || identity->role >= route->role)
        return true;
    problem_set(&request->answer, PROBLEM_FORBIDDEN, "%s has the role %s; %s %s needs %s",
                identity->name, auth_role_name(identity->role), route->method, route->path,
                auth_role_name(route->role));
    return false;
}

static bool refuse_method(struct http_request *request, const char *allow)
{
    request->file = NULL;
    problem_set(&request->answer, PROBLEM_METHOD, "%.200s answers %s", request->path, allow);
    api_answer_header(&request->answer, "Allow", "%s", allow);
    return false;
}

static bool check_segments(struct http_request *request)
{
    struct api_request *api = &request->api;
    if (!strstr(api->route->path, "{id}"))
        return true;
    if (!api_id_valid(api->segments.text[0])) {
        problem_set(&request->answer, PROBLEM_NOT_FOUND,
                    "there is no job \"%s\": an id has 16 hex digits", api->segments.text[0]);
        return false;
    }
    memcpy(api->id, api->segments.text[0], sizeof(api->id)); /* with its NUL */
    return true;
}

/* Finds the route or the dashboard's file, and who asks. */
static bool check_route(struct http_request *request, const char *method)
{
    char allow[64];
    struct http *http = request->http;
    const char *path = request->path;
    const struct api_route *route =
        api_route_find(method, path, allow, sizeof(allow), &request->api.segments);
    request->api.route = route;
    if (route)
        request->stat_route = (size_t)(route - api_routes);
    if (route || allow[0] || strncmp(path, "/v1/", 4) == 0) {
        bool open = route && route->open;
        if (!open && (!check_site(request) || !check_identity(request)))
            return false;
        if (!route && allow[0])
            return refuse_method(request, allow);
        if (route)
            return check_role(request) && check_segments(request);
    }
    request->file = http_files_find(&http->files, path);
    if (!request->file) {
        problem_set(&request->answer, PROBLEM_NOT_FOUND, "there is no %.200s", path);
        return false;
    }
    if (!request->head && strcmp(method, "GET") != 0)
        return refuse_method(request, "GET, HEAD");
    request->stat_route = HTTP_ROUTE_STATIC;
    return true;
}

static bool check_body_length(struct http_request *request)
{
    const char *length = header(request, "Content-Length");
    unsigned long long bytes = length ? strtoull(length, NULL, 10) : 0;
    if (bytes <= HTTP_BODY_MAX)
        return true;
    problem_set(&request->answer, PROBLEM_TOO_LARGE, "the body has %llu bytes, more than %d",
                bytes, HTTP_BODY_MAX);
    return bytes > HTTP_DRAIN_MAX ? refuse_close(request) : false;
}

bool http_check(struct http_request *request, const char *method, const char *version)
{
    if (request->uri_too_long) {
        problem_set(&request->answer, PROBLEM_URI_TOO_LONG,
                    "path and query have more than %d bytes", HTTP_URI_MAX);
        return refuse_close(request);
    }
    const char *fault = framing_fault(request, version);
    if (fault) {
        problem_set(&request->answer, PROBLEM_BAD_REQUEST, "%s", fault);
        return refuse_close(request);
    }
    const char *host = header(request, "Host");
    if (!http_host_good(request->http, host)) {
        problem_set(&request->answer, PROBLEM_WRONG_HOST,
                    "Host \"%.100s\" is neither a loopback name nor the configured one", host);
        return false;
    }
    if (request->path[0] != '/' || !api_unescape(request->path, false)) {
        problem_set(
            &request->answer, PROBLEM_BAD_REQUEST,
            "the path does not start with /, or has a bad escape or a control character");
        return false;
    }
    if (!check_route(request, method))
        return false;
    if (request->api.route && !api_query_parse(&request->api, request->query, &request->answer))
        return false;
    return check_body_length(request);
}
