/* hebbd. */
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/http.h"
#include "daemon/jobs.h"
#include "daemon/loop.h"
#include "daemon/notify.h"
#include "daemon/retention.h"
#include "daemon/store.h"
#include "daemon/webhook.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/log.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

/* What signals need beside the daemon itself. */
struct service {
    struct daemon daemon;
    struct config *config;
    int argc;
    char **argv;
};

static void print_faults(const struct spec_faults *faults)
{
    size_t kept = faults->count < SPEC_FAULTS_MAX ? faults->count : SPEC_FAULTS_MAX;
    for (size_t i = 0; i < kept; i++)
        fprintf(stderr, "hebbd: %s%s%s\n", faults->items[i].field,
                faults->items[i].field[0] ? ": " : "", faults->items[i].reason);
}

static void reload(struct service *service)
{
    static struct spec_faults faults; /* 49 KiB: not on the stack */
    struct err err;
    if (config_reload(service->config, service->argc, service->argv, &faults, &err) != 0) {
        log_error("SIGHUP: the configuration has %zu faults and stays as it was; the first: %s",
                  faults.count, err.text);
        return;
    }
    service->daemon.config = service->config->daemon;
    store_act_as(service->daemon.store, "");
    if (store_audit(service->daemon.store, "", "reload", "", &err) != 0)
        log_warn("SIGHUP: %s", err.text);
    log_setup("hebbd", (enum log_level)service->config->log_level);
    log_info("SIGHUP: configuration read again");
}

static void on_signal(void *context, int fd)
{
    struct service *service = context;
    struct daemon *daemon = &service->daemon;
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            jobs_reap(daemon->jobs);
            continue;
        }
        if (info.ssi_signo == SIGHUP) {
            notify_reloading();
            reload(service);
            notify_ready_again();
            continue;
        }
        log_info("signal %u: stopping; running jobs go on", info.ssi_signo);
        notify_stopping();
        daemon->stopping = true;
        loop_stop(daemon->loop);
    }
}

static void after_turn(void *context)
{
    struct daemon *daemon = context;
    bool ok = store_commit(daemon->store, NULL) == 0;
    jobs_after_commit(daemon->jobs, ok);
    http_after_commit(daemon->http, ok);
}

static int watch_signals(struct service *service, int *fd, struct err *err)
{
    sigset_t set;
    sigemptyset(&set);
    sigaddset(&set, SIGTERM);
    sigaddset(&set, SIGINT);
    sigaddset(&set, SIGHUP);
    sigaddset(&set, SIGCHLD);
    if (sigprocmask(SIG_BLOCK, &set, NULL) != 0 ||
        (*fd = signalfd(-1, &set, SFD_CLOEXEC | SFD_NONBLOCK)) < 0)
        return err_set(err, ERR_IO, "signalfd: %s", strerror(errno));
    signal(SIGPIPE, SIG_IGN);
    signal(SIGXFSZ, SIG_IGN); /* a full quota is an error of write(), not the end */
    return loop_add_fd(service->daemon.loop, *fd, on_signal, service, err);
}

static int write_port(const struct daemon *daemon, const char *path, struct err *err)
{
    char text[16];
    int len = snprintf(text, sizeof text, "%u\n", (unsigned)http_port(daemon->http));
    return path != NULL ? fsx_publish(path, text, (size_t)len, 0644, err) : 0;
}

/* Everything in the order in which it needs what came before. */
static int start(struct service *service, int *lock, int *signals, struct err *err)
{
    struct daemon *daemon = &service->daemon;
    char path[FSX_PATH_MAX];
    const char *state = daemon->config.state_dir;
    int code = fsx_path(path, err, "%s/lock", state);
    if (code == 0 && (code = fsx_lock(lock, path, err)) == ERR_CONFLICT)
        err_wrap(err, code, "another hebbd uses %s", state);
    if (code == 0 && daemon->config.local_token)
        code = config_token(daemon->token, state, err);
    if (code == 0)
        code = loop_create(&daemon->loop, err);
    if (code == 0)
        code = watch_signals(service, signals, err);
    if (code == 0)
        code = store_open(&daemon->store, state, err);
    int64_t draining = 0;
    if (code == 0)
        code = store_setting(daemon->store, "draining", &draining, err);
    daemon->draining = draining != 0;
    if (daemon->draining)
        log_warn("draining: no attempt is started until POST /v1/drain says otherwise");
    if (code == 0)
        code = jobs_create(&daemon->jobs, daemon, err);
    if (code == 0)
        code = http_create(&daemon->http, daemon, err);
    if (code == 0)
        code = webhooks_create(&daemon->webhooks, daemon, err);
    if (code == 0)
        code = retention_create(&daemon->retention, daemon, err);
    if (code == 0)
        code = write_port(daemon, service->config->port_file, err);
    return code;
}

