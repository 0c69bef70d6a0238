/* Server-sent events. A stream with nothing to say is suspended in libmicrohttpd; news of its
 * job or the time for a comment resumes it. Suspended connections cost nothing and are never
 * timed out by the library, hence the comments: writing one is how a gone client is noticed. */
#include "daemon/http_internal.h"
#include "daemon/problem.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

enum { STREAM_READ_BYTES = 16384 };

static void stream_resume(struct http_stream *stream)
{
    if (!stream->suspended)
        return;
    stream->suspended = false;
    stream->asked_ms = clock_monotonic_ms();
    http_resume(stream->http, stream->connection);
}

/* Fills stream->out with what is new. False: the store failed and the stream must end. */
static bool stream_fill(struct http_stream *stream)
{
    struct err err = {0};
    if (api_feed_fill(stream->http->daemon, &stream->feed, &stream->out, &stream->over, &err)) {
        log_error("event stream of job %s: %s", stream->feed.id, err.text);
        return false;
    }
    return true;
}

static ssize_t stream_read(void *context, uint64_t position, char *out, size_t max)
{
    (void)position;
    struct http_stream *stream = context;
    int64_t now = clock_monotonic_ms();
    stream->asked_ms = now;
    if (stream->sent == stream->out.len) {
        buf_clear(&stream->out);
        stream->sent = 0;
        if (stream->over || stream->http->closing)
            return MHD_CONTENT_READER_END_OF_STREAM;
        if (!stream_fill(stream))
            return MHD_CONTENT_READER_END_WITH_ERROR;
        if (stream->out.len == 0 && stream->comment_due)
            buf_puts(&stream->out, ":\n\n");
        stream->comment_due = false;
    }
    size_t left = stream->out.len - stream->sent;
    if (left == 0 && stream->over)
        return MHD_CONTENT_READER_END_OF_STREAM;
    if (left == 0) {
        stream->suspended = true;
        MHD_suspend_connection(stream->connection);
        return 0;
    }
    size_t len = left < max ? left : max;
    memcpy(out, stream->out.data + stream->sent, len);
    stream->sent += len;
    stream->spoke_ms = now;
    return (ssize_t)len;
}

static void stream_free(void *context)
{
    struct http_stream *stream = context;
    HTTP_LIST_REMOVE(stream->http->streams, stream);
    stream->http->stats.streams--;
    buf_release(&stream->out);
    free(stream);
}

enum MHD_Result http_stream_start(struct http_request *request)
{
    struct http *http = request->http;
    if (http->stats.streams >= http->limits.streams) {
        problem_set(&request->answer, PROBLEM_TOO_MANY_STREAMS,
                    "%u event streams are open, as many as there may be", http->limits.streams);
        return http_send(request);
    }
    struct http_stream *stream = mem_zeroed(1, sizeof(*stream));
    if (!stream)
        return MHD_NO;
    stream->http = http;
    stream->connection = request->connection;
    stream->conn = request->conn;
    stream->feed = request->answer.feed;
    stream->spoke_ms = stream->asked_ms = clock_monotonic_ms();
    buf_init(&stream->out, API_ANSWER_MAX);
    struct MHD_Response *response = MHD_create_response_from_callback(
        MHD_SIZE_UNKNOWN, STREAM_READ_BYTES, stream_read, stream, stream_free);
    if (!response) {
        free(stream);
        return MHD_NO;
    }
    HTTP_LIST_ADD(http->streams, stream);
    http->stats.streams++;
    MHD_add_response_header(response, "X-Accel-Buffering", "no");
    return http_queue(request, response, HTTP_STREAMING);
}

void http_streams_wake(struct http *http, const char *id)
{
    for (struct http_stream *s = http->streams; s; s = s->next)
        if (!id || strcmp(s->feed.id, id) == 0)
            stream_resume(s);
}

void http_streams_tick(struct http *http, int64_t now_ms)
{
    for (struct http_stream *s = http->streams; s; s = s->next) {
        if (s->suspended && now_ms - s->spoke_ms >= http->limits.comment_ms) {
            s->comment_due = true;
            stream_resume(s);
        } else if (!s->suspended && now_ms - s->asked_ms > http->limits.stall_ms) {
            http_conn_shut(http, s->conn);
        }
    }
}
