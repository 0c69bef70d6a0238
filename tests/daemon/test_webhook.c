/* Where webhooks may go, when they are tried again, and what retention removes. */
#include "tests/daemon/http_fixture.h"

#include "daemon/retention.h"
#include "daemon/webhook.h"
#include "daemon/webhook_send.h"

static void only_allowed_addresses_are_taken(void **state)
{
    (void)state;
    char *urls[] = {(char[]){"https://ci.example/hooks/"}, (char[]){"http://a.example:8080"}};
    const struct daemon_config config = {.webhook_urls = urls, .webhook_url_count = 2};
    static const char *const good[] = {"https://ci.example/hooks/x", "https://CI.example/hooks",
                                       "https://ci.example:443/hooks/x?y=1",
                                       "http://a.example:8080/any"};
    static const char *const bad[] = {
        "http://ci.example/hooks/x",
        "https://ci.example/hooksx",
        "https://ci.example/hooks/../x",
        "https://ci.example/hooks/%2e%2e/x",
        "https://ci.example/hooks/%2E./x",
        "https://ci.example/hooks/..%2fx",
        "https://ci.example:444/hooks/x",
        "https://ci.example.evil/hooks/x",
        "https://ci.example@evil/hooks/x",
        "https://u:p@ci.example/hooks/x",
        "https://ci.example/hooks/x#y",
        "https://ci.example\\@evil/hooks/x",
        "http://a.example/any",
        "file:///etc/passwd",
        "gopher://a.example:8080/",
        "//ci.example/hooks/x",
        "https://ci.example/hooks/ x",
        "https://ci.example/hooks/\r\nX: y",
        "",
        "http://",
    };
    struct err err;
    for (size_t i = 0; i < sizeof(good) / sizeof(good[0]); i++)
        if (webhook_url_check(&config, good[i], &err))
            fail_msg("%s: %s", good[i], err.text);
    for (size_t i = 0; i < sizeof(bad) / sizeof(bad[0]); i++)
        if (webhook_url_check(&config, bad[i], &err) != ERR_INVALID)
            fail_msg("%s was taken", bad[i]);
    const struct daemon_config none = {.webhook_url_count = 0};
    assert_int_equal(webhook_url_check(&none, good[0], &err), ERR_INVALID);
}

static bool is_private(const char *text)
{
    struct sockaddr_in v4 = {.sin_family = AF_INET};
    struct sockaddr_in6 v6 = {.sin6_family = AF_INET6};
    if (inet_pton(AF_INET, text, &v4.sin_addr) == 1)
        return address_private((const struct sockaddr *)&v4);
    assert_int_equal(inet_pton(AF_INET6, text, &v6.sin6_addr), 1);
    return address_private((const struct sockaddr *)&v6);
}

static void addresses_inside_are_told_from_those_outside(void **state)
{
    (void)state;
    static const char *const inside[] = {"127.0.0.1",
                                         "127.255.255.254",
                                         "10.1.2.3",
                                         "172.16.0.1",
                                         "172.31.255.255",
                                         "192.168.1.1",
                                         "169.254.169.254",
                                         "100.64.0.1",
                                         "0.0.0.0",
                                         "224.0.0.1",
                                         "255.255.255.255",
                                         "192.0.0.8",
                                         "198.18.0.1",
                                         "240.0.0.1",
                                         "::1",
                                         "::",
                                         "fe80::1",
                                         "fc00::1",
                                         "fd12::1",
                                         "ff02::1",
                                         "::ffff:127.0.0.1",
                                         "::ffff:10.0.0.1",
                                         "64:ff9b::7f00:1",
                                         "2002:7f00:1::",
                                         "::7f00:1"};
    static const char *const outside[] = {
        "1.1.1.1",         "172.15.0.1",     "172.32.0.1",      "192.169.0.1",
        "100.63.0.1",      "100.128.0.1",    "223.255.255.255", "198.17.0.1",
        "2606:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"};
    for (size_t i = 0; i < sizeof(inside) / sizeof(inside[0]); i++)
        if (!is_private(inside[i]))
            fail_msg("%s is taken for public", inside[i]);
    for (size_t i = 0; i < sizeof(outside) / sizeof(outside[0]); i++)
        if (is_private(outside[i]))
            fail_msg("%s is taken for private", outside[i]);
}

