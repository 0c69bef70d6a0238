/* LD_PRELOAD library that lets one fallible call of a program fail: the HEBB_FAULT_AT-th since
 * main() began, of the calls below, in the program HEBB_FAULT_PROGRAM. What failed, or without
 * HEBB_FAULT_AT how many calls there were, is appended to the file HEBB_FAULT_LOG. Calls made
 * inside libc itself cannot be seen from here, those of every other library can. */
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

static atomic_long counted;
static long fail_at;
static bool armed;
static const char *log_path;
static pid_t counting; /* the process that main() began in: its forks are not counted */

static void note(const char *call, long number)
{
    char line[128];
    int len = snprintf(line, sizeof line, "%s %ld\n", call, number);
    if (log_path == NULL || len <= 0)
        return;
    int fd = (int)syscall(SYS_openat, AT_FDCWD, log_path, O_WRONLY | O_CREAT | O_APPEND, 0600);
    if (fd >= 0) {
        syscall(SYS_write, fd, line, (size_t)len);
        syscall(SYS_close, fd);
    }
}

/* True if this call is the one. */
static bool fails(const char *call)
{
    if (!armed)
        return false;
    long number = atomic_fetch_add(&counted, 1) + 1;
    if (number != fail_at)
        return false;
    int kept = errno;
    if ((pid_t)syscall(SYS_getpid) != counting)
        return false;
    note(call, number);
    errno = kept;
    return true;
}

