/* Nobody in: every method of every route, by what is wrong with the request. */
#include "tests/daemon/http_fixture.h"

#include "daemon/secret.h"

static const char *const methods[] = {"GET",    "HEAD",    "POST",  "PUT",      "PATCH",
                                      "DELETE", "OPTIONS", "TRACE", "PROPFIND", "get"};
enum { METHODS = sizeof(methods) / sizeof(methods[0]) };

/* A path of the route with its parts filled in. */
static void fill_path(const char *pattern, char out[256])
{
    size_t len = 0;
    for (const char *c = pattern; *c; c++) {
        if (*c != '{') {
            out[len++] = *c;
            continue;
        }
        const char *value = strncmp(c, "{id}", 4) == 0     ? "0000000000000001"
                            : strncmp(c, "{step}", 6) == 0 ? "1"
                                                           : "name";
        len += (size_t)sprintf(out + len, "%s", value);
        c = strchr(c, '}');
    }
    out[len] = '\0';
}

static int status_of(struct fixture *f, const char *method, const char *path,
                     const char *headers)
{
    char text[2048];
    int len = snprintf(text, sizeof(text), "%s %s HTTP/1.1\r\nConnection: close\r\n%s\r\n",
                       method, path, headers);
    return raw(f, text, (size_t)len)->status;
}

static const struct api_route *row_of(const char *method, const char *pattern)
{
    for (const struct api_route *route = api_routes; route->path; route++)
        if (strcmp(route->path, pattern) == 0 &&
            strcmp(route->method, strcmp(method, "HEAD") == 0 ? "GET" : method) == 0)
            return route;
    return NULL;
}

#define AUTH                                                                                   \
    "Authorization: Bearer "                                                                   \
    "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\r\n"
static const struct {
    const char *name, *headers;
    int status;
    bool open_too; /* open routes refuse it as well */
} faults[] = {
    {"no token", "Host: localhost\r\n", 401, false},
    {"a wrong token",
     "Host: localhost\r\nAuthorization: Bearer "
     "10112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\r\n",
     401, false},
    {"half a token", "Host: localhost\r\nAuthorization: Bearer 0011223344\r\n", 401, false},
    {"the token as Basic",
     "Host: localhost\r\nAuthorization: Basic "
     "00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff\r\n",
     401, false},
    {"an empty Authorization", "Host: localhost\r\nAuthorization:\r\n", 401, false},
    {"another Host", "Host: evil.example\r\n" AUTH, 403, true},
    {"another Host that begins alike", "Host: localhost.evil.example\r\n" AUTH, 403, true},
    {"another Origin", "Host: localhost\r\nOrigin: http://evil.example\r\n" AUTH, 403, false},
    {"a null Origin", "Host: localhost\r\nOrigin: null\r\n" AUTH, 403, false},
    {"another port's Origin", "Host: localhost:7077\r\nOrigin: http://localhost:1\r\n" AUTH,
     403, false},
    {"cross-site", "Host: localhost\r\nSec-Fetch-Site: cross-site\r\n" AUTH, 403, false},
    {"same-site", "Host: localhost\r\nSec-Fetch-Site: same-site\r\n" AUTH, 403, false},
};

static void every_method_of_every_route_refuses_every_fault(void **state)
{
    struct fixture *f = *state;
    size_t asked = 0;
    for (const struct api_route *route = api_routes; route->path; route++)
        for (size_t m = 0; m < METHODS; m++) {
            char path[256];
            fill_path(route->path, path);
            const struct api_route *row = row_of(methods[m], route->path);
            for (size_t i = 0; i < sizeof(faults) / sizeof(faults[0]); i++) {
                if (row && row->open && !faults[i].open_too)
                    continue;
                int status = status_of(f, methods[m], path, faults[i].headers);
                if (status != faults[i].status)
                    fail_msg("%s %s with %s: %d", methods[m], path, faults[i].name, status);
                asked++;
            }
        }
    assert_true(asked > 2000);
}

