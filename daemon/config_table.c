/* The options of hebbd, and what is printed from them. */
#include "daemon/config_private.h"
#include "daemon/slurm.h"
#include "proto/json/json.h"
#include <stdio.h>
#include <string.h>

static const char *const levels[] = {"debug", "info", "warn", "error", NULL};

#define AT(field) offsetof(struct config, field)

/* clang-format off */
const struct config_row config_rows[] = {
    {"state", "--state", "DIR", CONFIG_TEXT, AT(daemon.state_dir), 0, 0, 0, 0, NULL, false,
     "`$STATE_DIRECTORY`, `$XDG_STATE_HOME/hebb`, `~/.local/state/hebb` or `/var/lib/hebb`",
     "where jobs and databases live"},
    {"listen", "--listen", "ADDR:PORT", CONFIG_TEXT, AT(daemon.listen), 0, 0, 0, 0, NULL, false,
     "`127.0.0.1:7077`", "address of the service; port 0: any free one"},
    {"socket", "--socket", "PATH", CONFIG_TEXT, AT(daemon.socket), 0, 0, 0, 0, NULL, false,
     "none", "also listen on this Unix socket: the daemon's own user and root need no token there"},
    {"local_token", "--local-token", "BOOL", CONFIG_BOOL, AT(daemon.local_token), 0, 1, 0, 1, NULL, false,
     "true", "make and take the admin token in `STATE/token`; false: only named tokens and the socket"},
    {"hosts", "--host", "NAME", CONFIG_LIST, AT(daemon.hosts), AT(daemon.host_count), 0, 1, 255, NULL, true,
     "none", "a further name that `Host` may have: that of a proxy before the daemon"},
    {"data_roots", "--data-root", "DIR", CONFIG_ROOTS, AT(daemon.data_roots), AT(daemon.data_root_count), 0, 1, 4095, NULL, true,
     "`STATE/data`", "folder that jobs may read data from"},
    {"worker", "--worker", "PATH", CONFIG_PATH, AT(daemon.worker_path), 0, 0, 0, 0, NULL, false,
     "beside hebbd", "the program hebb-worker"},
    {"shim", "--shim", "PATH", CONFIG_PATH, AT(daemon.shim_path), 0, 0, 0, 0, NULL, false,
     "beside hebbd", "the program hebb-shim"},
    {"web", "--web", "DIR", CONFIG_PATH, AT(daemon.web_dir), 0, 0, 0, 0, NULL, false,
     "`../share/hebb/web` or `../web` beside hebbd", "the dashboard's files"},
    {"cores", "--cores", "N", CONFIG_INT, AT(daemon.cores), 0, 0, 1, 4096, NULL, true,
     "those that hebbd may use", "cores to give out to jobs"},
    {"gpus", "--gpus", "N", CONFIG_INT, AT(daemon.gpus), 0, 0, 0, 64, NULL, true, "0", "GPUs to give out to jobs"},
    {"memory_mb", "--memory-mb", "N", CONFIG_INT, AT(daemon.memory_mb), 0, -1, 0, 1 << 30, NULL, true,
     "the machine's", "MiB of memory that one job may need by its estimate; 0: no limit"},
    {"connections", "--connections", "N", CONFIG_INT, AT(daemon.connections), 0, 2048, 8, 65536, NULL, false,
     "2048", "connections at a time; further ones wait"},
    {"connections_per_address", "--connections-per-address", "N", CONFIG_INT, AT(daemon.connections_per_address), 0, 64, 1, 65536, NULL, false,
     "64", "of these, from one address other than loopback; further ones are closed"},
    {"streams", "--streams", "N", CONFIG_INT, AT(daemon.streams), 0, 256, 1, 65536, NULL, false,
     "256", "event streams at a time"},
    {"request_s", "--request-s", "S", CONFIG_INT, AT(daemon.request_s), 0, 10, 1, 600, NULL, false,
     "10", "seconds in which a request must be whole"},
    {"webhook_urls", "--webhook-url", "URL", CONFIG_LIST, AT(daemon.webhook_urls), AT(daemon.webhook_url_count), 0, 1, 2000, NULL, true,
     "none", "webhooks may go to addresses below this one (`https://ci.example/hooks/`)"},
    {"webhook_private", "--webhook-private", "BOOL", CONFIG_BOOL, AT(daemon.webhook_private), 0, 0, 0, 1, NULL, true,
     "false", "webhooks may go to loopback, private and link-local addresses"},
    {"history_days", "--history-days", "N", CONFIG_INT, AT(daemon.history_days), 0, 0, 0, 36500, NULL, true,
     "0", "days after a job's end until its series and events are removed; 0: never"},
    {"log_days", "--log-days", "N", CONFIG_INT, AT(daemon.log_days), 0, 0, 0, 36500, NULL, true,
     "0", "the same for the logs of its attempts"},
    {"key_days", "--key-days", "N", CONFIG_INT, AT(daemon.key_days), 0, 30, 0, 36500, NULL, true,
     "30", "days for which an Idempotency-Key is known; 0: for ever"},
    {"poll_ms", "--poll-ms", "N", CONFIG_INT, AT(daemon.poll_ms), 0, 200, 10, 60000, NULL, false,
     "200", "how often events files and attempts are looked at"},
    {"cancel_grace_s", "--cancel-grace", "SECONDS", CONFIG_INT, AT(daemon.cancel_grace_s), 0, 30, 1, 86400, NULL, true,
     "30", "from asking a job that is cancelled to SIGTERM"},
    {"pause_grace_s", "--pause-grace", "SECONDS", CONFIG_INT, AT(daemon.pause_grace_s), 0, 600, 1, 86400, NULL, true,
     "600", "the same for a job that is paused"},
    {"stop_grace_s", "--stop-grace", "SECONDS", CONFIG_INT, AT(daemon.stop_grace_s), 0, 60, 1, 86400, NULL, true,
     "60", "from SIGTERM to SIGKILL"},
    {"shim_silent_s", "--shim-silent", "SECONDS", CONFIG_INT, AT(daemon.shim_silent_s), 0, 30, 3, 86400, NULL, true,
     "30", "a hebb-shim without a sign of life for so long is woken, then killed"},
    {"hung_s", "--hung", "SECONDS", CONFIG_INT, AT(daemon.hung_s), 0, 20, 3, 86400, NULL, true,
     "20", "a rank without a heartbeat for so long is killed"},
    {"slurm", "--slurm", "DIR", CONFIG_PATH, AT(daemon.slurm.commands), 0, 0, 0, 0, NULL, false,
     "none: jobs cannot ask for it", "offers the launcher slurm; folder of sbatch, squeue, scancel and (if there is accounting) sacct"},
    {"slurm_programs", "--slurm-programs", "DIR", CONFIG_TEXT, AT(daemon.slurm.programs), 0, 0, 0, 0, NULL, false,
     "the paths of those here", "folder of hebb-shim and hebb-worker on the nodes of Slurm"},
    {"slurm_allow", "--slurm-allow", "OPTION", CONFIG_LIST, AT(daemon.slurm.allowed), AT(daemon.slurm.allowed_count), 0, 3, 255, NULL, true,
     "none", "option of sbatch that jobs may give; * and ? stand for any text (`--constraint=*`)"},
    {"slurm_poll_ms", "--slurm-poll-ms", "N", CONFIG_INT, AT(daemon.slurm.poll_ms), 0, SLURM_POLL_MS, 100, 600000, NULL, true,
     "5000", "how often squeue is asked while there are jobs in Slurm"},
    {"slurm_grace_s", "--slurm-grace", "SECONDS", CONFIG_INT, AT(daemon.slurm.grace_s), 0, SLURM_GRACE_S, 1, 3600, NULL, true,
     "60", "from the end of a batch job that left no exit.json to calling its attempt lost"},
    {"slurm_warning_s", "--slurm-warning", "SECONDS", CONFIG_INT, AT(daemon.slurm.warning_s), 0, SLURM_WARNING_S, 10, 3600, NULL, true,
     "120", "a job is told to save so long before its time limit"},
    {"log_level", "--log-level", "LEVEL", CONFIG_CHOICE, AT(log_level), 0, LOG_LEVEL_INFO, 0, 0, levels, true,
     "info", "debug, info, warn or error"},
    {"port_file", "--port-file", "FILE", CONFIG_TEXT, AT(port_file), 0, 0, 0, 0, NULL, false,
     "none", "write the bound port to FILE when ready"},
    {0},
};
/* clang-format on */

