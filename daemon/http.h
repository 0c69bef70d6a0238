/* The HTTP side: libmicrohttpd on the loop, limits, authentication, routing, streams, the
 * dashboard's files.
 *
 * libmicrohttpd runs without threads: its epoll descriptor is one of the loop's. A request goes
 * through connection (http.c: count, deadlines) -> checks (http_request.c: framing, Host,
 * Origin, token, route, query, body)
 *   -> handler (api_*.c) -> answer now | held until the commit, an event or a time | a stream
 * (http_stream.c). Docs: docs/api.md. */
#ifndef HEBB_DAEMON_HTTP_H
#define HEBB_DAEMON_HTTP_H

#include "daemon/daemon.h"
#include <stddef.h>

struct http;

/* Binds config.listen ("HOST:PORT", "[V6]:PORT"; port 0: any) and joins the loop, with its
 * descriptor, a timer and loop_set_before_wait; becomes the jobs' listener. daemon's loop,
 * store and jobs are there already; daemon->token has 64 hex digits. Loads the dashboard from
 * config.web_dir (NULL or missing: no dashboard, said in the log). */
int http_create(struct http **out, struct daemon *daemon, struct err *err);
/* Ends streams, answers what is held (unacknowledged writes: 503), closes. Before jobs_destroy.
 */
void http_destroy(struct http *http);
uint16_t http_port(const struct http *http); /* the bound port; config may say 0 */
/* After the turn's commit: sends answers that waited on it. commit_ok false: they become 503.
 */
void http_after_commit(struct http *http, bool commit_ok);

/* Something about job id changed that the jobs do not know of: wakes who waits for it. */
void http_job_changed(struct http *http, const char *id);

enum { HTTP_ROUTE_STATIC = 62, HTTP_ROUTE_NONE = 63, HTTP_ROUTES_MAX = 64 };
struct http_stats {
    uint64_t answers[HTTP_ROUTES_MAX][6]; /* by row of api_routes and status / 100 */
    uint64_t refused;                     /* connections above the limit of an address */
    uint64_t timeouts;                    /* connections closed at a deadline */
    size_t connections, streams;
};
void http_stats(const struct http *http, struct http_stats *out);

#endif
