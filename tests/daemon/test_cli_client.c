/* The commands against a scripted HTTP server: what they send, print and return. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "daemon/cli/cli.h"
#include "proto/base/fsx.h"
#include <arpa/inet.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#define ID "0123456789abcdef"
#define JOB(state, more) "{\"id\":\"" ID "\",\"name\":\"tiny\",\"state\":\"" state "\"" more "}"

enum { REQUEST_MAX = 16384, EXCHANGES_MAX = 16 };

/* One connection: the request's first line must be `line`; then `body` is the answer. */
struct exchange {
    const char *line;
    int status;
    const char *type;    /* NULL: application/json */
    const char *headers; /* further ones, each ending with \r\n; NULL: none */
    const char *body;    /* NULL: interrupt this process and wait until the client leaves */
};

struct server {
    int fd;
    pthread_t thread;
    const struct exchange *exchanges;
    size_t count, served;
    char requests[EXCHANGES_MAX][REQUEST_MAX];
};

static struct server server;
static char printed[1 << 16], complained[1 << 16];

/* --- the server --- */

static bool request_whole(const char *text)
{
    const char *end = strstr(text, "\r\n\r\n"), *length = strcasestr(text, "content-length:");
    return end &&
           (!length || length > end || strlen(end + 4) >= strtoul(length + 15, NULL, 10));
}

static void serve(int fd, const struct exchange *exchange, char *text)
{
    size_t len = 0;
    ssize_t got;
    while (len + 1 < REQUEST_MAX && (got = read(fd, text + len, REQUEST_MAX - 1 - len)) > 0) {
        len += (size_t)got;
        text[len] = '\0';
        if (request_whole(text)) {
            break;
        }
    }
    if (!exchange->body) {
        kill(getpid(), SIGINT);
        while (read(fd, text + len, REQUEST_MAX - 1 - len) > 0) {
        }
        return;
    }
    dprintf(fd,
            "HTTP/1.1 %d Scripted\r\nContent-Type: %s\r\nContent-Length: %zu\r\n%sConnection: "
            "close\r\n\r\n%s",
            exchange->status, exchange->type ? exchange->type : "application/json",
            strlen(exchange->body), exchange->headers ? exchange->headers : "", exchange->body);
}

static void *server_run(void *context)
{
    (void)context;
    while (server.served < server.count) {
        int fd = accept(server.fd, NULL, NULL);
        if (fd < 0) {
            break;
        }
        serve(fd, &server.exchanges[server.served], server.requests[server.served]);
        server.served++;
        close(fd);
    }
    return NULL;
}

static void server_start(const struct exchange *exchanges, size_t count)
{
    struct sockaddr_in address = {.sin_family = AF_INET,
                                  .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t size = sizeof(address);
    char url[64];
    sigset_t interrupt, old;
    assert_true(count <= EXCHANGES_MAX);
    memset(&server, 0, sizeof(server));
    server.exchanges = exchanges;
    server.count = count;
    server.fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    assert_int_equal(bind(server.fd, (struct sockaddr *)&address, size), 0);
    assert_int_equal(listen(server.fd, 16), 0);
    assert_int_equal(getsockname(server.fd, (struct sockaddr *)&address, &size), 0);
    snprintf(url, sizeof(url), "http://127.0.0.1:%d", ntohs(address.sin_port));
    setenv("HEBB_URL", url, 1);
    sigemptyset(&interrupt);
    sigaddset(&interrupt, SIGINT); /* the command's own thread takes it */
    pthread_sigmask(SIG_BLOCK, &interrupt, &old);
    assert_int_equal(pthread_create(&server.thread, NULL, server_run, NULL), 0);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
}

/* Every exchange took place, with the expected first lines. */
static void server_check(void)
{
    shutdown(server.fd, SHUT_RDWR);
    pthread_join(server.thread, NULL);
    close(server.fd);
    for (size_t i = 0; i < server.served; i++) {
        char *end = strstr(server.requests[i], " HTTP/1.1\r\n");
        assert_non_null(end);
        *end = '\0';
        assert_string_equal(server.requests[i], server.exchanges[i].line);
        *end = ' ';
    }
    if (server.served != server.count) {
        fail_msg("%zu requests of %zu", server.served, server.count);
    }
}

/* --- running a command --- */

static void read_back(int fd, char *text, size_t size)
{
    ssize_t len = pread(fd, text, size - 1, 0);
    assert_true(len >= 0);
    text[len] = '\0';
    close(fd);
}

static int run(int (*command)(int argc, char **argv), const char *const *words)
{
    char *argv[16];
    int argc = 0, old[2], files[2];
    for (; words[argc]; argc++) {
        argv[argc] = (char *)(uintptr_t)words[argc];
    }
    argv[argc] = NULL;
    for (int i = 0; i < 2; i++) {
        files[i] = open("/tmp", O_TMPFILE | O_RDWR | O_CLOEXEC, 0600);
        old[i] = dup(STDOUT_FILENO + i);
        assert_true(files[i] >= 0 && old[i] >= 0);
    }
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        dup2(files[i], STDOUT_FILENO + i);
    }
    int code = command(argc, argv);
    fflush(stdout);
    for (int i = 0; i < 2; i++) {
        dup2(old[i], STDOUT_FILENO + i);
        close(old[i]);
    }
    read_back(files[0], printed, sizeof(printed));
    read_back(files[1], complained, sizeof(complained));
    return code;
}

