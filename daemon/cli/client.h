/* A client of hebbd's HTTP interface, on libcurl. One request at a time. */
#ifndef HEBB_CLI_CLIENT_H
#define HEBB_CLI_CLIENT_H

#include "proto/base/buf.h"
#include "proto/base/err.h"
#include <cjson/cJSON.h>
#include <stdbool.h>
#include <stdint.h>

enum { CLIENT_ID_MAX = 17, CLIENT_PATH_MAX = 1024, CLIENT_BODY_MAX = 64 * 1024 * 1024 };

struct client; /* opaque */

/* NULL fields: the environment, then the default (client_help says which). */
struct client_config {
    const char *url, *token_file;
};

/* Where address and token come from, for help texts. */
extern const char client_help[];

/* ERR_INVALID for a malformed address, ERR_NOT_FOUND or ERR_IO for a token file that was named
 * and cannot be read. A missing token is no error here: the daemon's answer is. */
int client_create(struct client **out, const struct client_config *config, struct err *err);
void client_destroy(struct client *client);

/* A descriptor that ends a request when it is readable (interrupt.h); -1: none. */
void client_set_stop(struct client *client, int fd);
bool client_stopped(const struct client *client); /* the last request ended so */

struct request {
    const char *method, *path; /* path with its query, escaped */
    const char *body;          /* JSON (body_len), NULL: none */
    size_t body_len;
    const char *idempotency_key; /* NULL: none */
    int wait_s;                  /* the answer may take so long */
};

struct reply {
    int status;
    bool problem;                 /* the body is application/problem+json */
    struct buf body;              /* released by the caller */
    int64_t next_offset, attempt; /* X-Next-Offset, X-Attempt; -1: absent */
};

/* Any HTTP status is a success here. ERR_NETWORK when no answer came, ERR_LIMIT above
 * CLIENT_BODY_MAX. */
int client_send(struct client *client, const struct request *request, struct reply *reply,
                struct err *err);
void reply_release(struct reply *reply);

/* The functions below print what went wrong on stderr and return an exit_code. */
int client_fail(const struct err *err);
/* Prints the reply's problem, all its faults included, if status is not 2xx. */
int client_check(const struct client *client, const struct reply *reply);
/* Sends, checks, parses the JSON of the answer. */
int client_call(struct client *client, const struct request *request, cJSON **out);
int client_get(struct client *client, cJSON **out, const char *format, ...)
    __attribute__((format(printf, 3, 4)));
/* The whole id of the one job whose id starts with prefix. */
int client_find_job(struct client *client, const char *prefix, char id[CLIENT_ID_MAX]);
/* Appends text to an address, escaped. */
void client_escape(struct buf *out, const char *text);

#endif
