#include "daemon/config.h"
#include "proto/base/fsx.h"
#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/stat.h>

enum { TOKEN_BYTES = 32 };

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

/* What systemd hands over (LoadCredential=token); "-" stands for none. */
static int read_credential(struct buf *text, char path[FSX_PATH_MAX], bool *given,
                           struct err *err)
{
    const char *folder = getenv("CREDENTIALS_DIRECTORY");
    *given = false;
    if (folder == NULL || fsx_path(path, NULL, "%s/token", folder) != 0)
        return 0;
    int code = fsx_read(text, path, err);
    if (code == ERR_NOT_FOUND)
        return 0;
    *given = code == 0 && text->len > 0 && text->data[0] != '-';
    return code;
}

int config_token(char out[65], const char *state_dir, struct err *err)
{
    char path[FSX_PATH_MAX];
    struct buf text;
    struct stat info;
    bool given;
    buf_init(&text, 256);
    int code = read_credential(&text, path, &given, err);
    if (code == 0 && !given) {
        buf_clear(&text);
        code = fsx_path(path, err, "%s/token", state_dir);
        if (code == 0)
            code = fsx_read(&text, path, err);
    }
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
