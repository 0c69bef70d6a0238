/* A request's way through libmicrohttpd's callbacks: its line (http_on_uri), its headers, its
 * body, its handler, and, if it was held, its second call. */
#include "daemon/http_internal.h"
#include "daemon/problem.h"
#include "proto/base/clock.h"
#include "proto/base/mem.h"
#include <stdlib.h>
#include <string.h>

/* Called with the raw request line's path and query, before anything is decoded. */
void *http_on_uri(void *context, const char *uri, struct MHD_Connection *connection)
{
    struct http *http = context;
    struct http_request *request = mem_zeroed(1, sizeof(*request));
    if (!request)
        return NULL;
    request->http = http;
    request->connection = connection;
    request->stat_route = HTTP_ROUTE_NONE;
    request->api.daemon = http->daemon;
    buf_init(&request->body, HTTP_BODY_MAX);
    api_answer_init(&request->answer);
    if (!uri)
        return request;
    size_t len = strlen(uri);
    request->raw_uri_end = uri + len;
    request->uri_too_long = len > HTTP_URI_MAX;
    request->path = request->uri_too_long ? NULL : mem_strdup(uri);
    if (request->path) {
        char *mark = strchr(request->path, '?');
        request->query = mark ? mark + 1 : request->path + len;
        if (mark)
            *mark = '\0';
    }
    return request;
}

void http_on_completed(void *context, struct MHD_Connection *connection, void **state,
                       enum MHD_RequestTerminationCode code)
{
    (void)context, (void)connection, (void)code;
    struct http_request *request = *state;
    *state = NULL;
    if (!request)
        return;
    if (request->stage == STAGE_COMMIT || request->stage == STAGE_WAIT)
        http_release_held(request);
    if (request->conn)
        http_conn_phase(request->conn, HTTP_RECEIVING);
    free(request->path);
    buf_release(&request->body);
    api_answer_release(&request->answer);
    free(request);
}

/* --- holding --- */

static enum MHD_Result hold(struct http_request *request, enum http_stage stage,
                            int64_t wait_ms)
{
    struct http *http = request->http;
    request->stage = stage;
    /* A request that was woken for nothing waits on until its first deadline. */
    if (request->hold_until_ms == 0)
        request->hold_until_ms = clock_monotonic_ms() + wait_ms;
    HTTP_LIST_ADD(http->held, request);
    if (stage == STAGE_COMMIT)
        http->held_commits++;
    else
        http->held_events++;
    http_conn_phase(request->conn, HTTP_HELD);
    MHD_suspend_connection(request->connection);
    return MHD_YES;
}

void http_release_held(struct http_request *request)
{
    struct http *http = request->http;
    HTTP_LIST_REMOVE(http->held, request);
    if (request->stage == STAGE_COMMIT)
        http->held_commits--;
    else
        http->held_events--;
    request->stage = request->stage == STAGE_COMMIT ? STAGE_COMMITTED : STAGE_AGAIN;
}

/* --- handler --- */

/* Whether the first request with this key waits for its commit: what it answers is not known.
 */
static bool key_in_flight(const struct http_request *request)
{
    const char *key = request->api.idempotency_key;
    for (const struct http_request *held = request->http->held; key && held; held = held->next)
        if (held->stage == STAGE_COMMIT && held->api.idempotency_key &&
            strcmp(held->api.idempotency_key, key) == 0)
            return true;
    return false;
}

static enum MHD_Result handle(struct http_request *request)
{
    struct http *http = request->http;
    bool may_wait = !request->head && http->held_events < http->limits.held && !http->closing;
    for (;;) {
        api_answer_clear(&request->answer);
        store_act_as(http->daemon->store, request->api.identity.name);
        request->api.route->handle(&request->api, &request->answer);
        store_act_as(http->daemon->store, "");
        if (request->answer.next != API_WAIT)
            break;
        if (may_wait)
            return hold(request, STAGE_WAIT, request->answer.wait_ms);
        request->api.expired = true;
    }
    if (request->answer.next == API_AFTER_COMMIT)
        return hold(request, STAGE_COMMIT, 0);
    if (request->answer.next == API_STREAM && !request->head)
        return http_stream_start(request);
    if (request->answer.next == API_FILE)
        return http_send_part(request);
    return http_send(request);
}

static enum MHD_Result request_whole(struct http_request *request)
{
    struct api_request *api = &request->api;
    if (!request->refused && request->body.failed) {
        problem_set(&request->answer, PROBLEM_TOO_LARGE, "the body has more than %d bytes",
                    HTTP_BODY_MAX);
        request->refused = true;
    }
    if (!request->refused && request->http->closing) {
        problem_set(&request->answer, PROBLEM_UNAVAILABLE, "the daemon is stopping");
        request->refused = true;
    }
    if (request->refused)
        return http_send(request);
    if (request->file)
        return http_send_file(request);
    struct MHD_Connection *connection = request->connection;
    api->body = request->body.data ? request->body.data : "";
    api->body_len = request->body.len;
    api->content_type =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Content-Type");
    api->idempotency_key =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Idempotency-Key");
    api->last_event_id =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Last-Event-ID");
    api->if_match = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "If-Match");
    api->if_none_match =
        MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "If-None-Match");
    api->range = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "Range");
    api->if_range = MHD_lookup_connection_value(connection, MHD_HEADER_KIND, "If-Range");
    if (key_in_flight(request)) {
        problem_set(&request->answer, PROBLEM_IN_FLIGHT, "ask again in a second");
        return http_send(request);
    }
    return handle(request);
}

static enum MHD_Result request_begin(struct http_request *request, const char *method,
                                     const char *version)
{
    request->head = strcmp(method, "HEAD") == 0;
    request->conn = http_conn_of(request->connection);
    if (!request->conn)
        return MHD_NO; /* there was no memory for it */
    request->stage = STAGE_BODY;
    request->refused = !http_check(request, method, version);
    /* A refusal normally waits for the body's end, so that the client reads it and may go on
     * with the connection. */
    return request->refused && request->answer.close ? http_send(request) : MHD_YES;
}

static enum MHD_Result request_body(struct http_request *request, const char *upload,
                                    size_t *upload_len)
{
    request->drained += *upload_len;
    if (!request->refused && request->api.route && request->api.route->method[0] == 'P')
        buf_add(&request->body, upload, *upload_len);
    *upload_len = 0;
    return request->drained > HTTP_DRAIN_MAX ? MHD_NO : MHD_YES;
}

enum MHD_Result http_on_request(void *context, struct MHD_Connection *connection,
                                const char *url, const char *method, const char *version,
                                const char *upload, size_t *upload_len, void **state)
{
    (void)context, (void)connection, (void)url;
    struct http_request *request = *state;
    if (!request)
        return MHD_NO;
    switch (request->stage) {
    case STAGE_NEW:
        return request_begin(request, method, version);
    case STAGE_BODY:
        return *upload_len ? request_body(request, upload, upload_len) : request_whole(request);
    case STAGE_COMMITTED:
        return http_send(request);
    case STAGE_AGAIN:
        request->api.again = true;
        return handle(request);
    case STAGE_COMMIT:
    case STAGE_WAIT:
        break; /* suspended: not called */
    }
    return MHD_NO;
}
