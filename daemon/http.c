#include "daemon/http.h"

#include "daemon/http_internal.h"
#include "daemon/jobs.h"
#include "daemon/loop.h"
#include "daemon/problem.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include <assert.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { TICK_MS = 250, FAREWELL_MS = 5000 };

static const struct http_limits default_limits = {
    .connections = 2048,
    .per_address = 64,
    .streams = 256,
    .held = 256,
    .request_ms = 10000,
    .answer_ms = 60000,
    .comment_ms = 15000,
    .stall_ms = 30000,
};

/* --- connections and their deadlines --- */

void http_conn_phase(struct http_conn *conn, enum http_phase phase)
{
    conn->phase = phase;
    conn->extra_ms = 0;
    conn->since_ms = clock_monotonic_ms();
}

struct http_conn *http_conn_of(struct MHD_Connection *connection)
{
    return MHD_get_connection_info(connection, MHD_CONNECTION_INFO_SOCKET_CONTEXT)
        ->socket_context;
}

/* libmicrohttpd then sees the end of the connection and closes it. */
void http_conn_shut(struct http *http, struct http_conn *conn)
{
    if (conn->shut)
        return;
    conn->shut = true;
    http->stats.timeouts++;
    shutdown(conn->fd, SHUT_RDWR);
}

/* Called before a connection is taken: the Unix socket and loopback are not counted, since
 * everybody on this machine has the same address there. */
static enum MHD_Result on_client(void *context, const struct sockaddr *address, socklen_t len)
{
    struct http *http = context;
    unsigned char key[16];
    unsigned count = 0;
    (void)len;
    if (!address || address->sa_family == AF_UNIX)
        return MHD_YES;
    http_address_key(key, address);
    if (http_address_loopback(key) && !http->count_loopback)
        return MHD_YES;
    for (const struct http_conn *conn = http->conns; conn; conn = conn->next)
        count += memcmp(conn->address, key, sizeof(key)) == 0;
    if (count < http->limits.per_address)
        return MHD_YES;
    http->stats.refused++;
    return MHD_NO;
}

static void on_connection(void *context, struct MHD_Connection *connection, void **state,
                          enum MHD_ConnectionNotificationCode code)
{
    struct http *http = context;
    struct http_conn *conn = *state;
    if (code == MHD_CONNECTION_NOTIFY_CLOSED) {
        if (!conn)
            return;
        HTTP_LIST_REMOVE(http->conns, conn);
        http->stats.connections--;
        free(conn);
        *state = NULL;
        return;
    }
    conn = mem_zeroed(1, sizeof(*conn));
    if (!conn)
        return;
    conn->fd =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CONNECTION_FD)->connect_fd;
    const struct sockaddr *address =
        MHD_get_connection_info(connection, MHD_CONNECTION_INFO_CLIENT_ADDRESS)->client_addr;
    http_address_key(conn->address, address);
    if (address && address->sa_family == AF_UNIX)
        auth_peer(conn->fd, &conn->peer);
    http_conn_phase(conn, HTTP_RECEIVING);
    HTTP_LIST_ADD(http->conns, conn);
    http->stats.connections++;
    *state = conn;
}

static void conns_tick(struct http *http, int64_t now_ms)
{
    for (struct http_conn *conn = http->conns; conn; conn = conn->next) {
        int64_t age_ms = now_ms - conn->since_ms;
        if ((conn->phase == HTTP_RECEIVING && age_ms > http->limits.request_ms) ||
            (conn->phase == HTTP_SENDING && age_ms > http->limits.answer_ms + conn->extra_ms))
            http_conn_shut(http, conn);
    }
}

/* --- held requests --- */

void http_resume(struct http *http, struct MHD_Connection *connection)
{
    http->run_due = true;
    MHD_resume_connection(connection);
}

static void resume_held(struct http_request *request)
{
    http_release_held(request);
    http_resume(request->http, request->connection);
}

/* Requests that wait for an event: of job id, or (NULL) those whose time is over. */
static void wake_waiting(struct http *http, const char *id, int64_t now_ms)
{
    struct http_request *next;
    for (struct http_request *request = http->held; request; request = next) {
        next = request->next;
        if (request->stage != STAGE_WAIT)
            continue;
        if (id && strcmp(request->api.id, id) != 0)
            continue;
        if (!id && request->hold_until_ms > now_ms)
            continue;
        request->api.expired = request->hold_until_ms <= now_ms;
        resume_held(request);
    }
}

