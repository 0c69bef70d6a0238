/* POST requests of webhooks on libcurl's multi interface, without threads of ours: webhook_send
 * starts one, webhook_poll moves all on and tells which have ended. */
#ifndef HEBB_DAEMON_WEBHOOK_SEND_H
#define HEBB_DAEMON_WEBHOOK_SEND_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { WEBHOOK_SEND_MAX = 8, WEBHOOK_TIMEOUT_S = 10, WEBHOOK_ANSWER_MAX = 64 * 1024 };

struct sender; /* opaque */
int sender_create(struct sender **out, struct err *err);
void sender_destroy(struct sender *sender); /* ends what is under way */
size_t sender_busy(const struct sender *sender);

struct send {
    int64_t delivery; /* the caller's own */
    const char *url, *body;
    size_t body_len;
    const char *const *headers; /* "name: value", ends with NULL */
    bool private_too;           /* else only public addresses are connected to */
};
/* Copies what it needs. ERR_LIMIT when WEBHOOK_SEND_MAX are under way. */
int sender_start(struct sender *sender, const struct send *send, struct err *err);

/* Calls ended for each that has ended: status 0 and a trouble when no answer came. */
void sender_poll(struct sender *sender,
                 void (*ended)(void *context, int64_t delivery, int status,
                               const char *trouble),
                 void *context);

/* Parts of an address, lower case where case does not count. ERR_INVALID if it is none, or has
 * a user, a password or a fragment. */
struct url_parts {
    char scheme[8], host[256], port[8], path[2048];
};
int url_split(const char *url, struct url_parts *out, struct err *err);

struct sockaddr;
/* Loopback, private, link-local, shared, multicast, unspecified, or a v4 one of these in v6. */
bool address_private(const struct sockaddr *address);

#endif
