#include "daemon/cli/client.h"

#include "daemon/cli/cli.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/json/json.h"
#include <ctype.h>
#include <curl/curl.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <unistd.h>

enum {
    CLIENT_CONNECT_MS = 5000, /* for the connection */
    CLIENT_ANSWER_MS = 30000, /* for an answer beside request.wait_s */
    CLIENT_POLL_MS = 1000,
    CLIENT_TOKEN_MAX = 256,
};

static const char client_default_url[] = "http://127.0.0.1:7077";

const char client_help[] =
    "Address: --url URL, $HEBB_URL, or http://127.0.0.1:7077; unix:PATH is a Unix socket.\n"
    "Token: --token-file FILE, $HEBB_TOKEN, or the file `token` in $HEBB_STATE,\n"
    "$XDG_STATE_HOME/hebb, ~/.local/state/hebb or /var/lib/hebb: the first that can be read.\n";

struct client {
    CURLM *multi;
    CURL *easy;
    char url[CLIENT_PATH_MAX]; /* without a slash at the end */
    char token[CLIENT_TOKEN_MAX];
    int stop_fd;
    bool stopped, loopback;
    char socket[108]; /* a Unix socket instead of the address's host; "": none */
    char reason[CURL_ERROR_SIZE];
};

/* --- address and token --- */

static int parse_url(struct client *client, const char *text, struct err *err)
{
    if (strncmp(text, "unix:", 5) == 0) {
        if (text[5] == '\0' || strlen(text + 5) >= sizeof(client->socket)) {
            return err_set(err, ERR_INVALID, "address %s: want unix:PATH of at most %zu bytes",
                           text, sizeof(client->socket) - 1);
        }
        strcpy(client->socket, text + 5);
        strcpy(client->url, "http://localhost");
        client->loopback = true;
        return 0;
    }
    CURLU *url = curl_url();
    char *scheme = NULL, *host = NULL, *whole = NULL;
    int rc = 0;
    if (!url || curl_url_set(url, CURLUPART_URL, text, 0) ||
        curl_url_get(url, CURLUPART_SCHEME, &scheme, 0) ||
        curl_url_get(url, CURLUPART_HOST, &host, 0) ||
        curl_url_get(url, CURLUPART_URL, &whole, 0) ||
        (strcmp(scheme, "http") != 0 && strcmp(scheme, "https") != 0) ||
        strlen(whole) >= sizeof(client->url)) {
        rc = err_set(err, ERR_INVALID, "address %s: not an http:// or https:// address", text);
    } else {
        strcpy(client->url, whole);
        size_t len = strlen(client->url);
        while (len > 0 && client->url[len - 1] == '/') {
            client->url[--len] = '\0';
        }
        client->loopback = strcasecmp(host, "localhost") == 0 || strcmp(host, "[::1]") == 0 ||
                           strncmp(host, "127.", 4) == 0;
    }
    curl_free(scheme);
    curl_free(host);
    curl_free(whole);
    curl_url_cleanup(url);
    return rc;
}

static int keep_token(struct client *client, const char *text, const char *from,
                      struct err *err)
{
    size_t len = strcspn(text, " \t\r\n");
    if (len >= sizeof(client->token) || text[len + strspn(text + len, " \t\r\n")] != '\0') {
        return err_set(err, ERR_INVALID, "%s: not a token", from);
    }
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)text[i] <= 0x20 || (unsigned char)text[i] >= 0x7f) {
            return err_set(err, ERR_INVALID, "%s: not a token", from);
        }
    }
    memcpy(client->token, text, len);
    client->token[len] = '\0';
    return 0;
}

static int read_token(struct client *client, const char *path, struct err *err)
{
    struct buf text;
    buf_init(&text, CLIENT_TOKEN_MAX * 2);
    int rc = fsx_read(&text, path, err);
    if (!rc) {
        rc = keep_token(client, text.data, path, err);
    }
    buf_release(&text);
    return rc;
}