void http_after_commit(struct http *http, bool commit_ok)
{
    struct http_request *next;
    for (struct http_request *request = http->held; request; request = next) {
        next = request->next;
        if (request->stage != STAGE_COMMIT)
            continue;
        if (!commit_ok)
            problem_set(&request->answer, PROBLEM_NOT_COMMITTED,
                        "nothing was changed: the database could not be written");
        resume_held(request);
    }
}

/* --- on the loop --- */

static void run(struct http *http)
{
    http->run_due = false;
    for (int i = 0; i < HTTP_DOORS; i++)
        if (http->doors[i].mhd)
            MHD_run(http->doors[i].mhd);
}

static void on_readable(void *context, int fd)
{
    (void)fd;
    run(context);
}

static void on_tick(void *context)
{
    struct http *http = context;
    int64_t now = clock_monotonic_ms();
    wake_waiting(http, NULL, now);
    http_streams_tick(http, now);
    conns_tick(http, now);
    run(http); /* at the connection limit it listens again only when it runs */
}

static void on_job(void *context, const char *id)
{
    struct http *http = context;
    wake_waiting(http, id, clock_monotonic_ms());
    http_streams_wake(http, id);
}

void http_job_changed(struct http *http, const char *id) { on_job(http, id); }

/* What its descriptor does not show: connections that were resumed (without threads the library
 * wakes nobody), and requests that it has read but not handled. A turn that handles requests
 * must not sleep before its commit. */
static int64_t before_wait(void *context)
{
    struct http *http = context;
    int64_t least = -1;
    for (int i = 0; i < HTTP_DOORS; i++) {
        MHD_UNSIGNED_LONG_LONG timeout_ms;
        if (http->doors[i].mhd && MHD_get_timeout(http->doors[i].mhd, &timeout_ms) == MHD_YES &&
            (least < 0 || (int64_t)timeout_ms < least))
            least = (int64_t)timeout_ms;
    }
    if (http->run_due || least == 0) {
        run(http);
        return 0;
    }
    return least;
}

/* --- life --- */

static void on_message(void *context, const char *format, va_list args)
    __attribute__((format(printf, 2, 0)));

static void on_message(void *context, const char *format, va_list args)
{
    (void)context;
    char text[512];
    vsnprintf(text, sizeof(text), format, args);
    text[strcspn(text, "\n")] = '\0';
    log_debug("libmicrohttpd: %s", text);
}

/* http_on_uri keeps the raw path and the checks decode it; libmicrohttpd's own decoding would
 * hide %00. */
static size_t leave_escaped(void *context, struct MHD_Connection *connection, char *text)
{
    (void)context, (void)connection;
    return strlen(text);
}

static int open_door(struct http *http, struct http_door *door, struct err *err)
{
    door->mhd = MHD_start_daemon(
        MHD_USE_EPOLL | MHD_ALLOW_SUSPEND_RESUME | MHD_USE_ERROR_LOG, 0, on_client, http,
        http_on_request, http, MHD_OPTION_EXTERNAL_LOGGER, on_message, NULL,
        MHD_OPTION_LISTEN_SOCKET, door->listen_fd, MHD_OPTION_URI_LOG_CALLBACK, http_on_uri,
        http, MHD_OPTION_UNESCAPE_CALLBACK, leave_escaped, NULL, MHD_OPTION_NOTIFY_COMPLETED,
        http_on_completed, http, MHD_OPTION_NOTIFY_CONNECTION, on_connection, http,
        MHD_OPTION_CONNECTION_LIMIT, http->limits.connections,
        MHD_OPTION_CONNECTION_MEMORY_LIMIT, (size_t)HTTP_MEMORY_BYTES,
        MHD_OPTION_STRICT_FOR_CLIENT, 1, MHD_OPTION_END);
    if (!door->mhd)
        return err_set(err, ERR_INTERNAL, "libmicrohttpd did not start on %s",
                       http->daemon->config.listen);
    door->listen_fd = -1;
    door->epoll_fd = MHD_get_daemon_info(door->mhd, MHD_DAEMON_INFO_EPOLL_FD)->epoll_fd;
    return loop_add_fd(http->daemon->loop, door->epoll_fd, on_readable, http, err);
}

