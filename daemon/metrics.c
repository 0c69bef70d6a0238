#include "daemon/metrics.h"

#include "daemon/api.h"
#include "daemon/http.h"
#include "daemon/jobs.h"
#include "daemon/webhook.h"
#include "proto/base/fsx.h"
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { METRICS_JOBS_MAX = 256 }; /* jobs with lines of their own */

static void family(struct buf *out, const char *name, const char *type, const char *help)
{
    buf_printf(out, "# HELP %s %s\n# TYPE %s %s\n", name, help, name, type);
}

static int print_jobs_by_state(struct daemon *daemon, struct buf *out, struct err *err)
{
    int64_t counts[JOB_STATES] = {0};
    int rc = store_jobs_count(daemon->store, counts, err);
    if (rc)
        return rc;
    family(out, "hebb_jobs", "gauge", "Jobs by state.");
    for (int i = 0; i < JOB_STATES; i++)
        buf_printf(out, "hebb_jobs{state=\"%s\"} %lld\n", job_state_name((enum job_state)i),
                   (long long)counts[i]);
    return 0;
}

static void print_slots(struct daemon *daemon, struct buf *out)
{
    int cores_used, cores, gpus_used, gpus;
    jobs_slots(daemon->jobs, &cores_used, &cores, &gpus_used, &gpus);
    family(out, "hebb_slots", "gauge", "Slots that jobs may take.");
    buf_printf(out, "hebb_slots{resource=\"cores\"} %d\nhebb_slots{resource=\"gpus\"} %d\n",
               cores, gpus);
    family(out, "hebb_slots_used", "gauge", "Slots that jobs have taken.");
    buf_printf(
        out, "hebb_slots_used{resource=\"cores\"} %d\nhebb_slots_used{resource=\"gpus\"} %d\n",
        cores_used, gpus_used);
}

/* --- jobs that are not final --- */

struct active {
    struct daemon *daemon;
    struct err *err;
    size_t count;
    struct {
        char id[STORE_ID_MAX];
        struct job_progress progress;
        uint64_t bytes, seq, behind;
    } jobs[METRICS_JOBS_MAX];
};

static int active_add(void *context, const struct job_row *job)
{
    struct active *active = context;
    if (active->count == METRICS_JOBS_MAX || job->attempt == 0)
        return 0;
    size_t i = active->count;
    struct store *store = active->daemon->store;
    snprintf(active->jobs[i].id, sizeof(active->jobs[i].id), "%s", job->id);
    int rc = store_progress(store, job->id, &active->jobs[i].progress, active->err);
    if (!rc)
        rc = store_event_offset(store, job->id, &active->jobs[i].bytes, &active->jobs[i].seq,
                                active->err);
    if (rc)
        return rc;
    char folder[FSX_PATH_MAX], path[FSX_PATH_MAX];
    struct stat stat_;
    active->jobs[i].behind = 0;
    if (!jobs_path(active->daemon->jobs, job->id, folder, sizeof(folder), NULL) &&
        !fsx_path(path, NULL, "%s/events.jsonl", folder) && !stat(path, &stat_) &&
        (uint64_t)stat_.st_size > active->jobs[i].bytes)
        active->jobs[i].behind = (uint64_t)stat_.st_size - active->jobs[i].bytes;
    active->count++;
    return 0;
}

static void print_active(const struct active *active, struct buf *out)
{
    family(out, "hebb_job_step", "gauge", "Last step of a job that is not final.");
    for (size_t i = 0; i < active->count; i++)
        buf_printf(out, "hebb_job_step{job=\"%s\"} %lld\n", active->jobs[i].id,
                   (long long)active->jobs[i].progress.step);
    family(out, "hebb_job_loss", "gauge", "Training loss of the last step.");
    for (size_t i = 0; i < active->count; i++)
        if (active->jobs[i].progress.has_loss)
            buf_printf(out, "hebb_job_loss{job=\"%s\"} %.9g\n", active->jobs[i].id,
                       active->jobs[i].progress.loss);
    family(out, "hebb_job_tokens_per_second", "gauge", "Tokens per second of the last step.");
    for (size_t i = 0; i < active->count; i++)
        buf_printf(out, "hebb_job_tokens_per_second{job=\"%s\"} %.9g\n", active->jobs[i].id,
                   active->jobs[i].progress.tokens_per_s);
    family(out, "hebb_ingest_events", "gauge", "Events of the job in the database.");
    for (size_t i = 0; i < active->count; i++)
        buf_printf(out, "hebb_ingest_events{job=\"%s\"} %llu\n", active->jobs[i].id,
                   (unsigned long long)active->jobs[i].seq);
    family(out, "hebb_ingest_behind_bytes", "gauge",
           "Bytes of the job's events.jsonl that are not in the database yet.");
    for (size_t i = 0; i < active->count; i++)
        buf_printf(out, "hebb_ingest_behind_bytes{job=\"%s\"} %llu\n", active->jobs[i].id,
                   (unsigned long long)active->jobs[i].behind);
}