#define RUN(command, ...) run(command, (const char *const[]){__VA_ARGS__, NULL})
#define SERVE(...)                                                                             \
    const struct exchange exchanges[] = {__VA_ARGS__};                                         \
    server_start(exchanges, sizeof(exchanges) / sizeof(exchanges[0]))

#define assert_holds(text, part)                                                               \
    do {                                                                                       \
        if (!strstr(text, part)) {                                                             \
            fail_msg("no \"%s\" in:\n%s", part, text);                                         \
        }                                                                                      \
    } while (0)

static int set_up(void **state)
{
    (void)state;
    setenv("HEBB_TOKEN", "secret", 1);
    unsetenv("HEBB_STATE");
    setenv("http_proxy", "http://127.0.0.1:1", 1); /* nothing may go through it */
    return 0;
}

/* A job file that is removed after the test. */
static char job_file[] = "/tmp/hebb-job-XXXXXX";

static int make_job(void **state)
{
    strcpy(job_file, "/tmp/hebb-job-XXXXXX");
    int fd = mkstemp(job_file);
    return set_up(state) || fd < 0 || write(fd, "{\"a\":1}", 7) != 7 || close(fd);
}

static int remove_job(void **state)
{
    (void)state;
    return unlink(job_file);
}

/* --- tests --- */

static void submit_sends_file_token_and_key_and_prints_the_id(void **state)
{
    (void)state;
    SERVE({"POST /v1/jobs", 201, NULL, NULL, JOB("queued", "")});
    assert_int_equal(RUN(command_submit, "submit", "--idempotency-key", "k1", job_file), 0);
    server_check();
    assert_string_equal(printed, ID "\n");
    assert_holds(complained, "hebb watch 012345");
    assert_holds(server.requests[0], "Authorization: Bearer secret\r\n");
    assert_holds(server.requests[0], "Content-Type: application/json\r\n");
    assert_holds(server.requests[0], "Idempotency-Key: k1\r\n");
    assert_holds(server.requests[0], "\r\n\r\n{\"a\":1}");
}

static void submit_prints_the_answer_as_json_when_asked(void **state)
{
    (void)state;
    SERVE({"POST /v1/jobs", 201, NULL, NULL, JOB("queued", ", \"x\": [1, null]")});
    assert_int_equal(RUN(command_submit, "submit", "--json", job_file), 0);
    server_check();
    assert_string_equal(printed, JOB("queued", ",\"x\":[1,null]") "\n");
}

