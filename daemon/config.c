#include "daemon/config.h"
#include "daemon/config_private.h"
#include "daemon/problem.h"
#include "proto/base/fsx.h"
#include "proto/base/mem.h"
#include "proto/base/suggest.h"
#include "proto/json/json.h"
#include <errno.h>
#include <limits.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { LIST_MAX = 64 };

/* A configuration on its way, and its faults. */
struct draft {
    struct config *config;
    struct spec_faults *faults;
    bool from_file[CONFIG_ROWS_MAX]; /* lists that the command line replaces */
};

static void list_clear(struct config *config, const struct config_row *row)
{
    char ***items = config_list(config, row);
    size_t *count = config_count(config, row);
    for (size_t i = 0; i < *count; i++)
        free((*items)[i]);
    free(*items);
    *items = NULL;
    *count = 0;
}

/* --- one value --- */

static void set_text(struct draft *draft, char **field, const char *value, const char *name)
{
    char *copy = strdup(value);
    if (copy == NULL) {
        problem_fault(draft->faults, name, "out of memory");
        return;
    }
    free(*field);
    *field = copy;
}

static void add_item(struct draft *draft, const struct config_row *row, const char *value,
                     const char *name)
{
    char canonical[PATH_MAX];
    struct stat info;
    char ***items = config_list(draft->config, row);
    size_t *count = config_count(draft->config, row);
    if (*count == LIST_MAX) {
        problem_fault(draft->faults, name, "more than %d", (int)LIST_MAX);
        return;
    }
    if (row->type == CONFIG_ROOTS) {
        if (realpath(value, canonical) == NULL || stat(canonical, &info) != 0) {
            problem_fault(draft->faults, name, "'%s': %s", value, strerror(errno));
            return;
        }
        if (!S_ISDIR(info.st_mode)) {
            problem_fault(draft->faults, name, "'%s' is not a folder", value);
            return;
        }
        value = canonical;
    }
    char **grown = reallocarray(*items, *count + 1, sizeof *grown);
    if (grown == NULL) {
        problem_fault(draft->faults, name, "out of memory");
        return;
    }
    *items = grown;
    grown[*count] = NULL;
    set_text(draft, &grown[*count], value, name);
    *count += grown[*count] != NULL;
}

static void set_path(struct draft *draft, const struct config_row *row, const char *value,
                     const char *name)
{
    char canonical[PATH_MAX];
    /* The shim runs in the job's folder: the path is made absolute. */
    if (realpath(value, canonical) == NULL)
        problem_fault(draft->faults, name, "'%s': %s", value, strerror(errno));
    else
        set_text(draft, config_text(draft->config, row), canonical, name);
}

static void set_choice(struct draft *draft, const struct config_row *row, const char *value,
                       const char *name)
{
    for (int i = 0; row->choices[i] != NULL; i++)
        if (strcmp(row->choices[i], value) == 0) {
            *config_int(draft->config, row) = i;
            return;
        }
    problem_fault(draft->faults, name, "'%s' must be %s", value, row->help);
}

static void set_number(struct draft *draft, const struct config_row *row, int64_t number,
                       const char *shown, const char *name)
{
    if (number < row->min || number > row->max)
        problem_fault(draft->faults, name, "'%s' must be a number from %d to %d", shown,
                      row->min, row->max);
    else
        *config_int(draft->config, row) = (int)number;
}

/* --- the file --- */

static void take_value(struct draft *draft, const struct config_row *row, const cJSON *value,
                       const char *name)
{
    int64_t whole = 0;
    const char *text = cJSON_IsString(value) ? value->valuestring : NULL;
    bool is_text =
        row->type == CONFIG_TEXT || row->type == CONFIG_PATH || row->type == CONFIG_CHOICE;
    if (is_text && (text == NULL || text[0] == '\0')) {
        problem_fault(draft->faults, name, "must be a string that is not empty");
    } else if (row->type == CONFIG_TEXT) {
        set_text(draft, config_text(draft->config, row), text, name);
    } else if (row->type == CONFIG_PATH) {
        set_path(draft, row, text, name);
    } else if (row->type == CONFIG_CHOICE) {
        set_choice(draft, row, text, name);
    } else if (row->type == CONFIG_BOOL) {
        if (cJSON_IsBool(value))
            *config_bool(draft->config, row) = cJSON_IsTrue(value);
        else
            problem_fault(draft->faults, name, "must be true or false");
    } else if (row->type == CONFIG_INT) {
        char shown[32];
        if (!json_whole(&whole, value)) {
            problem_fault(draft->faults, name, "must be a whole number from %d to %d", row->min,
                          row->max);
            return;
        }
        snprintf(shown, sizeof shown, "%lld", (long long)whole);
        set_number(draft, row, whole, shown, name);
    } else if (!cJSON_IsArray(value)) {
        problem_fault(draft->faults, name, "must be an array of strings");
    } else {
        const cJSON *item;
        cJSON_ArrayForEach(item, value)
        {
            if (cJSON_IsString(item) && item->valuestring[0] != '\0')
                add_item(draft, row, item->valuestring, name);
            else
                problem_fault(draft->faults, name, "an item is no string, or empty");
        }
    }
}

