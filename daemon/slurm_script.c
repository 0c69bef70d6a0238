#include "daemon/slurm_script.h"
#include <fnmatch.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

/* The working folder is attempt-N (--chdir). Where Slurm could not enter it, or the attempt was
 * withdrawn or has begun already, nothing is done. In `launch` the lines @env and @slurm stand
 * for the variables that hebb-shim, which makes its environment from nothing, is to pass on. */
const char slurm_script[] =
    "#!/bin/bash\n"
    "if [[ -L launch || ! -O launch || -e shim.json ]]; then\n"
    "    echo 'hebb: this attempt was withdrawn or has begun already; nothing to do' >&2\n"
    "    exit 0\n"
    "fi\n"
    "env=(/usr/bin/env)\n"
    "[[ -v CUDA_VISIBLE_DEVICES ]] && env+=(\"CUDA_VISIBLE_DEVICES=$CUDA_VISIBLE_DEVICES\")\n"
    "slurm=(\"${env[@]}\" SLURM_CPU_BIND=none)\n"
    "for name in \"${!SLURM_@}\"; do slurm+=(\"$name=${!name}\"); done\n"
    "arguments=()\n"
    "while IFS= read -r line; do\n"
    "    case $line in\n"
    "    @env) arguments+=(\"${env[@]}\") ;;\n"
    "    @slurm) arguments+=(\"${slurm[@]}\") ;;\n"
    "    *) arguments+=(\"$line\") ;;\n"
    "    esac\n"
    "done <launch\n"
    "exec \"${arguments[@]}\"\n";

void slurm_key(char *out, size_t size, const struct launch *launch)
{
    snprintf(out, size, "%.23s.%" PRId64, strrchr(launch->folder, '/') + 1, launch->attempt);
}

/* --- launch --- */

static void add_line(struct buf *out, const char *line) { buf_printf(out, "%s\n", line); }

static void add_number(struct buf *out, const char *name, int64_t value)
{
    buf_printf(out, "%s\n%" PRId64 "\n", name, value);
}

/* In one node ranks are started as the local launcher does; over several mpirun asks Slurm. */
static void add_mpirun(struct buf *out, const struct job_spec *spec)
{
    static const char *const node[] = {
        "@env",     "mpirun",     "--bind-to", "none",  "--oversubscribe",
        "--mca",    "ras",        "^slurm",    "--mca", "plm",
        "isolated", "--mca",      "pml",       "ob1",   "--mca",
        "btl",      "self,vader", "-np",       NULL};
    static const char *const nodes[] = {"@slurm",    "mpirun",
                                        "--bind-to", "none",
                                        "--mca",     "pml",
                                        "ob1",       "--mca",
                                        "btl",       "self,vader,tcp",
                                        "--mca",     "btl_vader_backing_directory",
                                        "/dev/shm",  "--map-by",
                                        NULL};
    bool several = spec->slurm.nodes > 1;
    for (const char *const *word = several ? nodes : node; *word != NULL; word++)
        add_line(out, *word);
    if (several)
        buf_printf(out, "ppr:%" PRId64 ":node\n-np\n", spec->slurm.ranks_per_node);
    buf_printf(out, "%" PRId64 "\n", spec->resources.ranks);
}

/* The programs on the nodes: in the configured folder, or where they are here. */
static void add_program(struct buf *out, const struct slurm_config *config, const char *here)
{
    if (config->programs == NULL)
        add_line(out, here);
    else
        buf_printf(out, "%s%s\n", config->programs, strrchr(here, '/'));
}

int slurm_launch_text(struct buf *out, const struct slurm_config *config,
                      const struct launch *launch, const struct job_spec *spec, struct err *err)
{
    const char *const paths[] = {launch->folder, launch->shim_path, launch->worker_path,
                                 config->programs != NULL ? config->programs : ""};
    for (size_t i = 0; i < sizeof paths / sizeof paths[0]; i++)
        if (strchr(paths[i], '\n') != NULL)
            return err_set(err, ERR_INVALID, "the path '%s' holds a newline", paths[i]);
    int hung = launch->hung_s > 0 ? launch->hung_s : SHIM_HUNG_S;
    int grace = launch->stop_grace_s > 0 ? launch->stop_grace_s : SHIM_GRACE_S;
    if (spec->slurm.nodes > 1 && hung < SLURM_HUNG_MIN_S)
        hung = SLURM_HUNG_MIN_S;
    if (grace < config->warning_s) /* the time that Slurm's warning leaves may all be used */
        grace = config->warning_s;
    add_program(out, config, launch->shim_path);
    buf_printf(out, "--folder\n%s\n", launch->folder);
    add_number(out, "--attempt", launch->attempt);
    add_number(out, "--ranks", spec->resources.ranks);
    add_number(out, "--grace", grace);
    add_number(out, "--hung", hung);
    add_line(out, "--");
    if (spec->resources.ranks > 1)
        add_mpirun(out, spec);
    else
        add_line(out, "@env");
    add_program(out, config, launch->worker_path);
    buf_printf(out, "--job\n%s\n", launch->folder);
    add_number(out, "--attempt", launch->attempt);
    return out->failed ? err_set(err, ERR_NO_MEMORY, "launch: out of memory") : 0;
}

