/* SIGHUP: the options that may change while jobs run. */
#include "daemon/config_private.h"
#include "proto/base/log.h"
#include <string.h>

static bool same_text(const char *a, const char *b)
{
    return a == b || (a != NULL && b != NULL && strcmp(a, b) == 0);
}

static bool same(const struct config *a, const struct config *b, const struct config_row *row)
{
    switch (row->type) {
    case CONFIG_TEXT:
    case CONFIG_PATH:
        return same_text(*config_text(a, row), *config_text(b, row));
    case CONFIG_INT:
    case CONFIG_CHOICE:
        return *config_int(a, row) == *config_int(b, row);
    case CONFIG_BOOL:
        return *config_bool(a, row) == *config_bool(b, row);
    case CONFIG_LIST:
    case CONFIG_ROOTS:
        break;
    }
    if (*config_count(a, row) != *config_count(b, row))
        return false;
    for (size_t i = 0; i < *config_count(a, row); i++)
        if (!same_text((*config_list(a, row))[i], (*config_list(b, row))[i]))
            return false;
    return true;
}

/* The old value goes into `from`, whose release frees it. */
static void exchange(struct config *into, struct config *from, const struct config_row *row)
{
    if (row->type == CONFIG_LIST || row->type == CONFIG_ROOTS) {
        char **items = *config_list(into, row);
        size_t count = *config_count(into, row);
        *config_list(into, row) = *config_list(from, row);
        *config_count(into, row) = *config_count(from, row);
        *config_list(from, row) = items;
        *config_count(from, row) = count;
    } else if (row->type == CONFIG_BOOL) {
        *config_bool(into, row) = *config_bool(from, row);
    } else {
        *config_int(into, row) = *config_int(from, row); /* no text is live */
    }
}

int config_reload(struct config *config, int argc, char **argv, struct spec_faults *faults,
                  struct err *err)
{
    struct config fresh;
    int code = config_parse(&fresh, argc, argv, faults, err);
    if (code != 0)
        return code;
    for (const struct config_row *row = config_rows; row->key != NULL; row++) {
        if (same(config, &fresh, row))
            continue;
        if (row->live) {
            log_info("configuration: %s has changed", row->key);
            exchange(config, &fresh, row);
        } else {
            log_warn("configuration: %s has changed; it needs a restart", row->key);
        }
    }
    config_release(&fresh);
    return 0;
}
