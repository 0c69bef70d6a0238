#include "proto/base/err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int code;
    const char *name;
    int exit;
} err_codes[] = {
    {ERR_OK, "ok", EXIT_DONE},
    {ERR_INVALID, "invalid", EXIT_USAGE},
    {ERR_NOT_FOUND, "not_found", EXIT_DATA},
    {ERR_IO, "io", EXIT_FAILED},
    {ERR_NO_MEMORY, "no_memory", EXIT_FAILED},
    {ERR_CORRUPT, "corrupt", EXIT_DATA},
    {ERR_CONFLICT, "conflict", EXIT_FAILED},
    {ERR_LIMIT, "limit", EXIT_FAILED},
    {ERR_UNSUPPORTED, "unsupported", EXIT_UNSUPPORTED},
    {ERR_NETWORK, "network", EXIT_UNREACHABLE},
    {ERR_INTERNAL, "internal", EXIT_FAILED},
    {ERR_NO_SPACE, "no_space", EXIT_FAILED},
};

/* Formats into a copy first: the arguments may point into err->text. */
__attribute__((format(printf, 2, 0))) /* clang asks for it */
static void err_format(struct err *err, const char *format, va_list args)
{
    char text[ERR_TEXT_MAX];
    if (vsnprintf(text, sizeof(text), format, args) < 0) {
        text[0] = '\0';
    }
    for (char *c = text; *c != '\0'; c++) {
        if (*c == '\n' || *c == '\r') {
            *c = ' ';
        }
    }
    memcpy(err->text, text, strlen(text) + 1);
}

int err_set(struct err *err, int code, const char *format, ...)
{
    if (err) {
        va_list args;
        va_start(args, format);
        err_format(err, format, args);
        va_end(args);
        err->code = code;
    }
    return code;
}

int err_wrap(struct err *err, int code, const char *format, ...)
{
    if (err) {
        char before[ERR_TEXT_MAX];
        memcpy(before, err->text, sizeof(before));
        va_list args;
        va_start(args, format);
        err_format(err, format, args);
        va_end(args);
        size_t used = strlen(err->text);
        snprintf(err->text + used, sizeof(err->text) - used, ": %s", before);
        err->code = code;
    }
    return code;
}

int err_of_errno(int number)
{
    return number == ENOSPC || number == EDQUOT ? ERR_NO_SPACE : ERR_IO;
}

const char *err_name(int code)
{
    for (size_t i = 0; i < sizeof(err_codes) / sizeof(err_codes[0]); i++) {
        if (err_codes[i].code == code) {
            return err_codes[i].name;
        }
    }
    return "unknown";
}

int err_exit_code(int code)
{
    for (size_t i = 0; i < sizeof(err_codes) / sizeof(err_codes[0]); i++) {
        if (err_codes[i].code == code) {
            return err_codes[i].exit;
        }
    }
    return EXIT_FAILED;
}
