#include "daemon/openapi.h"

#include "daemon/api.h"
#include "daemon/problem.h"
#include "proto/json/json.h"
#include "proto/msg/schema.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>

#define STAMP "{\"type\":[\"string\",\"null\"],\"format\":\"date-time\"}"
#define WHOLE "{\"type\":\"integer\",\"minimum\":0}"
#define WHOLE_OR_NULL "{\"type\":[\"integer\",\"null\"]}"
#define REAL_OR_NULL "{\"type\":[\"number\",\"null\"]}"
#define COLUMN "{\"type\":\"array\",\"items\":" REAL_OR_NULL "}"
#define LABELS "{\"type\":\"array\",\"items\":{\"type\":\"string\"}}"
#define TEXT "{\"type\":\"string\"}"
#define ROLE "{\"type\":\"string\",\"enum\":[\"read\",\"submit\",\"admin\"]}"
#define TOKEN_NAME "{\"type\":\"string\",\"pattern\":\"^[A-Za-z0-9._-]{1,64}$\"}"
#define JOB_ID "{\"type\":\"string\",\"pattern\":\"^[0-9a-f]{16}$\"}"

/* Shapes of the answers. JobSpec is added from the option tables. */
static const struct {
    const char *name;
    const char *schema; /* JSON text */
} components[] = {
    {"State",
     "{\"type\":\"string\",\"enum\":[\"queued\",\"starting\",\"running\",\"pausing\","
     "\"paused\",\"retry_wait\",\"cancelling\",\"succeeded\",\"failed\",\"cancelled\"]}"},
    {"Progress", "{\"type\":\"object\",\"properties\":{\"step\":" WHOLE ",\"steps\":" WHOLE
                 ",\"tokens\":" WHOLE ",\"loss\":" REAL_OR_NULL ",\"eval_loss\":" REAL_OR_NULL
                 ",\"tokens_per_s\":" REAL_OR_NULL ",\"eta_s\":" REAL_OR_NULL
                 "},\"required\":[\"step\",\"steps\",\"tokens\",\"loss\",\"eval_loss\","
                 "\"tokens_per_s\",\"eta_s\"]}"},
    {"Job",
     "{\"type\":\"object\",\"properties\":{\"id\":" JOB_ID
     ",\"name\":{\"type\":\"string\"},\"state\":{\"$ref\":\"#/components/schemas/State\"},"
     "\"reason\":{\"type\":\"string\",\"description\":\"why it is in this state\"},"
     "\"priority\":{\"type\":\"integer\"},\"labels\":" LABELS ",\"version\":{\"type\":"
     "\"integer\",\"minimum\":1,\"description\":\"counts the changes of the job's "
     "row\"},\"attempt\":{\"type\":\"integer\",\"minimum\":0,"
     "\"description\":\"0 before the first\"},\"failures\":" WHOLE
     ",\"progress\":{\"$ref\":\"#/components/schemas/Progress\"},"
     "\"slots\":{\"type\":\"object\",\"properties\":{\"cores\":" WHOLE ",\"gpus\":" WHOLE "}},"
     "\"last_seq\":{\"type\":\"integer\",\"minimum\":0,\"description\":\"seq of the last "
     "event; a "
     "stream that starts here (Last-Event-ID) misses nothing\"},\"created\":" STAMP
     ",\"updated\":" STAMP ",\"started\":" STAMP ",\"finished\":" STAMP ",\"retry_at\":" STAMP
     "},\"required\":[\"id\",\"name\",\"state\",\"reason\",\"attempt\",\"progress\",\"last_"
     "seq\"]}"},
    {"JobDetail",
     "{\"allOf\":[{\"$ref\":\"#/components/schemas/Job\"},{\"type\":\"object\",\"properties\":{"
     "\"folder\":{\"type\":\"string\",\"description\":\"the job's folder on the daemon's "
     "machine\"},"
     "\"spec\":{\"$ref\":\"#/components/schemas/"
     "JobSpec\"}},\"required\":[\"folder\",\"spec\"]}]}"},
    {"JobPage",
     "{\"type\":\"object\",\"properties\":{\"jobs\":{\"type\":\"array\",\"items\":{\"$ref\":"
     "\"#/components/schemas/Job\"}},\"next_after\":{\"type\":[\"integer\",\"null\"],"
     "\"description\":\"after of the next page; null on the last\"}},"
     "\"required\":[\"jobs\",\"next_after\"]}"},
    {"DryRun", "{\"type\":\"object\",\"properties\":{\"estimate\":{\"type\":\"object\","
               "\"description\":\"parameters, memory in bytes, FLOPs\"},\"spec\":{\"$ref\":"
               "\"#/components/schemas/JobSpec\"}},\"required\":[\"estimate\",\"spec\"]}"},
    {"Series", "{\"type\":\"object\",\"properties\":{\"step\":" COLUMN ",\"eval_step\":" COLUMN
               "},\"additionalProperties\":" COLUMN "}"},
    {"Topology",
     "{\"type\":\"object\",\"properties\":{\"refreshes\":{\"type\":\"array\",\"items\":{"
     "\"type\":"
     "\"object\",\"properties\":{\"refresh\":" WHOLE ",\"step\":" WHOLE
     ",\"zeta\":" REAL_OR_NULL
     ",\"layers\":{\"type\":\"array\",\"items\":{\"type\":\"object\",\"properties\":{\"name\":{"
     "\"type\":\"string\"},\"density\":" REAL_OR_NULL ",\"removed\":" WHOLE
     ",\"changed_groups\":" WHOLE ",\"flip_rate\":" REAL_OR_NULL ",\"explored\":" REAL_OR_NULL
     ",\"patterns\":{\"type\":[\"array\",\"null\"],\"items\":" WHOLE "},\"dead_columns\":" WHOLE
     ",\"hash\":{\"type\":\"string\"}}}}}}}},\"required\":[\"refreshes\"]}"},
    {"Checkpoints",
     "{\"type\":\"object\",\"properties\":{\"checkpoints\":{\"type\":\"array\",\"items\":{"
     "\"type\":"
     "\"object\",\"properties\":{\"step\":" WHOLE ",\"bytes\":" WHOLE ",\"loss\":" REAL_OR_NULL
     ",\"path\":{\"type\":\"string\"},\"time\":" STAMP "}}}},\"required\":[\"checkpoints\"]}"},
    {"Event",
     "{\"type\":\"object\",\"properties\":{\"seq\":{\"type\":\"integer\",\"minimum\":1},"
     "\"time\":{\"type\":\"string\",\"format\":\"date-time\"},\"type\":{\"type\":\"string\","
     "\"enum\":[\"start\",\"step\",\"refresh\",\"eval\",\"checkpoint\",\"warning\","
     "\"mask_repair\",\"done\"]}},\"required\":[\"seq\",\"type\"]}"},
    {"Events",
     "{\"type\":\"object\",\"properties\":{\"events\":{\"type\":\"array\",\"items\":{\"$ref\":"
     "\"#/components/schemas/Event\"}},\"last_seq\":" WHOLE
     ",\"state\":{\"$ref\":\"#/components/schemas/State\"}},"
     "\"required\":[\"events\",\"last_seq\",\"state\"]}"},
    {"JobPatch",
     "{\"type\":\"object\",\"minProperties\":1,\"additionalProperties\":false,"
     "\"properties\":{\"priority\":{\"type\":\"integer\",\"minimum\":-100,\"maximum\":100},"
     "\"labels\":{\"type\":\"array\",\"maxItems\":16,\"items\":{\"type\":\"string\","
     "\"minLength\":1,"
     "\"maxLength\":64}}}}"},
    {"CancelMany",
     "{\"type\":\"object\",\"minProperties\":1,\"additionalProperties\":false,\"properties\":{"
     "\"ids\":{\"type\":\"array\",\"maxItems\":500,\"items\":" JOB_ID "},\"state\":" TEXT
     ",\"label\":" TEXT ",\"name\":" TEXT ",\"all\":{\"type\":\"boolean\"}}}"},
    {"CancelResults",
     "{\"type\":\"object\",\"properties\":{\"results\":{\"type\":\"array\",\"items\":{\"type\":"
     "\"object\","
     "\"properties\":{\"id\":" TEXT ",\"status\":{\"type\":\"integer\",\"enum\":[202,404,409]},"
     "\"state\":{\"$ref\":\"#/components/schemas/State\"},\"detail\":" TEXT "},"
     "\"required\":[\"id\",\"status\"]}},\"more\":{\"type\":\"boolean\",\"description\":"
     "\"there are more than one request cancels: send it "
     "again\"}},\"required\":[\"results\",\"more\"]}"},
    {"Files", "{\"type\":\"object\",\"properties\":{\"files\":{\"type\":\"array\",\"items\":{"
              "\"type\":\"object\",\"properties\":{"
              "\"name\":" TEXT ",\"bytes\":" WHOLE
              "},\"required\":[\"name\",\"bytes\"]}}},\"required\":[\"files\"]}"},
    {"Attempts",
     "{\"type\":\"object\",\"properties\":{\"attempts\":{\"type\":\"array\",\"items\":{"
     "\"type\":\"object\",\"properties\":{"
     "\"attempt\":" WHOLE ",\"started\":" STAMP ",\"finished\":" STAMP
     ",\"code\":" WHOLE_OR_NULL ",\"signal\":" WHOLE_OR_NULL ",\"rank\":" WHOLE_OR_NULL
     ",\"reason\":" TEXT "},\"required\":[\"attempt\",\"started\",\"finished\"]}}},"
     "\"required\":[\"attempts\"]}"},
    {"AuditPage",
     "{\"type\":\"object\",\"properties\":{\"events\":{\"type\":\"array\",\"items\":{\"type\":"
     "\"object\",\"properties\":{"
     "\"seq\":" WHOLE ",\"time\":" STAMP ",\"actor\":" TEXT ",\"action\":" TEXT
     ",\"job\":{\"type\":[\"string\",\"null\"]},"
     "\"detail\":" TEXT
     "},\"required\":[\"seq\",\"time\",\"actor\",\"action\",\"job\",\"detail\"]}},"
     "\"next_after\":" WHOLE_OR_NULL "},\"required\":[\"events\",\"next_after\"]}"},
    {"TokenRequest",
     "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"name\":" TOKEN_NAME
     ",\"role\":" ROLE "},\"required\":[\"name\",\"role\"]}"},
    {"NewToken",
     "{\"type\":\"object\",\"properties\":{\"name\":" TOKEN_NAME ",\"role\":" ROLE
     ",\"token\":{\"type\":\"string\","
     "\"pattern\":\"^[0-9a-f]{64}$\"}},\"required\":[\"name\",\"role\",\"token\"]}"},
    {"Tokens", "{\"type\":\"object\",\"properties\":{\"tokens\":{\"type\":\"array\",\"items\":{"
               "\"type\":\"object\",\"properties\":{"
               "\"name\":" TOKEN_NAME ",\"role\":" ROLE ",\"created\":" STAMP
               "},\"required\":[\"name\",\"role\",\"created\"]}}},"
               "\"required\":[\"tokens\"]}"},
    {"Revoked",
     "{\"type\":\"object\",\"properties\":{\"revoked\":" TEXT "},\"required\":[\"revoked\"]}"},
    {"WebhookRequest",
     "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{\"name\":" TOKEN_NAME
     ",\"url\":{\"type\":\"string\",\"format\":\"uri\",\"maxLength\":2000},\"states\":{"
     "\"type\":\"array\","
     "\"description\":\"only changes into these; without it all\",\"items\":{\"$ref\":"
     "\"#/components/schemas/State\"}}},\"required\":[\"name\",\"url\"]}"},
    {"NewWebhook", "{\"type\":\"object\",\"properties\":{\"name\":" TOKEN_NAME ",\"url\":" TEXT
                   ",\"secret\":{\"type\":\"string\","
                   "\"pattern\":\"^whsec_\"}},\"required\":[\"name\",\"url\",\"secret\"]}"},
    {"Webhooks", "{\"type\":\"object\",\"properties\":{\"webhooks\":{\"type\":\"array\","
                 "\"items\":{\"type\":\"object\",\"properties\":{"
                 "\"name\":" TOKEN_NAME ",\"url\":" TEXT
                 ",\"states\":{\"type\":\"array\",\"items\":{\"$ref\":"
                 "\"#/components/schemas/State\"}},\"created\":" STAMP ",\"pending\":" WHOLE
                 ",\"trouble\":" TEXT "},"
                 "\"required\":[\"name\",\"url\",\"states\",\"pending\",\"trouble\"]}}},"
                 "\"required\":[\"webhooks\"]}"},
    {"Removed",
     "{\"type\":\"object\",\"properties\":{\"removed\":" TEXT "},\"required\":[\"removed\"]}"},
    {"DrainRequest", "{\"type\":\"object\",\"additionalProperties\":false,\"properties\":{"
                     "\"draining\":{\"type\":\"boolean\"}},"
                     "\"required\":[\"draining\"]}"},
    {"Drain", "{\"type\":\"object\",\"properties\":{\"draining\":{\"type\":\"boolean\"},"
              "\"running\":" WHOLE ",\"waiting\":" WHOLE
              "},\"required\":[\"draining\",\"running\",\"waiting\"]}"},
    {"Schema", "{\"type\":\"object\"}"},
    {"Health", "{\"type\":\"object\",\"properties\":{\"status\":{\"const\":\"ok\"}},"
               "\"required\":[\"status\"]}"},
    {"Ready",
     "{\"type\":\"object\",\"properties\":{\"ready\":{\"const\":true},\"version\":{\"type\":"
     "\"string\"},\"uptime_s\":" WHOLE ",\"slots\":{\"type\":\"object\",\"properties\":{"
     "\"cores\":" WHOLE ",\"cores_used\":" WHOLE ",\"gpus\":" WHOLE ",\"gpus_used\":" WHOLE
     "}}},\"required\":[\"ready\",\"version\",\"slots\"]}"},
    {"Problem", "{\"type\":\"object\",\"properties\":{\"type\":{\"type\":\"string\",\"format\":"
                "\"uri\"},\"title\":"
                "{\"type\":\"string\"},\"status\":{\"type\":\"integer\"},\"detail\":{\"type\":"
                "\"string\"},\"code\":"
                "{\"$ref\":\"#/components/schemas/"
                "ProblemCode\"},\"errors\":{\"type\":\"array\",\"description\":"
                "\"all faults of the "
                "request\",\"items\":{\"type\":\"object\",\"properties\":{\"field\":{\"type\":"
                "\"string\",\"description\":\"JSON pointer into the body, or ?option of the "
                "query\"},\"reason\":{"
                "\"type\":\"string\"}},\"required\":[\"field\",\"reason\"]}}},"
                "\"required\":[\"type\",\"title\",\"status\",\"detail\",\"code\"]}"},
};

