#include "daemon/webhook.h"
#include "daemon/loop.h"
#include "daemon/secret.h"
#include "daemon/webhook_send.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    TICK_MS = 50,  /* libcurl is moved on so often while something is under way */
    LOOK_MS = 500, /* the outbox is looked at so often */
    BACKOFF_MS = 1000,
    BACKOFF_MAX_MS = 6 * 3600 * 1000,
};

struct webhooks {
    struct daemon *daemon;
    struct sender *sender;
    int timer;
    int64_t look_ms;                     /* monotonic; when to look at the outbox */
    int64_t under_way[WEBHOOK_SEND_MAX]; /* deliveries; 0: free */
    struct webhook_stats stats;
};

int64_t webhook_backoff_ms(int64_t tries)
{
    int64_t wait_ms = BACKOFF_MS;
    for (int64_t i = 0; i < tries && wait_ms < BACKOFF_MAX_MS; i++)
        wait_ms *= 2;
    return wait_ms < BACKOFF_MAX_MS ? wait_ms : BACKOFF_MAX_MS;
}

/* Whether path is folder or below it, without leading out of it again. */
static bool path_below(const char *path, const char *folder)
{
    size_t len = strlen(folder);
    if (strstr(path, "/../") || strstr(path, "/./") || strstr(path, "%2e") ||
        strstr(path, "%2E") || strstr(path, "%2f") || strstr(path, "%2F"))
        return false;
    while (len > 0 && folder[len - 1] == '/')
        len--;
    return strncmp(path, folder, len) == 0 && (path[len] == '\0' || path[len] == '/');
}

int webhook_url_check(const struct daemon_config *config, const char *url, struct err *err)
{
    struct url_parts wanted, allowed;
    if (strlen(url) > WEBHOOK_URL_MAX)
        return err_set(err, ERR_INVALID, "the address has more than %d bytes",
                       (int)WEBHOOK_URL_MAX);
    int code = url_split(url, &wanted, err);
    if (code != 0)
        return code;
    for (size_t i = 0; i < config->webhook_url_count; i++)
        if (url_split(config->webhook_urls[i], &allowed, NULL) == 0 &&
            strcmp(wanted.scheme, allowed.scheme) == 0 &&
            strcmp(wanted.host, allowed.host) == 0 && strcmp(wanted.port, allowed.port) == 0 &&
            path_below(wanted.path, allowed.path))
            return 0;
    return err_set(err, ERR_INVALID,
                   "the daemon's configuration (webhook_urls) does not allow this address");
}

/* --- sending --- */

static void print_body(const struct delivery_row *row, struct buf *out)
{
    char stamp[CLOCK_STAMP_MAX];
    cJSON *object = cJSON_CreateObject();
    cJSON_AddStringToObject(object, "type", "job.state");
    cJSON_AddStringToObject(object, "timestamp", clock_stamp(stamp, row->time_ms));
    cJSON *data = cJSON_AddObjectToObject(object, "data");
    cJSON_AddStringToObject(data, "job", row->job);
    cJSON_AddStringToObject(data, "name", row->name);
    if (row->was[0])
        cJSON_AddStringToObject(data, "was", row->was);
    else
        cJSON_AddNullToObject(data, "was");
    cJSON_AddStringToObject(data, "state", row->state);
    cJSON_AddStringToObject(data, "reason", row->reason);
    cJSON_AddNumberToObject(data, "attempt", (double)row->attempt);
    json_print(object, out);
    cJSON_Delete(object);
}

/* The signature is over "ID.TIMESTAMP.BODY". */
static int sign(const struct delivery_row *row, const char *id, int64_t now_s,
                const struct buf *body, char out[SECRET_BASE64_MAX], struct err *err)
{
    struct buf text;
    buf_init(&text, body->len + 128);
    buf_printf(&text, "%s.%lld.", id, (long long)now_s);
    buf_add(&text, body->data, body->len);
    int code = text.failed ? err_set(err, ERR_NO_MEMORY, "webhooks: out of memory")
                           : secret_sign(out, row->secret, text.data, text.len, err);
    buf_release(&text);
    return code;
}

static int start(struct webhooks *webhooks, const struct delivery_row *row, struct err *err)
{
    char id[64], id_line[96], time_line[64], sign_line[128], signature[SECRET_BASE64_MAX];
    const struct daemon_config *config = &webhooks->daemon->config;
    int64_t now_s = clock_wall_ms() / 1000;
    struct buf body;
    int code = webhook_url_check(config, row->url, err); /* it may have changed since */
    if (code != 0)
        return code;
    buf_init(&body, 64 * 1024);
    print_body(row, &body);
    snprintf(id, sizeof id, "%s.%lld", row->job, (long long)row->seq);
    code = body.failed ? err_set(err, ERR_NO_MEMORY, "webhooks: out of memory")
                       : sign(row, id, now_s, &body, signature, err);
    if (code == 0) {
        snprintf(id_line, sizeof id_line, "webhook-id: %s", id);
        snprintf(time_line, sizeof time_line, "webhook-timestamp: %lld", (long long)now_s);
        snprintf(sign_line, sizeof sign_line, "webhook-signature: v1,%s", signature);
        const char *const headers[] = {
            "Content-Type: application/json", id_line, time_line, sign_line, "Expect:", NULL};
        const struct send send = {.delivery = row->seq,
                                  .url = row->url,
                                  .body = body.data,
                                  .body_len = body.len,
                                  .headers = headers,
                                  .private_too = config->webhook_private};
        code = sender_start(webhooks->sender, &send, err);
    }
    buf_release(&body);
    return code;
}