/* The first token file of the usual folders that can be read. */
static int find_token(struct client *client, struct err *err)
{
    const char *state = getenv("HEBB_STATE"), *xdg = getenv("XDG_STATE_HOME"),
               *home = getenv("HOME");
    char paths[4][FSX_PATH_MAX] = {"", "", "", "/var/lib/hebb/token"};
    int rc = 0;
    if (state && *state) {
        rc = fsx_path(paths[0], err, "%s/token", state);
    }
    if (!rc && xdg && *xdg) {
        rc = fsx_path(paths[1], err, "%s/hebb/token", xdg);
    }
    if (!rc && home && *home) {
        rc = fsx_path(paths[2], err, "%s/.local/state/hebb/token", home);
    }
    for (size_t i = 0; !rc && i < sizeof(paths) / sizeof(paths[0]); i++) {
        if (paths[i][0] != '\0' && access(paths[i], R_OK) == 0) {
            return read_token(client, paths[i], err);
        }
    }
    return rc;
}

int client_create(struct client **out, const struct client_config *config, struct err *err)
{
    const char *url = config->url ? config->url : getenv("HEBB_URL");
    const char *token = getenv("HEBB_TOKEN");
    struct client *client = mem_zeroed(1, sizeof(*client));
    *out = NULL;
    if (!client || curl_global_init(CURL_GLOBAL_DEFAULT)) {
        free(client);
        return err_set(err, ERR_NO_MEMORY, "client: out of memory");
    }
    client->stop_fd = -1;
    client->multi = curl_multi_init();
    client->easy = curl_easy_init();
    int rc = client->multi && client->easy
                 ? 0
                 : err_set(err, ERR_NO_MEMORY, "client: out of memory");
    if (!rc) {
        rc = parse_url(client, url && *url ? url : client_default_url, err);
    }
    if (!rc && config->token_file) {
        rc = read_token(client, config->token_file, err);
    } else if (!rc && token && *token) {
        rc = keep_token(client, token, "HEBB_TOKEN", err);
    } else if (!rc && client->socket[0] == '\0') { /* the socket knows who we are */
        rc = find_token(client, err);
    }
    if (rc) {
        client_destroy(client);
        return rc;
    }
    *out = client;
    return 0;
}

void client_destroy(struct client *client)
{
    if (!client) {
        return;
    }
    curl_easy_cleanup(client->easy);
    curl_multi_cleanup(client->multi);
    curl_global_cleanup();
    explicit_bzero(client->token, sizeof(client->token));
    free(client);
}

void client_set_stop(struct client *client, int fd) { client->stop_fd = fd; }

bool client_stopped(const struct client *client) { return client->stopped; }

/* --- one request --- */

static size_t take_body(char *data, size_t size, size_t count, void *context)
{
    struct reply *reply = context;
    buf_add(&reply->body, data, size * count);
    return reply->body.failed ? 0 : size * count;
}

/* True if line is "name: value"; *value points at the value. */
static bool header_is(const char *line, const char *name, const char **value)
{
    size_t len = strlen(name);
    if (strncasecmp(line, name, len) != 0 || line[len] != ':') {
        return false;
    }
    *value = line + len + 1 + strspn(line + len + 1, " \t");
    return true;
}

static size_t take_header(char *data, size_t size, size_t count, void *context)
{
    static const char problem[] = "application/problem+json";
    struct reply *reply = context;
    char line[CLIENT_PATH_MAX];
    const char *value;
    snprintf(line, sizeof(line), "%.*s", (int)(size * count), data);
    if (header_is(line, "Content-Type", &value)) {
        reply->problem = strncasecmp(value, problem, sizeof(problem) - 1) == 0;
    } else if (header_is(line, "X-Next-Offset", &value)) {
        reply->next_offset = strtoll(value, NULL, 10);
    } else if (header_is(line, "X-Attempt", &value)) {
        reply->attempt = strtoll(value, NULL, 10);
    }
    return size * count;
}