static void tries_come_ever_later_up_to_six_hours(void **state)
{
    (void)state;
    assert_int_equal(webhook_backoff_ms(0), 1000);
    assert_int_equal(webhook_backoff_ms(3), 8000);
    assert_int_equal(webhook_backoff_ms(14), 16384000);
    assert_int_equal(webhook_backoff_ms(15), 6 * 3600 * 1000);
    assert_int_equal(webhook_backoff_ms(1000), 6 * 3600 * 1000);
}

/* --- the outbox --- */

static int take_delivery(void *context, const struct delivery_row *row)
{
    memcpy(context, row, sizeof(*row));
    return 0;
}

static void the_outbox_has_what_was_committed_and_in_order(void **state)
{
    (void)state;
    struct err err = {0};
    struct store *store;
    char dir[] = "/tmp/hebb-outbox-XXXXXX";
    assert_non_null(mkdtemp(dir));
    assert_int_equal(store_open(&store, dir, &err), 0);
    struct webhook_row all = {.name = "all", .url = "u", .secret = "c2VjcmV0"},
                       some = {.name = "some", .url = "u", .states = " failed "};
    static struct delivery_row row;
    struct job_row job = {.cores = 1, .id = "00000000000000b1", .name = "x"};
    bool existing;
    assert_int_equal(store_webhook_add(store, &all, &err), 0);
    assert_int_equal(store_webhook_add(store, &some, &err), 0);
    assert_int_equal(store_webhook_add(store, &some, &err), ERR_CONFLICT);
    assert_int_equal(store_job_insert(store, &job, "{}", NULL, NULL, &existing, &err), 0);
    assert_int_equal(store_job_set_state(store, job.id, JOB_STARTING, "", &err), 0);
    assert_int_equal(store_commit(store, &err), 0);
    assert_int_equal(
        store_deliveries_due(store, clock_wall_ms(), 10, take_delivery, &row, &err), 0);
    assert_string_equal(row.webhook, "all");
    assert_string_equal(row.state, "queued");
    assert_string_equal(row.was, "");
    assert_string_equal(row.secret, "c2VjcmV0");
    /* One that waits for its next try holds up those behind it, of its own webhook only. */
    assert_int_equal(store_delivery_later(store, row.seq, INT64_MAX, "away", &err), 0);
    assert_int_equal(store_job_set_state(store, job.id, JOB_FAILED, "why", &err), 0);
    assert_int_equal(store_commit(store, &err), 0);
    assert_int_equal(
        store_deliveries_due(store, clock_wall_ms(), 10, take_delivery, &row, &err), 0);
    assert_string_equal(row.webhook, "some");
    assert_string_equal(row.state, "failed");
    assert_string_equal(row.was, "starting");
    assert_string_equal(row.reason, "why");
    assert_int_equal(store_delivery_done(store, row.seq, &err), 0);
    assert_int_equal(store_webhook_remove(store, "all", &err), 0);
    assert_int_equal(store_commit(store, &err), 0);
    row.seq = 0;
    assert_int_equal(store_deliveries_due(store, INT64_MAX, 10, take_delivery, &row, &err), 0);
    assert_int_equal(row.seq, 0);
    store_close(store);
    fsx_remove_tree(dir, NULL);
}

/* --- retention: on the loop's thread, where the store is --- */

static void prune(struct fixture *f, void *context)
{
    bool busy;
    struct err err = {0};
    int *rounds = context;
    f->daemon.config.history_days = f->daemon.config.log_days = 30;
    int64_t later = clock_wall_ms() + INT64_C(31) * 86400000;
    if (retention_step(&f->daemon, clock_wall_ms(), &busy, &err) || busy)
        fprintf(stderr, "too early: %s\n", err.text), abort();
    do {
        if (retention_step(&f->daemon, later, &busy, &err))
            fprintf(stderr, "retention: %s\n", err.text), abort();
        ++*rounds;
    } while (busy && *rounds < 100);
}

