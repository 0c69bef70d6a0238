/* A poll loop: descriptors, timers, one callback each. Everything runs on the calling thread.
 */
#ifndef HEBB_DAEMON_LOOP_H
#define HEBB_DAEMON_LOOP_H

#include "proto/base/err.h"
#include <stdint.h>

struct loop;

int loop_create(struct loop **out, struct err *err);
void loop_destroy(struct loop *loop);

/* Watches fd for reading. The callback runs once per turn while it is readable. */
int loop_add_fd(struct loop *loop, int fd, void (*fn)(void *context, int fd), void *context,
                struct err *err);
void loop_remove_fd(struct loop *loop, int fd);

/* Calls fn every interval_ms, first after interval_ms. Returns an id for loop_remove_timer. */
int loop_add_timer(struct loop *loop, int64_t interval_ms, void (*fn)(void *context),
                   void *context);
void loop_remove_timer(struct loop *loop, int id);

/* before_wait may shorten the wait: it returns the most milliseconds to sleep, -1 for no limit
 * (libmicrohttpd's timeout). */
void loop_set_before_wait(struct loop *loop, int64_t (*fn)(void *context), void *context);
/* Runs at the end of every turn (the group commit). */
void loop_set_after_turn(struct loop *loop, void (*fn)(void *context), void *context);

int loop_run(struct loop *loop, struct err *err); /* until loop_stop */
void loop_stop(struct loop *loop);

#endif