static void print_components(struct buf *out)
{
    buf_puts(out, "{\"securitySchemes\":{\"token\":{\"type\":\"http\",\"scheme\":\"bearer\","
                  "\"description\":\"the 64 hex digits in STATE/token\"}},"
                  "\"responses\":{\"Problem\":{\"description\":\"what is wrong, by RFC 9457\","
                  "\"content\":{\"application/problem+json\":{\"schema\":{\"$ref\":"
                  "\"#/components/schemas/Problem\"}}}}},\"schemas\":{");
    for (size_t i = 0; i < sizeof(components) / sizeof(components[0]); i++)
        buf_printf(out, "\"%s\":%s,", components[i].name, components[i].schema);
    buf_puts(out, "\"ProblemCode\":{\"type\":\"string\",\"enum\":[");
    for (int i = 0; i < PROBLEM_COUNT; i++)
        buf_printf(out, "%s\"%s\"", i ? "," : "", problem_code((enum problem)i));
    buf_puts(out, "]},\"JobSpec\":");
    spec_schema(out);
    buf_puts(out, "}}");
}

static void print_option_schema(const struct api_option *option, struct buf *out)
{
    if (option->type == API_BOOL)
        buf_puts(out, "{\"type\":\"integer\",\"enum\":[0,1]");
    else if (option->type == API_INT)
        buf_printf(out, "{\"type\":\"integer\",\"minimum\":%lld,\"maximum\":%lld",
                   (long long)option->min, (long long)option->max);
    else
        buf_printf(out, "{\"type\":\"string\",\"minLength\":%lld,\"maxLength\":%lld",
                   (long long)option->min, (long long)option->max);
    if (option->def) {
        buf_puts(out, ",\"default\":");
        if (option->type == API_TEXT)
            json_print_string(option->def, out);
        else
            buf_puts(out, option->def);
    }
    buf_puts(out, "}");
}

