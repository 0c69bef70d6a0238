/* From an answer to libmicrohttpd's response. */
#include "daemon/http_internal.h"
#include "daemon/problem.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include <stdlib.h>
#include <string.h>

/* The page runs its own script and style only, talks to this daemon only, and is framed by
 * nobody. */
static const char page_policy[] =
    "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' "
    "data:; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

static void count_answer(struct http_request *request, int status)
{
    size_t class = (size_t)status / 100;
    if (class < 6)
        request->http->stats.answers[request->stat_route][class]++;
}

enum MHD_Result http_queue(struct http_request *request, struct MHD_Response *response,
                           enum http_phase phase)
{
    const struct api_answer *answer = &request->answer;
    MHD_add_response_header(response, "Content-Type", answer->type);
    MHD_add_response_header(response, "X-Content-Type-Options", "nosniff");
    MHD_add_response_header(response, "Referrer-Policy", "no-referrer");
    MHD_add_response_header(response, "Cross-Origin-Resource-Policy", "same-origin");
    if (request->file) {
        MHD_add_response_header(response, "Cache-Control", "no-cache");
        MHD_add_response_header(response, "ETag", request->file->etag);
        MHD_add_response_header(response, "Content-Security-Policy", page_policy);
        MHD_add_response_header(response, "Cross-Origin-Opener-Policy", "same-origin");
    } else {
        MHD_add_response_header(response, "Cache-Control", "no-store");
    }
    for (size_t i = 0; i < answer->header_count; i++)
        MHD_add_response_header(response, answer->headers[i].name, answer->headers[i].value);
    if (answer->close)
        MHD_add_response_header(response, "Connection", "close");
    http_conn_phase(request->conn, phase);
    count_answer(request, answer->status);
    log_debug("%s %d", request->path ? request->path : "?", answer->status);
    enum MHD_Result result =
        MHD_queue_response(request->connection, (unsigned)answer->status, response);
    MHD_destroy_response(response);
    return result;
}

enum MHD_Result http_send(struct http_request *request)
{
    struct api_answer *answer = &request->answer;
    if (answer->body.failed) {
        log_error("%s: the answer is over %d bytes, or out of memory",
                  request->path ? request->path : "?", API_ANSWER_MAX);
        problem_set(answer, PROBLEM_INTERNAL, "the answer is too large; ask for less");
    }
    size_t len = answer->body.len;
    char *body = buf_detach(&answer->body);
    if (!body)
        return MHD_NO;
    struct MHD_Response *response =
        MHD_create_response_from_buffer(len, body, MHD_RESPMEM_MUST_FREE);
    if (!response) {
        free(body);
        return MHD_NO;
    }
    return http_queue(request, response, HTTP_SENDING);
}

enum MHD_Result http_send_file(struct http_request *request)
{
    const struct http_file *file = request->file;
    const char *known =
        MHD_lookup_connection_value(request->connection, MHD_HEADER_KIND, "If-None-Match");
    bool same = known && (strstr(known, file->etag) || strcmp(known, "*") == 0);
    request->answer.status = same ? 304 : 200;
    request->answer.type = file->type;
    struct MHD_Response *response = MHD_create_response_from_buffer(
        same ? 0 : file->len, file->data, MHD_RESPMEM_PERSISTENT);
    return response ? http_queue(request, response, HTTP_SENDING) : MHD_NO;
}

enum MHD_Result http_send_part(struct http_request *request)
{
    struct api_answer *answer = &request->answer;
    struct MHD_Response *response =
        MHD_create_response_from_fd_at_offset64(answer->length, answer->fd, answer->offset);
    if (!response)
        return MHD_NO;
    answer->fd = -1; /* the response closes it */
    enum MHD_Result result = http_queue(request, response, HTTP_SENDING);
    request->conn->extra_ms = (int64_t)(answer->length / HTTP_FILE_BYTES_PER_MS);
    return result;
}