static void a_page_of_this_service_and_a_tool_are_let_in(void **state)
{
    struct fixture *f = *state;
    assert_int_equal(status_of(f, "GET", "/v1/jobs",
                               "Host: localhost:7077\r\nOrigin: http://localhost:7077\r\n"
                               "Sec-Fetch-Site: same-origin\r\n" AUTH),
                     200);
    assert_int_equal(
        status_of(f, "GET", "/v1/jobs", "Host: [::1]\r\nSec-Fetch-Site: none\r\n" AUTH), 200);
}

/* --- roles --- */

/* The token that POST /v1/tokens answers. */
static void make_token(struct fixture *f, const char *name, const char *role, char out[65])
{
    char body[128];
    snprintf(body, sizeof(body), "{\"name\":\"%s\",\"role\":\"%s\"}", name, role);
    struct reply *reply = ask(f, "POST", "/v1/tokens", "", body);
    assert_int_equal(reply->status, 201);
    cJSON *json = json_of(reply);
    snprintf(out, 65, "%s", json_string(json, "token"));
    assert_int_equal(strlen(out), 64);
    cJSON_Delete(json);
}

static void every_route_asks_for_its_role(void **state)
{
    struct fixture *f = *state;
    char tokens[AUTH_ROLES][65];
    make_token(f, "reader", "read", tokens[AUTH_READ]);
    make_token(f, "sender", "submit", tokens[AUTH_SUBMIT]);
    make_token(f, "boss", "admin", tokens[AUTH_ADMIN]);
    for (const struct api_route *route = api_routes; route->path; route++)
        for (int role = AUTH_READ; role < AUTH_ROLES; role++) {
            char path[256], headers[256];
            fill_path(route->path, path);
            snprintf(headers, sizeof(headers),
                     "Host: localhost\r\nAuthorization: Bearer %s\r\nContent-Length: 0\r\n",
                     tokens[role]);
            int status = status_of(f, route->method, path, headers);
            bool refused = !route->open && (int)route->role > role;
            if (refused != (status == 403) || status == 401)
                fail_msg("%s %s as %s: %d", route->method, path,
                         auth_role_name((enum auth_role)role), status);
        }
}

static void a_token_is_kept_as_a_hash_and_a_revoked_one_is_out(void **state)
{
    struct fixture *f = *state;
    char token[65], headers[192], path[128];
    make_token(f, "ci", "submit", token);
    snprintf(headers, sizeof(headers), "Host: localhost\r\nAuthorization: Bearer %s\r\n",
             token);
    assert_int_equal(status_of(f, "GET", "/v1/jobs", headers), 200);
    struct reply *reply = get(f, "/v1/tokens");
    assert_non_null(strstr(reply->body, "\"name\":\"ci\",\"role\":\"submit\""));
    assert_null(strstr(reply->body, token));
    struct buf file;
    static const char *const names[] = {"state.db", "state.db-wal"};
    for (size_t i = 0; i < 2; i++) {
        buf_init(&file, 1 << 24);
        snprintf(path, sizeof(path), "%s/%s", f->dir, names[i]);
        assert_int_equal(fsx_read(&file, path, NULL), 0);
        assert_null(memmem(file.data, file.len, token, 64));
        buf_release(&file);
    }
    assert_problem(ask(f, "POST", "/v1/tokens", "", "{\"name\":\"ci\",\"role\":\"read\"}"), 409,
                   "conflict");
    assert_int_equal(ask(f, "DELETE", "/v1/tokens/ci", "", NULL)->status, 200);
    assert_int_equal(status_of(f, "GET", "/v1/jobs", headers), 401);
    assert_problem(ask(f, "DELETE", "/v1/tokens/ci", "", NULL), 404, "not_found");
}

