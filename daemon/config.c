#include "daemon/config.h"
#include "proto/base/buf.h"
#include "proto/base/fsx.h"
#include <ctype.h>
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <unistd.h>

enum {
    DATA_ROOTS_MAX = 64,
    CORES_MAX = 4096,
    GPUS_MAX = 64,
    TOKEN_BYTES = 32,
    POLL_MS_MAX = 60000,
    GRACE_S_MAX = 24 * 3600
};

static int set_text(char **field, const char *value, const char *name, struct err *err)
{
    free(*field);
    *field = strdup(value);
    return *field != NULL ? 0 : err_set(err, ERR_NO_MEMORY, "%s: out of memory", name);
}

static int set_number(int *field, const char *value, const char *name, int min, int max,
                      struct err *err)
{
    char *end;
    errno = 0;
    long number = strtol(value, &end, 10);
    if (errno != 0 || end == value || *end != '\0' || number < min || number > max)
        return err_set(err, ERR_INVALID, "%s '%s' must be a number from %d to %d", name, value,
                       min, max);
    *field = (int)number;
    return 0;
}

static int set_state(struct config *config, const char *value, struct err *err)
{
    return set_text(&config->daemon.state_dir, value, "--state", err);
}

static int set_listen(struct config *config, const char *value, struct err *err)
{
    return set_text(&config->daemon.listen, value, "--listen", err);
}

static int add_data_root(struct config *config, const char *value, struct err *err)
{
    char canonical[PATH_MAX];
    struct stat info;
    struct daemon_config *daemon = &config->daemon;
    if (daemon->data_root_count == DATA_ROOTS_MAX)
        return err_set(err, ERR_LIMIT, "more than %d data roots", (int)DATA_ROOTS_MAX);
    if (realpath(value, canonical) == NULL || stat(canonical, &info) != 0)
        return err_set(err, ERR_INVALID, "data root '%s': %s", value, strerror(errno));
    if (!S_ISDIR(info.st_mode))
        return err_set(err, ERR_INVALID, "data root '%s' is not a folder", value);
    char **grown = reallocarray(daemon->data_roots, daemon->data_root_count + 1, sizeof *grown);
    if (grown == NULL)
        return err_set(err, ERR_NO_MEMORY, "data root '%s': out of memory", value);
    daemon->data_roots = grown;
    daemon->data_roots[daemon->data_root_count] = NULL;
    return set_text(&daemon->data_roots[daemon->data_root_count++], canonical, "--data-root",
                    err);
}

static int set_worker(struct config *config, const char *value, struct err *err)
{
    return set_text(&config->daemon.worker_path, value, "--worker", err);
}

static int set_shim(struct config *config, const char *value, struct err *err)
{
    return set_text(&config->daemon.shim_path, value, "--shim", err);
}

static int set_web(struct config *config, const char *value, struct err *err)
{
    return set_text(&config->daemon.web_dir, value, "--web", err);
}

static int set_cores(struct config *config, const char *value, struct err *err)
{
    return set_number(&config->daemon.cores, value, "--cores", 1, CORES_MAX, err);
}

static int set_gpus(struct config *config, const char *value, struct err *err)
{
    return set_number(&config->daemon.gpus, value, "--gpus", 0, GPUS_MAX, err);
}

static int set_poll_ms(struct config *config, const char *value, struct err *err)
{
    return set_number(&config->daemon.poll_ms, value, "--poll-ms", 10, POLL_MS_MAX, err);
}

static int set_cancel_grace(struct config *config, const char *value, struct err *err)
{
    return set_number(&config->daemon.cancel_grace_s, value, "--cancel-grace", 1, GRACE_S_MAX,
                      err);
}

static int set_pause_grace(struct config *config, const char *value, struct err *err)
{
    return set_number(&config->daemon.pause_grace_s, value, "--pause-grace", 1, GRACE_S_MAX,
                      err);
}

static int set_stop_grace(struct config *config, const char *value, struct err *err)
{
    return set_number(&config->daemon.stop_grace_s, value, "--stop-grace", 1, GRACE_S_MAX, err);
}

static int set_hung(struct config *config, const char *value, struct err *err)
{
    return set_number(&config->daemon.hung_s, value, "--hung", 3, GRACE_S_MAX, err);
}