static void every_fault_of_a_job_is_printed(void **state)
{
    (void)state;
    SERVE({"POST /v1/jobs", 422, "application/problem+json", NULL,
           "{\"title\":\"The job is not valid\",\"detail\":\"d\",\"errors\":[{\"field\":\"/n\","
           "\"reason\":\"bad\"},{\"field\":\"/"
           "m\",\"reason\":\"worse\"}],\"errors_left_out\":3}"});
    assert_int_equal(RUN(command_submit, "submit", job_file), EXIT_USAGE);
    server_check();
    assert_string_equal(printed, "");
    assert_string_equal(complained, "hebb: The job is not valid (422)\n  /n: bad\n  /m: worse\n"
                                    "  and 3 more\n");
}

static void dry_run_prints_the_estimate(void **state)
{
    (void)state;
    SERVE(
        {"POST /v1/jobs?dry_run=1", 200, NULL, NULL,
         "{\"estimate\":{\"parameters\":61300000,\"active_parameters\":20000000,\"density\":0."
         "25,"
         "\"tokens_per_step\":65536,\"tokens\":655360000,\"flops_per_token\":1e8,"
         "\"flops_per_token_dense\":4e8,\"memory_per_rank_bytes\":{\"weights\":1073741824,"
         "\"total\":2147483648},\"ranks\":2,\"memory_total_bytes\":4294967296,\"alternatives\":"
         "[{\"sparsity\":\"2:4\",\"method\":\"chts24\",\"memory_per_rank_bytes\":{\"weights\":"
         "5}}]},"
         "\"spec\":{}}"});
    assert_int_equal(RUN(command_submit, "submit", "--dry-run", job_file), 0);
    server_check();
    assert_holds(printed, "61.3M, 20.0M of them stored");
    assert_holds(printed, "25.0 % of the dense model's");
    assert_holds(printed, "4.0 GiB on 2 ranks");
    assert_holds(printed, "2:4, chts24");
    assert_holds(printed, "nothing was started");
}

static void missing_job_file_is_a_usage_error(void **state)
{
    (void)state;
    assert_int_equal(RUN(command_submit, "submit", "/nowhere/job.json"), EXIT_USAGE);
    assert_holds(complained, "/nowhere/job.json: No such file");
    assert_int_equal(RUN(command_submit, "submit"), EXIT_USAGE);
    assert_int_equal(RUN(command_submit, "submit", "--nonsense", job_file), EXIT_USAGE);
    assert_int_equal(RUN(command_submit, "submit", "--watch", "--dry-run", job_file),
                     EXIT_USAGE);
}

static void daemon_that_is_not_there_is_exit_4(void **state)
{
    (void)state;
    assert_int_equal(RUN(command_jobs, "jobs", "--url", "http://127.0.0.1:1/"),
                     EXIT_UNREACHABLE);
    assert_holds(complained, "no answer from hebbd at http://127.0.0.1:1:");
    assert_int_equal(RUN(command_jobs, "jobs", "--url", "ftp://127.0.0.1"), EXIT_USAGE);
    assert_int_equal(RUN(command_jobs, "jobs", "--token-file", "/nowhere/token"), EXIT_DATA);
}

static void refused_token_says_where_tokens_come_from(void **state)
{
    (void)state;
    SERVE({"GET /v1/jobs?limit=50&after=0", 401, "application/problem+json", NULL,
           "{\"title\":\"The token is missing or wrong\",\"detail\":\"d\"}"});
    assert_int_equal(RUN(command_jobs, "jobs"), EXIT_USAGE);
    server_check();
    assert_holds(complained, "hebb: The token is missing or wrong: d (401)\n");
    assert_holds(complained, "HEBB_TOKEN");
}

