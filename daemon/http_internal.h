/* What the files http*.c share. */
#ifndef HEBB_DAEMON_HTTP_INTERNAL_H
#define HEBB_DAEMON_HTTP_INTERNAL_H

#include "daemon/api.h"
#include "daemon/http.h"
#include <microhttpd.h>
#include <sys/socket.h>

enum {
    HTTP_BODY_MAX = 64 * 1024,    /* of a request: above it 413 */
    HTTP_DRAIN_MAX = 1024 * 1024, /* a longer body is not read to its end before the answer */
    HTTP_URI_MAX = 2048,          /* bytes of path and query: above it 414 */
    HTTP_MEMORY_BYTES =
        32 * 1024,         /* of a connection: request line, headers, answer's headers */
    HTTP_HEADERS_MAX = 64, /* header lines of a request */
    HTTP_BACKLOG = 128,
    HTTP_HOST_MAX = 256,
    HTTP_FILE_BYTES_PER_MS = 64, /* a slower download is closed */
};

/* Copied into struct http, where tests shorten them. */
struct http_limits {
    unsigned connections; /* further ones wait in the backlog */
    unsigned per_address; /* of one address other than loopback; further ones are closed */
    unsigned streams;     /* of server-sent events */
    unsigned held;        /* requests that wait for an event */
    int64_t request_ms;   /* from the connection's start, or its last answer, to the end of a
                             request */
    int64_t answer_ms;    /* to send an answer */
    int64_t comment_ms;   /* a comment line on a silent stream, so that a gone client is seen */
    int64_t stall_ms;     /* a stream's client that takes nothing for so long is closed */
};

enum http_phase {
    HTTP_RECEIVING, /* waits for a whole request */
    HTTP_HELD,      /* suspended: its deadline is http_request.hold_until_ms */
    HTTP_SENDING,
    HTTP_STREAMING,
};

/* A TCP connection, from libmicrohttpd's notice of its start to that of its end. */
struct http_conn {
    struct http_conn *prev, *next;
    int fd;
    enum http_phase phase;
    int64_t since_ms;          /* start of the phase, monotonic */
    int64_t extra_ms;          /* beside the phase's limit: a file takes its time */
    unsigned char address[16]; /* of the client, v4 as v4-mapped; zeros on the Unix socket */
    struct identity peer;      /* on the Unix socket; else role AUTH_NOBODY */
    bool shut;                 /* shutdown(2) was called: libmicrohttpd will close it */
};

enum http_stage {
    STAGE_NEW,       /* headers not looked at */
    STAGE_BODY,      /* body coming, or at its end */
    STAGE_COMMIT,    /* held: the answer is ready and waits for the turn's commit */
    STAGE_COMMITTED, /* released from it */
    STAGE_WAIT,      /* held: waits for an event or a time */
    STAGE_AGAIN,     /* released from it */
};

struct http_request {
    struct http_request *prev, *next; /* in http->held while suspended */
    struct http *http;
    struct MHD_Connection *connection;
    struct http_conn *conn;
    enum http_stage stage;
    bool refused; /* answer is a problem already: drop the body and send it */
    bool head;
    char *path;  /* owned; cut out of the request line, decoded */
    char *query; /* inside path's memory */
    bool uri_too_long;
    const char
        *raw_uri_end;  /* of the request line, in libmicrohttpd's buffer: compared, not read */
    size_t drained;    /* bytes of body so far */
    size_t stat_route; /* index in http_stats.answers */
    const struct http_file *file; /* of the dashboard; NULL: a route of the API */
    struct buf body;
    int64_t hold_until_ms;
    struct api_request api;
    struct api_answer answer;
};

/* A stream of server-sent events; lives from the answer's start to its last use by
 * libmicrohttpd. */
struct http_stream {
    struct http_stream *prev, *next;
    struct http *http;
    struct MHD_Connection *connection;
    struct http_conn *conn;
    struct api_feed feed;
    struct buf out;
    size_t sent; /* bytes of out that libmicrohttpd took */
    bool suspended, over;
    bool comment_due; /* nothing was sent for limits.comment_ms */
    int64_t spoke_ms; /* last bytes */
    int64_t asked_ms; /* libmicrohttpd last asked for bytes: the client reads */
};

struct http_file {
    char *name; /* "/app.js" */
    const char *type;
    char etag[40];
    void *data;
    size_t len;
};

struct http_files {
    struct http_file *items;
    size_t count;
};

/* A listening socket with a libmicrohttpd of its own. */
struct http_door {
    struct MHD_Daemon *mhd; /* NULL: not open */
    int listen_fd;          /* libmicrohttpd's once it runs; -1: none */
    int epoll_fd;
};
enum { HTTP_DOOR_TCP, HTTP_DOOR_UNIX, HTTP_DOORS };