static void take_member(struct draft *draft, const cJSON *item)
{
    struct suggestion best = {0};
    char name[OPT_STRING_MAX];
    snprintf(name, sizeof name, "/%.200s", item->string);
    for (size_t i = 0; config_rows[i].key != NULL; i++) {
        suggest_offer(&best, item->string, config_rows[i].key);
        if (strcmp(config_rows[i].key, item->string) == 0) {
            draft->config->given[i] = draft->from_file[i] = true;
            take_value(draft, &config_rows[i], item, name);
            return;
        }
    }
    if (best.name != NULL)
        problem_fault(draft->faults, name, "unknown; did you mean /%s?", best.name);
    else
        problem_fault(draft->faults, name, "unknown");
}

static void take_file(struct draft *draft, const char *path)
{
    struct err err;
    cJSON *tree = NULL;
    int code = json_read(&tree, path, CONFIG_FILE_MAX, &err);
    if (code != 0)
        problem_fault(draft->faults, "", "%s%s%s", strstr(err.text, path) ? "" : path,
                      strstr(err.text, path) ? "" : ": ", err.text);
    else if (!cJSON_IsObject(tree))
        problem_fault(draft->faults, "", "%s: must be a JSON object", path);
    else
        for (const cJSON *item = tree->child; item != NULL; item = item->next)
            take_member(draft, item);
    cJSON_Delete(tree);
    if (code == 0)
        set_text(draft, &draft->config->file, path, "");
}

/* The first hebbd.json of the usual places; "" if there is none. */
static void find_file(char out[FSX_PATH_MAX])
{
    const char *service = getenv("CONFIGURATION_DIRECTORY"), *xdg = getenv("XDG_CONFIG_HOME"),
               *home = getenv("HOME");
    if (service != NULL && service[0] == '/' &&
        fsx_path(out, NULL, "%s/hebbd.json", service) == 0 && fsx_exists(out))
        return;
    if (xdg != NULL && xdg[0] == '/') {
        if (fsx_path(out, NULL, "%s/hebb/hebbd.json", xdg) == 0 && fsx_exists(out))
            return;
    } else if (home != NULL && home[0] == '/' &&
               fsx_path(out, NULL, "%s/.config/hebb/hebbd.json", home) == 0 && fsx_exists(out))
        return;
    if (fsx_path(out, NULL, "/etc/hebb/hebbd.json") != 0 || !fsx_exists(out))
        out[0] = '\0';
}

/* --- the command line --- */

static void take_option(struct draft *draft, size_t index, const char *value)
{
    const struct config_row *row = &config_rows[index];
    bool list = row->type == CONFIG_LIST || row->type == CONFIG_ROOTS;
    if (list && draft->from_file[index])
        list_clear(draft->config, row);
    draft->from_file[index] = false;
    draft->config->given[index] = true;
    switch (row->type) {
    case CONFIG_TEXT:
        set_text(draft, config_text(draft->config, row), value, row->option);
        return;
    case CONFIG_PATH:
        set_path(draft, row, value, row->option);
        return;
    case CONFIG_CHOICE:
        set_choice(draft, row, value, row->option);
        return;
    case CONFIG_ROOTS:
    case CONFIG_LIST:
        add_item(draft, row, value, row->option);
        return;
    case CONFIG_BOOL:
        if (strcmp(value, "true") == 0 || strcmp(value, "false") == 0)
            *config_bool(draft->config, row) = value[0] == 't';
        else
            problem_fault(draft->faults, row->option, "'%s' must be true or false", value);
        return;
    case CONFIG_INT: {
        char *end;
        errno = 0;
        long number = strtol(value, &end, 10);
        bool whole = errno == 0 && end != value && *end == '\0';
        set_number(draft, row, whole ? number : INT64_MIN, value, row->option);
        return;
    }
    }
}

