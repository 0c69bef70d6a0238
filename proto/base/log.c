#include "proto/base/log.h"

#include "proto/base/clock.h"
#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { LOG_LINE_MAX = 2048 };

static const char *const log_names[] = {"debug", "info", "warn", "error"};

/* The one file-scope state of the library: a process has one stderr. */
static const char *log_program = "hebb";
static enum log_level log_least = LOG_LEVEL_INFO;

void log_setup(const char *program, enum log_level level)
{
    log_program = program;
    log_least = level;
}

void log_line(enum log_level level, const char *format, ...)
{
    if (level < log_least) {
        return;
    }
    int saved = errno; /* a log line between a failure and its report must not change it */
    char stamp[CLOCK_STAMP_MAX], line[LOG_LINE_MAX];
    int head = snprintf(line, sizeof(line), "%s %s %s: ", clock_stamp(stamp, clock_wall_ms()),
                        log_names[level], log_program);
    size_t used = head > 0 && (size_t)head < sizeof(line) - 2 ? (size_t)head : 0;
    va_list args;
    va_start(args, format);
    vsnprintf(line + used, sizeof(line) - used - 1, format, args);
    va_end(args);
    size_t len = strlen(line);
    for (size_t i = 0; i < len; i++) {
        if ((unsigned char)line[i] < 0x20 || line[i] == 0x7f) {
            line[i] = '?';
        }
    }
    line[len++] = '\n';
    ssize_t written = write(STDERR_FILENO, line, len);
    (void)written; /* there is nowhere left to report to */
    errno = saved;
}
