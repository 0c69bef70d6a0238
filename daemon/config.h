/* hebbd's configuration: a JSON file and the command line, one row an option (config_table.c).
 * What the command line says goes before what the file says; both go before the default. */
#ifndef HEBB_DAEMON_CONFIG_H
#define HEBB_DAEMON_CONFIG_H

#include "daemon/daemon.h"
#include "proto/base/buf.h"
#include "proto/base/log.h"
#include "proto/msg/spec.h"

enum { CONFIG_ROWS_MAX = 40, CONFIG_FILE_MAX = 64 * 1024 };

/* What the command line asks for instead of the service. */
enum config_mode {
    CONFIG_SERVE,
    CONFIG_HELP,
    CONFIG_VERSION,
    CONFIG_CHECK,    /* --check-config */
    CONFIG_PRINT,    /* --print-config */
    CONFIG_DESCRIBE, /* --describe-config: docs/configuration.md */
    CONFIG_BACKUP,   /* --backup FOLDER */
};

struct config {
    struct daemon_config daemon;
    char *port_file; /* where to write the bound port; NULL: nowhere */
    int log_level;   /* an enum log_level */
    enum config_mode mode;
    char *file;          /* that was read; NULL: none */
    char *backup_folder; /* CONFIG_BACKUP */
    bool given[CONFIG_ROWS_MAX];
};

/* Reads the configuration file (--config, else the first there is of
 * $CONFIGURATION_DIRECTORY, $XDG_CONFIG_HOME/hebb or ~/.config/hebb, and /etc/hebb:
 * hebbd.json) and the command line, and fills in what they leave open: state folder, programs
 * beside this one, dashboard files, cores. Makes the state folder, and STATE/data as the data
 * root if none is named, unless the mode only looks. All faults are in faults (may be NULL),
 * the first in err; the field is "/key" for the file and "--option" for the command line. */
int config_parse(struct config *out, int argc, char **argv, struct spec_faults *faults,
                 struct err *err);
void config_release(struct config *config);

/* Reads again; takes over the options that may change in a running daemon, names in the log
 * those that need a restart. On faults nothing changes. */
int config_reload(struct config *config, int argc, char **argv, struct spec_faults *faults,
                  struct err *err);

/* Made from the rows: the help text, the reference, and the configuration as a file. */
void config_help(struct buf *out);
void config_describe(struct buf *out);
void config_print(const struct config *config, struct buf *out);

/* The credential `token` of systemd, else STATE/token: read, or made with mode 0600 from the system's random numbers. */
int config_token(char out[65], const char *state_dir, struct err *err);

#endif
