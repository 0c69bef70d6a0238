/* What hebbd tells the service manager (systemd): ready, stopping, alive. Without one nothing
 * is done. */
#ifndef HEBB_DAEMON_NOTIFY_H
#define HEBB_DAEMON_NOTIFY_H

#include "daemon/loop.h"

/* Says that the service is ready, and starts the timer that feeds the watchdog from the poll
 * loop: a loop that hangs is restarted. */
void notify_ready(struct loop *loop, const char *status);

void notify_reloading(void); /* notify_ready_again when it is done */
void notify_ready_again(void);
void notify_stopping(void);

#endif
