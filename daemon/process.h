/* Processes by identity, never by number alone: a pid may have been given to another process
 * after a reboot or by chance. */
#ifndef HEBB_DAEMON_PROCESS_H
#define HEBB_DAEMON_PROCESS_H

#include "proto/base/err.h"
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

enum { PROCESS_BOOT_ID_MAX = 64 };

struct process_identity {
    pid_t pid;
    char boot_id[PROCESS_BOOT_ID_MAX]; /* of the kernel that runs it */
    uint64_t start_ticks;              /* field 22 of /proc/PID/stat */
};

int process_boot_id(char out[PROCESS_BOOT_ID_MAX], struct err *err);
int process_identify(struct process_identity *out, pid_t pid,
                     struct err *err); /* ERR_NOT_FOUND */

/* Sends signal if the very process still lives: through a pidfd, after comparing boot and
 * start. *sent is false when it is gone. Signal 0 only looks. */
int process_signal(const struct process_identity *identity, int signal, bool *sent,
                   struct err *err);

/* Sends SIGKILL to every descendant of pid (children, their children, ...). Returns how many
 * were found. */
size_t process_kill_descendants(pid_t pid);

/* Sends SIGKILL to every process of this user whose environment holds exactly the entry mark
 * ("NAME=value"). */
size_t process_kill_marked(const char *mark);

#endif