static void token_comes_from_the_state_folder(void **state)
{
    (void)state;
    char folder[] = "/tmp/hebb-state-XXXXXX", path[FSX_PATH_MAX];
    assert_non_null(mkdtemp(folder));
    assert_int_equal(fsx_path(path, NULL, "%s/token", folder), 0);
    assert_int_equal(fsx_publish(path, "0a1b\n", 5, 0600, NULL), 0);
    unsetenv("HEBB_TOKEN");
    setenv("HEBB_STATE", folder, 1);
    SERVE({"GET /v1/jobs?limit=50&after=0", 200, NULL, NULL,
           "{\"jobs\":[],\"next_after\":null}"});
    assert_int_equal(RUN(command_jobs, "jobs"), 0);
    server_check();
    assert_holds(server.requests[0], "Authorization: Bearer 0a1b\r\n");
    assert_int_equal(fsx_publish(path, "0a1b\r\nX: y", 10, 0600, NULL),
                     0); /* no header gets in */
    assert_int_equal(RUN(command_jobs, "jobs"), EXIT_USAGE);
    assert_holds(complained, "not a token");
    assert_int_equal(fsx_remove_tree(folder, NULL), 0);
}

static void answer_that_is_not_the_daemons_is_named(void **state)
{
    (void)state;
    SERVE({"GET /v1/jobs?limit=50&after=0", 404, "text/html", NULL, "<html>"},
          {"GET /v1/jobs?limit=50&after=0", 200, "text/html", NULL, "<html>"});
    assert_int_equal(RUN(command_jobs, "jobs"), EXIT_USAGE);
    assert_holds(complained, "is it hebbd?");
    assert_int_equal(RUN(command_jobs, "jobs"), EXIT_FAILED);
    assert_holds(complained, "the answer is not JSON");
    server_check();
}

static void jobs_are_listed_over_pages_with_escaped_filters(void **state)
{
    (void)state;
    SERVE(
        {"GET /v1/jobs?limit=3&after=0&state=running%2Cqueued&name=a%20b%26c", 200, NULL, NULL,
         "{\"jobs\":[" JOB("running", ",\"created\":\"2026-11-23T01:02:03.456Z\",\"progress\":"
                                      "{\"step\":5,\"steps\":10,\"loss\":2.5,\"tokens_per_s\":"
                                      "1500,\"eta_s\":61}") "],\"next_after\":7}"},
        {"GET /v1/jobs?limit=2&after=7&state=running%2Cqueued&name=a%20b%26c", 200, NULL, NULL,
         "{\"jobs\":[" JOB("queued", "") "," JOB("queued", "") "],\"next_after\":5}"});
    assert_int_equal(RUN(command_jobs, "jobs", "--limit", "3", "--state", "running,queued",
                         "--name", "a b&c"),
                     0);
    server_check();
    assert_holds(
        printed,
        "ID                NAME  STATE    STEP    LOSS  TOK/S     ETA  CREATED (UTC)\n");
    assert_holds(printed,
                 ID "  tiny  running  5/10  2.5000   1.5k  1m 01s  2026-11-23 01:02\n");
    assert_holds(complained, "--limit N shows more");
}

static void prefix_of_one_job_is_enough_and_of_two_is_not(void **state)
{
    (void)state;
    static const char two[] = "{\"jobs\":[" JOB(
        "queued", "") ",{\"id\":\"01ffffffffffffff\",\"name\":\"b\"}],\"next_after\":null}";
    SERVE({"GET /v1/jobs?limit=500&after=0", 200, NULL, NULL, two},
          {"GET /v1/jobs/" ID, 200, NULL, NULL,
           JOB("queued", ",\"spec\":{\"model\":{\"hidden\":64}}")},
          {"GET /v1/jobs?limit=500&after=0", 200, NULL, NULL, two},
          {"GET /v1/jobs?limit=500&after=0", 200, NULL, NULL, two});
    assert_int_equal(RUN(command_show, "show", "012"), 0);
    assert_holds(printed, "hidden=64");
    assert_int_equal(RUN(command_show, "show", "01"), EXIT_USAGE);
    assert_holds(complained, "more than one job");
    assert_holds(complained, "01ffffffffffffff");
    assert_int_equal(RUN(command_show, "show", "ff"), EXIT_USAGE);
    assert_holds(complained, "no job whose id starts with ff");
    server_check();
    assert_int_equal(RUN(command_show, "show", "../../token"), EXIT_USAGE); /* asks nobody */
    assert_int_equal(RUN(command_show, "show"), EXIT_USAGE);
    assert_int_equal(RUN(command_show, "show", ID, ID), EXIT_USAGE);
}