/* The value of "--name value" or "--name=value"; NULL if word is another option. */
static const char *value_of(const char *name, int argc, char **argv, int *at)
{
    const char *word = argv[*at];
    size_t len = strlen(name);
    if (strncmp(word, name, len) != 0 || (word[len] != '\0' && word[len] != '='))
        return NULL;
    if (word[len] == '=')
        return word + len + 1;
    return *at + 1 < argc ? argv[++*at] : "";
}

static void take_word(struct draft *draft, int argc, char **argv, int *at)
{
    const char *word = argv[*at], *value;
    for (size_t i = 0; config_rows[i].key != NULL; i++) {
        if ((value = value_of(config_rows[i].option, argc, argv, at)) == NULL)
            continue;
        if (value[0] == '\0')
            problem_fault(draft->faults, config_rows[i].option, "needs %s",
                          config_rows[i].value);
        else
            take_option(draft, i, value);
        return;
    }
    if ((value = value_of("--backup", argc, argv, at)) != NULL) {
        draft->config->mode = CONFIG_BACKUP;
        set_text(draft, &draft->config->backup_folder, value, "--backup");
    } else if (value_of("--config", argc, argv, at) == NULL) /* that one was taken before */
        problem_fault(draft->faults, "", "unknown option '%s'; hebbd --help lists them", word);
}

static bool take_mode(struct config *config, const char *word)
{
    static const struct {
        const char *word;
        enum config_mode mode;
    } words[] = {
        {"--help", CONFIG_HELP},          {"-h", CONFIG_HELP},
        {"--version", CONFIG_VERSION},    {"--check-config", CONFIG_CHECK},
        {"--print-config", CONFIG_PRINT}, {"--describe-config", CONFIG_DESCRIBE},
    };
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcmp(words[i].word, word) == 0) {
            config->mode = words[i].mode;
            return true;
        }
    return false;
}

/* --- what is left open --- */

static int default_state(char path[FSX_PATH_MAX], struct err *err)
{
    const char *service = getenv("STATE_DIRECTORY"), *xdg = getenv("XDG_STATE_HOME"),
               *home = getenv("HOME");
    if (service != NULL && service[0] == '/')
        return fsx_path(path, err, "%s", service);
    if (xdg != NULL && xdg[0] == '/')
        return fsx_path(path, err, "%s/hebb", xdg);
    if (home != NULL && home[0] == '/')
        return fsx_path(path, err, "%s/.local/state/hebb", home);
    return fsx_path(path, err, "/var/lib/hebb");
}

static void fill_state(struct draft *draft, bool make)
{
    struct daemon_config *daemon = &draft->config->daemon;
    char path[PATH_MAX];
    struct err err;
    int code = 0;
    if (daemon->state_dir == NULL && (code = default_state(path, &err)) == 0)
        set_text(draft, &daemon->state_dir, path, "--state");
    if (code == 0 && make)
        code = fsx_mkdirs(daemon->state_dir, 0700, &err);
    if (code != 0) {
        problem_fault(draft->faults, "--state", "%s", err.text);
        return;
    }
    if (realpath(daemon->state_dir, path) != NULL)
        set_text(draft, &daemon->state_dir, path, "--state");
    if (daemon->data_root_count > 0 || draft->faults->count > 0)
        return;
    code = fsx_path(path, &err, "%s/data", daemon->state_dir);
    if (code == 0 && make)
        code = fsx_mkdirs(path, 0700, &err);
    for (size_t i = 0; code == 0 && config_rows[i].key != NULL; i++)
        if (config_rows[i].type == CONFIG_ROOTS && fsx_exists(path))
            add_item(draft, &config_rows[i], path, "--data-root");
    if (code != 0)
        problem_fault(draft->faults, "--data-root", "%s", err.text);
}

static void fill_program(struct draft *draft, char **field, const char *folder,
                         const char *name)
{
    char path[FSX_PATH_MAX], canonical[PATH_MAX];
    if (*field != NULL || fsx_path(path, NULL, "%s/%s", folder, name) != 0)
        return;
    if (realpath(path, canonical) != NULL)
        set_text(draft, field, canonical, name);
}