static struct curl_slist *add_header(struct curl_slist *list, bool *ok, const char *name,
                                     const char *value)
{
    char line[CLIENT_PATH_MAX];
    int len = snprintf(line, sizeof(line), "%s: %s", name, value);
    struct curl_slist *grown =
        len > 0 && (size_t)len < sizeof(line) ? curl_slist_append(list, line) : NULL;
    *ok = *ok && grown;
    return grown ? grown : list;
}

static struct curl_slist *make_headers(const struct client *client,
                                       const struct request *request, bool *ok)
{
    struct curl_slist *list = add_header(NULL, ok, "Accept", "application/json, */*;q=0.1");
    if (client->token[0] != '\0') {
        char bearer[CLIENT_TOKEN_MAX + 8];
        snprintf(bearer, sizeof(bearer), "Bearer %s", client->token);
        list = add_header(list, ok, "Authorization", bearer);
    }
    if (request->body) {
        list = add_header(list, ok, "Content-Type", "application/json");
    }
    if (request->idempotency_key) {
        list = add_header(list, ok, "Idempotency-Key", request->idempotency_key);
    }
    return list;
}

static bool set_options(struct client *client, const struct request *request,
                        struct reply *reply, const char *url, struct curl_slist *headers)
{
    CURL *easy = client->easy;
    long timeout_ms = CLIENT_ANSWER_MS + 1000L * request->wait_s;
    bool post = strcmp(request->method, "POST") == 0;
    curl_easy_reset(easy);
    client->reason[0] = '\0';
    return !curl_easy_setopt(easy, CURLOPT_URL, url) &&
           !curl_easy_setopt(easy, CURLOPT_PROTOCOLS_STR, "http,https") &&
           !curl_easy_setopt(easy, CURLOPT_NOSIGNAL, 1L) &&
           !curl_easy_setopt(easy, CURLOPT_ERRORBUFFER, client->reason) &&
           !curl_easy_setopt(easy, CURLOPT_USERAGENT, "hebb/" HEBB_VERSION) &&
           /* the token must not pass through a proxy on its way to this machine */
           (!client->loopback || !curl_easy_setopt(easy, CURLOPT_PROXY, "")) &&
           !curl_easy_setopt(easy, CURLOPT_CONNECTTIMEOUT_MS, (long)CLIENT_CONNECT_MS) &&
           !curl_easy_setopt(easy, CURLOPT_TIMEOUT_MS, timeout_ms) &&
           !curl_easy_setopt(easy, CURLOPT_HTTPHEADER, headers) &&
           !curl_easy_setopt(easy, CURLOPT_WRITEFUNCTION, take_body) &&
           !curl_easy_setopt(easy, CURLOPT_WRITEDATA, reply) &&
           !curl_easy_setopt(easy, CURLOPT_HEADERFUNCTION, take_header) &&
           !curl_easy_setopt(easy, CURLOPT_HEADERDATA, reply) &&
           (client->socket[0] == '\0' ||
            !curl_easy_setopt(easy, CURLOPT_UNIX_SOCKET_PATH, client->socket)) &&
           (post || strcmp(request->method, "GET") == 0 ||
            !curl_easy_setopt(easy, CURLOPT_CUSTOMREQUEST, request->method)) &&
           (!post ||
            (!curl_easy_setopt(easy, CURLOPT_POST, 1L) &&
             !curl_easy_setopt(easy, CURLOPT_POSTFIELDS, request->body ? request->body : "") &&
             !curl_easy_setopt(easy, CURLOPT_POSTFIELDSIZE_LARGE,
                               (curl_off_t)request->body_len)));
}