static void stop(struct daemon *daemon, int lock, int signals)
{
    http_destroy(daemon->http);
    retention_destroy(daemon->retention);
    webhooks_destroy(daemon->webhooks);
    jobs_destroy(daemon->jobs);
    store_close(daemon->store);
    loop_destroy(daemon->loop);
    if (signals >= 0)
        close(signals);
    if (lock >= 0)
        close(lock);
}

static int serve(struct config *config, int argc, char **argv)
{
    struct service service = {
        .daemon = {.config = config->daemon, .started_ms = clock_wall_ms()},
        .config = config,
        .argc = argc,
        .argv = argv};
    struct daemon *daemon = &service.daemon;
    int lock = -1, signals = -1;
    struct err err;
    int code = start(&service, &lock, &signals, &err);
    if (code == 0) {
        loop_set_after_turn(daemon->loop, after_turn, daemon);
        log_info("hebbd " HEBB_VERSION
                 " listens on %s (port %u); state in %s; %d cores, %d GPUs; configuration: %s",
                 daemon->config.listen, (unsigned)http_port(daemon->http),
                 daemon->config.state_dir, daemon->config.cores, daemon->config.gpus,
                 config->file != NULL ? config->file : "no file");
        char status[128];
        snprintf(status, sizeof status, "listens on port %u",
                 (unsigned)http_port(daemon->http));
        notify_ready(daemon->loop, status);
        code = loop_run(daemon->loop, &err);
    }
    if (code != 0)
        log_error("%s", err.text);
    stop(daemon, lock, signals);
    return code == 0 ? EXIT_DONE : err_exit_code(code);
}

/* Modes that print and leave; -1: none of these. */
static int print_mode(const struct config *config)
{
    struct buf text;
    buf_init(&text, 256 * 1024);
    if (config->mode == CONFIG_HELP)
        config_help(&text);
    else if (config->mode == CONFIG_DESCRIBE)
        config_describe(&text);
    else if (config->mode == CONFIG_PRINT)
        config_print(config, &text);
    else if (config->mode == CONFIG_VERSION)
        buf_puts(&text, "hebbd " HEBB_VERSION "\n");
    else if (config->mode == CONFIG_CHECK)
        buf_printf(&text, "%s: no fault\n",
                   config->file != NULL ? config->file : "no configuration file");
    int code = text.len > 0 ? EXIT_DONE : -1;
    if (text.len > 0)
        fputs(text.data, stdout);
    buf_release(&text);
    return code;
}

static int backup(const struct config *config)
{
    struct err err;
    int code = store_backup(config->daemon.state_dir, config->backup_folder, &err);
    if (code != 0) {
        fprintf(stderr, "hebbd: %s\n", err.text);
        return err_exit_code(code);
    }
    printf("%s\n", config->backup_folder);
    return EXIT_DONE;
}

/* A connection takes a descriptor each. What is started from here gets the limit too. */
static void raise_file_limit(const struct daemon_config *config)
{
    struct rlimit limit;
    rlim_t wanted = (rlim_t)config->connections + 512;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur >= wanted)
        return;
    limit.rlim_cur = limit.rlim_max < wanted ? limit.rlim_max : wanted;
    if (setrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur < wanted)
        log_warn("%llu open files are allowed, fewer than %d connections need",
                 (unsigned long long)limit.rlim_cur, config->connections);
}

int main(int argc, char **argv)
{
    static struct spec_faults faults; /* 49 KiB: not on the stack */
    struct config config;
    struct err err;
    log_setup("hebbd", LOG_LEVEL_INFO);
    umask(077);
    int code = config_parse(&config, argc, argv, &faults, &err);
    if (code != 0) {
        print_faults(&faults);
        return err_exit_code(code);
    }
    code = config.mode == CONFIG_BACKUP ? backup(&config) : print_mode(&config);
    if (code < 0) {
        log_setup("hebbd", (enum log_level)config.log_level);
        raise_file_limit(&config.daemon);
        code = serve(&config, argc, argv);
    }
    config_release(&config);
    return code;
}
