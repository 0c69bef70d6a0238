/* Log lines on stderr: "2026-11-23T01:02:03.456Z info hebbd: text". The engine never logs. */
#ifndef HEBB_BASE_LOG_H
#define HEBB_BASE_LOG_H

enum log_level { LOG_LEVEL_DEBUG, LOG_LEVEL_INFO, LOG_LEVEL_WARN, LOG_LEVEL_ERROR };

/* program is kept by pointer and must outlive the last line. Lines below level are dropped. */
void log_setup(const char *program, enum log_level level);

/* One line, written with one write(2); control characters in it are replaced by '?'. */
void log_line(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...) log_line(LOG_LEVEL_DEBUG, __VA_ARGS__)
#define log_info(...) log_line(LOG_LEVEL_INFO, __VA_ARGS__)
#define log_warn(...) log_line(LOG_LEVEL_WARN, __VA_ARGS__)
#define log_error(...) log_line(LOG_LEVEL_ERROR, __VA_ARGS__)

#endif