/* Runs the transfer until it ends or the stop descriptor is readable. */
static CURLcode transfer(struct client *client)
{
    CURLcode result = CURLE_ABORTED_BY_CALLBACK;
    int running = 1;
    if (curl_multi_add_handle(client->multi, client->easy)) {
        return CURLE_OUT_OF_MEMORY;
    }
    while (!client->stopped && !curl_multi_perform(client->multi, &running) && running) {
        struct curl_waitfd stop = {.fd = client->stop_fd, .events = CURL_WAIT_POLLIN};
        curl_multi_poll(client->multi, &stop, client->stop_fd >= 0 ? 1 : 0, CLIENT_POLL_MS,
                        NULL);
        client->stopped = client->stop_fd >= 0 && (stop.revents & CURL_WAIT_POLLIN);
    }
    int left;
    const CURLMsg *message;
    while ((message = curl_multi_info_read(client->multi, &left))) {
        if (message->msg == CURLMSG_DONE) {
            result = message->data.result;
        }
    }
    curl_multi_remove_handle(client->multi, client->easy);
    return result;
}

int client_send(struct client *client, const struct request *request, struct reply *reply,
                struct err *err)
{
    char url[2 * CLIENT_PATH_MAX];
    bool ok = true;
    *reply = (struct reply){.next_offset = -1, .attempt = -1};
    buf_init(&reply->body, CLIENT_BODY_MAX);
    client->stopped = false;
    int len = snprintf(url, sizeof(url), "%s%s", client->url, request->path);
    if (len < 0 || (size_t)len >= sizeof(url)) {
        return err_set(err, ERR_LIMIT, "address of %zu bytes is too long",
                       strlen(client->url) + strlen(request->path));
    }
    struct curl_slist *headers = make_headers(client, request, &ok);
    if (!ok || !set_options(client, request, reply, url, headers)) {
        curl_slist_free_all(headers);
        return err_set(err, ERR_NO_MEMORY, "request to %s: out of memory", client->url);
    }
    CURLcode result = transfer(client);
    curl_slist_free_all(headers);
    if (result == CURLE_OK) {
        long status = 0;
        curl_easy_getinfo(client->easy, CURLINFO_RESPONSE_CODE, &status);
        reply->status = (int)status;
        buf_puts(&reply->body, ""); /* an empty body is "" */
        return 0;
    }
    if (reply->body.failed) {
        return err_set(err, ERR_LIMIT, "%s%s: the answer is larger than %d bytes", client->url,
                       request->path, CLIENT_BODY_MAX);
    }
    const char *reason = client->reason[0] ? client->reason : curl_easy_strerror(result);
    return err_set(err, ERR_NETWORK,
                   "no answer from hebbd at %s: %s (is it running? --url and HEBB_URL choose "
                   "another)",
                   client->url, client->stopped ? "interrupted" : reason);
}

void reply_release(struct reply *reply) { buf_release(&reply->body); }

/* --- exit codes and messages --- */

int client_fail(const struct err *err)
{
    fprintf(stderr, "hebb: %s\n", err->text);
    return err_exit_code(err->code);
}

static int status_exit_code(int status)
{
    /* a conflict and the daemon's own failures may pass; the rest is the request's fault */
    return status == 409 || status >= 500 ? EXIT_FAILED : EXIT_USAGE;
}

static void print_problem(const cJSON *problem, int status)
{
    const char *title = json_string(problem, "title");
    const char *detail = json_string(problem, "detail");
    const cJSON *faults = json_array(problem, "errors"), *fault;
    fprintf(stderr, "hebb: %s", title ? title : "the request failed");
    if (detail && !(faults && faults->child)) {
        fprintf(stderr, ": %s", detail);
    }
    fprintf(stderr, " (%d)\n", status);
    cJSON_ArrayForEach(fault, faults)
    {
        const char *field = json_string(fault, "field"), *reason = json_string(fault, "reason");
        bool named = field && *field;
        fprintf(stderr, "  %s%s%s\n", named ? field : "", named ? ": " : "",
                reason ? reason : "");
    }
    int64_t more;
    if (json_int(&more, problem, "errors_left_out")) {
        fprintf(stderr, "  and %lld more\n", (long long)more);
    }
}

