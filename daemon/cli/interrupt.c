#include "daemon/cli/interrupt.h"

#include <errno.h>
#include <signal.h>
#include <stdint.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <unistd.h>

/* A handler and not a blocked signal: a library's threads (BLAS has some) do not inherit what
 * main blocks later, and would take the signal and its default. */
static int interrupt_fd = -1;
static struct sigaction before;

static void on_interrupt(int signal)
{
    const uint64_t one = 1;
    const int saved = errno;
    ssize_t written = write(interrupt_fd, &one, sizeof(one));
    (void)signal;
    (void)written; /* it is readable already */
    errno = saved;
}

int interrupt_begin(void)
{
    struct sigaction action = {.sa_handler = on_interrupt};
    sigemptyset(&action.sa_mask);
    interrupt_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (interrupt_fd < 0) {
        perror("hebb: eventfd");
        return -1;
    }
    sigaction(SIGINT, &action, &before);
    return interrupt_fd;
}

void interrupt_end(void)
{
    sigaction(SIGINT, &before, NULL);
    close(interrupt_fd);
    interrupt_fd = -1;
}
