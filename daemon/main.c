/* hebbd. */
#include "daemon/config.h"
#include "daemon/daemon.h"
#include "daemon/http.h"
#include "daemon/jobs.h"
#include "daemon/loop.h"
#include "daemon/store.h"
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/log.h"
#include <errno.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/signalfd.h>
#include <sys/stat.h>
#include <unistd.h>

static void on_signal(void *context, int fd)
{
    struct daemon *daemon = context;
    struct signalfd_siginfo info;
    while (read(fd, &info, sizeof info) == (ssize_t)sizeof info) {
        if (info.ssi_signo == SIGCHLD) {
            jobs_reap(daemon->jobs);
            continue;
        }
        log_info("signal %u: stopping; running jobs go on", info.ssi_signo);
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

static int watch_signals(struct daemon *daemon, int *fd, struct err *err)
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
    return loop_add_fd(daemon->loop, *fd, on_signal, daemon, err);
}

static int write_port(const struct daemon *daemon, const char *path, struct err *err)
{
    char text[16];
    int len = snprintf(text, sizeof text, "%u\n", (unsigned)http_port(daemon->http));
    return path != NULL ? fsx_publish(path, text, (size_t)len, 0644, err) : 0;
}

/* Everything in the order in which it needs what came before. */
static int start(struct daemon *daemon, int *lock, int *signals, const char *port_file,
                 struct err *err)
{
    char path[FSX_PATH_MAX];
    const char *state = daemon->config.state_dir;
    int code = fsx_path(path, err, "%s/lock", state);
    if (code == 0 && (code = fsx_lock(lock, path, err)) == ERR_CONFLICT)
        err_wrap(err, code, "another hebbd uses %s", state);
    if (code == 0)
        code = config_token(daemon->token, state, err);
    if (code == 0)
        code = loop_create(&daemon->loop, err);
    if (code == 0)
        code = watch_signals(daemon, signals, err);
    if (code == 0)
        code = store_open(&daemon->store, state, err);
    if (code == 0)
        code = jobs_create(&daemon->jobs, daemon, err);
    if (code == 0)
        code = http_create(&daemon->http, daemon, err);
    if (code == 0)
        code = write_port(daemon, port_file, err);
    return code;
}

static void stop(struct daemon *daemon, int lock, int signals)
{
    http_destroy(daemon->http);
    jobs_destroy(daemon->jobs);
    store_close(daemon->store);
    loop_destroy(daemon->loop);
    if (signals >= 0)
        close(signals);
    if (lock >= 0)
        close(lock);
}

static int serve(struct config *config)
{
    struct daemon daemon = {.config = config->daemon, .started_ms = clock_wall_ms()};
    int lock = -1, signals = -1;
    struct err err;
    int code = start(&daemon, &lock, &signals, config->port_file, &err);
    if (code == 0) {
        loop_set_after_turn(daemon.loop, after_turn, &daemon);
        log_info("hebbd " HEBB_VERSION
                 " listens on %s (port %u); state in %s; %d cores, %d GPUs",
                 daemon.config.listen, (unsigned)http_port(daemon.http),
                 daemon.config.state_dir, daemon.config.cores, daemon.config.gpus);
        code = loop_run(daemon.loop, &err);
    }
    if (code != 0)
        log_error("%s", err.text);
    stop(&daemon, lock, signals);
    return code == 0 ? EXIT_DONE : err_exit_code(code);
}

int main(int argc, char **argv)
{
    struct config config;
    struct err err;
    log_setup("hebbd", LOG_LEVEL_INFO);
    umask(077);
    int code = config_parse(&config, argc, argv, &err);
    if (code != 0) {
        fprintf(stderr, "hebbd: %s\n", err.text);
        return err_exit_code(code);
    }
    if (config.help) {
        struct buf text;
        buf_init(&text, 64 * 1024);
        config_help(&text);
        fputs(text.data, stdout);
        buf_release(&text);
        return EXIT_DONE;
    }
    if (config.version) {
        puts("hebbd " HEBB_VERSION);
        return EXIT_DONE;
    }
    log_setup("hebbd", config.log_level);
    code = serve(&config);
    config_release(&config);
    return code;
}