struct http {
    struct daemon *daemon;
    struct http_door doors[HTTP_DOORS];
    char socket_path[108]; /* to be removed at the end; "": none */
    int timer;
    uint16_t port;
    bool wildcard;                   /* listens on all addresses */
    char listen_host[HTTP_HOST_MAX]; /* as configured, without brackets */
    struct http_limits limits;
    struct http_conn *conns;
    struct http_request *held;
    size_t held_commits, held_events;
    struct http_stream *streams;
    struct http_files files;
    struct http_stats stats;
    bool run_due; /* a connection was resumed: libmicrohttpd must run */
    bool closing;
    bool count_loopback; /* per_address counts loopback too: for tests */
};

/* --- http.c --- */
void http_resume(struct http *http, struct MHD_Connection *connection);
struct http_conn *http_conn_of(struct MHD_Connection *connection);
void http_conn_phase(struct http_conn *conn, enum http_phase phase);
void http_conn_shut(struct http *http, struct http_conn *conn); /* past a deadline */

/* --- http_listen.c --- */
/* Splits "HOST:PORT" or "[V6]:PORT"; ERR_INVALID names what is wrong. */
int http_split_address(const char *address, char host[HTTP_HOST_MAX], char port[8],
                       struct err *err);
/* Binds http->daemon->config.listen and, if configured, the Unix socket: fills the doors'
 * listen_fd, port, wildcard, listen_host. The caller closes what is open on failure. */
int http_listen(struct http *http, struct err *err);
/* The client's address, as struct http_conn keeps it. */
void http_address_key(unsigned char out[16], const struct sockaddr *address);
bool http_address_loopback(const unsigned char key[16]);

/* --- http_auth.c --- */
/* Whether a Host header names this service: a loopback name, the configured host; a wildcard
 * listener takes any address and the machine's name. Stops pages whose name was re-bound to
 * this address. */
bool http_host_good(const struct http *http, const char *host);
/* Whether Origin is the page that Host serves. */
bool http_origin_good(const char *origin, const char *host);
/* Whether Sec-Fetch-Site is what the page itself, or nobody's page, sends. */
bool http_site_good(const char *site);

/* --- http_request.c --- */
enum MHD_Result http_on_request(void *context, struct MHD_Connection *connection,
                                const char *url, const char *method, const char *version,
                                const char *upload, size_t *upload_len, void **state);
void *http_on_uri(void *context, const char *uri, struct MHD_Connection *connection);
void http_on_completed(void *context, struct MHD_Connection *connection, void **state,
                       enum MHD_RequestTerminationCode code);
/* Takes request off the held list; the caller resumes its connection. */
void http_release_held(struct http_request *request);

/* --- http_check.c --- */
/* Framing, Host, Origin, token, route, query: the first fault becomes the answer. */
bool http_check(struct http_request *request, const char *method, const char *version);

/* --- http_answer.c --- */
/* Queues answer on the connection. */
enum MHD_Result http_send(struct http_request *request);
enum MHD_Result http_send_file(struct http_request *request);
enum MHD_Result http_send_part(struct http_request *request); /* API_FILE */
/* Adds the headers of request->answer to response, queues and releases it. */
enum MHD_Result http_queue(struct http_request *request, struct MHD_Response *response,
                           enum http_phase phase);

/* --- http_stream.c --- */
/* Starts request's stream; a problem answer if there are too many. */
enum MHD_Result http_stream_start(struct http_request *request);
void http_streams_wake(struct http *http, const char *id); /* NULL: all */
void http_streams_tick(struct http *http, int64_t now_ms);

/* --- http_static.c --- */
/* Reads the regular files of dir (not below it) into memory; links and names with a leading dot
 * are left out. */
int http_files_load(struct http_files *files, const char *dir, struct err *err);
void http_files_release(struct http_files *files);
const struct http_file *http_files_find(const struct http_files *files, const char *path);

/* --- lists --- */
#define HTTP_LIST_ADD(head, item)                                                              \
    do {                                                                                       \
        (item)->prev = NULL;                                                                   \
        (item)->next = (head);                                                                 \
        if (head)                                                                              \
            (head)->prev = (item);                                                             \
        (head) = (item);                                                                       \
    } while (0)
#define HTTP_LIST_REMOVE(head, item)                                                           \
    do {                                                                                       \
        if ((item)->prev)                                                                      \
            (item)->prev->next = (item)->next;                                                 \
        else                                                                                   \
            (head) = (item)->next;                                                             \
        if ((item)->next)                                                                      \
            (item)->next->prev = (item)->prev;                                                 \
        (item)->prev = (item)->next = NULL;                                                    \
    } while (0)

#endif