static void fill_programs(struct draft *draft)
{
    struct daemon_config *daemon = &draft->config->daemon;
    char folder[FSX_PATH_MAX];
    ssize_t len = readlink("/proc/self/exe", folder, sizeof folder - 1);
    if (len <= 0) {
        problem_fault(draft->faults, "", "read /proc/self/exe: %s", strerror(errno));
        return;
    }
    folder[len] = '\0';
    *strrchr(folder, '/') = '\0';
    fill_program(draft, &daemon->worker_path, folder, "hebb-worker");
    fill_program(draft, &daemon->shim_path, folder, "hebb-shim");
    fill_program(draft, &daemon->web_dir, folder, "../share/hebb/web");
    fill_program(draft, &daemon->web_dir, folder, "../web");
    if (daemon->worker_path == NULL)
        problem_fault(draft->faults, "--worker", "there is no hebb-worker beside this program");
    if (daemon->shim_path == NULL)
        problem_fault(draft->faults, "--shim", "there is no hebb-shim beside this program");
}

static void fill_sizes(struct draft *draft)
{
    struct daemon_config *daemon = &draft->config->daemon;
    cpu_set_t set;
    long cores = sysconf(_SC_NPROCESSORS_ONLN), pages = sysconf(_SC_PHYS_PAGES);
    if (sched_getaffinity(0, sizeof set, &set) == 0 && CPU_COUNT(&set) > 0)
        cores = CPU_COUNT(&set);
    if (daemon->cores == 0)
        daemon->cores = cores > 0 ? (int)cores : 1;
    if (daemon->memory_mb < 0)
        daemon->memory_mb = pages > 0 ? (int)(pages / 1024 * sysconf(_SC_PAGESIZE) / 1024) : 0;
    if (daemon->listen == NULL)
        set_text(draft, &daemon->listen, "127.0.0.1:7077", "--listen");
}

static void set_defaults(struct config *config)
{
    for (const struct config_row *row = config_rows; row->key != NULL; row++) {
        if (row->type == CONFIG_INT || row->type == CONFIG_CHOICE)
            *config_int(config, row) = row->def;
        if (row->type == CONFIG_BOOL)
            *config_bool(config, row) = row->def != 0;
    }
}

/* --- the whole --- */

static void parse(struct draft *draft, int argc, char **argv)
{
    struct config *config = draft->config;
    char path[FSX_PATH_MAX] = "";
    bool named = false;
    for (int i = 1; i < argc; i++) {
        const char *value = value_of("--config", argc, argv, &i);
        if (value != NULL && fsx_path(path, NULL, "%s", value) == 0)
            named = true;
    }
    if (!named)
        find_file(path);
    if (path[0] != '\0')
        take_file(draft, path);
    else if (named)
        problem_fault(draft->faults, "--config", "needs FILE");
    for (int i = 1; i < argc; i++)
        if (!take_mode(config, argv[i]))
            take_word(draft, argc, argv, &i);
    fill_sizes(draft);
    if (draft->faults->count == 0 || config->mode == CONFIG_CHECK)
        fill_programs(draft);
    if (draft->faults->count == 0)
        fill_state(draft, config->mode == CONFIG_SERVE);
}

int config_parse(struct config *out, int argc, char **argv, struct spec_faults *faults,
                 struct err *err)
{
    struct spec_faults *kept = faults ? faults : mem_zeroed(1, sizeof *kept);
    memset(out, 0, sizeof *out);
    if (kept == NULL)
        return err_set(err, ERR_NO_MEMORY, "configuration: out of memory");
    for (int i = 1; i < argc; i++)
        if (take_mode(out, argv[i]) &&
            (out->mode == CONFIG_HELP || out->mode == CONFIG_VERSION ||
             out->mode == CONFIG_DESCRIBE)) {
            if (kept != faults)
                free(kept);
            return 0;
        }
    kept->count = 0;
    set_defaults(out);
    struct draft draft = {.config = out, .faults = kept};
    parse(&draft, argc, argv);
    int code = 0;
    if (kept->count > 0) {
        const struct spec_fault *first = &kept->items[0];
        code = err_set(err, ERR_INVALID, "%s%s%s", first->field, first->field[0] ? ": " : "",
                       first->reason);
        config_release(out);
    }
    if (kept != faults)
        free(kept);
    return code;
}

void config_release(struct config *config)
{
    for (const struct config_row *row = config_rows; row->key != NULL; row++) {
        if (row->type == CONFIG_TEXT || row->type == CONFIG_PATH)
            free(*config_text(config, row));
        if (row->type == CONFIG_LIST || row->type == CONFIG_ROOTS)
            list_clear(config, row);
    }
    free(config->file);
    free(config->backup_folder);
    memset(config, 0, sizeof *config);
}