static void close_doors(struct http *http)
{
    for (int i = 0; i < HTTP_DOORS; i++) {
        if (http->doors[i].mhd)
            MHD_stop_daemon(http->doors[i].mhd);
        if (http->doors[i].listen_fd >= 0)
            close(http->doors[i].listen_fd);
    }
    if (http->socket_path[0])
        unlink(http->socket_path);
}

static void set_limits(struct http *http)
{
    const struct daemon_config *config = &http->daemon->config;
    http->limits = default_limits;
    if (config->connections)
        http->limits.connections = (unsigned)config->connections;
    if (config->connections_per_address)
        http->limits.per_address = (unsigned)config->connections_per_address;
    if (config->streams)
        http->limits.streams = (unsigned)config->streams;
    if (config->request_s)
        http->limits.request_ms = config->request_s * INT64_C(1000);
}

static void load_dashboard(struct http *http)
{
    struct err err = {0};
    const char *dir = http->daemon->config.web_dir;
    if (!dir)
        log_info("no dashboard: no folder is configured");
    else if (http_files_load(&http->files, dir, &err))
        log_warn("no dashboard: %s", err.text);
}

int http_create(struct http **out, struct daemon *daemon, struct err *err)
{
    assert(api_route_count() < HTTP_ROUTE_STATIC);
    *out = NULL;
    struct http *http = mem_zeroed(1, sizeof(*http));
    if (!http)
        return err_set(err, ERR_NO_MEMORY, "http: out of memory");
    http->daemon = daemon;
    for (int i = 0; i < HTTP_DOORS; i++)
        http->doors[i].listen_fd = -1;
    set_limits(http);
    int rc = http_listen(http, err);
    for (int i = 0; !rc && i < HTTP_DOORS; i++)
        if (http->doors[i].listen_fd >= 0)
            rc = open_door(http, &http->doors[i], err);
    if (rc) {
        for (int i = 0; i < HTTP_DOORS; i++)
            if (http->doors[i].mhd)
                loop_remove_fd(daemon->loop, http->doors[i].epoll_fd);
        close_doors(http);
        free(http);
        return rc;
    }
    load_dashboard(http);
    http->timer = loop_add_timer(daemon->loop, TICK_MS, on_tick, http);
    loop_set_before_wait(daemon->loop, before_wait, http);
    jobs_set_listener(daemon->jobs, on_job, http);
    if (strncmp(http->listen_host, "127.", 4) != 0 &&
        strcmp(http->listen_host, "localhost") != 0 && strcmp(http->listen_host, "::1") != 0)
        log_warn("listening on %s in plain HTTP: the token can be read on the network",
                 daemon->config.listen);
    *out = http;
    return 0;
}

/* Lets answers that are on their way go out, for at most FAREWELL_MS. */
static void farewell(struct http *http)
{
    int64_t until = clock_monotonic_ms() + FAREWELL_MS;
    for (;;) {
        run(http);
        bool busy = http->streams != NULL;
        for (struct http_conn *conn = http->conns; conn; conn = conn->next)
            busy |= conn->phase == HTTP_SENDING || conn->phase == HTTP_HELD;
        int64_t left = until - clock_monotonic_ms();
        if (!busy || left <= 0)
            return;
        struct pollfd ready = {.fd = http->doors[HTTP_DOOR_TCP].epoll_fd, .events = POLLIN};
        poll(&ready, 1, left < 20 ? (int)left : 20);
    }
}

void http_destroy(struct http *http)
{
    if (!http)
        return;
    http->closing = true;
    jobs_set_listener(http->daemon->jobs, NULL, NULL);
    loop_set_before_wait(http->daemon->loop, NULL, NULL);
    loop_remove_timer(http->daemon->loop, http->timer);
    for (int i = 0; i < HTTP_DOORS; i++)
        if (http->doors[i].mhd)
            loop_remove_fd(http->daemon->loop, http->doors[i].epoll_fd);
    http_after_commit(http, false);
    wake_waiting(http, NULL, INT64_MAX);
    http_streams_wake(http, NULL);
    farewell(http);
    close_doors(http);
    http_files_release(&http->files);
    free(http);
}

uint16_t http_port(const struct http *http) { return http->port; }

void http_stats(const struct http *http, struct http_stats *out) { *out = http->stats; }