static void *field(const struct config *config, size_t offset)
{
    return (char *)(uintptr_t)config + offset;
}

char **config_text(const struct config *config, const struct config_row *row)
{
    return field(config, row->offset);
}

int *config_int(const struct config *config, const struct config_row *row)
{
    return field(config, row->offset);
}

bool *config_bool(const struct config *config, const struct config_row *row)
{
    return field(config, row->offset);
}

char ***config_list(const struct config *config, const struct config_row *row)
{
    return field(config, row->offset);
}

size_t *config_count(const struct config *config, const struct config_row *row)
{
    return field(config, row->count_offset);
}

static const struct {
    const char *option, *help;
} modes[] = {
    {"--config FILE", "read this configuration instead of the first hebbd.json there is"},
    {"--check-config", "say what is wrong with the configuration, all of it; exit 0 or 2"},
    {"--print-config", "print the configuration as it would run, as a file"},
    {"--describe-config", "print docs/configuration.md"},
    {"--backup FOLDER", "copy both databases, also of a running daemon, into a new folder"},
    {"--help", "this text"},
    {"--version", "the version"},
};

void config_help(struct buf *out)
{
    buf_puts(out, "usage: hebbd [OPTION]...\n\nThe service of hebb: takes jobs over HTTP, runs "
                  "them, keeps their history.\n\n");
    for (const struct config_row *row = config_rows; row->key; row++) {
        char left[64], def[160];
        snprintf(left, sizeof left, "%s %s", row->option, row->value);
        snprintf(def, sizeof def, "%s", row->def_text);
        char *to = def;
        for (const char *from = def; *from; from++)
            if (*from != '`')
                *to++ = *from;
        *to = '\0';
        buf_printf(out, "  %-30s %s (%s)\n", left, row->help, def);
    }
    buf_puts(out, "\n");
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++)
        buf_printf(out, "  %-30s %s\n", modes[i].option, modes[i].help);
}

