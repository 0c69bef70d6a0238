/* What the files of the configuration share. */
#ifndef HEBB_DAEMON_CONFIG_PRIVATE_H
#define HEBB_DAEMON_CONFIG_PRIVATE_H

#include "daemon/config.h"

enum config_type {
    CONFIG_TEXT,
    CONFIG_PATH,  /* of a file or folder that is there; made absolute */
    CONFIG_ROOTS, /* folders that are there; made canonical */
    CONFIG_LIST,  /* texts */
    CONFIG_INT,
    CONFIG_BOOL,
    CONFIG_CHOICE, /* an int: index in choices */
};

struct config_row {
    const char *key;    /* in the file */
    const char *option; /* on the command line; repeated for lists */
    const char *value;  /* what stands for it in the help */
    enum config_type type;
    size_t offset, count_offset; /* in struct config; the second for lists */
    int def, min, max;
    const char *const *choices; /* ends with NULL */
    bool live;                  /* SIGHUP takes it over */
    const char *def_text;       /* the default, as the reference says it */
    const char *help;
};

extern const struct config_row config_rows[]; /* ends with a NULL key */

/* The fields of a row. */
char **config_text(const struct config *config, const struct config_row *row);
int *config_int(const struct config *config, const struct config_row *row);
bool *config_bool(const struct config *config, const struct config_row *row);
char ***config_list(const struct config *config, const struct config_row *row);
size_t *config_count(const struct config *config, const struct config_row *row);

#endif
