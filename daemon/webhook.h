/* Webhooks: a change of a job's state becomes a row of the outbox in the same transaction
 * (triggers of state.db), and rows are sent, oldest first, until the receiver answers 2xx. A
 * restart loses none; a receiver may see one twice and tells by webhook-id.
 *
 * Signed as https://www.standardwebhooks.com says: webhook-id, webhook-timestamp, and
 * webhook-signature "v1," with base64 of HMAC-SHA256 over "ID.TIMESTAMP.BODY". */
#ifndef HEBB_DAEMON_WEBHOOK_H
#define HEBB_DAEMON_WEBHOOK_H

#include "daemon/daemon.h"
#include "daemon/store.h"

struct webhooks;

enum {
    WEBHOOK_TRIES_MAX = 26, /* then the delivery is given up: about 3 days */
    WEBHOOK_URL_MAX = 2000,
};

/* Joins the loop with a timer. daemon's store is open. */
int webhooks_create(struct webhooks **out, struct daemon *daemon, struct err *err);
void webhooks_destroy(struct webhooks *webhooks); /* what is under way is sent again later */

/* Whether url may be a webhook's: http or https without user, fragment or control characters,
 * and below one of config.webhook_urls. ERR_INVALID says why not. */
int webhook_url_check(const struct daemon_config *config, const char *url, struct err *err);

/* Milliseconds before try number `tries` + 1: 1 s, doubled up to 6 h. */
int64_t webhook_backoff_ms(int64_t tries);

struct webhook_stats {
    uint64_t sent, failed, given_up;
};
void webhooks_stats(const struct webhooks *webhooks, struct webhook_stats *out);

#endif