static const char *type_words(const struct config_row *row, char out[64])
{
    switch (row->type) {
    case CONFIG_TEXT:
    case CONFIG_PATH:
        return "string";
    case CONFIG_ROOTS:
    case CONFIG_LIST:
        return "array of strings";
    case CONFIG_BOOL:
        return "true, false";
    case CONFIG_INT:
        snprintf(out, 64, "%d to %d", row->min, row->max);
        return out;
    case CONFIG_CHOICE:
        out[0] = '\0';
        for (size_t i = 0; row->choices[i]; i++) {
            size_t len = strlen(out);
            snprintf(out + len, 64 - len, "%s%s", i ? ", " : "", row->choices[i]);
        }
        return out;
    }
    return "";
}

void config_describe(struct buf *out)
{
    buf_puts(
        out,
        "# The configuration of hebbd\n\n"
        "Printed by `hebbd --describe-config`; a test keeps it so.\n\n"
        "One JSON file, strict as everything that comes from outside (no comments, no unknown\n"
        "or double key), all of it optional. `--config FILE` names it; without that the first\n"
        "`hebbd.json` is read that is in `$CONFIGURATION_DIRECTORY` (systemd),\n"
        "`$XDG_CONFIG_HOME/hebb` (`~/.config/hebb`), or `/etc/hebb`. The command line goes\n"
        "before the file. `hebbd --check-config` names every fault and exits with 0 or 2;\n"
        "`hebbd --print-config` prints what would run, defaults filled in.\n\n"
        "SIGHUP reads file and command line again. What is marked \"live\" changes at once; "
        "the\n"
        "others are named in the log and wait for a restart. A file with faults changes "
        "nothing.\n\n"
        "    {\"listen\": \"127.0.0.1:7077\", \"data_roots\": [\"/srv/corpora\"], \"cores\": "
        "8,\n"
        "     \"memory_mb\": 16384, \"history_days\": 90}\n\n"
        "| key | command line | values | default | live | what it does |\n"
        "|---|---|---|---|---|---|\n");
    for (const struct config_row *row = config_rows; row->key; row++) {
        char words[64];
        buf_printf(out, "| `%s` | `%s %s` | %s | %s | %s | %s |\n", row->key, row->option,
                   row->value, type_words(row, words), row->def_text, row->live ? "yes" : "",
                   row->help);
    }
}

void config_print(const struct config *config, struct buf *out)
{
    const char *comma = "{";
    for (const struct config_row *row = config_rows; row->key; row++) {
        const char *text = row->type == CONFIG_TEXT || row->type == CONFIG_PATH
                               ? *config_text(config, row)
                               : "";
        if (!text)
            continue;
        buf_printf(out, "%s\n    \"%s\": ", comma, row->key);
        comma = ",";
        switch (row->type) {
        case CONFIG_TEXT:
        case CONFIG_PATH:
            json_print_string(text, out);
            break;
        case CONFIG_ROOTS:
        case CONFIG_LIST:
            buf_puts(out, "[");
            for (size_t i = 0; i < *config_count(config, row); i++) {
                buf_puts(out, i ? ", " : "");
                json_print_string((*config_list(config, row))[i], out);
            }
            buf_puts(out, "]");
            break;
        case CONFIG_INT:
            buf_printf(out, "%d", *config_int(config, row));
            break;
        case CONFIG_BOOL:
            buf_puts(out, *config_bool(config, row) ? "true" : "false");
            break;
        case CONFIG_CHOICE:
            json_print_string(row->choices[*config_int(config, row)], out);
            break;
        }
    }
    buf_puts(out, "\n}\n");
}