/* Appends the options as parameters; *comma goes before the first. */
static void print_options(const struct api_option *options, const char *where,
                          const char **comma, struct buf *out)
{
    for (const struct api_option *o = options; o && o->name; o++) {
        buf_printf(out, "%s{\"name\":\"%s\",\"in\":\"%s\",\"required\":false,\"description\":",
                   *comma, o->name, where);
        json_print_string(o->help, out);
        buf_puts(out, ",\"schema\":");
        print_option_schema(o, out);
        buf_puts(out, "}");
        *comma = ",";
    }
}

/* Schema of what {name} of a path matches. */
static const char *segment_schema(const char *name)
{
    if (strcmp(name, "id") == 0)
        return JOB_ID;
    if (strcmp(name, "step") == 0)
        return WHOLE;
    return strcmp(name, "name") == 0 ? TOKEN_NAME : TEXT;
}

static void print_parameters(const struct api_route *route, struct buf *out)
{
    const char *comma = "";
    buf_puts(out, "\"parameters\":[");
    for (const char *open = route->path; (open = strchr(open, '{')); open++) {
        char name[16];
        snprintf(name, sizeof(name), "%.*s", (int)strcspn(open + 1, "}"), open + 1);
        buf_printf(out, "%s{\"name\":\"%s\",\"in\":\"path\",\"required\":true,\"schema\":%s}",
                   comma, name, segment_schema(name));
        comma = ",";
    }
    print_options(route->options, "query", &comma, out);
    print_options(route->headers, "header", &comma, out);
    buf_puts(out, "],");
}

