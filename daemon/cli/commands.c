/* The commands that talk to the daemon: one row each. */
#include "daemon/cli/cli.h"

#define ID_HELP "ID is a job's id, or as many of its first digits as name one job only.\n"

const struct command cli_commands[] = {
    {"submit", "FILE [--watch] [--dry-run] [--json] [--idempotency-key KEY]",
     "submit a job; FILE - reads standard input", command_submit,
     "Prints the job's id. docs/jobspec.md and `hebb spec` say what a job may hold.\n"
     "  --watch                follow the job to its end, as `hebb watch` does\n"
     "  --dry-run              print parameters, memory and FLOPs; start nothing\n"
     "  --json                 print the daemon's answer (with --watch: the events)\n"
     "  --idempotency-key KEY  a repeat with the same key and file gives the same job\n"},
    {"jobs", "[--state STATE] [--name TEXT] [--limit N] [--json]", "list jobs, newest first",
     command_jobs,
     "  --state STATE  only these, separated by commas: queued starting running pausing\n"
     "                 paused retry_wait cancelling succeeded failed cancelled\n"
     "  --name TEXT    only jobs whose name holds TEXT\n"
     "  --limit N      at most N jobs (50)\n"
     "  --json         print the daemon's answer\n"},
    {"show", "ID [--json]", "show one job: state, progress, folder, settings", command_show,
     ID_HELP},
    {"watch", "ID [--json]", "follow a job to its end; ctrl-C detaches, the job goes on",
     command_watch,
     ID_HELP
     "A bar on a terminal, lines elsewhere. Exit code: 0 succeeded, 1 failed or cancelled,\n"
     "130 after ctrl-C.\n"
     "  --json  print every event from the first on, one JSON object a line\n"},
    {"logs", "ID [-f] [--attempt N]", "print what the workers wrote", command_logs,
     ID_HELP "  -f, --follow   go on as the log grows, until the job ends\n"
             "  --attempt N    of attempt N; otherwise of the last one\n"},
    {"compare", "ID|FOLDER... [--csv | --json]", "jobs and job folders side by side",
     command_compare,
     "Settings, validation loss, speed, refresh time, and the settings that differ. A name of\n"
     "an existing folder is one, all else is a job of the daemon; folders alone need no "
     "daemon.\n"
     "  --csv   one line a job, numbers in full\n"
     "  --json  {\"jobs\": [...], \"differences\": [...]}\n"
     "docs/sweep.md says what each number is.\n"},
    {"sweep", "FILE [--dry-run] [--csv FILE] [--json FILE] [--retry] [--local FOLDER]",
     "run a grid of jobs with several seeds; one table at the end", command_sweep,
     "All jobs are validated before the first is submitted. Called again, the sweep goes on\n"
     "where it was and starts nothing twice; ctrl-C leaves the jobs running. docs/sweep.md "
     "has\n"
     "the file's format. Exit code 1 if a run failed, 130 after ctrl-C.\n"
     "  --dry-run       list what would run; start nothing\n"
     "  --csv FILE      the table as CSV too\n"
     "  --json FILE     table and runs as JSON too\n"
     "  --retry         submit runs that failed or were cancelled anew\n"
     "  --local FOLDER  without a daemon, one run after the other by `hebb train` in folders "
     "of\n"
     "                  FOLDER; ctrl-C saves a checkpoint and leaves with code 75\n"},
    {"cancel", "ID [--wait] [--json]", "end a job for good", command_cancel,
     ID_HELP "  --wait  until it has ended\n"},
    {"pause", "ID [--wait] [--json]", "save a checkpoint, stop, and free the slots",
     command_pause, ID_HELP "  --wait  until it is paused\n"},
    {"resume", "ID [--wait] [--json]", "queue a paused job again", command_resume,
     ID_HELP "  --wait  until it runs\n"},
    {"checkpoint", "ID [--wait] [--json]", "ask a running job for a checkpoint now",
     command_checkpoint, ID_HELP "  --wait  until the checkpoint is on disk\n"},
    {"token", "add NAME [--role ROLE] | list | revoke NAME", "tokens of the daemon's API",
     command_token,
     "`add` prints the new token, this once; the daemon keeps its SHA-256 only.\n"
     "  --role ROLE  read, submit (also submit and change jobs) or admin; submit\n"},
    {"backup", "FOLDER [--state DIR]", "copy the daemon's databases, also while it runs",
     command_backup,
     "Runs `hebbd --backup` of the same folder as this program; FOLDER must be new. To go "
     "back,\n"
     "stop hebbd and copy state.db and series.db over those in the state folder, without -wal\n"
     "and -shm files beside them.\n"
     "  --state DIR  the daemon's state folder, unless it is the usual one\n"},
    {"spec", "[--json | --markdown]", "print what a job may hold, with defaults and bounds",
     command_spec,
     "  --json      as a JSON Schema\n"
     "  --markdown  as docs/jobspec.md\n"
     "Without an option: a table. Needs no daemon.\n"},
    {0},
};