static void fail(struct webhooks *webhooks, int64_t delivery, const char *trouble)
{
    struct err err;
    struct delivery_row row;
    bool found;
    webhooks->stats.failed++;
    int code = store_delivery(webhooks->daemon->store, delivery, &row, &found, &err);
    if (code == 0 && found && row.tries + 1 >= WEBHOOK_TRIES_MAX) {
        webhooks->stats.given_up++;
        log_error("webhook %s: delivery %lld is given up after %d tries: %s", row.webhook,
                  (long long)delivery, (int)WEBHOOK_TRIES_MAX, trouble);
        code = store_delivery_done(webhooks->daemon->store, delivery, &err);
        if (code == 0)
            code = store_audit(webhooks->daemon->store, row.job, "webhook_given_up",
                               row.webhook, &err);
    } else if (code == 0 && found) {
        log_warn("webhook %s: delivery %lld, try %lld: %s", row.webhook, (long long)delivery,
                 (long long)row.tries + 1, trouble);
        code = store_delivery_later(webhooks->daemon->store, delivery,
                                    clock_wall_ms() + webhook_backoff_ms(row.tries), trouble,
                                    &err);
    }
    if (code != 0)
        log_error("webhooks: %s", err.text);
}

static void ended(void *context, int64_t delivery, int status, const char *trouble)
{
    struct webhooks *webhooks = context;
    char text[128];
    struct err err;
    for (size_t i = 0; i < WEBHOOK_SEND_MAX; i++)
        if (webhooks->under_way[i] == delivery)
            webhooks->under_way[i] = 0;
    webhooks->look_ms = 0;
    if (status >= 200 && status < 300) {
        webhooks->stats.sent++;
        if (store_delivery_done(webhooks->daemon->store, delivery, &err) != 0)
            log_error("webhooks: %s", err.text);
        return;
    }
    snprintf(text, sizeof text, "the receiver answered %d", status);
    fail(webhooks, delivery, status ? text : trouble);
}

struct due {
    struct webhooks *webhooks;
    struct delivery_row rows[WEBHOOK_SEND_MAX];
    size_t count;
};

static int due_add(void *context, const struct delivery_row *row)
{
    struct due *due = context;
    for (size_t i = 0; i < WEBHOOK_SEND_MAX; i++)
        if (due->webhooks->under_way[i] == row->seq)
            return 0;
    if (due->count < WEBHOOK_SEND_MAX)
        due->rows[due->count++] = *row;
    return 0;
}

static void look(struct webhooks *webhooks)
{
    struct due *due = mem_zeroed(1, sizeof *due);
    struct err err;
    if (due == NULL)
        return;
    due->webhooks = webhooks;
    if (store_deliveries_due(webhooks->daemon->store, clock_wall_ms(), WEBHOOK_SEND_MAX * 2,
                             due_add, due, &err) != 0)
        log_error("webhooks: %s", err.text);
    for (size_t i = 0; i < due->count; i++) {
        size_t slot = 0;
        while (slot < WEBHOOK_SEND_MAX && webhooks->under_way[slot] != 0)
            slot++;
        if (slot == WEBHOOK_SEND_MAX)
            break;
        if (start(webhooks, &due->rows[i], &err) != 0)
            fail(webhooks, due->rows[i].seq, err.text);
        else
            webhooks->under_way[slot] = due->rows[i].seq;
    }
    free(due);
}

static void tick(void *context)
{
    struct webhooks *webhooks = context;
    if (sender_busy(webhooks->sender) > 0)
        sender_poll(webhooks->sender, ended, webhooks);
    int64_t now_ms = clock_monotonic_ms();
    /* What a failed or pending turn wrote is not sent: it may be rolled back. */
    if (now_ms < webhooks->look_ms || store_pending(webhooks->daemon->store) ||
        !store_writable(webhooks->daemon->store))
        return;
    webhooks->look_ms = now_ms + LOOK_MS;
    look(webhooks);
}

int webhooks_create(struct webhooks **out, struct daemon *daemon, struct err *err)
{
    *out = NULL;
    struct webhooks *webhooks = mem_zeroed(1, sizeof *webhooks);
    if (webhooks == NULL)
        return err_set(err, ERR_NO_MEMORY, "webhooks: out of memory");
    webhooks->daemon = daemon;
    int code = sender_create(&webhooks->sender, err);
    if (code != 0) {
        free(webhooks);
        return code;
    }
    webhooks->timer = loop_add_timer(daemon->loop, TICK_MS, tick, webhooks);
    *out = webhooks;
    return 0;
}

void webhooks_destroy(struct webhooks *webhooks)
{
    if (webhooks == NULL)
        return;
    loop_remove_timer(webhooks->daemon->loop, webhooks->timer);
    sender_destroy(webhooks->sender);
    free(webhooks);
}

void webhooks_stats(const struct webhooks *webhooks, struct webhook_stats *out)
{
    *out = webhooks != NULL ? webhooks->stats : (struct webhook_stats){.sent = 0};
}