static int set_log_level(struct config *config, const char *value, struct err *err)
{
    static const char *const names[] = {[LOG_LEVEL_DEBUG] = "debug",
                                        [LOG_LEVEL_INFO] = "info",
                                        [LOG_LEVEL_WARN] = "warn",
                                        [LOG_LEVEL_ERROR] = "error"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        if (strcmp(names[i], value) == 0) {
            config->log_level = (enum log_level)i;
            return 0;
        }
    return err_set(err, ERR_INVALID, "--log-level '%s' must be debug, info, warn or error",
                   value);
}

static int set_port_file(struct config *config, const char *value, struct err *err)
{
    return set_text(&config->port_file, value, "--port-file", err);
}

static const struct config_option {
    const char *name, *value, *help;
    int (*set)(struct config *config, const char *value, struct err *err);
} options[] = {
    {"--state", "DIR",
     "where jobs and databases live; $STATE_DIRECTORY, $XDG_STATE_HOME/hebb or "
     "~/.local/state/hebb",
     set_state},
    {"--listen", "ADDR:PORT", "address of the service; 127.0.0.1:7077. Port 0: any free one",
     set_listen},
    {"--data-root", "DIR",
     "folder that jobs may read data from; may be repeated; DIR/data of the state",
     add_data_root},
    {"--worker", "PATH", "hebb-worker; beside this program", set_worker},
    {"--shim", "PATH", "hebb-shim; beside this program", set_shim},
    {"--web", "DIR", "the dashboard's files; ../share/hebb/web or ../web beside this program",
     set_web},
    {"--cores", "N", "cores to give out to jobs; those that this process may use", set_cores},
    {"--gpus", "N", "GPUs to give out to jobs; 0", set_gpus},
    {"--poll-ms", "N", "how often events files and attempts are looked at; 200", set_poll_ms},
    {"--cancel-grace", "SECONDS", "from asking a job that is cancelled to SIGTERM; 30",
     set_cancel_grace},
    {"--pause-grace", "SECONDS", "the same for a job that is paused; 600", set_pause_grace},
    {"--stop-grace", "SECONDS", "from SIGTERM to SIGKILL; 60", set_stop_grace},
    {"--hung", "SECONDS", "a rank without a heartbeat for so long is killed; 20", set_hung},
    {"--log-level", "LEVEL", "debug, info, warn or error; info", set_log_level},
    {"--port-file", "FILE", "write the bound port to FILE when ready", set_port_file},
};
enum { OPTIONS = sizeof options / sizeof options[0] };

void config_help(struct buf *out)
{
    buf_puts(out, "usage: hebbd [OPTION]...\n\nThe service of hebb: takes jobs over HTTP, runs "
                  "them, keeps their history.\n\n");
    for (size_t i = 0; i < OPTIONS; i++) {
        char left[48];
        snprintf(left, sizeof left, "%s %s", options[i].name, options[i].value);
        buf_printf(out, "  %-22s %s\n", left, options[i].help);
    }
    buf_puts(out, "  --help                 this text\n  --version              the version\n");
}

/* "--name value" or "--name=value". */
static int parse_one(struct config *config, int argc, char **argv, int *at, struct err *err)
{
    const char *word = argv[*at];
    for (size_t i = 0; i < OPTIONS; i++) {
        size_t len = strlen(options[i].name);
        if (strncmp(word, options[i].name, len) != 0 || (word[len] != '\0' && word[len] != '='))
            continue;
        const char *value = word[len] == '=' ? word + len + 1 : NULL;
        if (value == NULL && *at + 1 < argc)
            value = argv[++*at];
        if (value == NULL || value[0] == '\0')
            return err_set(err, ERR_INVALID, "%s needs %s", options[i].name, options[i].value);
        return options[i].set(config, value, err);
    }
    return err_set(err, ERR_INVALID, "unknown option '%s'; hebbd --help lists them", word);
}

/* --- what the command line leaves open --- */

static int default_state(struct config *config, struct err *err)
{
    char path[FSX_PATH_MAX];
    const char *service = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME"),
               *home = getenv("HOME");
    int code;
    if (service != NULL && service[0] == '/')
        code = fsx_path(path, err, "%s", service);
    else if (xdg != NULL && xdg[0] == '/')
        code = fsx_path(path, err, "%s/hebb", xdg);
    else if (home != NULL && home[0] == '/')
        code = fsx_path(path, err, "%s/.local/state/hebb", home);
    else
        code = fsx_path(path, err, "/var/lib/hebb");
    return code == 0 ? set_state(config, path, err) : code;
}

static int make_state(struct config *config, struct err *err)
{
    char canonical[PATH_MAX], data[FSX_PATH_MAX];
    int code = config->daemon.state_dir == NULL ? default_state(config, err) : 0;
    if (code == 0)
        code = fsx_mkdirs(config->daemon.state_dir, 0700, err);
    if (code != 0)
        return code;
    if (realpath(config->daemon.state_dir, canonical) == NULL)
        return err_set(err, ERR_IO, "state folder '%s': %s", config->daemon.state_dir,
                       strerror(errno));
    code = set_state(config, canonical, err);
    if (code != 0 || config->daemon.data_root_count > 0)
        return code;
    code = fsx_path(data, err, "%s/data", canonical);
    if (code == 0)
        code = fsx_mkdirs(data, 0700, err);
    return code == 0 ? add_data_root(config, data, err) : code;
}

static int own_folder(char out[FSX_PATH_MAX], struct err *err)
{
    ssize_t len = readlink("/proc/self/exe", out, FSX_PATH_MAX - 1);
    if (len <= 0)
        return err_set(err, ERR_IO, "read /proc/self/exe: %s", strerror(errno));
    out[len] = '\0';
    *strrchr(out, '/') = '\0';
    return 0;
}

static int default_programs(struct config *config, struct err *err)
{
    struct daemon_config *daemon = &config->daemon;
    static const char *const webs[] = {"../share/hebb/web", "../web"};
    char folder[FSX_PATH_MAX], path[FSX_PATH_MAX];
    int code = own_folder(folder, err);
    if (code == 0 && daemon->worker_path == NULL &&
        (code = fsx_path(path, err, "%s/hebb-worker", folder)) == 0)
        code = set_worker(config, path, err);
    if (code == 0 && daemon->shim_path == NULL &&
        (code = fsx_path(path, err, "%s/hebb-shim", folder)) == 0)
        code = set_shim(config, path, err);
    for (size_t i = 0; code == 0 && i < sizeof webs / sizeof webs[0] && daemon->web_dir == NULL;
         i++) {
        code = fsx_path(path, err, "%s/%s", folder, webs[i]);
        if (code == 0 && fsx_exists(path))
            code = set_web(config, path, err);
    }
    return code;
}

/* The shim runs in the job's folder: paths given on the command line are made absolute. */
static int make_absolute(char **field, const char *name, struct err *err)
{
    char canonical[PATH_MAX];
    if (*field == NULL)
        return 0;
    if (realpath(*field, canonical) == NULL)
        return err_set(err, ERR_INVALID, "%s '%s': %s", name, *field, strerror(errno));
    return set_text(field, canonical, name, err);
}

static int usable_cores(void)
{
    cpu_set_t set;
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        return CPU_COUNT(&set);
    long count = sysconf(_SC_NPROCESSORS_ONLN);
    return count > 0 ? (int)count : 1;
}

int config_parse(struct config *out, int argc, char **argv, struct err *err)
{
    memset(out, 0, sizeof *out);
    out->log_level = LOG_LEVEL_INFO;
    int code = 0;
    for (int i = 1; code == 0 && i < argc; i++) {
        out->help = strcmp(argv[i], "--help") == 0 || strcmp(argv[i], "-h") == 0;
        out->version = strcmp(argv[i], "--version") == 0;
        if (out->help || out->version)
            return 0;
        code = parse_one(out, argc, argv, &i, err);
    }
    if (code == 0 && out->daemon.listen == NULL)
        code = set_listen(out, "127.0.0.1:7077", err);
    if (code == 0)
        code = make_state(out, err);
    if (code == 0)
        code = default_programs(out, err);
    if (code == 0)
        code = make_absolute(&out->daemon.worker_path, "--worker", err);
    if (code == 0)
        code = make_absolute(&out->daemon.shim_path, "--shim", err);
    if (code == 0)
        code = make_absolute(&out->daemon.web_dir, "--web", err);
    if (code != 0) {
        config_release(out);
        return code;
    }
    if (out->daemon.cores == 0)
        out->daemon.cores = usable_cores();
    if (out->daemon.poll_ms == 0)
        out->daemon.poll_ms = 200;
    return 0;
}

void config_release(struct config *config)
{
    struct daemon_config *daemon = &config->daemon;
    char *const texts[] = {daemon->state_dir, daemon->listen,  daemon->worker_path,
                           daemon->shim_path, daemon->web_dir, config->port_file};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++)
        free(texts[i]);
    for (size_t i = 0; i < daemon->data_root_count; i++)
        free(daemon->data_roots[i]);
    free(daemon->data_roots);
    memset(config, 0, sizeof *config);
}