static void print_content(const struct api_good *good, struct buf *out)
{
    buf_printf(out, "\"%s\":{\"schema\":", good->type);
    if (good->schema)
        buf_printf(out, "{\"$ref\":\"#/components/schemas/%s\"}}", good->schema);
    else
        buf_puts(out, "{\"type\":\"string\"}}");
}

static void print_responses(const struct api_route *route, struct buf *out)
{
    const struct api_good *good = &route->good, *other = &route->other;
    bool same_status = other->status == good->status;
    buf_printf(out, "\"responses\":{\"%d\":{\"description\":", good->status);
    json_print_string(good->when && !same_status ? good->when : route->summary, out);
    buf_puts(out, ",\"content\":{");
    print_content(good, out);
    if (same_status) {
        buf_puts(out, ",");
        print_content(other, out);
    }
    buf_puts(out, "}}");
    if (other->status && !same_status) {
        buf_printf(out, ",\"%d\":{\"description\":", other->status);
        json_print_string(other->when, out);
        buf_puts(out, ",\"content\":{");
        print_content(other, out);
        buf_puts(out, "}}");
    }
    buf_puts(out, ",\"default\":{\"$ref\":\"#/components/responses/Problem\"}}");
}

static void print_operation(const struct api_route *route, struct buf *out)
{
    char method[8];
    snprintf(method, sizeof(method), "%s", route->method);
    for (char *c = method; *c; c++)
        *c = (char)tolower((unsigned char)*c);
    buf_printf(out, "\"%s\":{\"operationId\":\"%s\",\"summary\":", method, route->name);
    json_print_string(route->summary, out);
    buf_puts(out, ",");
    if (route->open)
        buf_puts(out, "\"security\":[],");
    print_parameters(route, out);
    if (route->body) {
        const struct api_good body = {.type = "application/json", .schema = route->body};
        buf_puts(out, "\"requestBody\":{\"required\":true,\"content\":{");
        print_content(&body, out);
        buf_puts(out, "}},");
    }
    print_responses(route, out);
    buf_puts(out, "}");
}

