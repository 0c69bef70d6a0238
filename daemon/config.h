/* hebbd's command line: one row per option. */
#ifndef HEBB_DAEMON_CONFIG_H
#define HEBB_DAEMON_CONFIG_H

#include "daemon/daemon.h"
#include "proto/base/buf.h"
#include "proto/base/log.h"

struct config {
    struct daemon_config daemon;
    char *port_file; /* where to write the bound port; NULL: nowhere */
    enum log_level log_level;
    bool help, version; /* asked for: nothing else is filled in */
};

/* Reads the command line and fills in what it leaves open: state folder, programs beside this
 * one, dashboard files, cores. Makes the state folder, and STATE/data as the data root if none
 * is named; data roots are canonical afterwards. */
int config_parse(struct config *out, int argc, char **argv, struct err *err);
void config_release(struct config *config);

/* The help text, made from the rows. */
void config_help(struct buf *out);

/* STATE/token: read, or made with mode 0600 from the system's random numbers. */
int config_token(char out[65], const char *state_dir, struct err *err);

#endif