/* --- HTTP and process --- */

static void print_http(struct daemon *daemon, struct buf *out)
{
    struct http_stats stats;
    http_stats(daemon->http, &stats);
    family(out, "hebb_http_requests_total", "counter", "Answers by route and class of status.");
    for (size_t i = 0; i < HTTP_ROUTES_MAX; i++) {
        const char *method = "", *path = i == HTTP_ROUTE_STATIC ? "static" : "none";
        if (i < HTTP_ROUTE_STATIC) {
            if (i >= api_route_count())
                continue;
            method = api_routes[i].method;
            path = api_routes[i].path;
        }
        for (size_t class = 2; class < 6; class ++)
            if (stats.answers[i][class])
                buf_printf(
                    out,
                    "hebb_http_requests_total{method=\"%s\",route=\"%s\",class=\"%zuxx\"} "
                    "%llu\n",
                    method, path, class, (unsigned long long)stats.answers[i][class]);
    }
    family(out, "hebb_http_connections", "gauge", "Open connections.");
    buf_printf(out, "hebb_http_connections %zu\n", stats.connections);
    family(out, "hebb_http_streams", "gauge", "Open event streams.");
    buf_printf(out, "hebb_http_streams %zu\n", stats.streams);
    family(out, "hebb_http_timeouts_total", "counter", "Connections closed at a deadline.");
    buf_printf(out, "hebb_http_timeouts_total %llu\n", (unsigned long long)stats.timeouts);
}

static void print_refused(struct daemon *daemon, struct buf *out)
{
    struct http_stats stats;
    http_stats(daemon->http, &stats);
    family(out, "hebb_http_refused_total", "counter",
           "Connections above the limit of an address.");
    buf_printf(out, "hebb_http_refused_total %llu\n", (unsigned long long)stats.refused);
}

static void print_webhooks(struct daemon *daemon, struct buf *out)
{
    struct webhook_stats stats;
    webhooks_stats(daemon->webhooks, &stats);
    family(out, "hebb_webhook_deliveries_total", "counter", "Tries of webhooks by their end.");
    buf_printf(out, "hebb_webhook_deliveries_total{end=\"sent\"} %llu\n",
               (unsigned long long)stats.sent);
    buf_printf(out, "hebb_webhook_deliveries_total{end=\"failed\"} %llu\n",
               (unsigned long long)stats.failed);
    buf_printf(out, "hebb_webhook_deliveries_total{end=\"given_up\"} %llu\n",
               (unsigned long long)stats.given_up);
}

static void print_process(struct daemon *daemon, struct buf *out)
{
    family(out, "hebb_build_info", "gauge", "Version.");
    buf_puts(out, "hebb_build_info{version=\"" HEBB_VERSION "\"} 1\n");
    family(out, "hebb_store_writable", "gauge", "0 while the disk is full or failing.");
    buf_printf(out, "hebb_store_writable %d\n", store_writable(daemon->store) ? 1 : 0);
    family(out, "process_start_time_seconds", "gauge", "Start of the daemon since 1970.");
    buf_printf(out, "process_start_time_seconds %.3f\n", (double)daemon->started_ms / 1000.0);
    FILE *file = fopen("/proc/self/statm", "re");
    long pages = 0;
    if (file && fscanf(file, "%*d %ld", &pages) == 1) {
        family(out, "process_resident_memory_bytes", "gauge", "Resident memory.");
        buf_printf(out, "process_resident_memory_bytes %lld\n",
                   (long long)pages * sysconf(_SC_PAGESIZE));
    }
    if (file)
        fclose(file);
}

int metrics_print(struct daemon *daemon, struct buf *out, struct err *err)
{
    int rc = print_jobs_by_state(daemon, out, err);
    if (rc)
        return rc;
    struct active *active = calloc(1, sizeof(*active));
    if (!active)
        return err_set(err, ERR_NO_MEMORY, "metrics: out of memory");
    active->daemon = daemon;
    active->err = err;
    rc = store_jobs_active(daemon->store, active_add, active, err);
    if (!rc) {
        print_slots(daemon, out);
        print_active(active, out);
        print_http(daemon, out);
        print_refused(daemon, out);
        print_webhooks(daemon, out);
        print_process(daemon, out);
    }
    free(active);
    return rc;
}