static void retention_removes_history_and_logs_of_old_jobs_only(void **state)
{
    struct fixture *f = *state;
    static const char *const lines[] = {
        "{\"seq\":1,\"time\":\"2026-11-23T01:00:00.000Z\",\"type\":\"start\",\"attempt\":1,"
        "\"step\":0,\"steps\":100,\"tokens_per_step\":10}",
        "{\"seq\":2,\"time\":\"2026-11-23T01:00:01.000Z\",\"type\":\"step\",\"step\":1,"
        "\"tokens\":10,\"loss\":5.5,\"grad_norm\":1,\"lr\":0.001,\"step_ms\":100,"
        "\"tokens_per_s\":100}",
        NULL};
    static const char *const ids[] = {"0000000000000001", "0000000000000002"};
    char path[2][2][160];
    for (int i = 0; i < 2; i++) {
        assert_int_equal(ask(f, "POST", "/v1/jobs", "", good_job)->status, 201);
        ingest(f, ids[i], lines);
        snprintf(path[i][0], 160, "%s/jobs/%s/attempt-1", f->dir, ids[i]);
        assert_int_equal(fsx_mkdirs(path[i][0], 0700, NULL), 0);
        snprintf(path[i][0], 160, "%s/jobs/%s/attempt-1/log.txt", f->dir, ids[i]);
        snprintf(path[i][1], 160, "%s/jobs/%s/events.jsonl", f->dir, ids[i]);
        for (int j = 0; j < 2; j++)
            assert_int_equal(fsx_publish(path[i][j], "x\n", 2, 0600, NULL), 0);
        set_state(f, ids[i], JOB_RUNNING, 1);
    }
    set_state(f, ids[0], JOB_SUCCEEDED, 1);
    int rounds = 0;
    on_loop(f, prune, &rounds);
    assert_true(rounds >= 3 && rounds < 100);
    for (int i = 0; i < 2; i++)
        for (int j = 0; j < 2; j++)
            assert_int_equal(fsx_exists(path[i][j]), i == 1);
    struct reply *reply = get(f, "/v1/jobs/0000000000000001/series");
    assert_string_equal(reply->body, "{\"step\":[],\"loss\":[]}");
    assert_non_null(strstr(get(f, "/v1/jobs/0000000000000001")->body, "\"loss\":5.5"));
    assert_non_null(strstr(get(f, "/v1/jobs/0000000000000002/series")->body, "5.5"));
    assert_non_null(strstr(get(f, "/v1/audit?action=logs_removed")->body, "0000000000000001"));
}

/* --- limits of an address --- */

static void count_all(struct fixture *f, void *context)
{
    f->daemon.http->count_loopback = true;
    f->daemon.http->limits.per_address = *(unsigned *)context;
}

static void an_address_has_so_many_connections_and_no_more(void **state)
{
    struct fixture *f = *state;
    unsigned limit = 3;
    int fds[4];
    char byte;
    on_loop(f, count_all, &limit);
    for (int i = 0; i < 4; i++) {
        fds[i] = client_connect(f);
        usleep(50000);
    }
    struct pollfd ready = {.fd = fds[3], .events = POLLIN};
    assert_int_equal(poll(&ready, 1, 2000), 1); /* closed at once */
    assert_true(recv(fds[3], &byte, 1, 0) <= 0);
    ready.fd = fds[0];
    assert_int_equal(poll(&ready, 1, 0), 0);
    close(fds[0]);
    usleep(300000);
    assert_int_equal(get(f, "/healthz")->status, 200);
    for (int i = 1; i < 4; i++)
        close(fds[i]);
}

int main(void)
{
#define T(name) cmocka_unit_test_setup_teardown(name, fixture_setup, fixture_teardown)
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(only_allowed_addresses_are_taken),
        cmocka_unit_test(addresses_inside_are_told_from_those_outside),
        cmocka_unit_test(tries_come_ever_later_up_to_six_hours),
        cmocka_unit_test(the_outbox_has_what_was_committed_and_in_order),
        T(retention_removes_history_and_logs_of_old_jobs_only),
        T(an_address_has_so_many_connections_and_no_more),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