int client_check(const struct client *client, const struct reply *reply)
{
    if (reply->status >= 200 && reply->status < 300) {
        return EXIT_DONE;
    }
    cJSON *problem = NULL;
    if (reply->problem && json_parse(&problem, reply->body.data, reply->body.len, NULL) == 0) {
        print_problem(problem, reply->status);
    } else {
        fprintf(stderr, "hebb: %s answered with status %d; is it hebbd?\n", client->url,
                reply->status);
    }
    cJSON_Delete(problem);
    if (reply->status == 401) {
        fprintf(stderr, "%s", client->token[0] == '\0' ? "No token was found.\n" : "");
        fprintf(stderr, "%s", client_help);
    }
    return status_exit_code(reply->status);
}

int client_call(struct client *client, const struct request *request, cJSON **out)
{
    struct reply reply;
    struct err err = {0};
    *out = NULL;
    int code = EXIT_DONE;
    if (client_send(client, request, &reply, &err)) {
        code = client_fail(&err);
    } else if ((code = client_check(client, &reply)) == EXIT_DONE) {
        if (json_parse(out, reply.body.data, reply.body.len, &err)) {
            fprintf(stderr, "hebb: %s%s: the answer is not JSON: %s\n", client->url,
                    request->path, err.text);
            code = EXIT_FAILED;
        }
    }
    reply_release(&reply);
    return code;
}

int client_get(struct client *client, cJSON **out, const char *format, ...)
{
    char path[CLIENT_PATH_MAX];
    va_list args;
    va_start(args, format);
    int len = vsnprintf(path, sizeof(path), format, args);
    va_end(args);
    *out = NULL;
    if (len < 0 || (size_t)len >= sizeof(path)) {
        fprintf(stderr, "hebb: address %.64s... is too long\n", path);
        return EXIT_USAGE;
    }
    return client_call(client, &(struct request){.method = "GET", .path = path}, out);
}

/* --- jobs by prefix --- */

struct match {
    const char *prefix;
    char id[CLIENT_ID_MAX];
    size_t count;
};

static void match_job(struct match *match, const cJSON *job)
{
    const char *id = json_string(job, "id"), *name = json_string(job, "name");
    if (!id || strncmp(id, match->prefix, strlen(match->prefix)) != 0 ||
        strlen(id) >= sizeof(match->id)) {
        return;
    }
    if (match->count++ == 0) {
        strcpy(match->id, id);
        return;
    }
    if (match->count == 2) {
        fprintf(stderr, "hebb: %s is the start of more than one job: %s\n", match->prefix,
                match->id);
    }
    fprintf(stderr, "  %s %s\n", id, name ? name : "");
}

int client_find_job(struct client *client, const char *prefix, char id[CLIENT_ID_MAX])
{
    size_t len = strlen(prefix);
    if (len == 0 || len >= CLIENT_ID_MAX || strspn(prefix, "0123456789abcdef") != len) {
        fprintf(stderr, "hebb: job \"%s\": an id is 16 hex digits, or the first of them\n",
                prefix);
        return EXIT_USAGE;
    }
    if (len == CLIENT_ID_MAX - 1) {
        strcpy(id, prefix);
        return EXIT_DONE;
    }
    struct match match = {.prefix = prefix};
    for (int64_t after = 0;;) {
        cJSON *page;
        int code = client_get(client, &page, "/v1/jobs?limit=500&after=%lld", (long long)after);
        if (code != EXIT_DONE) {
            return code;
        }
        const cJSON *job;
        cJSON_ArrayForEach(job, json_array(page, "jobs")) { match_job(&match, job); }
        bool more = json_int(&after, page, "next_after");
        cJSON_Delete(page);
        if (!more) {
            break;
        }
    }
    if (match.count == 0) {
        fprintf(stderr, "hebb: no job whose id starts with %s\n", prefix);
    }
    strcpy(id, match.id);
    return match.count == 1 ? EXIT_DONE : EXIT_USAGE;
}

void client_escape(struct buf *out, const char *text)
{
    for (; *text; text++) {
        unsigned char c = (unsigned char)*text;
        if (isalnum(c) || strchr("-._~", c)) {
            buf_add(out, text, 1);
        } else {
            buf_printf(out, "%%%02X", c);
        }
    }
}