#define EVENT(seq, type, more)                                                                 \
    "{\"seq\":" #seq ",\"time\":\"t\",\"type\":\"" type "\"," more "}"

static void watch_prints_lines_and_the_end(void **state)
{
    (void)state;
    SERVE({"GET /v1/jobs/" ID, 200, NULL, NULL,
           JOB("running",
               ",\"reason\":\"\",\"last_seq\":4,\"progress\":{\"step\":1,\"steps\":10}")},
          {"GET /v1/jobs/" ID "/events?since=4&wait=25&limit=1000", 503,
           "application/problem+json", NULL, "{}"},
          {"GET /v1/jobs/" ID "/events?since=4&wait=25&limit=1000", 200, NULL, NULL,
           "{\"events\":[" EVENT(5, "step",
                                 "\"step\":2,\"loss\":3.5,\"step_ms\":1000,\"tokens_per_s\":"
                                 "2000") "," EVENT(6, "eval",
                                                   "\"step\":2,\"split\":\"validation\","
                                                   "\"loss\":3,\"perplexity\":20.0855") "," EVENT(7,
                                                                                                  "step",
                                                                                                  "\"step\":3,\"loss\":null,\"nonfinite\":\"nan\"") "],\"state\":\"running\"}"},
          {"GET /v1/jobs/" ID "/events?since=7&wait=1&limit=1000", 200, NULL, NULL,
           "{\"events\":[],\"state\":\"failed\"}"},
          {"GET /v1/jobs/" ID, 200, NULL, NULL, JOB("failed", ",\"reason\":\"loss is nan\"")});
    assert_int_equal(RUN(command_watch, "watch", ID), EXIT_FAILED);
    server_check();
    assert_string_equal(printed,
                        "running\nstep 1/10\nstep 2: validation loss 3.0000, perplexity 20.09\n"
                        "step 3: the loss or its gradient is nan\nfailed: loss is nan\n");
    assert_string_equal(complained, "the daemon cannot answer; trying again\n");
}

static void watched_job_that_succeeds_is_exit_0(void **state)
{
    (void)state;
    SERVE({"GET /v1/jobs/" ID "/events?since=0&wait=0&limit=1000", 200, NULL, NULL,
           "{\"events\":[" EVENT(1, "start", "\"step\":0,\"steps\":2") "," EVENT(
               2, "done", "\"step\":2") "],\"state\":\"succeeded\"}"},
          {"GET /v1/jobs/" ID "/events?since=2&wait=0&limit=1000", 200, NULL, NULL,
           "{\"events\":[],\"state\":\"succeeded\"}"},
          {"GET /v1/jobs/" ID, 200, NULL, NULL, JOB("succeeded", "")});
    assert_int_equal(RUN(command_watch, "watch", ID, "--json"), 0);
    server_check();
    assert_string_equal(printed, EVENT(1, "start", "\"step\":0,\"steps\":2") "\n" EVENT(
                                     2, "done", "\"step\":2") "\n");
}

static void interrupt_detaches_and_leaves_the_job_alone(void **state)
{
    (void)state;
    SERVE({"GET /v1/jobs/" ID, 200, NULL, NULL, JOB("running", "")},
          {"GET /v1/jobs/" ID "/events?since=0&wait=25&limit=1000", 0, NULL, NULL, NULL});
    assert_int_equal(RUN(command_watch, "watch", ID), 130);
    server_check();
    assert_holds(complained, "detached; the job goes on. `hebb watch 012345` follows it again");
}