static void bad_token_requests_name_every_fault(void **state)
{
    struct fixture *f = *state;
    struct reply *reply =
        ask(f, "POST", "/v1/tokens", "", "{\"name\":\"a b\",\"role\":\"root\"}");
    assert_problem(reply, 422, "invalid_body");
    assert_non_null(strstr(reply->body, "\"field\":\"/name\""));
    assert_non_null(strstr(reply->body, "\"field\":\"/role\""));
    assert_problem(
        ask(f, "POST", "/v1/tokens", "", "{\"name\":\"a\",\"role\":\"read\",\"x\":1}"), 422,
        "invalid_body");
    assert_problem(ask(f, "POST", "/v1/tokens", "", "{\"name\":\"local\",\"role\":\"read\"}"),
                   422, "invalid_body");
}

static void the_audit_says_who_did_what(void **state)
{
    struct fixture *f = *state;
    char token[65], headers[256];
    make_token(f, "ci", "submit", token);
    snprintf(headers, sizeof(headers),
             "POST /v1/jobs HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n"
             "Authorization: Bearer %s\r\n",
             token);
    char text[512];
    int len = snprintf(text, sizeof(text),
                       "%sContent-Type: application/json\r\nContent-Length: %zu\r\n\r\n%s",
                       headers, strlen(good_job), good_job);
    assert_int_equal(raw(f, text, (size_t)len)->status, 201);
    cJSON *json = json_of(get(f, "/v1/audit?limit=1"));
    const cJSON *event = cJSON_GetArrayItem(json_array(json, "events"), 0);
    assert_string_equal(json_string(event, "actor"), "ci");
    assert_string_equal(json_string(event, "action"), "submit");
    assert_string_equal(json_string(event, "job"), "0000000000000001");
    int64_t after = 0;
    assert_true(json_int(&after, json, "next_after"));
    cJSON_Delete(json);
    snprintf(text, sizeof(text), "/v1/audit?after=%lld", (long long)after);
    json = json_of(get(f, text));
    event = cJSON_GetArrayItem(json_array(json, "events"), 0);
    assert_string_equal(json_string(event, "actor"), "local");
    assert_string_equal(json_string(event, "action"), "token_add");
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(event, "job")));
    assert_true(cJSON_IsNull(cJSON_GetObjectItemCaseSensitive(json, "next_after")));
    cJSON_Delete(json);
    json = json_of(get(f, "/v1/audit?actor=ci&job=0000000000000001&action=submit"));
    assert_int_equal(cJSON_GetArraySize(json_array(json, "events")), 1);
    cJSON_Delete(json);
}

/* --- primitives, by published vectors --- */

static void hashes_and_signatures_are_the_standard_ones(void **state)
{
    (void)state;
    char hash[SECRET_HEX_MAX], sign[SECRET_BASE64_MAX];
    struct err err = {0};
    assert_int_equal(secret_hash(hash, "abc", &err), 0); /* FIPS 180-4 */
    assert_string_equal(hash,
                        "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    /* RFC 4231, case 2: key "Jefe" */
    assert_int_equal(secret_sign(sign, "SmVmZQ==", "what do ya want for nothing?", 28, &err),
                     0);
    assert_string_equal(sign, "W9zBRr9gdU5qBCQmCJV1x1oAPwidJzmDnexYuWTsOEM=");
    assert_int_equal(secret_sign(sign, "not base64", "x", 1, &err), ERR_INVALID);
    assert_true(secret_equal("a", "a") && !secret_equal("a", "b") && !secret_equal("a", "aa"));
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        T(every_method_of_every_route_refuses_every_fault),
        T(a_page_of_this_service_and_a_tool_are_let_in),
        T(every_route_asks_for_its_role),
        T(a_token_is_kept_as_a_hash_and_a_revoked_one_is_out),
        T(bad_token_requests_name_every_fault),
        T(the_audit_says_who_did_what),
        cmocka_unit_test(hashes_and_signatures_are_the_standard_ones),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
