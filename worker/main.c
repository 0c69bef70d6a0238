/* hebb-worker: one rank of a job. Started by mpirun (the rank is MPI's) or directly (a world of
 * one). */
#include "proto/base/clock.h"
#include "proto/base/fsx.h"
#include "proto/base/log.h"
#include "proto/json/json.h"
#include "worker/comms.h"
#include "worker/run.h"

#include <errno.h>
#include <getopt.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

static volatile sig_atomic_t stop_requested;

static void on_stop(int signal)
{
    (void)signal;
    stop_requested = 1;
}

static void catch_signals(void)
{
    static const int stops[] = {SIGTERM, SIGINT, SIGUSR1};
    struct sigaction action = {.sa_handler = on_stop, .sa_flags = SA_RESTART};
    sigemptyset(&action.sa_mask);
    for (size_t i = 0; i < sizeof stops / sizeof *stops; i++) {
        sigaction(stops[i], &action, NULL);
    }
    signal(SIGPIPE, SIG_IGN); /* a write to a gone reader is an error with a message */
    signal(SIGXFSZ, SIG_IGN); /* and so is a file above its limit */
}

/* The worker must not outlive mpirun (or whoever started it): an orphan would go on writing the
 * job folder. */
static void die_with_parent(pid_t parent)
{
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    if (getppid() != parent) { /* it went before the wish was known */
        raise(SIGKILL);
    }
}

static const char usage[] = "usage: hebb-worker --job FOLDER --attempt N [--threads N]\n"
                            "\n"
                            "Runs one rank of the job in FOLDER (docs/formats.md). hebbd and "
                            "`hebb train` start it; under mpirun it is a rank of\n"
                            "MPI's world, otherwise a world of one. SIGTERM, SIGINT, SIGUSR1: "
                            "save a checkpoint and leave with code 75.\n"
                            "\n"
                            "  --job FOLDER   the job folder; its spec.json says what to do\n"
                            "  --attempt N    the number of this attempt, from 1\n"
                            "  --threads N    instead of the spec's threads per rank\n"
                            "  --version      print the version\n";

/* A whole number of 1 to max; 0 if text is none. */
static unsigned parse_count(const char *text, unsigned long max)
{
    char *end;
    errno = 0;
    unsigned long value = strtoul(text, &end, 10);
    bool whole = text[0] >= '0' && text[0] <= '9' && *end == '\0' && errno == 0;
    return whole && value <= max ? (unsigned)value : 0;
}

/* Returns EXIT_DONE to go on; *leave if the answer was already given. */
static int parse_arguments(int argc, char **argv, struct run_options *options, bool *leave)
{
    static const struct option known[] = {
        {"job", required_argument, NULL, 'j'},     {"attempt", required_argument, NULL, 'a'},
        {"threads", required_argument, NULL, 't'}, {"help", no_argument, NULL, 'h'},
        {"version", no_argument, NULL, 'v'},       {0},
    };
    int option;
    while ((option = getopt_long(argc, argv, "", known, NULL)) != -1) {
        switch (option) {
        case 'j':
            options->job = optarg;
            break;
        case 'a':
            options->attempt = parse_count(optarg, 1000000);
            if (options->attempt == 0) {
                log_error("--attempt %s: must be a whole number from 1", optarg);
                return EXIT_USAGE;
            }
            break;
        case 't':
            options->threads = parse_count(optarg, 256);
            if (options->threads == 0) {
                log_error("--threads %s: must be a whole number from 1 to 256", optarg);
                return EXIT_USAGE;
            }
            break;
        case 'h':
            fputs(usage, stdout);
            *leave = true;
            return EXIT_DONE;
        case 'v':
            puts("hebb-worker " HEBB_VERSION);
            *leave = true;
            return EXIT_DONE;
        default:
            fputs(usage, stderr);
            return EXIT_USAGE;
        }
    }
    if (optind < argc || !options->job || options->attempt == 0) {
        fputs(usage, stderr);
        return EXIT_USAGE;
    }
    return EXIT_DONE;
}

/* attempt-N/error-R.json: why this rank leaves. Best effort: the log has the message too. */
static void write_error(const struct run_options *options, int rank, int exit_code,
                        const struct err *failure)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    cJSON *root = cJSON_CreateObject();
    cJSON_AddNumberToObject(root, "code", exit_code);
    cJSON_AddNumberToObject(root, "rank", rank);
    cJSON_AddStringToObject(root, "error", err_name(failure->code));
    cJSON_AddStringToObject(root, "message", failure->text);
    buf_init(&text, 16 * ERR_TEXT_MAX);
    json_print(root, &text);
    buf_puts(&text, "\n");
    struct err err = {0};
    int rc = fsx_path(path, &err, "%s/attempt-%u/error-%d.json", options->job, options->attempt,
                      rank);
    if (rc == 0 && !text.failed) {
        rc = fsx_publish(path, text.data, text.len, 0644, &err);
    }
    if (rc != 0) {
        log_error("%s", err.text);
    }
    cJSON_Delete(root);
    buf_release(&text);
}

int main(int argc, char **argv)
{
    pid_t parent = getppid();
    struct run_options options = {.stop = &stop_requested};
    struct run_result result = {0};
    struct err err = {0};
    struct comm *comm = NULL;
    bool leave = false;
    static char name[64] = "hebb-worker";
    die_with_parent(parent);
    log_setup(name, LOG_LEVEL_INFO);
    int code = parse_arguments(argc, argv, &options, &leave);
    if (code != EXIT_DONE || leave) {
        return code;
    }
    catch_signals();
    bool mpi = getenv("OMPI_COMM_WORLD_SIZE") != NULL;
    int rc = mpi ? comm_mpi_create(&comm, &err) : comm_self_create(&comm, &err);
    if (rc != 0) {
        log_error("%s", err.text);
        write_error(&options, 0, err_exit_code(rc), &err);
        return err_exit_code(rc);
    }
    int rank = comm->rank;
    const char *local = getenv("OMPI_COMM_WORLD_LOCAL_RANK");
    options.local_rank = local ? (unsigned)strtoul(local, NULL, 10) : 0;
    snprintf(name, sizeof name, "hebb-worker rank %d", rank);
    rc = run_job(&options, comm, &result, &err);
    code = result.exit_code;
    if (rc != 0 && result.rank == rank) {
        log_error("%s", err.text);
        write_error(&options, rank, code, &err);
    }
    if (rc != 0 && mpi && !result.together) {
        comm_mpi_abort(code);
    }
    comm->ops->destroy(comm);
    return code;
}
