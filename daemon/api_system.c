/* The daemon about itself: schema, OpenAPI, health, readiness, metrics. */
#include "daemon/api.h"
#include "daemon/jobs.h"
#include "daemon/metrics.h"
#include "daemon/openapi.h"
#include "daemon/problem.h"
#include "proto/base/clock.h"
#include "proto/json/json.h"
#include "proto/msg/schema.h"

void api_spec(struct api_request *request, struct api_answer *answer)
{
    answer->status = 200;
    answer->type = request->route->good.type;
    spec_schema(&answer->body);
}

void api_openapi(struct api_request *request, struct api_answer *answer)
{
    (void)request;
    answer->status = 200;
    openapi_print(&answer->body);
}

void api_healthz(struct api_request *request, struct api_answer *answer)
{
    (void)request;
    answer->status = 200;
    buf_puts(&answer->body, "{\"status\":\"ok\"}");
}

void api_readyz(struct api_request *request, struct api_answer *answer)
{
    struct daemon *daemon = request->daemon;
    if (daemon->stopping) {
        problem_set(answer, PROBLEM_UNAVAILABLE, "the daemon is stopping");
        return;
    }
    if (daemon->draining) {
        problem_set(answer, PROBLEM_UNAVAILABLE, "the daemon drains: it starts no attempts");
        return;
    }
    struct err why;
    if (jobs_ready(daemon->jobs, &why) != 0) {
        problem_set(answer, PROBLEM_READ_ONLY, "%s", why.text);
        return;
    }
    int cores_used, cores, gpus_used, gpus;
    jobs_slots(daemon->jobs, &cores_used, &cores, &gpus_used, &gpus);
    cJSON *object = cJSON_CreateObject();
    cJSON_AddBoolToObject(object, "ready", true);
    cJSON_AddStringToObject(object, "version", HEBB_VERSION);
    cJSON_AddNumberToObject(object, "uptime_s",
                            (double)((clock_wall_ms() - daemon->started_ms) / 1000));
    cJSON *slots = cJSON_AddObjectToObject(object, "slots");
    cJSON_AddNumberToObject(slots, "cores", cores);
    cJSON_AddNumberToObject(slots, "cores_used", cores_used);
    cJSON_AddNumberToObject(slots, "gpus", gpus);
    cJSON_AddNumberToObject(slots, "gpus_used", gpus_used);
    api_answer_json(answer, 200, object);
}

void api_metrics(struct api_request *request, struct api_answer *answer)
{
    struct err err = {0};
    answer->status = 200;
    answer->type = request->route->good.type;
    int rc = metrics_print(request->daemon, &answer->body, &err);
    if (rc)
        problem_set_err(answer, rc, &err);
}
