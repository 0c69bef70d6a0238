/* A job's events: as JSON with a long poll, and as the text of a stream of server-sent events.
 */
#include "daemon/api.h"
#include "daemon/problem.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum {
    FEED_BATCH_EVENTS = 512,       /* read from the store at a time */
    FEED_BATCH_BYTES = 256 * 1024, /* a batch ends after the event that passes this */
    FEED_RETRY_MS = 2000,          /* what a client waits before it connects again */
    EVENTS_BYTES =
        4 * 1024 * 1024, /* of one JSON answer; it ends after the event that passes this */
};

/* --- JSON --- */

struct page {
    struct buf *out;
    size_t count;
    uint64_t last;
    bool full;
};

static int page_add(void *context, uint64_t seq, const char *type, const char *line)
{
    (void)type;
    struct page *page = context;
    if (page->full)
        return 0;
    buf_puts(page->out, page->count++ ? "," : "");
    buf_puts(page->out, line);
    page->last = seq;
    page->full = page->out->len > EVENTS_BYTES;
    return 0;
}

static void events_json(struct api_request *request, struct api_answer *answer,
                        const struct job_row *job)
{
    uint64_t since = (uint64_t)api_int(request, "since");
    struct page page = {.out = &answer->body, .last = since};
    struct err err = {0};
    buf_puts(&answer->body, "{\"events\":[");
    int rc = store_events_since(request->daemon->store, job->id, since,
                                (size_t)api_int(request, "limit"), page_add, &page, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    /* A change of state wakes a waiting client too: memo keeps the state of the first look,
     * plus one. */
    int64_t wait_s = api_int(request, "wait"), seen = (int64_t)job->state + 1;
    if (!request->again)
        request->memo = seen;
    if (page.count == 0 && wait_s > 0 && !request->expired && request->memo == seen &&
        !job_state_final(job->state)) {
        answer->next = API_WAIT;
        answer->wait_ms = wait_s * 1000;
        return;
    }
    buf_printf(&answer->body, "],\"last_seq\":%llu,\"state\":\"%s\"}",
               (unsigned long long)page.last, job_state_name(job->state));
    answer->status = 200;
}

/* --- stream --- */

struct batch {
    struct api_feed *feed;
    struct buf *out;
    size_t count;
    bool full;
};

/* Appends "data: text"; text has no newline (a JSON line), but a CR would end the line for the
 * client. */
static void put_data(struct buf *out, const char *text)
{
    buf_puts(out, "data: ");
    size_t start = out->len;
    buf_puts(out, text);
    for (size_t i = start; i < out->len; i++)
        if (out->data[i] == '\r' || out->data[i] == '\n')
            out->data[i] = ' ';
    buf_puts(out, "\n\n");
}

static int batch_add(void *context, uint64_t seq, const char *type, const char *line)
{
    struct batch *batch = context;
    if (batch->full)
        return 0;
    buf_printf(batch->out, "id: %llu\nevent: %s\n", (unsigned long long)seq, type);
    put_data(batch->out, line);
    batch->feed->seq = seq;
    batch->count++;
    batch->full = batch->out->len > FEED_BATCH_BYTES;
    return 0;
}

static bool state_changed(const struct api_feed *feed, const struct job_row *job)
{
    return !feed->has_state || feed->state != job->state || feed->attempt != job->attempt ||
           strcmp(feed->reason, job->reason) != 0;
}

static int put_state(struct daemon *daemon, struct api_feed *feed, const struct job_row *job,
                     struct buf *out, struct err *err)
{
    struct cJSON *object = api_job_object(daemon, job, err);
    if (!object)
        return err->code;
    struct buf text;
    buf_init(&text, API_ANSWER_MAX);
    json_print(object, &text);
    cJSON_Delete(object);
    if (!text.failed) {
        buf_puts(out, "event: state\n");
        put_data(out, text.data);
        feed->has_state = true;
        feed->state = job->state;
        feed->attempt = job->attempt;
        snprintf(feed->reason, sizeof(feed->reason), "%s", job->reason);
    }
    buf_release(&text);
    return 0;
}

int api_feed_fill(struct daemon *daemon, struct api_feed *feed, struct buf *out, bool *over,
                  struct err *err)
{
    struct job_row job;
    int rc = store_job_get(daemon->store, feed->id, &job, err);
    if (rc)
        return rc;
    if (!feed->begun)
        buf_printf(out, "retry: %d\n\n", FEED_RETRY_MS);
    feed->begun = true;
    struct batch batch = {.feed = feed, .out = out};
    rc = store_events_since(daemon->store, feed->id, feed->seq, FEED_BATCH_EVENTS, batch_add,
                            &batch, err);
    if (rc)
        return rc;
    /* The state comes after the events that led to it: only once the feed has caught up. */
    if (batch.full || batch.count == FEED_BATCH_EVENTS)
        return 0;
    if (state_changed(feed, &job))
        rc = put_state(daemon, feed, &job, out, err);
    *over = job_state_final(job.state);
    if (!rc && out->failed)
        rc = err_set(err, ERR_NO_MEMORY, "events of job %s do not fit the buffer", feed->id);
    return rc;
}

static bool last_event_id(const char *text, uint64_t *seq)
{
    char *end;
    errno = 0;
    *seq = strtoull(text, &end, 10);
    return text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0 && *seq <= INT64_MAX;
}

void api_events(struct api_request *request, struct api_answer *answer)
{
    struct job_row job;
    struct err err = {0};
    int rc = store_job_get(request->daemon->store, request->id, &job, &err);
    if (rc) {
        problem_set_err(answer, rc, &err);
        return;
    }
    if (api_given(request, "since")) {
        events_json(request, answer, &job);
        return;
    }
    if (api_given(request, "wait") || api_given(request, "limit")) {
        problem_set(answer, PROBLEM_INVALID_QUERY, "wait and limit go with since");
        return;
    }
    uint64_t seq = 0;
    if (request->last_event_id && !last_event_id(request->last_event_id, &seq)) {
        problem_set(answer, PROBLEM_BAD_REQUEST, "Last-Event-ID \"%.32s\" is not a seq",
                    request->last_event_id);
        return;
    }
    answer->status = 200;
    answer->type = "text/event-stream";
    answer->next = API_STREAM;
    answer->feed.seq = seq;
    snprintf(answer->feed.id, sizeof(answer->feed.id), "%s", job.id);
}