static int make_token(const char *path, char out[65], struct err *err)
{
    unsigned char bytes[TOKEN_BYTES];
    char line[2 * TOKEN_BYTES + 2];
    if (getrandom(bytes, sizeof bytes, 0) != (ssize_t)sizeof bytes)
        return err_set(err, ERR_IO, "getrandom: %s", strerror(errno));
    for (size_t i = 0; i < sizeof bytes; i++)
        snprintf(out + 2 * i, 3, "%02x", bytes[i]);
    int len = snprintf(line, sizeof line, "%s\n", out);
    return fsx_publish(path, line, (size_t)len, 0600, err);
}

int config_token(char out[65], const char *state_dir, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    struct stat info;
    int code = fsx_path(path, err, "%s/token", state_dir);
    if (code != 0)
        return code;
    buf_init(&text, 256);
    code = fsx_read(&text, path, err);
    if (code == ERR_NOT_FOUND) {
        buf_release(&text);
        return make_token(path, out, err);
    }
    size_t len = 0;
    while (code == 0 && len < text.len && isxdigit((unsigned char)text.data[len]))
        len++;
    if (code == 0 &&
        (len != 2 * TOKEN_BYTES || (text.data[len] != '\n' && text.data[len] != '\0')))
        code = err_set(err, ERR_CORRUPT,
                       "%s does not hold 64 hex digits; remove it and a new one is made", path);
    if (code == 0 && stat(path, &info) == 0 && (info.st_mode & 077) != 0)
        log_warn("%s can be read by others; chmod 600 it", path);
    if (code == 0)
        snprintf(out, 65, "%.64s", text.data);
    buf_release(&text);
    return code;
}