/* --- sbatch --- */

const char *slurm_option_fault(const struct slurm_config *config, const char *option)
{
    static const char *const ours[] = {
        "account",      "array",
        "bb",           "bbf",
        "chdir",        "clusters",
        "comment",      "cpus-per-task",
        "dependency",   "error",
        "export",       "export-file",
        "get-user-env", "gid",
        "gpus",         "gres",
        "help",         "hold",
        "ignore-pbs",   "input",
        "job-name",     "kill-on-invalid-dep",
        "nodes",        "no-requeue",
        "ntasks",       "ntasks-per-node",
        "open-mode",    "output",
        "parsable",     "partition",
        "propagate",    "qos",
        "quiet",        "requeue",
        "signal",       "test-only",
        "time",         "uid",
        "usage",        "version",
        "wait",         "workdir",
        "wrap",
    };
    size_t len = strcspn(option, "=");
    for (size_t i = 0; i < sizeof ours / sizeof ours[0]; i++)
        /* sbatch takes beginnings of names as well */
        if (len > 2 && strncmp(option + 2, ours[i], len - 2) == 0)
            return "the launcher sets this itself";
    for (size_t i = 0; i < config->allowed_count; i++)
        if (fnmatch(config->allowed[i], option, 0) == 0)
            return NULL;
    return "the administrator does not allow it";
}

struct arguments {
    struct buf *store;
    size_t offsets[SLURM_ARGUMENTS_MAX];
    size_t count;
};

static void __attribute__((format(printf, 2, 3)))
add(struct arguments *arguments, const char *format, ...)
{
    char text[FSX_PATH_MAX + 64];
    va_list args;
    if (arguments->count + 1 == SLURM_ARGUMENTS_MAX) {
        arguments->store->failed = true;
        return;
    }
    va_start(args, format);
    int len = vsnprintf(text, sizeof text, format, args);
    va_end(args);
    arguments->offsets[arguments->count++] = arguments->store->len;
    if (len < 0 || (size_t)len >= sizeof text)
        arguments->store->failed = true;
    else
        buf_add(arguments->store, text, (size_t)len + 1);
}

static void add_resources(struct arguments *arguments, const struct job_spec *spec)
{
    add(arguments, "--nodes=%" PRId64, spec->slurm.nodes);
    add(arguments, "--ntasks=%" PRId64, spec->resources.ranks);
    add(arguments, "--ntasks-per-node=%" PRId64, spec->slurm.ranks_per_node);
    add(arguments, "--cpus-per-task=%" PRId64, spec->resources.threads);
    if (spec->slurm.gpus_per_rank > 0)
        add(arguments, "--gres=gpu:%" PRId64,
            spec->slurm.gpus_per_rank * spec->slurm.ranks_per_node);
    if (spec->slurm.time_limit_minutes > 0)
        add(arguments, "--time=%" PRId64, spec->slurm.time_limit_minutes);
    if (spec->slurm.partition[0] != '\0')
        add(arguments, "--partition=%s", spec->slurm.partition);
    if (spec->slurm.account[0] != '\0')
        add(arguments, "--account=%s", spec->slurm.account);
    if (spec->slurm.qos[0] != '\0')
        add(arguments, "--qos=%s", spec->slurm.qos);
}

int slurm_arguments(const char *argv[SLURM_ARGUMENTS_MAX], struct buf *store,
                    const struct slurm_config *config, const struct launch *launch,
                    const struct job_spec *spec, struct err *err)
{
    static const char *const fixed[] = {
        "--parsable",         "--no-requeue",     "--dependency=singleton",
        "--open-mode=append", "--propagate=NONE", "--kill-on-invalid-dep=yes",
        "--output=slurm.txt",
    };
    struct arguments arguments = {.store = store};
    char key[64];
    for (size_t i = 0; i < spec->slurm.options.count; i++) {
        const char *option = spec->slurm.options.items[i];
        const char *fault = slurm_option_fault(config, option);
        if (fault != NULL)
            return err_set(err, ERR_INVALID, "/slurm/options/%zu: %s: %s", i, option, fault);
    }
    add(&arguments, "%s/sbatch", config->commands);
    for (size_t i = 0; i < spec->slurm.options.count; i++)
        add(&arguments, "%s", spec->slurm.options.items[i]);
    for (size_t i = 0; i < sizeof fixed / sizeof fixed[0]; i++)
        add(&arguments, "%s", fixed[i]);
    slurm_key(key, sizeof key, launch);
    add(&arguments, "--job-name=hebb-%s", strrchr(launch->folder, '/') + 1);
    add(&arguments, "--comment=hebb:%s", key);
    add(&arguments, "--chdir=%s/attempt-%" PRId64, launch->folder, launch->attempt);
    add(&arguments, "--signal=B:TERM@%d", config->warning_s);
    add_resources(&arguments, spec);
    if (store->failed)
        return err_set(err, ERR_LIMIT, "the arguments of sbatch do not fit");
    for (size_t i = 0; i < arguments.count; i++)
        argv[i] = store->data + arguments.offsets[i];
    argv[arguments.count] = NULL;
    return 0;
}