static bool path_printed(const struct api_route *route)
{
    for (const struct api_route *other = api_routes; other < route; other++)
        if (strcmp(other->path, route->path) == 0)
            return true;
    return false;
}

void openapi_print(struct buf *out)
{
    buf_puts(
        out,
        "{\"openapi\":\"3.1.0\",\"info\":{\"title\":\"hebb\",\"version\":\"" HEBB_VERSION
        "\",\"summary\":\"Pre-training of N:M sparse LLaMA-style models as a service\","
        "\"license\":{\"name\":\"MIT\",\"identifier\":\"MIT\"}},\"servers\":[{\"url\":\"/\"}],"
        "\"security\":[{\"token\":[]}],\"paths\":{");
    for (const struct api_route *route = api_routes; route->path; route++) {
        if (path_printed(route))
            continue;
        buf_printf(out, "%s\"%s\":{", route == api_routes ? "" : ",", route->path);
        const char *comma = "";
        for (const struct api_route *same = route; same->path; same++) {
            if (strcmp(same->path, route->path) != 0)
                continue;
            buf_puts(out, comma);
            print_operation(same, out);
            comma = ",";
        }
        buf_puts(out, "}");
    }
    buf_puts(out, "},\"components\":");
    print_components(out);
    buf_puts(out, "}");
}
