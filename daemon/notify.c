#include "daemon/notify.h"
#include "proto/base/clock.h"
#include "proto/base/log.h"
#include <inttypes.h>
#include <stdint.h>
#include <string.h>
#include <systemd/sd-daemon.h>

enum { BEATS = 3 /* per time that the watchdog waits */ };

static void tell(const char *state)
{
    int code = sd_notify(0, state);
    if (code < 0)
        log_warn("service manager: %s", strerror(-code));
}

static void beat(void *context)
{
    (void)context;
    tell("WATCHDOG=1");
}

void notify_ready(struct loop *loop, const char *status)
{
    uint64_t wait_us = 0;
    int code = sd_notifyf(0, "READY=1\nSTATUS=%s", status);
    if (code < 0)
        log_warn("service manager: %s", strerror(-code));
    if (sd_watchdog_enabled(0, &wait_us) <= 0)
        return;
    int64_t interval_ms = (int64_t)(wait_us / 1000 / BEATS);
    loop_add_timer(loop, interval_ms > 0 ? interval_ms : 1, beat, NULL);
}

void notify_reloading(void)
{
    int code =
        sd_notifyf(0, "RELOADING=1\nMONOTONIC_USEC=%" PRId64, clock_monotonic_ms() * 1000);
    if (code < 0)
        log_warn("service manager: %s", strerror(-code));
}

void notify_ready_again(void) { tell("READY=1"); }

void notify_stopping(void) { tell("STOPPING=1"); }