/* The next definition of a function. dlsym itself may allocate: that call is served by libc. */
#define NEXT(type, name, args)                                                                 \
    static type(*next) args;                                                                   \
    if (next == NULL)                                                                          \
        *(void **)&next = dlsym(RTLD_NEXT, #name)

#define WRAP(type, name, declared, passed, number)                                             \
    type name declared;                                                                        \
    type name declared                                                                         \
    {                                                                                          \
        NEXT(type, name, declared);                                                            \
        if (fails(#name)) {                                                                    \
            errno = number;                                                                    \
            return (type)-1;                                                                   \
        }                                                                                      \
        return next passed;                                                                    \
    }

#define WRAP_POINTER(type, name, declared, passed, number)                                     \
    type name declared;                                                                        \
    type name declared                                                                         \
    {                                                                                          \
        NEXT(type, name, declared);                                                            \
        if (fails(#name)) {                                                                    \
            errno = number;                                                                    \
            return NULL;                                                                       \
        }                                                                                      \
        return next passed;                                                                    \
    }

void *__libc_malloc(size_t size);
void *__libc_calloc(size_t count, size_t size);
void *__libc_realloc(void *old, size_t size);
void *__libc_memalign(size_t alignment, size_t size);

void *malloc(size_t size) { return fails("malloc") ? (errno = ENOMEM, NULL) : __libc_malloc(size); }
void *calloc(size_t count, size_t size)
{
    return fails("calloc") ? (errno = ENOMEM, NULL) : __libc_calloc(count, size);
}
void *realloc(void *old, size_t size)
{
    return fails("realloc") ? (errno = ENOMEM, NULL) : __libc_realloc(old, size);
}
void *reallocarray(void *old, size_t count, size_t size)
{
    size_t bytes;
    if (__builtin_mul_overflow(count, size, &bytes) || fails("reallocarray")) {
        errno = ENOMEM;
        return NULL;
    }
    return __libc_realloc(old, bytes);
}
void *aligned_alloc(size_t alignment, size_t size)
{
    return fails("aligned_alloc") ? (errno = ENOMEM, NULL) : __libc_memalign(alignment, size);
}
int posix_memalign(void **out, size_t alignment, size_t size)
{
    void *got = fails("posix_memalign") ? NULL : __libc_memalign(alignment, size);
    if (got == NULL)
        return ENOMEM;
    *out = got;
    return 0;
}

WRAP(ssize_t, read, (int fd, void *data, size_t len), (fd, data, len), EIO)
WRAP(ssize_t, write, (int fd, const void *data, size_t len), (fd, data, len), EIO)
WRAP(ssize_t, pread, (int fd, void *data, size_t len, off_t at), (fd, data, len, at), EIO)
WRAP(ssize_t, pwrite, (int fd, const void *data, size_t len, off_t at), (fd, data, len, at), EIO)
WRAP(ssize_t, pread64, (int fd, void *data, size_t len, off64_t at), (fd, data, len, at), EIO)
WRAP(ssize_t, pwrite64, (int fd, const void *data, size_t len, off64_t at), (fd, data, len, at),
     EIO)
WRAP(int, fsync, (int fd), (fd), EIO)
WRAP(int, fdatasync, (int fd), (fd), EIO)
WRAP(int, ftruncate, (int fd, off_t len), (fd, len), EIO)
WRAP(int, ftruncate64, (int fd, off64_t len), (fd, len), EIO)
WRAP(int, rename, (const char *from, const char *to), (from, to), EIO)
WRAP(int, mkdir, (const char *path, mode_t mode), (path, mode), ENOSPC)
WRAP(int, unlink, (const char *path), (path), EIO)
WRAP(int, unlinkat, (int at, const char *path, int flags), (at, path, flags), EIO)
WRAP(int, stat, (const char *path, struct stat *out), (path, out), EIO)
WRAP(int, fstat, (int fd, struct stat *out), (fd, out), EIO)
WRAP(int, flock, (int fd, int how), (fd, how), ENOLCK)
WRAP(int, pipe2, (int ends[2], int flags), (ends, flags), EMFILE)
WRAP(int, dup2, (int from, int to), (from, to), EMFILE)
WRAP(pid_t, fork, (void), (), EAGAIN)
WRAP(int, poll, (struct pollfd * fds, nfds_t count, int timeout), (fds, count, timeout), EINTR)
WRAP(ssize_t, send, (int fd, const void *data, size_t len, int flags), (fd, data, len, flags),
     ECONNRESET)
WRAP(ssize_t, recv, (int fd, void *data, size_t len, int flags), (fd, data, len, flags),
     ECONNRESET)
WRAP(int, accept4, (int fd, void *address, unsigned *len, int flags),
     (fd, address, len, flags), EMFILE)
WRAP(ssize_t, getrandom, (void *data, size_t len, unsigned flags), (data, len, flags), EAGAIN)
WRAP(void *, mmap, (void *at, size_t len, int prot, int flags, int fd, off_t offset),
     (at, len, prot, flags, fd, offset), ENOMEM)
WRAP_POINTER(void *, opendir, (const char *path), (path), EMFILE)
WRAP_POINTER(void *, fdopendir, (int fd), (fd), ENOMEM)

int open(const char *path, int flags, ...);
int open(const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (fails("open")) {
        errno = EMFILE;
        return -1;
    }
    return (int)syscall(SYS_openat, AT_FDCWD, path, flags, mode);
}

int open64(const char *path, int flags, ...) __attribute__((alias("open")));

int openat(int at, const char *path, int flags, ...);
int openat(int at, const char *path, int flags, ...)
{
    va_list args;
    va_start(args, flags);
    mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(args, mode_t) : 0;
    va_end(args);
    if (fails("openat")) {
        errno = EMFILE;
        return -1;
    }
    return (int)syscall(SYS_openat, at, path, flags, mode);
}

/* The descriptor is gone all the same, as after a write-back error. */
int close(int fd);
int close(int fd)
{
    bool bad = fails("close");
    int code = (int)syscall(SYS_close, fd);
    if (bad)
        errno = EIO;
    return bad ? -1 : code;
}

int pthread_create(pthread_t *thread, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
    NEXT(int, pthread_create,
         (pthread_t *, const pthread_attr_t *, void *(*)(void *), void *));
    return fails("pthread_create") ? EAGAIN : next(thread, attr, fn, arg);
}

static void report(void)
{
    if (armed && (pid_t)syscall(SYS_getpid) == counting) {
        armed = false;
        note("calls", atomic_load(&counted));
    }
}

static int (*real_main)(int, char **, char **);

static int counted_main(int argc, char **argv, char **environment)
{
    const char *at = getenv("HEBB_FAULT_AT"), *program = getenv("HEBB_FAULT_PROGRAM");
    log_path = getenv("HEBB_FAULT_LOG");
    fail_at = at != NULL ? atol(at) : 0;
    counting = getpid();
    if (program != NULL && strcmp(program, program_invocation_short_name) == 0) {
        if (fail_at == 0)
            atexit(report);
        armed = true;
    }
    return real_main(argc, argv, environment);
}

int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
                      void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                      void *stack_end);
int __libc_start_main(int (*main)(int, char **, char **), int argc, char **argv,
                      void (*init)(void), void (*fini)(void), void (*rtld_fini)(void),
                      void *stack_end)
{
    NEXT(int, __libc_start_main,
         (int (*)(int, char **, char **), int, char **, void (*)(void), void (*)(void),
          void (*)(void), void *));
    real_main = main;
    return next(counted_main, argc, argv, init, fini, rtld_fini, stack_end);
}