static void logs_follow_into_the_next_attempt(void **state)
{
    (void)state;
#define LOG "GET /v1/jobs/" ID "/log?offset="
#define HEADERS(next, attempt) "X-Next-Offset: " #next "\r\nX-Attempt: " #attempt "\r\n"
    SERVE({LOG "0&limit=262144", 200, "text/plain", HEADERS(4, 1), "one\n"},
          {LOG "4&limit=262144&attempt=1", 200, "text/plain", HEADERS(4, 1), ""},
          {"GET /v1/jobs/" ID, 200, NULL, NULL, JOB("running", ",\"attempt\":2")},
          {LOG "0&limit=262144&attempt=2", 200, "text/plain", HEADERS(4, 2), "two\n"},
          {LOG "4&limit=262144&attempt=2", 200, "text/plain", HEADERS(4, 2), ""},
          {"GET /v1/jobs/" ID, 200, NULL, NULL, JOB("succeeded", ",\"attempt\":2")},
          {LOG "4&limit=262144&attempt=2", 200, "text/plain", HEADERS(8, 2), "end\n"},
          {LOG "8&limit=262144&attempt=2", 200, "text/plain", HEADERS(8, 2), ""},
          {"GET /v1/jobs/" ID, 200, NULL, NULL, JOB("succeeded", ",\"attempt\":2")});
    assert_int_equal(RUN(command_logs, "logs", "-f", ID), 0);
    server_check();
    assert_string_equal(printed, "one\ntwo\nend\n");
    assert_string_equal(complained, "--- attempt 2 ---\n");
}

static void action_is_posted_and_waited_for(void **state)
{
    (void)state;
    SERVE(
        {"POST /v1/jobs/" ID "/pause", 202, NULL, NULL, JOB("pausing", ",\"last_seq\":9")},
        {"GET /v1/jobs/" ID "/events?since=9&wait=0", 200, NULL, NULL,
         "{\"events\":[],\"state\":\"pausing\"}"},
        {"GET /v1/jobs/" ID "/events?since=9&wait=25", 200, NULL, NULL,
         "{\"events\":[" EVENT(10, "checkpoint", "\"step\":5") "],\"state\":\"paused\"}"},
        {"POST /v1/jobs/" ID "/checkpoint", 202, NULL, NULL, JOB("running", ",\"last_seq\":9")},
        {"GET /v1/jobs/" ID "/events?since=9&wait=0", 200, NULL, NULL,
         "{\"events\":[],\"state\":\"succeeded\"}"},
        {"POST /v1/jobs/" ID "/cancel", 409, "application/problem+json", NULL,
         "{\"title\":\"The state does not allow it\",\"detail\":\"job is succeeded\"}"});
    assert_int_equal(RUN(command_pause, "pause", "--wait", ID), 0);
    assert_string_equal(complained, "job " ID " is pausing\njob " ID " is paused\n");
    assert_int_equal(RUN(command_checkpoint, "checkpoint", "--wait", ID), EXIT_FAILED);
    assert_holds(complained, "job " ID " is succeeded: checkpoint cannot happen any more");
    assert_int_equal(RUN(command_cancel, "cancel", ID), EXIT_FAILED);
    assert_holds(complained, "The state does not allow it: job is succeeded (409)");
    server_check();
}

#define TEST(test) cmocka_unit_test_setup(test, set_up)
#define JOB_TEST(test) cmocka_unit_test_setup_teardown(test, make_job, remove_job)

int main(void)
{
    const struct CMUnitTest tests[] = {
        JOB_TEST(submit_sends_file_token_and_key_and_prints_the_id),
        JOB_TEST(submit_prints_the_answer_as_json_when_asked),
        JOB_TEST(every_fault_of_a_job_is_printed),
        JOB_TEST(dry_run_prints_the_estimate),
        JOB_TEST(missing_job_file_is_a_usage_error),
        TEST(daemon_that_is_not_there_is_exit_4),
        TEST(refused_token_says_where_tokens_come_from),
        TEST(token_comes_from_the_state_folder),
        TEST(answer_that_is_not_the_daemons_is_named),
        TEST(jobs_are_listed_over_pages_with_escaped_filters),
        TEST(prefix_of_one_job_is_enough_and_of_two_is_not),
        TEST(watch_prints_lines_and_the_end),
        TEST(watched_job_that_succeeds_is_exit_0),
        TEST(interrupt_detaches_and_leaves_the_job_alone),
        TEST(logs_follow_into_the_next_attempt),
        TEST(action_is_posted_and_waited_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
